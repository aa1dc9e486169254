//! How frameworks come, come back, and change.
//!
//! A framework without an id is new. One with an id takes over from whatever instance of it was there
//! before: the old stream is told and closed, its offers are void. An id that is not known
//! belongs to a framework from before the coordinator's start.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tepui_api::resources::{ResourceQuantities, Scalar};
use tepui_api::v1::framework_info::capability::Type as Capability;
use tepui_api::v1::scheduler::call::UpdateFramework;
use tepui_api::v1::scheduler::{Call, OfferConstraints};
use tepui_api::v1::{FrameworkId, FrameworkInfo};

use super::framework::{has_capability, roles};
use super::timers::Timer;
use super::validate::framework::{self as rules, FrameworkError};
use super::{Connection, Core, Framework, HEARTBEAT, Output, Reply, RequestId, StreamId, events};
use crate::allocator::{Knows, Terms};

impl Core {
    pub(super) fn subscribe(&mut self, request: RequestId, stream: StreamId, call: Call) {
        let Some(subscribe) = call.subscribe else {
            return self.refuse(request, 400, "Expecting 'subscribe' to be present");
        };
        self.state.counters.messages_register_framework += 1;
        // Whatever is wrong from here on is told on the stream, as in Mesos.
        self.reply(request, Reply::Subscribed);
        let (info, constraints) = (subscribe.framework_info, subscribe.offer_constraints);
        if let Err(error) = self.admit(stream, info, &subscribe.suppressed_roles, constraints) {
            tracing::info!(%error, "refused the subscription of a framework");
            self.out.push(Output::Event { stream, event: events::error(error.to_string()) });
            self.out.push(Output::CloseStream { stream });
        }
    }

    fn admit(
        &mut self,
        stream: StreamId,
        mut info: FrameworkInfo,
        suppressed: &[String],
        constraints: Option<OfferConstraints>,
    ) -> Result<(), FrameworkError> {
        self.check_framework(&info)?;
        rules::validate_wishes(&info, suppressed, constraints.as_ref())?;
        let constraints = constraints.map(Arc::new);
        let Some(id) = info.id.clone().filter(|id| !id.value.is_empty()) else {
            let id = self.new_framework_id();
            info.id = Some(id.clone());
            self.add_framework(&id, info, suppressed, constraints);
            self.connect(&id, stream);
            self.notify(|core| core.framework(&id).map(events::framework_added));
            tracing::info!(framework = %id, "a framework subscribed");
            return Ok(());
        };
        if let Some(framework) = self.framework(&id) {
            rules::keep_immutable(&framework.info, &mut info);
            rules::validate_update(&framework.info, &info)?;
            self.update_framework(&id, info, suppressed, constraints);
            self.displace(&id);
        } else {
            self.add_framework(&id, info, suppressed, constraints);
            self.notify(|core| core.framework(&id).map(events::framework_added));
        }
        self.connect(&id, stream);
        self.announce_framework(&id);
        tracing::info!(framework = %id, "a framework subscribed again");
        Ok(())
    }

    /// The call `UPDATE_FRAMEWORK`.
    pub(super) fn update_framework_call(
        &mut self,
        id: &FrameworkId,
        update: UpdateFramework,
    ) -> Result<(), FrameworkError> {
        let UpdateFramework { framework_info: info, suppressed_roles, offer_constraints } = update;
        self.check_framework(&info)?;
        let Some(framework) = self.framework(id) else { return Err(FrameworkError::Removed) };
        rules::validate_update(&framework.info, &info)?;
        rules::validate_wishes(&info, &suppressed_roles, offer_constraints.as_ref())?;
        let changed = *framework.info != info;
        self.update_framework(id, info, &suppressed_roles, offer_constraints.map(Arc::new));
        if changed {
            self.announce_framework(id);
        }
        Ok(())
    }

    fn check_framework(&self, info: &FrameworkInfo) -> Result<(), FrameworkError> {
        rules::validate(info, self.settings.roles.as_deref())?;
        if info.id.as_ref().is_some_and(|id| self.completed_ids.contains(id)) {
            return Err(FrameworkError::Removed);
        }
        Ok(())
    }

