//! Each transition of the core, and what goes out at it: a [`World`] that does nothing unless told, and tests by topic.

mod checks;
mod drains;
mod executors;
mod kills;
mod life;
mod pods;
mod random;
mod registration;
mod restart;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tepui_api::link::coordinator_frame::Body;
use tepui_api::link::{
    Acknowledge, KillTask, KnownTask, Refused, Registered, RunTask, RunTaskGroup, Shutdown, ShutdownExecutor,
    agent_frame,
};
use tepui_api::v1::framework_info::{Capability, capability};
use tepui_api::v1::task_status::{Reason, Source};
use tepui_api::v1::{
    AgentInfo, CheckInfo, CommandInfo, ContainerId, DurationInfo, ExecutorInfo, FrameworkId, FrameworkInfo,
    HealthCheck, KillPolicy, TaskGroupInfo, TaskInfo, TaskState, TaskStatus,
};

use super::updates::RETRY_MIN;
use super::*;

const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn test_config() -> Config {
    Config {
        agent: AgentInfo { hostname: "host".into(), ..AgentInfo::default() },
        version: "1".into(),
        instance: "i".into(),
        address: ([127, 0, 0, 1], 5051).into(),
        work_dir: PathBuf::from("/w"),
        switch_user: true,
        shutdown_grace_period: 5 * SECOND,
        executor_registration_timeout: 60 * SECOND,
        sandbox_directory: "/mnt/mesos/sandbox".into(),
        recovery_timeout: 900 * SECOND,
        executor_reregistration_timeout: 2 * SECOND,
        environment: Vec::new(),
        max_completed: 3,
    }
}

/// A core, and a world around it that does nothing unless it is told to.
struct World {
    core: Core,
    now: Now,
    /// Written, but not confirmed.
    unstored: Vec<Ticket>,
    /// All writes that were confirmed, in order.
    disk: Vec<Write>,
    unconfirmed: Vec<Write>,
    commands: Vec<(ContainerId, ContainerCommand)>,
    updates: Vec<TaskStatus>,
    latest: Vec<TaskState>,
    sent: Vec<agent_frame::Body>,
    ended: Option<End>,
    reconnects: usize,
    /// What executors were answered and told, and which of their streams were closed.
    answers: Vec<(StreamId, ExecutorAnswer)>,
    events: Vec<(StreamId, tepui_api::v1::executor::Event)>,
    closed: Vec<StreamId>,
}

impl World {
    fn unregistered() -> Self {
        Self {
            core: Core::new(test_config(), [7; 32]),
            now: Now { monotonic: SECOND, unix: 1000 * SECOND },
            unstored: Vec::new(),
            disk: Vec::new(),
            unconfirmed: Vec::new(),
            commands: Vec::new(),
            updates: Vec::new(),
            latest: Vec::new(),
            sent: Vec::new(),
            ended: None,
            reconnects: 0,
            answers: Vec::new(),
            events: Vec::new(),
            closed: Vec::new(),
        }
    }

    fn new() -> Self {
        let mut world = Self::unregistered();
        world.register();
        world
    }

    fn register(&mut self) {
        self.step(Input::LinkOpened);
        assert!(matches!(self.sent.pop(), Some(agent_frame::Body::Register(_))));
        self.frame(Body::Registered(Registered {
            agent_id: "A".into(),
            ping_timeout_seconds: 75.0,
            unknown_tasks: Vec::new(),
        }));
    }

    fn step(&mut self, input: Input) {
        let mut out = Vec::new();
        self.core.step(self.now, input, &mut out);
        self.take(out);
    }

