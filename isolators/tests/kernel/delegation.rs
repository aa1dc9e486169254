//! Delegated cgroups, marked as systemd marks them, on hosts with a v2 tree that has a controller left.

use std::fs;
use std::path::{Path, PathBuf};

use tepui_isolators::cgroups::{CgroupError, Cgroups, Controller, Hierarchies, InV2, Version};

use crate::support::{Process, wait_for};

/// A cgroup of somebody else's, with a delegated one in it. Removed at the end, from the leaves up.
struct Foreign {
    mount: PathBuf,
    slice: PathBuf,
}

impl Foreign {
    fn new(mount: &Path, name: &str) -> Self {
        let slice = PathBuf::from(format!("tepui-test-{name}-{}", std::process::id()));
        let unit = mount.join(&slice).join("unit");
        fs::create_dir_all(&unit).unwrap();
        xattr::set(&unit, "trusted.delegate", b"1").unwrap();
        Foreign { mount: mount.to_owned(), slice }
    }

    fn slice(&self) -> PathBuf {
        self.mount.join(&self.slice)
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        remove(&self.slice());
    }
}

fn remove(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    wait_for("an empty cgroup", || match fs::remove_dir(dir) {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => None,
        _ => Some(()),
    });
}

fn enabled(dir: &Path) -> String {
    fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap().trim().to_owned()
}

/// A controller that this host has in its v2 tree, with its name there, and the mount.
fn some() -> Option<(Hierarchies, Controller, &'static str, PathBuf)> {
    let hierarchies = Hierarchies::detect().unwrap();
    let found = Controller::ALL.into_iter().find_map(|one| match one.v2() {
        InV2::Controller(name) if hierarchies.with(one)?.version == Version::V2 => Some((one, name)),
        _ => None,
    });
    let Some((controller, name)) = found else {
        println!("skipped: this host's v2 tree has no controllers");
        return None;
    };
    let mount = hierarchies.unified()?.mount.clone();
    Some((hierarchies, controller, name, mount))
}

#[test]
fn a_controller_that_is_not_delegated_is_named_and_nothing_is_written_above() {
    let Some((hierarchies, controller, name, mount)) = some() else { return };
    let foreign = Foreign::new(&mount, "undelegated");
    let before = (enabled(&mount), enabled(&foreign.slice()));
    let root = foreign.slice.join("unit/tepui");
    let error = Cgroups::new(hierarchies, &root, &[controller]).unwrap_err();
    assert!(matches!(error, CgroupError::NotDelegated { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(&format!("'{name}' is not delegated")) && text.contains("Delegate=yes"), "{text}");
    // What others do to the top of the tree meanwhile is their affair: it is not ours to have changed it.
    assert_eq!(enabled(&foreign.slice()), before.1);
}

#[test]
fn below_a_delegated_cgroup_controllers_are_enabled_and_its_processes_make_room() {
    let Some((hierarchies, controller, name, mount)) = some() else { return };
    if !fs::read_to_string(mount.join("cgroup.subtree_control")).unwrap().contains(name) {
        // As systemd would; it stays, since it may be another's by now.
        fs::write(mount.join("cgroup.subtree_control"), format!("+{name}")).unwrap();
    }
    let foreign = Foreign::new(&mount, "delegated");
    fs::write(foreign.slice().join("cgroup.subtree_control"), format!("+{name}")).unwrap();
    let unit = foreign.slice().join("unit");
    let process = Process(std::process::Command::new("sleep").arg("1000").spawn().unwrap());
    let pid = process.0.id().to_string();
    fs::write(unit.join("cgroup.procs"), &pid).unwrap();
    let cgroups = Cgroups::new(hierarchies, &foreign.slice.join("unit/tepui"), &[controller]).unwrap();
    assert_eq!((enabled(&unit).as_str(), enabled(&unit.join("tepui")).as_str()), (name, name));
    assert_eq!(fs::read_to_string(unit.join("agent/cgroup.procs")).unwrap().trim(), pid);
    assert!(cgroups.orphans(&Default::default()).unwrap().is_empty());
    drop(process);
}

/// Set in the process of [`what_looks_after_containers_is_taken_out_of_the_unit`] that is in a unit: its `--cgroups_root`.
const IN_UNIT: &str = "TEPUI_TEST_IN_UNIT";

#[test]
fn what_looks_after_containers_is_taken_out_of_the_unit() {
    let Some((hierarchies, _, _, mount)) = some() else { return };
    let root = PathBuf::from(format!("tepui-test-outside-{}", std::process::id()));
    if let Ok(root) = std::env::var(IN_UNIT) {
        let process = Process(std::process::Command::new("sleep").arg("1000").spawn().unwrap());
        let cgroups = Cgroups::new(hierarchies, Path::new(&root), &[]).unwrap();
        cgroups.take_out_of_unit(process.0.id()).unwrap();
        let now = fs::read_to_string(format!("/proc/{}/cgroup", process.0.id())).unwrap();
        assert!(now.contains(&format!("0::/{root}/shims\n")), "{now}");
        assert!(cgroups.orphans(&Default::default()).unwrap().is_empty());
        return;
    }
    let foreign = Foreign::new(&mount, "outside-unit");
    // A process of its own, as the other tests of this one are in no unit.
    let unit = foreign.slice().join("unit/cgroup.procs");
    let name = "delegation::what_looks_after_containers_is_taken_out_of_the_unit";
    let script = "echo $$ >\"$0\"; exec \"$@\"";
    let mut inside = std::process::Command::new("sh");
    inside.args(["-c", script]).arg(&unit).arg(std::env::current_exe().unwrap()).args([
        "--exact",
        name,
        "--nocapture",
    ]);
    let ended = inside.env(IN_UNIT, &root).output().unwrap();
    assert!(
        ended.status.success(),
        "{}{}",
        String::from_utf8_lossy(&ended.stdout),
        String::from_utf8_lossy(&ended.stderr)
    );
    wait_for("an empty root", || {
        tepui_isolators::cgroups::remove_empty_root(&root).unwrap();
        (!mount.join(&root).exists()).then_some(())
    });
}
