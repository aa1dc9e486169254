//! Owners, modes, times and extended attributes of a layer's members.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;

use nix::errno::Errno;
use nix::sys::stat::{Mode, fchmod};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown};
use xattr::FileExt as _;

use super::UnpackError;
use super::tar::{Entry, Time};
use super::tree::{Purpose, failed, lossy};

/// Owner, mode and attributes of something open, in the order in which none undoes another: a change of owner
/// clears setuid bits and capabilities.
pub(super) fn set_open_metadata(fd: &OwnedFd, entry: &Entry, purpose: Purpose) -> Result<(), UnpackError> {
    if purpose.keeps_owners() {
        fchown(fd, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
            .map_err(failed("set the owner of", &entry.path))?;
    }
    fchmod(fd, mode_of(entry)).map_err(failed("set the mode of", &entry.path))?;
    if entry.xattrs.is_empty() {
        return Ok(());
    }
    let failed =
        |source| UnpackError::Write { action: "set an attribute of", name: lossy(&entry.path), source };
    let file = File::from(fd.try_clone().map_err(failed)?);
    for (name, value) in wanted_xattrs(entry) {
        file.set_xattr(OsStr::from_bytes(name), value).or_else(tolerate(name)).map_err(failed)?;
    }
    Ok(())
}

/// All but those by which an image could direct overlayfs itself, and by which the store marks directories for it.
pub(crate) fn is_wanted_xattr(name: &[u8]) -> bool {
    !name.starts_with(b"trusted.overlay.") && !name.starts_with(b"user.overlay.")
}

pub(super) fn wanted_xattrs(entry: &Entry) -> impl Iterator<Item = (&[u8], &[u8])> {
    entry
        .xattrs
        .iter()
        .filter(|(name, _)| is_wanted_xattr(name))
        .map(|(name, value)| (name.as_slice(), value.as_slice()))
}

/// A file system or kernel without some kind of attribute is no reason to refuse an image; nor is it Docker's.
/// User attributes are for files and directories only, and refused elsewhere.
pub(crate) fn tolerate(name: &[u8]) -> impl FnOnce(io::Error) -> io::Result<()> {
    let is_user = name.starts_with(b"user.");
    move |error| match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EOPNOTSUPP) => Ok(()),
        Some(Errno::EPERM) if is_user => Ok(()),
        _ => Err(error),
    }
}

pub(super) fn set_opaque(directory: &OwnedFd, path: &[u8]) -> Result<(), UnpackError> {
    let failed = |source| UnpackError::Write { action: "make opaque", name: lossy(path), source };
    File::from(directory.try_clone().map_err(failed)?)
        .set_xattr("trusted.overlay.opaque", b"y")
        .map_err(failed)
}

pub(super) fn mode_of(entry: &Entry) -> Mode {
    Mode::from_bits_truncate(entry.mode)
}

pub(super) fn time_spec(time: Time) -> TimeSpec {
    TimeSpec::new(time.seconds, i64::from(time.nanos))
}