    fn take(&mut self, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Store(ticket, writes) => {
                    self.unstored.push(ticket);
                    self.unconfirmed.extend(writes);
                }
                Output::Send(body) => match *body {
                    agent_frame::Body::Update(update) => {
                        self.latest.push(update.latest_state());
                        self.updates.push(update.status);
                    }
                    other => self.sent.push(other),
                },
                Output::Container(id, command) => self.commands.push((id, command)),
                Output::Answer(id, answer) => self.answers.push((id, answer)),
                Output::Event(stream, event) => self.events.push((stream, *event)),
                Output::CloseEvents(stream) => self.closed.push(stream),
                Output::Reconnect => self.reconnects += 1,
                Output::End(end) => self.ended = Some(end),
            }
        }
    }

    fn frame(&mut self, body: Body) {
        self.step(Input::Frame(Box::new(body)));
    }

    /// The store catches up.
    fn stored(&mut self) {
        while let Some(ticket) = self.unstored.pop() {
            self.unstored.clear();
            self.disk.append(&mut self.unconfirmed);
            self.step(Input::Stored(ticket));
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now.monotonic += time;
        self.now.unix += time;
        self.step(Input::Tick);
    }

    fn run(&mut self, id: &str) -> ContainerId {
        self.run_with(framework(&[]), task(id))
    }

    fn run_with(&mut self, framework: FrameworkInfo, task: TaskInfo) -> ContainerId {
        self.frame(Body::RunTask(RunTask { framework, task, launch_executor: None }));
        match self.commands.pop() {
            Some((id, ContainerCommand::Prepare(_))) => id,
            other => panic!("expected a container to be prepared, but got {other:?}"),
        }
    }

    fn container(&mut self, id: &ContainerId, event: ContainerEvent) {
        self.step(Input::Container(id.clone(), event));
    }

    /// A task that runs and whose updates are acknowledged.
    fn running(&mut self, framework: FrameworkInfo, task: TaskInfo) -> ContainerId {
        let container = self.run_with(framework, task);
        self.container(&container, ContainerEvent::Prepared { networks: vec![] });
        self.stored();
        self.container(&container, ContainerEvent::Started { pid: 42, networks: vec![] });
        self.stored();
        self.acknowledge();
        self.acknowledge();
        self.stored();
        self.commands.clear();
        self.updates.clear();
        container
    }

    fn exited(&mut self, id: &ContainerId, status: i32) {
        self.container(id, ContainerEvent::Exited { status: Some(status), limitation: None });
    }

    /// The framework acknowledges the last update it was sent.
    fn acknowledge(&mut self) {
        let last = self.updates.last().unwrap().clone();
        self.acknowledge_uuid(&last.task_id.value, last.uuid.unwrap());
        self.stored();
    }

    fn acknowledge_uuid(&mut self, task: &str, uuid: Vec<u8>) {
        self.frame(Body::Acknowledge(Acknowledge { framework_id: "F".into(), task_id: task.into(), uuid }));
    }

    fn kill(&mut self, task: &str) {
        self.frame(Body::KillTask(KillTask {
            framework_id: "F".into(),
            task_id: task.into(),
            kill_policy: None,
        }));
    }

    fn states(&self) -> Vec<TaskState> {
        self.updates.iter().map(TaskStatus::state).collect()
    }

    fn signals(&self) -> Vec<i32> {
        let signal = |command: &ContainerCommand| match command {
            ContainerCommand::Signal(signal) => Some(*signal),
            _ => None,
        };
        self.commands.iter().filter_map(|(_, command)| signal(command)).collect()
    }

    fn destroys(&self) -> usize {
        self.commands.iter().filter(|(_, command)| matches!(command, ContainerCommand::Destroy)).count()
    }

    /// What a new process would find on disk.
    fn stored_state(&self) -> StoredState {
        let mut state = StoredState::default();
        for write in &self.disk {
            apply(&mut state, write.clone());
        }
        state
    }

    /// The agent is killed, and started again.
    fn restart(&self, found: &[(&ContainerId, Found)]) -> Self {
        let mut world = Self::unregistered();
        world.now = self.now;
        world.disk.clone_from(&self.disk);
        world.core = Core::new(test_config(), [8; 32]);
        let found: HashMap<_, _> = found.iter().map(|(id, f)| ((*id).clone(), f.clone())).collect();
        let mut out = Vec::new();
        world.core.recover(world.now, world.stored_state(), &found, &mut out);
        world.take(out);
        world.stored();
        world
    }
}

/// The store's effect, in memory.
fn apply(state: &mut StoredState, write: Write) {
    match write {
        Write::Agent(agent) => state.agent = Some((*agent).clone()),
        Write::Drain(drain) => state.drain = drain,
        Write::BootId(id) => state.boot_id = Some(id),
        Write::Clear => *state = StoredState { boot_id: state.boot_id.take(), ..StoredState::default() },
        Write::Framework(info, fate) => {
            state.frameworks.retain(|(known, _)| known.id != info.id);
            state.frameworks.push(((*info).clone(), fate));
        }
        Write::RemoveFramework(id) => state.frameworks.retain(|(known, _)| known.id.as_ref() != Some(&id)),
        Write::Task(record) => {
            if let Some(known) = state.tasks.iter_mut().find(|t| t.record.key == record.key) {
                known.record = *record;
            } else {
                state.tasks.push(StoredTask { record: *record, updates: Vec::new() });
            }
        }
        Write::Executor(record) => {
            state.executors.retain(|known| known.key != record.key);
            state.executors.push(*record);
        }
        Write::RemoveExecutor(key) => state.executors.retain(|known| known.key != key),
        Write::Update(key, sequence, status) => {
            let update = StoredUpdate { sequence, status, acknowledged: false };
            match state.tasks.iter_mut().find(|t| t.record.key == key) {
                Some(task) => task.updates.push(update),
                None => state.orphans.push((key, vec![update])),
            }
        }
        Write::Acknowledged(key, sequence) => {
            let task = state.tasks.iter_mut().find(|t| t.record.key == key).unwrap();
            let update = task.updates.iter_mut().find(|u| u.sequence == sequence).unwrap();
            update.acknowledged = true;
        }
        Write::RemoveTask(key) => {
            state.tasks.retain(|t| t.record.key != key);
            state.orphans.retain(|(orphan, _)| *orphan != key);
        }
    }
}

fn framework(capabilities: &[capability::Type]) -> FrameworkInfo {
    FrameworkInfo {
        id: Some("F".into()),
        user: "root".into(),
        name: "f".into(),
        capabilities: capabilities.iter().map(|c| Capability { r#type: Some(*c as i32) }).collect(),
        ..FrameworkInfo::default()
    }
}

fn task(id: &str) -> TaskInfo {
    TaskInfo {
        name: id.into(),
        task_id: id.into(),
        agent_id: "A".into(),
        command: Some(CommandInfo { value: Some("true".into()), ..CommandInfo::default() }),
        ..TaskInfo::default()
    }
}

fn grace(seconds: i64) -> Option<KillPolicy> {
    Some(KillPolicy { grace_period: Some(DurationInfo { nanoseconds: seconds * 1_000_000_000 }) })
}
