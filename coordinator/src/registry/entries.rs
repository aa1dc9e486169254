//! What the stores hold: entries, each with a key and some bytes, in a few tables.
//!
//! [`writes`] says what a change of the core's means for them, [`Recovered::add`] takes one of them into
//! what the core starts with. To keep something new: a [`Table`] with its name, an arm in [`writes`], an
//! arm in [`Recovered::add`]. Bytes are protobuf messages, so that they may gain fields. A store that has
//! a table whose name is not known here was written by a newer version and is refused.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use tepui_api::v1::maintenance::Window;
use tepui_api::v1::quota::QuotaConfig;
use tepui_api::v1::{AgentId, AgentInfo, DrainInfo, TimeInfo, WeightInfo};

use crate::core::{Maintenance, Recovered, RegistryChange};

/// Which entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// From the id of each agent that is admitted to its `AgentInfo`.
    Admitted,
    /// From the id of each agent that has fallen silent to its `TimeInfo`: since when.
    Unreachable,
    /// From the id of each agent that was declared lost for good to its `TimeInfo`: since when.
    Gone,
    /// From the id of each admitted or unreachable agent of which nothing is offered to its `DrainInfo`, or to
    /// nothing when it is not for a drain.
    Deactivated,
    /// From the name of each capability without which nobody may go on from here to nothing.
    Capabilities,
    /// From the place of each window of maintenance, and of each part of it, to a `Window`: large windows are in
    /// parts, since stores have limits.
    Windows,
    /// From the id, as JSON, of each machine of the schedule to its `MachineInfo`.
    Machines,
    /// From each role with a weight to its `WeightInfo`.
    Weights,
    /// From each role with a quota to its `QuotaConfig`.
    Quotas,
}

/// Machines in one part of a window: some 60 bytes each.
const PART: usize = 2000;

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
    use Table::{Admitted, Capabilities, Deactivated, Gone, Quotas, Unreachable, Weights};
    match change {
        RegistryChange::Admit(info) | RegistryChange::Update(info) | RegistryChange::Reachable(info) => {
            let id = info.id.as_ref().map_or("", AgentId::as_str);
            vec![remove(Unreachable, id), put(Admitted, id, info)]
        }
        RegistryChange::Remove(id) => vec![remove(Admitted, id.as_str()), remove(Deactivated, id.as_str())],
        RegistryChange::Unreachable { agent, since } => {
            vec![remove(Admitted, agent.as_str()), put(Unreachable, agent.as_str(), since)]
        }
        RegistryChange::Forget(ids) => {
            let ids: BTreeSet<&str> = ids.iter().map(AgentId::as_str).collect();
            ids.into_iter().flat_map(|id| [remove(Unreachable, id), remove(Deactivated, id)]).collect()
        }
        RegistryChange::Gone { agent, at } => {
            let id = agent.as_str();
            vec![remove(Admitted, id), remove(Unreachable, id), remove(Deactivated, id), put(Gone, id, at)]
        }
        RegistryChange::ForgetGone(ids) => {
            let ids: BTreeSet<&str> = ids.iter().map(AgentId::as_str).collect();
            ids.into_iter().map(|id| remove(Gone, id)).collect()
        }
        RegistryChange::Deactivate { agent, drain: Some(drain) } => {
            vec![put(Deactivated, agent.as_str(), drain)]
        }
        RegistryChange::Deactivate { agent, drain: None } => vec![put(Deactivated, agent.as_str(), &())],
        RegistryChange::Reactivate(agent) => vec![remove(Deactivated, agent.as_str())],
        RegistryChange::NeedCapability(name) => vec![put(Capabilities, name, &())],
        RegistryChange::DropCapability(name) => vec![remove(Capabilities, name)],
        RegistryChange::Maintenance { before, after } => difference(&plan(before), plan(after)),
        RegistryChange::Weights(weights) => {
            let weights: BTreeMap<&str, f64> =
                weights.iter().map(|(role, weight)| (&**role, *weight)).collect();
            let info = |role: &str, weight| WeightInfo { role: Some(role.to_owned()), weight };
            weights.into_iter().map(|(role, weight)| put(Weights, role, &info(role, weight))).collect()
        }
        RegistryChange::Quotas(quotas) => {
            let quotas: BTreeMap<&str, &QuotaConfig> = quotas.iter().map(|q| (&*q.role, q)).collect();
            let write = |(role, quota): (&str, &QuotaConfig)| {
                if quota.guarantees.is_empty() && quota.limits.is_empty() {
                    remove(Quotas, role)
                } else {
                    put(Quotas, role, quota)
                }
            };
            quotas.into_iter().map(write).collect()
        }
    }
}

