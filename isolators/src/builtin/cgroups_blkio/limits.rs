//! The labels `tepui.io.weight` and `tepui.io.max`.
//!
//! `tepui.io.weight` is v2's weight, 1 to 10000, 100 if nothing is said. BFQ and CFQ have a narrower scale, up to 1000; weights above
//! 100 are spread over the rest of it, so that 100 stays 100 (as systemd does it).
//!
//! `tepui.io.max` is v2's form with a device's path allowed in place of its number, several devices with `;` between them:
//! `/dev/sda rbps=10MB wiops=100; 8:16 wbps=max`. Only whole disks have limits, not partitions.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::sys::stat::{major, minor};
use tepui_api::units::Bytes;

use crate::builtin::labels;
use crate::cgroups::{CgroupError, Version, files};
use crate::isolator::{ContainerContext, IsolatorError};

const WEIGHTS: std::ops::RangeInclusive<u64> = 1..=10_000;
/// The files of a weight, with the end of their scale, and the least that they take.
const WEIGHT_FILES: [(Version, &str, u64, u64); 4] = [
    (Version::V2, "io.weight", 10_000, 1),
    (Version::V2, "io.bfq.weight", 1000, 1),
    (Version::V1, "blkio.bfq.weight", 1000, 1),
    (Version::V1, "blkio.weight", 1000, 10),
];

/// What can be limited: v2's word, and v1's file.
const KEYS: [(&str, &str); 4] = [
    ("rbps", "blkio.throttle.read_bps_device"),
    ("wbps", "blkio.throttle.write_bps_device"),
    ("riops", "blkio.throttle.read_iops_device"),
    ("wiops", "blkio.throttle.write_iops_device"),
];

/// The limits of one device.
#[derive(Debug, PartialEq, Eq)]
struct Limit<'a> {
    /// Its path, or `<major>:<minor>`.
    device: &'a str,
    /// `None` for no limit.
    values: Vec<(&'static str, Option<u64>)>,
}

/// Sets what the container's labels say.
pub fn set(context: &ContainerContext, dir: &Path, version: Version) -> Result<(), IsolatorError> {
    if let Some(text) = labels::read(context, labels::IO_WEIGHT) {
        set_weight(text, dir, version)?;
    }
    match labels::read(context, labels::IO_MAX) {
        Some(text) => set_limits(text, dir, version),
        None => Ok(()),
    }
}

fn set_weight(text: &str, dir: &Path, version: Version) -> Result<(), IsolatorError> {
    let wrong = |reason: &str| labels::wrong(labels::IO_WEIGHT, text, reason);
    let weight = text.trim().parse().ok().filter(|weight| WEIGHTS.contains(weight));
    let weight = weight.ok_or_else(|| wrong("it must be a number from 1 to 10000"))?;
    let file = WEIGHT_FILES.iter().find(|(of, file, ..)| *of == version && dir.join(file).exists());
    let Some((_, file, most, least)) = file else {
        return Err(wrong(
            "the kernel of this agent weighs no I/O (it needs blk-iocost or the scheduler BFQ)",
        ));
    };
    Ok(files::write(&dir.join(file), scaled(weight, *most).max(*least))?)
}

/// From a scale up to 10000 to one up to `most`, both with 100 as the middle.
fn scaled(weight: u64, most: u64) -> u64 {
    if weight <= 100 { weight } else { 100 + (weight - 100) * (most - 100) / (WEIGHTS.end() - 100) }
}

fn set_limits(text: &str, dir: &Path, version: Version) -> Result<(), IsolatorError> {
    let wrong = |reason: String| labels::wrong(labels::IO_MAX, text, reason);
    for limit in parse(text).map_err(wrong)? {
        let device = number(limit.device).map_err(wrong)?;
        match write(dir, version, &device, &limit) {
            Err(CgroupError::Write { source, .. })
                if matches!(source.raw_os_error(), Some(libc::ENODEV | libc::ENXIO | libc::EINVAL)) =>
            {
                return Err(wrong(format!("the kernel cannot limit {}: {source}", limit.device)));
            }
            written => written?,
        }
    }
    Ok(())
}

fn write(dir: &Path, version: Version, device: &str, limit: &Limit) -> Result<(), CgroupError> {
    match version {
        Version::V2 => {
            let word = |(key, value): &(&str, Option<u64>)| {
                format!(" {key}={}", value.map_or("max".to_owned(), |value| value.to_string()))
            };
            let words: String = limit.values.iter().map(word).collect();
            files::write(&dir.join("io.max"), format!("{device}{words}"))
        }
        // A new cgroup has no limits, so there is nothing to write for none.
        Version::V1 => KEYS.iter().try_for_each(|(key, file)| {
            let value = limit.values.iter().find(|(of, _)| of == key).and_then(|(_, value)| *value);
            match value {
                Some(value) => files::write(&dir.join(file), format!("{device} {value}")),
                None => Ok(()),
            }
        }),
    }
}

