//! Offers: made from what the allocator grants, declined, rescinded, discarded.
//!
//! While an offer is open its resources are charged to its framework in the allocator. Whichever way
//! it ends, what was not used is given back exactly once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tepui_api::resources::Resources;
use tepui_api::v1::framework_info::capability::Type as Capability;
use tepui_api::v1::resource::AllocationInfo;
use tepui_api::v1::scheduler::call::Decline;
use tepui_api::v1::{Filters, FrameworkId, Offer, OfferId};

use super::timers::Timer;
use super::{Agent, Core, Framework, HeldOffer, OfferNumber, events};
use crate::allocator::{FrameworkKey, Grant, Return};

/// How long a framework that says nothing is not to see again what it did not use.
const DEFAULT_REFUSAL: Duration = Duration::from_secs(5);
/// No refusal lasts longer.
const LONGEST_REFUSAL: Duration = Duration::from_hours(365 * 24);

impl Core {
    /// Lets the allocator share out what it can by now, and offers it: one event a framework.
    pub(super) fn make_offers(&mut self) {
        let mut grants: BTreeMap<FrameworkKey, Vec<Grant>> = BTreeMap::new();
        for grant in self.allocator.run(self.now.uptime) {
            grants.entry(grant.framework).or_default().push(grant);
        }
        for (key, grants) in grants {
            let Some(framework) = self.frameworks_by_key.get(&key).cloned() else {
                debug_assert!(false, "the allocator knows no framework that the core does not");
                continue;
            };
            let offers: Vec<Offer> =
                grants.into_iter().filter_map(|grant| self.make_offer(&framework, grant)).collect();
            if !offers.is_empty() {
                self.send(&framework, events::offers(offers));
            }
        }
    }

    /// Enters one offer, and answers it in the form that its framework understands.
    fn make_offer(&mut self, framework_id: &FrameworkId, grant: Grant) -> Option<Offer> {
        let agent_id = self.agents_by_key.get(&grant.agent)?.clone();
        let number = self.next_offer_number();
        let resources = grant.resources.allocated(grant.role.clone());
        let offer = {
            let (framework, agent) = (self.framework(framework_id)?, self.agent(&agent_id)?);
            let unavailability = self.state.maintenance.unavailability(&agent.machine).copied();
            let offer = offer(number.id(&self.settings.master.id), framework, agent, &grant.role, &resources);
            Offer { unavailability, ..offer }
        };
        let sent = form_for(self.framework(framework_id)?, &offer, &resources);
        let agent = self.agent_mut(&agent_id)?;
        agent.offers.insert(number);
        agent.offered += &resources;
        let held = HeldOffer { offer, role: grant.role, resources };
        self.framework_mut(framework_id)?.offers.insert(number, Arc::new(held));
        self.offers.insert(number, framework_id.clone());
        if let Some(timeout) = self.settings.offer_timeout {
            self.timers.set(self.now.uptime + timeout, Timer::OfferEnds(number));
        }
        Some(sent)
    }

    pub(super) fn next_offer_number(&mut self) -> OfferNumber {
        let number = OfferNumber(self.next.offer);
        self.next.offer += 1;
        number
    }

    /// The open offer of this id, and whose it is.
    pub(super) fn offer(&self, id: &OfferId) -> Option<(OfferNumber, &FrameworkId, &HeldOffer)> {
        let number = OfferNumber::parse(id, &self.settings.master.id)?;
        let framework = self.offers.get(&number)?;
        Some((number, framework, self.framework(framework)?.offers.get(&number)?))
    }

    pub(super) fn decline(&mut self, id: &FrameworkId, decline: &Decline) {
        self.state.counters.messages_decline_offers += 1;
        let refuse = refusal(decline.filters.as_ref());
        for offer in &decline.offer_ids {
            // Mesos lets a framework decline what is another's; here it leaves that alone.
            let own = self.offer(offer).filter(|(_, framework, _)| *framework == id);
            if let Some(number) = own.map(|(number, ..)| number) {
                self.discard_offer(number, refuse);
            }
        }
    }

    /// Takes an offer back, and tells its framework.
    pub(super) fn rescind_offer(&mut self, number: OfferNumber) {
        let Some(framework) = self.offers.get(&number).cloned() else { return };
        self.send(&framework, events::rescind(number.id(&self.settings.master.id)));
        self.discard_offer(number, Duration::ZERO);
    }

    /// Ends an offer of which nothing is used.
    pub(super) fn discard_offer(&mut self, number: OfferNumber, refuse: Duration) {
        let Some((framework, held)) = self.take_offer(number) else { return };
        self.give_back(&framework, &held.offer.agent_id, &held.resources, Return::Unused { refuse });
    }

