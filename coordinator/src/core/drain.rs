//! Agents of which nothing is offered: deactivated, being drained, drained.
//!
//! A drain deactivates the agent and tells it to end its tasks, now and whenever it registers again; when it
//! is there and no task is left, it is drained, or marked gone if that was asked for. All of it is in the registry, and
//! survives that the agent falls silent. One change of an agent is written at a time: calls that come meanwhile wait.

use std::collections::{BTreeMap, VecDeque};

use tepui_api::link::coordinator_frame::Body as Frame;
use tepui_api::v1::agent_info::capability::Type as AgentCapability;
use tepui_api::v1::master_info::capability::Type as MasterCapability;
use tepui_api::v1::{AgentId, DrainConfig, DrainInfo, DrainState, DurationInfo, TimeInfo};

use super::io::RegistryChange;
use super::registry::Pending;
use super::{Core, OperatorCall, Reply, RequestId, events};

/// Why nothing of an agent is offered.
#[derive(Debug, Clone, PartialEq)]
pub struct Deactivation {
    /// The drain, when it is being drained or has been.
    pub drain: Option<DrainInfo>,
    /// When it was told to drain, by this coordinator and since it registered.
    pub drain_began: Option<TimeInfo>,
}

/// All agents that are deactivated, and what is on its way.
#[derive(Debug, Default)]
pub(super) struct Deactivations {
    /// Registered, awaited and unreachable ones.
    pub(super) agents: BTreeMap<AgentId, Deactivation>,
    /// Agents of which the registry is writing a change, and the calls that wait for it.
    writing: BTreeMap<AgentId, VecDeque<(RequestId, OperatorCall)>>,
    /// Agents that may have lost their last task in this step.
    pub(super) to_check: std::collections::BTreeSet<AgentId>,
}

/// What is being written of an agent.
#[derive(Debug)]
pub(super) enum Change {
    /// It is to be drained.
    Drain(DrainConfig),
    /// Nothing of it is to be offered.
    Deactivate,
    /// It has been drained.
    Drained,
    /// It is offered again.
    Reactivate,
}

// === impl Deactivation ===

impl Deactivation {
    pub(super) fn new(drain: Option<DrainInfo>) -> Self {
        Self { drain, drain_began: None }
    }

    fn is_draining(&self) -> bool {
        self.drain.as_ref().is_some_and(|drain| drain.state() == DrainState::Draining)
    }
}

impl Core {
    /// The calls `DRAIN_AGENT`, `DEACTIVATE_AGENT` and `REACTIVATE_AGENT`.
    pub(super) fn deactivation_call(&mut self, request: RequestId, id: &AgentId, call: OperatorCall) {
        if let Some(waiting) = self.deactivations.writing.get_mut(id) {
            return waiting.push_back((request, call));
        }
        match call {
            OperatorCall::Drain { max_grace_period, mark_gone, .. } => {
                self.drain_call(request, id, max_grace_period, mark_gone);
            }
            OperatorCall::Reactivate(_) => self.reactivate_call(request, id),
            _ => self.deactivate_call(request, id),
        }
    }

    fn drain_call(
        &mut self,
        request: RequestId,
        id: &AgentId,
        max_grace_period: Option<DurationInfo>,
        mark_gone: bool,
    ) {
        if let Some(agent) = self.agent(id) {
            if let Some(machine) = self.scheduled_machine(agent) {
                let message = format!("Agent {id} is part of a maintenance schedule under Machine {machine}");
                return self.refuse(request, 400, message);
            }
            if !agent.has(AgentCapability::AgentDraining) {
                return self.refuse(request, 400, format!("Agent {id} is not capable of draining"));
            }
        }
        if !self.may_deactivate(request, id) {
            return;
        }
        let config = DrainConfig { max_grace_period, mark_gone: Some(mark_gone) };
        self.need_capability(MasterCapability::AgentDraining);
        let drain = DrainInfo { state: DrainState::Draining.into(), config };
        self.write_deactivation(id, Some(drain), Change::Drain(config), Some(request));
    }

    fn deactivate_call(&mut self, request: RequestId, id: &AgentId) {
        if !self.may_deactivate(request, id) {
            return;
        }
        if self.deactivations.agents.contains_key(id) {
            return self.reply(request, Reply::Ok);
        }
        self.need_capability(MasterCapability::AgentDraining);
        self.write_deactivation(id, None, Change::Deactivate, Some(request));
    }

    /// Whether an agent is there to be deactivated; the request is answered if it is not.
    fn may_deactivate(&mut self, request: RequestId, id: &AgentId) -> bool {
        if !self.is_known(id) {
            self.refuse(request, 400, "Unknown agent");
            return false;
        }
        match self.being_taken_out(id) {
            Some(what) => {
                self.refuse(request, 409, format!("Agent is currently {what}"));
                false
            }
            None => true,
        }
    }

    fn reactivate_call(&mut self, request: RequestId, id: &AgentId) {
        let Some(deactivation) = self.deactivations.agents.get(id) else {
            return self.refuse(request, 400, "Agent is not deactivated");
        };
        if deactivation.is_draining() {
            return self.refuse(request, 400, "Agent is still in the DRAINING state");
        }
        self.deactivations.writing.insert(id.clone(), VecDeque::new());
        let pending =
            Pending::Deactivation { agent: id.clone(), change: Change::Reactivate, request: Some(request) };
        self.persist(None, RegistryChange::Reactivate(id.clone()), pending);
        if self.deactivations.agents.len() == 1 {
            self.need_no_capability(MasterCapability::AgentDraining);
        }
    }

