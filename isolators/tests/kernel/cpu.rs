//! `cgroups/cpu` against the kernel.

use std::fs;

use tepui_api::resources::Resources;
use tepui_isolators::cgroups::{Controller, Version};
use tepui_isolators::{ContainerId, Limits};

use crate::support::{Host, run, wait_for};

/// Weight and limit as the kernel holds them: shares or weight, quota or "-1", period.
fn values(host: &Host, id: &ContainerId) -> (u64, String) {
    let (dir, version) = host.cgroups().dir(id, Controller::Cpu).unwrap();
    let text = |file: &str| fs::read_to_string(dir.join(file)).unwrap().trim().to_owned();
    match version {
        Version::V1 => {
            let limit = format!("{} {}", text("cpu.cfs_quota_us"), text("cpu.cfs_period_us"));
            (text("cpu.shares").parse().unwrap(), limit)
        }
        Version::V2 => {
            (text("cpu.weight").parse::<u64>().unwrap() * 1024 / 100, text("cpu.max").replace("max", "-1"))
        }
    }
}

#[tokio::test]
async fn values_follow_requests_and_limits() {
    let host = Host::new(&["cgroups/cpu"], |settings| settings.cgroups_enable_cfs = true);
    for (id, resources, limits, expected) in [
        ("request", "cpus:0.5;mem:32", &[][..], (512, "50000 100000")),
        ("limit", "cpus:2;mem:32", &[("cpus", 3.5)], (2048, "350000 100000")),
        ("infinite", "cpus:1;mem:32", &[("cpus", f64::INFINITY)], (1024, "-1 100000")),
    ] {
        let context = host.context(id, resources, limits);
        host.prepare(&context).await;
        assert_eq!(values(&host, &context.container_id), (expected.0, expected.1.to_owned()), "{id}");
    }
    let id = ContainerId::new("request");
    let cpu = host.composition.isolators.iter().find(|one| one.name() == "cgroups/cpu").unwrap();
    cpu.update(&id, &Resources::parse("cpus:1", "*").unwrap(), &Limits::new()).await.unwrap();
    assert_eq!(values(&host, &id), (1024, "100000 100000".to_owned()));
    let infinite = Limits::from([("cpus".to_owned(), f64::INFINITY)]);
    cpu.update(&id, &Resources::parse("cpus:1", "*").unwrap(), &infinite).await.unwrap();
    assert_eq!(values(&host, &id), (1024, "-1 100000".to_owned()));
    assert!(cpu.update(&ContainerId::new("unknown"), &Resources::new(), &Limits::new()).await.is_err());
}

#[tokio::test]
async fn without_cfs_there_is_no_limit() {
    let host = Host::new(&["cgroups/cpu"], |_| {});
    let context = host.context("free", "cpus:0.5;mem:32", &[]);
    host.prepare(&context).await;
    assert_eq!(values(&host, &context.container_id), (512, "-1 100000".to_owned()));
    let statistics = host.usage(&context.container_id).await;
    assert_eq!((statistics.cpus_limit, statistics.cpus_soft_limit), (None, Some(0.5)));
    assert_eq!(statistics.cpus_nr_periods, None);
}

#[tokio::test]
async fn a_busy_loop_is_held_to_its_quota_and_counted() {
    let host = Host::new(&["cgroups/cpu"], |settings| {
        settings.cgroups_enable_cfs = true;
        settings.cgroups_cpu_enable_pids_and_tids_count = true;
    });
    let context = host.context("busy", "cpus:0.2;mem:32", &[]);
    let id = &context.container_id;
    let contribution = host.prepare(&context).await;
    let process = run(&contribution, "while :; do :; done");
    let begin = std::time::Instant::now();
    let mut statistics = host.usage(id).await;
    while statistics.cpus_nr_throttled.unwrap_or(0) < 10 {
        assert!(begin.elapsed() < crate::support::PATIENCE, "never throttled: {statistics:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        statistics = host.usage(id).await;
    }
    let used = statistics.cpus_user_time_secs.unwrap() + statistics.cpus_system_time_secs.unwrap();
    let most = 0.2 * begin.elapsed().as_secs_f64() + 0.1;
    assert!(used > 0.0 && used < most, "{used} s of CPU time, at most {most}");
    assert_eq!((statistics.cpus_limit, statistics.cpus_soft_limit), (Some(0.2), Some(0.2)));
    assert!(statistics.cpus_throttled_time_secs.unwrap() > 0.1);
    assert_eq!((statistics.processes, statistics.threads), (Some(1), Some(1)));
    drop(process);
    wait_for("an empty cgroup", || host.cgroups().processes(id).unwrap().is_empty().then_some(()));
    host.cleanup(id).await;
    assert_eq!(host.root.left(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn without_cgroup_isolators_usage_is_that_of_the_processes() {
    let host = Host::new(&["posix/cpu", "posix/mem"], |_| {});
    let context = host.context("posix", "cpus:0.5;mem:64", &[]);
    let id = &context.container_id;
    let contribution = host.prepare(&context).await;
    let process = run(&contribution, "while :; do :; done & wait");
    for isolator in &host.composition.isolators {
        isolator.isolate(id, process.0.id()).await.unwrap();
    }
    let begin = std::time::Instant::now();
    let mut statistics = host.usage(id).await;
    while statistics.cpus_user_time_secs.unwrap_or(0.0) < 0.05 {
        assert!(begin.elapsed() < crate::support::PATIENCE, "the child does not count: {statistics:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        statistics = host.usage(id).await;
    }
    assert!(statistics.mem_rss_bytes.unwrap() > 0);
    assert_eq!((statistics.cpus_soft_limit, statistics.mem_limit_bytes), (Some(0.5), Some(64 << 20)));
    host.cleanup(id).await;
    assert_eq!(host.root.left(), Vec::<std::path::PathBuf>::new());
}
