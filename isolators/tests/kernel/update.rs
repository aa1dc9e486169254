//! Resources that change while a program runs: the kernel has the new limits at once, and the program goes on.

use std::fs;
use std::path::PathBuf;

use tepui_api::resources::Resources;
use tepui_isolators::cgroups::{Controller, Version};
use tepui_isolators::{ContainerId, Limits};

use crate::support::{Host, run, wait_for};

async fn update(host: &Host, id: &ContainerId, resources: &str, limits: &[(&str, f64)]) {
    let limits: Limits = limits.iter().map(|(name, limit)| ((*name).to_owned(), *limit)).collect();
    let requests = Resources::parse(resources, "*").unwrap();
    for isolator in &host.composition.isolators {
        isolator.update(id, &requests, &limits).await.unwrap();
    }
}

#[tokio::test]
async fn a_program_grows_into_memory_that_it_is_given_while_it_runs() {
    let mut host = Host::new(&["cgroups/cpu", "cgroups/mem"], |settings| settings.cgroups_enable_cfs = true);
    let context = host.context("grows", "cpus:0.5;mem:32", &[]);
    let id = &context.container_id;
    let contribution = host.prepare(&context).await;
    let go = host.sandbox.path().join("go");
    let done = host.sandbox.path().join("done");
    // 48 MiB in one buffer, once it is told to.
    let script = format!(
        "while ! [ -e {} ]; do sleep 0.01; done; dd bs=48M count=1 if=/dev/zero of=/dev/null; echo $? > {}",
        go.display(),
        done.display()
    );
    let mut process = run(&contribution, &script);
    update(&host, id, "cpus:1.5;mem:64", &[("mem", 256.0), ("cpus", 2.0)]).await;
    let (memory, version) = host.cgroups().dir(id, Controller::Memory).unwrap();
    let (cpu, _) = host.cgroups().dir(id, Controller::Cpu).unwrap();
    let text = |path: PathBuf| fs::read_to_string(path).unwrap().trim().to_owned();
    match version {
        Version::V1 => {
            assert_eq!(text(memory.join("memory.limit_in_bytes")), (256u64 << 20).to_string());
            assert_eq!(text(memory.join("memory.soft_limit_in_bytes")), (64u64 << 20).to_string());
            assert_eq!(text(cpu.join("cpu.cfs_quota_us")), "200000");
            assert_eq!(text(cpu.join("cpu.shares")), "1536");
        }
        Version::V2 => {
            assert_eq!(text(memory.join("memory.max")), (256u64 << 20).to_string());
            assert_eq!(text(memory.join("memory.low")), (64u64 << 20).to_string());
            assert_eq!(text(cpu.join("cpu.max")), "200000 100000");
            assert_eq!(text(cpu.join("cpu.weight")), "150");
        }
    }
    fs::write(&go, "").unwrap();
    let grown = || fs::read_to_string(&done).ok().filter(|text| text.ends_with('\n'));
    assert_eq!(wait_for("the program to have grown", grown), "0\n");
    assert!(process.0.wait().unwrap().success());
    assert!(host.limitations.try_recv().is_err(), "it was not out of memory");

    update(&host, id, "cpus:1;mem:64", &[("mem", f64::INFINITY), ("cpus", f64::INFINITY)]).await;
    match version {
        Version::V1 => {
            assert!(text(memory.join("memory.limit_in_bytes")).parse::<u64>().unwrap() > 1 << 60);
            assert_eq!(text(cpu.join("cpu.cfs_quota_us")), "-1");
        }
        Version::V2 => {
            assert_eq!(text(memory.join("memory.max")), "max");
            assert_eq!(text(cpu.join("cpu.max")), "max 100000");
        }
    }
    host.cleanup(id).await;
    assert_eq!(host.root.left(), Vec::<PathBuf>::new());
}
