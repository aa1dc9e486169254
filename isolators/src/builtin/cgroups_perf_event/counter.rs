//! One event counted for one cgroup on one CPU: the perf_event_open(2) system call, which has no wrapper in the libraries used here.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::events::Code;

/// The first version of `struct perf_event_attr`, which every kernel takes.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup: u32,
    breakpoint: u32,
    config1: u64,
}

/// The count is followed by how long it was wanted and how long it ran.
const TOTAL_TIMES: u64 = 0b11;
const CLOSE_ON_EXEC: libc::c_ulong = 1 << 3;
/// The pid is the descriptor of a cgroup's directory.
const OF_CGROUP: libc::c_ulong = 1 << 2;

/// Counts from its making until it is dropped.
#[derive(Debug)]
pub struct Counter(File);

fn open(code: Code, pid: libc::pid_t, cpu: libc::c_int, flags: libc::c_ulong) -> io::Result<Counter> {
    let attributes = Attributes {
        kind: code.kind,
        size: size_of::<Attributes>() as u32,
        config: code.config,
        read_format: TOTAL_TIMES,
        ..Attributes::default()
    };
    // SAFETY: the kernel reads `size` bytes of the attributes, which outlive the call; it answers a descriptor or -1.
    let answer = unsafe {
        libc::syscall(libc::SYS_perf_event_open, &raw const attributes, pid, cpu, -1, flags | CLOSE_ON_EXEC)
    };
    match RawFd::try_from(answer) {
        // SAFETY: the kernel has just made this descriptor for us alone.
        Ok(fd) if fd >= 0 => Ok(Counter(unsafe { OwnedFd::from_raw_fd(fd) }.into())),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether this machine can count an event at all: for this thread, on any CPU.
pub fn probe(code: Code) -> io::Result<()> {
    open(code, 0, -1, 0).map(drop)
}

/// Whether it is for a lack of rights.
pub fn is_permission(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

impl Counter {
    /// Begins to count what the processes of a cgroup and those below do on a CPU.
    pub fn of_cgroup(code: Code, cgroup: &File, cpu: u32) -> io::Result<Self> {
        let cpu = libc::c_int::try_from(cpu).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        open(code, cgroup.as_raw_fd(), cpu, OF_CGROUP)
    }

    /// What was counted. Where there are more events than counters, they take turns; the count is then stretched to the whole time.
    pub fn read(&self) -> io::Result<f64> {
        let mut bytes = [0; 24];
        (&self.0).read_exact(&mut bytes)?;
        let word = |at: usize| {
            let part = bytes.get(at * 8..at * 8 + 8).and_then(|part| part.try_into().ok());
            part.map_or(0, u64::from_ne_bytes) as f64
        };
        let (count, wanted, ran) = (word(0), word(1), word(2));
        Ok(if ran > 0.0 && ran < wanted { count * wanted / ran } else { count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_software_event_of_this_thread_is_counted() {
        let task_clock = Code { kind: 1, config: 1 };
        let counter = match open(task_clock, 0, -1, 0) {
            Ok(counter) => counter,
            Err(error) => {
                println!("skipped: this kernel lets nobody count events: {error}");
                return;
            }
        };
        let begin = std::time::Instant::now();
        while begin.elapsed().as_millis() < 5 {}
        assert!(counter.read().unwrap() > 1e5, "nanoseconds of CPU time");
    }

    #[test]
    fn an_event_that_no_machine_has_is_an_error() {
        assert!(probe(Code { kind: 1, config: 9999 }).is_err());
    }
}
