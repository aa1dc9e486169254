//! Executors of frameworks' own: started for their first task, told their tasks, heard, and ended.

use tepui_api::v1::executor::call::{Subscribe, Type, Update};
use tepui_api::v1::executor::{Call, event};
use tepui_api::v1::{Resource, Value, value};

use super::*;

fn executor() -> ExecutorInfo {
    ExecutorInfo {
        executor_id: "E".into(),
        command: Some(CommandInfo { value: Some("run".into()), ..CommandInfo::default() }),
        resources: vec![cpus(0.5)],
        ..ExecutorInfo::default()
    }
}

fn cpus(value: f64) -> Resource {
    Resource {
        name: "cpus".into(),
        r#type: value::Type::Scalar as i32,
        scalar: Some(value::Scalar { value }),
        ..Resource::default()
    }
}

fn delegated(id: &str) -> TaskInfo {
    TaskInfo { command: None, executor: Some(executor()), resources: vec![cpus(1.0)], ..task(id) }
}

fn status(task: &str, state: TaskState, uuid: u8) -> TaskStatus {
    TaskStatus {
        task_id: task.into(),
        state: state as i32,
        uuid: Some(vec![uuid; 16]),
        source: Some(Source::Executor as i32),
        ..TaskStatus::default()
    }
}

impl World {
    fn launch(&mut self, id: &str) {
        self.frame(Body::RunTask(RunTask {
            framework: framework(&[]),
            task: delegated(id),
            launch_executor: None,
        }));
    }

    /// The first task of an executor; gives its container.
    fn first(&mut self, id: &str) -> ContainerId {
        self.launch(id);
        match self.commands.pop() {
            Some((id, ContainerCommand::Prepare(launch))) => {
                assert!(matches!(launch.workload, Workload::Executor(..)));
                id
            }
            other => panic!("expected the executor's container to be prepared, but got {other:?}"),
        }
    }

    fn up(&mut self, container: &ContainerId) {
        self.container(container, ContainerEvent::Prepared { networks: vec![] });
        self.stored();
        assert!(matches!(self.commands.pop(), Some((_, ContainerCommand::Start))));
        self.container(container, ContainerEvent::Started { pid: 7, networks: vec![] });
    }

    fn call(&mut self, request: u64, call: Call) -> ExecutorAnswer {
        self.step(Input::Executor(StreamId(request), Box::new(call)));
        let (answered, answer) = self.answers.pop().unwrap();
        assert_eq!(answered, StreamId(request));
        answer
    }

    fn subscribe(&mut self, stream: u64, subscribe: Subscribe) -> ExecutorAnswer {
        self.call(stream, Call { subscribe: Some(subscribe), ..call(Type::Subscribe) })
    }

    /// An update; gives the answer, if there is one before the update is on disk.
    fn tell(&mut self, status: TaskStatus) -> Option<ExecutorAnswer> {
        self.answers.clear();
        let call = Call { update: Some(Update { status }), ..call(Type::Update) };
        self.step(Input::Executor(StreamId(99), Box::new(call)));
        self.answers.pop().map(|(_, answer)| answer)
    }

