//! The v2 interface, on hosts that mount it, be it beside v1.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tepui_isolators::cgroups::{Cgroups, Controller, Hierarchies, Hierarchy, InV2, Version, favor_dynmods};
use tepui_isolators::{ContainerId, Contribution};

use crate::support::{PATIENCE, Root, run, wait_for};

/// A controller that this host has in its v2 tree, with its name there.
fn some_controller(hierarchies: &Hierarchies) -> Option<(Controller, &'static str)> {
    Controller::ALL.into_iter().find_map(|one| match one.v2() {
        InV2::Controller(name) if hierarchies.with(one)?.version == Version::V2 => Some((one, name)),
        _ => None,
    })
}

/// Puts back which controllers the top of the tree has enabled.
struct Restore(PathBuf, BTreeSet<String>);

fn enabled(dir: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap();
    text.split_whitespace().map(str::to_owned).collect()
}

impl Drop for Restore {
    fn drop(&mut self) {
        for name in enabled(&self.0).difference(&self.1) {
            let _ = fs::write(self.0.join("cgroup.subtree_control"), format!("-{name}"));
        }
    }
}

#[test]
fn processes_are_in_leaves_so_that_nested_containers_can_be_limited() {
    let hierarchies = Hierarchies::detect().unwrap();
    let Some((controller, name)) = some_controller(&hierarchies) else { return };
    let mount = hierarchies.unified().unwrap().mount.clone();
    // Dropped after the root, which lies below.
    let _restore = Restore(mount.clone(), enabled(&mount));
    let root = Root::new();
    let cgroups = Cgroups::new(hierarchies, &root.0, &[controller]).unwrap();
    assert!(enabled(&mount).contains(name) && enabled(&mount.join(&root.0)).contains(name));

    let parent = ContainerId::new("parent");
    let child = ContainerId { value: "child".to_owned(), parent: Some(Box::new(parent.clone())) };
    let start = |id| {
        cgroups.create(id).unwrap();
        let cgroup_procs = cgroups.attach_files(id).unwrap();
        let process = run(&Contribution { cgroup_procs, ..Contribution::default() }, "sleep 1000");
        let pid = i32::try_from(process.0.id()).unwrap();
        wait_for("the process", || cgroups.processes(id).unwrap().contains(&pid).then_some(()));
        process
    };
    let mut outer = start(&parent);
    let mut inner = start(&child);
    let (dir, version) = cgroups.dir(&parent, controller).unwrap();
    assert_eq!(version, Version::V2);
    let in_leaf = fs::read_to_string(dir.join("leaf/cgroup.procs")).unwrap();
    assert!(in_leaf.lines().any(|pid| pid == outer.0.id().to_string()), "{in_leaf}");
    assert_eq!(fs::read_to_string(dir.join("cgroup.procs")).unwrap(), "");
    assert!(enabled(&dir).contains(name), "the child can be limited");
    let pids = [&outer, &inner].map(|process| i32::try_from(process.0.id()).unwrap());
    assert!(cgroups.processes(&parent).unwrap().is_superset(&pids.into()));

    cgroups.kill_all(&parent, PATIENCE).unwrap();
    outer.0.wait().unwrap();
    inner.0.wait().unwrap();
    cgroups.destroy(&parent, PATIENCE).unwrap();
    assert_eq!(root.left(), Vec::<PathBuf>::new());
}

/// Puts the option back as it was.
struct Favor(bool);

impl Drop for Favor {
    fn drop(&mut self) {
        let _ = favor_dynmods(self.0);
    }
}

fn unified() -> Option<Hierarchy> {
    Hierarchies::detect().unwrap().unified().cloned()
}

fn favors(tree: &Hierarchy) -> bool {
    tree.options.iter().any(|option| option == "favordynmods")
}

#[test]
fn attaching_can_be_favoured_and_other_options_stay() {
    let Some(before) = unified() else { return };
    let _restore = Favor(favors(&before));
    for on in [!favors(&before), favors(&before)] {
        favor_dynmods(on).unwrap();
        let after = unified().unwrap();
        assert_eq!(favors(&after), on);
        let others = |tree: &Hierarchy| {
            tree.options.iter().filter(|option| *option != "favordynmods").cloned().collect::<Vec<_>>()
        };
        assert_eq!(others(&after), others(&before));
    }
}
