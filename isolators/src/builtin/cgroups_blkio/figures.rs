//! What the kernel says of a container's block I/O, as Mesos' fields have it.
//!
//! v1's files have lines `8:0 Read 4096`, or `8:0 12` where there is nothing to tell apart, and a sum at the end, `Total 4096`. v2's
//! `io.stat` has one line a device, `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0`; its sums are made here. As in Mesos, each list
//! ends with an entry without a device, for the sums, also where there is nothing.

use std::collections::BTreeMap;
use std::path::Path;

use tepui_api::v1::cgroup_info::blkio::{Operation, Statistics, Value, cfq, throttling};
use tepui_api::v1::device::Number;

use crate::cgroups::files::{read, read_if_there};
use crate::cgroups::{CgroupError, Version};

/// Major and minor; `None` for the sum of all devices.
type Device = Option<(u64, u64)>;

/// One line.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    device: Device,
    operation: Operation,
    value: u64,
}

/// All that there is.
pub fn read_all(dir: &Path, version: Version) -> Result<Statistics, CgroupError> {
    match version {
        Version::V1 => Ok(Statistics {
            cfq: cfq_statistics(dir, "")?,
            cfq_recursive: cfq_statistics(dir, "_recursive")?,
            throttling: throttling_v1(dir)?,
        }),
        Version::V2 => Ok(Statistics {
            cfq: vec![cfq::Statistics::default()],
            cfq_recursive: vec![cfq::Statistics::default()],
            throttling: throttling_v2(&read(&dir.join("io.stat"))?),
        }),
    }
}

fn lines(text: &str) -> impl Iterator<Item = Line> + '_ {
    text.lines().filter_map(line)
}

fn line(text: &str) -> Option<Line> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (device, operation, value) = match words.as_slice() {
        [value] => (None, None, value),
        [first, value] => match device(first) {
            Some(device) => (Some(device), None, value),
            None => (None, Some(*first), value),
        },
        [first, operation, value] => (Some(device(first)?), Some(*operation), value),
        _ => return None,
    };
    let operation = match operation {
        None => Operation::Unknown,
        Some("Total") => Operation::Total,
        Some("Read") => Operation::Read,
        Some("Write") => Operation::Write,
        Some("Sync") => Operation::Sync,
        Some("Async") => Operation::Async,
        Some("Discard") => Operation::Discard,
        Some(_) => return None,
    };
    Some(Line { device, operation, value: value.parse().ok()? })
}

fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn number(device: Device) -> Option<Number> {
    device.map(|(major_number, minor_number)| Number { major_number, minor_number })
}

fn value(operation: Operation, value: u64) -> Value {
    Value { op: Some(operation as i32), value: Some(value) }
}

/// Devices in order, the sum last.
fn listed<T: Default>(mut found: BTreeMap<Device, T>) -> impl Iterator<Item = (Device, T)> {
    let sum = found.remove(&None).unwrap_or_default();
    found.into_iter().chain([(None, sum)])
}

fn throttling_v1(dir: &Path) -> Result<Vec<throttling::Statistics>, CgroupError> {
    let mut found: BTreeMap<Device, throttling::Statistics> = BTreeMap::new();
    for Line { device, operation, value: count } in lines(&read(&dir.join("blkio.throttle.io_serviced"))?) {
        found.entry(device).or_default().io_serviced.push(value(operation, count));
    }
    for Line { device, operation, value: bytes } in
        lines(&read(&dir.join("blkio.throttle.io_service_bytes"))?)
    {
        found.entry(device).or_default().io_service_bytes.push(value(operation, bytes));
    }
    Ok(listed(found).map(|(of, figures)| throttling::Statistics { device: number(of), ..figures }).collect())
}

/// CFQ's, where the kernel has it: `suffix` is that of the figures with nested cgroups.
fn cfq_statistics(dir: &Path, suffix: &str) -> Result<Vec<cfq::Statistics>, CgroupError> {
    type Set = fn(&mut cfq::Statistics, Operation, u64);
    const FILES: [(&str, Set); 8] = [
        ("time", |figures, _, time| figures.time = Some(time)),
        ("sectors", |figures, _, sectors| figures.sectors = Some(sectors)),
        ("io_service_bytes", |figures, op, bytes| figures.io_service_bytes.push(value(op, bytes))),
        ("io_serviced", |figures, op, count| figures.io_serviced.push(value(op, count))),
        ("io_service_time", |figures, op, time| figures.io_service_time.push(value(op, time))),
        ("io_wait_time", |figures, op, time| figures.io_wait_time.push(value(op, time))),
        ("io_merged", |figures, op, count| figures.io_merged.push(value(op, count))),
        ("io_queued", |figures, op, count| figures.io_queued.push(value(op, count))),
    ];
    let mut found: BTreeMap<Device, cfq::Statistics> = BTreeMap::new();
    for (file, set) in FILES {
        let Some(text) = read_if_there(&dir.join(format!("blkio.{file}{suffix}")))? else { continue };
        for Line { device, operation, value } in lines(&text) {
            set(found.entry(device).or_default(), operation, value);
        }
    }
    Ok(listed(found).map(|(of, figures)| cfq::Statistics { device: number(of), ..figures }).collect())
}

