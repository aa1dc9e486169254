//! `/state`, `/slaves`, `/frameworks`, `/tasks` and `/roles`.

use std::sync::Arc;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use tepui_api::resources::summarize;
use tepui_api::v1::{Task, framework_info};

use super::super::roles::{self, Amounts, RoleView};
use super::super::{Context, operator};
use super::write::{List, V0AgentInfo, V0Executor, V0Labels, V0Master, V0Offer, V0Task, agent_info, seconds};
use crate::core::{Agent, Framework, Snapshot};

/// `/state`
pub(super) struct State<'a>(pub(super) &'a Context, pub(super) &'a Snapshot);

impl Serialize for State<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self(context, state) = self;
        let mut map = to.serialize_map(None)?;
        let version = operator::version();
        map.serialize_entry("version", &version.version)?;
        map.serialize_entry("build_date", version.build_date())?;
        map.serialize_entry("build_time", &version.build_time())?;
        map.serialize_entry("build_user", version.build_user())?;
        map.serialize_entry("start_time", &context.started.as_secs_f64())?;
        map.serialize_entry("elected_time", &context.elected.as_secs_f64())?;
        let info = &context.info;
        map.serialize_entry("id", &info.id)?;
        map.serialize_entry("pid", info.pid())?;
        map.serialize_entry("hostname", info.hostname())?;
        map.serialize_entry(
            "capabilities",
            &List(|| info.capabilities.iter().map(|c| c.r#type().as_str_name())),
        )?;
        let active = state.agents.values().filter(|agent| agent.active()).count();
        map.serialize_entry("activated_slaves", &count(active))?;
        map.serialize_entry("deactivated_slaves", &count(state.agents.len() - active))?;
        map.serialize_entry("unreachable_slaves", &count(state.unreachable_agents.len()))?;
        if let Some(leader) = context.leader() {
            map.serialize_entry("leader", leader.pid())?;
            map.serialize_entry("leader_info", &V0Master(&leader))?;
        }
        if let Some(cluster) = &context.settings.cluster {
            map.serialize_entry("cluster", cluster)?;
        }
        map.serialize_entry("flags", &Flags(context))?;
        map.serialize_entry("slaves", &List(|| state.agents.values().map(|agent| V0Agent(agent))))?;
        map.serialize_entry("recovered_slaves", &List(|| recovered(state)))?;
        map.serialize_entry("frameworks", &List(|| state.frameworks.values().map(|each| V0Framework(each))))?;
        let completed = List(|| state.completed_frameworks.iter().map(|each| V0Framework(each)));
        map.serialize_entry("completed_frameworks", &completed)?;
        // Both are of times before 1.0, and tools still look for them.
        map.serialize_entry("orphan_tasks", &[(); 0])?;
        map.serialize_entry("unregistered_frameworks", &[(); 0])?;
        map.end()
    }
}

/// All flags that have a value.
pub(super) struct Flags<'a>(pub(super) &'a Context);

impl Serialize for Flags<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.0.settings.table())
    }
}

/// `/slaves`, of all agents or the one with this id.
pub(super) struct Agents<'a>(pub(super) &'a Snapshot, pub(super) Option<&'a str>);

impl Serialize for Agents<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self(state, wanted) = self;
        let is_wanted = |id: &str| wanted.is_none_or(|wanted| wanted == id);
        let mut map = to.serialize_map(None)?;
        let agents = || {
            state.agents.values().filter(|agent| is_wanted(agent.id.as_str())).map(|agent| WholeAgent(agent))
        };
        map.serialize_entry("slaves", &List(agents))?;
        let recovered = || {
            let wanted = state.recovered_agents.iter().filter(|(id, _)| is_wanted(id.as_str()));
            wanted.map(|(_, info)| V0AgentInfo(info))
        };
        map.serialize_entry("recovered_slaves", &List(recovered))?;
        map.end()
    }
}

/// `/frameworks`, of all or the one with this id.
pub(super) struct Frameworks<'a>(pub(super) &'a Snapshot, pub(super) Option<&'a str>);

impl Serialize for Frameworks<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self(state, wanted) = self;
        let is_wanted = |each: &&Arc<Framework>| wanted.is_none_or(|wanted| wanted == each.id.as_str());
        let mut map = to.serialize_map(None)?;
        let frameworks = || state.frameworks.values().filter(is_wanted).map(|each| V0Framework(each));
        map.serialize_entry("frameworks", &List(frameworks))?;
        let completed = || state.completed_frameworks.iter().filter(is_wanted).map(|each| V0Framework(each));
        map.serialize_entry("completed_frameworks", &List(completed))?;
        map.serialize_entry("unregistered_frameworks", &[(); 0])?;
        map.end()
    }
}

