//! The books themselves: what is on an agent, what a framework has, and how the two change together.

use std::collections::{BTreeMap, BTreeSet};

use tepui_api::resources::Resources;
use tepui_api::v1::{AgentId, ExecutorId, FrameworkId, OfferId, TaskId, TaskState};

use super::Ledger;
use crate::model::{Key, is_terminal};

/// What is on one agent.
#[derive(Debug, Default)]
pub struct AgentBook {
    pub total: Resources,
    pub tasks: BTreeSet<Key>,
    pub executors: BTreeMap<(FrameworkId, ExecutorId), Resources>,
    pub used: BTreeMap<FrameworkId, Resources>,
    pub offered: Resources,
    pub offers: BTreeSet<OfferId>,
    /// It became smaller, or came with more than it has: more may be in use than there is.
    pub shrunk: bool,
}

/// What one framework has.
#[derive(Debug, Default)]
pub struct FrameworkBook {
    pub tasks: BTreeMap<TaskId, TaskBook>,
    pub offers: BTreeSet<OfferId>,
    /// Tasks on agents that fell silent.
    pub unreachable: BTreeMap<TaskId, AgentId>,
    pub suppressed: BTreeSet<String>,
}

/// A task in the books.
#[derive(Debug)]
pub struct TaskBook {
    pub agent: AgentId,
    pub uses: Resources,
    pub state: TaskState,
    /// The last update that its framework was sent, with its uuid.
    pub told: Option<(TaskState, Vec<u8>)>,
    /// The number of its agent's last update.
    pub number: u64,
}

/// An open offer.
#[derive(Debug)]
pub struct OfferBook {
    pub framework: FrameworkId,
    pub agent: AgentId,
    pub role: String,
    /// Marked with the role.
    pub resources: Resources,
}

/// What has happened, to show that a simulation does what it is for.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    pub offers: u64,
    pub rescinds: u64,
    pub launched: u64,
    pub refused: u64,
    pub updates: u64,
    pub acknowledged: u64,
    pub verdicts: u64,
    pub unreachable: u64,
    pub removed: u64,
    pub gone: u64,
    pub inverse_offers: u64,
    pub registrations: u64,
    pub subscriptions: u64,
    pub frameworks_removed: u64,
    pub reconciled: u64,
}

// === impl Ledger: changes of the books ===

impl Ledger {
    pub(super) fn charge(&mut self, agent: &AgentId, framework: &FrameworkId, resources: &Resources) {
        if let Some(book) = self.agents.get_mut(agent) {
            *book.used.entry(framework.clone()).or_default() += resources;
        }
    }

    pub(super) fn release(
        &mut self,
        agent: &AgentId,
        framework: &FrameworkId,
        resources: &Resources,
    ) -> Result<(), String> {
        let Some(book) = self.agents.get_mut(agent) else { return Ok(()) };
        let used = book.used.entry(framework.clone()).or_default();
        if !used.contains(resources) {
            return Err(format!(
                "{resources} of {framework} on {agent} come back, but only {used} are charged"
            ));
        }
        *used -= resources;
        if used.is_empty() {
            book.used.remove(framework);
        }
        Ok(())
    }

    /// Enters a task, charged unless it uses nothing any more.
    pub(super) fn enter_task(&mut self, key: &Key, task: TaskBook) {
        if !holds_nothing(task.state) {
            self.charge(&task.agent, &key.0, &task.uses);
        }
        if let Some(book) = self.agents.get_mut(&task.agent) {
            book.tasks.insert(key.clone());
        }
        self.frameworks.entry(key.0.clone()).or_default().tasks.insert(key.1.clone(), task);
    }

    /// Takes a task out, and what it uses back.
    pub(super) fn remove_task(&mut self, key: &Key) -> Result<Option<TaskBook>, String> {
        let Some(framework) = self.frameworks.get_mut(&key.0) else { return Ok(None) };
        let Some(task) = framework.tasks.remove(&key.1) else { return Ok(None) };
        if !holds_nothing(task.state) {
            self.release(&task.agent, &key.0, &task.uses)?;
        }
        if let Some(book) = self.agents.get_mut(&task.agent) {
            book.tasks.remove(key);
        }
        Ok(Some(task))
    }

    /// A task has a new state; what it uses comes back with the first that uses nothing.
    pub(super) fn change_task(&mut self, key: &Key, state: TaskState) -> Result<(), String> {
        let Some(task) = self.frameworks.get_mut(&key.0).and_then(|book| book.tasks.get_mut(&key.1)) else {
            return Ok(());
        };
        let before = task.state;
        if is_terminal(before) {
            return Ok(());
        }
        task.state = state;
        if holds_nothing(state) && !holds_nothing(before) {
            let (agent, uses) = (task.agent.clone(), task.uses.clone());
            self.release(&agent, &key.0, &uses)?;
        }
        Ok(())
    }

    pub(super) fn enter_executor(
        &mut self,
        agent: &AgentId,
        key: (FrameworkId, ExecutorId),
        uses: Resources,
    ) {
        if !uses.is_empty() {
            self.charge(agent, &key.0, &uses);
        }
        if let Some(book) = self.agents.get_mut(agent) {
            book.executors.insert(key, uses);
        }
    }

    pub(super) fn remove_executor(
        &mut self,
        agent: &AgentId,
        key: &(FrameworkId, ExecutorId),
    ) -> Result<(), String> {
        let uses = self.agents.get_mut(agent).and_then(|book| book.executors.remove(key));
        match uses {
            Some(uses) if !uses.is_empty() => self.release(agent, &key.0, &uses),
            _ => Ok(()),
        }
    }

    pub(super) fn enter_offer(&mut self, id: OfferId, offer: OfferBook) {
        if let Some(book) = self.agents.get_mut(&offer.agent) {
            book.offered += &offer.resources;
            book.offers.insert(id.clone());
        }
        self.frameworks.entry(offer.framework.clone()).or_default().offers.insert(id.clone());
        self.offers.insert(id, offer);
    }

    /// Takes an offer out: used, declined, taken back or void.
    pub(super) fn remove_offer(&mut self, id: &OfferId) -> Option<OfferBook> {
        let offer = self.offers.remove(id)?;
        if let Some(book) = self.agents.get_mut(&offer.agent) {
            book.offered -= &offer.resources;
            book.offers.remove(id);
        }
        if let Some(book) = self.frameworks.get_mut(&offer.framework) {
            book.offers.remove(id);
        }
        Some(offer)
    }

    /// Voids all offers of a framework.
    pub(super) fn remove_offers(&mut self, framework: &FrameworkId) {
        let ids: Vec<OfferId> =
            self.frameworks.get(framework).into_iter().flat_map(|f| f.offers.clone()).collect();
        for id in ids {
            self.remove_offer(&id);
        }
    }

    pub(super) fn task(&self, key: &Key) -> Option<&TaskBook> {
        self.frameworks.get(&key.0)?.tasks.get(&key.1)
    }
}

/// Whether a task in this state uses nothing, as far as the coordinator is concerned.
pub(super) fn holds_nothing(state: TaskState) -> bool {
    is_terminal(state) || state == TaskState::TaskUnreachable
}