/// Bytes or operations of one device, or of all.
#[derive(Debug, Clone, Copy, Default)]
struct Amounts {
    read: u64,
    write: u64,
    discard: u64,
}

impl Amounts {
    fn add(&mut self, other: Amounts) {
        self.read = self.read.saturating_add(other.read);
        self.write = self.write.saturating_add(other.write);
        self.discard = self.discard.saturating_add(other.discard);
    }

    fn values(self) -> Vec<Value> {
        let total = self.read.saturating_add(self.write).saturating_add(self.discard);
        vec![
            value(Operation::Read, self.read),
            value(Operation::Write, self.write),
            value(Operation::Discard, self.discard),
            value(Operation::Total, total),
        ]
    }

    /// As v1 has it: of all devices there is only one number.
    fn total(self) -> Vec<Value> {
        self.values().pop().into_iter().collect()
    }
}

fn throttling_v2(text: &str) -> Vec<throttling::Statistics> {
    let (mut all_bytes, mut all_operations) = (Amounts::default(), Amounts::default());
    let mut list = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some(of) = words.next().and_then(device) else { continue };
        let pairs: BTreeMap<&str, u64> = words
            .filter_map(|word| word.split_once('='))
            .filter_map(|(key, number)| Some((key, number.parse().ok()?)))
            .collect();
        let get = |key| pairs.get(key).copied().unwrap_or(0);
        let bytes = Amounts { read: get("rbytes"), write: get("wbytes"), discard: get("dbytes") };
        let operations = Amounts { read: get("rios"), write: get("wios"), discard: get("dios") };
        all_bytes.add(bytes);
        all_operations.add(operations);
        list.push(throttling::Statistics {
            device: number(Some(of)),
            io_serviced: operations.values(),
            io_service_bytes: bytes.values(),
        });
    }
    list.push(throttling::Statistics {
        device: None,
        io_serviced: all_operations.total(),
        io_service_bytes: all_bytes.total(),
    });
    list
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn v1_lines_are_read() {
        let read = |text| line(text);
        let expected = Line { device: Some((8, 16)), operation: Operation::Read, value: 7 };
        assert_eq!(read("8:16 Read 7"), Some(expected));
        assert_eq!(read("8:0 7").map(|line| line.operation), Some(Operation::Unknown));
        assert_eq!(read("Total 7"), Some(Line { device: None, operation: Operation::Total, value: 7 }));
        assert_eq!(read("9"), Some(Line { device: None, operation: Operation::Unknown, value: 9 }));
        for text in ["", "8:0 Trim 1", "8:0 Read x", "a:b Read 1", "1 2 3 4"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn v1_figures_are_by_device_with_the_sum_last() {
        let dir = tempfile::tempdir().unwrap();
        let put = |file: &str, text: &str| fs::write(dir.path().join(file), text).unwrap();
        put("blkio.throttle.io_serviced", "8:16 Read 1\n8:16 Total 1\n8:0 Write 2\nTotal 3\n");
        put("blkio.throttle.io_service_bytes", "8:16 Read 4096\nTotal 4096\n");
        put("blkio.time", "8:0 12\n");
        let found = read_all(dir.path(), Version::V1).unwrap();
        let devices: Vec<_> =
            found.throttling.iter().map(|one| one.device.map(|number| number.minor_number)).collect();
        assert_eq!(devices, [Some(0), Some(16), None]);
        assert_eq!(found.throttling[1].io_serviced, [value(Operation::Read, 1), value(Operation::Total, 1)]);
        assert_eq!(found.throttling[2].io_service_bytes, [value(Operation::Total, 4096)]);
        assert_eq!(found.cfq[0].time, Some(12));
        assert_eq!(found.cfq_recursive, [cfq::Statistics::default()]);
    }

    #[test]
    fn v2_figures_have_the_same_form() {
        let text = "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=5 dios=1\n7:1 \n9:0 rbytes=1 rios=1\n";
        let found = throttling_v2(text);
        assert_eq!(found.len(), 4);
        assert_eq!(found[0].device.unwrap(), Number { major_number: 8, minor_number: 0 });
        assert_eq!(found[0].io_service_bytes[3], value(Operation::Total, 35));
        assert_eq!(found[3].io_service_bytes, [value(Operation::Total, 36)]);
        assert_eq!((found[3].device, &found[3].io_serviced), (None, &vec![value(Operation::Total, 5)]));
    }
}
