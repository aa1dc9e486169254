//! The life of a framework's own executor: it is started for its first task, given its tasks, and its end is theirs.
//!
//! What it says itself is in [`super::executor_calls`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tepui_api::link::{ExecutorExited, agent_frame};
use tepui_api::resources::Resources;
use tepui_api::v1::executor::{Event, event};
use tepui_api::v1::framework_info::capability;
use tepui_api::v1::task_status::Reason;
use tepui_api::v1::{
    ContainerId, ExecutorInfo, FrameworkInfo, KillPolicy, NetworkInfo, TaskGroupInfo, TaskId, TaskInfo,
    TaskState,
};

use super::executor::{Amounts, Executor, ExecutorKey, ExecutorLife, StreamId, Updating};
use super::frames::record;
use super::input::{
    ContainerCommand, ContainerEvent, ExecutorWrite, FrameworkFate, Launch, Limitation, Now, Output,
    Workload, Write,
};
use super::kill::{KILL, Timer};
use super::pods::{is_pod, nested};
use super::registration::Link;
use super::status::{Verdict, can, dropped, is_terminal};
use super::task::{Life, Task, TaskKey, shown};
use super::updates::Released;
use super::{Core, Owner, Waiting, refusal};
use crate::sandbox::{environment, paths};

/// The exit status that the API has for one that nobody knows.
pub(super) const NO_STATUS: i32 = -1;

impl Core {
    /// Takes on tasks that an executor of their framework's own shall run: one, or the tasks of a group.
    pub(super) fn delegate(
        &mut self,
        key: &ExecutorKey,
        info: &ExecutorInfo,
        framework: &Arc<FrameworkInfo>,
        tasks: Vec<Arc<TaskInfo>>,
        group: Option<Arc<str>>,
        out: &mut Vec<Output>,
    ) {
        let known = self
            .frameworks
            .executor(key)
            .map(|executor| (executor.container.clone(), executor.directory.clone(), executor.user.clone()));
        let (container, directory, user, starts) = match known {
            Some((container, directory, user)) => (container, directory, user, false),
            None => {
                let Some(agent) = self.agent_id().cloned() else { return };
                let container = ContainerId::new(uuid::Uuid::from_bytes(self.uuid()).to_string());
                let directory = paths::run(
                    &self.config.work_dir,
                    &agent,
                    &key.framework,
                    &key.executor.value,
                    &container,
                );
                let user = self.config.switch_user.then(|| refusal::user_of_executor(framework, info));
                (container, directory, user, true)
            }
        };
        let mut writes = Vec::new();
        let mut keys = Vec::new();
        let pod = is_pod(info);
        for info in tasks {
            let task_key = TaskKey::new(key.framework.clone(), info.task_id.clone());
            let (container, directory, user, life) = if pod {
                let own = nested(&container, uuid::Uuid::from_bytes(self.uuid()).to_string());
                let directory = paths::nested(&directory, &own.value);
                let user = self.config.switch_user.then(|| refusal::user_of(framework, &info));
                (own, directory, user, Life::Preparing { stored: false, prepared: false })
            } else {
                (container.clone(), directory.clone(), user.clone(), Life::Queued { stored: false })
            };
            let task = Task {
                key: task_key.clone(),
                shown: Arc::new(shown(&task_key, &info)),
                info,
                container,
                directory,
                user,
                group: group.clone(),
                life,
                pid: None,
                networks: Vec::new(),
                description: None,
            };
            tracing::info!(task = %task_key, executor = %key.executor, "taking on a task for its executor");
            writes.push(record(&task, None));
            self.add_task(task);
            keys.push(task_key);
        }
        if starts {
            let executor = Executor {
                key: key.clone(),
                info: Arc::new(ExecutorInfo { framework_id: Some(key.framework.clone()), ..info.clone() }),
                container: container.clone(),
                directory,
                user,
                life: ExecutorLife::Preparing { stored: false, prepared: false, stream: None },
                pid: None,
                networks: Vec::new(),
                ever_sent: false,
                amounts: Amounts::default(),
                update: None,
                kills: BTreeMap::new(),
                verdict: None,
            };
            tracing::info!(executor = %key, %container, "starting an executor");
            writes.push(executor_record(&executor));
            self.add_executor(executor);
            let amounts = self.amounts_of(key);
            if let Some(executor) = self.frameworks.executor_mut(key) {
                executor.amounts.clone_from(&amounts);
            }
            if let Some(launch) = self.launch_of(key, framework) {
                out.push(Output::Container(container, ContainerCommand::Prepare(Arc::new(launch))));
            }
        }
        if pod && !starts {
            self.prepare_in_pod(key, &keys, out);
        }
        let waiting = Waiting::Delegation { executor: key.clone(), tasks: keys };
        self.store(writes, Some(waiting), out);
    }

