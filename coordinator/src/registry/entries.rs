//! What the stores hold: entries, each with a key and some bytes, in a few tables.
//!
//! [`writes`] says what a change of the core's means for them, [`Recovered::add`] takes one of them into
//! what the core starts with. To keep something new: a [`Table`] with its name, an arm in [`writes`], an
//! arm in [`Recovered::add`]. Bytes are protobuf messages, so that they may gain fields. A store that has
//! a table whose name is not known here was written by a newer version and is refused.

use std::collections::BTreeSet;

use prost::Message;
use tepui_api::v1::{AgentId, AgentInfo, TimeInfo};

use crate::core::{Recovered, RegistryChange};

/// Which entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// From the id of each agent that is admitted to its `AgentInfo`.
    Admitted,
    /// From the id of each agent that has fallen silent to its `TimeInfo`: since when.
    Unreachable,
}

/// A write of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) table: Table,
    pub(super) key: String,
    /// What it is from now on; without, it is removed, if it is there at all.
    pub(super) value: Option<Vec<u8>>,
}

/// An entry that is not what was written.
#[derive(Debug, thiserror::Error)]
#[error("entry '{key}' of table '{}' cannot be read: {error}", table.name())]
pub struct EntryError {
    /// Where it is.
    pub table: Table,
    /// Its name.
    pub key: String,
    /// What is wrong.
    pub error: prost::DecodeError,
}

/// What a change means. The writes of one change are of different entries, so their order is of no concern.
pub(super) fn writes(change: &RegistryChange) -> Vec<Write> {
    use Table::{Admitted, Unreachable};
    match change {
        RegistryChange::Admit(info) | RegistryChange::Update(info) | RegistryChange::Reachable(info) => {
            let id = info.id.as_ref().map_or("", AgentId::as_str);
            vec![remove(Unreachable, id), put(Admitted, id, info)]
        }
        RegistryChange::Remove(id) => vec![remove(Admitted, id.as_str())],
        RegistryChange::Unreachable { agent, since } => {
            vec![remove(Admitted, agent.as_str()), put(Unreachable, agent.as_str(), since)]
        }
        RegistryChange::Forget(ids) => {
            let ids: BTreeSet<&str> = ids.iter().map(AgentId::as_str).collect();
            ids.into_iter().map(|id| remove(Unreachable, id)).collect()
        }
    }
}

fn put(table: Table, key: &str, message: &impl Message) -> Write {
    Write { table, key: key.to_owned(), value: Some(message.encode_to_vec()) }
}

fn remove(table: Table, key: &str) -> Write {
    Write { table, key: key.to_owned(), value: None }
}

// === impl Table ===

impl Table {
    /// All there are.
    pub const ALL: &[Self] = &[Self::Admitted, Self::Unreachable];

    /// Its name in the stores, made of small letters.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Unreachable => "unreachable",
        }
    }

    /// The table of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|table| table.name() == name)
    }
}

// === impl Recovered ===

impl Recovered {
    /// Takes in an entry. Those of a table are to come in the order of their keys.
    pub(super) fn add(&mut self, table: Table, key: &str, value: &[u8]) -> Result<(), EntryError> {
        self.decode(table, key, value).map_err(|error| EntryError { table, key: key.to_owned(), error })
    }

    fn decode(&mut self, table: Table, key: &str, value: &[u8]) -> Result<(), prost::DecodeError> {
        match table {
            Table::Admitted => self.admitted.push(AgentInfo::decode(value)?),
            Table::Unreachable => self.unreachable.push((AgentId::new(key), TimeInfo::decode(value)?)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_known_by_their_names() {
        for table in Table::ALL {
            assert_eq!(Table::named(table.name()), Some(*table));
            assert!(table.name().bytes().all(|byte| byte.is_ascii_lowercase()));
        }
        assert_eq!(Table::named("other"), None);
    }

    #[test]
    fn a_damaged_entry_is_named() {
        let error = Recovered::default().add(Table::Unreachable, "S7", b"\xff").unwrap_err();
        assert!(error.to_string().contains("'S7' of table 'unreachable'"), "{error}");
    }
}
