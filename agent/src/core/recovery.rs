//! What becomes of the records that an earlier process of this agent left.
//!
//! Each task is looked at with what the containerizer found of its container: one that runs goes on, one
//! that has ended meanwhile is reported, one of which nothing is known (as after a restart of the machine) has failed, and one whose shim
//! did not answer is gone. Updates that were not acknowledged go out again, none of those that were.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tepui_api::v1::framework_info::capability;
use tepui_api::v1::task_status::Reason;
use tepui_api::v1::{
    AgentInfo, ContainerId, DrainConfig, FrameworkId, FrameworkInfo, NetworkInfo, TaskInfo, TaskState,
    TaskStatus,
};

use super::containers::exit_verdict;
use super::executor::{Amounts, Executor, ExecutorKey, ExecutorLife};
use super::executor_end::terminated;
use super::executors::{NO_STATUS, amounts};
use super::frames::limits_of;
use super::input::{
    ContainerCommand, ExecutorWrite, FrameworkFate, Launch, Limitation, Now, Output, TaskWrite, Workload,
    Write,
};
use super::kill::Timer;
use super::pods::is_pod;
use super::status::{Verdict, can, dropped, is_terminal};
use super::task::{KillOrder, Life, Task, TaskKey, shown};
use super::{Core, Drain};
use crate::checks::check::Health;

/// All that was on disk.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StoredState {
    /// What the agent was registered as.
    pub agent: Option<AgentInfo>,
    /// The machine's boot id when it was last written down.
    pub boot_id: Option<String>,
    /// The drain that was under way.
    pub drain: Option<DrainConfig>,
    /// The frameworks with something here.
    pub frameworks: Vec<(FrameworkInfo, FrameworkFate)>,
    /// Frameworks' own executors.
    pub executors: Vec<ExecutorWrite>,
    /// The tasks with their updates.
    pub tasks: Vec<StoredTask>,
    /// Updates about tasks that were never here.
    pub orphans: Vec<(TaskKey, Vec<StoredUpdate>)>,
    /// How many records could not be read, and are left out.
    pub errors: u64,
}

/// A task as it was on disk.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredTask {
    /// Its record.
    pub record: TaskWrite,
    /// Its updates, in order.
    pub updates: Vec<StoredUpdate>,
}

/// An update as it was on disk.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredUpdate {
    /// Its number in its task's stream.
    pub sequence: u64,
    /// The update.
    pub status: Arc<TaskStatus>,
    /// Whether it was acknowledged.
    pub acknowledged: bool,
}

/// What the containerizer found of a container.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// It runs.
    Running {
        /// Its first process.
        pid: u32,
        /// The networks it has of its own.
        networks: Vec<NetworkInfo>,
    },
    /// Its first process has ended.
    Exited {
        /// As wait(2) gives it; `None` when nobody knows.
        status: Option<i32>,
        /// The limit for which it was ended.
        limitation: Option<Limitation>,
    },
    /// It was never started, or nothing is known of it.
    Nothing,
    /// Its shim was there, but did not answer, and was ended.
    Unanswered,
}

impl StoredState {
    /// The containers that may still be there, with what they were made from.
    pub fn launches(&self) -> impl Iterator<Item = (ContainerId, Arc<Launch>)> {
        let with_container = self
            .tasks
            .iter()
            .filter(|task| has_own_container(&task.record) && !task.record.container.value.is_empty());
        let of_tasks = with_container.map(|task| {
            let record = &task.record;
            let launch = Launch {
                workload: Workload::Task(record.key.clone(), record.info.clone()),
                framework: self.framework(&record.key.framework),
                resources: record.info.resources.clone(),
                limits: limits_of(&record.info),
                directory: record.directory.clone(),
                user: record.user.clone(),
                environment: Vec::new(),
            };
            (record.container.clone(), Arc::new(launch))
        });
        of_tasks.chain(self.executors.iter().map(|record| {
            let amounts = stored_amounts(&self.tasks, record);
            let launch = Launch {
                workload: Workload::Executor(record.key.clone(), record.info.clone()),
                framework: self.framework(&record.key.framework),
                resources: amounts.resources,
                limits: amounts.limits,
                directory: record.directory.clone(),
                user: record.user.clone(),
                environment: Vec::new(),
            };
            (record.container.clone(), Arc::new(launch))
        }))
    }

