//! What agent and coordinator say of themselves to each other.

use super::*;
use TaskState::{TaskLost, TaskRunning, TaskStarting};

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
    w.container(&container, ContainerEvent::Started { pid: 1, networks: vec![] });
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
    assert_eq!(register.completed_tasks, [], "its history is another agent's");
    w.frame(Body::Refused(Refused { message: "go away".into(), register_anew: false }));
    assert_eq!(w.ended, Some(End::Refused("go away".into())));
}

#[test]
fn a_shutdown_ends_all_then_the_agent() {
    let mut w = World::new();
    let container = w.running(framework(&[]), task("t"));
    w.frame(Body::Shutdown(Shutdown { message: "enough".into() }));
    w.frame(Body::RunTask(RunTask { framework: framework(&[]), task: task("late"), launch_executor: None }));
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
fn what_still_comes_over_a_link_that_was_given_up_is_ignored() {
    let mut w = World::new();
    w.running(framework(&[]), task("t"));
    w.step(Input::LinkClosed);
    w.kill("t");
    w.frame(Body::RunTask(RunTask { framework: framework(&[]), task: task("late"), launch_executor: None }));
    w.frame(Body::ShutdownFramework("F".into()));
    w.stored();
    assert_eq!((w.signals(), w.core.snapshot().frameworks.tasks().count()), (vec![], 1));
    w.register();
    w.kill("t");
    assert_eq!(w.signals(), [15]);
}

#[test]
fn what_was_to_be_said_of_unknown_tasks_goes_with_their_framework() {
    let mut w = World::unregistered();
    w.step(Input::LinkOpened);
    w.frame(Body::Registered(Registered {
        agent_id: "A".into(),
        ping_timeout_seconds: 0.0,
        unknown_tasks: vec![KnownTask { framework_id: "F".into(), task_id: "ghost".into() }],
    }));
    w.stored();
    assert_eq!(w.stored_state().orphans.len(), 1);
    w.frame(Body::ShutdownFramework("F".into()));
    w.stored();
    assert_eq!(w.stored_state().orphans, []);
    assert_eq!(w.restart(&[]).core.next_deadline(), None);
}

#[test]
fn a_reconfigured_agent_is_written_down_when_the_coordinator_has_taken_it_in() {
    let mut w = World::new();
    w.stored();
    let hostname = |w: &World| w.stored_state().agent.unwrap().hostname;
    assert_eq!(hostname(&w), "host");
    let mut config = test_config();
    config.agent.hostname = "other".into();
    w.core = Core::new(config, [9; 32]);
    let (stored, mut out) = (w.stored_state(), Vec::new());
    w.core.recover(w.now, stored, &HashMap::new(), &mut out);
    w.take(out);
    w.stored();
    assert_eq!(hostname(&w), "host", "it may still be refused");
    w.register();
    w.stored();
    assert_eq!(hostname(&w), "other");
    assert_eq!(w.stored_state().agent.unwrap().id, Some("A".into()));
}

#[test]
fn a_task_is_not_registered_as_ended_while_something_of_its_container_is_left() {
    let mut w = World::new();
    let container = w.running(framework(&[]), task("t"));
    w.exited(&container, 0);
    let registered = |w: &mut World| {
        w.step(Input::LinkClosed);
        w.step(Input::LinkOpened);
        let Some(agent_frame::Body::Register(register)) = w.sent.pop() else { panic!() };
        register.tasks[0].state()
    };
    assert_eq!(registered(&mut w), TaskState::TaskRunning);
    w.stored();
    w.container(&container, ContainerEvent::Destroyed);
    assert_eq!(registered(&mut w), TaskState::TaskFinished);
}