    /// A framework that is not known, and not connected so far.
    pub(super) fn add_framework(
        &mut self,
        id: &FrameworkId,
        info: FrameworkInfo,
        suppressed: &[String],
        constraints: Option<Arc<OfferConstraints>>,
    ) {
        let key = self.allocator.add_framework(terms(&info, suppressed));
        let mut framework = Framework::new(id.clone(), Arc::new(info), Connection::Recovered, key);
        framework.offer_constraints = constraints;
        self.frameworks_by_key.insert(key, id.clone());
        self.state.frameworks.insert(id.clone(), Arc::new(framework));
    }

    fn update_framework(
        &mut self,
        id: &FrameworkId,
        info: FrameworkInfo,
        suppressed: &[String],
        constraints: Option<Arc<OfferConstraints>>,
    ) {
        let now = self.now.uptime;
        let terms = terms(&info, suppressed);
        let roles = roles(&info);
        let Some(framework) = self.framework_mut(id) else { return };
        framework.info = Arc::new(info);
        framework.offer_constraints = constraints;
        let key = framework.key;
        let left = framework.offers.iter().filter(|(_, held)| !roles.contains(&*held.role));
        let left: Vec<_> = left.map(|(number, _)| *number).collect();
        self.allocator.update_framework(key, terms, now);
        for offer in left {
            self.rescind_offer(offer);
        }
    }

    /// Takes the stream and the offers from the instance of the framework that was there before.
    fn displace(&mut self, id: &FrameworkId) {
        let Some(framework) = self.framework(id) else { return };
        let offers: Vec<_> = framework.offers.keys().copied().collect();
        if let Some(old) = framework.stream() {
            self.out.push(Output::Event { stream: old, event: events::error("Framework failed over") });
            self.out.push(Output::CloseStream { stream: old });
            self.streams.remove(&old);
        }
        for offer in offers {
            self.discard_offer(offer, Duration::ZERO);
        }
        self.void_inverse_offers(id);
    }

    /// The framework listens on this stream from now on.
    fn connect(&mut self, id: &FrameworkId, stream: StreamId) {
        let (now, uptime) = (events::time_info(self.now.wall), self.now.uptime);
        let master = self.state.master.clone();
        let Some(framework) = self.framework_mut(id) else { return };
        if framework.connection == Connection::Recovered {
            framework.registered = Some(now);
        }
        framework.reregistered = Some(now);
        framework.connection = Connection::Subscribed(stream);
        let key = framework.key;
        self.streams.insert(stream, id.clone());
        self.allocator.activate_framework(key, uptime);
        self.send(id, events::subscribed(id, &master));
        self.beat(stream);
    }

    /// Sends a heartbeat, and sees to the next one.
    pub(super) fn beat(&mut self, stream: StreamId) {
        if self.streams.contains_key(&stream) {
            self.out.push(Output::Event { stream, event: self.heartbeat.clone() });
            self.timers.set(self.now.uptime + HEARTBEAT, Timer::Heartbeat(stream));
        }
    }

    fn new_framework_id(&mut self) -> FrameworkId {
        let id = FrameworkId::new(format!("{}-{:04}", self.settings.master.id, self.next.framework));
        self.next.framework += 1;
        id
    }
}

/// What the allocator must know of a framework.
pub(super) fn terms(info: &FrameworkInfo, suppressed: &[String]) -> Terms {
    let minimum = |filter: &tepui_api::v1::OfferFilters| {
        let minimum = filter.min_allocatable_resources.as_ref()?;
        let one = |quantities: &tepui_api::v1::offer_filters::ResourceQuantities| {
            let amounts = quantities.quantities.iter();
            amounts
                .filter_map(|(name, amount)| Some((name.as_str(), Scalar::from_f64(amount.value)?)))
                .collect::<ResourceQuantities>()
        };
        Some(minimum.quantities.iter().map(one).collect::<Vec<_>>())
    };
    let filters = info.offer_filters.iter();
    let minimum: BTreeMap<_, _> =
        filters.filter_map(|(role, filter)| Some((role.clone(), minimum(filter)?))).collect();
    Terms {
        roles: roles(info),
        suppressed: suppressed.iter().cloned().collect(),
        knows: Knows {
            gpus: has_capability(info, Capability::GpuResources),
            revocable: has_capability(info, Capability::RevocableResources),
            shared: has_capability(info, Capability::SharedResources),
            refined: has_capability(info, Capability::ReservationRefinement),
            multi_role: has_capability(info, Capability::MultiRole),
        },
        minimum,
    }
}
