//! `gpu/nvidia` against the kernel's device filters. In place of a GPU there is a device that every machine has and no container may
//! open by default: a made `/proc` says that it is one.

use std::fs;
use std::path::Path;

use tepui_api::resources::Resources;
use tepui_isolators::{Composition, Contribution, Isolator, Limits, Recovered};

use crate::support::{Host, run};

/// Has the numbers 1 and 11.
const STANDS_FOR_A_GPU: &str = "/dev/kmsg";

/// A machine with that one GPU, and where an agent on it keeps who has it.
fn machine() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let gpu = root.path().join("proc/driver/nvidia/gpus/0000:04:00.0");
    fs::create_dir_all(&gpu).unwrap();
    fs::write(gpu.join("information"), "Model: \t none\nDevice Minor: \t 11\n").unwrap();
    fs::write(root.path().join("proc/devices"), "Character devices:\n  1 nvidia\n  1 nvidia-uvm\n").unwrap();
    root
}

fn host(root: &Path) -> Host {
    Host::new(&["cgroups/devices", "gpu/nvidia"], |settings| {
        settings.gpu.root = root.to_owned();
        settings.gpu.state_dir = root.join("state");
    })
}

fn can_open(contribution: &Contribution) -> bool {
    run(contribution, &format!(": < {STANDS_FOR_A_GPU}")).0.wait().unwrap().success()
}

async fn refused(host: &Host, id: &str) -> String {
    host.refused(&host.context(id, "cpus:1;gpus:1", &[])).await
}

fn gpu_of(composition: &Composition) -> &dyn Isolator {
    composition.isolators.iter().find(|one| one.name() == "gpu/nvidia").unwrap().as_ref()
}

#[tokio::test]
async fn a_gpu_is_one_container_s_until_that_is_gone() {
    let root = machine();
    let host = host(root.path());
    let (with, without) = (host.context("with", "gpus:1", &[]), host.context("without", "cpus:1", &[]));
    let (given, none) = (host.prepare(&with).await, host.prepare(&without).await);
    assert!(can_open(&given), "who has the GPU may open it");
    assert!(!can_open(&none), "nobody else may");
    assert!(refused(&host, "second").await.contains("0 of 1 are free"));
    host.cleanup(&with.container_id).await;
    let next = host.context("next", "gpus:1", &[]);
    assert!(can_open(&host.prepare(&next).await));
    host.cleanup(&next.container_id).await;
    host.cleanup(&without.container_id).await;
    assert_eq!(fs::read_dir(root.path().join("state")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_container_gains_and_loses_a_gpu_while_it_runs() {
    let root = machine();
    let host = host(root.path());
    let context = host.context("changes", "cpus:1", &[]);
    let contribution = host.prepare(&context).await;
    let gpu = gpu_of(&host.composition);
    for (resources, expected) in [("gpus:1", true), ("cpus:1", false)] {
        let requests = Resources::parse(resources, "*").unwrap();
        gpu.update(&context.container_id, &requests, &Limits::new()).await.unwrap();
        assert_eq!(can_open(&contribution), expected, "{resources}");
    }
    host.cleanup(&context.container_id).await;
}

#[tokio::test]
async fn an_agent_that_starts_anew_gives_no_gpu_out_twice() {
    let root = machine();
    let before = host(root.path());
    let running = before.context("running", "gpus:1", &[]);
    let contribution = before.prepare(&running).await;
    let after = host(root.path());
    let known = [Recovered { context: running.clone(), pid: None }];
    gpu_of(&after.composition).recover(&known, &[]).await.unwrap();
    assert!(refused(&after, "second").await.contains("0 of 1 are free"));
    assert!(can_open(&contribution), "the container goes on");
    gpu_of(&after.composition).cleanup(&running.container_id).await.unwrap();
    let next = after.context("next", "gpus:1", &[]);
    assert!(can_open(&after.prepare(&next).await));
    after.cleanup(&next.container_id).await;
    before.cleanup(&running.container_id).await;
}
