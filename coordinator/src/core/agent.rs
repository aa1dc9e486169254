//! What the coordinator knows of one agent.

use std::net::IpAddr;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use tepui_api::resources::Resources;
use tepui_api::v1::agent_info::Capability;
use tepui_api::v1::agent_info::capability::Type as CapabilityType;
use tepui_api::v1::master::response::get_agents;
use tepui_api::v1::{Address, AgentId, AgentInfo, ExecutorId, FrameworkId, Resource, TaskId, TimeInfo, Url};

use super::drain::Deactivation;
use super::framework::{OfferNumber, sum};
use super::io::LinkId;
use super::maintenance::Machine;
use crate::allocator::AgentKey;

/// An admitted agent. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Agent {
    /// Its id.
    pub id: AgentId,
    /// As it described itself last, with its id.
    pub info: Arc<AgentInfo>,
    /// Its connection, while it has one.
    pub link: Option<LinkId>,
    /// The process of the agent, told from others that had its id before.
    pub instance: String,
    /// Which of that process' registrations is the latest.
    pub attempt: u64,
    /// Version of Tepui that it runs.
    pub version: String,
    /// `host:port` of its HTTP server.
    pub address: String,
    /// The machine it is on, by which maintenance knows it.
    pub machine: Arc<Machine>,
    /// Why nothing of it is offered, when an operator wanted that.
    pub deactivation: Option<Deactivation>,
    /// What it can do.
    pub capabilities: Arc<[Capability]>,
    /// When it registered, or came back first since the coordinator started.
    pub registered: TimeInfo,
    /// When it came back last.
    pub reregistered: Option<TimeInfo>,
    /// Tasks on it that live, or ended with an update that is not acknowledged.
    pub tasks: OrdSet<(FrameworkId, TaskId)>,
    /// Executors on it, other than those of command tasks.
    pub executors: OrdSet<(FrameworkId, ExecutorId)>,
    /// All it has.
    pub total: Resources,
    /// What tasks and executors of each framework use, marked with roles.
    pub used: OrdMap<FrameworkId, Resources>,
    /// What is in offers, marked with roles.
    pub offered: Resources,
    /// Offers of it that are not answered.
    pub offers: OrdSet<OfferNumber>,
    pub(super) key: AgentKey,
}

impl Agent {
    /// True while it has a connection.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.link.is_some()
    }

    /// True while what is free on it can be offered.
    #[must_use]
    pub fn active(&self) -> bool {
        self.connected() && self.deactivation.is_none()
    }

    /// Whether it says that it has this capability.
    #[must_use]
    pub fn has(&self, capability: CapabilityType) -> bool {
        self.capabilities.iter().any(|has| has.r#type == Some(capability.into()))
    }

    /// As the operator API shows it.
    #[must_use]
    pub fn to_wire(&self) -> get_agents::Agent {
        get_agents::Agent {
            agent_info: (*self.info).clone(),
            active: self.active(),
            deactivated: Some(self.deactivation.is_some()),
            version: self.version.clone(),
            pid: Some(self.pid()),
            registered_time: Some(self.registered),
            reregistered_time: self.reregistered,
            total_resources: self.total_resources(),
            allocated_resources: self.allocated_resources(),
            offered_resources: self.offered_resources(),
            capabilities: self.capabilities.to_vec(),
            resource_providers: Vec::new(),
            drain_info: self.deactivation.as_ref().and_then(|deactivation| deactivation.drain),
            estimated_drain_start_time: self.drain_began(),
        }
    }

    /// When it was told to drain.
    #[must_use]
    pub fn drain_began(&self) -> Option<TimeInfo> {
        let deactivation = self.deactivation.as_ref()?;
        deactivation.drain.and(deactivation.drain_began)
    }

    /// In Mesos' form, which clients take the address from.
    #[must_use]
    pub fn pid(&self) -> String {
        format!("slave(1)@{}", self.address)
    }

    /// Where its HTTP server is, as offers say.
    #[must_use]
    pub fn url(&self) -> Url {
        let (host, port) = self.host_and_port();
        let ip = host.parse::<IpAddr>().ok().map(|ip| ip.to_string());
        Url {
            scheme: "http".into(),
            address: Address { hostname: Some(self.info.hostname.clone()), ip, port },
            path: Some("/slave(1)".into()),
            ..Default::default()
        }
    }

    /// The IP, or name, of [`Agent::address`].
    #[must_use]
    pub fn host(&self) -> &str {
        self.host_and_port().0
    }

    fn host_and_port(&self) -> (&str, i32) {
        split_address(&self.address).unwrap_or((&self.address, self.info.port()))
    }

    /// What tasks and executors on it use.
    #[must_use]
    pub fn allocated(&self) -> Resources {
        sum(self.used.values())
    }

    /// [`Agent::total`], as the operator API shows it.
    #[must_use]
    pub fn total_resources(&self) -> Vec<Resource> {
        self.total.to_wire_endpoint()
    }

    /// [`Agent::allocated`], as the operator API shows it.
    #[must_use]
    pub fn allocated_resources(&self) -> Vec<Resource> {
        self.allocated().to_wire_endpoint()
    }

    /// [`Agent::offered`], as the operator API shows it.
    #[must_use]
    pub fn offered_resources(&self) -> Vec<Resource> {
        self.offered.to_wire_endpoint()
    }
}

/// `host:port`, of which an IPv6 host may stand in brackets.
pub(super) fn split_address(address: &str) -> Option<(&str, i32)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Some((host, port.parse().ok()?))
}