    /// Takes an offer out of the books. What is in it stays charged in the allocator.
    pub(super) fn take_offer(&mut self, number: OfferNumber) -> Option<(FrameworkId, Arc<HeldOffer>)> {
        let id = self.offers.remove(&number)?;
        let held = self.framework_mut(&id)?.offers.remove(&number)?;
        if let Some(agent) = self.agent_mut(&held.offer.agent_id) {
            agent.offers.remove(&number);
            debug_assert!(agent.offered.contains(&held.resources), "what was offered is in the books");
            agent.offered -= &held.resources;
        }
        Some((id, held))
    }

    /// Returns resources, marked with a role, to the allocator.
    pub(super) fn give_back(
        &mut self,
        framework: &FrameworkId,
        agent: &tepui_api::v1::AgentId,
        resources: &Resources,
        why: Return,
    ) {
        let Some(framework) = self.framework(framework).map(|framework| framework.key) else { return };
        let Some(agent) = self.agent(agent).map(|agent| agent.key) else { return };
        for (role, resources) in resources.allocations() {
            self.allocator.release(agent, framework, &role, &resources.unallocated(), why, self.now.uptime);
        }
    }
}

fn offer(id: OfferId, framework: &Framework, agent: &Agent, role: &str, resources: &Resources) -> Offer {
    let from = (agent.id.clone(), "".into());
    let executors = framework.executors.range(from..).take_while(|((on, _), _)| *on == agent.id);
    Offer {
        id,
        framework_id: framework.id.clone(),
        agent_id: agent.id.clone(),
        hostname: agent.info.hostname.clone(),
        url: Some(agent.url()),
        domain: agent.info.domain.clone(),
        resources: resources.to_wire(),
        attributes: agent.info.attributes.clone(),
        executor_ids: executors.map(|((_, executor), _)| executor.clone()).collect(),
        unavailability: None,
        allocation_info: Some(AllocationInfo { role: Some(role.to_owned()) }),
    }
}

/// Frameworks without `MULTI_ROLE` know nothing of allocations, and those without
/// `RESERVATION_REFINEMENT` read `role` and `reservation`.
fn form_for(framework: &Framework, offer: &Offer, resources: &Resources) -> Offer {
    let mut offer = offer.clone();
    let multi_role = framework.has(Capability::MultiRole);
    let refined = framework.has(Capability::ReservationRefinement);
    if multi_role && refined {
        return offer;
    }
    let bare;
    let resources = if multi_role {
        resources
    } else {
        offer.allocation_info = None;
        bare = resources.clone().unallocated();
        &bare
    };
    // What cannot be told in the older form is not offered to those that need it.
    offer.resources = match resources.to_wire_pre_refinement() {
        Ok(old) if !refined => old,
        _ => resources.to_wire(),
    };
    offer
}

/// For how long the framework is not to see again what it did not use.
pub(super) fn refusal(filters: Option<&Filters>) -> Duration {
    let Some(seconds) = filters.map(Filters::refuse_seconds) else { return DEFAULT_REFUSAL };
    if seconds > LONGEST_REFUSAL.as_secs_f64() {
        return LONGEST_REFUSAL;
    }
    Duration::try_from_secs_f64(seconds).unwrap_or(DEFAULT_REFUSAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_bounded() {
        let of = |seconds| refusal(Some(&Filters { refuse_seconds: seconds }));
        assert_eq!(refusal(None), DEFAULT_REFUSAL);
        assert_eq!(of(None), DEFAULT_REFUSAL);
        assert_eq!(of(Some(-1.0)), DEFAULT_REFUSAL);
        assert_eq!(of(Some(f64::NAN)), DEFAULT_REFUSAL);
        assert_eq!(of(Some(0.0)), Duration::ZERO);
        assert_eq!(of(Some(1.5)), Duration::from_millis(1500));
        assert_eq!(of(Some(1e300)), LONGEST_REFUSAL);
        assert_eq!(of(Some(f64::INFINITY)), LONGEST_REFUSAL);
    }

    #[test]
    fn only_own_ids_are_offers() {
        let parse = |id: &str| OfferNumber::parse(&id.into(), "c");
        assert_eq!(parse("c-O7"), Some(OfferNumber(7)));
        assert_eq!(OfferNumber(7).id("c").value, "c-O7");
        for other in ["d-O7", "c-O", "c-O07", "c-O+7", "c-7", "", "c-O7x", "c-O99999999999999999999"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
