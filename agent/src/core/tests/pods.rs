//! Pods: tasks in containers nested in that of an executor of type DEFAULT.

use tepui_api::v1::executor_info;

use super::*;

fn executor() -> ExecutorInfo {
    ExecutorInfo {
        executor_id: "P".into(),
        r#type: Some(executor_info::Type::Default as i32),
        ..ExecutorInfo::default()
    }
}

impl World {
    fn launch_group(&mut self, ids: &[&str]) {
        let task_group = TaskGroupInfo { tasks: ids.iter().map(|id| task(id)).collect() };
        let run = RunTaskGroup {
            framework: framework(&[]),
            executor: executor(),
            task_group,
            launch_executor: None,
        };
        self.frame(Body::RunTaskGroup(run));
    }

    /// The containers that were to be prepared since the last look.
    fn prepared(&mut self) -> Vec<ContainerId> {
        let all = std::mem::take(&mut self.commands).into_iter();
        all.map(|(id, command)| match command {
            ContainerCommand::Prepare(_) => id,
            other => panic!("{id}: {other:?}"),
        })
        .collect()
    }

    fn started(&mut self) -> Vec<ContainerId> {
        let all = std::mem::take(&mut self.commands).into_iter();
        all.map(|(id, command)| match command {
            ContainerCommand::Start => id,
            other => panic!("{id}: {other:?}"),
        })
        .collect()
    }

    /// A pod whose tasks run; gives its container and theirs.
    fn pod(&mut self, ids: &[&str]) -> (ContainerId, Vec<ContainerId>) {
        self.launch_group(ids);
        let [pod] = &self.prepared()[..] else { panic!("one container first") };
        let pod = pod.clone();
        self.container(&pod, ContainerEvent::Prepared { networks: vec![] });
        self.stored();
        assert_eq!(self.started(), std::slice::from_ref(&pod));
        self.container(&pod, ContainerEvent::Started { pid: 7, networks: vec![] });
        let tasks = self.prepared();
        assert_eq!(tasks.len(), ids.len());
        for container in &tasks {
            assert_eq!(container.parent.as_deref(), Some(&pod));
            self.container(container, ContainerEvent::Prepared { networks: vec![] });
        }
        assert_eq!(self.started(), tasks);
        for container in &tasks {
            self.container(container, ContainerEvent::Started { pid: 8, networks: vec![] });
        }
        self.settle();
        (pod, tasks)
    }

    /// All updates are acknowledged until there are no more.
    fn settle(&mut self) {
        self.stored();
        let mut at = 0;
        while at < self.updates.len() {
            let update = self.updates[at].clone();
            self.acknowledge_uuid(&update.task_id.value, update.uuid.unwrap());
            self.stored();
            at += 1;
        }
    }

    fn states_of(&self, task: &str) -> Vec<TaskState> {
        let of_task = self.updates.iter().filter(|update| update.task_id.value == task);
        of_task.map(TaskStatus::state).collect()
    }

    fn destroy_all(&mut self) {
        for (id, command) in std::mem::take(&mut self.commands) {
            if matches!(command, ContainerCommand::Destroy) {
                self.container(&id, ContainerEvent::Destroyed);
            }
        }
        self.settle();
    }

    fn pod_exits(&self) -> Vec<i32> {
        let exit = |body: &agent_frame::Body| match body {
            agent_frame::Body::ExecutorExited(exited) => Some(exited.status),
            _ => None,
        };
        self.sent.iter().filter_map(exit).collect()
    }
}

const WELL: [TaskState; 3] = [TaskState::TaskStarting, TaskState::TaskRunning, TaskState::TaskFinished];

