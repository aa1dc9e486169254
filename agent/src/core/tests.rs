//! Each transition of a task's life, and what goes out at it.

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
    AgentInfo, CommandInfo, ContainerId, DurationInfo, ExecutorInfo, FrameworkId, FrameworkInfo, KillPolicy,
    TaskGroupInfo, TaskInfo, TaskState, TaskStatus,
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
        self.frame(Body::RunTask(RunTask { framework, task }));
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
        self.container(&container, ContainerEvent::Started { pid: 42 });
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
        Write::Clear => *state = StoredState::default(),
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

use TaskState::{
    TaskDropped, TaskError, TaskFailed, TaskFinished, TaskKilled, TaskKilling, TaskLost, TaskRunning,
    TaskStarting,
};

#[test]
fn a_command_task_starts_runs_and_finishes() {
    let mut w = World::new();
    let container = w.run("t");
    w.container(&container, ContainerEvent::Prepared { networks: vec![] });
    assert!(w.commands.is_empty(), "it must not start before its record is on disk");
    w.stored();
    assert!(matches!(w.commands.pop(), Some((_, ContainerCommand::Start))));
    assert_eq!(w.states(), [TaskStarting]);
    w.container(&container, ContainerEvent::Started { pid: 42 });
    w.stored();
    assert_eq!(w.states(), [TaskStarting], "one update at a time");
    w.acknowledge();
    assert_eq!(w.states(), [TaskStarting, TaskRunning]);
    w.acknowledge();
    w.exited(&container, 0);
    w.stored();
    assert_eq!(w.states(), [TaskStarting, TaskRunning], "the container's remains are still there");
    assert_eq!(w.destroys(), 1);
    w.container(&container, ContainerEvent::Destroyed);
    assert_eq!(w.states(), [TaskStarting, TaskRunning, TaskFinished]);

    let last = w.updates[2].clone();
    assert_eq!(last.source(), Source::Executor);
    assert_eq!(last.reason, None);
    assert_eq!(last.message.as_deref(), Some("Command exited with status 0"));
    assert_eq!(last.executor_id, Some("t".into()));
    assert_eq!(last.agent_id, Some("A".into()));
    assert_eq!(last.timestamp, Some(1000.0));
    let status = last.container_status.unwrap();
    assert_eq!((status.container_id, status.executor_pid), (Some(container), Some(42)));
    let address = status.network_infos[0].ip_addresses[0].ip_address.as_deref();
    assert_eq!(address, Some("127.0.0.1"));
    for quiet in &w.updates[..2] {
        assert_eq!((quiet.message.as_deref(), quiet.reason, quiet.source()), (None, None, Source::Executor));
    }

    w.acknowledge();
    w.stored();
    let left = w.stored_state();
    assert_eq!((left.tasks.len(), left.frameworks.len()), (0, 0));
    let snapshot = w.core.snapshot();
    assert!(snapshot.frameworks.active.is_empty());
    assert_eq!(snapshot.frameworks.completed[0].completed[0].shown.state(), TaskFinished);
    assert_eq!(snapshot.counters.finished, 1);
}

