//! `cgroups/cpuset`, `cgroups/pids`, `cgroups/hugetlb`, `cgroups/blkio` and `cgroups/perf_event` against the kernel.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tepui_isolators::cgroups::{Controller, Hierarchies, Version};

use crate::support::{Host, run, wait_for};

fn lacks(controller: Controller) -> bool {
    let lacks = Hierarchies::detect().unwrap().with(controller).is_none();
    if lacks {
        println!("skipped: this host has no {controller:?}");
    }
    lacks
}

fn read(path: PathBuf) -> String {
    fs::read_to_string(path).unwrap().trim().to_owned()
}

/// What a process of a container writes.
async fn output(host: &Host, labels: &[(&str, &str)], script: &str) -> String {
    let context = host.labelled("one", labels);
    let contribution = host.prepare(&context).await;
    let out = host.sandbox.path().join("out");
    let mut process = run(&contribution, &format!("({script}) > {} 2>&1", out.display()));
    process.0.wait().unwrap();
    host.cleanup(&context.container_id).await;
    assert_eq!(host.root.left(), Vec::<PathBuf>::new());
    read(out)
}

#[tokio::test]
async fn a_container_has_all_cpus_or_those_of_its_label() {
    if lacks(Controller::Cpuset) {
        return;
    }
    let host = Host::new(&["cgroups/cpuset"], |_| {});
    let script = "sed -n 's/Cpus_allowed_list:[[:space:]]*//p' /proc/self/status";
    let all = output(&host, &[], script).await;
    assert!(all.starts_with('0'), "{all}");
    assert_eq!(output(&host, &[("tepui.cpuset.cpus", "0"), ("tepui.cpuset.mems", "0")], script).await, "0");
    for (value, words) in [("9000", "this agent's CPUs are"), ("", "names no CPUs"), ("x", "not a number")] {
        let error = host.refused(&host.labelled("bad", &[("tepui.cpuset.cpus", value)])).await;
        assert!(error.contains("the label tepui.cpuset.cpus") && error.contains(words), "{error}");
    }
    assert_eq!(host.root.left(), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_container_forks_up_to_its_limit() {
    if lacks(Controller::Pids) {
        return;
    }
    let host = Host::new(&["cgroups/pids"], |_| {});
    let context = host.labelled("forks", &[("tepui.pids.max", "8")]);
    let id = &context.container_id;
    let contribution = host.prepare(&context).await;
    let process =
        run(&contribution, "(for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1000 & done); exec sleep 1000");
    let (dir, _) = host.cgroups().dir(id, Controller::Pids).unwrap();
    let refused = || read(dir.join("pids.events")).rsplit(' ').next().unwrap().parse::<u64>().unwrap();
    wait_for("a fork that fails", || (refused() > 0).then_some(()));
    let now: u64 = read(dir.join("pids.current")).parse().unwrap();
    assert!((1..=8).contains(&now), "{now}");
    drop(process);
    host.cleanup(id).await;
    assert_eq!(host.root.left(), Vec::<PathBuf>::new());
    let free = host.labelled("free", &[("tepui.pids.max", "max")]);
    host.prepare(&free).await;
    let (dir, _) = host.cgroups().dir(&free.container_id, Controller::Pids).unwrap();
    assert_eq!(read(dir.join("pids.max")), "max");
}

#[tokio::test]
async fn huge_pages_are_limited_by_size() {
    if lacks(Controller::Hugetlb) {
        return;
    }
    let host = Host::new(&["cgroups/hugetlb"], |_| {});
    let context = host.labelled("huge", &[("tepui.hugetlb.max", "2MB=4MB")]);
    host.prepare(&context).await;
    let (dir, version) = host.cgroups().dir(&context.container_id, Controller::Hugetlb).unwrap();
    let file = if version == Version::V1 { "hugetlb.2MB.limit_in_bytes" } else { "hugetlb.2MB.max" };
    assert_eq!(read(dir.join(file)), (4u64 << 20).to_string());
    host.cleanup(&context.container_id).await;
    let error = host.refused(&host.labelled("odd", &[("tepui.hugetlb.max", "3MB=1MB")])).await;
    assert!(error.contains("no huge pages of 3MB"), "{error}");
    assert_eq!(host.root.left(), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn block_io_is_told_and_odd_limits_are_refused() {
    if lacks(Controller::Blkio) {
        return;
    }
    let host = Host::new(&["cgroups/blkio"], |_| {});
    let context = host.context("io", "cpus:1;mem:64", &[]);
    host.prepare(&context).await;
    let told = host.usage(&context.container_id).await.blkio_statistics.unwrap();
    // A new cgroup has moved nothing: only the sums are there.
    assert_eq!((told.cfq.len(), told.cfq_recursive.len(), told.throttling.len()), (1, 1, 1), "{told:?}");
    assert!(told.throttling[0].device.is_none());
    host.cleanup(&context.container_id).await;
    for (label, value, words) in [
        ("tepui.io.max", "/dev/null rbps=1", "not a block device"),
        ("tepui.io.max", "999:999 rbps=1", "the kernel cannot limit 999:999"),
        ("tepui.io.weight", "0", "from 1 to 10000"),
    ] {
        let error = host.refused(&host.labelled("bad", &[(label, value)])).await;
        assert!(error.contains(label) && error.contains(words), "{error}");
    }
    assert_eq!(host.root.left(), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn events_are_counted_for_each_container_alone() {
    if lacks(Controller::PerfEvent) {
        return;
    }
    let host = Host::new(&["cgroups/perf_event"], |settings| {
        settings.cgroups.perf_events = Some("task-clock,page-faults".parse().unwrap());
        settings.cgroups.perf_interval = Duration::from_millis(100);
        settings.cgroups.perf_duration = Duration::from_millis(50);
    });
    let (busy, idle) = (host.context("busy", "cpus:1", &[]), host.context("idle", "cpus:1", &[]));
    let _hog = run(&host.prepare(&busy).await, "while :; do :; done");
    let _sleeper = run(&host.prepare(&idle).await, "sleep 1000");
    let begin = std::time::Instant::now();
    loop {
        assert!(begin.elapsed() < crate::support::PATIENCE, "never counted");
        let busy = host.usage(&busy.container_id).await.perf.unwrap();
        let idle = host.usage(&idle.container_id).await.perf.unwrap();
        // Milliseconds; the first samples may be from before the programs were there.
        if busy.task_clock > Some(1.0) && idle.duration > 0.0 && idle.task_clock < busy.task_clock {
            assert!(busy.duration >= 0.05 && busy.timestamp > 1e9, "{busy:?}");
            assert!(busy.page_faults.is_some() && busy.cycles.is_none(), "{busy:?}");
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    host.cleanup(&busy.container_id).await;
    host.cleanup(&idle.container_id).await;
    assert_eq!(host.root.left(), Vec::<PathBuf>::new());
}
