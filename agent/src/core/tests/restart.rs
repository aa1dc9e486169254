//! What a new process makes of the records of the last one.

use super::*;
use TaskState::{TaskFailed, TaskFinished, TaskKilled, TaskRunning, TaskStarting};

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
fn an_acknowledgement_that_comes_before_the_container_is_gone_again_counts() {
    let mut w = World::new();
    let container = w.running(framework(&[]), task("t"));
    w.exited(&container, 0);
    w.container(&container, ContainerEvent::Destroyed);
    w.stored();
    let sent = w.updates.last().unwrap().clone();
    assert_eq!(sent.state(), TaskFinished);
    // The process is killed while the framework acknowledges; the next one makes sure of the container first.
    let mut w = w.restart(&[]);
    w.register();
    w.acknowledge_uuid("t", sent.uuid.unwrap());
    w.stored();
    assert_eq!(w.stored_state().tasks.len(), 1, "the container may still be there");
    w.container(&container, ContainerEvent::Destroyed);
    w.stored();
    assert_eq!(w.states(), []);
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
fn a_container_that_does_not_answer_is_gone_or_lost() {
    for (capabilities, state) in
        [(&[capability::Type::PartitionAware][..], TaskState::TaskGone), (&[], TaskState::TaskLost)]
    {
        let mut w = World::new();
        let container = w.running(framework(capabilities), task("t"));
        let mut w = w.restart(&[(&container, Found::Unanswered)]);
        assert_eq!(w.destroys(), 1);
        w.container(&container, ContainerEvent::Destroyed);
        w.register();
        assert_eq!(w.states(), [state]);
        assert_eq!(w.updates[0].reason(), Reason::ExecutorReregistrationTimeout);
    }
}

#[test]
fn cleaning_up_ends_all_and_leaves_the_agents_id() {
    let mut w = World::new();
    let on = w.running(framework(&[]), task("on"));
    let ended = w.running(framework(&[]), task("ended"));
    w.exited(&ended, 0);
    w.stored();
    let mut w = w.restart(&[(&on, Found::Running { pid: 42, networks: vec![] })]);
    w.step(Input::CleanUp);
    assert_eq!(w.signals(), [15]);
    w.container(&ended, ContainerEvent::Destroyed);
    w.wait(5 * SECOND);
    assert_eq!((w.signals(), w.ended.clone()), (vec![15, 9], None));
    w.exited(&on, 9);
    w.container(&on, ContainerEvent::Destroyed);
    w.stored();
    assert_eq!(w.ended, Some(End::CleanedUp));
    assert_eq!(w.sent, [], "nobody is told");
    assert_eq!(w.stored_state(), StoredState { agent: w.stored_state().agent, ..StoredState::default() });
    assert_eq!(w.stored_state().agent.unwrap().id, Some("A".into()));
}
