//! What must survive the agent: one `redb` file, `<work_dir>/meta/agent.redb`.
//!
//! [`Store::open`] reads it whole into a [`StoredState`], for the core to recover from. After that the file is only
//! written: the core's writes come in groups, each with a ticket; a thread of its own takes all groups that
//! have come in while it was busy, commits them in one transaction, and confirms the last ticket when
//! the disk has them ([`writer`]). How records look on disk is said in [`records`], which table they are in, in
//! [`tables`]; how a file of an earlier version is taken over in [`upgrade`], and what is done about damage in [`read`].
//!
//! A commit that fails, as on a full disk, is tried again until it succeeds: nothing is confirmed meanwhile, so
//! nothing is sent that could be lost.

mod read;
mod records;
mod redact;
mod tables;
mod upgrade;
mod writer;

pub(crate) use redact::redact;

use std::path::{Path, PathBuf};

use redb::Database;

use crate::core::{StoredState, Ticket, Write};
use writer::Writer;

/// The agent's state on disk.
#[derive(Debug)]
pub struct Store {
    writer: Writer,
}

/// Why the state cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory cannot be made.
    #[error("cannot make the directory {path}: {source}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another agent has it open.
    #[error("{0} is in use: another agent runs with this work directory")]
    InUse(PathBuf),
    /// `redb` cannot open or read it.
    #[error("cannot read the agent's state in {path}: {source}")]
    Database {
        /// The file.
        path: PathBuf,
        /// Why.
        source: redb::Error,
    },
    /// It was written by a later version.
    #[error(
        "{path} has format {found}, but this version of tepui knows formats up to {known}: start the version that wrote it, or use another work directory"
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The latest that is known here.
        known: u32,
    },
    /// A record in it is not what it should be.
    #[error(
        "{path} is damaged: {what} cannot be read: {why}. Start with --strict=false to go on without it, or remove the file to have the agent register as a new one"
    )]
    Record {
        /// The file.
        path: PathBuf,
        /// Which record.
        what: String,
        /// Why.
        why: String,
    },
    /// All of it is unreadable, and could not be put aside.
    #[error("cannot put the unreadable state {path} aside: {source}")]
    Aside {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

// === impl Store ===

impl Store {
    /// Opens the state in a work directory, making it if there is none. From then on each confirmed
    /// ticket is told to `confirm`, on the store's thread. Unless `strict`, what cannot be read is left out.
    ///
    /// # Errors
    /// When the file cannot be opened, is in use, damaged, or of a later version.
    pub fn open(
        work_dir: &Path,
        strict: bool,
        confirm: impl Fn(Ticket) + Send + 'static,
    ) -> Result<(Self, StoredState), StoreError> {
        let directory = work_dir.join("meta");
        std::fs::create_dir_all(&directory)
            .map_err(|source| StoreError::Directory { path: directory.clone(), source })?;
        let path = directory.join("agent.redb");
        let read = |path| {
            let database = tables::open(path)?;
            let state = read::read(path, &database, strict)?;
            Ok((database, state))
        };
        let (database, state) = match read(&path) {
            Err(StoreError::Database { source, .. }) if !strict && is_damage(&source) => {
                put_aside(&path, &source)?;
                let (database, state) = read(&path)?;
                (database, StoredState { errors: 1, ..state })
            }
            opened => opened?,
        };
        Ok((Self { writer: Writer::start(path, database, confirm) }, state))
    }

    /// Hands over a group of writes. Groups are committed in the order they come.
    pub fn submit(&self, ticket: Ticket, writes: Vec<Write>) {
        self.writer.submit(ticket, writes);
    }
}

fn database_error(path: &Path, source: impl Into<redb::Error>) -> StoreError {
    StoreError::Database { path: path.to_owned(), source: source.into() }
}

fn open_database(path: &Path) -> Result<Database, redb::DatabaseError> {
    Database::builder().set_cache_size(CACHE).create(path)
}

/// Whether the file as a whole is not what it should be.
fn is_damage(error: &redb::Error) -> bool {
    match error {
        redb::Error::Corrupted(_) => true,
        redb::Error::Io(error) => error.kind() == std::io::ErrorKind::InvalidData,
        _ => false,
    }
}

/// Makes room for a new file.
fn put_aside(path: &Path, error: &redb::Error) -> Result<(), StoreError> {
    let aside = path.with_extension("redb.damaged");
    tracing::error!(path = %path.display(), aside = %aside.display(), %error,
        "the agent's state cannot be read at all: putting it aside and registering as a new agent");
    std::fs::rename(path, &aside).map_err(|source| StoreError::Aside { path: path.to_owned(), source })
}

/// Bytes of the file kept in memory. The state of thousands of tasks fits.
const CACHE: usize = 8 << 20;

#[cfg(test)]
mod tests;
