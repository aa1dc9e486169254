//! How a container ended: the [`ExitRecord`], stored as `exit.json` before anybody is told.
//!
//! The file appears by rename, so that a reader sees all of it or none. It is not synced: it must survive the death of
//! processes, whereas no container survives the death of the machine.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};

use crate::plan::files;

/// How a container ended, and what it used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// How it ended.
    pub outcome: Outcome,
    /// What its processes used, as far as they were waited for.
    #[serde(default)]
    pub usage: Usage,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The program ended.
    Exited {
        /// The status as `wait(2)` encodes it.
        status: i32,
    },
    /// The program was never started.
    Failed {
        /// Which step failed, e.g. `rootfs`.
        stage: String,
        /// Why.
        message: String,
    },
}

/// Resources used by a container's processes, from `wait4(2)`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Time on a processor in user mode, in microseconds.
    pub user_us: i64,
    /// Time on a processor in the kernel, in microseconds.
    pub system_us: i64,
    /// The largest resident set of any one process, in kibibytes.
    pub max_rss_kib: i64,
}

impl ExitRecord {
    /// Stores the record in the directory that `dir` is open on.
    pub(crate) fn save(&self, dir: &File) -> io::Result<()> {
        const NEW: &str = "exit.json.new";
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(dir, NEW, flags, Mode::from_bits_truncate(0o600))?);
        file.write_all(&serde_json::to_vec(self)?)?;
        renameat(dir, NEW, dir, files::EXIT)?;
        Ok(())
    }

    /// Reads the record of a container from its runtime directory; `None` if it has not ended by its shim's knowledge.
    pub fn load(dir: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(dir.join(files::EXIT)) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_absent_until_it_is_saved() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(ExitRecord::load(dir.path()).unwrap(), None);
        let record = ExitRecord {
            outcome: Outcome::Exited { status: 9 },
            usage: Usage { user_us: 1, system_us: 2, max_rss_kib: 3 },
        };
        record.save(&File::open(dir.path()).unwrap()).unwrap();
        assert_eq!(ExitRecord::load(dir.path()).unwrap(), Some(record));
    }
}
