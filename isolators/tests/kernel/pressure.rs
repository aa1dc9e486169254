//! Pressure stall figures against the kernel.

use std::time::Duration;

use tepui_isolators::cgroups::{Hierarchies, Version};

use crate::support::{Host, PATIENCE, run};

/// Whether this host keeps such figures for cgroups: a v2 tree, and PSI switched on.
fn has_them() -> bool {
    let unified = Hierarchies::detect().unwrap().0.iter().any(|tree| tree.version == Version::V2);
    unified && std::fs::read_to_string("/proc/pressure/cpu").is_ok()
}

/// More busy processes than the machine has CPUs: some of them always wait.
#[tokio::test]
async fn a_container_with_more_processes_than_cpus_waits_for_them() {
    let host = Host::new(&["cgroups/cpu", "cgroups/mem"], |_| {});
    let context = host.context("crowd", "cpus:0.1;mem:64", &[]);
    let id = context.container_id.clone();
    let contribution = host.prepare(&context).await;
    if !has_them() {
        assert_eq!(host.cgroups().pressure(&id).unwrap(), None);
        println!("this host has no pressure stall figures for cgroups");
        return host.cleanup(&id).await;
    }
    let idle = host.cgroups().pressure(&id).unwrap().unwrap();
    assert_eq!(idle.cpu.unwrap().some.total_micros, 0);
    let crowd = 1 + std::thread::available_parallelism().unwrap().get();
    let script = format!("for n in $(seq {crowd}); do while :; do :; done & done; wait");
    let process = run(&contribution, &script);
    let begin = std::time::Instant::now();
    let waited = loop {
        let cpu = host.cgroups().pressure(&id).unwrap().unwrap().cpu.unwrap();
        if cpu.some.total_micros > 20_000 {
            break cpu;
        }
        assert!(begin.elapsed() < PATIENCE, "nobody waits: {cpu:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(
        waited.some.total_micros <= u64::try_from(begin.elapsed().as_micros()).unwrap() + 100_000,
        "{waited:?}"
    );
    drop(process);
    host.cleanup(&id).await;
    assert_eq!(host.cgroups().pressure(&id).unwrap(), None, "there is no such cgroup any more");
}
