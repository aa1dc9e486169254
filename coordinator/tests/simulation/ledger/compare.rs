//! The ledger beside the core's own books: they must agree, and nothing may be there twice.

use std::sync::Arc;

use tepui_api::resources::Resources;
use tepui_coordinator::core::{Agent, Core, Framework, Input};

use super::{Checked, Ledger, Step};

/// Everything is looked at so often, what changed in a step always.
const EVERYTHING: u64 = 64;

impl Ledger {
    pub(super) fn compare(&mut self, core: &Core, step: &Step) -> Checked {
        if let Input::Persisted { ticket } = step.input {
            self.pending.remove(ticket);
        }
        let all = self.steps.is_multiple_of(EVERYTHING);
        for (id, agent) in &step.after.agents {
            if all || self.before.agents.get(id).is_none_or(|old| !Arc::ptr_eq(old, agent)) {
                self.compare_agent(agent)?;
                core.audit_agent(id).map_err(|broken| broken.to_string())?;
            }
        }
        for (id, framework) in &step.after.frameworks {
            if all || self.before.frameworks.get(id).is_none_or(|old| !Arc::ptr_eq(old, framework)) {
                self.compare_framework(framework)?;
            }
        }
        if all {
            core.audit().map_err(|broken| broken.to_string())?;
        }
        Ok(())
    }

    fn compare_agent(&self, agent: &Agent) -> Checked {
        let id = &agent.id;
        let Some(book) = self.agents.get(id) else {
            return Err(format!("agent {id} should not be in the books"));
        };
        if book.total != agent.total {
            return Err(format!("agent {id} has {}, and the core says {}", book.total, agent.total));
        }
        if book.offered != agent.offered {
            return Err(format!(
                "of agent {id}, {} are offered, and the core says {}",
                book.offered, agent.offered
            ));
        }
        for framework in book.used.keys().chain(agent.used.keys()) {
            let (expected, found) = (book.used.get(framework), agent.used.get(framework));
            if expected != found {
                let show = |used: Option<&Resources>| used.map_or("nothing".to_owned(), Resources::to_string);
                let (expected, found) = (show(expected), show(found));
                return Err(format!("{framework} uses {expected} on agent {id}, and the core says {found}"));
            }
        }
        if let Some((framework, task)) = book.tasks.iter().find(|key| !agent.tasks.contains(*key)) {
            return Err(format!(
                "task {task} of {framework} should be on agent {id}, and the core has forgotten it"
            ));
        }
        if let Some((framework, task)) = agent.tasks.iter().find(|key| !book.tasks.contains(*key)) {
            return Err(format!(
                "task {task} of {framework} should not be on agent {id}, but the core believes so"
            ));
        }
        let mut used = Resources::new();
        book.used.values().for_each(|of_one| used += of_one);
        let used = used.unallocated();
        let offered = book.offered.clone().unallocated();
        let fits = if book.shrunk {
            (&book.total - &used).contains(&offered)
        } else {
            book.total.contains(&(&used + &offered))
        };
        if !fits {
            let total = &book.total;
            return Err(format!("agent {id} has {total}, but {used} are used and {offered} offered"));
        }
        Ok(())
    }

    fn compare_framework(&self, framework: &Framework) -> Checked {
        let id = &framework.id;
        let empty = super::FrameworkBook::default();
        let book = self.frameworks.get(id).unwrap_or(&empty);
        for (task_id, task) in &book.tasks {
            let Some(known) = framework.tasks.get(task_id) else {
                return Err(format!("task {task_id} of {id}, which is {:?}, was forgotten", task.state));
            };
            if known.agent_id != task.agent || known.state() != task.state {
                let (state, agent) = (task.state, &task.agent);
                let (known, on) = (known.state(), &known.agent_id);
                return Err(format!(
                    "task {task_id} of {id} is {state:?} on {agent}, the core says {known:?} on {on}"
                ));
            }
        }
        if let Some(surplus) = framework.tasks.keys().find(|task| !book.tasks.contains_key(*task)) {
            return Err(format!("task {surplus} of {id} should not be in the books any more"));
        }
        if framework.offers.len() != book.offers.len() {
            let found: Vec<_> = framework.offers.values().map(|held| &held.offer.id).collect();
            return Err(format!("{id} has the offers {:?}, and the core says {found:?}", book.offers));
        }
        if let Some(task) = book.unreachable.keys().find(|task| !framework.unreachable_tasks.contains(task)) {
            return Err(format!("the unreachable task {task} of {id} was forgotten"));
        }
        if !book.offers.is_empty() && !framework.connected() {
            return Err(format!("{id} is away, but has open offers"));
        }
        Ok(())
    }
}
