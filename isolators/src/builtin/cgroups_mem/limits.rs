//! Setting the limits, in an order that the kernel takes.
//!
//! In v1 the limit of memory may never be above that of memory and swap, so the one is lowered first and the other raised first.
//! A hard limit is never lowered under a running container: the kernel would have to kill to get there. Only its soft limit goes
//! down, which is harmless as long as the host has memory left. As in Mesos, no limit is below 32 MB, in which a shell can start.

use super::Place;
use crate::builtin::amounts::{Hard, Memory};
use crate::cgroups::files::{read, write};
use crate::cgroups::{CgroupError, Version};

/// The least limit, in bytes.
pub const MIN_MEMORY: u64 = 32 << 20;

/// The file that limits swap.
pub const fn swap_file(version: Version) -> &'static str {
    match version {
        Version::V1 => "memory.memsw.limit_in_bytes",
        Version::V2 => "memory.swap.max",
    }
}

/// For a cgroup without processes.
pub fn set_first(place: &Place, memory: &Memory, limit_swap: bool) -> Result<(), CgroupError> {
    set_soft(place, memory)?;
    // A new cgroup has no limit, so this lowers: memory first.
    set_memory(place, memory)?;
    if limit_swap { set_swap(place, memory) } else { Ok(()) }
}

/// For a running container.
pub fn set_again(place: &Place, memory: &Memory, limit_swap: bool) -> Result<(), CgroupError> {
    set_soft(place, memory)?;
    let raises = match (hard(memory), current(place)?) {
        (Hard::Infinite, _) => true,
        (Hard::At(_), Hard::Infinite) => false,
        (Hard::At(new), Hard::At(old)) => new > old,
    };
    if !raises {
        return Ok(());
    }
    if limit_swap {
        set_swap(place, memory)?;
    }
    set_memory(place, memory)
}

fn soft(memory: &Memory) -> u64 {
    memory.request.max(MIN_MEMORY)
}

fn hard(memory: &Memory) -> Hard<u64> {
    match memory.limit {
        Hard::At(bytes) => Hard::At(bytes.max(MIN_MEMORY)),
        Hard::Infinite => Hard::Infinite,
    }
}

fn text(version: Version, limit: Hard<u64>) -> String {
    match (limit, version) {
        (Hard::At(bytes), _) => bytes.to_string(),
        (Hard::Infinite, Version::V1) => "-1".to_owned(),
        (Hard::Infinite, Version::V2) => "max".to_owned(),
    }
}

fn set_soft(place: &Place, memory: &Memory) -> Result<(), CgroupError> {
    let file = match place.version {
        Version::V1 => "memory.soft_limit_in_bytes",
        Version::V2 => "memory.low",
    };
    write(&place.dir.join(file), soft(memory))
}

fn memory_file(version: Version) -> &'static str {
    match version {
        Version::V1 => "memory.limit_in_bytes",
        Version::V2 => "memory.max",
    }
}

fn set_memory(place: &Place, memory: &Memory) -> Result<(), CgroupError> {
    write(&place.dir.join(memory_file(place.version)), text(place.version, hard(memory)))
}

/// v1 limits the sum of memory and swap, v2 swap alone; none of it keeps the sum at the limit of memory.
fn set_swap(place: &Place, memory: &Memory) -> Result<(), CgroupError> {
    let value = match (place.version, hard(memory)) {
        (Version::V2, Hard::At(_)) => "0".to_owned(),
        (version, limit) => text(version, limit),
    };
    write(&place.dir.join(swap_file(place.version)), value)
}

/// The hard limit in force.
pub fn current(place: &Place) -> Result<Hard<u64>, CgroupError> {
    let path = place.dir.join(memory_file(place.version));
    let text = read(&path)?;
    match text.trim() {
        "max" => Ok(Hard::Infinite),
        number => match number.parse() {
            // v1 writes no limit as the largest number of pages.
            Ok(bytes) if bytes > i64::MAX as u64 - (1 << 20) => Ok(Hard::Infinite),
            Ok(bytes) => Ok(Hard::At(bytes)),
            Err(_) => Err(CgroupError::Parse { path, text }),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn fake_v2() -> (tempfile::TempDir, Place) {
        let dir = tempfile::tempdir().unwrap();
        for file in ["memory.low", "memory.max", "memory.swap.max"] {
            fs::write(dir.path().join(file), "max").unwrap();
        }
        let place = Place { dir: dir.path().to_owned(), version: Version::V2 };
        (dir, place)
    }

    /// A fake file keeps what was longer than the last value, which the kernel's does not.
    fn set(place: &Place, memory: &Memory, first: bool, swap: bool) -> [String; 3] {
        let files = ["memory.low", "memory.max", "memory.swap.max"].map(|file| place.dir.join(file));
        let before = files.clone().map(|file| fs::read_to_string(file).unwrap());
        for file in [&files[0], &files[2]] {
            fs::write(file, "").unwrap();
        }
        if first {
            fs::write(&files[1], "").unwrap();
            set_first(place, memory, swap).unwrap();
        } else {
            set_again(place, memory, swap).unwrap();
        }
        for (file, before) in files.iter().zip(before) {
            if fs::read_to_string(file).unwrap().is_empty() {
                fs::write(file, before).unwrap();
            }
        }
        files.map(|file| fs::read_to_string(file).unwrap())
    }

    #[test]
    fn v2_limits_are_low_max_and_no_swap() {
        let (_dir, place) = fake_v2();
        let memory = Memory { request: 64 << 20, limit: Hard::At(128 << 20) };
        let expected = [(64u64 << 20).to_string(), (128u64 << 20).to_string(), "0".to_owned()];
        assert_eq!(set(&place, &memory, true, true), expected);
        assert_eq!(current(&place).unwrap(), Hard::At(128 << 20));
    }

    #[test]
    fn no_limit_is_below_32_megabytes() {
        let (_dir, place) = fake_v2();
        let memory = Memory { request: 1 << 20, limit: Hard::At(2 << 20) };
        let least = MIN_MEMORY.to_string();
        assert_eq!(set(&place, &memory, true, false), [least.clone(), least, "max".to_owned()]);
    }

    #[test]
    fn the_hard_limit_of_a_running_container_only_goes_up() {
        let (_dir, place) = fake_v2();
        let megabytes = |limit: u64| Memory { request: 40 << 20, limit: Hard::At(limit << 20) };
        set(&place, &megabytes(100), true, false);
        set(&place, &megabytes(50), false, false);
        assert_eq!(current(&place).unwrap(), Hard::At(100 << 20));
        set(&place, &megabytes(200), false, false);
        assert_eq!(current(&place).unwrap(), Hard::At(200 << 20));
    }
}
