//! Every rule that a task must fulfil.

use tepui_api::resources::Resources;
use tepui_api::v1::task_status::Reason;
use tepui_api::v1::{
    CheckInfo, CommandInfo, ContainerInfo, DurationInfo, Environment, ExecutorInfo, HealthCheck, KillPolicy,
    LinuxInfo, TaskInfo, TaskState, container_info, environment, executor_info, health_check, value,
};

use super::world::*;

fn executor(change: impl FnOnce(&mut ExecutorInfo)) -> ExecutorInfo {
    let mut executor = ExecutorInfo {
        executor_id: "e".into(),
        command: Some(CommandInfo { value: Some("run".into()), ..Default::default() }),
        resources: Resources::parse("cpus:0.1;mem:32", "*").unwrap().to_wire(),
        ..Default::default()
    };
    change(&mut executor);
    executor
}

fn use_executor(task: &mut TaskInfo, change: impl FnOnce(&mut ExecutorInfo)) {
    task.command = None;
    task.executor = Some(executor(change));
}

fn resources(text: &str) -> Vec<tepui_api::v1::Resource> {
    Resources::parse(text, "*").unwrap().to_wire()
}

fn container(change: impl FnOnce(&mut ContainerInfo)) -> ContainerInfo {
    let mut container = ContainerInfo { r#type: container_info::Type::Mesos.into(), ..Default::default() };
    change(&mut container);
    container
}

fn share_cgroups(share: bool) -> ContainerInfo {
    let linux = LinuxInfo { share_cgroups: Some(share), ..Default::default() };
    container(|c| c.linux_info = Some(linux))
}

fn limits(task: &mut TaskInfo, name: &str, value: f64) {
    task.limits.insert(name.into(), value::Scalar { value });
}

type Change = fn(&mut TaskInfo);

/// What is done to a task that is fine, and a word of what is said about it; none when it stays fine.
const TABLE: &[(Change, Option<&str>)] = &[
    (|_| {}, None),
    (|t| t.task_id = "a/b".into(), Some("id")),
    (|t| t.task_id = "".into(), Some("id")),
    (|t| t.task_id = "known".into(), Some("duplicate")),
    (|t| t.agent_id = "elsewhere".into(), Some("agent")),
    (
        |t| t.kill_policy = Some(KillPolicy { grace_period: Some(DurationInfo { nanoseconds: -1 }) }),
        Some("grace_period"),
    ),
    (|t| t.kill_policy = Some(KillPolicy { grace_period: Some(DurationInfo { nanoseconds: 0 }) }), None),
    (|t| t.max_completion_time = Some(DurationInfo { nanoseconds: -1 }), Some("max_completion_time")),
    (|t| t.check = Some(CheckInfo::default()), Some("check")),
    (|t| t.health_check = Some(HealthCheck::default()), Some("health check")),
    // The type of a health check was optional once.
    (
        |t| {
            t.health_check =
                Some(HealthCheck { http: Some(health_check::HttpCheckInfo::default()), ..Default::default() })
        },
        None,
    ),
    (|t| t.resources.clear(), Some("no resources")),
    (|t| t.resources = resources("cpus:100;mem:32"), Some("more than")),
    (|t| t.resources = resources("ports:[1-2]"), Some("more than")),
    (|t| t.resources = resources("gpus:0.5;cpus:1"), Some("gpus")),
    (
        |t| {
            let variable = environment::Variable { name: "V".into(), ..Default::default() };
            t.command.as_mut().unwrap().environment = Some(Environment { variables: vec![variable] });
        },
        Some("environment variable"),
    ),
    (|t| t.container = Some(container(|c| c.set_type(container_info::Type::Docker))), Some("docker")),
    (|t| t.container = Some(share_cgroups(true)), None),
    (|t| t.container = Some(share_cgroups(false)), Some("share_cgroups")),
    (|t| limits(t, "cpus", 2.0), None),
    (|t| limits(t, "cpus", f64::INFINITY), None),
    (|t| limits(t, "cpus", 0.5), Some("limit")),
    (|t| limits(t, "mem", 10.0), Some("limit")),
    (|t| limits(t, "disk", 10.0), Some("limits")),
    (
        |t| {
            t.resources = resources("mem:32");
            limits(t, "cpus", 1.0);
        },
        Some("limit"),
    ),
    (|t| t.command = None, Some("either")),
    (|t| t.executor = Some(executor(|_| {})), Some("either")),
    (|t| use_executor(t, |_| {}), None),
    (|t| use_executor(t, |e| e.executor_id = "..".into()), Some("id")),
    (|t| use_executor(t, |e| e.framework_id = Some("other".into())), Some("framework_id")),
    (|t| use_executor(t, |e| e.command = None), Some("command")),
    (|t| use_executor(t, |e| e.set_type(executor_info::Type::Custom)), None),
    (|t| use_executor(t, |e| e.set_type(executor_info::Type::Default)), Some("DEFAULT")),
    (
        |t| {
            use_executor(t, |e| {
                e.set_type(executor_info::Type::Default);
                e.command = None;
            });
        },
        Some("CUSTOM"),
    ),
    (
        |t| use_executor(t, |e| e.shutdown_grace_period = Some(DurationInfo { nanoseconds: -1 })),
        Some("shutdown_grace_period"),
    ),
    (|t| use_executor(t, |e| e.container = Some(share_cgroups(true))), Some("share_cgroups")),
    (|t| use_executor(t, |e| e.resources = resources("cpus:4")), Some("more than")),
    (
        |t| {
            t.resources = resources("cpus:1;ports:[10-11]");
            use_executor(t, |e| e.resources = resources("ports:[11-12]"));
        },
        Some("overlap"),
    ),
];

#[test]
fn tasks_follow_the_rules() {
    for (n, (change, word)) in TABLE.iter().enumerate() {
        let mut world = World::new();
        let mut register = register("a", "cpus:4;mem:1000;ports:[10-19];gpus:2");
        let limits = tepui_api::v1::agent_info::capability::Type::TaskResourceLimits;
        register.capabilities.push(tepui_api::v1::agent_info::Capability { r#type: Some(limits.into()) });
        let link = world.register(register);
        let agent = world.registered(link).agent_id;
        let gpus = tepui_api::v1::framework_info::capability::Type::GpuResources;
        let (stream, id) = world.framework(info(|i| with_capabilities(i, &[gpus])));
        world.soon();
        let offer = world.offers(stream).remove(0);
        let mut tested = task("t", &agent, "cpus:1;mem:32");
        change(&mut tested);
        let known = task("known", &agent, "cpus:0.1");
        world.call(stream, &id, accept(&[&offer.id], vec![launch(vec![known, tested])]));
        let statuses = world.statuses(stream);
        match word {
            None => assert_eq!(statuses, [], "row {n}"),
            Some(word) => {
                assert_eq!(statuses.len(), 1, "row {n}");
                assert_eq!(
                    (statuses[0].state(), statuses[0].reason()),
                    (TaskState::TaskError, Reason::TaskInvalid)
                );
                let message = statuses[0].message.clone().unwrap();
                assert!(message.to_lowercase().contains(&word.to_lowercase()), "row {n}: {message}");
            }
        }
    }
}

#[test]
fn agents_that_cannot_limit_get_no_limits() {
    let mut world = World::new();
    let (_, agent) = world.agent("a", "cpus:4;mem:1000");
    let (stream, id) = world.framework(info(|_| {}));
    world.soon();
    let offer = world.offers(stream).remove(0);
    let mut limited = task("t", &agent, "cpus:1;mem:32");
    limits(&mut limited, "cpus", 2.0);
    world.call(stream, &id, accept(&[&offer.id], vec![launch(vec![limited])]));
    assert_eq!(world.statuses(stream)[0].reason(), Reason::TaskInvalid);
}

#[test]
fn an_executor_that_runs_stays_as_it_is() {
    let mut world = World::new();
    let (_, agent) = world.agent("a", "cpus:4;mem:1000");
    let (stream, id) = world.framework(info(|_| {}));
    world.soon();
    let offer = world.offers(stream).remove(0);
    let tasks = ["t1", "t2"].map(|name| {
        let mut task = task(name, &agent, "cpus:1;mem:32");
        use_executor(&mut task, |e| e.name = Some(name.into()));
        task
    });
    world.call(stream, &id, accept(&[&offer.id], vec![launch(tasks.to_vec())]));
    let statuses = world.statuses(stream);
    assert_eq!(statuses.len(), 1);
    assert_eq!(statuses[0].task_id, "t2".into());
    assert!(statuses[0].message.clone().unwrap().contains("differs"));
}
