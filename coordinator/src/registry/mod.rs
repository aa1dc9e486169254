//! What must survive the coordinator: which agents are admitted and which have fallen silent.
//!
//! The core asks for changes one by one ([`RegistryChange`]); the registry's own thread
//! ([`crate::shell`]) takes all that wait, has a [`Registry`] write them in one go, and only then tells
//! the core that they are safe. At start, [`Registry::recover`] gives back what was written.
//!
//! A store knows nothing of agents: `entries` turns each change into writes of named entries in a few
//! tables ([`Table`]), and what is in the tables back into [`Recovered`]. What the core wants to survive
//! beyond agents takes a table and an arm there, and nothing in a store.
//!
//! [`FileRegistry`] keeps it in a file for a single coordinator, [`ZooKeeperRegistry`] in ZooKeeper for
//! several of which one leads; [`MemoryRegistry`] forgets it.

mod entries;
mod file;
mod memory;
mod zookeeper;

use std::path::PathBuf;

pub use entries::{EntryError, Table};
pub use file::FileRegistry;
pub use memory::MemoryRegistry;
pub use zookeeper::{Term, ZooKeeperRegistry};

use crate::core::{Recovered, RegistryChange};

/// A store of the registry. Used by one thread.
pub trait Registry: Send {
    /// What was written before.
    ///
    /// # Errors
    /// When it cannot be read.
    fn recover(&mut self) -> Result<Recovered, RegistryError>;

    /// Writes changes in their order. When it returns, they survive a crash of the process and of the
    /// machine; when it fails, or the process is killed in it, the first few of them may survive. Each
    /// change stands for itself and is written whole or not at all.
    ///
    /// # Errors
    /// When they cannot be written; the coordinator must then end.
    fn write(&mut self, changes: &[RegistryChange]) -> Result<(), RegistryError>;

    /// How large it is on disk, in bytes, where it is on disk.
    fn size(&self) -> Option<u64>;
}

/// Why the registry cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The directory cannot be made.
    #[error("cannot make the work directory {path}: {error}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// Another process has it.
    #[error("the registry {0} is in use by another coordinator; give each its own --work_dir")]
    InUse(PathBuf),
    /// A coordinator that can do more has been at work.
    #[error("the registry needs a coordinator that is capable of {0}; use the version that wrote it")]
    Capabilities(String),
    /// The store failed.
    #[error("the registry {path} cannot be {doing}: {error}")]
    Store {
        /// The file.
        path: PathBuf,
        /// "opened", "read", "written"
        doing: &'static str,
        /// Why not.
        error: Box<redb::Error>,
    },
    /// A newer Tepui wrote it.
    #[error(
        "the registry {registry} has format {found}, but this version of Tepui reads format {known}; use the newer one"
    )]
    Format {
        /// Where it is.
        registry: String,
        /// What it has.
        found: u64,
        /// What can be read.
        known: u64,
    },
    /// A newer Tepui wrote it.
    #[error(
        "the registry {registry} has a table '{table}', which this version of Tepui does not know; use the newer one"
    )]
    UnknownTable {
        /// Where it is.
        registry: String,
        /// What it has.
        table: String,
    },
    /// Somebody else's node is where it should be.
    #[error("what ZooKeeper has at {registry} is no registry; choose another path in --zk")]
    NoRegistry {
        /// Where it should be.
        registry: String,
    },
    /// ZooKeeper refused, or could not be reached for too long.
    #[error("the registry cannot be {doing}: {error}")]
    ZooKeeper {
        /// "reached", "made", "read", "written"
        doing: &'static str,
        /// Why not, and where it is.
        error: Box<tepui_zookeeper::SessionError>,
    },
    /// A later leader has it.
    #[error("the registry {registry} was taken over in the term of {by}; this coordinator leads no more")]
    Deposed {
        /// Where it is.
        registry: String,
        /// The id of the later term.
        by: String,
    },
    /// The election is over before the term began.
    #[error("the registry {registry} was not taken over: this coordinator is not elected any more")]
    NotElected {
        /// Where it is.
        registry: String,
    },
    /// An entry that is not what was written.
    #[error("the registry {registry} is damaged: {error}")]
    Damaged {
        /// Where it is.
        registry: String,
        /// What is wrong.
        error: EntryError,
    },
}

#[cfg(test)]
pub(crate) mod tests {
    use tepui_api::v1::{AgentId, AgentInfo};

    pub(crate) fn agent(id: &str, hostname: &str) -> AgentInfo {
        AgentInfo { hostname: hostname.to_owned(), id: Some(AgentId::new(id)), ..AgentInfo::default() }
    }
}
