//! What waits for the registry, and what it held at the start.
//!
//! Whether an agent is admitted, unreachable or gone is only acted on, and told to anyone, once the
//! registry has it. While it writes something of an agent, nothing else is begun with that agent: a
//! registration that comes meanwhile waits.

use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use tepui_api::link::Register;
use tepui_api::v1::{AgentId, TimeInfo};

use super::drain::{Change, Deactivation};
use super::io::{Recovered, RegistryChange, Ticket};
use super::join::Arrival;
use super::leave::Departure;
use super::maintenance::Plan;
use super::timers::Timer;
use super::{Core, Output, Reply, RequestId, events};

/// Between two looks for agents to forget, as in Mesos.
const GC_INTERVAL: Duration = Duration::from_mins(15);

/// What goes on once the registry has a change.
#[derive(Debug)]
pub(super) enum Pending {
    /// A new agent joins.
    Admit(Box<Arrival>),
    /// An agent comes that is admitted, or was, but has not been here since the start or since it
    /// was unreachable.
    Readmit(Box<Arrival>),
    /// A registered agent comes back changed.
    Resume(Box<Arrival>),
    /// A registered or awaited agent has fallen silent.
    Unreachable { agent: AgentId, since: TimeInfo, message: String },
    /// A registered agent leaves for good.
    Remove { agent: AgentId, cause: String },
    /// Nothing; these are forgotten.
    Forget(Vec<AgentId>),
    /// Nothing; these gone agents are forgotten.
    ForgetGone(Vec<AgentId>),
    /// An agent is lost for good; by a call, or because it is drained.
    Gone { agent: AgentId, at: TimeInfo, request: Option<RequestId> },
    /// What is offered of an agent changes; by a call, or because it is drained.
    Deactivation { agent: AgentId, change: Change, request: Option<RequestId> },
    /// A call changes what maintenance is planned.
    Maintenance { plan: Box<Plan>, request: RequestId },
    /// A call gives roles other weights.
    Weights { weights: Vec<(String, f64)>, request: RequestId },
    /// Nothing.
    Nothing,
}

impl Pending {
    /// The agent that is on its way out, and what becomes of it.
    fn takes_out(&self) -> Option<(&AgentId, &'static str)> {
        match self {
            Self::Gone { agent, .. } => Some((agent, "being marked gone")),
            Self::Remove { agent, .. } => Some((agent, "being removed")),
            _ => None,
        }
    }
}

impl Core {
    pub(super) fn recover(&mut self, recovered: Recovered) {
        for info in recovered.admitted {
            if let Some(id) = info.id.clone() {
                self.state.recovered_agents.insert(id, Arc::new(info));
            }
        }
        self.state.unreachable_agents = recovered.unreachable.into_iter().collect();
        self.state.gone_agents = recovered.gone.into_iter().collect();
        for (id, drain) in recovered.deactivated {
            if self.is_known(&id) {
                self.deactivations.agents.insert(id, Deactivation::new(drain));
            }
        }
        self.minimum_capabilities = recovered.minimum_capabilities.into_iter().collect();
        self.state.maintenance = Plan::recovered(recovered.maintenance);
        self.recover_weights(recovered.weights);
        self.schedule_inverse_offers();
        let uptime = self.now.uptime;
        if !self.state.recovered_agents.is_empty() {
            self.timers.set(uptime + self.settings.agent_reregister_timeout, Timer::ReregistrationEnds);
        }
        self.timers.set(uptime + GC_INTERVAL, Timer::RegistryGc);
    }

    /// Asks for a change to be written, and says what goes on then.
    pub(super) fn persist(&mut self, agent: Option<&AgentId>, change: RegistryChange, pending: Pending) {
        let ticket = Ticket(self.next.ticket);
        self.next.ticket += 1;
        if let Some(agent) = agent {
            let new = self.in_registry.insert(agent.clone());
            debug_assert!(new, "one change of an agent is written at a time");
        }
        self.pending.insert(ticket, pending);
        self.out.push(Output::Persist { ticket, change });
    }

