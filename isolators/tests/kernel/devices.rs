//! Filters of devices, as v1's list and as v2's program, on whatever of the two this host mounts.

use std::fs;
use std::path::{Path, PathBuf};

use tepui_isolators::Contribution;
use tepui_isolators::cgroups::devices::{Filter, Rule, attached};
use tepui_isolators::cgroups::{Controller, Hierarchies, Version};

use crate::support::{Host, run, wait_for};

/// A device that anybody's root may read, and no container by default.
const FORBIDDEN: &str = "/dev/kmsg";

/// A cgroup of a test in a tree that can filter devices.
struct Place {
    dir: PathBuf,
    version: Version,
}

impl Drop for Place {
    fn drop(&mut self) {
        wait_for("the cgroup to be removed", || match fs::remove_dir(&self.dir) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => None,
            other => Some(other),
        })
        .unwrap();
    }
}

/// One in each version that this host has.
fn places(name: &str) -> Vec<Place> {
    let hierarchies = Hierarchies::detect().unwrap();
    let v1 = hierarchies.with(Controller::Devices).filter(|tree| tree.version == Version::V1);
    let trees = [v1, hierarchies.unified()];
    let places: Vec<Place> = trees
        .into_iter()
        .flatten()
        .map(|tree| {
            let dir = tree.mount.join(format!("tepui-test-{name}-{}", std::process::id()));
            fs::create_dir(&dir).unwrap();
            Place { dir, version: tree.version }
        })
        .collect();
    assert!(!places.is_empty(), "no cgroups are mounted");
    places
}

fn rules(texts: &[&str]) -> Vec<Rule> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Runs a script in a cgroup; whether it succeeded.
fn succeeds(dir: &Path, script: &str) -> bool {
    let contribution =
        Contribution { cgroup_procs: vec![dir.join("cgroup.procs")], ..Contribution::default() };
    run(&contribution, script).0.wait().unwrap().success()
}

#[test]
fn only_what_the_rules_allow_can_be_opened_and_made() {
    assert!(fs::File::open(FORBIDDEN).is_ok(), "outside it can be opened");
    let scratch = tempfile::tempdir().unwrap();
    for place in places("rules") {
        let (dir, version) = (&place.dir, place.version);
        let open = |path: &str| succeeds(dir, &format!("true < {path}"));
        let write = |path: &str| succeeds(dir, &format!("true > {path}"));
        assert!(open(FORBIDDEN), "a new cgroup filters nothing");
        let filter = Filter::new(&rules(&["c *:* m", "c 1:3 rwm", "c 1:5 r"]), version).unwrap();
        assert!(!filter.is_applied(dir).unwrap());
        filter.apply(dir).unwrap();
        assert!(filter.is_applied(dir).unwrap());
        assert!(!open(FORBIDDEN) && open("/dev/null") && write("/dev/null"), "{version:?}");
        assert!(open("/dev/zero") && !write("/dev/zero"), "{version:?}: read, and not write");
        let node = scratch.path().join(format!("node-{version:?}"));
        let make = format!("mknod {} c 1 11", node.display());
        assert!(succeeds(dir, &make) && node.exists(), "{version:?}");
        assert!(!open(node.to_str().unwrap()), "a file alone gives no access");
        assert!(!succeeds(dir, &format!("mknod {}-b b 7 0", node.display())), "no rule has block devices");
    }
}

#[test]
fn a_filter_is_replaced_at_one_stroke() {
    for place in places("replaced").into_iter().filter(|place| place.version == Version::V2) {
        let dir = &place.dir;
        let filters = [["c 1:3 rwm", "c 1:5 r"], ["c 1:3 rwm", "c 1:7 rwm"]]
            .map(|texts| Filter::new(&rules(&texts), Version::V2).unwrap());
        filters[0].apply(dir).unwrap();
        let first = attached(dir).unwrap();
        assert_eq!(first.len(), 1);
        // A process that tries all the time never finds a moment in which it may.
        let log = tempfile::NamedTempFile::new().unwrap();
        let contribution =
            Contribution { cgroup_procs: vec![dir.join("cgroup.procs")], ..Contribution::default() };
        let script = format!(
            "while :; do if true < {FORBIDDEN}; then echo open; else echo no; fi; done > {} 2> /dev/null",
            log.path().display()
        );
        let process = run(&contribution, &script);
        let lines = || fs::read_to_string(log.path()).unwrap();
        wait_for("the first attempts", || lines().contains("no\n").then_some(()));
        for round in 1..=100 {
            filters[round % 2].apply(dir).unwrap();
        }
        let before = lines().len();
        wait_for("more attempts", || (lines().len() > before).then_some(()));
        drop(process);
        assert!(!lines().contains("open"), "there was a gap");
        let last = attached(dir).unwrap();
        assert_eq!((last.len(), last[0].tag), (1, first[0].tag), "the last one alone is there");
    }
}

#[tokio::test]
async fn a_container_may_use_the_usual_devices() {
    if Hierarchies::detect().unwrap().with(Controller::Devices).is_none() {
        println!("skipped: this host has no device cgroups");
        return;
    }
    let host = Host::new(&["cgroups/devices"], |_| {});
    let context = host.context("usual", "cpus:1", &[]);
    let contribution = host.prepare(&context).await;
    let script = format!(
        "for f in null zero full random urandom; do true < /dev/$f || exit 2; done; true < {FORBIDDEN} && exit 3; exit 0"
    );
    assert_eq!(run(&contribution, &script).0.wait().unwrap().code(), Some(0));
    host.cleanup(&context.container_id).await;
    assert_eq!(host.root.left(), Vec::<PathBuf>::new());
}
