//! `kill -9` of writers and of ZooKeeper's server: what was acknowledged is there.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tepui_api::v1::AgentInfo;
use tepui_coordinator::core::RegistryChange;
use tepui_coordinator::registry::{FileRegistry, Registry};

use crate::agent;
use crate::server::{ZooKeeper, open, url};

fn admit(number: usize) -> RegistryChange {
    // Some of them are in parts.
    let length = if number % 50 == 7 { 300_000 } else { 100 };
    RegistryChange::Admit(agent(&format!("{number:08}"), &"h".repeat(length)))
}

fn ids(registry: &mut dyn Registry) -> Vec<String> {
    let id = |agent: &AgentInfo| agent.id.as_ref().unwrap().value.clone();
    registry.recover().unwrap().admitted.iter().map(id).collect()
}

/// Admits agents for ever, and says of each when it is safe.
#[test]
#[ignore = "run by the tests below, which kill it"]
fn admit_for_ever() {
    let Ok(place) = std::env::var("TEPUI_TEST_REGISTRY") else { return };
    let mut registry: Box<dyn Registry> = match place.strip_prefix("zk://") {
        Some(servers) => Box::new(open(&url(servers), Duration::from_secs(20), "writer").unwrap()),
        None => Box::new(FileRegistry::open(Path::new(&place)).unwrap()),
    };
    let first = registry.recover().unwrap().admitted.len();
    for number in first.. {
        registry.write(&[admit(number)]).unwrap();
        println!("\nadmitted {number:08}");
    }
}

/// Kills writers at whatever instant they are at, and looks what is there.
fn what_was_written_survives(place: &str, open: impl Fn() -> Box<dyn Registry>) {
    let mut known = 0;
    for round in 0..5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kills::admit_for_ever", "--ignored", "--nocapture"])
            .env("TEPUI_TEST_REGISTRY", place)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let admitted = lines.filter_map(|line| Some(line.ok()?.strip_prefix("admitted ")?.to_owned()));
        let last = admitted.take(20 + 17 * round).last().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let ids = ids(&mut *open());
        assert!(ids.contains(&last), "{last} was acknowledged");
        assert!(ids.len() >= known, "nothing is lost later");
        assert!(ids.iter().enumerate().all(|(number, id)| *id == format!("{number:08}")), "none is skipped");
        known = ids.len();
    }
}

#[test]
fn what_was_written_to_a_file_survives_its_writer() {
    let dir = tempfile::tempdir().unwrap();
    what_was_written_survives(dir.path().to_str().unwrap(), || {
        Box::new(FileRegistry::open(dir.path()).unwrap())
    });
}

#[test]
fn what_was_written_to_zookeeper_survives_its_writer() {
    let zookeeper = ZooKeeper::start();
    let place = format!("zk://{}", zookeeper.servers());
    what_was_written_survives(&place, || Box::new(zookeeper.registry("reader")));
}

#[test]
fn writes_go_on_when_the_server_is_killed_and_starts_again() {
    let mut zookeeper = ZooKeeper::start();
    let mut registry = zookeeper.registry("first");
    registry.recover().unwrap();
    let written = AtomicUsize::new(0);
    let stop = AtomicUsize::new(usize::MAX);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for number in 0.. {
                if number >= stop.load(Ordering::SeqCst) {
                    return;
                }
                // Exactly once, whatever became of the answer: another create would fail, since it is there.
                registry.write(&[admit(number)]).unwrap();
                written.store(number + 1, Ordering::SeqCst);
            }
        });
        for kill in 0..4 {
            let goal = written.load(Ordering::SeqCst) + 20 + 13 * kill;
            let deadline = Instant::now() + Duration::from_secs(60);
            while written.load(Ordering::SeqCst) < goal {
                assert!(Instant::now() < deadline && !writer.is_finished(), "the writer goes on");
                std::thread::yield_now();
            }
            zookeeper.kill();
            zookeeper.restart();
        }
        stop.store(written.load(Ordering::SeqCst) + 20, Ordering::SeqCst);
        writer.join().unwrap();
    });
    let ids = ids(&mut zookeeper.registry("second"));
    assert_eq!(ids.len(), written.load(Ordering::SeqCst));
}
