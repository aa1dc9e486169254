//! The store's JSON files.
//!
//! Each is written whole to a staging place, synced and renamed, so a reader sees an old or a new one and never part of one.

use std::fs::{DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::error::Error;

/// A name for an image: `references/<digest of the name>.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ReferenceRecord {
    pub(super) name: String,
    pub(super) image: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) manifest: Option<Digest>,
    /// For an archive, what it looked like; another look means another content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) stamp: Option<Stamp>,
}

/// An image: `images/<id>.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ImageRecord {
    pub(super) id: Digest,
    /// Lowest first.
    pub(super) diff_ids: Vec<Digest>,
    pub(super) config: ImageConfig,
}

/// A layer: `layers/<diff id>/layer.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LayerRecord {
    pub(super) diff_id: Digest,
    /// Members of its tar.
    pub(super) entries: u64,
    /// Bytes of its plain tar.
    pub(super) bytes: u64,
    /// The boot of the machine during which it was unpacked.
    pub(super) boot: String,
}

/// How a file looks from outside: enough to see that it was replaced or rewritten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    pub(super) bytes: u64,
    pub(super) modified_seconds: i64,
    pub(super) modified_nanos: i64,
    pub(super) inode: u64,
}

/// Reads a record; `None` when there is none, or none that can be understood (then it is written again).
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let bytes = std::fs::read(path).ok()?;
    match serde_json::from_slice(&bytes) {
        Ok(record) => Some(record),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "A record of the image store is not readable and will be made anew.");
            None
        }
    }
}

/// Writes a record durably: when this returns, it is there after a power failure too.
pub(super) fn write(record: &impl Serialize, staging: &Path, path: &Path) -> Result<(), Error> {
    let write = || -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(staging)?;
        serde_json::to_writer(&mut file, record)?;
        file.flush()?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        match path.parent() {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(Error::io("write", path))
}

/// Writes a record whole, but not durably.
pub(super) fn write_unsynced(record: &impl Serialize, staging: &Path, path: &Path) -> Result<(), Error> {
    let write = || -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(staging)?;
        serde_json::to_writer(&mut file, record)?;
        file.flush()?;
        file.persist(path).map(drop).map_err(|error| error.error)
    };
    write().map_err(Error::io("write", path))
}

/// Creates a directory that only its owner can enter: layers hold setuid programs.
pub(super) fn create_private(path: &Path) -> Result<(), Error> {
    DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(path)
        .map_err(Error::io("create the directory", path))
}
