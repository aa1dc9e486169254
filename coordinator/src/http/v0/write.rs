//! How the older JSON shows the small things: tasks, statuses, executors, offers, agents' descriptions.
//!
//! Names and which fields are there follow the `json(…)` functions of Mesos' `common/http.cpp`. Where
//! Mesos writes a protobuf message whole, its v1 form is the same.

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use tepui_api::resources::{Resources, summarize, summarize_attributes};
use tepui_api::v1::{
    AgentInfo, CommandInfo, ContainerStatus, DomainInfo, ExecutorInfo, Labels, MasterInfo, NetworkInfo,
    Offer, Task, TaskStatus, TimeInfo, executor_info,
};

/// A list that is walked when it is written.
pub(super) struct List<F>(pub(super) F);

impl<F, I> Serialize for List<F>
where
    F: Fn() -> I,
    I: Iterator<Item: Serialize>,
{
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq((self.0)())
    }
}

/// Seconds since 1970; 0 for what never was.
pub(super) fn seconds(time: Option<&TimeInfo>) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a double holds the microseconds, as in Mesos")]
    time.map_or(0.0, |time| time.nanoseconds as f64 / 1e9)
}

/// Resources as amounts by name.
pub(super) fn wire_resources(resources: &[tepui_api::v1::Resource]) -> impl Serialize + use<> {
    summarize(&Resources::from_wire_lossy(resources))
}

/// A task.
pub(super) struct V0Task<'a>(pub(super) &'a Task);

impl Serialize for V0Task<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let task = self.0;
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("id", task.task_id.as_str())?;
        map.serialize_entry("name", &task.name)?;
        map.serialize_entry("framework_id", task.framework_id.as_str())?;
        map.serialize_entry("executor_id", task.executor_id.as_ref().map_or("", |id| id.as_str()))?;
        map.serialize_entry("slave_id", task.agent_id.as_str())?;
        map.serialize_entry("state", task.state().as_str_name())?;
        map.serialize_entry("resources", &wire_resources(&task.resources))?;
        if !task.limits.is_empty() {
            let limits = || task.limits.iter().map(|(name, limit)| (name, number(limit.value)));
            map.serialize_entry("limits", &limits().collect::<std::collections::BTreeMap<_, _>>())?;
        }
        // All of a task's resources are allocated to one role.
        let role = task.resources.first().and_then(|resource| resource.allocation_info.as_ref());
        map.serialize_entry("role", role.map_or("", |allocation| allocation.role()))?;
        map.serialize_entry("statuses", &List(|| task.statuses.iter().map(V0Status)))?;
        if let Some(user) = &task.user {
            map.serialize_entry("user", user)?;
        }
        if let Some(labels) = &task.labels {
            map.serialize_entry("labels", &V0Labels(labels))?;
        }
        if let Some(discovery) = &task.discovery {
            map.serialize_entry("discovery", discovery)?;
        }
        if let Some(container) = &task.container {
            map.serialize_entry("container", container)?;
        }
        if let Some(check) = &task.health_check {
            map.serialize_entry("health_check", check)?;
        }
        map.end()
    }
}

struct V0Status<'a>(&'a TaskStatus);

impl Serialize for V0Status<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let status = self.0;
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("state", status.state().as_str_name())?;
        map.serialize_entry("timestamp", &status.timestamp())?;
        if let Some(labels) = &status.labels {
            map.serialize_entry("labels", &V0Labels(labels))?;
        }
        if let Some(container) = &status.container_status {
            map.serialize_entry("container_status", &V0ContainerStatus(container))?;
        }
        if let Some(healthy) = status.healthy {
            map.serialize_entry("healthy", &healthy)?;
        }
        map.end()
    }
}

struct V0ContainerStatus<'a>(&'a ContainerStatus);

impl Serialize for V0ContainerStatus<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        if let Some(id) = &self.0.container_id {
            map.serialize_entry("container_id", id)?;
        }
        if !self.0.network_infos.is_empty() {
            map.serialize_entry("network_infos", &List(|| self.0.network_infos.iter().map(V0Network)))?;
        }
        if let Some(info) = &self.0.cgroup_info {
            map.serialize_entry("cgroup_info", info)?;
        }
        map.end()
    }
}

struct V0Network<'a>(&'a NetworkInfo);

impl Serialize for V0Network<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let network = self.0;
        let mut map = to.serialize_map(None)?;
        if !network.groups.is_empty() {
            map.serialize_entry("groups", &network.groups)?;
        }
        if let Some(labels) = &network.labels {
            map.serialize_entry("labels", &V0Labels(labels))?;
        }
        if !network.ip_addresses.is_empty() {
            map.serialize_entry("ip_addresses", &network.ip_addresses)?;
        }
        if let Some(name) = &network.name {
            map.serialize_entry("name", name)?;
        }
        if !network.port_mappings.is_empty() {
            map.serialize_entry("port_mappings", &network.port_mappings)?;
        }
        map.end()
    }
}

