//! What the coordinator knows of one framework.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use imbl::{OrdMap, Vector};
use tepui_api::resources::Resources;
use tepui_api::v1::framework_info::capability::Type as Capability;
use tepui_api::v1::master::response::get_frameworks;
use tepui_api::v1::{
    AgentId, ExecutorId, ExecutorInfo, FrameworkId, FrameworkInfo, InverseOffer, Offer, OfferId, Resource,
    Task, TaskId, TimeInfo, scheduler::OfferConstraints,
};

use super::io::StreamId;
use crate::allocator::FrameworkKey;

/// How a framework is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// Agents that came back after a restart of the coordinator run it, but it has not come back itself.
    Recovered,
    /// It listens on this stream and is sent offers.
    Subscribed(StreamId),
    /// It may come back until its fail-over timeout ends.
    Disconnected {
        /// When it is given up, on the clock [`Now::uptime`](super::Now).
        until: Duration,
    },
    /// It ended.
    Completed,
}

/// Which offer of this coordinator; its id ends with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OfferNumber(pub u64);

/// An offer that is not answered yet.
#[derive(Debug, Clone)]
pub struct HeldOffer {
    /// As the operator API shows it; the framework's own form may be an older one.
    pub offer: Offer,
    /// The role that it was made to.
    pub role: Arc<str>,
    /// What is in it, marked with the role.
    pub resources: Resources,
}

/// A framework and all that belongs to it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Framework {
    /// Its id.
    pub id: FrameworkId,
    /// As it described itself last, with its id.
    pub info: Arc<FrameworkInfo>,
    /// How it is connected.
    pub connection: Connection,
    /// When it subscribed first, if it did so since the coordinator started.
    pub registered: Option<TimeInfo>,
    /// When it subscribed last.
    pub reregistered: Option<TimeInfo>,
    /// When it ended.
    pub unregistered: Option<TimeInfo>,
    /// What it wants of the agents it is offered.
    pub offer_constraints: Option<Arc<OfferConstraints>>,
    /// Tasks that live, or ended with an update that it has not acknowledged.
    pub tasks: OrdMap<TaskId, Arc<Task>>,
    /// Tasks on agents that fell silent.
    pub unreachable_tasks: RecentTasks,
    /// Tasks that ended, oldest first.
    pub completed_tasks: Vector<Arc<Task>>,
    /// Executors, other than those of command tasks.
    pub executors: OrdMap<(AgentId, ExecutorId), Arc<ExecutorInfo>>,
    /// Offers it has not answered.
    pub offers: OrdMap<OfferNumber, Arc<HeldOffer>>,
    /// What it is asked to do without, and has not answered.
    pub inverse_offers: OrdMap<OfferNumber, Arc<InverseOffer>>,
    /// What its tasks and executors use on each agent, marked with roles.
    pub used: OrdMap<AgentId, Resources>,
    pub(super) key: FrameworkKey,
}

/// Tasks by id, of which the oldest are forgotten beyond a number.
#[derive(Debug, Clone, Default)]
pub struct RecentTasks {
    tasks: OrdMap<TaskId, Arc<Task>>,
    /// In the order in which they came; may name some that have been taken out.
    order: Vector<TaskId>,
}

// === impl OfferNumber ===

impl OfferNumber {
    /// Its id, made by the coordinator of this id.
    #[must_use]
    pub fn id(self, coordinator: &str) -> OfferId {
        OfferId::new(format!("{coordinator}-O{}", self.0))
    }

    /// The number of an id that this coordinator made.
    #[must_use]
    pub fn parse(id: &OfferId, coordinator: &str) -> Option<Self> {
        let digits = id.value.strip_prefix(coordinator)?.strip_prefix("-O")?;
        let number: u64 = digits.parse().ok()?;
        // Only the one text that `id` makes: "+1" and "01" are not ours.
        (number.to_string() == digits).then_some(Self(number))
    }
}

impl fmt::Display for OfferNumber {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "O{}", self.0)
    }
}

// === impl Framework ===

impl Framework {
    pub(super) fn new(
        id: FrameworkId,
        info: Arc<FrameworkInfo>,
        connection: Connection,
        key: FrameworkKey,
    ) -> Self {
        Self {
            id,
            info,
            connection,
            registered: None,
            reregistered: None,
            unregistered: None,
            offer_constraints: None,
            tasks: OrdMap::new(),
            unreachable_tasks: RecentTasks::default(),
            completed_tasks: Vector::new(),
            executors: OrdMap::new(),
            offers: OrdMap::new(),
            inverse_offers: OrdMap::new(),
            used: OrdMap::new(),
            key,
        }
    }

