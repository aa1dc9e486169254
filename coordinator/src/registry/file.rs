//! The registry of a single coordinator: one redb file, `<work_dir>/registry.redb`.
//!
//! Tables: `format` with the version of all that follows, `admitted` from an agent's id to its
//! `AgentInfo` as protobuf, `unreachable` from an agent's id to the time since when, in nanoseconds
//! since 1970. Every write is one transaction that redb has synced to disk before it returns, so a
//! process that is killed at any instant leaves either the state before or the state after. redb holds
//! a lock on the file, which ends with the process.

use std::fs::File;
use std::path::{Path, PathBuf};

use prost::Message as _;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use tepui_api::v1::{AgentId, AgentInfo, TimeInfo};

use super::{Registry, RegistryError};
use crate::core::{Recovered, RegistryChange};

/// Raised when an older Tepui could no longer read the file rightly.
const FORMAT: u64 = 1;
const FORMAT_TABLE: TableDefinition<&str, u64> = TableDefinition::new("format");
const FORMAT_KEY: &str = "version";
const ADMITTED: TableDefinition<&str, &[u8]> = TableDefinition::new("admitted");
const UNREACHABLE: TableDefinition<&str, i64> = TableDefinition::new("unreachable");

/// See the module.
pub struct FileRegistry {
    path: PathBuf,
    database: Database,
}

// === impl FileRegistry ===

impl FileRegistry {
    /// Opens the registry in this directory, or makes both.
    ///
    /// # Errors
    /// When another process has it open, it was written by a newer Tepui, or the disk refuses.
    pub fn open(work_dir: &Path) -> Result<Self, RegistryError> {
        let directory = |error| RegistryError::Directory { path: work_dir.to_owned(), error };
        std::fs::create_dir_all(work_dir).map_err(directory)?;
        let path = work_dir.join("registry.redb");
        let database = Database::create(&path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => RegistryError::InUse(path.clone()),
            error => store(&path, "opened", error),
        })?;
        // The file's name must survive a crash of the machine as well.
        File::open(work_dir).and_then(|dir| dir.sync_all()).map_err(directory)?;
        let registry = Self { path, database };
        registry.check_format()?;
        Ok(registry)
    }

    fn check_format(&self) -> Result<(), RegistryError> {
        let found = self.in_transaction(|transaction| {
            let mut table = transaction.open_table(FORMAT_TABLE)?;
            let found = table.get(FORMAT_KEY)?.map(|version| version.value());
            if found.is_none() {
                table.insert(FORMAT_KEY, FORMAT)?;
            }
            transaction.open_table(ADMITTED)?;
            transaction.open_table(UNREACHABLE)?;
            Ok(found)
        })?;
        match found {
            None | Some(FORMAT) => Ok(()),
            Some(found) => Err(RegistryError::Format { path: self.path.clone(), found, known: FORMAT }),
        }
    }

    fn in_transaction<T>(
        &self,
        work: impl FnOnce(&redb::WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, RegistryError> {
        let whole = || {
            let transaction = self.database.begin_write()?;
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok::<T, redb::Error>(done)
        };
        whole().map_err(|error| store(&self.path, "written", error))
    }

    fn read(&self) -> Result<(Entries, Vec<(AgentId, TimeInfo)>), redb::Error> {
        let transaction = self.database.begin_read()?;
        let mut admitted = Vec::new();
        for entry in transaction.open_table(ADMITTED)?.iter()? {
            let (id, info) = entry?;
            admitted.push((id.value().to_owned(), info.value().to_vec()));
        }
        let mut unreachable = Vec::new();
        for entry in transaction.open_table(UNREACHABLE)?.iter()? {
            let (id, since) = entry?;
            unreachable.push((AgentId::new(id.value()), TimeInfo { nanoseconds: since.value() }));
        }
        Ok((admitted, unreachable))
    }
}

/// Ids, and messages as they are in the file.
type Entries = Vec<(String, Vec<u8>)>;

impl Registry for FileRegistry {
    fn recover(&mut self) -> Result<Recovered, RegistryError> {
        let (entries, unreachable) = self.read().map_err(|error| store(&self.path, "read", error))?;
        let decode = |(agent, bytes): (String, Vec<u8>)| {
            AgentInfo::decode(bytes.as_slice()).map_err(|error| RegistryError::Damaged {
                path: self.path.clone(),
                agent,
                error,
            })
        };
        let admitted = entries.into_iter().map(decode).collect::<Result<Vec<_>, _>>()?;
        Ok(Recovered { admitted, unreachable })
    }

    fn write(&mut self, changes: &[RegistryChange]) -> Result<(), RegistryError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.in_transaction(|transaction| {
            let mut admitted = transaction.open_table(ADMITTED)?;
            let mut unreachable = transaction.open_table(UNREACHABLE)?;
            for change in changes {
                match change {
                    RegistryChange::Admit(info)
                    | RegistryChange::Update(info)
                    | RegistryChange::Reachable(info) => {
                        let id = info.id.as_ref().map_or("", |id| id.as_str());
                        unreachable.remove(id)?;
                        admitted.insert(id, info.encode_to_vec().as_slice())?;
                    }
                    RegistryChange::Remove(id) => {
                        admitted.remove(id.as_str())?;
                    }
                    RegistryChange::Unreachable { agent, since } => {
                        admitted.remove(agent.as_str())?;
                        unreachable.insert(agent.as_str(), since.nanoseconds)?;
                    }
                    RegistryChange::Forget(ids) => {
                        for id in ids {
                            unreachable.remove(id.as_str())?;
                        }
                    }
                }
            }
            Ok(())
        })
    }

    fn size(&self) -> Option<u64> {
        std::fs::metadata(&self.path).ok().map(|file| file.len())
    }
}

