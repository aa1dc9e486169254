//! Moving a directory with all that is in it to a project.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};

use super::quota::{ProjectId, set_project};
use crate::builtin::walk::{Visit, kind, walk};

/// Moves a directory, and the directories and plain files in it, to a project. Other files cannot be moved: the kernel wants them
/// opened.
///
/// # Errors
/// When one cannot be opened or moved.
pub fn label(top: &Path, project: ProjectId) -> io::Result<()> {
    walk(top, &HashSet::new(), &mut Label(project))
}

struct Label(ProjectId);

impl Visit for Label {
    fn directory(&mut self, dir: &OwnedFd, _: &FileStat) -> io::Result<()> {
        set_project(dir, self.0, true)
    }

    fn file(&mut self, dir: &OwnedFd, name: &OsStr, stat: &FileStat) -> io::Result<()> {
        if kind(stat) != SFlag::S_IFREG {
            return Ok(());
        }
        // What it is by now may wait for another end, or be a terminal.
        let flags =
            OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let file = match openat(dir, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::ENOENT | Errno::ELOOP | Errno::ENXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let now = fstat(&file)?;
        match kind(&now) == SFlag::S_IFREG && now.st_dev == stat.st_dev {
            true => set_project(&file, self.0, false),
            false => Ok(()),
        }
    }
}