    /// True while it listens on a stream.
    #[must_use]
    pub fn connected(&self) -> bool {
        matches!(self.connection, Connection::Subscribed(_))
    }

    /// The stream it listens on.
    #[must_use]
    pub fn stream(&self) -> Option<StreamId> {
        match self.connection {
            Connection::Subscribed(stream) => Some(stream),
            _ => None,
        }
    }

    /// Whether it says that it has this capability.
    #[must_use]
    pub fn has(&self, capability: Capability) -> bool {
        has_capability(&self.info, capability)
    }

    /// The roles it is in.
    #[must_use]
    pub fn roles(&self) -> BTreeSet<String> {
        roles(&self.info)
    }

    /// As the operator API shows it.
    #[must_use]
    pub fn to_wire(&self) -> get_frameworks::Framework {
        get_frameworks::Framework {
            framework_info: (*self.info).clone(),
            active: self.connected(),
            connected: self.connected(),
            recovered: self.connection == Connection::Recovered,
            registered_time: self.registered,
            reregistered_time: self.reregistered,
            unregistered_time: self.unregistered,
            offers: self.offers.values().map(|held| held.offer.clone()).collect(),
            inverse_offers: self.inverse_offers.values().map(|offer| (**offer).clone()).collect(),
            allocated_resources: self.allocated_resources(),
            offered_resources: self.offered_resources(),
            offer_constraints: Some(self.offer_constraints.as_deref().cloned().unwrap_or_default()),
        }
    }

    /// What its tasks and executors use, on all agents.
    #[must_use]
    pub fn allocated(&self) -> Resources {
        sum(self.used.values())
    }

    /// What it holds in offers, on all agents.
    #[must_use]
    pub fn offered(&self) -> Resources {
        sum(self.offers.values().map(|held| &held.resources))
    }

    /// [`Framework::allocated`], as the operator API shows it.
    #[must_use]
    pub fn allocated_resources(&self) -> Vec<Resource> {
        self.allocated().to_wire_endpoint()
    }

    /// [`Framework::offered`], as the operator API shows it.
    #[must_use]
    pub fn offered_resources(&self) -> Vec<Resource> {
        self.offered().to_wire_endpoint()
    }
}

/// Whether the framework says that it has this capability.
pub(super) fn has_capability(info: &FrameworkInfo, capability: Capability) -> bool {
    info.capabilities.iter().any(|has| has.r#type == Some(capability.into()))
}

/// The roles of a framework: `roles` of one with `MULTI_ROLE`, else the one `role`.
pub(super) fn roles(info: &FrameworkInfo) -> BTreeSet<String> {
    if has_capability(info, Capability::MultiRole) {
        info.roles.iter().cloned().collect()
    } else {
        BTreeSet::from([info.role().to_owned()])
    }
}

/// All of these together.
pub(super) fn sum<'a>(all: impl IntoIterator<Item = &'a Resources>) -> Resources {
    let mut total = Resources::new();
    for resources in all {
        total += resources;
    }
    total
}

// === impl RecentTasks ===

impl RecentTasks {
    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.values()
    }

    /// Whether this one is among them.
    #[must_use]
    pub fn contains(&self, id: &TaskId) -> bool {
        self.tasks.contains_key(id)
    }

    /// This one.
    #[must_use]
    pub fn get(&self, id: &TaskId) -> Option<&Arc<Task>> {
        self.tasks.get(id)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    pub(super) fn insert(&mut self, task: Arc<Task>, limit: usize) {
        self.order.push_back(task.task_id.clone());
        self.tasks.insert(task.task_id.clone(), task);
        while self.tasks.len() > limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.tasks.remove(&oldest);
        }
        if self.order.len() > 2 * limit.max(16) {
            self.order.retain(|id| self.tasks.contains_key(id));
        }
    }

    pub(super) fn remove(&mut self, id: &TaskId) -> Option<Arc<Task>> {
        let removed = self.tasks.remove(id)?;
        if self.tasks.is_empty() {
            self.order.clear();
        }
        Some(removed)
    }
}