    pub(super) fn add_executor(&mut self, executor: Executor) {
        let (key, container) = (executor.key.clone(), executor.container.clone());
        self.containers.insert(container, Owner::Executor(key.clone()));
        if let Some(framework) = self.frameworks.active.get_mut(&key.framework) {
            framework.executors.insert(key.executor, Arc::new(executor));
        }
    }

    fn launch_of(&self, key: &ExecutorKey, framework: &Arc<FrameworkInfo>) -> Option<Launch> {
        let executor = self.frameworks.executor(key)?;
        let variables = environment::Variables {
            config: &self.config,
            agent: self.agent_id()?,
            framework,
            directory: &executor.directory,
        };
        Some(Launch {
            workload: Workload::Executor(key.clone(), executor.info.clone()),
            framework: framework.clone(),
            resources: executor.amounts.resources.clone(),
            limits: executor.amounts.limits.clone(),
            directory: executor.directory.clone(),
            user: executor.user.clone(),
            environment: environment::of_executor(&variables, &executor.info, &executor.amounts.resources),
        })
    }

    /// What the container of an executor may use: what it and all its tasks may.
    pub(super) fn amounts_of(&self, key: &ExecutorKey) -> Amounts {
        let Some(executor) = self.frameworks.executor(key) else { return Amounts::default() };
        let tasks = self.frameworks.tasks_of(key).filter(|task| !is_terminal(task.state()));
        let tasks: Vec<&TaskInfo> = tasks.map(|task| &*task.info).collect();
        amounts(&executor.info, &tasks)
    }

    /// The records are on disk.
    pub(super) fn delegation_stored(
        &mut self,
        now: Now,
        key: &ExecutorKey,
        tasks: &[TaskKey],
        out: &mut Vec<Output>,
    ) {
        for task in tasks {
            if let Some(task) = self.frameworks.task_mut(task)
                && let Life::Queued { stored } = &mut task.life
            {
                *stored = true;
            }
        }
        let Some(executor) = self.frameworks.executor_mut(key) else { return };
        let pod = executor.is_pod();
        if let ExecutorLife::Preparing { stored, .. } = &mut executor.life {
            *stored = true;
            self.start_executor_if_ready(key, out);
        } else {
            self.hand_over(key, out);
        }
        for task in tasks.iter().filter(|_| pod) {
            self.record_stored(now, task, out);
        }
    }

    /// What happened to an executor's container.
    pub(super) fn executor_event(
        &mut self,
        now: Now,
        key: &ExecutorKey,
        event: ContainerEvent,
        out: &mut Vec<Output>,
    ) {
        match event {
            ContainerEvent::Prepared { networks } => {
                let Some(executor) = self.frameworks.executor_mut(key) else { return };
                if let ExecutorLife::Preparing { prepared, .. } = &mut executor.life {
                    *prepared = true;
                    executor.networks = networks;
                    self.start_executor_if_ready(key, out);
                }
            }
            ContainerEvent::Started { pid, networks } => self.executor_started(now, key, pid, networks, out),
            ContainerEvent::NoSandbox(message) => {
                self.counters.launch_errors += 1;
                let Some(framework) = self.frameworks.get(&key.framework) else { return };
                let verdict = Verdict::agent(dropped(&framework.info), Reason::ExecutorTerminated, message);
                self.end_executor(now, key, NO_STATUS, verdict, out);
            }
            ContainerEvent::Failed { reason, message } => {
                self.counters.launch_errors += 1;
                let message = format!("Failed to launch container: {message}");
                let verdict = Verdict::agent(TaskState::TaskFailed, reason, message);
                self.end_executor(now, key, NO_STATUS, verdict, out);
            }
            ContainerEvent::Updated => {
                let update = self.frameworks.executor_mut(key).and_then(|executor| executor.update.take());
                if let Some(update) = update {
                    self.send_tasks(key, &update.then, out);
                    self.hand_over(key, out);
                    self.start_in_pod(now, key, out);
                }
            }
            ContainerEvent::NotUpdated(message) => self.executor_not_updated(now, key, &message, out),
            ContainerEvent::Exited { status, limitation } => {
                self.counters.terminated += 1;
                let status = status.unwrap_or(NO_STATUS);
                self.end_executor(now, key, status, terminated(limitation.as_ref()), out);
            }
            // An executor sees to the checks of its tasks itself, and says what it likes of them.
            ContainerEvent::Probed(..) | ContainerEvent::Described(_) => {}
            ContainerEvent::Destroyed => self.executor_destroyed(now, key, out),
            ContainerEvent::NotDestroyed(message) => {
                tracing::error!(executor = %key, message, "an executor's container could not be removed wholly");
                self.counters.destroy_errors += 1;
                self.executor_destroyed(now, key, out);
            }
        }
    }