impl std::fmt::Debug for FileRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("FileRegistry").field("path", &self.path).finish_non_exhaustive()
    }
}

fn store(path: &Path, doing: &'static str, error: impl Into<redb::Error>) -> RegistryError {
    RegistryError::Store { path: path.to_owned(), doing, error: Box::new(error.into()) }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{agent, keeps_what_it_is_told};
    use super::*;

    #[test]
    fn it_keeps_what_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        keeps_what_it_is_told(&mut FileRegistry::open(dir.path()).unwrap());
    }

    #[test]
    fn it_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let work_dir = dir.path().join("made/on/the/way");
        let mut registry = FileRegistry::open(&work_dir).unwrap();
        assert_eq!(registry.recover().unwrap(), Recovered::default());
        registry.write(&[RegistryChange::Admit(agent("a", "host"))]).unwrap();
        assert!(registry.size().unwrap() > 0);
        drop(registry);
        let recovered = FileRegistry::open(&work_dir).unwrap().recover().unwrap();
        assert_eq!(recovered.admitted, [agent("a", "host")]);
    }

    #[test]
    fn only_one_may_have_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = FileRegistry::open(dir.path()).unwrap();
        assert!(matches!(FileRegistry::open(dir.path()), Err(RegistryError::InUse(_))));
        drop(first);
        FileRegistry::open(dir.path()).unwrap();
    }

    #[test]
    fn a_newer_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let registry = FileRegistry::open(dir.path()).unwrap();
        registry
            .in_transaction(|transaction| {
                transaction.open_table(FORMAT_TABLE)?.insert(FORMAT_KEY, FORMAT + 1)?;
                Ok(())
            })
            .unwrap();
        drop(registry);
        let error = FileRegistry::open(dir.path()).unwrap_err();
        assert!(matches!(error, RegistryError::Format { found: 2, known: 1, .. }), "{error}");
    }

    #[test]
    fn a_file_that_is_no_registry_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("registry.redb"), "not a database").unwrap();
        assert!(matches!(FileRegistry::open(dir.path()), Err(RegistryError::Store { .. })));
    }
}
