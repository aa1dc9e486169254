//! The older JSON endpoints, which tools and web pages read, in Mesos' form.

use std::path::Path;

use http::StatusCode;
use serde_json::{Map, Value as Json, json};
use tepui_api::resources::{Resources, summarize, summarize_attributes};
use tepui_api::v1::{
    Attribute, ContainerId, ExecutorInfo, FrameworkInfo, Resource, Task, TaskStatus,
    framework_info::capability,
};

use super::executors::Entry;
use super::query::Query;
use super::{Answer, Context, containers, files, metrics, stopping};
use crate::core::{Framework, Life, Snapshot, capabilities, is_terminal};
use crate::identity;

/// Whether there is something at this path.
pub(super) fn knows(path: &str) -> bool {
    PATHS.contains(&path)
}

const PATHS: [&str; 19] = [
    "/containers",
    "/files/browse",
    "/files/browse.json",
    "/files/debug",
    "/files/debug.json",
    "/files/download",
    "/files/download.json",
    "/files/read",
    "/files/read.json",
    "/flags",
    "/health",
    "/metrics/snapshot",
    "/monitor/statistics",
    "/monitor/statistics.json",
    "/state",
    "/state.json",
    "/tepui/v1/pressure",
    "/tepui/v1/pulls",
    "/version",
];

/// Answers a request for a path that is not a call.
pub(super) async fn answer(context: &Context, path: &str, query: Option<&str>) -> Answer {
    let query = Query::parse(query);
    match path {
        "/health" => Ok(tepui_api::http::empty(StatusCode::OK)),
        "/version" => Ok(query.json(&serde_json::to_value(identity::version()).unwrap_or_default())),
        "/flags" => Ok(query.json(&json!({"flags": flags(context)}))),
        "/state" | "/state.json" => {
            let snapshot = context.handle.snapshot().await.map_err(stopping)?;
            Ok(query.json(&state(context, &snapshot)))
        }
        "/containers" => {
            let chosen = containers::chosen(context, &query).await?;
            Ok(query.json(&Json::Array(chosen.iter().map(containers::as_json).collect())))
        }
        "/monitor/statistics" | "/monitor/statistics.json" => {
            let all = containers::all(context).await?;
            Ok(query.json(&Json::Array(all.iter().filter_map(containers::statistics).collect())))
        }
        "/metrics/snapshot" => {
            let snapshot = context.handle.snapshot().await.map_err(stopping)?;
            Ok(query.json(&json!(metrics::collect(context, &snapshot))))
        }
        "/files/browse" | "/files/browse.json" => files::browse(context, &query).await,
        "/files/read" | "/files/read.json" => files::read(context, &query).await,
        "/files/download" | "/files/download.json" => files::download(context, &query).await,
        "/files/debug" | "/files/debug.json" => files::debug(context, &query),
        "/tepui/v1/pressure" => Ok(query.json(&containers::pressures(context).await?)),
        "/tepui/v1/pulls" => Ok(query.json(&context.backend.pulls())),
        _ => Ok(tepui_api::http::not_found()),
    }
}

fn flags(context: &Context) -> Json {
    let flags = context.settings.table().into_iter();
    Json::Object(flags.map(|(name, value)| (name.to_owned(), Json::from(value))).collect())
}

