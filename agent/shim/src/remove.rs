//! Removing a directory tree without ever leaving it: [`remove_tree`].
//!
//! A container's directories may have a mount in them, of the host's own root file system even, and whoever runs
//! in the container may have left links, or directories nested a hundred thousand deep. So nothing here goes by path: each
//! directory is opened from its parent's descriptor by `openat2(2)`, which itself refuses links and mount points
//! (bind mounts of the same file system too), and each entry is unlinked from the descriptor it was listed from.
//! Directories too deep to hold a descriptor for each level are moved up first.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2, renameat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// How many levels are held open at a time. What lies deeper is moved up to the tree's top and removed from there.
const DEEPEST: usize = 32;

/// A tree was not removed, or not wholly.
#[derive(Debug, thiserror::Error)]
pub enum RemoveTreeError {
    /// Not a path that anybody would want removed wholly.
    #[error("{0} is not removed: only absolute paths at least two levels below / are, without '.' and '..'")]
    Path(PathBuf),
    /// A file system is mounted there, in this process' mount namespace.
    #[error("{0} is not removed: it is, or has in it, a mount point; unmount it first")]
    MountPoint(PathBuf),
    /// It is not a directory; a link to one neither.
    #[error("{0} is not removed: it is not a directory")]
    NotADirectory(PathBuf),
    /// A system call failed.
    #[error("{path} cannot be removed: {source}")]
    Io {
        /// The entry that stayed.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Removes a directory and all that is in it, and never anything else. That it does not exist is no error.
///
/// Links are removed, not followed. At a mount point it stops with an error, having removed some of the rest. The path's own
/// parents may be links. Nobody may be putting entries into the tree at the same time.
///
/// # Errors
/// When the path is not absolute or hardly below `/`, at a mount point, and when an entry cannot be removed.
pub fn remove_tree(path: &Path) -> Result<(), RemoveTreeError> {
    remove(path, ResolveFlag::empty())
}

/// As [`remove_tree`], but no parent of the path may be a link either: for what lies below a directory of somebody who could put one there.
///
/// # Errors
/// As there, and when there is a link on the way.
pub fn remove_tree_strictly(path: &Path) -> Result<(), RemoveTreeError> {
    remove(path, ResolveFlag::RESOLVE_NO_SYMLINKS)
}

fn remove(path: &Path, resolve: ResolveFlag) -> Result<(), RemoveTreeError> {
    let (parent, name) = split(path)?;
    let flags = OFlag::O_DIRECTORY | OFlag::O_PATH | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).resolve(resolve);
    let parent = loop {
        match openat2(AT_FDCWD, parent, how) {
            Ok(parent) => break parent,
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(refused(path.to_owned(), errno)),
        }
    };
    let top = match open_child(&parent, &name) {
        Ok(top) => top,
        Err(Errno::ENOENT) => return Ok(()),
        Err(errno) => return Err(refused(path.to_owned(), errno)),
    };
    Removal { path, top: &top, moved: 0 }.empty(&top, &mut Vec::new())?;
    match unlinkat(&parent, name.as_c_str(), UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(refused(path.to_owned(), errno)),
    }
}

fn split(path: &Path) -> Result<(&Path, CString), RemoveTreeError> {
    let wrong = || RemoveTreeError::Path(path.to_owned());
    let mut components = path.components();
    let plain = components.next() == Some(Component::RootDir)
        && components.clone().all(|part| matches!(part, Component::Normal(_)))
        && components.count() >= 2;
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if plain => {
            Ok((parent, CString::new(name.as_bytes()).map_err(|_| wrong())?))
        }
        _ => Err(wrong()),
    }
}

/// Opens a directory to list it, provided that it is one, not a link to one, and nothing is mounted on it.
fn open_child(parent: &impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let within =
        ResolveFlag::RESOLVE_NO_XDEV | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_BENEATH;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    loop {
        match openat2(parent.as_fd(), name, OpenHow::new().flags(flags).resolve(within)) {
            // Something was renamed or mounted elsewhere meanwhile, so that the kernel could not be sure.
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            other => return other,
        }
    }
}

fn refused(path: PathBuf, errno: Errno) -> RemoveTreeError {
    match errno {
        Errno::EXDEV | Errno::EBUSY => RemoveTreeError::MountPoint(path),
        Errno::ENOTDIR | Errno::ELOOP => RemoveTreeError::NotADirectory(path),
        errno => RemoveTreeError::Io { path, source: errno.into() },
    }
}

struct Removal<'a> {
    path: &'a Path,
    top: &'a OwnedFd,
    /// How many directories were moved up so far.
    moved: u64,
}

impl Removal<'_> {
    /// Removes all entries of the directory `at`, whose names from the top are `trail`.
    fn empty(&mut self, at: &OwnedFd, trail: &mut Vec<CString>) -> Result<(), RemoveTreeError> {
        // Until a look finds nothing: entries may have been moved up into the top, and removing while listing may skip some.
        loop {
            let entries = list(at).map_err(|errno| refused(self.named(trail), errno))?;
            if entries.is_empty() {
                return Ok(());
            }
            for (name, is_directory) in entries {
                trail.push(name);
                self.remove(at, is_directory, trail)?;
                trail.pop();
            }
        }
    }

    /// Removes the entry whose names from the top are `trail` from the directory `at`.
    fn remove(
        &mut self,
        at: &OwnedFd,
        is_directory: bool,
        trail: &mut Vec<CString>,
    ) -> Result<(), RemoveTreeError> {
        let Some(name) = trail.last().cloned() else { return Ok(()) };
        if !is_directory {
            match unlinkat(at, name.as_c_str(), UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => return Ok(()),
                // The file system does not tell types when listing.
                Err(Errno::EISDIR) => {}
                Err(errno) => return Err(refused(self.named(trail), errno)),
            }
        }
        if trail.len() > DEEPEST {
            return self.move_up(at, &name).map_err(|errno| refused(self.named(trail), errno));
        }
        let child = open_child(at, &name).map_err(|errno| refused(self.named(trail), errno))?;
        self.empty(&child, trail)?;
        match unlinkat(at, name.as_c_str(), UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(refused(self.named(trail), errno)),
        }
    }

    fn move_up(&mut self, at: &OwnedFd, name: &CStr) -> Result<(), Errno> {
        loop {
            self.moved += 1;
            let new = format!(".removing-{}", self.moved);
            // Rename replaces an empty directory, which is as well, and fails at anything else.
            match renameat(at, name, self.top, new.as_str()) {
                Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR) => {}
                other => return other,
            }
        }
    }

    fn named(&self, trail: &[CString]) -> PathBuf {
        trail.iter().fold(self.path.to_owned(), |path, name| path.join(OsStr::from_bytes(name.to_bytes())))
    }
}

/// The names in a directory, and whether each is known to be a directory.
fn list(at: &OwnedFd) -> Result<Vec<(CString, bool)>, Errno> {
    // A descriptor of its own, since the position in the listing belongs to the open file.
    let within = ResolveFlag::RESOLVE_NO_XDEV | ResolveFlag::RESOLVE_BENEATH;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let again = openat2(at.as_fd(), c".", OpenHow::new().flags(flags).resolve(within))?;
    let mut entries = Vec::new();
    for entry in Dir::from_fd(again)?.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            entries.push((name.to_owned(), entry.file_type() == Some(Type::Directory)));
        }
    }
    Ok(entries)
}

#[cfg(test)]
#[path = "remove_tests.rs"]
mod tests;
