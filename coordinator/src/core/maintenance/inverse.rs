//! Inverse offers: asking frameworks for what they use on machines that are to go away.
//!
//! At each allocation interval, every framework that has tasks, executors or offers on such an agent is asked, unless a
//! question is open or its filter has not run out. What it answers last is kept for operators; an answer
//! binds nobody. Ids come from the numbers of offers, as in Mesos.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tepui_api::v1::allocator::{InverseOfferStatus, inverse_offer_status::Status};
use tepui_api::v1::scheduler::call::{AcceptInverseOffers, DeclineInverseOffers};
use tepui_api::v1::{AgentId, Filters, FrameworkId, InverseOffer, OfferId};

use super::super::offers::refusal;
use super::super::timers::Timer;
use super::super::{Agent, Core, Framework, OfferNumber, events};

/// Open inverse offers, and for how long no others are wanted.
#[derive(Debug, Default)]
pub(in crate::core) struct Answers {
    /// Whose each open one is.
    open: BTreeMap<OfferNumber, (FrameworkId, AgentId)>,
    /// Until when a framework is not to be asked of an agent.
    filters: BTreeMap<(AgentId, FrameworkId), Duration>,
    /// A look at who is to be asked is due.
    scheduled: bool,
}

impl Core {
    /// Sees to it that frameworks are asked, for as long as any machine is to go away.
    pub(in crate::core) fn schedule_inverse_offers(&mut self) {
        let wanted = !self.state.maintenance.machines.is_empty();
        if wanted && !std::mem::replace(&mut self.inverse.scheduled, true) {
            self.timers.set(self.now.uptime + self.settings.allocation_delay, Timer::InverseOffers);
        }
    }

    /// Asks who is to be asked.
    pub(in crate::core) fn make_inverse_offers(&mut self) {
        self.inverse.scheduled = false;
        if self.state.maintenance.machines.is_empty() {
            return;
        }
        self.inverse.scheduled = true;
        self.timers.set(self.now.uptime + self.settings.allocation_interval, Timer::InverseOffers);
        let now = self.now.uptime;
        self.inverse.filters.retain(|_, until| *until > now);
        let asked: BTreeSet<(FrameworkId, AgentId)> = self.inverse.open.values().cloned().collect();
        let mut wanted: BTreeMap<FrameworkId, Vec<InverseOffer>> = BTreeMap::new();
        let machines = self.state.maintenance.machines.keys();
        let agents = machines.filter_map(|machine| self.on_machines.get(machine)).flatten();
        let agents = agents.filter_map(|id| self.state.agents.get(id)).filter(|agent| agent.active());
        let agents: Vec<Arc<Agent>> = agents.cloned().collect();
        for agent in agents {
            let Some(unavailability) = self.state.maintenance.unavailability(&agent.machine).copied() else {
                continue;
            };
            let offered = agent.offers.iter().filter_map(|number| self.offers.get(number));
            let users: BTreeSet<FrameworkId> = agent.used.keys().chain(offered).cloned().collect();
            for framework in users {
                let filtered = self.inverse.filters.contains_key(&(agent.id.clone(), framework.clone()));
                let listens = self.framework(&framework).is_some_and(Framework::connected);
                if filtered || !listens || asked.contains(&(framework.clone(), agent.id.clone())) {
                    continue;
                }
                let number = self.next_offer_number();
                let offer = InverseOffer {
                    id: number.id(&self.settings.master.id),
                    url: Some(agent.url()),
                    framework_id: framework.clone(),
                    agent_id: Some(agent.id.clone()),
                    unavailability,
                    resources: Vec::new(),
                };
                self.enter_inverse_offer(number, &offer);
                wanted.entry(framework).or_default().push(offer);
            }
        }
        for (framework, offers) in wanted {
            tracing::info!(%framework, agents = offers.len(), "asking a framework for what it uses on machines that go away");
            self.send(&framework, events::inverse_offers(offers));
        }
    }

    fn enter_inverse_offer(&mut self, number: OfferNumber, offer: &InverseOffer) {
        let Some(agent) = offer.agent_id.clone() else { return };
        if let Some(framework) = self.framework_mut(&offer.framework_id) {
            framework.inverse_offers.insert(number, Arc::new(offer.clone()));
        }
        self.inverse.open.insert(number, (offer.framework_id.clone(), agent));
        if let Some(timeout) = self.settings.offer_timeout {
            self.timers.set(self.now.uptime + timeout, Timer::OfferEnds(number));
        }
    }