    fn start_executor_if_ready(&mut self, key: &ExecutorKey, out: &mut Vec<Output>) {
        let Some(executor) = self.frameworks.executor_mut(key) else { return };
        if let ExecutorLife::Preparing { stored: true, prepared: true, stream } = executor.life {
            executor.life = ExecutorLife::Starting { stream };
            out.push(Output::Container(executor.container.clone(), ContainerCommand::Start));
            self.hand_over(key, out);
        }
    }

    fn executor_started(
        &mut self,
        now: Now,
        key: &ExecutorKey,
        pid: u32,
        networks: Vec<NetworkInfo>,
        out: &mut Vec<Output>,
    ) {
        let limit = self.config.executor_registration_timeout;
        let Some(executor) = self.frameworks.executor_mut(key) else { return };
        executor.pid = Some(pid);
        executor.networks = networks;
        let container = executor.container.clone();
        match executor.life {
            ExecutorLife::Starting { .. } if executor.is_pod() => self.pod_started(key, out),
            ExecutorLife::Starting { stream: None } => {
                executor.life = ExecutorLife::Registering;
                let timer = Timer::Registration(key.clone(), container.value);
                self.timers.insert((now.monotonic + limit, timer));
            }
            ExecutorLife::Starting { stream } => {
                executor.life = ExecutorLife::Running { stream };
                self.hand_over(key, out);
            }
            // The order to end it by force came when there was nothing to end yet.
            ExecutorLife::Terminating { escalates: None, .. } => {
                out.push(Output::Container(container, ContainerCommand::Signal(KILL)));
            }
            _ => {}
        }
    }

    /// Hands over what waits for an executor that takes tasks. Its container gets what they need first.
    pub(super) fn hand_over(&mut self, key: &ExecutorKey, out: &mut Vec<Output>) {
        let wanted = self.amounts_of(key);
        let ready = |task: &&Arc<Task>| task.life == (Life::Queued { stored: true });
        let then: BTreeSet<TaskId> =
            self.frameworks.tasks_of(key).filter(ready).map(|task| task.key.task.clone()).collect();
        let Some(executor) = self.frameworks.executor_mut(key) else { return };
        if executor.is_over() || executor.update.is_some() {
            return;
        }
        let then = if executor.takes_tasks() { then } else { BTreeSet::new() };
        if executor.amounts == wanted {
            if !then.is_empty() {
                self.send_tasks(key, &then, out);
            }
            return;
        }
        // One that is not there yet is made as it was asked for, and changed when it runs.
        if matches!(executor.life, ExecutorLife::Preparing { .. } | ExecutorLife::Starting { .. }) {
            return;
        }
        executor.amounts = wanted.clone();
        executor.update = Some(Updating { then });
        let command = ContainerCommand::Update(wanted.resources, wanted.limits);
        out.push(Output::Container(executor.container.clone(), command));
    }