#[test]
fn statuses_other_than_zero_fail_and_tell_why() {
    for (status, words) in [(3 << 8, "exited with status 3"), (9, "signal Killed")] {
        let mut w = World::new();
        let container = w.running(framework(&[]), task("t"));
        w.exited(&container, status);
        w.container(&container, ContainerEvent::Destroyed);
        w.stored();
        assert_eq!(w.states(), [TaskFailed]);
        let message = w.updates[0].message.as_deref().unwrap();
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn a_task_that_ends_at_once_still_starts_and_runs_first() {
    let mut w = World::new();
    let container = w.run("t");
    w.container(&container, ContainerEvent::Prepared { networks: vec![] });
    w.stored();
    w.exited(&container, 0);
    w.container(&container, ContainerEvent::Destroyed);
    w.stored();
    w.acknowledge();
    w.acknowledge();
    assert_eq!(w.states(), [TaskStarting, TaskRunning, TaskFinished]);
}

#[test]
fn no_sandbox_means_lost_or_dropped() {
    for (capabilities, state) in [(&[][..], TaskLost), (&[capability::Type::PartitionAware][..], TaskDropped)] {
        let mut w = World::new();
        let container = w.run_with(framework(capabilities), task("t"));
        w.container(&container, ContainerEvent::NoSandbox("no such user".into()));
        w.container(&container, ContainerEvent::Destroyed);
        w.stored();
        let update = &w.updates[0];
        assert_eq!((update.state(), update.source()), (state, Source::Agent));
        assert_eq!(update.reason(), Reason::ExecutorTerminated);
        assert_eq!(update.container_status, None);
        assert_eq!(update.executor_id, Some("t".into()));
    }
}

#[test]
fn a_container_that_cannot_be_prepared_or_started_fails_its_task() {
    let failed =
        || ContainerEvent::Failed { reason: Reason::ContainerLaunchFailed, message: "no image".into() };
    let mut w = World::new();
    let container = w.run("t");
    w.container(&container, failed());
    w.container(&container, ContainerEvent::Destroyed);
    w.stored();
    assert_eq!(w.states(), [TaskFailed]);
    assert_eq!((w.updates[0].reason(), w.updates[0].source()), (Reason::ContainerLaunchFailed, Source::Agent));
    assert!(w.updates[0].message.as_deref().unwrap().contains("no image"));

    let mut w = World::new();
    let container = w.run("t");
    w.container(&container, ContainerEvent::Prepared { networks: vec![] });
    w.stored();
    w.container(&container, failed());
    w.container(&container, ContainerEvent::Destroyed);
    w.stored();
    w.acknowledge();
    assert_eq!(w.states(), [TaskStarting, TaskFailed]);
    assert_eq!(w.core.snapshot().counters.launch_errors, 1);
}

#[test]
fn a_limitation_comes_from_the_agent_with_its_reason_even_when_the_task_was_being_killed() {
    for kill in [false, true] {
        let mut w = World::new();
        let container = w.running(framework(&[]), task("t"));
        if kill {
            w.kill("t");
        }
        let limitation = Limitation {
            reason: Reason::ContainerLimitationMemory,
            message: "Memory limit exceeded".into(),
            resources: vec![tepui_api::v1::Resource { name: "mem".into(), ..Default::default() }],
        };
        w.container(&container, ContainerEvent::Exited { status: Some(9), limitation: Some(limitation) });
        w.container(&container, ContainerEvent::Destroyed);
        w.stored();
        let update = w.updates.last().unwrap();
        assert_eq!((update.state(), update.source()), (TaskFailed, Source::Agent));
        assert_eq!(update.reason(), Reason::ContainerLimitationMemory);
        assert_eq!(update.message.as_deref(), Some("Memory limit exceeded"));
        assert_eq!(update.limitation.as_ref().unwrap().resources[0].name, "mem");
    }
}

#[test]
fn a_kill_sends_sigterm_then_sigkill_and_ends_in_killed() {
    let mut w = World::new();
    let container = w.running(framework(&[capability::Type::TaskKillingState]), task("t"));
    w.kill("t");
    w.stored();
    assert_eq!(w.states(), [TaskKilling]);
    assert_eq!(w.signals(), [15]);
    w.kill("t");
    w.wait(2 * SECOND);
    assert_eq!(w.signals(), [15], "a second kill changes nothing");
    assert_eq!(w.core.next_deadline(), Some(w.now.monotonic + SECOND), "3 seconds without a policy");
    w.wait(SECOND);
    assert_eq!(w.signals(), [15, 9]);
    w.wait(60 * SECOND);
    assert_eq!(w.signals(), [15, 9]);
    w.acknowledge();
    w.exited(&container, 9);
    w.container(&container, ContainerEvent::Destroyed);
    w.stored();
    assert_eq!(w.updates.last().unwrap().state(), TaskKilled);
    assert_eq!(w.updates.last().unwrap().source(), Source::Executor);
}

#[test]
fn a_task_that_obeys_is_killed_whatever_its_status_and_no_signal_follows() {
    let mut w = World::new();
    let container = w.running(framework(&[]), task("t"));
    w.kill("t");
    w.exited(&container, 0);
    w.container(&container, ContainerEvent::Destroyed);
    w.stored();
    assert_eq!(w.states(), [TaskKilled], "and no TASK_KILLING without the capability");
    w.wait(10 * SECOND);
    assert_eq!(w.signals(), [15]);
}

#[test]
fn the_grace_period_comes_from_the_kill_then_the_task_and_only_shrinks() {
    let mut w = World::new();
    w.running(framework(&[]), TaskInfo { kill_policy: grace(20), ..task("t") });
    let kill = |policy| {
        Body::KillTask(KillTask { framework_id: "F".into(), task_id: "t".into(), kill_policy: policy })
    };
    w.frame(kill(None));
    w.wait(10 * SECOND);
    w.frame(kill(grace(30)));
    w.wait(5 * SECOND);
    assert_eq!(w.signals(), [15]);
    w.frame(kill(grace(5)));
    assert_eq!(w.signals(), [15, 9], "5 seconds are long over");
}

#[test]
fn a_kill_before_the_start_is_reported_as_such() {
    let mut w = World::new();
    let container = w.run("t");
    w.kill("t");
    assert_eq!(w.destroys(), 1);
    w.container(&container, ContainerEvent::Prepared { networks: vec![] });
    w.container(&container, ContainerEvent::Destroyed);
    w.stored();
    assert_eq!(w.states(), [TaskKilled]);
    assert_eq!(w.updates[0].reason(), Reason::TaskKilledDuringLaunch);
    assert!(!w.commands.iter().any(|(_, c)| matches!(c, ContainerCommand::Start)));
}

#[test]
fn a_kill_while_it_starts_waits_for_it() {
    let mut w = World::new();
    let container = w.run("t");
    w.container(&container, ContainerEvent::Prepared { networks: vec![] });
    w.stored();
    w.kill("t");
    assert!(w.signals().is_empty());
    w.container(&container, ContainerEvent::Started { pid: 1 });
    assert_eq!(w.signals(), [15]);
}

#[test]
fn a_kill_of_an_unknown_task_is_answered_once_when_the_framework_is_known() {
    let mut w = World::new();
    w.kill("nobody");
    w.stored();
    assert_eq!(w.states(), []);
    let container = w.running(framework(&[]), task("t"));
    w.kill("nobody");
    w.kill("nobody");
    w.stored();
    assert_eq!(w.states(), [TaskLost]);
    assert_eq!(w.updates[0].reason(), Reason::ExecutorTerminated);
    // The framework stays known while an answer is under way, and goes with the last of both.
    w.exited(&container, 0);
    w.container(&container, ContainerEvent::Destroyed);
    w.stored();
    w.acknowledge();
    assert_eq!(w.core.snapshot().frameworks.active.len(), 1);
    let uuid = w.updates[0].uuid.clone().unwrap();
    w.acknowledge_uuid("nobody", uuid);
    w.stored();
    assert!(w.core.snapshot().frameworks.active.is_empty());
    assert_eq!(w.stored_state(), StoredState { agent: w.stored_state().agent, ..StoredState::default() });
}

#[test]
fn shutting_an_executor_down_kills_its_command_task() {
    let mut w = World::new();
    w.running(framework(&[]), task("t"));
    let shutdown = |id: &str| {
        Body::ShutdownExecutor(ShutdownExecutor { framework_id: "F".into(), executor_id: id.into() })
    };
    w.frame(shutdown("other"));
    assert!(w.signals().is_empty());
    w.frame(shutdown("t"));
    assert_eq!(w.signals(), [15]);
}

#[test]
fn a_maximum_completion_time_fails_the_task() {
    let mut w = World::new();
    let limited = TaskInfo {
        max_completion_time: Some(DurationInfo { nanoseconds: 2_000_000_000 }),
        ..task("t")
    };
    let container = w.running(framework(&[capability::Type::TaskKillingState]), limited);
    w.wait(SECOND);
    assert!(w.signals().is_empty());
    w.wait(SECOND);
    assert_eq!(w.signals(), [15, 9]);
    w.exited(&container, 9);
    w.container(&container, ContainerEvent::Destroyed);
    w.stored();
    assert_eq!(w.states(), [TaskFailed], "and no TASK_KILLING");
    assert_eq!(w.updates[0].reason(), Reason::MaxCompletionTimeReached);
}

#[test]
fn shutting_a_framework_down_kills_silently() {
    let mut w = World::new();
    let running = w.running(framework(&[]), task("a"));
    let preparing = w.run("b");
    let ended = w.running(framework(&[]), task("c"));
    w.exited(&ended, 0);
    w.container(&ended, ContainerEvent::Destroyed);
    w.stored();
    w.updates.clear();
    w.commands.clear();
    w.frame(Body::ShutdownFramework("F".into()));
    assert_eq!(w.signals(), [15]);
    assert_eq!(w.destroys(), 1);
    w.frame(Body::RunTask(RunTask { framework: framework(&[]), task: task("d") }));
    w.wait(5 * SECOND);
    assert_eq!(w.signals(), [15, 9]);
    w.exited(&running, 9);
    for container in [&running, &preparing] {
        w.container(container, ContainerEvent::Destroyed);
    }
    w.stored();
    assert_eq!(w.states(), []);
    assert!(w.core.snapshot().frameworks.active.is_empty());
    assert_eq!(w.core.snapshot().frameworks.completed[0].completed.len(), 3);
    assert_eq!(w.stored_state().tasks.len(), 0);
    assert_eq!(w.stored_state().frameworks.len(), 0);
}

#[test]
fn what_cannot_be_run_is_refused_with_words() {
    let mut w = World::new();
    let custom = TaskInfo { executor: Some(ExecutorInfo::default()), command: None, ..task("e") };
    w.frame(Body::RunTask(RunTask { framework: framework(&[]), task: custom }));
    w.frame(Body::RunTaskGroup(RunTaskGroup {
        framework: framework(&[]),
        executor: ExecutorInfo::default(),
        task_group: TaskGroupInfo { tasks: vec![task("g1"), task("g2")] },
    }));
    w.stored();
    assert_eq!(w.states(), [TaskError; 3]);
    assert_eq!(w.updates[0].reason(), Reason::TaskInvalid);
    assert!(w.updates[0].message.as_deref().unwrap().contains("not implemented"));
    assert_eq!(w.updates[1].reason(), Reason::TaskGroupInvalid);
    assert!(w.commands.is_empty());
    w.acknowledge_uuid("e", w.updates[0].uuid.clone().unwrap());
    w.acknowledge_uuid("g1", w.updates[1].uuid.clone().unwrap());
    let mut again = w.restart(&[]);
    again.register();
    assert_eq!(again.states(), [TaskError; 3], "what was not stored as acknowledged comes again");
    w.acknowledge_uuid("g2", w.updates[2].uuid.clone().unwrap());
    w.stored();
    assert_eq!(w.stored_state().tasks.len(), 0);
}

#[test]
fn tasks_for_another_agent_or_with_an_id_in_use_are_ignored() {
    let mut w = World::new();
    let foreign = TaskInfo { agent_id: "B".into(), ..task("t") };
    w.frame(Body::RunTask(RunTask { framework: framework(&[]), task: foreign }));
    assert!(w.commands.is_empty());
    w.run("t");
    w.frame(Body::RunTask(RunTask { framework: framework(&[]), task: task("t") }));
    assert!(w.commands.is_empty());
}

#[test]
fn updates_are_sent_again_until_acknowledged_and_after_a_reconnection() {
    let mut w = World::new();
    let container = w.run("t");
    w.container(&container, ContainerEvent::Prepared { networks: vec![] });
    w.stored();
    w.wait(RETRY_MIN);
    assert_eq!(w.states(), [TaskStarting, TaskStarting]);
    assert_eq!(w.updates[0].uuid, w.updates[1].uuid);
    w.step(Input::LinkClosed);
    w.container(&container, ContainerEvent::Started { pid: 1 });
    w.stored();
    w.wait(100 * SECOND);
    assert_eq!(w.updates.len(), 2);
    w.register();
    assert_eq!(w.updates.len(), 3);
    assert_eq!(w.latest, [TaskStarting, TaskStarting, TaskRunning]);
}

#[test]
fn registration_tells_all_that_is_here() {
    let mut w = World::new();
    w.running(framework(&[]), task("t"));
    let done = w.running(framework(&[]), task("done"));
    w.exited(&done, 0);
    w.container(&done, ContainerEvent::Destroyed);
    w.stored();
    w.acknowledge();
    w.step(Input::LinkClosed);
    w.step(Input::LinkOpened);
    let Some(agent_frame::Body::Register(register)) = w.sent.pop() else { panic!() };
    assert_eq!(register.agent.id, Some("A".into()));
    assert_eq!(register.address, "127.0.0.1:5051");
    let ids = |tasks: &[tepui_api::v1::Task]| -> Vec<String> {
        tasks.iter().map(|t| t.task_id.value.clone()).collect()
    };
    assert_eq!(ids(&register.tasks), ["t"]);
    assert_eq!(register.tasks[0].state(), TaskRunning);
    assert_eq!(ids(&register.completed_tasks), ["done"]);
    assert_eq!(register.frameworks.len(), 1);
}

#[test]
fn tasks_that_only_the_coordinator_knows_are_answered() {
    let mut w = World::unregistered();
    w.step(Input::LinkOpened);
    w.frame(Body::Registered(Registered {
        agent_id: "A".into(),
        ping_timeout_seconds: 0.0,
        unknown_tasks: vec![KnownTask { framework_id: "F".into(), task_id: "ghost".into() }],
    }));
    w.stored();
    assert_eq!(w.states(), [TaskLost]);
    assert_eq!(w.updates[0].reason(), Reason::Reconciliation);
    w.acknowledge();
    w.stored();
    assert_eq!(w.stored_state().orphans, []);
}

#[test]
fn pings_are_answered_and_their_absence_noticed() {
    let mut w = World::new();
    w.wait(50 * SECOND);
    w.frame(Body::Ping(3));
    assert_eq!(w.sent.pop(), Some(agent_frame::Body::Pong(3)));
    w.wait(50 * SECOND);
    assert_eq!(w.reconnects, 0);
    w.wait(25 * SECOND);
    assert_eq!(w.reconnects, 1);
    assert!(!w.core.snapshot().registered);
}

#[test]
fn another_agent_id_is_fatal() {
    let mut w = World::new();
    w.step(Input::LinkOpened);
    w.frame(Body::Registered(Registered {
        agent_id: "B".into(),
        ping_timeout_seconds: 1.0,
        unknown_tasks: vec![],
    }));
    assert!(matches!(w.ended, Some(End::Refused(_))));
}

#[test]
fn a_refused_agent_begins_anew_when_all_it_ran_is_gone() {
    let mut w = World::new();
    let container = w.running(framework(&[]), task("t"));
    w.frame(Body::Refused(Refused { message: "unknown".into(), register_anew: true }));
    assert_eq!(w.reconnects, 0);
    w.exited(&container, 15);
    w.container(&container, ContainerEvent::Destroyed);
    assert_eq!(w.reconnects, 1);
    w.stored();
    assert_eq!(w.stored_state(), StoredState::default());
    w.step(Input::LinkOpened);
    let Some(agent_frame::Body::Register(register)) = w.sent.pop() else { panic!() };
    assert_eq!((register.agent.id, register.tasks.len()), (None, 0));
    w.frame(Body::Refused(Refused { message: "go away".into(), register_anew: false }));
    assert_eq!(w.ended, Some(End::Refused("go away".into())));
}

#[test]
fn a_shutdown_ends_all_then_the_agent() {
    let mut w = World::new();
    let container = w.running(framework(&[]), task("t"));
    w.frame(Body::Shutdown(Shutdown { message: "enough".into() }));
    w.frame(Body::RunTask(RunTask { framework: framework(&[]), task: task("late") }));
    assert_eq!(w.signals(), [15]);
    w.exited(&container, 15);
    assert_eq!(w.ended, None);
    w.container(&container, ContainerEvent::Destroyed);
    assert_eq!(w.ended, Some(End::Asked("enough".into())));
    assert!(w.sent.iter().any(|f| matches!(f, agent_frame::Body::Unregister(_))));
}

#[test]
fn a_framework_s_description_is_kept_up_to_date() {
    let mut w = World::new();
    w.running(framework(&[]), task("t"));
    let renamed = FrameworkInfo { name: "new".into(), ..framework(&[]) };
    w.frame(Body::UpdateFramework(renamed));
    w.frame(Body::UpdateFramework(FrameworkInfo { id: Some("X".into()), ..framework(&[]) }));
    w.stored();
    let names: Vec<_> = w.stored_state().frameworks.iter().map(|(f, _)| f.name.clone()).collect();
    assert_eq!(names, ["new"]);
}

#[test]
fn history_is_bounded() {
    let mut w = World::new();
    w.running(framework(&[]), task("stays"));
    for n in 0..5 {
        let container = w.running(framework(&[]), task(&format!("t{n}")));
        w.exited(&container, 0);
        w.container(&container, ContainerEvent::Destroyed);
        w.stored();
        w.acknowledge();
    }
    let snapshot = w.core.snapshot();
    let kept: Vec<_> = snapshot.frameworks.active[&FrameworkId::from("F")]
        .completed
        .iter()
        .map(|t| t.shown.task_id.value.clone())
        .collect();
    assert_eq!(kept, ["t2", "t3", "t4"]);
}

#[test]
fn after_a_restart_running_tasks_go_on_and_their_ends_are_reported() {
    let mut w = World::new();
    let container = w.running(framework(&[]), task("t"));
    let mut w = w.restart(&[(&container, Found::Running { pid: 42, networks: vec![] })]);
    w.register();
    assert_eq!(w.states(), [], "nothing is repeated after its acknowledgement");
    w.exited(&container, 0);
    w.container(&container, ContainerEvent::Destroyed);
    w.stored();
    assert_eq!(w.states(), [TaskFinished]);
    assert_eq!(w.updates[0].container_status.as_ref().unwrap().executor_pid, Some(42));
}

#[test]
fn after_a_restart_ends_that_nobody_saw_are_reported() {
    let mut w = World::new();
    let container = w.running(framework(&[]), task("t"));
    let found = Found::Exited { status: Some(7 << 8), limitation: None };
    let mut w = w.restart(&[(&container, found)]);
    assert_eq!(w.destroys(), 1);
    w.container(&container, ContainerEvent::Destroyed);
    w.register();
    assert_eq!(w.states(), [TaskFailed]);
    assert!(w.updates[0].message.as_deref().unwrap().contains("status 7"));
}

#[test]
fn after_a_restart_a_container_that_is_gone_fails_its_task() {
    let mut w = World::new();
    let container = w.running(framework(&[]), task("t"));
    let mut w = w.restart(&[]);
    w.container(&container, ContainerEvent::Destroyed);
    w.register();
    assert_eq!(w.states(), [TaskFailed]);
    assert_eq!((w.updates[0].reason(), w.updates[0].source()), (Reason::ExecutorTerminated, Source::Agent));
}

#[test]
fn a_restart_between_start_and_its_record_makes_up_the_updates() {
    let mut w = World::new();
    let container = w.run("t");
    w.stored();
    w.container(&container, ContainerEvent::Prepared { networks: vec![] });
    // TASK_STARTING was not stored, but the container runs.
    let mut w = w.restart(&[(&container, Found::Running { pid: 5, networks: vec![] })]);
    w.register();
    w.acknowledge();
    assert_eq!(w.states(), [TaskStarting, TaskRunning]);
}

#[test]
fn a_terminal_update_survives_a_restart_and_waits_for_the_remains() {
    let mut w = World::new();
    let container = w.running(framework(&[]), task("t"));
    w.exited(&container, 0);
    w.stored();
    let uuid = {
        let state = w.stored_state();
        state.tasks[0].updates.last().unwrap().status.uuid.clone()
    };
    let mut w = w.restart(&[]);
    w.register();
    assert_eq!((w.states(), w.destroys()), (vec![], 1));
    w.container(&container, ContainerEvent::Destroyed);
    assert_eq!(w.states(), [TaskFinished]);
    assert_eq!(w.updates[0].uuid, uuid);
    w.acknowledge();
    w.stored();
    assert_eq!(w.stored_state().tasks, []);
}

#[test]
fn a_kill_goes_on_after_a_restart() {
    let mut w = World::new();
    let container = w.running(framework(&[capability::Type::TaskKillingState]), task("t"));
    w.kill("t");
    w.stored();
    w.acknowledge();
    w.stored();
    let mut w = w.restart(&[(&container, Found::Running { pid: 42, networks: vec![] })]);
    assert_eq!(w.signals(), [15]);
    w.wait(3 * SECOND);
    assert_eq!(w.signals(), [15, 9]);
    w.exited(&container, 9);
    w.container(&container, ContainerEvent::Destroyed);
    w.stored();
    w.register();
    assert_eq!(w.states(), [TaskKilled], "TASK_KILLING is not repeated");
}

#[test]
fn the_maximum_completion_time_counts_through_a_restart() {
    let mut w = World::new();
    let limit = Some(DurationInfo { nanoseconds: 10_000_000_000 });
    let container = w.running(framework(&[]), TaskInfo { max_completion_time: limit, ..task("t") });
    w.now.unix += 8 * SECOND;
    w.now.monotonic = SECOND;
    let mut w = w.restart(&[(&container, Found::Running { pid: 42, networks: vec![] })]);
    w.wait(SECOND);
    assert!(w.signals().is_empty());
    w.wait(SECOND);
    assert_eq!(w.signals(), [15, 9]);
}

#[test]
fn a_framework_that_was_being_shut_down_is_ended_after_a_restart() {
    let mut w = World::new();
    let container = w.running(framework(&[]), task("t"));
    w.frame(Body::ShutdownFramework("F".into()));
    w.stored();
    let mut w = w.restart(&[(&container, Found::Running { pid: 42, networks: vec![] })]);
    assert_eq!(w.destroys(), 1);
    w.container(&container, ContainerEvent::Destroyed);
    w.stored();
    w.register();
    assert_eq!(w.states(), []);
    assert_eq!(w.stored_state().tasks, []);
    assert_eq!(w.stored_state().frameworks, []);
}

#[test]
fn the_sandbox_and_the_user_are_decided_here() {
    let mut w = World::new();
    let command =
        CommandInfo { user: Some("nobody".into()), value: Some("x".into()), ..CommandInfo::default() };
    w.frame(Body::RunTask(RunTask {
        framework: framework(&[]),
        task: TaskInfo { command: Some(command), ..task("t") },
    }));
    let Some((id, ContainerCommand::Prepare(launch))) = w.commands.pop() else { panic!() };
    let expected = format!("/w/slaves/A/frameworks/F/executors/t/runs/{id}");
    assert_eq!(launch.directory, Path::new(&expected));
    assert_eq!(launch.user.as_deref(), Some("nobody"));
    assert_eq!(id.value.len(), 36);
}