fn parse(text: &str) -> Result<Vec<Limit<'_>>, String> {
    let devices = text.split(';').map(str::trim).filter(|part| !part.is_empty());
    devices.map(parse_device).collect()
}

fn parse_device(text: &str) -> Result<Limit<'_>, String> {
    let mut words = text.split_whitespace();
    let device = words.next().unwrap_or_default();
    let mut values = Vec::new();
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let known = KEYS.iter().map(|(known, _)| *known).find(|known| *known == key);
        let key = known.ok_or_else(|| format!("'{word}' is none of rbps=, wbps=, riops= and wiops="))?;
        if values.iter().any(|(other, _)| *other == key) {
            return Err(format!("it says {key} of {device} twice"));
        }
        values.push((key, amount(key, value)?));
    }
    if values.is_empty() {
        return Err(format!("it limits nothing of '{device}': say for example '{device} rbps=10MB'"));
    }
    Ok(Limit { device, values })
}

fn amount(key: &str, text: &str) -> Result<Option<u64>, String> {
    if text == "max" {
        return Ok(None);
    }
    let number = match text.parse::<u64>() {
        Err(_) if key.ends_with("bps") => text.parse::<Bytes>().ok().map(|bytes| bytes.0),
        number => number.ok(),
    };
    let number = number.filter(|number| *number > 0);
    let what =
        if key.ends_with("bps") { "bytes a second, such as 1048576 or 1MB" } else { "operations a second" };
    number.map(Some).ok_or_else(|| format!("'{key}={text}' is not a number of {what}, nor 'max'"))
}

/// `<major>:<minor>` of a whole disk.
fn number(device: &str) -> Result<String, String> {
    let number = match device.strip_prefix('/') {
        Some(_) => of_path(device)?,
        None => {
            let known = device
                .split_once(':')
                .and_then(|(major, minor)| Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?)));
            let (major, minor) = known.ok_or_else(|| {
                format!("'{device}' is neither the path of a block device nor its number, such as 8:0")
            })?;
            format!("{major}:{minor}")
        }
    };
    if Path::new("/sys/dev/block").join(&number).join("partition").exists() {
        return Err(format!("{device} is a partition: only the whole disk can be limited"));
    }
    Ok(number)
}

fn of_path(device: &str) -> Result<String, String> {
    let about = fs::metadata(device).map_err(|error| format!("{device} cannot be looked at: {error}"))?;
    if !about.file_type().is_block_device() {
        return Err(format!("{device} is not a block device"));
    }
    Ok(format!("{}:{}", major(about.rdev()), minor(about.rdev())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_amounts_by_device() {
        let found = parse("/dev/sda rbps=10MB wiops=100; 8:16 wbps=max;").unwrap();
        let first =
            Limit { device: "/dev/sda", values: vec![("rbps", Some(10 << 20)), ("wiops", Some(100))] };
        assert_eq!(found, [first, Limit { device: "8:16", values: vec![("wbps", None)] }]);
        for (text, words) in [
            ("8:0", "limits nothing"),
            ("8:0 rbps", "not a number of bytes"),
            ("8:0 rbps=0", "not a number of bytes"),
            ("8:0 riops=1MB", "not a number of operations"),
            ("8:0 bps=1", "none of rbps="),
            ("8:0 rbps=1 rbps=2", "twice"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn devices_are_numbers_or_paths_of_block_devices() {
        assert_eq!(number("250:9").unwrap(), "250:9");
        for (text, words) in [
            ("sda", "neither the path"),
            ("8", "neither the path"),
            ("/dev/null", "not a block device"),
            ("/dev/no-such-disk", "cannot be looked at"),
        ] {
            let error = number(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn weights_keep_their_middle_on_a_narrower_scale() {
        for (weight, wide, narrow) in [(1, 1, 1), (100, 100, 100), (200, 200, 109), (10_000, 10_000, 1000)] {
            assert_eq!((scaled(weight, 10_000), scaled(weight, 1000)), (wide, narrow));
        }
    }

    #[test]
    fn v2_is_told_in_one_line_a_device() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("io.max"), "").unwrap();
        let limit = Limit { device: "", values: vec![("rbps", Some(5)), ("wiops", None)] };
        write(dir.path(), Version::V2, "8:0", &limit).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("io.max")).unwrap(), "8:0 rbps=5 wiops=max");
    }
}
