//! A registry that is forgotten with the process.

use std::collections::BTreeMap;

use super::entries::{Table, writes};
use super::{Registry, RegistryError};
use crate::core::{Recovered, RegistryChange};

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct MemoryRegistry {
    entries: BTreeMap<(Table, String), Vec<u8>>,
}

impl Registry for MemoryRegistry {
    fn recover(&mut self) -> Result<Recovered, RegistryError> {
        let mut recovered = Recovered::default();
        for ((table, key), value) in &self.entries {
            let damaged = |error| RegistryError::Damaged { registry: "in memory".to_owned(), error };
            recovered.add(*table, key, value).map_err(damaged)?;
        }
        Ok(recovered)
    }

    fn write(&mut self, changes: &[RegistryChange]) -> Result<(), RegistryError> {
        for write in changes.iter().flat_map(writes) {
            let entry = (write.table, write.key);
            match write.value {
                Some(value) => self.entries.insert(entry, value),
                None => self.entries.remove(&entry),
            };
        }
        Ok(())
    }

    fn size(&self) -> Option<u64> {
        None
    }
}
