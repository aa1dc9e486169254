//! Unpacks an archive of any kind for the user as whom the thread acts, into a directory that has things in it already.
//!
//! | first bytes | |
//! | --- | --- |
//! | `PK` | zip |
//! | of gzip, bzip2, xz or zstd | tar, after inflating |
//! | others | tar |
//!
//! Members belong to that user, without setuid bits and extended attributes. Devices, names that lead out, and names through links are
//! refused. A symbolic link is made as it is, wherever it leads: only what comes after it in the archive could be harmed by that.

use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::path::Path;

use super::compression::Inflated;
use super::tar::TarReader;
use super::tree::{Purpose, Tree};
use super::{Limited, UnpackError, limit_error, write_entries, zip};

/// How much an archive may hold, and what nobody may replace.
#[derive(Debug, Clone)]
pub struct FileLimits {
    /// Members. Each costs an inode.
    pub max_entries: u64,
    /// Bytes, unpacked.
    pub max_bytes: u64,
    /// Names beneath the directory that no member may have.
    pub reserved: &'static [&'static str],
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnpackedFiles {
    /// Members.
    pub entries: u64,
}

impl Default for FileLimits {
    /// 1,000,000 members and 64 GiB, far above any honest archive.
    fn default() -> Self {
        Self { max_entries: 1_000_000, max_bytes: 64 << 30, reserved: &[] }
    }
}

/// Unpacks an archive into a directory. Ends soon once `stop` says so. Blocks on the disk.
///
/// # Errors
/// When it is no archive, or one that would lead out of the directory, or holds too much, or when the disk refuses. What was unpacked before
/// stays.
pub fn unpack_files(
    mut archive: File,
    directory: &Path,
    limits: &FileLimits,
    stop: &dyn Fn() -> bool,
) -> Result<UnpackedFiles, UnpackError> {
    let mut start = Vec::with_capacity(4);
    archive.by_ref().take(4).read_to_end(&mut start).map_err(UnpackError::Stream)?;
    archive.rewind().map_err(UnpackError::Stream)?;
    let mut tree = Tree::open(directory, Purpose::Files { reserved: limits.reserved })?;
    let entries = if zip::is_zip(&start) {
        zip::write_entries(archive, &mut tree, limits, stop)
    } else {
        write_tar(archive, &mut tree, limits, stop)
    };
    let entries = entries.map_err(|error| given_up(limit_error(error, limits.max_bytes)))?;
    tree.finish()?;
    Ok(UnpackedFiles { entries })
}

fn write_tar(
    archive: File,
    tree: &mut Tree,
    limits: &FileLimits,
    stop: &dyn Fn() -> bool,
) -> Result<u64, UnpackError> {
    let inflated = Inflated::of_any_kind(archive).map_err(UnpackError::Stream)?;
    let plain = Limited { inner: Stoppable { inner: inflated, stop }, left: limits.max_bytes };
    let max = (limits.max_entries, limits.max_bytes);
    let (entries, mut plain) = write_entries(TarReader::new(plain), tree, max)?;
    // A checksum may follow the archive's end.
    io::copy(&mut plain, &mut io::sink()).map_err(UnpackError::Stream)?;
    Ok(entries)
}

/// A stream that fails once somebody says so.
pub(super) struct Stoppable<'a, R> {
    pub(super) inner: R,
    pub(super) stop: &'a dyn Fn() -> bool,
}

#[derive(Debug, thiserror::Error)]
#[error("it was given up")]
struct Stopped;

impl<R: Read> Read for Stoppable<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match (self.stop)() {
            true => Err(io::Error::other(Stopped)),
            false => self.inner.read(buffer),
        }
    }
}

fn given_up(error: UnpackError) -> UnpackError {
    match error {
        UnpackError::Stream(source) if source.get_ref().is_some_and(|inner| inner.is::<Stopped>()) => {
            UnpackError::GivenUp
        }
        other => other,
    }
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