    fn write_deactivation(
        &mut self,
        id: &AgentId,
        drain: Option<DrainInfo>,
        change: Change,
        request: Option<RequestId>,
    ) {
        self.deactivations.writing.insert(id.clone(), VecDeque::new());
        let pending = Pending::Deactivation { agent: id.clone(), change, request };
        self.persist(None, RegistryChange::Deactivate { agent: id.clone(), drain }, pending);
    }

    /// The registry has a change of an agent's deactivation.
    pub(super) fn deactivation_written(&mut self, id: &AgentId, change: Change, request: Option<RequestId>) {
        let waiting = self.deactivations.writing.remove(id).unwrap_or_default();
        let answer = self.change_deactivation(id, change);
        if let Some(request) = request {
            self.reply(request, answer);
        }
        self.deactivations.to_check.insert(id.clone());
        for (request, call) in waiting {
            self.deactivation_call(request, id, call);
        }
    }

    fn change_deactivation(&mut self, id: &AgentId, change: Change) -> Reply {
        let removed =
            Reply::Refused { status: 409, message: "Agent removed while processing the call".into() };
        if !self.is_known(id) {
            // The agent's entry went before; this one would stay for ever.
            self.forget_deactivation(id);
            self.persist(None, RegistryChange::Reactivate(id.clone()), Pending::Nothing);
            return removed;
        }
        match change {
            Change::Drain(config) => {
                let drain = DrainInfo { state: DrainState::Draining.into(), config };
                let began = events::time_info(self.now.wall);
                tracing::info!(agent = %id, "draining an agent");
                let deactivation = Deactivation { drain: Some(drain), drain_began: Some(began) };
                self.set_deactivation(id, Some(deactivation));
                self.deactivate_agent(id);
                self.frame(id, Frame::Drain(config));
            }
            Change::Deactivate => {
                tracing::info!(agent = %id, "deactivated an agent");
                self.set_deactivation(id, Some(Deactivation::new(None)));
                self.deactivate_agent(id);
            }
            Change::Drained => {
                tracing::info!(agent = %id, "an agent is drained");
                if let Some(mut deactivation) = self.deactivations.agents.get(id).cloned() {
                    if let Some(drain) = &mut deactivation.drain {
                        drain.set_state(DrainState::Drained);
                    }
                    self.set_deactivation(id, Some(deactivation));
                }
            }
            Change::Reactivate => {
                tracing::info!(agent = %id, "activated an agent again");
                self.set_deactivation(id, None);
                let Some(agent) = self.agent(id) else { return removed };
                let (key, connected, now) = (agent.key, agent.connected(), self.now.uptime);
                if connected {
                    self.allocator.activate_agent(key, now);
                }
            }
        }
        Reply::Ok
    }

    fn set_deactivation(&mut self, id: &AgentId, deactivation: Option<Deactivation>) {
        match &deactivation {
            Some(deactivation) => self.deactivations.agents.insert(id.clone(), deactivation.clone()),
            None => self.deactivations.agents.remove(id),
        };
        if let Some(agent) = self.agent_mut(id) {
            agent.deactivation = deactivation;
        }
    }

    /// The agent's entry in the registry is gone, and this with it.
    pub(super) fn forget_deactivation(&mut self, id: &AgentId) {
        self.deactivations.agents.remove(id);
    }

    /// Nothing of a registered agent is offered from now on, and what is offered is taken back.
    pub(super) fn deactivate_agent(&mut self, id: &AgentId) {
        let Some(agent) = self.agent(id) else { return };
        let (key, offers) = (agent.key, agent.offers.iter().copied().collect::<Vec<_>>());
        self.allocator.deactivate_agent(key);
        for offer in offers {
            self.rescind_offer(offer);
        }
        self.rescind_inverse_offers_of(id);
    }

    /// The agent has registered: if it is to drain, it is told so.
    pub(super) fn repeat_drain(&mut self, id: &AgentId) {
        let config = self.agent(id).and_then(|agent| Some(agent.deactivation.as_ref()?.drain?.config));
        if let Some(config) = config {
            self.frame(id, Frame::Drain(config));
            self.deactivations.to_check.insert(id.clone());
        }
    }

    /// Ends the drain of agents on which nothing is left.
    pub(super) fn check_drains(&mut self) {
        for id in std::mem::take(&mut self.deactivations.to_check) {
            let Some(agent) = self.agent(&id) else { continue };
            let Some(deactivation) = agent.deactivation.as_ref().filter(|d| d.is_draining()) else {
                continue;
            };
            let Some(mut drain) = deactivation.drain else { continue };
            // What an agent without a link has is only known when it is back.
            let over = agent.connected() && agent.tasks.is_empty();
            if !over || self.deactivations.writing.contains_key(&id) || self.in_registry.contains(&id) {
                continue;
            }
            if drain.config.mark_gone() {
                tracing::info!(agent = %id, "an agent is drained and is marked gone");
                self.mark_gone(&id, None);
            } else {
                drain.set_state(DrainState::Drained);
                self.write_deactivation(&id, Some(drain), Change::Drained, None);
            }
        }
    }

    /// The registry is only to be read by coordinators that can do this.
    pub(super) fn need_capability(&mut self, capability: MasterCapability) {
        if self.minimum_capabilities.insert(capability.as_str_name().to_owned()) {
            let change = RegistryChange::NeedCapability(capability.as_str_name().to_owned());
            self.persist(None, change, Pending::Nothing);
        }
    }

    fn need_no_capability(&mut self, capability: MasterCapability) {
        if self.minimum_capabilities.remove(capability.as_str_name()) {
            let change = RegistryChange::DropCapability(capability.as_str_name().to_owned());
            self.persist(None, change, Pending::Nothing);
        }
    }
}