    /// The executor is given these tasks, unless they were killed meanwhile; those of a group together.
    fn send_tasks(&mut self, key: &ExecutorKey, tasks: &BTreeSet<TaskId>, out: &mut Vec<Output>) {
        let Some(executor) = self.frameworks.executor(key) else { return };
        let Some(stream) = executor.stream().filter(|_| executor.takes_tasks()) else { return };
        let mut groups: BTreeMap<Arc<str>, Vec<TaskInfo>> = BTreeMap::new();
        let mut sent = false;
        for id in tasks {
            let task_key = TaskKey { framework: key.framework.clone(), task: id.clone() };
            let Some(task) = self.frameworks.task_mut(&task_key) else { continue };
            if !matches!(task.life, Life::Queued { .. }) {
                continue;
            }
            task.life = Life::Delegated;
            sent = true;
            let info = (*task.info).clone();
            match &task.group {
                Some(group) => groups.entry(group.clone()).or_default().push(info),
                None => send(
                    stream,
                    event::Type::Launch,
                    |event| event.launch = Some(event::Launch { task: info }),
                    out,
                ),
            }
        }
        for tasks in groups.into_values() {
            let task_group = TaskGroupInfo { tasks };
            let launch = event::LaunchGroup { task_group };
            send(stream, event::Type::LaunchGroup, |event| event.launch_group = Some(launch), out);
        }
        if let Some(executor) = self.frameworks.executor_mut(key) {
            executor.ever_sent |= sent;
        }
    }

    /// Mesos ends a container that it cannot give what its tasks need.
    fn executor_not_updated(&mut self, now: Now, key: &ExecutorKey, message: &str, out: &mut Vec<Output>) {
        let Some(update) = self.frameworks.executor_mut(key).and_then(|executor| executor.update.take())
        else {
            return;
        };
        let waits = |task: &Arc<Task>| matches!(task.life, Life::Queued { .. } | Life::Preparing { .. });
        if update.then.is_empty() && !self.frameworks.tasks_of(key).any(waits) {
            tracing::warn!(executor = %key, message, "an executor's container keeps the resources that it had");
            return self.start_in_pod(now, key, out);
        }
        let message = format!("Failed to update resources for container: {message}");
        let verdict = Verdict::agent(self.gone(key), Reason::ContainerUpdateFailed, message);
        self.end_by_force(now, key, verdict, out);
    }

    /// What a task is that may or may not have run, and certainly runs no more.
    pub(super) fn gone(&self, key: &ExecutorKey) -> TaskState {
        let framework = self.frameworks.get(&key.framework).map(|framework| &framework.info);
        let knows = framework.is_some_and(|info| can(info, capability::Type::PartitionAware));
        if knows { TaskState::TaskGone } else { TaskState::TaskLost }
    }

    /// Asks an executor to end, and ends it by force when its grace period is over.
    pub(super) fn shut_down_executor(&mut self, now: Now, key: &ExecutorKey, out: &mut Vec<Output>) {
        let usual = self.config.shutdown_grace_period;
        let Some(executor) = self.frameworks.executor_mut(key) else { return };
        let own = executor.info.shutdown_grace_period;
        let grace =
            own.map_or(usual, |own| Duration::from_nanos(u64::try_from(own.nanoseconds).unwrap_or(0)));
        if executor.is_pod() {
            return self.shut_down_pod(now, key, grace, out);
        }
        match executor.life {
            ExecutorLife::Preparing { .. } => {
                self.end_executor(now, key, NO_STATUS, terminated(None), out);
            }
            ExecutorLife::Starting { stream } | ExecutorLife::Running { stream } => {
                self.ask_to_end(now, key, stream, grace, out);
            }
            ExecutorLife::Registering => self.ask_to_end(now, key, None, grace, out),
            ExecutorLife::Terminating { .. } | ExecutorLife::Ending { .. } => {}
        }
    }

    pub(super) fn ask_to_end(
        &mut self,
        now: Now,
        key: &ExecutorKey,
        stream: Option<StreamId>,
        grace: Duration,
        out: &mut Vec<Output>,
    ) {
        let Some(executor) = self.frameworks.executor_mut(key) else { return };
        tracing::info!(executor = %key, ?grace, "shutting an executor down");
        let escalates = now.monotonic + grace;
        executor.life = ExecutorLife::Terminating { stream, escalates: Some(escalates) };
        let timer = Timer::ExecutorGrace(key.clone(), executor.container.value.clone());
        self.timers.insert((escalates, timer));
        if let Some(stream) = stream {
            send(stream, event::Type::Shutdown, |_| {}, out);
        }
    }

