//! How an agent is drained.

use super::*;
use TaskState::{TaskDropped, TaskFinished, TaskGoneByOperator, TaskKilled, TaskKilling, TaskLost};
use tepui_api::v1::DrainConfig;

const AWARE: capability::Type = capability::Type::PartitionAware;
const KILLING: capability::Type = capability::Type::TaskKillingState;

fn drain(seconds: Option<i64>, mark_gone: bool) -> Body {
    let max_grace_period = seconds.map(|s| DurationInfo { nanoseconds: s * 1_000_000_000 });
    Body::Drain(DrainConfig { max_grace_period, mark_gone: Some(mark_gone) })
}

/// When the first SIGKILL comes after the drain.
fn killed_after(policy: Option<i64>, limit: Option<i64>) -> Duration {
    let mut w = World::new();
    w.running(framework(&[]), TaskInfo { kill_policy: policy.and_then(grace), ..task("t") });
    w.frame(drain(limit, false));
    w.stored();
    assert_eq!(w.signals(), [15]);
    let begun = w.now.monotonic;
    while !w.signals().contains(&9) {
        w.wait(SECOND);
    }
    w.now.monotonic - begun
}

#[test]
fn the_operators_grace_period_cuts_the_tasks_own_and_stands_in_for_none() {
    assert_eq!(killed_after(Some(20), Some(5)), 5 * SECOND);
    assert_eq!(killed_after(Some(4), Some(5)), 4 * SECOND);
    assert_eq!(killed_after(Some(20), None), 20 * SECOND);
    assert_eq!(killed_after(None, None), 3 * SECOND);
    assert_eq!(killed_after(None, Some(7)), 7 * SECOND);
    assert_eq!(killed_after(None, Some(1)), SECOND);
}

#[test]
fn a_drain_is_stored_then_kills_all_and_is_over_with_the_last_acknowledgement() {
    let mut w = World::new();
    let one = w.running(framework(&[KILLING]), task("one"));
    let early = w.run_with(framework(&[KILLING]), task("early"));
    w.commands.clear();
    w.frame(drain(Some(1), false));
    assert_eq!((w.signals(), w.destroys()), (vec![], 0), "nothing is done before the drain is on disk");
    assert!(w.core.snapshot().drain.is_some());
    w.stored();
    assert_eq!((w.signals(), w.destroys()), (vec![15], 1));
    w.container(&early, ContainerEvent::Destroyed);
    w.wait(SECOND);
    assert_eq!(w.signals(), [15, 9]);
    w.stored();
    let of = |w: &World, id: &str| {
        let of_task = w.updates.iter().filter(|u| u.task_id.value == id);
        of_task.map(|u| (u.state(), u.reason(), u.source())).collect::<Vec<_>>()
    };
    assert_eq!(of(&w, "early"), [(TaskKilled, Reason::AgentDraining, Source::Agent)]);
    assert_eq!(of(&w, "one"), [(TaskKilling, Reason::AgentDraining, Source::Executor)]);
    w.exited(&one, 9);
    w.container(&one, ContainerEvent::Destroyed);
    w.stored();
    for id in ["early", "one", "one"] {
        let last = w.updates.iter().rfind(|u| u.task_id.value == id).unwrap().uuid.clone().unwrap();
        assert!(w.core.snapshot().drain.is_some(), "it lasts while an update waits for {id}'s framework");
        w.acknowledge_uuid(id, last);
        w.stored();
    }
    assert_eq!(of(&w, "one")[1], (TaskKilled, Reason::AgentDraining, Source::Executor));
    w.stored();
    assert_eq!((w.core.snapshot().drain, w.stored_state().drain), (None, None));
    w.run("welcome");
}

#[test]
fn what_arrives_while_the_agent_drains_is_dropped() {
    for (capabilities, state) in [(&[AWARE][..], TaskDropped), (&[], TaskLost)] {
        let mut w = World::new();
        w.running(framework(capabilities), task("t"));
        w.frame(drain(None, false));
        w.frame(Body::RunTask(RunTask {
            framework: framework(capabilities),
            task: task("late"),
            launch_executor: None,
        }));
        w.stored();
        let late = w.updates.iter().find(|u| u.task_id.value == "late").unwrap();
        assert_eq!((late.state(), late.reason()), (state, Reason::AgentDraining));
    }
}

#[test]
fn tasks_are_gone_when_the_agent_will_be_for_those_who_know_what_that_means() {
    for (capabilities, state) in [(&[AWARE, KILLING][..], TaskGoneByOperator), (&[KILLING], TaskKilled)] {
        let mut w = World::new();
        let container = w.running(framework(capabilities), task("t"));
        w.frame(drain(None, true));
        w.stored();
        w.acknowledge();
        w.exited(&container, 15);
        w.container(&container, ContainerEvent::Destroyed);
        w.stored();
        assert_eq!(w.states(), [TaskKilling, state]);
        assert!(w.updates.iter().all(|update| update.reason() == Reason::AgentDraining));
    }
}

#[test]
fn a_task_that_ends_by_itself_says_so_and_an_idle_agent_has_nothing_to_drain() {
    let mut w = World::new();
    let container = w.running(framework(&[]), task("t"));
    w.exited(&container, 0);
    w.frame(drain(None, true));
    w.container(&container, ContainerEvent::Destroyed);
    w.stored();
    assert_eq!(w.states(), [TaskFinished]);
    w.acknowledge();
    assert_eq!(w.core.snapshot().drain, None);
    w.frame(drain(None, true));
    w.stored();
    assert_eq!((w.core.snapshot().drain, w.stored_state().drain), (None, None));
}

#[test]
fn a_drain_goes_on_after_a_restart() {
    let mut w = World::new();
    let one = w.running(framework(&[]), task("one"));
    let two = w.running(framework(&[]), task("two"));
    w.frame(drain(Some(1), false));
    // The drain was stored, but no kill.
    w.unstored.clear();
    w.disk.append(&mut w.unconfirmed);
    let running = Found::Running { pid: 42, networks: vec![] };
    let mut w = w.restart(&[(&one, running.clone()), (&two, running)]);
    assert_eq!(w.signals(), [15, 15]);
    w.register();
    w.frame(Body::RunTask(RunTask { framework: framework(&[]), task: task("late"), launch_executor: None }));
    w.stored();
    assert_eq!(w.states(), [TaskLost]);
    w.acknowledge();
    for container in [&one, &two] {
        w.exited(container, 15);
        w.container(container, ContainerEvent::Destroyed);
        w.stored();
        assert_eq!(w.updates.last().unwrap().reason(), Reason::AgentDraining);
        w.acknowledge();
    }
    w.stored();
    assert_eq!((w.core.snapshot().drain, w.stored_state().drain), (None, None));
}

#[test]
fn the_drain_said_again_changes_nothing_and_a_shorter_one_shortens() {
    let mut w = World::new();
    w.running(framework(&[]), TaskInfo { kill_policy: grace(20), ..task("t") });
    w.frame(drain(Some(10), false));
    w.stored();
    let since = w.core.snapshot().drain.unwrap().since;
    w.wait(5 * SECOND);
    w.frame(drain(Some(10), false));
    w.stored();
    assert_eq!(w.core.snapshot().drain.unwrap().since, since);
    assert_eq!(w.signals(), [15]);
    w.frame(drain(Some(5), false));
    w.stored();
    assert_eq!(w.signals(), [15, 9]);
}
