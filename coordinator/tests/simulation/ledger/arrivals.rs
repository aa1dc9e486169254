//! What comes and goes: agents, frameworks, and what happens to tasks then.

use std::collections::BTreeSet;

use tepui_api::link::Register;
use tepui_api::link::coordinator_frame::Body as Order;
use tepui_api::resources::Resources;
use tepui_api::v1::{self, AgentId, ExecutorId, FrameworkId, OfferId, TaskState};
use tepui_coordinator::core::{Connection, Input, OperatorCall, Output, RegistryChange, Ticket};

use super::{AgentBook, Checked, Ledger, Step, TaskBook};
use crate::model::{Key, is_terminal};

impl Ledger {
    /// Compares the core's state with that before the step: who came, who went.
    pub(super) fn take_changes(&mut self, step: &mut Step) -> Checked {
        self.take_forgotten(step);
        self.take_leaving_frameworks(step)?;
        let gone: Vec<AgentId> =
            self.before.agents.keys().filter(|id| !step.after.agents.contains_key(*id)).cloned().collect();
        for id in gone {
            self.agent_goes(step, &id)?;
        }
        for (id, agent) in &step.after.agents {
            let old = self.before.agents.get(id);
            if old.is_some_and(|old| std::sync::Arc::ptr_eq(old, agent)) {
                continue;
            }
            let (was_linked, old_version) =
                (old.is_some_and(|old| old.link.is_some()), old.map(|old| old.version.clone()));
            if old_version.as_ref() != Some(&agent.version) {
                let Some(register) = self.registers.remove(&agent.version) else {
                    return Err(format!("agent {id} is in the books without having registered"));
                };
                let earlier = self.overtaken(step, id, &agent.version);
                let mut known = old_version.is_some();
                for register in earlier.into_iter().chain([register]) {
                    self.counts.registrations += 1;
                    if std::mem::replace(&mut known, true) {
                        self.agent_resumes(step, id, &register)?;
                    } else {
                        self.agent_comes(step, id, &register)?;
                    }
                }
                if agent.link.is_none() {
                    self.agent_disconnects(step, id)?;
                }
            } else if was_linked && agent.link.is_none() {
                self.agent_disconnects(step, id)?;
            }
        }
        Ok(())
    }

    /// Registrations of an agent that were answered in this step before the one that counts: it had waited for the
    /// registry behind them.
    fn overtaken(&mut self, step: &Step, id: &AgentId, last: &str) -> Vec<Register> {
        let answered = step.outputs.iter().filter_map(|output| match output {
            Output::Frame { link, frame: Order::Registered(registered) } if registered.agent_id == *id => {
                self.tags.get(link).filter(|tag| *tag != last)
            }
            _ => None,
        });
        let tags: Vec<String> = answered.cloned().collect();
        tags.iter().filter_map(|tag| self.registers.remove(tag)).collect()
    }

    /// Tasks of unreachable agents are remembered until their agents are forgotten, or are gone.
    fn take_forgotten(&mut self, step: &Step) {
        let Input::Persisted { ticket } = step.input else { return };
        let forgotten: Vec<AgentId> = match self.pending.get(ticket) {
            Some(RegistryChange::Forget(agents)) => agents.clone(),
            Some(RegistryChange::Gone { agent, .. }) => vec![agent.clone()],
            _ => return,
        };
        for framework in self.frameworks.values_mut() {
            framework.unreachable.retain(|_, agent| !forgotten.contains(agent));
        }
    }

    fn take_leaving_frameworks(&mut self, step: &mut Step) -> Checked {
        let mut void: Vec<FrameworkId> = Vec::new();
        let mut gone: Vec<FrameworkId> = Vec::new();
        for (id, old) in &self.before.frameworks {
            match step.after.frameworks.get(id) {
                None => gone.push(id.clone()),
                Some(new) if old.stream() != new.stream() => void.push(id.clone()),
                Some(_) => {}
            }
        }
        for id in gone {
            let torn_down = self.torn_down.contains(&id)
                || matches!(step.input, Input::Operator { call: OperatorCall::Teardown(named), .. } if *named == id);
            let old = &self.before.frameworks[&id];
            let timed_out = match old.connection {
                Connection::Disconnected { until } => until <= step.now.uptime,
                // It may be given up in the step in which it disconnects.
                Connection::Subscribed(stream) => {
                    matches!(step.input, Input::StreamClosed { stream: closed } if *closed == stream)
                        && old.info.failover_timeout() <= 0.0
                }
                _ => false,
            };
            if !torn_down && !timed_out {
                return Err(format!(
                    "framework {id} was removed without a reason; it was {:?}",
                    old.connection
                ));
            }
            self.framework_goes(&id)?;
        }
        for id in void {
            self.remove_offers(&id);
        }
        Ok(())
    }

