//! Groups of tasks: all or none.

use tepui_api::link::coordinator_frame::Body as Frame;
use tepui_api::resources::Resources;
use tepui_api::v1::offer::operation::LaunchGroup;
use tepui_api::v1::offer::{Operation, operation};
use tepui_api::v1::task_status::Reason;
use tepui_api::v1::{
    ContainerInfo, ExecutorInfo, HealthCheck, LinuxInfo, NetworkInfo, TaskGroupInfo, TaskState,
    container_info, executor_info, health_check,
};

use super::world::*;

type Change = fn(&mut LaunchGroup);

fn container(r#type: container_info::Type) -> ContainerInfo {
    ContainerInfo { r#type: r#type.into(), ..Default::default() }
}

fn resources(text: &str) -> Vec<tepui_api::v1::Resource> {
    Resources::parse(text, "*").unwrap().to_wire()
}

const TABLE: &[(Change, Option<&str>)] = &[
    (|_| {}, None),
    (|g| g.task_group.tasks[1].task_id = "a/b".into(), Some("id")),
    (|g| g.task_group.tasks[1].command = None, None),
    (|g| g.executor.r#type = None, Some("type")),
    (|g| g.executor.framework_id = None, Some("framework_id")),
    (|g| g.executor.resources = resources("cpus:0.1;mem:32"), Some("disk")),
    (|g| g.executor.resources = resources("cpus:0.1;mem:31;disk:1"), Some("mem")),
    (|g| g.executor.resources = resources("cpus:0.009;mem:32;disk:1"), Some("cpus")),
    (|g| g.executor.container = Some(container(container_info::Type::Docker)), Some("MESOS")),
    (|g| g.task_group.tasks[0].container = Some(container(container_info::Type::Docker)), Some("docker")),
    (
        |g| {
            g.task_group.tasks[0].executor =
                Some(ExecutorInfo { executor_id: "x".into(), ..Default::default() })
        },
        Some("differs"),
    ),
    (
        |g| {
            let task = &mut g.task_group.tasks[0];
            let mut joins = container(container_info::Type::Mesos);
            joins.network_infos.push(NetworkInfo::default());
            task.container = Some(joins);
            let mut check = HealthCheck { tcp: Some(Default::default()), ..Default::default() };
            check.set_type(health_check::Type::Tcp);
            task.health_check = Some(check);
        },
        Some("network"),
    ),
    (
        |g| {
            let mut own = container(container_info::Type::Mesos);
            own.linux_info = Some(LinuxInfo { share_cgroups: Some(false), ..Default::default() });
            g.task_group.tasks[0].container = Some(own);
        },
        Some("share_cgroups"),
    ),
    (|g| g.task_group.tasks[0].resources = resources("cpus:4;mem:32"), Some("more than")),
];

#[test]
fn groups_follow_the_rules() {
    for (n, (change, word)) in TABLE.iter().enumerate() {
        let mut world = World::new();
        let (link, agent) = world.agent("a", "cpus:4;mem:1000;disk:100");
        let (stream, id) = world.framework(info(|_| {}));
        world.soon();
        world.frames(link);
        let offer = world.offers(stream).remove(0);
        let mut group = LaunchGroup {
            executor: ExecutorInfo {
                executor_id: "e".into(),
                framework_id: Some(id.clone()),
                resources: resources("cpus:0.1;mem:32;disk:1"),
                ..Default::default()
            },
            task_group: TaskGroupInfo {
                tasks: vec![task("t1", &agent, "cpus:1;mem:32"), task("t2", &agent, "cpus:1;mem:32")],
            },
        };
        group.executor.set_type(executor_info::Type::Default);
        change(&mut group);
        let operation = Operation {
            r#type: Some(operation::Type::LaunchGroup.into()),
            launch_group: Some(group),
            ..Default::default()
        };
        world.call(stream, &id, accept(&[&offer.id], vec![operation]));
        let statuses = world.statuses(stream);
        let frames = world.frames(link);
        let used = world.core.snapshot().agents[&agent].allocated().unallocated();
        match word {
            None => {
                assert_eq!(statuses, [], "row {n}");
                assert!(matches!(frames[..], [Frame::RunTaskGroup(_)]), "row {n}");
                assert_eq!(used, Resources::parse("cpus:2.1;mem:96;disk:1", "*").unwrap());
            }
            Some(word) => {
                assert_eq!(statuses.len(), 2, "row {n}");
                for status in statuses {
                    assert_eq!(
                        (status.state(), status.reason()),
                        (TaskState::TaskError, Reason::TaskGroupInvalid)
                    );
                    let message = status.message.unwrap();
                    assert!(message.to_lowercase().contains(&word.to_lowercase()), "row {n}: {message}");
                }
                assert_eq!((frames.len(), used), (0, Resources::new()), "row {n}");
            }
        }
    }
}
