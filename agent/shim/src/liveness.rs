//! Whether a shim is alive: a lock that lives exactly as long as it does.
//!
//! The agent opens and locks `alive` in the container's runtime directory and sends the open file along with the request
//! for a shim. `flock(2)` belongs to the open file, not to a process: it is held while the request waits in the zygote's
//! queue, by the shim through its whole life, and by nobody afterwards, however it ended. Process ids are reused; this is not.

use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::plan::files;

/// The lock of one shim's life, held.
#[derive(Debug)]
pub struct Liveness(File);

/// The lock cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum LivenessError {
    /// A shim looks after this container already.
    #[error("{0} is locked: a shim looks after this container already")]
    Held(PathBuf),
    /// The file cannot be opened or locked.
    #[error("{path} cannot be locked: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Liveness {
    /// Takes the lock of the container with this runtime directory.
    pub fn take(dir: &Path) -> Result<Self, LivenessError> {
        let path = dir.join(files::ALIVE);
        let open = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = open.map_err(|source| LivenessError::Io { path: path.clone(), source })?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(std::fs::TryLockError::WouldBlock) => Err(LivenessError::Held(path)),
            Err(std::fs::TryLockError::Error(source)) => Err(LivenessError::Io { path, source }),
        }
    }

    /// Whether a shim looks after the container, or is about to.
    pub fn is_held(dir: &Path) -> Result<bool, LivenessError> {
        match Self::take(dir) {
            Ok(_) => Ok(false),
            Err(LivenessError::Held(_)) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

/// The name of a shim's process. Its children have others.
pub(crate) const SHIM: &CStr = c"tepui-shim";

/// The processes, other than this one, that hold the lock's file open: the shim, or what its death in the middle of a launch left.
///
/// Looks through `/proc`, so only for when nothing else helps.
///
/// # Errors
/// When `/proc` or the file cannot be read.
pub fn holders(dir: &Path) -> io::Result<Vec<i32>> {
    let file = std::fs::metadata(dir.join(files::ALIVE))?;
    let is_it = |path: PathBuf| {
        std::fs::metadata(path).is_ok_and(|open| (open.dev(), open.ino()) == (file.dev(), file.ino()))
    };
    let mut found = Vec::new();
    for process in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // It may have ended meanwhile.
        let Ok(mut open) = std::fs::read_dir(process.path().join("fd")) else { continue };
        if pid != std::process::id().cast_signed()
            && open.any(|entry| entry.is_ok_and(|entry| is_it(entry.path())))
        {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Whether the shim itself is among the holders. What it forked in the middle of a launch can outlive it, with its lock and
/// its connections, and wait for ever for a word of it.
///
/// Looks through `/proc`, so only for when a launch takes strangely long.
///
/// # Errors
/// When `/proc` or the file cannot be read.
pub fn shim_lives(dir: &Path) -> io::Result<bool> {
    let named = |pid: &i32| {
        std::fs::read(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_ascii_end() == SHIM.to_bytes())
    };
    Ok(holders(dir)?.iter().any(named))
}

impl AsFd for Liveness {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_until_dropped() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!Liveness::is_held(dir.path()).unwrap());
        let lock = Liveness::take(dir.path()).unwrap();
        assert!(Liveness::is_held(dir.path()).unwrap());
        assert!(matches!(Liveness::take(dir.path()), Err(LivenessError::Held(_))));
        drop(lock);
        assert!(!Liveness::is_held(dir.path()).unwrap());
    }
}