    /// The call `ACCEPT_INVERSE_OFFERS`: the framework will do without.
    pub(in crate::core) fn accept_inverse_offers(&mut self, id: &FrameworkId, accept: &AcceptInverseOffers) {
        self.answer_inverse_offers(id, &accept.inverse_offer_ids, accept.filters.as_ref(), Status::Accept);
    }

    /// The call `DECLINE_INVERSE_OFFERS`: the framework wants to stay.
    pub(in crate::core) fn decline_inverse_offers(
        &mut self,
        id: &FrameworkId,
        decline: &DeclineInverseOffers,
    ) {
        self.answer_inverse_offers(id, &decline.inverse_offer_ids, decline.filters.as_ref(), Status::Decline);
    }

    fn answer_inverse_offers(
        &mut self,
        id: &FrameworkId,
        offers: &[OfferId],
        filters: Option<&Filters>,
        status: Status,
    ) {
        for offer in offers {
            let number = OfferNumber::parse(offer, &self.settings.master.id);
            let own = number.filter(|number| self.inverse.open.get(number).is_some_and(|(of, _)| of == id));
            let Some((framework, agent)) = own.and_then(|number| self.take_inverse_offer(number)) else {
                tracing::warn!(framework = %id, %offer, "ignored an answer to an inverse offer that is not open");
                continue;
            };
            let answer = InverseOfferStatus {
                status: status.into(),
                framework_id: framework.clone(),
                timestamp: events::time_info(self.now.wall),
            };
            let statuses = self.state.inverse_offer_statuses.entry(agent.clone()).or_default();
            statuses.insert(framework.clone(), answer);
            let refuse = refusal(filters);
            if !refuse.is_zero() {
                self.inverse.filters.insert((agent, framework), self.now.uptime + refuse);
            }
        }
    }

    fn take_inverse_offer(&mut self, number: OfferNumber) -> Option<(FrameworkId, AgentId)> {
        let (framework, agent) = self.inverse.open.remove(&number)?;
        if let Some(framework) = self.framework_mut(&framework) {
            framework.inverse_offers.remove(&number);
        }
        Some((framework, agent))
    }

    /// Takes an inverse offer back, and tells its framework.
    pub(in crate::core) fn rescind_inverse_offer(&mut self, number: OfferNumber) {
        if let Some((framework, _)) = self.take_inverse_offer(number) {
            self.send(&framework, events::rescind_inverse(number.id(&self.settings.master.id)));
        }
    }

    /// The agent is away, deactivated or removed: nobody need answer for it.
    pub(in crate::core) fn rescind_inverse_offers_of(&mut self, id: &AgentId) {
        let of_it = self.inverse.open.iter().filter(|(_, (_, agent))| agent == id);
        let of_it: Vec<OfferNumber> = of_it.map(|(number, _)| *number).collect();
        for number in of_it {
            self.rescind_inverse_offer(number);
        }
    }

    /// The framework is away or gone: what it was asked is void.
    pub(in crate::core) fn void_inverse_offers(&mut self, id: &FrameworkId) {
        let of_it = self.inverse.open.iter().filter(|(_, (framework, _))| framework == id);
        let of_it: Vec<OfferNumber> = of_it.map(|(number, _)| *number).collect();
        for number in of_it {
            self.take_inverse_offer(number);
        }
        self.clear_inverse_filters(id);
    }

    /// The framework wants to be asked again.
    pub(in crate::core) fn clear_inverse_filters(&mut self, id: &FrameworkId) {
        self.inverse.filters.retain(|(_, framework), _| framework != id);
    }

    /// What a removed agent's frameworks answered is of no more interest.
    pub(in crate::core) fn forget_answers_of(&mut self, id: &AgentId) {
        self.rescind_inverse_offers_of(id);
        self.state.inverse_offer_statuses.remove(id);
        self.inverse.filters.retain(|(agent, _), _| agent != id);
    }

    /// Whoever is offered or uses the agent has to think again.
    pub(super) fn unavailability_changed(&mut self, id: &AgentId) {
        let offers: Vec<_> =
            self.agent(id).map(|agent| agent.offers.iter().copied().collect()).unwrap_or_default();
        for offer in offers {
            self.rescind_offer(offer);
        }
        self.forget_answers_of(id);
    }
}