    fn events(&mut self, stream: u64) -> Vec<event::Type> {
        let events = std::mem::take(&mut self.events);
        assert!(events.iter().all(|(to, _)| *to == StreamId(stream)), "{events:?}");
        events.iter().map(|(_, event)| event.r#type()).collect()
    }

    /// An executor that was given a task.
    fn with_task(&mut self) -> ContainerId {
        let container = self.first("t");
        self.up(&container);
        assert_eq!(self.subscribe(1, Subscribe::default()), ExecutorAnswer::Subscribed);
        assert_eq!(self.events(1), [event::Type::Subscribed, event::Type::Launch]);
        container
    }

    fn exits(&self) -> Vec<i32> {
        let exit = |body: &agent_frame::Body| match body {
            agent_frame::Body::ExecutorExited(exited) => Some(exited.status),
            _ => None,
        };
        self.sent.iter().filter_map(exit).collect()
    }
}

fn call(kind: Type) -> Call {
    Call { executor_id: "E".into(), framework_id: "F".into(), r#type: Some(kind as i32), ..Call::default() }
}

#[test]
fn an_executor_is_started_for_its_first_task_and_given_all() {
    let mut w = World::new();
    let container = w.first("a");
    w.launch("b");
    assert!(w.commands.is_empty(), "one executor for both");
    assert_eq!(w.tell(status("a", TaskState::TaskRunning, 1)), Some(ExecutorAnswer::NotSubscribed));
    w.up(&container);
    assert_eq!(w.tell(status("a", TaskState::TaskRunning, 1)), Some(ExecutorAnswer::NotSubscribed));
    w.subscribe(1, Subscribe::default());
    assert_eq!(w.events(1), [event::Type::Subscribed]);
    // It was made for the first task only.
    let Some((_, ContainerCommand::Update(resources, _))) = w.commands.pop() else { panic!() };
    assert_eq!(resources, [cpus(2.5)]);
    w.container(&container, ContainerEvent::Updated);
    assert_eq!(w.events(1), [event::Type::Launch, event::Type::Launch]);
    // Those that come later need more, too, and their records on disk.
    w.launch("c");
    assert!(w.events.is_empty() && w.commands.is_empty());
    w.stored();
    w.container(&container, ContainerEvent::Updated);
    assert_eq!(w.events(1), [event::Type::Launch]);
    assert!(w.updates.is_empty(), "the executor says how they go");
}

#[test]
fn what_an_executor_tells_is_stored_then_acknowledged_and_sent_once() {
    let mut w = World::new();
    w.with_task();
    assert_eq!(w.tell(status("t", TaskState::TaskRunning, 1)), None);
    assert!(w.events.is_empty() && w.updates.is_empty(), "it is not on disk yet");
    w.stored();
    assert_eq!(w.answers, [(StreamId(99), ExecutorAnswer::Accepted)]);
    assert_eq!(w.events(1), [event::Type::Acknowledged]);
    let update = w.updates[0].clone();
    assert_eq!((update.executor_id, update.agent_id), (Some("E".into()), Some("A".into())));
    assert_eq!(update.timestamp, Some(1000.0));
    assert_eq!(update.container_status.unwrap().executor_pid, Some(7));
    // Again, as one whose acknowledgement was lost would.
    w.tell(status("t", TaskState::TaskRunning, 1));
    assert_eq!(w.events(1), [event::Type::Acknowledged]);
    w.acknowledge();
    w.tell(status("t", TaskState::TaskFinished, 2));
    w.stored();
    w.acknowledge();
    assert_eq!(w.states(), [TaskState::TaskRunning, TaskState::TaskFinished]);
    // Over is over; it is told that it was heard, lest it say so for ever.
    w.events.clear();
    w.subscribe(
        2,
        Subscribe {
            unacknowledged_updates: vec![Update { status: status("t", TaskState::TaskFinished, 2) }],
            ..Subscribe::default()
        },
    );
    assert_eq!(w.closed, [StreamId(1)]);
    assert_eq!(w.events(2), [event::Type::Acknowledged, event::Type::Subscribed]);
    w.tell(status("t", TaskState::TaskRunning, 9));
    assert_eq!(w.events(2), [event::Type::Acknowledged], "nothing comes after the last");
    assert_eq!(w.updates.len(), 2);
    assert!(w.core.snapshot().frameworks.get(&"F".into()).unwrap().executors.len() == 1, "it stays, idle");
}

#[test]
fn updates_after_the_last_and_of_others_tasks_are_passed_over() {
    let mut w = World::new();
    w.with_task();
    w.tell(status("t", TaskState::TaskFailed, 1));
    w.tell(status("t", TaskState::TaskFinished, 2));
    w.stored();
    assert_eq!(w.states(), [TaskState::TaskFailed]);
    assert_eq!(w.events(1), [event::Type::Acknowledged; 2]);
    let own = w.run("own");
    w.container(&own, ContainerEvent::Prepared { networks: vec![] });
    w.tell(status("own", TaskState::TaskFinished, 3));
    w.stored();
    assert_eq!(w.states(), [TaskState::TaskFailed, TaskState::TaskStarting]);
}

#[test]
fn the_end_of_an_executor_is_that_of_its_tasks() {
    let mut w = World::new();
    let container = w.with_task();
    w.tell(status("t", TaskState::TaskRunning, 1));
    w.stored();
    w.acknowledge();
    w.launch("queued");
    w.exited(&container, 9);
    assert_eq!(w.closed, [StreamId(1)]);
    assert_eq!(w.destroys(), 0, "how it ended is not on disk yet");
    w.stored();
    assert_eq!(w.destroys(), 1);
    assert_eq!(w.updates.len(), 1, "told when nothing is left of it");
    w.container(&container, ContainerEvent::Destroyed);
    assert_eq!(w.exits(), [9]);
    let told: Vec<_> = w.updates[1..].iter().map(|u| (u.state(), u.reason())).collect();
    assert_eq!(told, [(TaskState::TaskFailed, Reason::ExecutorTerminated); 2]);
    assert_eq!(w.updates[1].source(), Source::Agent);
    let last = w.updates.split_off(1);
    for update in last {
        w.acknowledge_uuid(&update.task_id.value, update.uuid.unwrap());
    }
    w.stored();
    assert!(w.stored_state().executors.is_empty() && w.stored_state().frameworks.is_empty());
}

#[test]
fn one_that_subscribes_before_it_is_known_to_run_waits_for_its_tasks() {
    let mut w = World::new();
    let container = w.first("t");
    w.container(&container, ContainerEvent::Prepared { networks: vec![] });
    w.stored();
    assert!(matches!(w.commands.pop(), Some((_, ContainerCommand::Start))));
    assert_eq!(w.subscribe(1, Subscribe::default()), ExecutorAnswer::Subscribed);
    assert_eq!(w.events(1), [event::Type::Subscribed]);
    w.container(&container, ContainerEvent::Started { pid: 7, networks: vec![] });
    assert_eq!(w.events(1), [event::Type::Launch]);
    w.tell(status("t", TaskState::TaskRunning, 1));
    w.stored();
    let told = w.updates.last().unwrap();
    assert_eq!(told.container_status.as_ref().unwrap().executor_pid, Some(7));
}

#[test]
fn one_that_does_not_subscribe_in_time_is_killed() {
    let mut w = World::new();
    let container = w.first("t");
    w.up(&container);
    w.wait(59 * SECOND);
    assert_eq!(w.signals(), [0; 0]);
    w.wait(SECOND);
    assert_eq!(w.signals(), [9]);
    assert_eq!(w.subscribe(1, Subscribe::default()), ExecutorAnswer::Subscribed);
    assert_eq!(w.events(1), [event::Type::Shutdown], "too late");
    w.exited(&container, 9);
    w.stored();
    w.container(&container, ContainerEvent::Destroyed);
    assert_eq!(w.updates[0].reason(), Reason::ExecutorRegistrationTimeout);
    assert_eq!(w.updates[0].message(), "Executor did not register within 1mins");
}

#[test]
fn a_task_is_killed_by_its_executor_or_before_it_gets_there() {
    let mut w = World::new();
    w.with_task();
    w.kill("t");
    assert_eq!(w.events(1), [event::Type::Kill]);
    assert!(w.updates.is_empty(), "the executor tells");

    let mut w = World::new();
    let container = w.first("t");
    w.kill("t");
    w.up(&container);
    assert_eq!(w.updates[0].reason(), Reason::TaskKilledDuringLaunch);
    w.subscribe(1, Subscribe::default());
    assert_eq!(w.events(1), [event::Type::Shutdown], "it has nothing to do");
    w.wait(5 * SECOND);
    assert_eq!(w.signals(), [9]);
}

#[test]
fn a_group_goes_to_its_executor_whole_or_not_at_all() {
    let mut w = World::new();
    let group = |ids: [&str; 2]| {
        Body::RunTaskGroup(RunTaskGroup {
            framework: framework(&[]),
            executor: executor(),
            task_group: TaskGroupInfo { tasks: ids.map(delegated).to_vec() },
            launch_executor: None,
        })
    };
    w.frame(group(["a", "b"]));
    w.frame(group(["c", "d"]));
    let Some((container, _)) = w.commands.pop() else { panic!() };
    w.kill("b");
    w.up(&container);
    assert_eq!(w.states(), [TaskState::TaskKilled; 2]);
    w.subscribe(1, Subscribe::default());
    w.container(&container, ContainerEvent::Updated);
    assert_eq!(w.events.last().unwrap().1.launch_group.as_ref().unwrap().task_group.tasks.len(), 2);
    assert_eq!(w.events(1), [event::Type::Subscribed, event::Type::LaunchGroup]);
}

#[test]
fn an_executor_is_shut_down_gently_first() {
    let mut w = World::new();
    let container = w.with_task();
    w.frame(Body::ShutdownExecutor(ShutdownExecutor { framework_id: "F".into(), executor_id: "E".into() }));
    assert_eq!(w.events(1), [event::Type::Shutdown]);
    // What it says on its way out is heard.
    w.tell(status("t", TaskState::TaskKilled, 1));
    w.stored();
    assert_eq!(w.events(1), [event::Type::Acknowledged]);
    w.launch("late");
    w.stored();
    assert_eq!(w.states(), [TaskState::TaskKilled, TaskState::TaskLost]);
    w.exited(&container, 0);
    w.stored();
    w.container(&container, ContainerEvent::Destroyed);
    assert_eq!(w.exits(), [0]);
    assert_eq!(w.updates.len(), 2);
}

#[test]
fn a_framework_that_is_gone_takes_its_executors_along() {
    let mut w = World::new();
    let container = w.with_task();
    w.frame(Body::ShutdownFramework("F".into()));
    assert_eq!(w.events(1), [event::Type::Shutdown]);
    w.exited(&container, 0);
    w.stored();
    w.container(&container, ContainerEvent::Destroyed);
    w.stored();
    assert!(w.updates.is_empty());
    assert!(w.stored_state().frameworks.is_empty() && w.stored_state().tasks.is_empty());
}

#[test]
fn after_a_restart_an_executor_comes_back_with_what_was_not_heard() {
    let mut w = World::new();
    let container = w.with_task();
    w.launch("lost");
    w.stored();
    w.container(&container, ContainerEvent::Updated);
    w.tell(status("t", TaskState::TaskRunning, 1));
    w.stored();
    let mut w = w.restart(&[(&container, Found::Running { pid: 7, networks: vec![] })]);
    w.register();
    assert_eq!(w.states(), [TaskState::TaskRunning]);
    assert_eq!(w.tell(status("t", TaskState::TaskFinished, 2)), Some(ExecutorAnswer::NotSubscribed));
    w.subscribe(
        1,
        Subscribe {
            unacknowledged_tasks: vec![delegated("t")],
            unacknowledged_updates: vec![
                Update { status: status("t", TaskState::TaskRunning, 1) },
                Update { status: status("t", TaskState::TaskFinished, 2) },
            ],
        },
    );
    w.stored();
    assert_eq!(w.updates.last().unwrap().task_id, "lost".into(), "it never heard of that");
    assert_eq!(w.updates.last().unwrap().reason(), Reason::AgentRestarted);
    let running = w.updates[0].clone();
    w.acknowledge_uuid("t", running.uuid.unwrap());
    w.stored();
    assert_eq!(w.states(), [TaskState::TaskRunning, TaskState::TaskLost, TaskState::TaskFinished]);
    assert_eq!(
        w.events(1),
        [event::Type::Acknowledged, event::Type::Subscribed, event::Type::Acknowledged],
        "what was on disk is acknowledged at once"
    );
    w.wait(2 * SECOND);
    assert!(w.signals().is_empty());
}

#[test]
fn after_a_restart_one_that_stays_away_is_killed() {
    let mut w = World::new();
    let container = w.with_task();
    w.stored();
    let mut w = w.restart(&[(&container, Found::Running { pid: 7, networks: vec![] })]);
    w.register();
    w.wait(2 * SECOND);
    assert_eq!(w.signals(), [9]);
    w.exited(&container, 9);
    w.stored();
    w.container(&container, ContainerEvent::Destroyed);
    assert_eq!(w.states(), [TaskState::TaskLost]);
    assert_eq!(w.updates[0].reason(), Reason::ExecutorReregistrationTimeout);

    let mut w = World::new();
    let container = w.with_task();
    w.stored();
    let exited = Found::Exited { status: Some(256), limitation: None };
    let mut w = w.restart(&[(&container, exited)]);
    w.register();
    assert_eq!(w.destroys(), 1);
    w.container(&container, ContainerEvent::Destroyed);
    assert_eq!(w.states(), [TaskState::TaskFailed]);
    assert_eq!(w.exits(), [256]);
}

#[test]
fn a_container_that_cannot_have_what_its_tasks_need_is_ended() {
    let mut w = World::new();
    let container = w.with_task();
    w.launch("more");
    w.stored();
    w.container(&container, ContainerEvent::NotUpdated("no".into()));
    assert_eq!(w.signals(), [9]);
    w.exited(&container, 9);
    w.stored();
    w.container(&container, ContainerEvent::Destroyed);
    assert_eq!(w.states(), [TaskState::TaskLost; 2]);
    assert_eq!(w.updates[0].reason(), Reason::ContainerUpdateFailed);
}

#[test]
fn events_wait_for_an_executor_whose_connection_broke() {
    let mut w = World::new();
    w.with_task();
    w.step(Input::ExecutorGone(StreamId(1)));
    w.launch("later");
    w.stored();
    w.kill("t");
    assert!(w.events.is_empty());
    w.subscribe(2, Subscribe { unacknowledged_tasks: vec![delegated("t")], ..Subscribe::default() });
    w.commands.clear();
    let container = w.core.snapshot().frameworks.executors().next().unwrap().container.clone();
    w.container(&container, ContainerEvent::Updated);
    assert_eq!(w.events(2), [event::Type::Subscribed, event::Type::Kill, event::Type::Launch]);
    assert!(w.updates.is_empty());
}

#[test]
fn hard_limits_count_with_what_the_other_tasks_ask_for() {
    let mut limited = delegated("a");
    limited.limits.insert("cpus".into(), value::Scalar { value: 3.0 });
    let other = delegated("b");
    let amounts = super::super::executors::amounts(&executor(), &[&limited, &other]);
    assert_eq!(amounts.limits, [("cpus".to_owned(), 0.5 + 3.0 + 1.0)].into());
    assert_eq!(super::super::executors::amounts(&executor(), &[&other]).limits, [].into());
    let _ = Value::default();
}

#[test]
fn a_task_for_an_executor_that_has_ended_meanwhile_is_dropped() {
    let mut w = World::new();
    let late = RunTask { framework: framework(&[]), task: delegated("t"), launch_executor: Some(false) };
    w.frame(Body::RunTask(late));
    w.stored();
    assert!(w.commands.is_empty(), "another is not started: nobody was charged for it");
    assert_eq!(w.states(), [TaskState::TaskLost]);
    assert_eq!(w.updates[0].reason(), Reason::ExecutorTerminated);
    assert!(w.exits().is_empty(), "its end was told, and is on its way");
}

#[test]
fn what_is_told_of_a_task_that_is_not_here_leaves_nothing_behind() {
    let mut w = World::new();
    w.with_task();
    w.tell(status("foreign", TaskState::TaskRunning, 1));
    w.stored();
    assert_eq!(w.states(), [TaskState::TaskRunning], "the framework is told, as by Mesos");
    w.acknowledge();
    assert!(!w.core.streams.contains(&TaskKey::new("F", "foreign")));
    assert!(w.stored_state().orphans.is_empty());
}

#[test]
fn an_executor_that_ends_while_the_agent_is_being_taken_in_is_told_after_that() {
    let mut w = World::new();
    let container = w.with_task();
    w.stored();
    w.step(Input::LinkClosed);
    w.step(Input::LinkOpened);
    w.exited(&container, 0);
    w.stored();
    w.container(&container, ContainerEvent::Destroyed);
    assert!(w.exits().is_empty());
    w.sent.clear();
    w.frame(Body::Registered(Registered {
        agent_id: "A".into(),
        ping_timeout_seconds: 75.0,
        unknown_tasks: Vec::new(),
    }));
    assert_eq!(w.exits(), [0]);
}
