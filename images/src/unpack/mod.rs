//! Turns a layer's blob into a directory that overlayfs can use as a lower layer.
//!
//! A stream goes through a pipeline on one thread: hash of the blob → inflate → hash of the plain tar
//! (the diff id) → [`tar`] → [`tree`], which writes beneath one directory and nowhere else. The caller
//! gets the directory only when both digests and the size are right; until then it is in a staging place.
//!
//! Archives that are no images' go the same way for somebody's files ([`unpack_files`]): of more kinds, and without what
//! only root could give.

pub(crate) mod compression;
mod files;
mod metadata;
pub(crate) mod tar;
mod tree;
mod zip;

use std::io::{self, Read};
use std::path::Path;

use crate::digest::{Digest, Hasher, HashingReader};
use compression::Inflated;
pub use files::{FileLimits, UnpackedFiles, unpack_files};
pub(crate) use metadata::{is_wanted_xattr, tolerate};
use tar::TarReader;
pub(crate) use tree::open_beneath;
use tree::{Purpose, Tree};

/// How much a layer may hold, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnpackLimits {
    /// Members of one layer. Each costs an inode.
    pub max_entries: u64,
    /// Bytes of one layer's plain tar.
    pub max_bytes: u64,
    /// What happens to device nodes.
    pub device_nodes: DeviceNodes,
}

/// What happens to character and block devices in a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceNodes {
    /// They are created, as Docker does.
    Create,
    /// Those below `/dev` are created, over which a container has its own, and those that any container has: null, zero, full, random, urandom and tty. A
    /// layer with another is refused: it would be a way to the host's devices.
    Harmless,
    /// The layer is refused.
    Refuse,
}

/// Why an archive was not unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// A name that goes up, or is none at all.
    #[error(
        "the name '{name}' leads out of the archive or nowhere; names must not be empty, nor have '..' or zero bytes"
    )]
    Outside {
        /// The name.
        name: String,
    },
    /// Something other than a directory in the place of the archive's root.
    #[error("'{name}' is the archive's root, and must be a directory")]
    RootKind {
        /// The name, such as `/` or `./`.
        name: String,
    },
    /// A name with a symbolic link, or a file, in the place of a directory.
    #[error(
        "the name '{name}' leads through a symbolic link or a file; all its parents must be directories of the archive"
    )]
    NotThroughDirectories {
        /// The name.
        name: String,
    },
    /// A hard link to nothing.
    #[error("the hard link '{name}' has the target '{target}', which is no earlier file of the archive")]
    LinkTarget {
        /// The link's name.
        name: String,
        /// What it should link to.
        target: String,
    },
    /// A whiteout that names nothing.
    #[error("'{name}' is no whiteout: a name must follow '.wh.'")]
    Whiteout {
        /// The name.
        name: String,
    },
    /// A device node, where they are refused.
    #[error(
        "'{name}' is a device node that a container could reach the host by: an image may have those below /dev, and null, zero, full, random, urandom and tty"
    )]
    Device {
        /// Its name.
        name: String,
    },
    /// A device node where no image is unpacked.
    #[error("'{name}' is a device node, which is for images only")]
    NoDevices {
        /// Its name.
        name: String,
    },
    /// A member with the name of something that must stay.
    #[error("'{name}' may not be replaced")]
    Reserved {
        /// Its name.
        name: String,
    },
    /// Whoever wanted it wants it no more.
    #[error("it was given up")]
    GivenUp,
    /// Not a zip archive, or one with features that are not supported.
    #[error("it is no valid zip archive: {reason}")]
    Zip {
        /// What is wrong.
        reason: String,
    },
    /// Too many members.
    #[error("it has more than {limit} members")]
    TooManyEntries {
        /// The limit.
        limit: u64,
    },
    /// Too much content.
    #[error("it has more than {limit} bytes unpacked")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// Not a tar archive, or one with features that layers do not have.
    #[error("it is no valid tar archive: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// The content is not what the manifest or config said.
    #[error("it has the {kind} {actual} where {expected} was promised: it is damaged or forged")]
    Digest {
        /// `digest` or `diff id`.
        kind: &'static str,
        /// As promised.
        expected: Digest,
        /// As computed.
        actual: Digest,
    },
    /// The blob is longer or shorter than promised.
    #[error("its blob has {actual} bytes where {expected} were promised")]
    Size {
        /// As promised.
        expected: u64,
        /// As found.
        actual: u64,
    },
    /// Reading or inflating failed.
    #[error("reading it failed: {0}")]
    Stream(#[source] io::Error),
    /// The file system refused.
    #[error("cannot {action} '{name}': {source}")]
    Write {
        /// What was to be done.
        action: &'static str,
        /// The member.
        name: String,
        /// Why it failed.
        source: io::Error,
    },
}

