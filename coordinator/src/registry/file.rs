//! The registry of a single coordinator: one redb file, `<work_dir>/registry.redb`.
//!
//! Table `format` holds the version of all that follows: one table for each [`Table`], under its name,
//! from keys to bytes. Every write is one transaction that redb has synced to disk before it returns, so a
//! process that is killed at any instant leaves either the state before or the state after. redb holds
//! a lock on the file, which ends with the process.
//!
//! Format 1 had the time since when an agent is unreachable as a number, in nanoseconds since 1970. A file
//! that has it is brought up to date when it is opened, in the same transaction that says so.

use std::fs::File;
use std::path::{Path, PathBuf};

use prost::Message as _;
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition, TableError, TableHandle as _,
    WriteTransaction,
};
use tepui_api::v1::TimeInfo;

use super::entries::{Table, writes};
use super::{Registry, RegistryError};
use crate::core::{Recovered, RegistryChange};

/// Raised when an older Tepui could no longer read the file rightly. A table more needs no new number,
/// since a table that is not known is refused.
const FORMAT: u64 = 2;
const FORMAT_TABLE: TableDefinition<&str, u64> = TableDefinition::new("format");
const FORMAT_KEY: &str = "version";

const fn table(table: Table) -> TableDefinition<'static, &'static str, &'static [u8]> {
    TableDefinition::new(table.name())
}

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

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn check_format(&self) -> Result<(), RegistryError> {
        let found = self.in_transaction(|transaction| {
            let mut version = transaction.open_table(FORMAT_TABLE)?;
            let found = version.get(FORMAT_KEY)?.map_or(FORMAT, |version| version.value());
            if found == 1 {
                upgrade_from_1(transaction)?;
            }
            if found <= FORMAT {
                version.insert(FORMAT_KEY, FORMAT)?;
            }
            Ok(found)
        })?;
        if found > FORMAT {
            return Err(RegistryError::Format { registry: self.name(), found, known: FORMAT });
        }
        let unknown = self.unknown_table().map_err(|error| store(&self.path, "read", error))?;
        match unknown {
            Some(table) => Err(RegistryError::UnknownTable { registry: self.name(), table }),
            None => Ok(()),
        }
    }

    fn unknown_table(&self) -> Result<Option<String>, redb::Error> {
        let transaction = self.database.begin_read()?;
        let mut names = transaction.list_tables()?.map(|table| table.name().to_owned());
        Ok(names.find(|name| name != FORMAT_TABLE.name() && Table::named(name).is_none()))
    }

    fn in_transaction<T>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, RegistryError> {
        let whole = || {
            let transaction = self.database.begin_write()?;
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok::<T, redb::Error>(done)
        };
        whole().map_err(|error| store(&self.path, "written", error))
    }

    fn read(&self) -> Result<Vec<(Table, String, Vec<u8>)>, redb::Error> {
        let transaction = self.database.begin_read()?;
        let mut entries = Vec::new();
        for kind in Table::ALL {
            let rows = match transaction.open_table(table(*kind)) {
                Err(TableError::TableDoesNotExist(_)) => continue,
                rows => rows?,
            };
            for row in rows.iter()? {
                let (key, value) = row?;
                entries.push((*kind, key.value().to_owned(), value.value().to_vec()));
            }
        }
        Ok(entries)
    }
}

fn upgrade_from_1(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    const UNREACHABLE: TableDefinition<&str, i64> = TableDefinition::new("unreachable");
    let mut times = Vec::new();
    for row in transaction.open_table(UNREACHABLE)?.iter()? {
        let (id, since) = row?;
        times.push((id.value().to_owned(), TimeInfo { nanoseconds: since.value() }));
    }
    transaction.delete_table(UNREACHABLE)?;
    let mut unreachable = transaction.open_table(table(Table::Unreachable))?;
    for (id, since) in times {
        unreachable.insert(id.as_str(), since.encode_to_vec().as_slice())?;
    }
    Ok(())
}

impl Registry for FileRegistry {
    fn recover(&mut self) -> Result<Recovered, RegistryError> {
        let entries = self.read().map_err(|error| store(&self.path, "read", error))?;
        let mut recovered = Recovered::default();
        for (table, key, value) in entries {
            let damaged = |error| RegistryError::Damaged { registry: self.name(), error };
            recovered.add(table, &key, &value).map_err(damaged)?;
        }
        Ok(recovered)
    }

    fn write(&mut self, changes: &[RegistryChange]) -> Result<(), RegistryError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.in_transaction(|transaction| {
            // Each table is opened once, since that costs as much as a write.
            let mut tables = Vec::with_capacity(Table::ALL.len());
            for write in changes.iter().flat_map(writes) {
                let index = match tables.iter().position(|(kind, _)| *kind == write.table) {
                    Some(index) => index,
                    None => {
                        tables.push((write.table, transaction.open_table(table(write.table))?));
                        tables.len() - 1
                    }
                };
                let (_, rows) = &mut tables[index];
                match write.value {
                    Some(value) => rows.insert(write.key.as_str(), value.as_slice())?,
                    None => rows.remove(write.key.as_str())?,
                };
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
    use super::super::tests::agent;
    use tepui_api::v1::AgentId;

    use super::*;

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

    fn opened_after(
        change: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<FileRegistry, RegistryError> {
        let dir = tempfile::tempdir().unwrap();
        let mut registry = FileRegistry::open(dir.path()).unwrap();
        registry.write(&[RegistryChange::Admit(agent("a", "host"))]).unwrap();
        registry.in_transaction(change).unwrap();
        drop(registry);
        FileRegistry::open(dir.path())
    }

    #[test]
    fn a_newer_format_is_refused() {
        let error = opened_after(|transaction| {
            transaction.open_table(FORMAT_TABLE)?.insert(FORMAT_KEY, FORMAT + 1)?;
            Ok(())
        });
        let error = error.unwrap_err();
        assert!(matches!(error, RegistryError::Format { found: 3, known: 2, .. }), "{error}");
    }

    #[test]
    fn a_table_of_a_newer_version_is_refused() {
        let error = opened_after(|transaction| {
            transaction.open_table(TableDefinition::<&str, &[u8]>::new("later"))?;
            Ok(())
        });
        let error = error.unwrap_err();
        assert!(matches!(&error, RegistryError::UnknownTable { table, .. } if table == "later"), "{error}");
    }

    #[test]
    fn a_file_of_format_1_is_brought_up_to_date() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("registry.redb");
        let database = Database::create(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        {
            transaction.open_table(FORMAT_TABLE).unwrap().insert(FORMAT_KEY, 1).unwrap();
            let admitted: TableDefinition<&str, &[u8]> = TableDefinition::new("admitted");
            let info = agent("a", "host").encode_to_vec();
            transaction.open_table(admitted).unwrap().insert("a", info.as_slice()).unwrap();
            let unreachable: TableDefinition<&str, i64> = TableDefinition::new("unreachable");
            transaction.open_table(unreachable).unwrap().insert("b", 7).unwrap();
        }
        transaction.commit().unwrap();
        drop(database);
        for _ in 0..2 {
            let recovered = FileRegistry::open(dir.path()).unwrap().recover().unwrap();
            assert_eq!(recovered.admitted, [agent("a", "host")]);
            assert_eq!(recovered.unreachable, [(AgentId::new("b"), TimeInfo { nanoseconds: 7 })]);
        }
    }

    #[test]
    fn a_file_that_is_no_registry_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("registry.redb"), "not a database").unwrap();
        assert!(matches!(FileRegistry::open(dir.path()), Err(RegistryError::Store { .. })));
    }
}
