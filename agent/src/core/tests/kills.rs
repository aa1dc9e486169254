//! How tasks are made to end.

use super::*;
use TaskState::{TaskFailed, TaskKilled, TaskKilling, TaskLost};

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
    w.stored();
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
    w.container(&container, ContainerEvent::Started { pid: 1, networks: vec![] });
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
    let limited =
        TaskInfo { max_completion_time: Some(DurationInfo { nanoseconds: 2_000_000_000 }), ..task("t") };
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
    w.frame(Body::RunTask(RunTask { framework: framework(&[]), task: task("d"), launch_executor: None }));
    w.wait(5 * SECOND);
    assert_eq!(w.signals(), [15, 9]);
    w.exited(&running, 9);
    for container in [&running, &preparing] {
        w.container(container, ContainerEvent::Destroyed);
    }
    w.stored();
    // The one that was not taken on: nobody may go on believing in it.
    assert_eq!(w.states(), [TaskLost]);
    assert_eq!(w.updates[0].reason(), Reason::FrameworkRemoved);
    assert_eq!(w.updates[0].task_id.as_str(), "d");
    w.acknowledge();
    assert!(w.core.snapshot().frameworks.active.is_empty());
    assert_eq!(w.core.snapshot().frameworks.completed[0].completed.len(), 3);
    assert_eq!(w.stored_state().tasks.len(), 0);
    assert_eq!(w.stored_state().frameworks.len(), 0);
}

#[test]
fn a_framework_that_comes_again_is_served_once_its_earlier_tasks_have_ended() {
    let mut w = World::new();
    let running = w.running(framework(&[]), task("a"));
    w.updates.clear();
    w.frame(Body::ShutdownFramework("F".into()));
    w.frame(Body::RunTask(RunTask { framework: framework(&[]), task: task("b"), launch_executor: None }));
    w.exited(&running, 15);
    w.container(&running, ContainerEvent::Destroyed);
    w.stored();
    assert_eq!(w.states(), [TaskLost]);
    // That is not acknowledged yet, and must not keep the next one out.
    w.running(framework(&[]), task("c"));
    assert_eq!(w.stored_state().frameworks[0].1, FrameworkFate::Active);
}
