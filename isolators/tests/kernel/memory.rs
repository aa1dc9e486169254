//! `cgroups/mem` against the kernel.

use std::fs;
use std::time::Duration;

use tepui_api::resources::Resources;
use tepui_api::v1::task_status::Reason;
use tepui_isolators::cgroups::{Controller, Version};
use tepui_isolators::{ContainerId, Limitation, Limits};

use crate::support::{Host, PATIENCE, run};

/// Soft and hard limit as the kernel holds them, in bytes.
fn values(host: &Host, id: &ContainerId) -> (u64, u64) {
    let (dir, version) = host.cgroups().dir(id, Controller::Memory).unwrap();
    let number = |file: &str| fs::read_to_string(dir.join(file)).unwrap().trim().parse().unwrap_or(u64::MAX);
    match version {
        Version::V1 => (number("memory.soft_limit_in_bytes"), number("memory.limit_in_bytes")),
        Version::V2 => (number("memory.low"), number("memory.max")),
    }
}

fn check(limitation: &Limitation, id: &ContainerId) {
    assert_eq!(&limitation.container_id, id);
    assert_eq!(limitation.reason, Reason::ContainerLimitationMemory);
    let begin = "Memory limit exceeded: Requested: 32MB Maximum Used: ";
    assert!(limitation.message.starts_with(begin), "{}", limitation.message);
    assert!(limitation.message.contains("\n\nMEMORY STATISTICS: \n"), "{}", limitation.message);
    let mem = &limitation.resources[0];
    assert_eq!(mem.name, "mem");
    let used = mem.scalar.as_ref().unwrap().value;
    assert!((31.0..=33.0).contains(&used), "{used}");
}

#[tokio::test]
async fn values_follow_requests_and_limits() {
    const MB: u64 = 1 << 20;
    let host = Host::new(&["cgroups/mem"], |_| {});
    let cases = [
        ("request", "mem:64", &[][..], (64 * MB, 64 * MB)),
        ("least", "mem:1", &[], (32 * MB, 32 * MB)),
        ("limit", "mem:64", &[("mem", 128.0)], (64 * MB, 128 * MB)),
    ];
    for (id, resources, limits, expected) in cases {
        let context = host.context(id, resources, limits);
        let contribution = host.prepare(&context).await;
        assert_eq!(values(&host, &context.container_id), expected, "{id}");
        assert_eq!(contribution.oom_score_adj.is_some(), id == "limit", "{id}");
    }
    let context = host.context("infinite", "mem:64", &[("mem", f64::INFINITY)]);
    host.prepare(&context).await;
    let (soft, hard) = values(&host, &context.container_id);
    assert_eq!(soft, 64 * MB);
    assert!(hard > 1 << 60, "{hard}");
}

#[tokio::test]
async fn an_update_raises_the_limit_and_lowers_only_the_soft_one() {
    const MB: u64 = 1 << 20;
    let host = Host::new(&["cgroups/mem"], |_| {});
    let context = host.context("changed", "mem:64", &[]);
    let id = &context.container_id;
    host.prepare(&context).await;
    let memory = host.composition.isolators.iter().find(|one| one.name() == "cgroups/mem").unwrap();
    for (resources, expected) in [("mem:96", (96 * MB, 96 * MB)), ("mem:40", (40 * MB, 96 * MB))] {
        memory.update(id, &Resources::parse(resources, "*").unwrap(), &Limits::new()).await.unwrap();
        assert_eq!(values(&host, id), expected);
    }
}

#[tokio::test]
async fn swap_is_limited_with_memory() {
    let host = Host::new(&["cgroups/mem"], |settings| settings.cgroups_limit_swap = true);
    let context = host.context("swap", "mem:48", &[]);
    let id = &context.container_id;
    host.prepare(&context).await;
    let (dir, version) = host.cgroups().dir(id, Controller::Memory).unwrap();
    let (file, expected) = match version {
        Version::V1 => ("memory.memsw.limit_in_bytes", (48 << 20).to_string()),
        Version::V2 => ("memory.swap.max", "0".to_owned()),
    };
    assert_eq!(fs::read_to_string(dir.join(file)).unwrap().trim(), expected);
    let memory = host.composition.isolators.iter().find(|one| one.name() == "cgroups/mem").unwrap();
    memory.update(id, &Resources::parse("mem:64", "*").unwrap(), &Limits::new()).await.unwrap();
    assert_eq!(values(&host, id), (64 << 20, 64 << 20));
    assert!(host.usage(id).await.mem_total_memsw_bytes.is_some());
}

#[tokio::test]
async fn a_hog_is_reported_and_known_at_its_exit() {
    let mut host = Host::new(&["cgroups/mem"], |_| {});
    let context = host.context("hog", "mem:32", &[]);
    let id = context.container_id.clone();
    let contribution = host.prepare(&context).await;
    assert_eq!(host.exited(&id).await, None, "nothing happened yet");
    let mut hog = run(&contribution, "exec tail /dev/zero");
    let limitation = tokio::time::timeout(PATIENCE, host.limitations.recv()).await.unwrap().unwrap();
    check(&limitation, &id);
    assert!(!hog.0.wait().unwrap().success());
    let at_exit = host.exited(&id).await.unwrap();
    check(&at_exit, &id);
    host.cleanup(&id).await;
    assert_eq!(host.root.left(), Vec::<std::path::PathBuf>::new());
    let more = tokio::time::timeout(Duration::from_millis(50), host.limitations.recv()).await;
    assert!(more.is_err(), "reported twice, or by the removal of the cgroup: {more:?}");
}

#[tokio::test]
async fn a_container_whose_child_is_killed_is_reported_too() {
    let mut host = Host::new(&["cgroups/mem"], |_| {});
    let context = host.context("parent", "mem:32", &[]);
    let contribution = host.prepare(&context).await;
    let _shell = run(&contribution, "tail /dev/zero; sleep 1000");
    let limitation = tokio::time::timeout(PATIENCE, host.limitations.recv()).await.unwrap().unwrap();
    check(&limitation, &context.container_id);
}

#[tokio::test]
async fn use_up_to_the_limit_is_no_trouble_and_counted() {
    let mut host = Host::new(&["cgroups/mem"], |_| {});
    let context = host.context("modest", "mem:64", &[]);
    let id = context.container_id.clone();
    let contribution = host.prepare(&context).await;
    let before = host.usage(&id).await;
    let file = host.sandbox.path().join("written");
    // Writes more page cache than the limit, so that the limit is hit but nobody need be killed.
    let script = format!("head -c 100000000 /dev/zero > {}; sleep 1000", file.display());
    let _process = run(&contribution, &script);
    let begin = std::time::Instant::now();
    while fs::metadata(&file).map_or(0, |meta| meta.len()) < 100_000_000 {
        assert!(begin.elapsed() < PATIENCE, "the file is not written");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let after = host.usage(&id).await;
    assert!(after.mem_total_bytes > before.mem_total_bytes, "{after:?}");
    assert!(after.mem_total_bytes.unwrap() <= 64 << 20);
    assert!(after.mem_cache_bytes.unwrap() > 0 && after.mem_rss_bytes.unwrap() > 0, "{after:?}");
    assert_eq!((after.mem_limit_bytes, after.mem_soft_limit_bytes), (Some(64 << 20), Some(64 << 20)));
    let (_, version) = host.cgroups().dir(&id, Controller::Memory).unwrap();
    assert_eq!(after.mem_low_pressure_counter.is_some(), version == Version::V1);
    assert_eq!(host.exited(&id).await, None);
    assert!(host.limitations.try_recv().is_err());
}
