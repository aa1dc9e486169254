//! How fast agents that fell silent become unreachable.
//!
//! With `--agent_removal_rate_limit` they wait for their turn, one every so often: should it be the coordinator
//! that is cut off, and not they, someone has the time to notice. Who is heard of again leaves the queue.
//! Agents that were awaited after a start wait in the same queue; too many of them end the coordinator.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tepui_api::v1::AgentId;

use super::timers::Timer;
use super::{Core, Output};

/// Who waits for a turn, and when the next one is.
#[derive(Debug, Default)]
pub(super) struct Removals {
    /// In their order, each with a number; some may have left since.
    queue: VecDeque<(u64, AgentId, Silence)>,
    /// Those who wait, with the number of their place.
    waiting: HashMap<AgentId, u64>,
    number: u64,
    next: Duration,
}

/// Why an agent is to become unreachable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Silence {
    /// It has not answered pings.
    Pings,
    /// It did not come back after the coordinator's start.
    Recovery,
}

impl Silence {
    fn message(self, core: &Core) -> String {
        match self {
            Self::Pings => "health check timed out".to_owned(),
            Self::Recovery => format!(
                "did not reregister within {} after master failover",
                tepui_api::units::Duration(core.settings.agent_reregister_timeout)
            ),
        }
    }
}

impl Core {
    /// Gives up an agent as soon as its turn comes.
    pub(super) fn schedule_removal(&mut self, id: &AgentId, why: Silence) {
        if self.removals.waiting.contains_key(id) {
            return;
        }
        self.state.counters.slave_unreachable_scheduled += 1;
        let Some(rate) = self.settings.agent_removal_rate_limit else {
            return self.give_up(id, why);
        };
        if self.removals.waiting.is_empty() && self.removals.next <= self.now.uptime {
            self.removals.next = self.now.uptime + rate.spacing;
            return self.give_up(id, why);
        }
        tracing::info!(agent = %id, "a silent agent waits for its turn to become unreachable");
        if self.removals.waiting.is_empty() {
            self.timers.set(self.removals.next, Timer::Removal);
        }
        self.removals.number += 1;
        let number = self.removals.number;
        self.removals.waiting.insert(id.clone(), number);
        self.removals.queue.push_back((number, id.clone(), why));
    }

    /// The agent has been heard of.
    pub(super) fn cancel_removal(&mut self, id: &AgentId) {
        if self.removals.waiting.remove(id).is_some() {
            tracing::info!(agent = %id, "an agent that was to become unreachable is heard of again");
            self.state.counters.slave_unreachable_canceled += 1;
        }
    }

    /// It is the next one's turn.
    pub(super) fn next_removal(&mut self) {
        let Some(rate) = self.settings.agent_removal_rate_limit else { return };
        // Those who left the queue leave their turn to the next.
        while self.now.uptime >= self.removals.next
            && let Some((number, id, why)) = self.removals.queue.pop_front()
        {
            if self.removals.waiting.get(&id) == Some(&number) {
                self.removals.waiting.remove(&id);
                self.removals.next = self.now.uptime + rate.spacing;
                self.give_up(&id, why);
            }
        }
        if !self.removals.waiting.is_empty() {
            self.timers.set(self.removals.next, Timer::Removal);
        }
    }

    fn give_up(&mut self, id: &AgentId, why: Silence) {
        let there = match why {
            Silence::Pings => self.agent(id).is_some(),
            Silence::Recovery => self.state.recovered_agents.contains_key(id),
        };
        if there && !self.in_registry.contains(id) {
            let message = why.message(self);
            self.mark_unreachable(id, &message);
        } else {
            self.state.counters.slave_unreachable_canceled += 1;
        }
    }

    /// Gives up on the agents that were awaited after the start; if they are too many, on this coordinator.
    pub(super) fn reregistration_ends(&mut self) {
        let awaited: Vec<AgentId> = self.state.recovered_agents.keys().cloned().collect();
        #[expect(clippy::cast_precision_loss, reason = "numbers of agents are far below 2^53")]
        let share = awaited.len() as f64 / self.expected_agents.max(1) as f64;
        let limit = self.settings.recovery_agent_removal_limit;
        if share > limit {
            let message = format!(
                "{} of {} known agents ({:.1} %) did not come back within {}, and --recovery_agent_removal_limit \
                 is {:.1} %; see why they are away, or raise the limit",
                awaited.len(),
                self.expected_agents,
                share * 100.0,
                tepui_api::units::Duration(self.settings.agent_reregister_timeout),
                limit * 100.0,
            );
            tracing::error!(message, "the coordinator ends rather than giving up so many agents");
            return self.out.push(Output::Fail(message));
        }
        for agent in awaited {
            if !self.in_registry.contains(&agent) {
                self.schedule_removal(&agent, Silence::Recovery);
            }
        }
    }
}
