//! Ending all processes of a container, and removing its cgroups.

use std::fs;
use std::path::PathBuf;

use tepui_isolators::cgroups::{Cgroups, Controller, Hierarchies, Version};
use tepui_isolators::{ContainerId, Contribution};

use crate::support::{PATIENCE, Process, Root, run, wait_for};

/// Chains of processes that each fork the next one and end, for as long as a file is there.
const CHAINS: &str =
    "f() { [ -e STOP ] && { f & }; exit 0; }; for i in 1 2 3 4 5 6 7 8; do (f) & done; wait; sleep 1000";

fn started(cgroups: &Cgroups, id: &ContainerId, script: &str) -> Process {
    cgroups.create(id).unwrap();
    let contribution =
        Contribution { cgroup_procs: cgroups.attach_files(id).unwrap(), ..Contribution::default() };
    run(&contribution, script)
}

fn forking_container_dies(hierarchies: Hierarchies) {
    let root = Root::new();
    let cgroups = Cgroups::new(hierarchies, &root.0, &[Controller::Memory]).unwrap();
    let id = ContainerId::new("chains");
    let stop = tempfile::NamedTempFile::new().unwrap();
    let script = CHAINS.replace("STOP", stop.path().to_str().unwrap());
    let mut process = started(&cgroups, &id, &script);
    wait_for("a change of processes", || {
        let first = cgroups.processes(&id).unwrap();
        let second = cgroups.processes(&id).unwrap();
        (first.len() > 3 && first != second).then_some(())
    });
    cgroups.kill_all(&id, PATIENCE).unwrap();
    assert!(cgroups.processes(&id).unwrap().is_empty());
    process.0.wait().unwrap();
    cgroups.destroy(&id, PATIENCE).unwrap();
    assert_eq!(root.left(), Vec::<PathBuf>::new());
    cgroups.kill_all(&id, PATIENCE).unwrap();
    cgroups.destroy(&id, PATIENCE).unwrap();
}

#[test]
fn a_container_that_forks_all_the_time_dies_at_once() {
    forking_container_dies(Hierarchies::detect().unwrap());
}

#[test]
fn the_freezer_does_it_where_there_is_no_v2_tree() {
    let mut hierarchies = Hierarchies::detect().unwrap();
    hierarchies.0.retain(|tree| tree.version == Version::V1);
    if hierarchies.with(Controller::Freezer).is_none() {
        return;
    }
    forking_container_dies(hierarchies);
}

#[test]
fn signals_do_it_where_there_is_nothing_else() {
    let mut hierarchies = Hierarchies::detect().unwrap();
    hierarchies.0.retain(|tree| tree.version == Version::V1 && !tree.controllers.contains("freezer"));
    if hierarchies.with(Controller::Memory).is_none() {
        return;
    }
    let root = Root::new();
    let cgroups = Cgroups::new(hierarchies, &root.0, &[Controller::Memory]).unwrap();
    let id = ContainerId::new("plain");
    let mut process = started(&cgroups, &id, "trap '' TERM; sleep 1000 & sleep 1000 & wait");
    wait_for("three processes", || (cgroups.processes(&id).unwrap().len() == 3).then_some(()));
    cgroups.kill_all(&id, PATIENCE).unwrap();
    process.0.wait().unwrap();
    cgroups.destroy(&id, PATIENCE).unwrap();
    assert_eq!(root.left(), Vec::<PathBuf>::new());
}

#[test]
fn only_the_trees_that_are_needed_are_used() {
    let root = Root::new();
    let hierarchies = Hierarchies::detect().unwrap();
    let cgroups = Cgroups::new(hierarchies.clone(), &root.0, &[Controller::Memory]).unwrap();
    let id = ContainerId::new("few");
    cgroups.create(&id).unwrap();
    let files = cgroups.attach_files(&id).unwrap();
    let memory = hierarchies.with(Controller::Memory).unwrap();
    assert!(files.iter().any(|file| file.starts_with(&memory.mount)));
    assert!(files.len() <= 2, "memory's, and one to kill by: {files:?}");
    assert!(files.iter().all(|file| fs::metadata(file).is_ok()));
    assert_eq!(root.left().len(), files.len());
    cgroups.destroy(&id, PATIENCE).unwrap();
    assert_eq!(root.left(), Vec::<PathBuf>::new());
}

#[test]
fn nested_containers_are_within_and_go_with_their_parents() {
    let root = Root::new();
    let cgroups = Cgroups::new(Hierarchies::detect().unwrap(), &root.0, &[Controller::Cpu]).unwrap();
    let parent = ContainerId::new("parent");
    let child = ContainerId { value: "child".to_owned(), parent: Some(Box::new(parent.clone())) };
    cgroups.create(&parent).unwrap();
    let (dir, _) = cgroups.dir(&parent, Controller::Cpu).unwrap();
    assert_eq!(cgroups.dir(&child, Controller::Cpu).unwrap().0, dir.join("mesos/child"));
    let mut process = started(&cgroups, &child, "sleep 1000");
    let pid = i32::try_from(process.0.id()).unwrap();
    wait_for("the process in its cgroup", || {
        cgroups.processes(&parent).unwrap().contains(&pid).then_some(())
    });
    assert_eq!(cgroups.orphans(&Default::default()).unwrap(), [child.clone(), parent.clone()]);
    assert_eq!(cgroups.orphans(&[parent.clone()].into()).unwrap(), [child]);
    cgroups.kill_all(&parent, PATIENCE).unwrap();
    process.0.wait().unwrap();
    cgroups.destroy(&parent, PATIENCE).unwrap();
    assert_eq!(root.left(), Vec::<PathBuf>::new());
}

#[test]
fn ids_that_are_no_directory_of_their_own_are_refused() {
    let root = Root::new();
    let cgroups = Cgroups::new(Hierarchies::detect().unwrap(), &root.0, &[]).unwrap();
    for id in ["", ".", "..", "a/b", "../x"] {
        assert!(cgroups.create(&ContainerId::new(id)).is_err(), "{id}");
        assert!(cgroups.destroy(&ContainerId::new(id), PATIENCE).is_err(), "{id}");
    }
}
