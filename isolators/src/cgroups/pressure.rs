//! Pressure stall information: how long a container's processes waited for a resource while they could have run.
//!
//! The kernel keeps it for each v2 cgroup, whichever controllers are enabled there: on a hybrid host too, so long as containers have a cgroup
//! in the v2 tree. v1 has nothing like it. Rules: the kernel's `accounting/psi.rst`, `admin-guide/cgroup-v2.rst` (`cpu.pressure`).

use std::io;
use std::path::Path;

use super::{CgroupError, Cgroups, Version, files, relative};
use crate::isolator::ContainerId;

/// What a container lacked. A resource that the kernel gives no figures for is absent.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Pressure {
    /// Time on a CPU.
    pub cpu: Option<Stall>,
    /// Block devices.
    pub io: Option<Stall>,
    /// Memory.
    pub memory: Option<Stall>,
}

/// How much of the time was lost for one resource.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stall {
    /// At least one process waited.
    pub some: Share,
    /// All that could have run waited. Absent for CPUs on kernels before 5.13.
    pub full: Option<Share>,
}

/// A share of the time, lately and in all.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// Percent of the last 10 s.
    pub avg10: f64,
    /// Percent of the last 60 s.
    pub avg60: f64,
    /// Percent of the last 300 s.
    pub avg300: f64,
    /// Microseconds since the cgroup was made.
    pub total_micros: u64,
}

impl Cgroups {
    /// What the container, with those nested in it, had to wait for. `None` where containers have no v2 cgroup, or the kernel keeps
    /// no such figures (built without them, or booted with `psi=0`).
    ///
    /// # Errors
    /// When the id is no name for a directory, or a file cannot be read.
    pub fn pressure(&self, id: &ContainerId) -> Result<Option<Pressure>, CgroupError> {
        let Some(tree) = self.used.iter().find(|tree| tree.version == Version::V2) else { return Ok(None) };
        let dir = tree.dir.join(relative(id)?);
        let pressure = Pressure {
            cpu: read(&dir.join("cpu.pressure"))?,
            io: read(&dir.join("io.pressure"))?,
            memory: read(&dir.join("memory.pressure"))?,
        };
        Ok(Some(pressure).filter(|pressure| *pressure != Pressure::default()))
    }
}

fn read(file: &Path) -> Result<Option<Stall>, CgroupError> {
    match files::read_if_there(file) {
        Ok(text) => Ok(text.as_deref().and_then(Stall::parse)),
        Err(CgroupError::Io { source, .. }) if is_off(&source) => Ok(None),
        Err(error) => Err(error),
    }
}

/// As the kernel answers when it was booted with `psi=0`.
fn is_off(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EOPNOTSUPP)
}

// === impl Stall ===

impl Stall {
    /// Reads the text of such a file.
    fn parse(text: &str) -> Option<Self> {
        let line = |kind: &str| text.lines().find_map(|line| line.strip_prefix(kind));
        Some(Stall { some: Share::parse(line("some ")?)?, full: line("full ").and_then(Share::parse) })
    }
}

// === impl Share ===

impl Share {
    /// `avg10=0.00 avg60=0.00 avg300=0.00 total=0`
    fn parse(line: &str) -> Option<Self> {
        let value =
            |key: &str| line.split_whitespace().find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        Some(Share {
            avg10: value("avg10")?.parse().ok()?,
            avg60: value("avg60")?.parse().ok()?,
            avg300: value("avg300")?.parse().ok()?,
            total_micros: value("total")?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lines_are_read() {
        let text = "some avg10=1.50 avg60=0.25 avg300=0.00 total=123456\nfull avg10=0.10 avg60=0.00 avg300=0.00 total=7\n";
        let stall = Stall::parse(text).unwrap();
        assert_eq!(stall.some, Share { avg10: 1.5, avg60: 0.25, avg300: 0.0, total_micros: 123_456 });
        assert_eq!(stall.full.unwrap().total_micros, 7);
    }

    #[test]
    fn an_older_kernel_has_no_full_for_cpus() {
        let stall = Stall::parse("some avg10=0.00 avg60=0.00 avg300=0.00 total=5\n").unwrap();
        assert_eq!((stall.some.total_micros, stall.full), (5, None));
    }

    #[test]
    fn what_is_not_understood_is_absent() {
        for text in [
            "",
            "some\n",
            "some avg10=x avg60=0 avg300=0 total=0\n",
            "full avg10=0 avg60=0 avg300=0 total=0\n",
        ] {
            assert_eq!(Stall::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(&dir.path().join("cpu.pressure")).unwrap(), None);
    }
}