/// All that the agent has, as `/state` shows it.
fn state(context: &Context, snapshot: &Snapshot) -> Json {
    let agent = &snapshot.agent;
    let total = Resources::from_wire_lossy(&agent.resources);
    let allocated = Resources::from_wire_lossy(&snapshot.in_use());
    let mut state = as_object(serde_json::to_value(identity::version()).unwrap_or_default());
    let master = context.settings.master.rsplit_once(':').map(|(host, _)| host);
    let rest = json!({
        "attributes": attributes(&agent.attributes),
        "capabilities": capabilities().iter().map(|c| c.r#type().as_str_name()).collect::<Vec<_>>(),
        "completed_frameworks": frameworks(snapshot.frameworks.completed.iter()),
        "flags": flags(context),
        "frameworks": frameworks(snapshot.frameworks.active.values()),
        "hostname": agent.hostname,
        "id": agent.id.as_ref().map_or("", |id| id.value.as_str()),
        "master_hostname": master,
        "pid": context.pid,
        "reserved_resources": by_role(&total, |resources| Json::Object(summarize(resources))),
        "reserved_resources_allocated": by_role(&allocated, |resources| Json::Object(summarize(resources))),
        "reserved_resources_full": by_role(&total, full),
        "resource_providers": [],
        "resources": summarize(&total),
        "start_time": context.started.as_secs_f64(),
        "unreserved_resources": summarize(&total.unreserved()),
        "unreserved_resources_allocated": summarize(&allocated.unreserved()),
        "unreserved_resources_full": full(&total.unreserved()),
    });
    state.extend(as_object(rest));
    if let Some(drain) = snapshot.drain {
        state.insert("drain_config".to_owned(), serde_json::to_value(drain.config).unwrap_or_default());
        state.insert("estimated_drain_start_time_seconds".to_owned(), drain.since.as_secs().into());
    }
    Json::Object(state)
}

fn as_object(json: Json) -> Map<String, Json> {
    match json {
        Json::Object(map) => map,
        _ => Map::new(),
    }
}

fn attributes(attributes: &[Attribute]) -> Json {
    Json::Object(summarize_attributes(attributes))
}

fn by_role(resources: &Resources, show: impl Fn(&Resources) -> Json) -> Json {
    let roles = resources.reservations();
    Json::Object(roles.iter().map(|(role, resources)| (role.to_string(), show(resources))).collect())
}

fn full(resources: &Resources) -> Json {
    serde_json::to_value(resources.to_wire_endpoint()).unwrap_or_default()
}

fn frameworks<'a>(frameworks: impl Iterator<Item = &'a Framework>) -> Json {
    Json::Array(frameworks.map(framework).collect())
}

fn framework(framework: &Framework) -> Json {
    let info = &framework.info;
    let of_task = |entry: Entry| entry.is_command_task().then(|| executor(info, &entry));
    let active = framework.tasks.values().filter_map(|task| of_task(Entry::Active(task)));
    let own = framework.executors.values().map(|executor| {
        let (info, container, directory) = (&executor.info, &executor.container, &executor.directory);
        own_executor(framework, info, container, directory, &executor.amounts.resources)
    });
    let completed = framework.completed.iter().filter_map(|task| of_task(Entry::Completed(task)));
    let own_completed = framework.completed_executors.iter().map(|executor| {
        own_executor(framework, &executor.info, &executor.container, &executor.directory, &[])
    });
    let mut json = json!({
        "checkpoint": info.checkpoint(),
        "completed_executors": completed.chain(own_completed).collect::<Vec<_>>(),
        "executors": active.chain(own).collect::<Vec<_>>(),
        "failover_timeout": info.failover_timeout(),
        "hostname": info.hostname(),
        "id": info.id.as_ref().map_or("", |id| id.value.as_str()),
        "name": info.name,
        "user": info.user,
    });
    if let Some(principal) = &info.principal {
        json["principal"] = json!(principal);
    }
    if info.capabilities.iter().any(|c| c.r#type() == capability::Type::MultiRole) {
        json["roles"] = json!(info.roles);
    } else {
        json["role"] = json!(info.role());
    }
    json
}

fn executor(framework: &FrameworkInfo, entry: &Entry) -> Json {
    let info = entry.executor(&framework.id.clone().unwrap_or_default());
    let shown = entry.shown();
    let over = is_terminal(shown.state());
    let queued = shown.statuses.is_empty();
    let only = |wanted: bool| if wanted { vec![task(shown)] } else { Vec::new() };
    let mut json = json!({
        "completed_tasks": only(over),
        "container": entry.container().value,
        "directory": entry.directory().display().to_string(),
        "id": info.executor_id.value,
        "name": info.name(),
        "queued_tasks": only(queued && !over),
        "resources": summarize(&Resources::from_wire_lossy(if over { &[] } else { &shown.resources })),
        "source": info.source(),
        "tasks": only(!queued && !over),
    });
    if let Some(role) = role(shown) {
        json["role"] = json!(role);
    }
    if let Some(labels) = &info.labels {
        json["labels"] = serde_json::to_value(&labels.labels).unwrap_or_default();
    }
    json
}