/// Labels: the list alone.
pub(super) struct V0Labels<'a>(pub(super) &'a Labels);

impl Serialize for V0Labels<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(&self.0.labels)
    }
}

/// An executor, on one agent.
pub(super) struct V0Executor<'a>(pub(super) &'a ExecutorInfo, pub(super) &'a str);

impl Serialize for V0Executor<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self(info, agent) = self;
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("executor_id", info.executor_id.as_str())?;
        map.serialize_entry("name", info.name())?;
        map.serialize_entry("framework_id", info.framework_id.as_ref().map_or("", |id| id.as_str()))?;
        map.serialize_entry("command", &V0Command(&info.command.clone().unwrap_or_default()))?;
        map.serialize_entry("resources", &wire_resources(&info.resources))?;
        if let Some(resource) = info.resources.first() {
            map.serialize_entry("role", resource.allocation_info.as_ref().map_or("", |a| a.role()))?;
        }
        if let Some(labels) = &info.labels {
            map.serialize_entry("labels", &V0Labels(labels))?;
        }
        if let Some(kind) = info.r#type.and_then(|kind| executor_info::Type::try_from(kind).ok()) {
            map.serialize_entry("type", kind.as_str_name())?;
        }
        map.serialize_entry("slave_id", agent)?;
        map.end()
    }
}

struct V0Command<'a>(&'a CommandInfo);

impl Serialize for V0Command<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let command = self.0;
        let mut map = to.serialize_map(None)?;
        if let Some(shell) = command.shell {
            map.serialize_entry("shell", &shell)?;
        }
        if let Some(value) = &command.value {
            map.serialize_entry("value", value)?;
        }
        map.serialize_entry("argv", &command.arguments)?;
        if let Some(environment) = &command.environment {
            map.serialize_entry("environment", environment)?;
        }
        let uris = || {
            command
                .uris
                .iter()
                .map(|uri| serde_json::json!({ "value": uri.value, "executable": uri.executable() }))
        };
        map.serialize_entry("uris", &List(uris))?;
        map.end()
    }
}

/// An offer.
pub(super) struct V0Offer<'a>(pub(super) &'a Offer);

impl Serialize for V0Offer<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let offer = self.0;
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("id", offer.id.as_str())?;
        map.serialize_entry("framework_id", offer.framework_id.as_str())?;
        map.serialize_entry("allocation_info", &offer.allocation_info.clone().unwrap_or_default())?;
        map.serialize_entry("slave_id", offer.agent_id.as_str())?;
        map.serialize_entry("resources", &wire_resources(&offer.resources))?;
        map.end()
    }
}

/// Writes how an agent describes itself.
pub(super) fn agent_info<M: SerializeMap>(map: &mut M, info: &AgentInfo) -> Result<(), M::Error> {
    map.serialize_entry("id", info.id.as_ref().map_or("", |id| id.as_str()))?;
    map.serialize_entry("hostname", &info.hostname)?;
    map.serialize_entry("port", &info.port())?;
    map.serialize_entry("attributes", &summarize_attributes(&info.attributes))?;
    if let Some(domain) = &info.domain {
        map.serialize_entry("domain", &V0Domain(domain))?;
    }
    Ok(())
}

/// How an agent describes itself, alone.
pub(super) struct V0AgentInfo<'a>(pub(super) &'a AgentInfo);

impl Serialize for V0AgentInfo<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        agent_info(&mut map, self.0)?;
        map.end()
    }
}

/// Who leads.
pub(super) struct V0Master<'a>(pub(super) &'a MasterInfo);

impl Serialize for V0Master<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let info = self.0;
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("id", &info.id)?;
        map.serialize_entry("pid", info.pid())?;
        map.serialize_entry("port", &info.port)?;
        map.serialize_entry("hostname", info.hostname())?;
        if let Some(domain) = &info.domain {
            map.serialize_entry("domain", &V0Domain(domain))?;
        }
        map.end()
    }
}

struct V0Domain<'a>(&'a DomainInfo);

impl Serialize for V0Domain<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        if let Some(domain) = &self.0.fault_domain {
            map.serialize_entry("fault_domain", domain)?;
        }
        map.end()
    }
}

/// JSON has no infinity; Mesos writes the word.
fn number(value: f64) -> serde_json::Value {
    if value.is_finite() { value.into() } else { value.to_string().into() }
}
