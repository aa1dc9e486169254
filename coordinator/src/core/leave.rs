//! How agents go: disconnected, silent, unregistered.
//!
//! An agent is pinged for as long as it is in the books, whether or not it has a link. When it has
//! missed too many pings in a row it is unreachable: its tasks are told so, and forgotten until it is back.

use std::collections::BTreeMap;

use tepui_api::link::coordinator_frame::Body as Frame;
use tepui_api::v1::framework_info::capability::Type as Capability;
use tepui_api::v1::task_status::Reason;
use tepui_api::v1::{AgentId, FrameworkId, TaskId, TaskState, TaskStatus, TimeInfo};

use super::events::{self, Verdict, is_terminal};
use super::io::RegistryChange;
use super::registry::Pending;
use super::removals::Silence;
use super::timers::Timer;
use super::{Core, Framework, LinkId, gone};

/// How an agent answers pings.
#[derive(Debug, Default)]
pub(super) struct Observation {
    /// Of the last ping.
    number: u64,
    answered: bool,
    /// Pings in a row that it has not answered.
    missed: u32,
    /// It has answered one since it registered last.
    heard: bool,
}

/// Why an agent is taken out of the books.
#[derive(Debug)]
pub(super) enum Departure<'a> {
    /// It may come back with its tasks.
    Unreachable { since: TimeInfo, message: &'a str },
    /// It will not.
    Removed { cause: &'a str },
    /// It must not: an operator said so.
    Gone,
}

impl Core {
    pub(super) fn link_closed(&mut self, link: LinkId) {
        self.joining.open.remove(&link);
        if let Some(agent) = self.links.remove(&link) {
            self.disconnect_agent(&agent);
        }
    }

    /// The agent has no link any more. Its tasks go on, but for those of frameworks without
    /// `checkpoint`: an agent that restarted would not know them.
    pub(super) fn disconnect_agent(&mut self, id: &AgentId) {
        let Some(agent) = self.agent_mut(id) else { return };
        agent.link = None;
        tracing::info!(agent = %id, "an agent disconnected");
        let key = agent.key;
        let offers: Vec<_> = agent.offers.iter().copied().collect();
        let tasks: Vec<_> = agent.tasks.iter().cloned().collect();
        let executors: Vec<_> = agent.executors.iter().cloned().collect();
        let message = format!("Agent {} disconnected", agent.info.hostname);
        self.allocator.deactivate_agent(key);
        for offer in offers {
            self.rescind_offer(offer);
        }
        self.rescind_inverse_offers_of(id);
        // When the registry has written why it goes, its tasks are told that.
        let leaves = self.being_taken_out(id).is_some();
        let given_up = |core: &Self, framework: &FrameworkId| {
            !leaves && core.framework(framework).is_some_and(|framework| !framework.info.checkpoint())
        };
        for (framework, task_id) in tasks {
            // One that ended is still to be acknowledged, and the agent knows that.
            let live = self.task(&framework, &task_id).filter(|task| !is_terminal(task.state()));
            if live.is_some() && given_up(self, &framework) {
                let status = self.judge(
                    &framework,
                    &task_id,
                    TaskState::TaskLost,
                    Reason::AgentDisconnected,
                    &message,
                );
                self.give_up_task(&framework, &task_id, status, false);
            }
        }
        for (framework, executor) in executors {
            if given_up(self, &framework) {
                self.remove_executor(id, &framework, &executor);
            }
        }
    }

    pub(super) fn unregister(&mut self, id: &AgentId) {
        self.state.counters.messages_unregister_slave += 1;
        self.state.counters.slave_removals_reason_unregistered += 1;
        self.remove_agent(id, "the agent unregistered");
    }

    /// Begins to watch an agent that has registered.
    pub(super) fn observe_agent(&mut self, id: &AgentId) {
        let number = self.next_ping();
        self.observations.insert(id.clone(), Observation { number, ..Observation::default() });
        self.send_ping(id, number);
    }

    pub(super) fn pong(&mut self, id: &AgentId, number: u64) {
        if let Some(observation) = self.observations.get_mut(id)
            && observation.number == number
        {
            observation.answered = true;
            observation.heard = true;
            self.cancel_removal(id);
        }
    }

    /// Whether the process that holds this id is certain to live: it has a link, and has answered over it.
    pub(super) fn holder_lives(&self, id: &AgentId) -> bool {
        self.agent(id).is_some_and(super::Agent::connected)
            && self.observations.get(id).is_some_and(|o| o.heard)
    }

    /// The time to answer a ping is over.
    pub(super) fn ping(&mut self, id: &AgentId, number: u64) {
        let Some(observation) = self.observations.get_mut(id).filter(|o| o.number == number) else { return };
        observation.missed = if observation.answered { 0 } else { observation.missed + 1 };
        let silent = observation.missed >= self.settings.max_agent_ping_timeouts;
        let next = self.next_ping();
        if let Some(observation) = self.observations.get_mut(id) {
            observation.number = next;
            observation.answered = false;
        }
        self.send_ping(id, next);
        if silent && !self.in_registry.contains(id) {
            self.schedule_removal(id, Silence::Pings);
        }
    }

    fn send_ping(&mut self, id: &AgentId, number: u64) {
        self.frame(id, Frame::Ping(number));
        self.timers.set(self.now.uptime + self.settings.agent_ping_timeout, Timer::Ping(id.clone(), number));
    }

    fn next_ping(&mut self) -> u64 {
        self.next.ping += 1;
        self.next.ping
    }

    pub(super) fn mark_unreachable(&mut self, id: &AgentId, message: &str) {
        let since = events::time_info(self.now.wall);
        tracing::warn!(agent = %id, message, "marking an agent unreachable");
        let change = RegistryChange::Unreachable { agent: id.clone(), since };
        let pending = Pending::Unreachable { agent: id.clone(), since, message: message.to_owned() };
        self.persist(Some(id), change, pending);
    }

    /// The registry has an agent as unreachable.
    pub(super) fn unreachable(&mut self, id: &AgentId, since: TimeInfo, message: &str) {
        self.state.unreachable_agents.insert(id.clone(), since);
        self.state.counters.slave_removals += 1;
        self.state.counters.slave_unreachable_completed += 1;
        self.state.counters.slave_removals_reason_unhealthy += 1;
        if self.state.recovered_agents.remove(id).is_some() {
            self.state.counters.recovery_slave_removals += 1;
            self.announce_lost(id);
        } else {
            self.take_down(id, &Departure::Unreachable { since, message });
        }
    }

    /// Begins to take a registered agent out of the books for good.
    pub(super) fn remove_agent(&mut self, id: &AgentId, cause: &str) {
        if self.in_registry.contains(id) {
            tracing::warn!(agent = %id, cause, "an agent is not removed while the registry writes something else of it");
            return;
        }
        tracing::info!(agent = %id, cause, "removing an agent");
        let pending = Pending::Remove { agent: id.clone(), cause: cause.to_owned() };
        self.persist(Some(id), RegistryChange::Remove(id.clone()), pending);
    }

    /// Takes an agent out of the books, with all that is on it.
    pub(super) fn take_down(&mut self, id: &AgentId, why: &Departure) {
        let Some(agent) = self.agent(id) else { return };
        let (key, link, address) = (agent.key, agent.link, agent.address.clone());
        let machine = agent.machine.clone();
        let hostname = agent.info.hostname.clone();
        let tasks: Vec<_> = agent.tasks.iter().cloned().collect();
        let executors: Vec<_> = agent.executors.iter().cloned().collect();
        let offers: Vec<_> = agent.offers.iter().copied().collect();
        self.allocator.deactivate_agent(key);
        let (message, since) = match why {
            Departure::Unreachable { since, message } => ((*message).to_owned(), Some(*since)),
            Departure::Removed { cause } => (format!("Agent {hostname} removed: {cause}"), None),
            Departure::Gone => (gone::MESSAGE.to_owned(), None),
        };
        let mut verdicts: BTreeMap<FrameworkId, (TaskState, Reason)> = BTreeMap::new();
        for (framework, task_id) in tasks {
            let (state, reason) = *verdicts.entry(framework.clone()).or_insert_with(|| {
                let aware =
                    self.framework(&framework).is_some_and(|f: &Framework| f.has(Capability::PartitionAware));
                match why {
                    Departure::Unreachable { .. } if aware => {
                        (TaskState::TaskUnreachable, Reason::AgentRemoved)
                    }
                    Departure::Unreachable { .. } | Departure::Removed { .. } => {
                        (TaskState::TaskLost, Reason::AgentRemoved)
                    }
                    Departure::Gone => gone::verdict(aware),
                }
            });
            let status = self.judge(&framework, &task_id, state, reason, &message);
            let status = status.map(|status| TaskStatus { unreachable_time: since, ..status });
            self.give_up_task(&framework, &task_id, status, since.is_some());
        }
        for (framework, executor) in executors {
            self.remove_executor(id, &framework, &executor);
        }
        for offer in offers {
            self.rescind_offer(offer);
        }
        self.forget_answers_of(id);
        self.cancel_removal(id);
        if !matches!(why, Departure::Unreachable { .. }) {
            self.forget_deactivation(id);
        }
        self.allocator.remove_agent(key);
        self.agents_by_key.remove(&key);
        self.state.agents.remove(id);
        if let Some(agents) = self.on_machines.get_mut(&machine) {
            agents.remove(id);
            if agents.is_empty() {
                self.on_machines.remove(&machine);
            }
        }
        if self.addresses.get(&address) == Some(id) {
            self.addresses.remove(&address);
        }
        self.observations.remove(id);
        self.kills.remove(id);
        self.joining.displaced.remove(id);
        if let Some(link) = link {
            self.close_link(link);
        }
        self.announce_lost(id);
        self.notify(|_| Some(events::agent_removed(id.clone())));
    }

    /// What the coordinator says of a task in its books.
    fn judge(
        &self,
        framework: &FrameworkId,
        task_id: &TaskId,
        state: TaskState,
        reason: Reason,
        message: &str,
    ) -> Option<TaskStatus> {
        let task = self.task(framework, task_id)?;
        let verdict = Verdict {
            task: task_id,
            agent: Some(&task.agent_id),
            executor: task.executor_id.as_ref(),
            state,
            reason,
            message: message.to_owned(),
        };
        Some(verdict.status(self.now.wall))
    }

    /// Takes a task out of the books that is not ended by its agent, and tells its framework.
    fn give_up_task(
        &mut self,
        framework: &FrameworkId,
        task_id: &TaskId,
        status: Option<TaskStatus>,
        unreachable: bool,
    ) {
        let Some(status) = status else { return };
        self.update_task(framework, task_id, status.clone(), None);
        self.remove_task(framework, task_id, unreachable);
        self.send(framework, events::update(status));
    }

    /// Tells all frameworks that an agent is gone.
    fn announce_lost(&mut self, id: &AgentId) {
        let connected = self.state.frameworks.values().filter(|framework| framework.connected());
        let connected: Vec<FrameworkId> = connected.map(|framework| framework.id.clone()).collect();
        let event = events::failure(id.clone(), None);
        for framework in connected {
            self.send(&framework, event.clone());
        }
    }
}