    fn framework_goes(&mut self, id: &FrameworkId) -> Checked {
        self.counts.frameworks_removed += 1;
        self.remove_offers(id);
        let tasks: Vec<Key> = self
            .frameworks
            .get(id)
            .into_iter()
            .flat_map(|f| f.tasks.keys())
            .map(|task| (id.clone(), task.clone()))
            .collect();
        for key in tasks {
            self.remove_task(&key)?;
        }
        let agents: Vec<AgentId> = self.agents.keys().cloned().collect();
        for agent in agents {
            let executors: Vec<(FrameworkId, ExecutorId)> =
                self.agents[&agent].executors.keys().filter(|key| key.0 == *id).cloned().collect();
            for key in executors {
                self.remove_executor(&agent, &key)?;
            }
        }
        self.frameworks.remove(id);
        Ok(())
    }

    fn agent_goes(&mut self, step: &mut Step, id: &AgentId) -> Checked {
        let Input::Persisted { ticket } = step.input else {
            return Err(format!("agent {id} was removed before the registry knew"));
        };
        let unreachable = match self.pending.get(ticket) {
            Some(RegistryChange::Unreachable { agent, .. }) if agent == id => true,
            Some(RegistryChange::Remove(agent)) if agent == id => false,
            Some(RegistryChange::Gone { agent, .. }) if agent == id => {
                self.counts.gone += 1;
                false
            }
            other => return Err(format!("agent {id} was removed when the registry had written {other:?}")),
        };
        if unreachable {
            self.counts.unreachable += 1;
        } else {
            self.counts.removed += 1;
        }
        let Some(book) = self.agents.get(id) else { return Ok(()) };
        let tasks: Vec<Key> = book.tasks.iter().cloned().collect();
        let executors: Vec<_> = book.executors.keys().cloned().collect();
        for key in tasks {
            self.remove_task(&key)?;
            if unreachable && let Some(framework) = self.frameworks.get_mut(&key.0) {
                framework.unreachable.insert(key.1.clone(), id.clone());
            }
            step.given_up.push(key);
        }
        for key in executors {
            self.remove_executor(id, &key)?;
        }
        // Offers have been taken back with RESCIND, which is looked at with the outputs.
        Ok(())
    }

    /// An agent that was not in the books: all it has is as it says.
    fn agent_comes(&mut self, step: &Step, id: &AgentId, register: &Register) -> Checked {
        let total = Resources::from_wire_lossy(&register.agent.resources);
        self.agents.insert(id.clone(), AgentBook { total, ..AgentBook::default() });
        for framework in self.frameworks.values_mut() {
            framework.unreachable.retain(|_, agent| agent != id);
        }
        for executor in &register.executors {
            self.take_over_executor(step, id, executor);
        }
        for task in &register.tasks {
            self.take_over_task(step, id, task);
        }
        self.note_size(id);
        Ok(())
    }

    /// An agent that was there registers again: what it lacks it is asked about, what is new is taken over.
    fn agent_resumes(&mut self, step: &Step, id: &AgentId, register: &Register) -> Checked {
        let total = Resources::from_wire_lossy(&register.agent.resources);
        let Some(book) = self.agents.get_mut(id) else { return Err(format!("agent {id} has no book")) };
        book.total = total;
        let named: BTreeSet<(FrameworkId, ExecutorId)> = (register.executors.iter())
            .filter_map(|executor| Some((executor.framework_id.clone()?, executor.executor_id.clone())))
            .collect();
        let lacking: Vec<_> = book.executors.keys().filter(|key| !named.contains(*key)).cloned().collect();
        for key in lacking {
            self.remove_executor(id, &key)?;
        }
        for executor in &register.executors {
            self.take_over_executor(step, id, executor);
        }
        for task in register.tasks.iter().filter(|task| !is_terminal(task.state())) {
            self.take_over_task(step, id, task);
        }
        self.note_size(id);
        Ok(())
    }

