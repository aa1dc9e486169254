//! Containers within containers.

use std::fs;

use tepui_agent::containerizer::{ContainerConfig, Found, PrepareError, StartError};
use tepui_api::v1::{ContainerId, ContainerInfo, LinuxInfo, container_info};
use tepui_shim::SignalScope;

use crate::support::{Context, Host, exists, scalar, stdout, until};

const KINDS: [&str; 5] = ["ipc", "uts", "net", "pid", "mnt"];

/// A container nested in another, with its sandbox where it belongs.
fn nested(context: &Context, parent: &ContainerConfig, name: &str, line: &str) -> ContainerConfig {
    let mut config = context.shell(name, line);
    fs::remove_dir_all(&config.sandbox).unwrap();
    config.container_id =
        ContainerId { parent: Some(Box::new(parent.container_id.clone())), ..ContainerId::new(name) };
    config.sandbox = parent.sandbox.join("containers").join(name);
    fs::create_dir_all(&config.sandbox).unwrap();
    config
}

fn holder(context: &Context, name: &str) -> ContainerConfig {
    ContainerConfig { holder: true, ..context.shell(name, "") }
}

fn linux(linux: LinuxInfo) -> Option<ContainerInfo> {
    let r#type = container_info::Type::Mesos.into();
    Some(ContainerInfo { r#type, linux_info: Some(linux), ..ContainerInfo::default() })
}

fn namespace(pid: u32, kind: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().to_string_lossy().into_owned()
}

/// The kinds of namespaces that two processes share.
fn shared(one: u32, other: u32) -> Vec<&'static str> {
    KINDS.into_iter().filter(|kind| namespace(one, kind) == namespace(other, kind)).collect()
}

fn cgroup(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap()
}

pub fn nested_containers_share_what_mesos_has_them_share(context: &Context) {
    context.run(async {
        let host = context.host();
        for parent in [holder(context, "pod"), context.shell("outer", "sleep 1000")] {
            let top = host.start(&parent).await;
            let here = std::process::id();
            assert!(!shared(top, here).contains(&"ipc"));
            let one = host.start(&nested(context, &parent, "one", "sleep 1000")).await;
            assert_eq!(shared(top, one), ["ipc", "uts", "net"]);
            assert_eq!(cgroup(top), cgroup(one));
            let own = ContainerConfig {
                container: linux(LinuxInfo { share_cgroups: Some(false), ..LinuxInfo::default() }),
                resources: vec![scalar("cpus", 0.25), scalar("mem", 48.0)],
                ..nested(context, &parent, "own", "sleep 1000")
            };
            let two = host.start(&own).await;
            assert_eq!(shared(top, two), ["ipc", "uts", "net"]);
            let place = format!("{}/mesos/own", parent.container_id.value);
            assert!(cgroup(two).contains(&place), "{}", cgroup(two));
            let same = ContainerConfig {
                container: linux(LinuxInfo { share_pid_namespace: Some(true), ..LinuxInfo::default() }),
                ..nested(context, &parent, "same", "sleep 1000")
            };
            let three = host.start(&same).await;
            assert_eq!(shared(top, three), ["ipc", "uts", "net", "pid"]);
            let deeper = nested(context, &own, "deeper", "readlink /proc/self/ns/ipc; sleep 1000");
            let four = host.start(&deeper).await;
            assert_eq!(cgroup(four), cgroup(two));
            until("the program says where it is", || !stdout(&deeper).is_empty()).await;
            assert_eq!(stdout(&deeper).trim(), namespace(top, "ipc"));

            // Each ends by itself, and nobody else with it.
            host.containerizer.signal(&same.container_id, 15, SignalScope::All).await.unwrap();
            assert_eq!(host.exit().await.container_id, same.container_id);
            assert!(exists(one) && exists(top) && exists(four));
            host.containerizer.destroy(&same.container_id).await.unwrap();

            // All end with the outermost.
            host.containerizer.destroy(&parent.container_id).await.unwrap();
            for pid in [top, one, two, four] {
                assert!(!exists(pid));
            }
            let mut ended = Vec::new();
            for _ in 0..4 {
                ended.push(host.exit().await.container_id.to_string());
            }
            let top = &parent.container_id.value;
            // Parents after what was in them.
            let at = |name: String| ended.iter().position(|id| *id == name).unwrap();
            assert!(at(format!("{top}.own.deeper")) < at(format!("{top}.own")));
            assert_eq!(at(top.clone()), 3);
        }
        host.no_exit();
    });
}

pub fn a_nested_containers_memory_is_its_own(context: &Context) {
    context.run(async {
        let host = context.host();
        let pod = holder(context, "pod");
        host.start(&pod).await;
        let fat = ContainerConfig {
            container: linux(LinuxInfo { share_cgroups: Some(false), ..LinuxInfo::default() }),
            resources: vec![scalar("cpus", 0.25), scalar("mem", 32.0)],
            ..nested(context, &pod, "fat", "head -c 100m /dev/zero | tail | sleep 1000; sleep 1000")
        };
        host.start(&fat).await;
        let exited = host.exit().await;
        assert_eq!(exited.container_id, fat.container_id);
        let limitation = exited.limitation.unwrap();
        assert_eq!(limitation.reason, tepui_api::v1::task_status::Reason::ContainerLimitationMemory);
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        host.no_exit();
        host.containerizer.destroy(&pod.container_id).await.unwrap();
        assert_eq!(host.exit().await.limitation, None);
    });
}

pub fn a_nested_container_needs_its_parent(context: &Context) {
    context.run(async {
        let host = context.host();
        let pod = holder(context, "pod");
        let orphan = nested(context, &pod, "orphan", "true");
        let refused = host.containerizer.prepare(orphan.clone()).await;
        assert!(matches!(refused, Err(PrepareError::NoParent(_))), "{refused:?}");
        host.containerizer.prepare(pod.clone()).await.unwrap();
        host.containerizer.prepare(orphan.clone()).await.unwrap();
        let early = host.containerizer.start(&orphan.container_id).await;
        assert!(matches!(early, Err(StartError::ParentDead(_))), "{early:?}");
        host.containerizer.destroy(&pod.container_id).await.unwrap();
    });
}

pub fn a_tree_outlives_the_agent(context: &Context) {
    context.run(async {
        let host = context.host();
        let pod = holder(context, "pod");
        let kept = nested(context, &pod, "kept", "sleep 1000");
        let lost = nested(context, &pod, "lost", "sleep 1000");
        let deeper = nested(context, &kept, "deeper", "sleep 1000");
        let forgotten = holder(context, "forgotten");
        let within = nested(context, &forgotten, "within", "sleep 1000");
        let mut pids = Vec::new();
        for config in [&pod, &kept, &lost, &deeper, &forgotten, &within] {
            pids.push(host.start(config).await);
        }
        drop(host);
        let host: Host = context.host();
        // In whatever order.
        let known = vec![deeper.clone(), kept.clone(), pod.clone()];
        let found = host.containerizer.recover(known).await.unwrap();
        assert_eq!(found.len(), 3);
        for (config, pid) in [(&pod, pids[0]), (&kept, pids[1]), (&deeper, pids[3])] {
            assert_eq!(found[&config.container_id], Found::Running { pid });
        }
        for gone in [pids[2], pids[4], pids[5]] {
            assert!(!exists(gone));
        }
        let late = nested(context, &pod, "late", "readlink /proc/self/ns/ipc");
        host.start(&late).await;
        assert_eq!(host.exit().await.status, Some(0));
        assert_eq!(stdout(&late).trim(), namespace(pids[0], "ipc"));
        host.containerizer.destroy(&pod.container_id).await.unwrap();
        assert!(!exists(pids[0]) && !exists(pids[1]) && !exists(pids[3]));
    });
}
