//! The life of a framework's own executor: it is started for its first task, given its tasks, and its end is theirs.
//!
//! What it says itself is in [`super::executor_calls`], how it ends in [`super::executor_end`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tepui_api::resources::Resources;
use tepui_api::v1::executor::{Event, event};
use tepui_api::v1::task_status::Reason;
use tepui_api::v1::{
    ContainerId, ExecutorInfo, FrameworkInfo, KillPolicy, NetworkInfo, TaskGroupInfo, TaskId, TaskInfo,
    TaskState,
};

use super::executor::{Amounts, Executor, ExecutorKey, ExecutorLife, StreamId, Updating};
use super::executor_end::terminated;
use super::frames::record;
use super::input::{ContainerCommand, ContainerEvent, ExecutorWrite, Launch, Now, Output, Workload, Write};
use super::kill::{KILL, Timer};
use super::pods::{is_pod, nested};
use super::status::{Verdict, dropped, is_terminal};
use super::task::{Life, Task, TaskKey, shown};
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
        // One that is not there yet is made as it was asked for, and changed when it runs. It may subscribe before the agent is told that it runs;
        // without tasks, whose updates tell of its process and its networks.
        if matches!(executor.life, ExecutorLife::Preparing { .. } | ExecutorLife::Starting { .. }) {
            return;
        }
        let then = if executor.takes_tasks() { then } else { BTreeSet::new() };
        if executor.amounts == wanted {
            if !then.is_empty() {
                self.send_tasks(key, &then, out);
            }
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
