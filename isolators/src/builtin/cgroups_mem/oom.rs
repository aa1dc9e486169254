//! Whether a container ran out of memory, and how that is told.
//!
//! It did if its own limit was hit and the kernel killed one of its processes. Both must hold: the kernel's counter of kills also counts
//! those of a host, or of a parent's cgroup, that is out of memory, and a limit is also hit when reclaiming memory helps.
//!
//! | | v1 | v2 |
//! | --- | --- | --- |
//! | limit was hit | `memory.failcnt`, `memory.memsw.failcnt` > 0 | `oom` in `memory.events.local` |
//! | somebody was killed | `oom_kill` in `memory.oom_control` (Linux 4.13), in it or nested | `oom_kill` in `memory.events` |

use std::path::Path;

use tepui_api::resources::{Resource, Scalar};
use tepui_api::units::Bytes;
use tepui_api::v1::task_status::Reason;

use super::{Place, limits};
use crate::builtin::amounts::Hard;
use crate::cgroups::files::{Keyed, read_if_there, read_number_if_there};
use crate::cgroups::{CgroupError, Version};
use crate::isolator::{ContainerId, Limitation};

/// Whether the container has run out of its memory. A cgroup that is gone has not.
pub fn happened(place: &Place) -> Result<bool, CgroupError> {
    let file = |name: &str| place.dir.join(name);
    match place.version {
        Version::V1 => {
            let mut hit = false;
            for counter in ["memory.failcnt", "memory.memsw.failcnt"] {
                hit |= read_number_if_there::<u64>(&file(counter))?.is_some_and(|count| count > 0);
            }
            Ok(hit && killed_v1(&place.dir)?)
        }
        Version::V2 => {
            // Before Linux 5.2, only the figures that include nested cgroups.
            let local = match read_if_there(&file("memory.events.local"))? {
                Some(local) => Some(local),
                None => read_if_there(&file("memory.events"))?,
            };
            let over =
                |text: Option<String>, key| text.and_then(|text| Keyed::parse(&text).get(key)) > Some(0);
            Ok(over(local, "oom") && over(read_if_there(&file("memory.events"))?, "oom_kill"))
        }
    }
}

/// v1 counts a kill only in the cgroup of the one killed.
fn killed_v1(dir: &Path) -> Result<bool, CgroupError> {
    let Some(text) = read_if_there(&dir.join("memory.oom_control"))? else { return Ok(false) };
    if Keyed::parse(&text).get("oom_kill") > Some(0) {
        return Ok(true);
    }
    for child in crate::cgroups::children(dir)? {
        if killed_v1(&child)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What is reported. Figures that cannot be read any more are left out.
pub fn limitation(id: &ContainerId, place: &Place) -> Limitation {
    let number = |name: &str| read_number_if_there::<u64>(&place.dir.join(name)).ok().flatten();
    let limit = limits::current(place).ok();
    let most = match place.version {
        Version::V1 => number("memory.max_usage_in_bytes"),
        // Since Linux 5.19; before, the limit is what was used.
        Version::V2 => number("memory.peak").or(match limit {
            Some(Hard::At(bytes)) => Some(bytes),
            Some(Hard::Infinite) | None => None,
        }),
    };

    let mut message = "Memory limit exceeded: ".to_owned();
    match limit {
        Some(Hard::At(bytes)) => message += &format!("Requested: {} ", Bytes(bytes)),
        Some(Hard::Infinite) => message += "Requested: no limit ",
        None => {}
    }
    if let Some(bytes) = most {
        message += &format!("Maximum Used: {}\n", Bytes(bytes));
    }
    if let Ok(Some(stat)) = read_if_there(&place.dir.join("memory.stat")) {
        message += &format!("\nMEMORY STATISTICS: \n{stat}\n");
    }

    let megabytes = most.unwrap_or(0) as f64 / f64::from(1 << 20);
    let used = Resource::scalar("mem", Scalar::from_f64(megabytes).unwrap_or_default());
    Limitation {
        container_id: id.clone(),
        resources: vec![used.to_wire()],
        message,
        reason: Reason::ContainerLimitationMemory,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn place(version: Version, files: &[(&str, &str)]) -> (tempfile::TempDir, Place) {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let place = Place { dir: dir.path().to_owned(), version };
        (dir, place)
    }

    #[test]
    fn v2_needs_its_own_limit_hit_and_a_kill() {
        let cases = [
            ("oom 1\n", "oom 1\noom_kill 1\n", true),
            ("oom 1\n", "oom 1\noom_kill 0\n", false),
            ("oom 0\n", "oom 3\noom_kill 3\n", false),
        ];
        for (local, all, expected) in cases {
            let (_dir, place) = place(Version::V2, &[("memory.events.local", local), ("memory.events", all)]);
            assert_eq!(happened(&place).unwrap(), expected, "{local:?} {all:?}");
        }
    }

    #[test]
    fn v1_counts_kills_in_nested_containers() {
        let control = |kills: u32| format!("oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n");
        let (_dir, parent) = place(
            Version::V1,
            &[
                ("memory.failcnt", "3\n"),
                ("memory.oom_control", &control(0)),
                ("mesos/child/memory.oom_control", &control(1)),
                ("mesos/memory.oom_control", &control(0)),
            ],
        );
        assert!(happened(&parent).unwrap());
        let (_dir, host) =
            place(Version::V1, &[("memory.failcnt", "0\n"), ("memory.oom_control", &control(1))]);
        assert!(!happened(&host).unwrap(), "killed because the host was out of memory");
    }

    #[test]
    fn the_message_says_what_was_requested_and_used() {
        let files =
            [("memory.max", "67108864\n"), ("memory.peak", "67112960\n"), ("memory.stat", "anon 7\n")];
        let (_dir, place) = place(Version::V2, &files);
        let told = limitation(&ContainerId::new("c"), &place);
        assert_eq!(
            told.message,
            "Memory limit exceeded: Requested: 64MB Maximum Used: 65540KB\n\nMEMORY STATISTICS: \nanon 7\n\n"
        );
        let mem = &told.resources[0];
        assert_eq!((mem.name.as_str(), mem.scalar.as_ref().unwrap().value), ("mem", 64.004));
    }
}