    fn framework(&self, id: &FrameworkId) -> Arc<FrameworkInfo> {
        let framework = self.frameworks.iter().find(|(info, _)| info.id.as_ref() == Some(id));
        Arc::new(framework.map(|(info, _)| info.clone()).unwrap_or_default())
    }
}

// === impl Core ===

impl Core {
    /// Takes over what was on disk. To be called once, before the first [`Core::step`].
    pub fn recover(
        &mut self,
        now: Now,
        stored: StoredState,
        found: &HashMap<ContainerId, Found>,
        out: &mut Vec<Output>,
    ) {
        let Some(agent) = stored.agent else { return };
        self.agent = Arc::new(AgentInfo { id: agent.id.clone(), ..self.config.agent.clone() });
        self.reconfigured = *self.agent != agent;
        self.drain = stored.drain.map(|config| Drain { config, since: now.unix });
        for (info, fate) in stored.frameworks {
            let Some(id) = info.id.clone() else { continue };
            self.frameworks.enter(&id, Arc::new(info)).fate = fate;
        }
        for (key, updates) in &stored.orphans {
            self.restore_stream(key, updates, false);
        }
        let amounts: Vec<Amounts> =
            stored.executors.iter().map(|executor| stored_amounts(&stored.tasks, executor)).collect();
        let executors: Vec<ExecutorKey> =
            stored.executors.iter().map(|executor| executor.key.clone()).collect();
        for (executor, amounts) in stored.executors.into_iter().zip(amounts) {
            self.recover_executor(executor, amounts, found);
        }
        for task in stored.tasks {
            if !has_own_container(&task.record) && !task.record.container.value.is_empty() {
                self.recover_delegated(now, task, out);
                continue;
            }
            let state = found.get(&task.record.container).cloned().unwrap_or(Found::Nothing);
            self.recover_task(now, task, state, out);
        }
        for key in &executors {
            self.settle_executor(now, key, found, out);
        }
        let idle: Vec<_> = self.frameworks.active.keys().cloned().collect();
        for id in idle {
            if let Some(write) = self.retire_if_idle(&id) {
                self.store(vec![write], None, out);
            }
        }
        self.carry_out_drain(now, out);
    }

    /// Writes down which start of the machine this is. To be called when what an earlier one left is dealt with.
    pub fn note_boot(&mut self, boot_id: String, out: &mut Vec<Output>) {
        self.store(vec![Write::BootId(boot_id)], None, out);
    }

    /// Forgets all that was on disk: the agent is another than the one that wrote it.
    pub fn forget(&mut self, out: &mut Vec<Output>) {
        self.store(vec![Write::Clear], None, out);
    }

    fn recover_task(&mut self, now: Now, stored: StoredTask, found: Found, out: &mut Vec<Output>) {
        let StoredTask { record, updates } = stored;
        let key = record.key.clone();
        let mut task = Task {
            key: key.clone(),
            shown: Arc::new(shown(&key, &record.info)),
            info: record.info,
            container: record.container,
            directory: record.directory,
            user: record.user,
            group: record.group,
            life: Life::Starting { kill: None },
            pid: None,
            networks: Vec::new(),
            description: None,
        };
        let never_had_one = task.container.value.is_empty();
        if never_had_one {
            task.life = Life::Terminated;
        }
        for update in &updates {
            task.show(&update.status);
            if update.acknowledged {
                task.show_sent(&update.status);
            }
        }
        if let Found::Running { pid, networks } = &found {
            task.pid = Some(*pid);
            task.networks.clone_from(networks);
        } else {
            task.pid = last_pid(&updates);
        }
        let container = task.container.clone();
        let over = updates.last().is_some_and(|update| is_terminal(update.status.state()));
        self.add_task(task);
        self.restore_stream(&key, &updates, over && !never_had_one);
        if never_had_one {
            return self.recover_refused(now, &key, over, out);
        }
        if self.is_abandoned(&key) || over {
            self.set_life(&key, Life::Ending);
            out.push(Output::Container(container, ContainerCommand::Destroy));
            return;
        }
        let (order, health) = (record.kill, record.health.unwrap_or_default());
        match found {
            Found::Running { .. } => self.adopt(now, &key, order, health, &updates, out),
            Found::Exited { status, limitation } => {
                self.catch_up(now, &key, out);
                let killed = order.map(|order| order.cause);
                self.counters.terminated += 1;
                self.end(now, &key, exit_verdict(status, limitation.as_ref(), killed), out);
            }
            Found::Nothing => {
                let message = "nothing was left of the task's container when the agent started anew";
                let verdict = Verdict::agent(TaskState::TaskFailed, Reason::ExecutorTerminated, message);
                self.end(now, &key, verdict, out);
            }
            Found::Unanswered => {
                // As Mesos says it of an executor that does not come back to its agent.
                let framework = self.frameworks.get(&key.framework).map(|framework| &framework.info);
                let knows_gone = framework.is_some_and(|info| can(info, capability::Type::PartitionAware));
                let state = if knows_gone { TaskState::TaskGone } else { TaskState::TaskLost };
                let message = "the task's container did not answer the agent that started anew";
                let reason = Reason::ExecutorReregistrationTimeout;
                self.end(now, &key, Verdict::agent(state, reason, message), out);
            }
        }
    }

