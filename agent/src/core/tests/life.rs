//! The life of a task that nobody kills, and what is shown of it.

use super::*;
use TaskState::{TaskDropped, TaskError, TaskFailed, TaskFinished, TaskLost, TaskRunning, TaskStarting};

#[test]
fn a_command_task_starts_runs_and_finishes() {
    let mut w = World::new();
    let container = w.run("t");
    w.container(&container, ContainerEvent::Prepared { networks: vec![] });
    assert!(w.commands.is_empty(), "it must not start before its record is on disk");
    w.stored();
    assert!(matches!(w.commands.pop(), Some((_, ContainerCommand::Start))));
    assert_eq!(w.states(), [TaskStarting]);
    w.container(&container, ContainerEvent::Started { pid: 42, networks: vec![] });
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
    for (capabilities, state) in [(&[][..], TaskLost), (&[capability::Type::PartitionAware][..], TaskDropped)]
    {
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
    assert_eq!(
        (w.updates[0].reason(), w.updates[0].source()),
        (Reason::ContainerLaunchFailed, Source::Agent)
    );
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
fn what_the_containerizer_says_is_told_once_with_running() {
    let mut w = World::new();
    let id = w.run("t");
    w.container(&id, ContainerEvent::Prepared { networks: vec![] });
    w.stored();
    let labels = vec![("a".to_owned(), "b".to_owned())];
    w.container(&id, ContainerEvent::Described(Description { data: b"[]".to_vec(), labels }));
    w.container(&id, ContainerEvent::Started { pid: 42, networks: vec![] });
    w.stored();
    w.acknowledge();
    assert_eq!(w.updates[0].data, None);
    assert_eq!(w.updates[1].data.as_deref(), Some(&b"[]"[..]));
    assert_eq!(w.updates[1].labels.as_ref().unwrap().labels[0].key, "a");
    assert!(w.core.frameworks.task(&TaskKey::new("F", "t")).unwrap().description.is_none());
}

#[test]
fn what_cannot_be_run_is_refused_with_words() {
    let mut w = World::new();
    let custom = TaskInfo { executor: Some(ExecutorInfo::default()), command: None, ..task("e") };
    w.frame(Body::RunTask(RunTask { framework: framework(&[]), task: custom, launch_executor: None }));
    w.frame(Body::RunTaskGroup(RunTaskGroup {
        framework: framework(&[]),
        executor: ExecutorInfo::default(),
        task_group: TaskGroupInfo { tasks: vec![task("g1"), task("g2")] },
        launch_executor: None,
    }));
    w.stored();
    assert_eq!(w.states(), [TaskError; 3]);
    assert_eq!(w.updates[0].reason(), Reason::TaskInvalid);
    assert!(w.updates[0].message.as_deref().unwrap().contains("directory"));
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
    w.frame(Body::RunTask(RunTask { framework: framework(&[]), task: foreign, launch_executor: None }));
    assert!(w.commands.is_empty());
    w.run("t");
    w.frame(Body::RunTask(RunTask { framework: framework(&[]), task: task("t"), launch_executor: None }));
    assert!(w.commands.is_empty());
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
fn the_sandbox_and_the_user_are_decided_here() {
    let mut w = World::new();
    let command =
        CommandInfo { user: Some("nobody".into()), value: Some("x".into()), ..CommandInfo::default() };
    w.frame(Body::RunTask(RunTask {
        framework: framework(&[]),
        task: TaskInfo { command: Some(command), ..task("t") },
        launch_executor: None,
    }));
    let Some((id, ContainerCommand::Prepare(launch))) = w.commands.pop() else { panic!() };
    let expected = format!("/w/slaves/A/frameworks/F/executors/t/runs/{id}");
    assert_eq!(launch.directory, Path::new(&expected));
    assert_eq!(launch.user.as_deref(), Some("nobody"));
    assert_eq!(id.value.len(), 36);
}

#[test]
fn what_tells_how_a_task_ended_is_removed_only_when_its_end_is_on_disk() {
    let mut w = World::new();
    let container = w.running(framework(&[]), task("t"));
    w.exited(&container, 0);
    assert_eq!(w.destroys(), 0);
    // Killed now, the agent learns it again.
    let mut again = w.restart(&[(&container, Found::Exited { status: Some(0), limitation: None })]);
    again.container(&container, ContainerEvent::Destroyed);
    again.register();
    assert_eq!(again.states(), [TaskFinished]);
    w.stored();
    assert_eq!(w.destroys(), 1);
}