#[test]
fn a_pod_runs_its_tasks_and_ends_with_the_last() {
    let mut w = World::new();
    let (pod, tasks) = w.pod(&["a", "b"]);
    let update = &w.updates[0];
    assert_eq!(update.executor_id.as_ref().unwrap().value, "P");
    assert_eq!(update.source(), Source::Executor);
    let status = w.updates.last().unwrap().container_status.clone().unwrap();
    assert!(tasks.contains(&status.container_id.unwrap()));

    w.exited(&tasks[0], 0);
    w.stored();
    assert_eq!(w.commands.len(), 1, "the other goes on");
    w.destroy_all();
    assert_eq!(w.states_of("a"), WELL);
    assert!(w.pod_exits().is_empty());
    w.exited(&tasks[1], 0);
    w.stored();
    w.destroy_all();
    let Some((last, ContainerCommand::Destroy)) = w.commands.pop() else { panic!("the pod goes") };
    assert_eq!(last, pod);
    w.container(&pod, ContainerEvent::Destroyed);
    w.settle();
    assert_eq!((w.states_of("b"), w.pod_exits()), (WELL.to_vec(), vec![0]));
    assert!(w.core.containers.is_empty() && w.core.snapshot().frameworks.active.is_empty());
    assert!(w.stored_state().tasks.is_empty() && w.stored_state().executors.is_empty());
}

#[test]
fn one_that_fails_has_its_group_killed_and_no_other() {
    let mut w = World::new();
    let (_, tasks) = w.pod(&["a", "b", "c"]);
    w.launch_group(&["other"]);
    w.stored();
    w.commands.clear();
    w.exited(&tasks[0], 3 << 8);
    let killed: Vec<_> =
        w.commands.iter().filter(|(_, c)| matches!(c, ContainerCommand::Signal(15))).collect();
    assert_eq!(killed.iter().map(|(id, _)| id).collect::<Vec<_>>(), [&tasks[1], &tasks[2]]);
    w.commands.clear();
    w.wait(3 * SECOND);
    assert_eq!(w.signals(), [9, 9], "each had its grace period");
    w.exited(&tasks[1], 15);
    w.exited(&tasks[2], 9);
    w.stored();
    w.destroy_all();
    assert_eq!(w.states_of("a").last(), Some(&TaskState::TaskFailed));
    for task in ["b", "c"] {
        assert_eq!(w.states_of(task).last(), Some(&TaskState::TaskKilled));
    }
    assert!(w.states_of("other").is_empty());
    assert!(w.pod_exits().is_empty(), "another group is there");
}

#[test]
fn what_a_second_group_needs_is_there_before_it_starts() {
    let mut w = World::new();
    let (pod, _) = w.pod(&["a"]);
    let resources = tepui_api::resources::Resources::parse("cpus:1", "*").unwrap().to_wire();
    let more = TaskInfo { resources, ..task("b") };
    let task_group = TaskGroupInfo { tasks: vec![more] };
    w.frame(Body::RunTaskGroup(RunTaskGroup {
        framework: framework(&[]),
        executor: executor(),
        task_group,
        launch_executor: None,
    }));
    let [second] = &w.prepared()[..] else { panic!("its container is prepared at once") };
    let second = second.clone();
    w.stored();
    let Some((id, ContainerCommand::Update(..))) = w.commands.pop() else { panic!("the pod gets more") };
    assert_eq!(id, pod);
    w.container(&second, ContainerEvent::Prepared { networks: vec![] });
    assert!(w.commands.is_empty());
    w.container(&pod, ContainerEvent::Updated);
    assert_eq!(w.started(), [second]);
}

#[test]
fn the_end_of_the_pod_is_the_end_of_its_tasks() {
    let mut w = World::new();
    let (pod, tasks) = w.pod(&["a", "b"]);
    let limitation = Limitation {
        reason: Reason::ContainerLimitationMemory,
        message: "too much".into(),
        resources: Vec::new(),
    };
    w.container(&pod, ContainerEvent::Exited { status: Some(9), limitation: Some(limitation) });
    w.stored();
    assert!(w.signals().is_empty());
    assert_eq!(w.destroys(), 3);
    for container in tasks.iter().chain([&pod]) {
        w.container(container, ContainerEvent::Destroyed);
    }
    w.settle();
    for task in ["a", "b"] {
        let last = w.updates.iter().rfind(|update| update.task_id.value == task).unwrap();
        assert_eq!((last.state(), last.reason()), (TaskState::TaskFailed, Reason::ContainerLimitationMemory));
    }
    assert_eq!(w.pod_exits(), [9]);
    assert!(w.core.containers.is_empty());
}

