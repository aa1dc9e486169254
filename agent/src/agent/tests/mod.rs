//! A whole agent over real sockets and disk, with a coordinator and containers that only pretend.

mod reads;
mod recovery;
mod world;

use std::time::Duration;

use tepui_api::link::{Acknowledge, KillTask, Registered, RunTask, coordinator_frame::Body};
use tepui_api::v1::task_status::{Reason, Source};
use tepui_api::v1::{CommandInfo, FrameworkInfo, TaskInfo, TaskState, TaskStatus};

use crate::core::Found;
use world::World;

fn framework() -> FrameworkInfo {
    FrameworkInfo { id: Some("F".into()), name: "f".into(), user: "root".into(), ..FrameworkInfo::default() }
}

/// A task whose pretended container does what its command says.
fn task(id: &str, command: &str) -> TaskInfo {
    let resources = tepui_api::resources::Resources::parse("cpus:0.1;mem:32", "*").unwrap();
    TaskInfo {
        name: id.into(),
        task_id: id.into(),
        agent_id: "A".into(),
        resources: resources.allocated("web").to_wire(),
        command: Some(CommandInfo { value: Some(command.into()), ..CommandInfo::default() }),
        ..TaskInfo::default()
    }
}

fn run(id: &str, command: &str) -> Body {
    Body::RunTask(RunTask { framework: framework(), task: task(id, command), launch_executor: None })
}

fn registered() -> Body {
    Body::Registered(Registered { agent_id: "A".into(), ping_timeout_seconds: 75.0, unknown_tasks: vec![] })
}

fn acknowledge(status: &TaskStatus) -> Body {
    Body::Acknowledge(Acknowledge {
        framework_id: "F".into(),
        task_id: status.task_id.clone(),
        uuid: status.uuid.clone().unwrap(),
    })
}

impl World {
    /// Takes updates and acknowledges them, until a task's last.
    async fn updates_of(&mut self, task: &str) -> Vec<TaskStatus> {
        let mut all = Vec::new();
        loop {
            let status = self.coordinator.update().await;
            self.coordinator.send(acknowledge(&status));
            if status.task_id.value != task {
                continue;
            }
            let last = crate::core::is_terminal(status.state());
            all.push(status);
            if last {
                return all;
            }
        }
    }
}

fn states(updates: &[TaskStatus]) -> Vec<TaskState> {
    updates.iter().map(TaskStatus::state).collect()
}

use TaskState::{TaskFailed, TaskFinished, TaskKilled, TaskLost, TaskRunning, TaskStarting};

#[tokio::test(flavor = "multi_thread")]
async fn tasks_run_and_their_updates_arrive_in_order() {
    let mut world = World::start().await;
    world.register().await;
    world.coordinator.send(run("good", "exit 0"));
    let updates = world.updates_of("good").await;
    assert_eq!(states(&updates), [TaskStarting, TaskRunning, TaskFinished]);
    world.coordinator.send(run("bad", "exit 7"));
    let updates = world.updates_of("bad").await;
    assert_eq!(states(&updates), [TaskStarting, TaskRunning, TaskFailed]);
    assert!(updates[2].message().contains("status 7"));
    world.coordinator.send(run("never", "refuse"));
    let updates = world.updates_of("never").await;
    assert_eq!(states(&updates), [TaskFailed]);
    assert_eq!((updates[0].reason(), updates[0].source()), (Reason::ContainerLaunchFailed, Source::Agent));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_of_an_unknown_user_is_lost() {
    let mut world = World::start().await;
    world.register().await;
    let mut task = task("t", "exit 0");
    task.command.as_mut().unwrap().user = Some("no-such-user-here".into());
    world.coordinator.send(Body::RunTask(RunTask { framework: framework(), task, launch_executor: None }));
    let updates = world.updates_of("t").await;
    assert_eq!(states(&updates), [TaskLost]);
    assert_eq!(updates[0].reason(), Reason::ExecutorTerminated);
    assert!(updates[0].message().contains("no-such-user-here"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_killed() {
    let mut world = World::start().await;
    world.register().await;
    world.coordinator.send(run("t", "sleep"));
    world.wait_for(TaskRunning).await;
    let kill = KillTask { framework_id: "F".into(), task_id: "t".into(), kill_policy: None };
    world.coordinator.send(Body::KillTask(kill));
    assert_eq!(states(&world.updates_of("t").await), [TaskKilled]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_was_killed_comes_back_with_its_tasks() {
    let mut world = World::start().await;
    world.register().await;
    for id in ["on", "gone"] {
        world.coordinator.send(run(id, "sleep"));
        world.wait_for(TaskRunning).await;
    }
    let (on, gone) = (world.container("on").await, world.container("gone").await);
    world.crash().await;
    world.containers.found(&on, Found::Running { pid: 1, networks: vec![] });
    world.containers.found(&gone, Found::Exited { status: Some(3 << 8), limitation: None });
    world.restart().await;
    let register = world.register().await;
    assert_eq!(register.agent.id, Some("A".into()));
    assert_eq!(register.tasks.len(), 2);
    // The last acknowledgements may have been lost in the crash.
    assert_eq!(states(&world.updates_of("gone").await).last(), Some(&TaskFailed));
    world.containers.exit(&on, 0);
    assert_eq!(states(&world.updates_of("on").await).last(), Some(&TaskFinished));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_comes_back_hears_what_it_missed() {
    let mut world = World::start().await;
    world.register().await;
    world.coordinator.send(run("t", "sleep"));
    world.wait_for(TaskRunning).await;
    let container = world.container("t").await;
    world.coordinator.hang_up().await;
    world.containers.exit(&container, 0);
    let register = world.register().await;
    assert_eq!(register.tasks[0].task_id, "t".into());
    assert_eq!(states(&world.updates_of("t").await).last(), Some(&TaskFinished));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cleaning_up_ends_all_that_runs() {
    let mut world = World::start().await;
    world.register().await;
    world.coordinator.send(run("t", "sleep"));
    world.wait_for(TaskRunning).await;
    let agent = world.agent.take().unwrap();
    tokio::time::timeout(Duration::from_secs(60), agent.stop_and_clean_up()).await.unwrap();
    assert_eq!(world.containers.left(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_tasks_at_once() {
    let mut world = World::start().await;
    world.register().await;
    for n in 0..100 {
        world.coordinator.send(run(&format!("t{n}"), "exit 0"));
    }
    let mut finished = 0;
    while finished < 100 {
        let status = world.coordinator.update().await;
        world.coordinator.send(acknowledge(&status));
        finished += usize::from(status.state() == TaskFinished);
    }
    world.stop().await;
}