    /// Ends an executor's container at once, for a reason of the agent's.
    pub(super) fn end_by_force(
        &mut self,
        now: Now,
        key: &ExecutorKey,
        verdict: Verdict,
        out: &mut Vec<Output>,
    ) {
        let Some(executor) = self.frameworks.executor_mut(key) else { return };
        match executor.life {
            ExecutorLife::Preparing { .. } => return self.end_executor(now, key, NO_STATUS, verdict, out),
            ExecutorLife::Ending { .. } => return,
            _ => {}
        }
        executor.verdict.get_or_insert(verdict);
        executor.life = ExecutorLife::Terminating { stream: executor.stream(), escalates: None };
        out.push(Output::Container(executor.container.clone(), ContainerCommand::Signal(KILL)));
    }

    pub(super) fn executor_grace_over(
        &mut self,
        at: Duration,
        key: &ExecutorKey,
        container: &str,
        out: &mut Vec<Output>,
    ) {
        let Some(executor) = self.frameworks.executor_mut(key) else { return };
        if executor.container.value == container
            && let ExecutorLife::Terminating { escalates, .. } = &mut executor.life
            && *escalates == Some(at)
        {
            tracing::info!(executor = %key, "the executor did not end in its grace period: killing it by force");
            *escalates = None;
            out.push(Output::Container(executor.container.clone(), ContainerCommand::Signal(KILL)));
        }
    }

    /// The executor has not subscribed in time: as a new one, or to an agent that was restarted.
    pub(super) fn registration_over(
        &mut self,
        now: Now,
        key: &ExecutorKey,
        container: &str,
        again: bool,
        out: &mut Vec<Output>,
    ) {
        let waits = self.frameworks.executor(key).is_some_and(|executor| {
            executor.container.value == container && executor.life == ExecutorLife::Registering
        });
        if !waits {
            return;
        }
        let verdict = if again {
            let limit = tepui_api::units::Duration(self.config.executor_reregistration_timeout);
            let message = format!("Executor did not reregister within {limit}");
            Verdict::agent(self.gone(key), Reason::ExecutorReregistrationTimeout, message)
        } else {
            let limit = tepui_api::units::Duration(self.config.executor_registration_timeout);
            let message = format!("Executor did not register within {limit}");
            Verdict::agent(TaskState::TaskFailed, Reason::ExecutorRegistrationTimeout, message)
        };
        tracing::warn!(executor = %key, message = verdict.message, "killing an executor");
        self.end_by_force(now, key, verdict, out);
    }

    /// An executor is over, and so are its tasks: they are told, and its remains removed once that is on disk.
    pub(super) fn end_executor(
        &mut self,
        now: Now,
        key: &ExecutorKey,
        status: i32,
        verdict: Verdict,
        out: &mut Vec<Output>,
    ) {
        let Some(executor) = self.frameworks.executor_mut(key) else { return };
        if matches!(executor.life, ExecutorLife::Ending { .. }) {
            return;
        }
        if let Some(stream) = executor.stream() {
            out.push(Output::CloseEvents(stream));
        }
        executor.life = ExecutorLife::Ending { status };
        executor.update = None;
        // A limit that was exceeded tells more than what the agent did about it.
        let verdict = match executor.verdict.take() {
            Some(decided) if verdict.limited.is_empty() => decided,
            _ => verdict,
        };
        if self.is_gone(key) {
            return self.remove_executor_remains(key, out);
        }
        let tasks: Vec<TaskKey> = self.frameworks.tasks_of(key).map(|task| task.key.clone()).collect();
        for task_key in tasks {
            let Some(task) = self.frameworks.task_mut(&task_key) else { continue };
            if task.owns_container() {
                self.end(now, &task_key, verdict.clone(), out);
            } else if matches!(task.life, Life::Queued { .. } | Life::Delegated) {
                task.life = Life::Ending;
                self.update(now, &task_key, verdict.clone(), true, out);
            }
        }
        // Confirmed after all of those.
        self.store(Vec::new(), Some(Waiting::ExecutorEnd(key.clone())), out);
    }

