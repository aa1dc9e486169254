//! What a new agent finds of an old one.

use std::path::PathBuf;

use tepui_isolators::{Composition, ContainerId, Recovered, Settings, build};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::support::{Host, PATIENCE, run};

const NAMES: [&str; 3] = ["cgroups/cpu", "cgroups/mem", "disk/du"];

fn again(host: &Host) -> (Composition, UnboundedReceiver<tepui_isolators::Limitation>) {
    let settings = Settings { cgroups_root: host.root.0.clone(), ..Settings::default() };
    let (sender, limitations) = unbounded_channel();
    (build(&NAMES, &settings, &sender).unwrap(), limitations)
}

#[tokio::test]
async fn known_containers_are_watched_again_and_strangers_removed() {
    let mut host = Host::new(&NAMES, |_| {});
    let context = host.context("known", "cpus:1;mem:32;disk:10", &[]);
    let contribution = host.prepare(&context).await;
    let stranger = host.context("stranger", "cpus:1;mem:32;disk:10", &[]);
    let mut lost = run(&host.prepare(&stranger).await, "sleep 1000");
    let trigger = tempfile::NamedTempFile::new().unwrap();
    let script =
        format!("while [ -e {} ]; do sleep 0.01; done; exec tail /dev/zero", trigger.path().display());
    let mut hog = run(&contribution, &script);

    (host.composition, host.limitations) = again(&host);
    let known = [Recovered { context: context.clone(), pid: Some(hog.0.id()) }];
    for isolator in &host.composition.isolators {
        isolator.recover(&known, &[]).await.unwrap();
    }
    lost.0.wait().unwrap();
    let id = &context.container_id;
    let left = host.root.left();
    assert!(!left.is_empty() && left.iter().all(|dir| dir.ends_with(&id.value)), "{left:?}");
    let statistics = host.usage(id).await;
    assert_eq!((statistics.mem_limit_bytes, statistics.cpus_soft_limit), (Some(32 << 20), Some(1.0)));

    drop(trigger);
    let limitation = tokio::time::timeout(PATIENCE, host.limitations.recv()).await.unwrap().unwrap();
    assert_eq!(&limitation.container_id, id);
    hog.0.wait().unwrap();
    host.cleanup(id).await;
    assert_eq!(host.root.left(), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn an_oom_while_no_agent_ran_is_known_at_the_exit() {
    let mut host = Host::new(&NAMES, |_| {});
    let context = host.context("unheard", "cpus:1;mem:32", &[]);
    let contribution = host.prepare(&context).await;
    let none = build(&[], &settings(&host), &unbounded_channel().0).unwrap();
    host.composition = none;
    let mut hog = run(&contribution, "exec tail /dev/zero");
    hog.0.wait().unwrap();

    (host.composition, host.limitations) = again(&host);
    let known = [Recovered { context: context.clone(), pid: None }];
    for isolator in &host.composition.isolators {
        isolator.recover(&known, &[]).await.unwrap();
    }
    assert!(host.exited(&context.container_id).await.is_some());
}

fn settings(host: &Host) -> Settings {
    Settings { cgroups_root: host.root.0.clone(), ..Settings::default() }
}

#[tokio::test]
async fn cleanup_of_the_unknown_and_of_a_failed_launch_is_fine() {
    let host = Host::new(&NAMES, |_| {});
    host.cleanup(&ContainerId::new("never")).await;
    let context = host.context("half", "cpus:1;mem:32", &[]);
    host.composition.isolators[0].prepare(&context, &mut Default::default()).await.unwrap();
    host.cleanup(&context.container_id).await;
    assert_eq!(host.root.left(), Vec::<PathBuf>::new());
}