    pub(super) fn persisted(&mut self, ticket: Ticket) {
        let Some(pending) = self.pending.remove(&ticket) else { return };
        match pending {
            Pending::Admit(arrival) => self.admitted(*arrival),
            Pending::Readmit(arrival) => {
                let agent = self.written(arrival.register.agent.id.as_ref());
                let arrival = self.newest(*arrival);
                self.readmitted(arrival);
                self.go_on_with(agent);
            }
            Pending::Resume(arrival) => {
                let agent = self.written(arrival.register.agent.id.as_ref());
                let arrival = self.newest(*arrival);
                self.resume(arrival);
                self.go_on_with(agent);
            }
            Pending::Unreachable { agent, since, message } => {
                self.written(Some(&agent));
                self.unreachable(&agent, since, &message);
                self.go_on_with(Some(agent));
            }
            Pending::Remove { agent, cause } => {
                self.written(Some(&agent));
                self.state.counters.slave_removals += 1;
                self.take_down(&agent, &Departure::Removed { cause: &cause });
                self.go_on_with(Some(agent));
            }
            Pending::Forget(agents) => {
                for agent in agents {
                    self.state.unreachable_agents.remove(&agent);
                    self.forget_unreachable_tasks(&agent);
                    self.forget_deactivation(&agent);
                }
            }
            Pending::ForgetGone(agents) => {
                for agent in agents {
                    self.state.gone_agents.remove(&agent);
                }
            }
            Pending::Gone { agent, at, request } => {
                self.written(Some(&agent));
                self.gone(&agent, at);
                if let Some(request) = request {
                    self.reply(request, Reply::Ok);
                }
                self.go_on_with(Some(agent));
            }
            Pending::Deactivation { agent, change, request } => {
                self.deactivation_written(&agent, change, request);
            }
            Pending::Maintenance { plan, request } => self.maintenance_written(*plan, request),
            Pending::Weights { weights, request } => self.weights_written(weights, request),
            Pending::Nothing => {}
        }
    }

    /// What the registry is writing of an agent's admission, if it is.
    pub(super) fn being_written(&self, id: &AgentId) -> Option<&'static str> {
        self.in_registry.contains(id).then(|| self.being_taken_out(id).unwrap_or("being written"))
    }

    /// What becomes of an agent that is on its way out.
    pub(super) fn being_taken_out(&self, id: &AgentId) -> Option<&'static str> {
        if !self.in_registry.contains(id) {
            return None;
        }
        self.pending
            .values()
            .filter_map(Pending::takes_out)
            .find(|(agent, _)| *agent == id)
            .map(|(_, what)| what)
    }

    fn written(&mut self, agent: Option<&AgentId>) -> Option<AgentId> {
        self.in_registry.remove(agent?);
        agent.cloned()
    }

    /// When the link of a registration has closed while the registry was writing, and the agent has come over
    /// another saying the same of itself, that one counts: the agent was never without a link that mattered.
    fn newest(&mut self, arrival: Arrival) -> Arrival {
        if self.joining.open.contains(&arrival.link) {
            return arrival;
        }
        let Some(id) = &arrival.register.agent.id else { return arrival };
        let newer = self.joining.waiting.get(id);
        let newer = newer.filter(|newer| {
            newer.register.agent == arrival.register.agent && self.joining.open.contains(&newer.link)
        });
        if newer.is_none() {
            return arrival;
        }
        self.joining.waiting.remove(id).unwrap_or(arrival)
    }

    /// A registration that came while the registry was writing.
    fn go_on_with(&mut self, agent: Option<AgentId>) {
        let Some(agent) = agent else { return };
        self.deactivations.to_check.insert(agent.clone());
        if let Some(arrival) = self.joining.waiting.remove(&agent)
            && self.joining.open.contains(&arrival.link)
            && !self.turn_away_gone(arrival.link, &agent)
            && !self.turn_away_down(arrival.link, &arrival.register)
        {
            self.rejoin(arrival);
        }
    }

    /// Forgets unreachable and gone agents beyond the limits of age and number, the oldest first.
    pub(super) fn collect_registry_garbage(&mut self) {
        let unreachable = self.too_many_or_old(&self.state.unreachable_agents);
        if !unreachable.is_empty() {
            self.persist(None, RegistryChange::Forget(unreachable.clone()), Pending::Forget(unreachable));
        }
        let gone = self.too_many_or_old(&self.state.gone_agents);
        if !gone.is_empty() {
            self.persist(None, RegistryChange::ForgetGone(gone.clone()), Pending::ForgetGone(gone));
        }
        self.timers.set(self.now.uptime + GC_INTERVAL, Timer::RegistryGc);
    }

    fn too_many_or_old(&self, list: &OrdMap<AgentId, TimeInfo>) -> Vec<AgentId> {
        let mut agents: Vec<(TimeInfo, AgentId)> =
            list.iter().map(|(agent, since)| (*since, agent.clone())).collect();
        agents.sort_unstable_by(|a, b| (a.0.nanoseconds, &a.1).cmp(&(b.0.nanoseconds, &b.1)));
        let surplus = agents.len().saturating_sub(self.settings.registry_max_agent_count);
        let limit = events::time_info(self.now.wall.saturating_sub(self.settings.registry_max_agent_age));
        let old = agents.iter().take_while(|(since, _)| since.nanoseconds < limit.nanoseconds).count();
        agents.truncate(surplus.max(old));
        let agents = agents.into_iter().map(|(_, agent)| agent);
        agents.filter(|agent| !self.in_registry.contains(agent)).collect()
    }
}

/// Whether what an agent says of itself differs from what the registry has.
pub(super) fn differs(registry: &tepui_api::v1::AgentInfo, register: &Register) -> bool {
    *registry != register.agent
}