    fn recover_executor(
        &mut self,
        record: ExecutorWrite,
        amounts: Amounts,
        found: &HashMap<ContainerId, Found>,
    ) {
        let (pid, networks) = match found.get(&record.container) {
            Some(Found::Running { pid, networks }) => (Some(*pid), networks.clone()),
            _ => (None, Vec::new()),
        };
        let life = match pid {
            Some(_) if is_pod(&record.info) => ExecutorLife::Running { stream: None },
            _ => ExecutorLife::Registering,
        };
        self.add_executor(Executor {
            key: record.key,
            info: record.info,
            container: record.container,
            directory: record.directory,
            user: record.user,
            life,
            pid,
            networks,
            // Of what it was given, all may be acknowledged and forgotten.
            ever_sent: true,
            amounts,
            update: None,
            kills: BTreeMap::new(),
            verdict: None,
        });
    }

    /// A task that an executor had, or waited to be given. Whether it was given it is not known; the executor says so when it subscribes.
    fn recover_delegated(&mut self, now: Now, stored: StoredTask, out: &mut Vec<Output>) {
        let StoredTask { record, updates } = stored;
        let key = record.key.clone();
        let over = updates.last().is_some_and(|update| is_terminal(update.status.state()));
        let mut task = Task {
            key: key.clone(),
            shown: Arc::new(shown(&key, &record.info)),
            info: record.info,
            container: record.container,
            directory: record.directory,
            user: record.user,
            group: record.group,
            life: if over { Life::Terminated } else { Life::Delegated },
            pid: None,
            networks: Vec::new(),
            description: None,
        };
        for update in &updates {
            task.show(&update.status);
            if update.acknowledged {
                task.show_sent(&update.status);
            }
        }
        let executor = task.executor();
        let executor_is_here = executor.is_some_and(|executor| self.frameworks.executor(&executor).is_some());
        self.add_task(task);
        self.restore_stream(&key, &updates, false);
        for update in &updates {
            self.streams.remember(&key, update.status.uuid.as_deref());
        }
        if executor_is_here {
            return;
        }
        if self.is_abandoned(&key) {
            self.forget_task(&key, out);
        } else if !over {
            self.set_life(&key, Life::Terminated);
            let message = "nothing was left of the task's executor when the agent started anew";
            let verdict = Verdict::agent(TaskState::TaskFailed, Reason::ExecutorTerminated, message);
            self.update(now, &key, verdict, false, out);
        }
    }

    /// One that runs has to subscribe; the others are over.
    fn settle_executor(
        &mut self,
        now: Now,
        key: &ExecutorKey,
        found: &HashMap<ContainerId, Found>,
        out: &mut Vec<Output>,
    ) {
        let Some(executor) = self.frameworks.executor(key) else { return };
        let container = executor.container.clone();
        let found = found.get(&container).cloned().unwrap_or(Found::Nothing);
        if self.is_gone(key) {
            return self.end_executor(now, key, NO_STATUS, terminated(None), out);
        }
        match found {
            Found::Running { .. } if executor.is_pod() => self.resume_pod(now, key, out),
            Found::Running { .. } => {
                tracing::info!(executor = %key, %container, "the executor goes on, and is expected to subscribe");
                let timer = Timer::Reregistration(key.clone(), container.value);
                self.timers.insert((now.monotonic + self.config.executor_reregistration_timeout, timer));
            }
            Found::Exited { status, limitation } => {
                self.counters.terminated += 1;
                let status = status.unwrap_or(NO_STATUS);
                self.end_executor(now, key, status, terminated(limitation.as_ref()), out);
            }
            Found::Nothing => {
                let message = "nothing was left of the executor's container when the agent started anew";
                let verdict = Verdict::agent(TaskState::TaskFailed, Reason::ExecutorTerminated, message);
                self.end_executor(now, key, NO_STATUS, verdict, out);
            }
            Found::Unanswered => {
                let message = "the executor's container did not answer the agent that started anew";
                let reason = Reason::ExecutorReregistrationTimeout;
                let verdict = Verdict::agent(self.gone(key), reason, message);
                self.end_executor(now, key, NO_STATUS, verdict, out);
            }
        }
    }