/// The entries of a plan of maintenance.
fn plan(maintenance: &Maintenance) -> BTreeMap<(Table, String), Vec<u8>> {
    let mut entries = BTreeMap::new();
    for (place, window) in maintenance.schedule.windows.iter().enumerate() {
        for (part, machine_ids) in window.machine_ids.chunks(PART).enumerate() {
            let part_of_it =
                Window { machine_ids: machine_ids.to_vec(), unavailability: window.unavailability };
            let key = format!("{place:08}.{part:08}");
            entries.insert((Table::Windows, key), part_of_it.encode_to_vec());
        }
    }
    for info in &maintenance.machines {
        let key = String::from_utf8_lossy(&tepui_api::codec::encode_json(&info.id)).to_lowercase();
        entries.insert((Table::Machines, key), info.encode_to_vec());
    }
    entries
}

/// What makes the one the other.
fn difference(
    before: &BTreeMap<(Table, String), Vec<u8>>,
    after: BTreeMap<(Table, String), Vec<u8>>,
) -> Vec<Write> {
    let gone = before.keys().filter(|entry| !after.contains_key(*entry));
    let mut writes: Vec<Write> = gone.map(|(table, key)| remove(*table, key)).collect();
    for ((table, key), value) in after {
        let entry = (table, key);
        if before.get(&entry) != Some(&value) {
            let (table, key) = entry;
            writes.push(Write { table, key, value: Some(value) });
        }
    }
    writes
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
    pub const ALL: &[Self] = &[
        Self::Admitted,
        Self::Unreachable,
        Self::Gone,
        Self::Deactivated,
        Self::Capabilities,
        Self::Windows,
        Self::Machines,
        Self::Weights,
        Self::Quotas,
    ];

    /// Its name in the stores, made of small letters.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Unreachable => "unreachable",
            Self::Gone => "gone",
            Self::Deactivated => "deactivated",
            Self::Capabilities => "capabilities",
            Self::Windows => "windows",
            Self::Machines => "machines",
            Self::Weights => "weights",
            Self::Quotas => "quotas",
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
            Table::Gone => self.gone.push((AgentId::new(key), TimeInfo::decode(value)?)),
            Table::Deactivated => {
                let drain = if value.is_empty() { None } else { Some(DrainInfo::decode(value)?) };
                self.deactivated.push((AgentId::new(key), drain));
            }
            Table::Capabilities => self.minimum_capabilities.push(key.to_owned()),
            Table::Windows => {
                let window = Window::decode(value)?;
                let windows = &mut self.maintenance.schedule.windows;
                match windows.last_mut().filter(|_| !key.ends_with(".00000000")) {
                    Some(first) => first.machine_ids.extend(window.machine_ids),
                    None => windows.push(window),
                }
            }
            Table::Machines => self.maintenance.machines.push(Message::decode(value)?),
            Table::Weights => {
                let WeightInfo { role, weight } = WeightInfo::decode(value)?;
                self.weights.push((role.unwrap_or_default(), weight));
            }
            Table::Quotas => self.quotas.push(QuotaConfig::decode(value)?),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tepui_api::v1::maintenance::Schedule;
    use tepui_api::v1::{MachineId, MachineInfo, Unavailability};

    use super::*;

    #[test]
    fn tables_are_known_by_their_names() {
        for table in Table::ALL {
            assert_eq!(Table::named(table.name()), Some(*table));
            assert!(table.name().bytes().all(|byte| byte.is_ascii_lowercase()));
        }
        assert_eq!(Table::named("other"), None);
    }

    fn recovered(entries: &BTreeMap<(Table, String), Vec<u8>>) -> Recovered {
        let mut recovered = Recovered::default();
        for ((table, key), value) in entries {
            recovered.add(*table, key, value).unwrap();
        }
        recovered
    }

    fn apply(entries: &mut BTreeMap<(Table, String), Vec<u8>>, change: &RegistryChange) {
        for write in writes(change) {
            let entry = (write.table, write.key);
            match write.value {
                Some(value) => entries.insert(entry, value),
                None => entries.remove(&entry),
            };
        }
    }

    #[test]
    fn plans_of_maintenance_come_back_as_they_were() {
        let id = |n: usize| MachineId { hostname: Some(format!("Host{n}")), ip: Some("10.0.0.1".into()) };
        let window = |from: usize, to: usize, start| Window {
            machine_ids: (from..to).map(id).collect(),
            unavailability: Unavailability { start: TimeInfo { nanoseconds: start }, duration: None },
        };
        let machines = |of: &[Window]| {
            let ids = of.iter().flat_map(|window| &window.machine_ids);
            let mut machines: Vec<MachineInfo> =
                ids.map(|id| MachineInfo { id: id.clone(), mode: Some(2), unavailability: None }).collect();
            machines.sort_by_key(|machine| machine.id.hostname().to_owned());
            machines
        };
        let with = |windows: Vec<Window>| Maintenance {
            machines: machines(&windows),
            schedule: Schedule { windows },
        };
        let plans = [
            Maintenance::default(),
            with(vec![window(0, 3, 1), window(3, 4, 1)]),
            with(vec![window(10, 10 + 2 * PART + 1, 5), window(0, 1, 2)]),
            with(vec![window(0, 1, 2)]),
            Maintenance::default(),
        ];
        let mut entries = BTreeMap::new();
        for pair in plans.windows(2) {
            let (before, after) = (Box::new(pair[0].clone()), Box::new(pair[1].clone()));
            apply(&mut entries, &RegistryChange::Maintenance { before, after });
            assert_eq!(recovered(&entries).maintenance, pair[1]);
        }
        assert!(entries.is_empty());
    }

    #[test]
    fn a_deactivation_ends_with_its_agent() {
        let agent = AgentId::new("a");
        let drain = DrainInfo { state: 1, config: Default::default() };
        let at = TimeInfo { nanoseconds: 7 };
        for end in [
            RegistryChange::Remove(agent.clone()),
            RegistryChange::Gone { agent: agent.clone(), at },
            RegistryChange::Forget(vec![agent.clone()]),
            RegistryChange::Reactivate(agent.clone()),
        ] {
            let mut entries = BTreeMap::new();
            for drain in [None, Some(drain)] {
                apply(&mut entries, &RegistryChange::Deactivate { agent: agent.clone(), drain });
                apply(&mut entries, &RegistryChange::Unreachable { agent: agent.clone(), since: at });
                assert_eq!(recovered(&entries).deactivated, [(agent.clone(), drain)]);
                apply(&mut entries, &end);
                assert_eq!(recovered(&entries).deactivated, []);
            }
        }
    }

    #[test]
    fn what_is_set_by_name_is_replaced_by_name() {
        let mut entries = BTreeMap::new();
        for change in [
            RegistryChange::Weights(vec![("a".into(), 2.0), ("b".into(), 3.0)]),
            RegistryChange::Weights(vec![("a".into(), 0.5)]),
            RegistryChange::NeedCapability("AGENT_DRAINING".into()),
            RegistryChange::NeedCapability("QUOTA_V2".into()),
            RegistryChange::DropCapability("AGENT_DRAINING".into()),
        ] {
            apply(&mut entries, &change);
        }
        let found = recovered(&entries);
        assert_eq!(found.weights, [("a".to_owned(), 0.5), ("b".to_owned(), 3.0)]);
        assert_eq!(found.minimum_capabilities, ["QUOTA_V2"]);
        let scalar = tepui_api::v1::value::Scalar { value: 1.0 };
        let quota = |limits: &[&str]| QuotaConfig {
            role: "r".into(),
            limits: limits.iter().map(|name| ((*name).to_owned(), scalar)).collect(),
            ..QuotaConfig::default()
        };
        apply(&mut entries, &RegistryChange::Quotas(vec![quota(&["cpus"])]));
        assert_eq!(recovered(&entries).quotas, [quota(&["cpus"])]);
        apply(&mut entries, &RegistryChange::Quotas(vec![quota(&[])]));
        assert_eq!(recovered(&entries).quotas, []);
    }

    #[test]
    fn gone_agents_are_neither_admitted_nor_unreachable() {
        let at = TimeInfo { nanoseconds: 7 };
        let admitted = AgentInfo { id: Some("a".into()), ..AgentInfo::default() };
        let mut entries = BTreeMap::new();
        apply(&mut entries, &RegistryChange::Admit(admitted));
        apply(&mut entries, &RegistryChange::Unreachable { agent: "b".into(), since: at });
        for id in ["a", "b"] {
            apply(&mut entries, &RegistryChange::Gone { agent: id.into(), at });
        }
        let found = recovered(&entries);
        assert!(found.admitted.is_empty() && found.unreachable.is_empty());
        assert_eq!(found.gone, [(AgentId::new("a"), at), (AgentId::new("b"), at)]);
        apply(&mut entries, &RegistryChange::ForgetGone(vec!["a".into(), "b".into(), "c".into()]));
        assert_eq!(recovered(&entries), Recovered::default());
    }

    #[test]
    fn a_damaged_entry_is_named() {
        let error = Recovered::default().add(Table::Unreachable, "S7", b"\xff").unwrap_err();
        assert!(error.to_string().contains("'S7' of table 'unreachable'"), "{error}");
    }
}
