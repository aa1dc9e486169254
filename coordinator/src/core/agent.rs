//! What the coordinator knows of one agent.

use std::sync::Arc;

use tepui_api::v1::master::response::get_agents;
use tepui_api::v1::{AgentId, AgentInfo, Resource, TimeInfo, agent_info::Capability};

use super::io::LinkId;

/// An admitted agent. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Agent {
    /// Its id.
    pub id: AgentId,
    /// As it described itself last, with its id.
    pub info: Arc<AgentInfo>,
    /// Its connection, while it has one.
    pub link: Option<LinkId>,
    /// Version of Tepui that it runs.
    pub version: String,
    /// `host:port` of its HTTP server.
    pub address: String,
    /// What it can do.
    pub capabilities: Arc<[Capability]>,
    /// When it registered.
    pub registered: TimeInfo,
    /// When it came back last.
    pub reregistered: Option<TimeInfo>,
}

impl Agent {
    /// As the operator API shows it.
    #[must_use]
    pub fn to_wire(&self) -> get_agents::Agent {
        get_agents::Agent {
            agent_info: (*self.info).clone(),
            active: self.link.is_some(),
            deactivated: Some(false),
            version: self.version.clone(),
            pid: Some(self.pid()),
            registered_time: Some(self.registered),
            reregistered_time: self.reregistered,
            total_resources: self.total_resources(),
            allocated_resources: self.allocated_resources(),
            offered_resources: self.offered_resources(),
            capabilities: self.capabilities.to_vec(),
            resource_providers: Vec::new(),
            drain_info: None,
            estimated_drain_start_time: None,
        }
    }

    /// In Mesos' form, which clients take the address from.
    #[must_use]
    pub fn pid(&self) -> String {
        format!("slave(1)@{}", self.address)
    }

    /// All it has.
    #[must_use]
    pub fn total_resources(&self) -> Vec<Resource> {
        self.info.resources.clone()
    }

    /// What tasks and executors on it use.
    #[must_use]
    pub fn allocated_resources(&self) -> Vec<Resource> {
        Vec::new()
    }

    /// What of it is in offers.
    #[must_use]
    pub fn offered_resources(&self) -> Vec<Resource> {
        Vec::new()
    }
}