/// An executor of the framework's own, with the tasks that it was given.
fn own_executor(
    framework: &Framework,
    info: &ExecutorInfo,
    container: &ContainerId,
    directory: &Path,
    resources: &[Resource],
) -> Json {
    let active = framework.tasks.values().filter(|task| task.container == *container);
    let (over, active): (Vec<_>, Vec<_>) = active.partition(|task| is_terminal(task.state()));
    let (queued, launched): (Vec<_>, Vec<_>) =
        active.into_iter().partition(|task| matches!(task.life, Life::Queued { .. }));
    let completed = framework.completed.iter().filter(|task| task.container == *container);
    let completed = completed.map(|done| task(&done.shown)).chain(over.iter().map(|over| task(&over.shown)));
    let mut json = json!({
        "completed_tasks": completed.collect::<Vec<_>>(),
        "container": container.value,
        "directory": directory.display().to_string(),
        "id": info.executor_id.value,
        "name": info.name(),
        "queued_tasks": queued.iter().map(|queued| task(&queued.shown)).collect::<Vec<_>>(),
        "resources": summarize(&Resources::from_wire_lossy(resources)),
        "source": info.source(),
        "tasks": launched.iter().map(|launched| task(&launched.shown)).collect::<Vec<_>>(),
        "type": info.r#type().as_str_name(),
    });
    if let Some(role) = role_of(&info.resources) {
        json["role"] = json!(role);
    }
    if let Some(labels) = &info.labels {
        json["labels"] = serde_json::to_value(&labels.labels).unwrap_or_default();
    }
    json
}

fn role(task: &Task) -> Option<&str> {
    role_of(&task.resources)
}

fn role_of(resources: &[Resource]) -> Option<&str> {
    resources.iter().find_map(|resource| resource.allocation_info.as_ref()?.role.as_deref())
}

fn task(task: &Task) -> Json {
    let mut json = json!({
        "executor_id": task.executor_id.as_ref().map_or("", |id| id.value.as_str()),
        "framework_id": task.framework_id.value,
        "id": task.task_id.value,
        "name": task.name,
        "resources": summarize(&Resources::from_wire_lossy(&task.resources)),
        "role": role(task).unwrap_or("*"),
        "slave_id": task.agent_id.value,
        "state": task.state().as_str_name(),
        "statuses": task.statuses.iter().map(status).collect::<Vec<_>>(),
    });
    let mut add = |name: &str, value: Option<Json>| {
        if let Some(value) = value {
            json[name] = value;
        }
    };
    add("user", task.user.as_deref().map(Json::from));
    add("labels", task.labels.as_ref().and_then(|l| serde_json::to_value(&l.labels).ok()));
    add("discovery", task.discovery.as_ref().and_then(|d| serde_json::to_value(d).ok()));
    add("container", task.container.as_ref().and_then(|c| serde_json::to_value(c).ok()));
    add("health_check", task.health_check.as_ref().and_then(|h| serde_json::to_value(h).ok()));
    json
}

fn status(status: &TaskStatus) -> Json {
    let mut json = json!({"state": status.state().as_str_name(), "timestamp": status.timestamp()});
    if let Some(container) = &status.container_status {
        json["container_status"] = serde_json::to_value(container).unwrap_or_default();
    }
    if let Some(labels) = &status.labels {
        json["labels"] = serde_json::to_value(&labels.labels).unwrap_or_default();
    }
    if let Some(healthy) = status.healthy {
        json["healthy"] = json!(healthy);
    }
    json
}