    /// How it ended is on disk.
    pub(super) fn remove_executor_remains(&mut self, key: &ExecutorKey, out: &mut Vec<Output>) {
        if let Some(executor) = self.frameworks.executor(key)
            && matches!(executor.life, ExecutorLife::Ending { .. })
        {
            out.push(Output::Container(executor.container.clone(), ContainerCommand::Destroy));
        }
    }

    fn executor_destroyed(&mut self, now: Now, key: &ExecutorKey, out: &mut Vec<Output>) {
        let Some(executor) = self.frameworks.executor(key) else { return };
        if !matches!(executor.life, ExecutorLife::Ending { .. }) {
            // Nobody asked for it, but nothing of it is left.
            let message = "the executor's container is gone, and nobody knows how it ended";
            let verdict = Verdict::agent(TaskState::TaskFailed, Reason::ExecutorTerminated, message);
            return self.end_executor(now, key, NO_STATUS, verdict, out);
        }
        let ExecutorLife::Ending { status } = executor.life else { return };
        let container = executor.container.clone();
        self.containers.remove(&container);
        let gone = self.is_gone(key);
        tracing::info!(executor = %key, status, "an executor has ended");
        let exited =
            ExecutorExited { framework_id: key.framework.clone(), executor_id: key.executor.clone(), status };
        if self.link == Link::Registering {
            // A coordinator hears nothing of an agent that it is still taking in.
            self.exited.push(exited);
        } else {
            out.push(Output::Send(Box::new(agent_frame::Body::ExecutorExited(exited))));
        }
        let tasks: Vec<TaskKey> = self.frameworks.tasks_of(key).map(|task| task.key.clone()).collect();
        for task_key in tasks {
            if gone {
                self.forget_task(&task_key, out);
                continue;
            }
            let Some(task) = self.frameworks.task_mut(&task_key) else { continue };
            if task.life != Life::Ending {
                continue;
            }
            task.life = Life::Terminated;
            match self.streams.release(now.monotonic, &task_key) {
                Released::Send(sending) => self.send(sending, out),
                Released::Acknowledged => self.forget_task(&task_key, out),
                Released::Nothing => {}
            }
        }
        self.frameworks.complete_executor(key, self.config.max_completed);
        let mut writes = vec![Write::RemoveExecutor(key.clone())];
        writes.extend(self.retire_if_idle(&key.framework));
        self.store(writes, None, out);
    }

    /// Whether nobody waits for what becomes of the framework's tasks.
    pub(super) fn is_gone(&self, key: &ExecutorKey) -> bool {
        self.frameworks.get(&key.framework).is_none_or(|f| f.fate == FrameworkFate::ShuttingDown)
    }

    /// Somebody wants a task to end that an executor runs, or shall run.
    pub(super) fn kill_delegated(
        &mut self,
        now: Now,
        key: &TaskKey,
        policy: Option<KillPolicy>,
        out: &mut Vec<Output>,
    ) {
        let Some(task) = self.frameworks.task(key) else { return };
        let Some(executor) = task.executor() else { return };
        match task.life {
            Life::Queued { .. } => {
                let group = task.group.clone();
                let in_group =
                    |other: &&Arc<Task>| other.key == *key || (group.is_some() && other.group == group);
                let tasks = self.frameworks.tasks_of(&executor).filter(in_group);
                let tasks: Vec<TaskKey> = tasks.map(|task| task.key.clone()).collect();
                let message = if group.is_some() {
                    "a task of the group was killed before the group was handed to its executor"
                } else {
                    "the task was killed before it was handed to its executor"
                };
                for task in tasks {
                    let verdict =
                        Verdict::agent(TaskState::TaskKilled, Reason::TaskKilledDuringLaunch, message);
                    self.end_queued(now, &task, verdict, out);
                }
                self.shut_down_if_needless(now, &executor, out);
            }
            Life::Delegated => {
                let Some(executor) = self.frameworks.executor_mut(&executor) else { return };
                match executor.stream() {
                    Some(stream) => send_kill(stream, key.task.clone(), policy, out),
                    // Mesos' agent, too, lets no kill come in before executors had their time to subscribe again.
                    None => _ = executor.kills.insert(key.task.clone(), policy),
                }
            }
            _ => {}
        }
    }