/// What `/tasks` is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TaskQuery {
    pub(super) framework: Option<String>,
    pub(super) task: Option<String>,
    pub(super) limit: usize,
    pub(super) offset: usize,
    /// Oldest first; otherwise newest first.
    pub(super) ascending: bool,
}

/// `/tasks`: of living and ended frameworks, sorted by the time of their first status.
pub(super) struct Tasks<'a>(pub(super) &'a Snapshot, pub(super) &'a TaskQuery);

impl Serialize for Tasks<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self(state, query) = self;
        let frameworks = state.frameworks.values().chain(&state.completed_frameworks);
        let frameworks = frameworks
            .filter(|each| query.framework.as_deref().is_none_or(|wanted| wanted == each.id.as_str()));
        let mut tasks: Vec<&Task> = frameworks
            .flat_map(|each| all_tasks(each))
            .filter(|task| query.task.as_deref().is_none_or(|wanted| wanted == task.task_id.as_str()))
            .collect();
        // A task without a status counts as older than any with one.
        let first = |task: &Task| task.statuses.first().map(|status| status.timestamp());
        tasks.sort_by(|a, b| {
            let order = first(a).partial_cmp(&first(b)).unwrap_or(std::cmp::Ordering::Equal);
            if query.ascending { order } else { order.reverse() }
        });
        let mut map = to.serialize_map(Some(1))?;
        let page = || tasks.iter().skip(query.offset).take(query.limit).map(|task| V0Task(task));
        map.serialize_entry("tasks", &List(page))?;
        map.end()
    }
}

/// `/roles`
pub(super) struct Roles<'a>(pub(super) &'a Context, pub(super) &'a Snapshot);

impl Serialize for Roles<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let known = roles::known(self.1, self.0.settings.roles.as_deref());
        let mut map = to.serialize_map(Some(1))?;
        map.serialize_entry("roles", &List(|| known.iter().map(|(name, role)| V0Role(name, role))))?;
        map.end()
    }
}

struct V0Role<'a>(&'a str, &'a RoleView);

impl Serialize for V0Role<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self(name, role) = self;
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("name", name)?;
        map.serialize_entry("weight", &role.weight)?;
        map.serialize_entry("quota", &V0Quota(name, role))?;
        map.serialize_entry("resources", &Amounts(&role.resources()))?;
        map.serialize_entry("allocated", &Amounts(&role.allocated))?;
        map.serialize_entry("offered", &Amounts(&role.offered))?;
        map.serialize_entry("reserved", &Amounts(&role.reserved))?;
        map.serialize_entry("frameworks", &List(|| role.frameworks.iter().map(|id| id.as_str())))?;
        map.end()
    }
}

/// No role has a quota, so only what would count against it is there.
struct V0Quota<'a>(&'a str, &'a RoleView);

impl Serialize for V0Quota<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let none = serde_json::Map::new();
        let mut map = to.serialize_map(Some(4))?;
        map.serialize_entry("role", self.0)?;
        map.serialize_entry("guarantee", &none)?;
        map.serialize_entry("limit", &none)?;
        map.serialize_entry("consumed", &Amounts(&self.1.consumed()))?;
        map.end()
    }
}

/// A framework with all that belongs to it.
struct V0Framework<'a>(&'a Framework);

impl Serialize for V0Framework<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let framework = self.0;
        let info = &framework.info;
        let mut map = to.serialize_map(None)?;
        framework_summary(&mut map, framework)?;
        map.serialize_entry("user", &info.user)?;
        map.serialize_entry("failover_timeout", &info.failover_timeout())?;
        map.serialize_entry("checkpoint", &info.checkpoint())?;
        map.serialize_entry("registered_time", &seconds(framework.registered.as_ref()))?;
        map.serialize_entry("unregistered_time", &seconds(framework.unregistered.as_ref()))?;
        if let Some(principal) = &info.principal {
            map.serialize_entry("principal", principal)?;
        }
        let both = framework.allocated() + framework.offered();
        map.serialize_entry("resources", &summarize(&both))?;
        if let Some(again) =
            framework.reregistered.as_ref().filter(|at| Some(*at) != framework.registered.as_ref())
        {
            map.serialize_entry("reregistered_time", &seconds(Some(again)))?;
        }
        if framework.has(framework_info::capability::Type::MultiRole) {
            map.serialize_entry("roles", &info.roles)?;
        } else {
            map.serialize_entry("role", info.role())?;
        }
        map.serialize_entry("tasks", &List(|| framework.tasks.values().map(|task| V0Task(task))))?;
        let unreachable = || framework.unreachable_tasks.iter().map(|task| V0Task(task));
        map.serialize_entry("unreachable_tasks", &List(unreachable))?;
        let completed = || framework.completed_tasks.iter().map(|task| V0Task(task));
        map.serialize_entry("completed_tasks", &List(completed))?;
        map.serialize_entry("offers", &List(|| framework.offers.values().map(|held| V0Offer(&held.offer))))?;
        let executors =
            || framework.executors.iter().map(|((agent, _), executor)| V0Executor(executor, agent.as_str()));
        map.serialize_entry("executors", &List(executors))?;
        if let Some(labels) = &info.labels {
            map.serialize_entry("labels", &V0Labels(labels))?;
        }
        map.serialize_entry(
            "offer_constraints",
            &framework.offer_constraints.as_deref().cloned().unwrap_or_default(),
        )?;
        map.end()
    }
}