/// What is known of a layer before it is read.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    /// The digest of the plain tar.
    pub(crate) diff_id: Digest,
    /// Digest and size of the blob, where a manifest promises them.
    pub(crate) blob: Option<(Digest, u64)>,
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unpacked {
    pub(crate) entries: u64,
    /// Bytes of the plain tar.
    pub(crate) bytes: u64,
}

// === impl UnpackLimits ===

impl Default for UnpackLimits {
    /// Far above any honest layer: 2,000,000 members, 64 GiB; and no way to the host's devices.
    fn default() -> Self {
        Self { max_entries: 2_000_000, max_bytes: 64 << 30, device_nodes: DeviceNodes::Harmless }
    }
}

/// Unpacks `blob` into the empty directory `root` and checks it against `expected`.
///
/// On an error `root` holds part of the layer, and must be thrown away.
pub(crate) fn unpack_layer(
    blob: impl Read,
    root: &Path,
    expected: &Expected,
    limits: &UnpackLimits,
) -> Result<Unpacked, UnpackError> {
    let blob_hasher = expected.blob.as_ref().map_or_else(Hasher::sha256, |(digest, _)| digest.hasher());
    let inflated = Inflated::new(HashingReader::new(blob, blob_hasher)).map_err(UnpackError::Stream)?;
    let plain =
        HashingReader::new(Limited { inner: inflated, left: limits.max_bytes }, expected.diff_id.hasher());
    let mut tree = Tree::open(root, Purpose::Layer(limits.device_nodes))?;
    let max = (limits.max_entries, limits.max_bytes);
    let (entries, mut plain) = write_entries(TarReader::new(plain), &mut tree, max)
        .map_err(|error| limit_error(error, limits.max_bytes))?;
    tree.finish()?;

    // What follows the archive's end belongs to the diff id, and what follows the last compressed frame to the blob's digest.
    let drained = io::copy(&mut plain, &mut io::sink());
    drained.map_err(|error| limit_error(UnpackError::Stream(error), limits.max_bytes))?;
    let (Limited { inner: inflated, .. }, diff_id, bytes) = plain.into_parts();
    let mut blob = inflated.into_inner();
    io::copy(&mut blob, &mut io::sink()).map_err(UnpackError::Stream)?;

    let (blob_digest, blob_size) = blob.finish();
    check_blob(expected, blob_digest, blob_size)?;
    if diff_id != expected.diff_id {
        return Err(UnpackError::Digest {
            kind: "diff id",
            expected: expected.diff_id.clone(),
            actual: diff_id,
        });
    }
    Ok(Unpacked { entries, bytes })
}

/// Makes all members, up to so many and so many bytes each. Gives their number and the stream below.
fn write_entries<R: Read>(
    mut archive: TarReader<R>,
    tree: &mut Tree,
    (max_entries, max_bytes): (u64, u64),
) -> Result<(u64, R), UnpackError> {
    let mut entries = 0;
    while let Some(entry) = archive.next_entry()? {
        entries += 1;
        if entries > max_entries {
            return Err(UnpackError::TooManyEntries { limit: max_entries });
        }
        if matches!(entry.kind, tar::Kind::File { size } if size > max_bytes) {
            return Err(UnpackError::TooLarge { limit: max_bytes });
        }
        tree.add(&entry, &mut archive)?;
    }
    Ok((entries, archive.into_inner()))
}

fn check_blob(expected: &Expected, digest: Digest, size: u64) -> Result<(), UnpackError> {
    let Some((expected_digest, expected_size)) = &expected.blob else { return Ok(()) };
    if size != *expected_size {
        return Err(UnpackError::Size { expected: *expected_size, actual: size });
    }
    if digest != *expected_digest {
        return Err(UnpackError::Digest {
            kind: "digest",
            expected: expected_digest.clone(),
            actual: digest,
        });
    }
    Ok(())
}

/// Ends a stream with an error when it holds more than allowed.
struct Limited<R> {
    inner: R,
    left: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("the limit of bytes is reached")]
struct LimitReached;

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| io::Error::other(LimitReached))?;
        Ok(read)
    }
}

/// Gives the error that [`Limited`] makes its proper name.
fn limit_error(error: UnpackError, limit: u64) -> UnpackError {
    match error {
        UnpackError::Stream(source) if source.get_ref().is_some_and(|inner| inner.is::<LimitReached>()) => {
            UnpackError::TooLarge { limit }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests;