    /// The executor is connected again: it is told what was to be killed meanwhile.
    pub(super) fn send_kills(&mut self, key: &ExecutorKey, out: &mut Vec<Output>) {
        let Some(executor) = self.frameworks.executor_mut(key) else { return };
        let Some(stream) = executor.stream() else { return };
        for (id, policy) in std::mem::take(&mut executor.kills) {
            let task = TaskKey { framework: key.framework.clone(), task: id };
            if self.frameworks.task(&task).is_some_and(|task| task.life == Life::Delegated) {
                send_kill(stream, task.task, policy, out);
            }
        }
    }

    fn end_queued(&mut self, now: Now, key: &TaskKey, verdict: Verdict, out: &mut Vec<Output>) {
        if let Some(task) = self.frameworks.task_mut(key)
            && matches!(task.life, Life::Queued { .. })
        {
            task.life = Life::Terminated;
            self.update(now, key, verdict, false, out);
        }
    }

    /// An executor whose tasks were all killed before it was given one has nothing to do, and nobody who would end it.
    pub(super) fn shut_down_if_needless(&mut self, now: Now, key: &ExecutorKey, out: &mut Vec<Output>) {
        let queued = |task: &Arc<Task>| matches!(task.life, Life::Queued { .. });
        let Some(executor) = self.frameworks.executor(key) else { return };
        if executor.takes_tasks() && !executor.ever_sent && !self.frameworks.tasks_of(key).any(queued) {
            tracing::info!(executor = %key, "all tasks of an executor were killed before it was given one");
            self.shut_down_executor(now, key, out);
        }
    }
}

/// What is said of the tasks of an executor whose process has ended.
pub(super) fn terminated(limitation: Option<&Limitation>) -> Verdict {
    match limitation {
        Some(limitation) => Verdict::limitation(limitation),
        None => Verdict::agent(
            TaskState::TaskFailed,
            Reason::ExecutorTerminated,
            "Executor terminated".to_owned(),
        ),
    }
}

fn send_kill(stream: StreamId, task_id: TaskId, kill_policy: Option<KillPolicy>, out: &mut Vec<Output>) {
    send(stream, event::Type::Kill, |event| event.kill = Some(event::Kill { task_id, kill_policy }), out);
}

/// Sends an event to an executor.
pub(super) fn send(
    stream: StreamId,
    kind: event::Type,
    fill: impl FnOnce(&mut Event),
    out: &mut Vec<Output>,
) {
    let mut event = Event { r#type: Some(kind as i32), ..Event::default() };
    fill(&mut event);
    out.push(Output::Event(stream, Box::new(event)));
}

/// What is written down of an executor.
fn executor_record(executor: &Executor) -> Write {
    Write::Executor(Box::new(ExecutorWrite {
        key: executor.key.clone(),
        info: executor.info.clone(),
        container: executor.container.clone(),
        directory: executor.directory.clone(),
        user: executor.user.clone(),
    }))
}

/// What an executor with these tasks may use. A resource has a hard limit of its own as soon as one of the tasks has one; those
/// without count with what they ask for (Mesos' `computeExecutorLimits`).
pub(super) fn amounts(executor: &ExecutorInfo, tasks: &[&TaskInfo]) -> Amounts {
    let read = |wire: &[tepui_api::v1::Resource]| Resources::from_wire_lossy(wire);
    let own = read(&executor.resources);
    let mut total = own.clone();
    for task in tasks {
        total += &read(&task.resources);
    }
    let amount = |resources: &Resources, name: &str| match name {
        "cpus" => resources.cpus().map_or(0.0, |cpus| cpus.as_f64()),
        #[expect(clippy::cast_precision_loss, reason = "megabytes of one machine")]
        "mem" => resources.mem().map_or(0.0, |mem| mem.0 as f64),
        _ => 0.0,
    };
    let mut limits = BTreeMap::new();
    for name in ["cpus", "mem"] {
        if tasks.iter().any(|task| task.limits.contains_key(name)) {
            let of_tasks = tasks.iter().map(|task| {
                task.limits
                    .get(name)
                    .map_or_else(|| amount(&read(&task.resources), name), |limit| limit.value)
            });
            limits.insert(name.to_owned(), amount(&own, name) + of_tasks.sum::<f64>());
        }
    }
    Amounts { resources: total.to_wire(), limits }
}
