//! Zip archives, for [`super::files`]: their members are made as those of a tar archive.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use ::zip::read::ZipFile;
use ::zip::result::ZipError;
use ::zip::{ExtraField, ZipArchive};

use super::files::{FileLimits, Stoppable};
use super::tar::{Entry, Kind, Time};
use super::tree::{Tree, lossy};
use super::{Limited, UnpackError};

/// The longest list of members that is read, in bytes: it is kept in memory, at some times its length.
const LONGEST_LIST: u64 = 32 << 20;
/// The longest target that a symbolic link can have (`PATH_MAX`).
const LONGEST_TARGET: u64 = 4096;

// Of a file's mode, from `inode(7)`.
const KIND: u32 = 0o170_000;
const FILE: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const LINK: u32 = 0o120_000;

/// Whether an archive that begins so is a zip: with a member, or with the end of an empty one.
pub(super) fn is_zip(start: &[u8]) -> bool {
    start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06")
}

/// Makes all members; gives their number.
pub(super) fn write_entries(
    archive: File,
    tree: &mut Tree,
    limits: &FileLimits,
    stop: &dyn Fn() -> bool,
) -> Result<u64, UnpackError> {
    let room = Rc::new(Cell::new(Some(LONGEST_LIST)));
    let archive = Counted { inner: io::BufReader::new(archive), room: Rc::clone(&room) };
    let mut archive = match ZipArchive::new(archive) {
        Err(_) if room.get() == Some(0) => {
            let reason =
                format!("its list of members is not at its end, or longer than {} MiB", LONGEST_LIST >> 20);
            return Err(UnpackError::Zip { reason });
        }
        opened => opened.map_err(wrong)?,
    };
    // What the members hold has limits of its own.
    room.set(None);
    let members = archive.len() as u64;
    if members > limits.max_entries {
        return Err(UnpackError::TooManyEntries { limit: limits.max_entries });
    }
    let mut left = limits.max_bytes;
    for index in 0..archive.len() {
        if stop() {
            return Err(UnpackError::GivenUp);
        }
        let mut member = archive.by_index(index).map_err(wrong)?;
        let entry = entry(&mut member)?;
        let size = match entry.kind {
            Kind::File { size } => size,
            _ => 0,
        };
        if size > left {
            return Err(UnpackError::TooLarge { limit: limits.max_bytes });
        }
        let content = Stoppable { inner: Whole(&mut member), stop };
        let mut content = Limited { inner: content, left };
        tree.add(&entry, &mut content)?;
        left = content.left;
        if matches!(entry.kind, Kind::File { .. }) {
            check_end(&mut member, &entry)?;
        }
    }
    Ok(members)
}

fn entry(member: &mut ZipFile<'_, impl Read>) -> Result<Entry, UnpackError> {
    let path = member.name_raw().to_vec();
    let mode = member.unix_mode().unwrap_or(0);
    let (kind, default) = match mode & KIND {
        LINK => (Kind::Symlink { target: target(member)? }, 0o777),
        DIRECTORY => (Kind::Directory, 0o755),
        0 if path.ends_with(b"/") => (Kind::Directory, 0o755),
        0 | FILE => (Kind::File { size: member.size() }, 0o644),
        _ => return Err(UnpackError::NoDevices { name: lossy(&path) }),
    };
    // An archive from a system without modes has none.
    let mode = if mode & 0o777 == 0 { default } else { mode };
    Ok(Entry { kind, mode, uid: 0, gid: 0, modified: modified(member), xattrs: Vec::new(), path })
}

/// A link's content is where it leads.
fn target(member: &mut ZipFile<'_, impl Read>) -> Result<Vec<u8>, UnpackError> {
    let mut target = Vec::new();
    member.take(LONGEST_TARGET + 1).read_to_end(&mut target).map_err(UnpackError::Stream)?;
    if target.len() as u64 > LONGEST_TARGET {
        return Err(UnpackError::Zip { reason: "a symbolic link's target is too long".to_owned() });
    }
    Ok(target)
}

/// When it was changed, if the archive says so in a way that needs no time zone; else now.
fn modified(member: &ZipFile<'_, impl Read>) -> Time {
    let told = member.extra_data_fields().find_map(|field| match field {
        ExtraField::ExtendedTimestamp(times) => times.mod_time(),
        _ => None,
    });
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let seconds = told.map_or_else(now, u64::from);
    Time { seconds: seconds.try_into().unwrap_or(0), nanos: 0 }
}

/// Reads to the end, where the checksum is checked.
fn check_end(member: &mut impl Read, entry: &Entry) -> Result<(), UnpackError> {
    match member.read(&mut [0]).map_err(UnpackError::Stream)? {
        0 => Ok(()),
        _ => Err(UnpackError::Zip { reason: format!("'{}' is longer than it says", lossy(&entry.path)) }),
    }
}

fn wrong(error: ZipError) -> UnpackError {
    match error {
        ZipError::Io(error) => UnpackError::Stream(error),
        other => UnpackError::Zip { reason: other.to_string() },
    }
}

/// An archive of which no more is read than there is room for, while there is a limit.
struct Counted<R> {
    inner: R,
    room: Rc<Cell<Option<u64>>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(room) = self.room.get() else { return self.inner.read(buffer) };
        if room == 0 && !buffer.is_empty() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let most = usize::try_from(room).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.inner.read(&mut buffer[..most])?;
        self.room.set(Some(room - read as u64));
        Ok(read)
    }
}

impl<R: Seek> Seek for Counted<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

/// A member's content, whose end is an error: a member that says how long it is has to be that long.
struct Whole<R>(R);

impl<R: Read> Read for Whole<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 if !buffer.is_empty() => {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a member is shorter than it says"))
            }
            read => Ok(read),
        }
    }
}