    fn note_size(&mut self, id: &AgentId) {
        if let Some(book) = self.agents.get_mut(id) {
            let mut used = Resources::new();
            book.used.values().for_each(|of_one| used += of_one);
            book.shrunk = !book.total.contains(&used.unallocated());
        }
    }

    fn take_over_executor(&mut self, step: &Step, id: &AgentId, executor: &v1::ExecutorInfo) {
        let Some(framework) = &executor.framework_id else { return };
        let key = (framework.clone(), executor.executor_id.clone());
        let known = self.agents.get(id).is_some_and(|book| book.executors.contains_key(&key));
        if !known && step.after.frameworks.contains_key(framework) {
            self.enter_executor(id, key, Resources::from_wire_lossy(&executor.resources));
        }
    }

    fn take_over_task(&mut self, step: &Step, id: &AgentId, task: &v1::Task) {
        let key = (task.framework_id.clone(), task.task_id.clone());
        // One that has ended is ended on the agent too; one whose id is used elsewhere by now is killed.
        if !step.after.frameworks.contains_key(&key.0) || self.task(&key).is_some() {
            return;
        }
        let told = task.status_update_state.zip(task.status_update_uuid.clone());
        let told = told.and_then(|(state, uuid)| Some((TaskState::try_from(state).ok()?, uuid)));
        let uses = Resources::from_wire_lossy(&task.resources);
        self.enter_task(&key, TaskBook { agent: id.clone(), uses, state: task.state(), told, number: 0 });
    }

    /// Without a link nothing is known of tasks whose framework has nothing written down.
    fn agent_disconnects(&mut self, step: &mut Step, id: &AgentId) -> Checked {
        let Some(book) = self.agents.get(id) else { return Ok(()) };
        let leaves = self.leaves(step, id);
        let given_up = |framework: &FrameworkId| {
            !leaves
                && step.after.frameworks.get(framework).is_some_and(|framework| !framework.info.checkpoint())
        };
        let tasks: Vec<Key> = (book.tasks.iter())
            .filter(|key| given_up(&key.0) && self.task(key).is_some_and(|task| !is_terminal(task.state)))
            .cloned()
            .collect();
        let executors: Vec<_> = book.executors.keys().filter(|key| given_up(&key.0)).cloned().collect();
        for key in tasks {
            self.remove_task(&key)?;
            step.given_up.push(key);
        }
        for key in executors {
            self.remove_executor(id, &key)?;
        }
        Ok(())
    }

    /// Whether an agent was on its way out before this step: its tasks are told of that when the registry has it.
    fn leaves(&self, step: &Step, id: &AgentId) -> bool {
        let asks = |output: &Output, asked: &Ticket| matches!(output, Output::Persist { ticket, .. } if ticket == asked);
        let asked_now = |asked: &Ticket| step.outputs.iter().any(|output| asks(output, asked));
        self.pending.iter().any(|(ticket, change)| {
            let it = match change {
                RegistryChange::Remove(agent) | RegistryChange::Gone { agent, .. } => agent == id,
                _ => false,
            };
            it && !asked_now(ticket)
        })
    }

    /// All that an agent has told of its size.
    pub(super) fn resize(&mut self, id: &AgentId, total: Resources) {
        if let Some(book) = self.agents.get_mut(id) {
            book.total = total;
        }
        self.note_size(id);
    }

    /// The books of agents that have gone are closed when nothing is left in them.
    pub(super) fn close_books(&mut self, step: &Step) -> Checked {
        let gone: Vec<AgentId> =
            self.agents.keys().filter(|id| !step.after.agents.contains_key(*id)).cloned().collect();
        for id in gone {
            let Some(book) = self.agents.remove(&id) else { continue };
            if let Some(offer) = book.offers.first() {
                return Err(format!("agent {id} is gone, but its offer {offer} was not taken back"));
            }
            if !book.tasks.is_empty() || !book.used.is_empty() {
                return Err(format!("agent {id} is gone, but {:?} are charged on it", book.used));
            }
        }
        let connected = |id: &OfferId| {
            let offer = self.offers.get(id);
            offer.is_some_and(|offer| step.after.agents.get(&offer.agent).is_some_and(|agent| agent.active()))
        };
        match self.offers.keys().find(|id| !connected(id)) {
            Some(offer) => Err(format!("the offer {offer} is open, but its agent is not active")),
            None => Ok(()),
        }
    }
}