/// Writes what summaries have of a framework, too.
pub(super) fn framework_summary<M: SerializeMap>(map: &mut M, framework: &Framework) -> Result<(), M::Error> {
    let info = &framework.info;
    map.serialize_entry("id", framework.id.as_str())?;
    map.serialize_entry("name", &info.name)?;
    map.serialize_entry("used_resources", &summarize(&framework.allocated()))?;
    map.serialize_entry("offered_resources", &summarize(&framework.offered()))?;
    map.serialize_entry(
        "capabilities",
        &List(|| info.capabilities.iter().map(|c| c.r#type().as_str_name())),
    )?;
    map.serialize_entry("hostname", info.hostname())?;
    map.serialize_entry("webui_url", info.webui_url())?;
    map.serialize_entry("active", &framework.connected())?;
    map.serialize_entry("connected", &framework.connected())?;
    map.serialize_entry("recovered", &(framework.connection == crate::core::Connection::Recovered))
}

/// An agent.
struct V0Agent<'a>(&'a Agent);

impl Serialize for V0Agent<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        agent(&mut map, self.0)?;
        map.end()
    }
}

/// Writes an agent.
pub(super) fn agent<M: SerializeMap>(map: &mut M, agent: &Agent) -> Result<(), M::Error> {
    agent_info(map, &agent.info)?;
    map.serialize_entry("pid", &agent.pid())?;
    map.serialize_entry("registered_time", &seconds(Some(&agent.registered)))?;
    if let Some(again) = &agent.reregistered {
        map.serialize_entry("reregistered_time", &seconds(Some(again)))?;
    }
    map.serialize_entry("resources", &summarize(&agent.total))?;
    map.serialize_entry("used_resources", &summarize(&agent.allocated()))?;
    map.serialize_entry("offered_resources", &summarize(&agent.offered))?;
    let reserved = agent.total.reservations();
    let reserved = reserved.iter().map(|(role, resources)| (role.to_string(), summarize(resources).into()));
    map.serialize_entry("reserved_resources", &reserved.collect::<serde_json::Map<_, serde_json::Value>>())?;
    map.serialize_entry("unreserved_resources", &summarize(&agent.total.unreserved()))?;
    map.serialize_entry("active", &agent.active())?;
    map.serialize_entry("deactivated", &agent.deactivation.is_some())?;
    map.serialize_entry("version", &agent.version)?;
    map.serialize_entry(
        "capabilities",
        &List(|| agent.capabilities.iter().map(|c| c.r#type().as_str_name())),
    )?;
    if let Some(drain) = agent.deactivation.as_ref().and_then(|deactivation| deactivation.drain) {
        map.serialize_entry("drain_info", &drain)?;
    }
    if let Some(began) = &agent.drain_began() {
        map.serialize_entry("estimated_drain_start_time_seconds", &seconds(Some(began)))?;
    }
    Ok(())
}

/// An agent with its resources as messages, too.
struct WholeAgent<'a>(&'a Agent);

impl Serialize for WholeAgent<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        agent(&mut map, self.0)?;
        let reserved = self.0.total.reservations();
        let reserved =
            reserved.iter().map(|(role, resources)| (role.to_string(), resources.to_wire_endpoint()));
        let reserved = reserved.collect::<std::collections::BTreeMap<_, _>>();
        map.serialize_entry("reserved_resources_full", &reserved)?;
        map.serialize_entry("unreserved_resources_full", &self.0.total.unreserved().to_wire_endpoint())?;
        map.serialize_entry("used_resources_full", &self.0.allocated_resources())?;
        map.serialize_entry("offered_resources_full", &self.0.offered_resources())?;
        map.end()
    }
}

/// Tasks of a framework, whatever became of them.
pub(super) fn all_tasks(framework: &Framework) -> impl Iterator<Item = &Task> {
    let living = framework.tasks.values();
    living.chain(framework.unreachable_tasks.iter()).chain(&framework.completed_tasks).map(|task| &**task)
}

fn recovered(state: &Snapshot) -> impl Iterator<Item = V0AgentInfo<'_>> {
    state.recovered_agents.values().map(|info| V0AgentInfo(info))
}

/// A number as Mesos' statistics have it.
#[expect(clippy::cast_precision_loss, reason = "numbers of agents are far below 2^53")]
fn count(number: usize) -> f64 {
    number as f64
}
