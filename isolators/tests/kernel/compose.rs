//! From names to isolators.

use tepui_isolators::cgroups::{Controller, Hierarchies};
use tepui_isolators::{BuildError, Settings, build, known};
use tokio::sync::mpsc::unbounded_channel;

use crate::support::{Host, Root};

fn fails(names: &[&str]) -> BuildError {
    let root = Root::new();
    let settings = Settings { cgroups_root: root.0.clone(), ..Settings::default() };
    build(names, &settings, &unbounded_channel().0).err().unwrap()
}

fn names(list: &[&str]) -> Vec<String> {
    let host = Host::new(list, |_| {});
    host.composition.isolators.iter().map(|isolator| isolator.name().to_owned()).collect()
}

#[test]
fn the_order_is_ours_whatever_the_users_is() {
    let expected = [
        "cgroups",
        "filesystem/linux",
        "cgroups/cpu",
        "cgroups/mem",
        "namespaces/pid",
        "volume/sandbox_path",
        "volume/host_path",
        "volume/image",
        "disk/du",
        "environment_secret",
    ];
    assert_eq!(
        names(&["disk/du", "cgroups/mem", "namespaces/pid", "cgroups/cpu", "filesystem/linux"]),
        expected
    );
    assert_eq!(
        names(&["filesystem/linux", "cgroups/cpu", "namespaces/pid", "cgroups/mem", "disk/du"]),
        expected
    );
}

#[test]
fn older_names_and_defaults_are_resolved() {
    assert_eq!(
        names(&["process"]),
        ["cgroups", "filesystem/posix", "posix/cpu", "posix/mem", "environment_secret"]
    );
    assert_eq!(
        names(&["cgroups", "posix/disk"]),
        ["cgroups", "filesystem/posix", "cgroups/cpu", "cgroups/mem", "disk/du", "environment_secret"]
    );
    let all = names(&["cgroups/all"]);
    assert_eq!(all[..2], ["cgroups", "filesystem/posix"]);
    assert_eq!(all.last().unwrap(), "environment_secret");
    assert!(all[2..all.len() - 1].iter().all(|name| name.starts_with("cgroups/")), "{all:?}");
    let hierarchies = Hierarchies::detect().unwrap();
    for (name, controller) in [
        ("cgroups/cpu", Controller::Cpu),
        ("cgroups/mem", Controller::Memory),
        ("cgroups/pids", Controller::Pids),
        ("cgroups/net_cls", Controller::NetCls),
    ] {
        let there = hierarchies.with(controller).is_some();
        assert_eq!(all.iter().any(|one| one == name), there, "{name} in {all:?}");
    }
    assert_eq!(
        names(&["filesystem/linux"]),
        [
            "cgroups",
            "filesystem/linux",
            "volume/sandbox_path",
            "volume/host_path",
            "volume/image",
            "environment_secret"
        ]
    );
    assert!(Host::new(&["posix/disk"], |_| {}).composition.has("disk/du"));
}

#[test]
fn all_cgroups_are_those_that_the_host_has() {
    let hierarchies = Hierarchies::detect().unwrap();
    let found = names(&["cgroups/all"]);
    for (name, controller) in [
        ("cgroups/blkio", Controller::Blkio),
        ("cgroups/cpu", Controller::Cpu),
        ("cgroups/cpuset", Controller::Cpuset),
        ("cgroups/hugetlb", Controller::Hugetlb),
        ("cgroups/mem", Controller::Memory),
        ("cgroups/net_cls", Controller::NetCls),
        ("cgroups/net_prio", Controller::NetPrio),
        ("cgroups/pids", Controller::Pids),
    ] {
        let has = hierarchies.with(controller).is_some();
        assert_eq!(found.contains(&name.to_owned()), has, "{name} in {found:?}");
    }
    assert!(!found.contains(&"linux/devices".to_owned()), "{found:?}");
}

#[test]
fn what_the_host_lacks_is_said_with_the_isolators_name() {
    if Hierarchies::detect().unwrap().with(Controller::NetCls).is_some() {
        println!("skipped: this host has net_cls");
        return;
    }
    let error = fails(&["cgroups/net_cls"]).to_string();
    assert!(error.contains("'cgroups/net_cls' cannot work on this host"), "{error}");
    assert!(error.contains("the cgroup controller 'net_cls' is neither mounted"), "{error}");
}

#[test]
fn every_isolator_of_mesos_is_known_and_those_not_built_say_so() {
    assert_eq!(known().count(), 40);
    for (name, here) in known().filter(|(_, here)| !here) {
        let error = fails(&[name]);
        assert!(matches!(&error, BuildError::NotImplemented(found, _) if found == name), "{here} {error}");
        assert!(error.to_string().contains("not implemented") && error.to_string().contains(name));
    }
}

#[test]
fn wrong_lists_say_what_is_wrong() {
    let error = fails(&["cgroups/cpu", "cgroups/cpus"]).to_string();
    assert!(
        error.contains("'cgroups/cpus' in --isolation is unknown") && error.contains("cgroups/mem"),
        "{error}"
    );
    assert_eq!(fails(&["disk/du", "disk/du"]).to_string(), "'disk/du' is in --isolation twice");
    assert!(matches!(fails(&["filesystem/linux", "filesystem/posix"]), BuildError::Exclusive(..)));
    assert!(
        matches!(fails(&["namespaces/pid"]), BuildError::Needs(name, "filesystem/linux") if name == "namespaces/pid")
    );
}