    /// A task that was refused: nothing of it ever was but a record and an update.
    fn recover_refused(&mut self, now: Now, key: &TaskKey, told: bool, out: &mut Vec<Output>) {
        if self.is_abandoned(key) {
            self.forget_task(key, out);
        } else if !told {
            // Earlier versions wrote the record first, and could be killed before the update.
            let framework = self.frameworks.get(&key.framework).map(|framework| framework.info.clone());
            let state = dropped(&framework.unwrap_or_default());
            let message = "the agent refused the task, and was killed before it could say why";
            self.update(now, key, Verdict::agent(state, Reason::AgentRestarted, message), false, out);
        }
    }

    /// A container that runs goes on, and so does the kill that was under way.
    fn adopt(
        &mut self,
        now: Now,
        key: &TaskKey,
        order: Option<KillOrder>,
        health: Health,
        updates: &[StoredUpdate],
        out: &mut Vec<Output>,
    ) {
        self.catch_up(now, key, out);
        self.set_life(key, Life::Running);
        let Some(task) = self.frameworks.task(key) else { return };
        tracing::info!(task = %key, container = %task.container, pid = task.pid, "the task goes on");
        let running = updates.iter().find(|u| u.status.state() == TaskState::TaskRunning);
        let since =
            running.and_then(|u| Duration::try_from_secs_f64(u.status.timestamp?).ok()).unwrap_or(now.unix);
        if let Some(limit) = task.info.max_completion_time.filter(|limit| limit.nanoseconds > 0) {
            let total = Duration::from_nanos(u64::try_from(limit.nanoseconds).unwrap_or(0));
            let at = now.monotonic + total.saturating_sub(now.unix.saturating_sub(since));
            self.timers.insert((at, Timer::Completion(key.clone())));
        }
        match order {
            // With its whole grace period again.
            Some(order) => self.kill(now, key, order, out),
            None => self.resume_checks(now, key, since, health, updates, out),
        }
    }

    /// Makes the updates that the earlier process owed for a container that ran.
    fn catch_up(&mut self, now: Now, key: &TaskKey, out: &mut Vec<Output>) {
        let Some(state) = self.frameworks.task(key).map(|task| task.state()) else { return };
        if state == TaskState::TaskStaging {
            self.update(now, key, Verdict::executor(TaskState::TaskStarting), false, out);
        }
        if matches!(state, TaskState::TaskStaging | TaskState::TaskStarting) {
            self.update(now, key, Verdict::executor(TaskState::TaskRunning), false, out);
        }
    }

    fn restore_stream(&mut self, key: &TaskKey, updates: &[StoredUpdate], hold_last: bool) {
        for update in updates {
            if update.acknowledged {
                self.streams.continue_after(key, update.sequence);
            } else {
                let held = hold_last && is_terminal(update.status.state());
                self.streams.restore(key, update.sequence, update.status.clone(), held);
            }
        }
    }

    fn set_life(&mut self, key: &TaskKey, life: Life) {
        if let Some(task) = self.frameworks.task_mut(key) {
            task.life = life;
        }
    }
}

/// Whether a task has a container for itself, rather than that of its executor.
fn has_own_container(record: &TaskWrite) -> bool {
    record.info.executor.as_ref().is_none_or(is_pod)
}

/// What an executor's container may use by what is on record.
fn stored_amounts(tasks: &[StoredTask], executor: &ExecutorWrite) -> Amounts {
    let tasks = tasks.iter().filter(|task| {
        let over = task.updates.last().is_some_and(|update| is_terminal(update.status.state()));
        let own = task.record.info.executor.as_ref();
        !over
            && task.record.key.framework == executor.key.framework
            && own.is_some_and(|own| own.executor_id == executor.key.executor)
    });
    let tasks: Vec<&TaskInfo> = tasks.map(|task| &*task.record.info).collect();
    amounts(&executor.info, &tasks)
}

fn last_pid(updates: &[StoredUpdate]) -> Option<u32> {
    updates.iter().rev().find_map(|update| update.status.container_status.as_ref()?.executor_pid)
}
