//! A registry that is forgotten with the process.

use std::collections::BTreeMap;

use tepui_api::v1::{AgentId, AgentInfo, TimeInfo};

use super::{Registry, RegistryError};
use crate::core::{Recovered, RegistryChange};

/// See the module.
#[derive(Debug, Default)]
pub struct MemoryRegistry {
    admitted: BTreeMap<AgentId, AgentInfo>,
    unreachable: BTreeMap<AgentId, TimeInfo>,
}

impl Registry for MemoryRegistry {
    fn recover(&mut self) -> Result<Recovered, RegistryError> {
        Ok(Recovered {
            admitted: self.admitted.values().cloned().collect(),
            unreachable: self.unreachable.iter().map(|(id, since)| (id.clone(), *since)).collect(),
        })
    }

    fn write(&mut self, changes: &[RegistryChange]) -> Result<(), RegistryError> {
        for change in changes {
            match change {
                RegistryChange::Admit(info)
                | RegistryChange::Update(info)
                | RegistryChange::Reachable(info) => {
                    let id = info.id.clone().unwrap_or_default();
                    self.unreachable.remove(&id);
                    self.admitted.insert(id, info.clone());
                }
                RegistryChange::Remove(id) => {
                    self.admitted.remove(id);
                }
                RegistryChange::Unreachable { agent, since } => {
                    self.admitted.remove(agent);
                    self.unreachable.insert(agent.clone(), *since);
                }
                RegistryChange::Forget(ids) => {
                    for id in ids {
                        self.unreachable.remove(id);
                    }
                }
            }
        }
        Ok(())
    }

    fn size(&self) -> Option<u64> {
        None
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_keeps_what_it_is_told() {
        super::super::tests::keeps_what_it_is_told(&mut super::MemoryRegistry::default());
    }
}