#[test]
fn a_pod_that_is_shut_down_kills_its_tasks() {
    let mut w = World::new();
    let (pod, tasks) = w.pod(&["a"]);
    let shutdown = ShutdownExecutor { framework_id: "F".into(), executor_id: "P".into() };
    w.frame(Body::ShutdownExecutor(shutdown));
    assert_eq!(w.signals(), [15]);
    w.launch_group(&["late"]);
    w.settle();
    assert_eq!(w.states_of("late"), [TaskState::TaskLost]);
    w.exited(&tasks[0], 15);
    w.stored();
    w.destroy_all();
    assert_eq!(w.states_of("a").last(), Some(&TaskState::TaskKilled));
    assert!(matches!(w.commands.pop(), Some((id, ContainerCommand::Destroy)) if id == pod));
}

#[test]
fn a_group_that_is_killed_before_it_runs_leaves_nothing() {
    let mut w = World::new();
    w.launch_group(&["a", "b"]);
    let pod = w.prepared().pop().unwrap();
    w.stored();
    w.kill("a");
    w.stored();
    w.destroy_all();
    for task in ["a", "b"] {
        assert_eq!(w.states_of(task), [TaskState::TaskKilled]);
    }
    assert!(matches!(w.commands.pop(), Some((id, ContainerCommand::Destroy)) if id == pod));
    w.container(&pod, ContainerEvent::Destroyed);
    w.settle();
    assert!(w.core.containers.is_empty() && w.core.snapshot().frameworks.active.is_empty());
}

#[test]
fn a_framework_that_goes_takes_its_pods_along() {
    let mut w = World::new();
    let (pod, tasks) = w.pod(&["a"]);
    w.frame(Body::ShutdownFramework("F".into()));
    w.exited(&tasks[0], 15);
    w.stored();
    w.destroy_all();
    w.container(&pod, ContainerEvent::Destroyed);
    w.stored();
    assert!(w.core.containers.is_empty() && w.core.snapshot().frameworks.active.is_empty());
    assert!(w.stored_state().tasks.is_empty() && w.stored_state().executors.is_empty());
}

#[test]
fn a_restarted_agent_goes_on_with_pods_and_ends_what_has_failed_meanwhile() {
    let mut w = World::new();
    let (pod, tasks) = w.pod(&["a", "b"]);
    let state = w.stored_state();
    let launches: Vec<_> = state.launches().map(|(id, _)| id).collect();
    assert_eq!(launches.len(), 3);
    assert!(launches.contains(&tasks[1]), "with its parent");
    let runs = |pid| Found::Running { pid, networks: vec![] };

    let mut again = w.restart(&[(&pod, runs(7)), (&tasks[0], runs(8)), (&tasks[1], runs(9))]);
    again.register();
    assert!(again.commands.is_empty() && again.updates.is_empty(), "all goes on");

    let failed = Found::Exited { status: Some(1 << 8), limitation: None };
    let mut again = w.restart(&[(&pod, runs(7)), (&tasks[0], failed), (&tasks[1], runs(9))]);
    again.register();
    assert_eq!(again.signals(), [15]);
    again.exited(&tasks[1], 15);
    again.stored();
    again.destroy_all();
    assert_eq!(again.states_of("a"), [TaskState::TaskFailed]);
    assert_eq!(again.states_of("b"), [TaskState::TaskKilled]);
    assert!(matches!(again.commands.pop(), Some((id, ContainerCommand::Destroy)) if id == pod));

    let mut again = w.restart(&[(&pod, Found::Nothing)]);
    again.register();
    again.destroy_all();
    for task in ["a", "b"] {
        assert_eq!(again.states_of(task), [TaskState::TaskFailed]);
    }
    assert!(again.core.containers.is_empty());
}
