//! The containers that run, with what they use.
//!
//! A look at all of them is shared by those who ask at the same time ([`Together`]), and made on the threads that make containers, in a few
//! lanes: each goes from container to container and lets others have its thread in between. What a container uses is read from files of
//! the kernel; where an isolator is somebody else's program, one that does not answer costs its container the figures, and nobody else.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::{Value as Json, json};
use tepui_api::http::Refusal;
use tepui_api::v1::agent::response::get_containers::Container;
use tepui_api::v1::{ContainerId, ContainerStatus, ExecutorId, FrameworkId};
use tepui_isolators::cgroups::{Pressure, Share, Stall};
use tokio::task::JoinSet;

use super::executors::Entry;
use super::query::Query;
use super::together::Together;
use super::{Context, stopping};
use crate::core::{Executor, ExecutorLife, Life, Snapshot, Task};
use crate::shell::backend::Backend;

/// How many threads look at once.
const LANES: usize = 2;
/// How many containers each thread asks at once: worth it only where an isolator has to be waited for.
const AT_ONCE: usize = 8;
/// How long a container may take to tell.
const PATIENCE: Duration = Duration::from_secs(5);

/// A look at all containers.
pub(crate) type All = Together<Arc<Vec<Container>>>;

/// All containers that run, as they are after this call. One that ends while it is asked is left without figures.
pub(super) async fn all(context: &Context) -> Result<Arc<Vec<Container>>, Refusal> {
    let look = || async {
        let snapshot = context.handle.snapshot().await.map_err(stopping)?;
        Ok(Arc::new(look_at(context, running(&snapshot)).await))
    };
    context.containers.ask(look).await
}

/// Those that the parameters choose, as `/containers` takes them: a container, a framework, or an executor of a framework.
pub(super) async fn chosen(context: &Context, query: &Query) -> Result<Arc<Vec<Container>>, Refusal> {
    let (container, framework, executor) =
        (query.get("container_id"), query.get("framework_id"), query.get("executor_id"));
    let known = match (container, framework, executor) {
        (None, None, None) => return all(context).await,
        (container, framework, executor) => {
            (container.is_some() && framework.is_none() && executor.is_none())
                || (container.is_none() && framework.is_some())
        }
    };
    if !known {
        return Err(Refusal::bad_request(
            "choose containers by 'container_id' alone, by 'framework_id' alone, or by 'framework_id' and 'executor_id'",
        ));
    }
    let snapshot = context.handle.snapshot().await.map_err(stopping)?;
    let mut found = running(&snapshot);
    let is = |wanted: Option<&str>, id: &str| wanted.is_none_or(|wanted| wanted == id);
    found.retain(|one| {
        is(container, &one.container.value)
            && is(framework, &one.framework.value)
            && is(executor, &one.executor.value)
    });
    Ok(Arc::new(look_at(context, found).await))
}

/// A container that runs, and who it is for.
#[derive(Debug, Clone)]
struct Running {
    framework: FrameworkId,
    executor: ExecutorId,
    name: Option<String>,
    container: ContainerId,
    pid: Option<u32>,
}

fn running(snapshot: &Snapshot) -> Vec<Running> {
    let runs = |task: &&Arc<Task>| matches!(task.life, Life::Running | Life::Killing(_));
    // Those of pods are shown as nested ones.
    let tasks = snapshot.frameworks.tasks().filter(|task| task.container.parent.is_none());
    let tasks = tasks.filter(runs).map(|task| Running {
        framework: task.key.framework.clone(),
        executor: ExecutorId::new(task.key.task.value.clone()),
        name: Entry::Active(task).executor(&task.key.framework).name,
        container: task.container.clone(),
        pid: task.pid,
    });
    let runs = |executor: &&Arc<Executor>| {
        matches!(
            executor.life,
            ExecutorLife::Registering | ExecutorLife::Running { .. } | ExecutorLife::Terminating { .. }
        )
    };
    let executors = snapshot.frameworks.executors().filter(runs).map(|executor| Running {
        framework: executor.key.framework.clone(),
        executor: executor.key.executor.clone(),
        name: executor.info.name.clone(),
        container: executor.container.clone(),
        pid: executor.pid,
    });
    tasks.chain(executors).collect()
}

async fn look_at(context: &Context, found: Vec<Running>) -> Vec<Container> {
    let each = found.len().div_ceil(LANES).max(1);
    // Dropped when nobody waits any more, which ends the lanes.
    let mut lanes = JoinSet::new();
    for (lane, found) in found.chunks(each).enumerate() {
        let (backend, found) = (Arc::clone(&context.backend), found.to_vec());
        let look = async move {
            let looks = found.into_iter().map(|running| one(&*backend, running));
            (lane, stream::iter(looks).buffered(AT_ONCE).collect::<Vec<_>>().await)
        };
        lanes.spawn_on(look, &context.workers);
    }
    let mut found = lanes.join_all().await;
    found.sort_unstable_by_key(|(lane, _)| *lane);
    found.into_iter().flat_map(|(_, containers)| containers).collect()
}

async fn one(backend: &dyn Backend, running: Running) -> Container {
    tokio::task::yield_now().await;
    let id = running.container;
    let asked = async { (backend.usage(id.clone()).await, backend.status(id.clone()).await) };
    let (usage, status) = match tokio::time::timeout(PATIENCE, asked).await {
        Ok((usage, status)) => (usage.ok(), status.unwrap_or_default()),
        Err(_) => {
            tracing::warn!(container = %id, patience = ?PATIENCE, "a container does not tell what it uses");
            (None, ContainerStatus::default())
        }
    };
    let known = ContainerStatus { container_id: Some(id.clone()), executor_pid: running.pid, ..status };
    Container {
        framework_id: Some(running.framework),
        executor_id: Some(running.executor),
        executor_name: running.name,
        container_id: id,
        container_status: Some(known),
        resource_statistics: usage,
    }
}

/// Those that are no executor's own: nested in others, and asked for by call. Mesos says of them no more than their ids and figures.
pub(super) async fn others(context: &Context, nested: bool, standalone: bool) -> Vec<Container> {
    let mut ids = Vec::new();
    if standalone {
        ids.extend(context.by_calls.standalone());
    }
    if nested {
        ids.extend(context.backend.nested());
    }
    ids.sort_unstable_by_key(ToString::to_string);
    let looks = ids.into_iter().map(|id| other(&*context.backend, id));
    stream::iter(looks).buffered(AT_ONCE).collect().await
}

async fn other(backend: &dyn Backend, id: ContainerId) -> Container {
    let asked = async { (backend.usage(id.clone()).await, backend.status(id.clone()).await) };
    let (usage, status) = tokio::time::timeout(PATIENCE, asked)
        .await
        .map_or((None, None), |(usage, status)| (usage.ok(), status.ok()));
    Container {
        container_id: id,
        container_status: status,
        resource_statistics: usage,
        ..Container::default()
    }
}

/// As `/containers` shows one.
pub(super) fn as_json(container: &Container) -> Json {
    let mut json = names(container);
    json["container_id"] = json!(container.container_id.value);
    json["status"] = serde_json::to_value(&container.container_status).unwrap_or_default();
    if let Some(statistics) = &container.resource_statistics {
        json["statistics"] = serde_json::to_value(statistics).unwrap_or_default();
    }
    json
}

/// As `/monitor/statistics` shows one: not at all when there are no figures.
pub(super) fn statistics(container: &Container) -> Option<Json> {
    let statistics = container.resource_statistics.as_ref()?;
    let mut json = names(container);
    json["statistics"] = serde_json::to_value(statistics).unwrap_or_default();
    Some(json)
}

fn names(container: &Container) -> Json {
    let executor = container.executor_id.as_ref().map_or("", |id| id.value.as_str());
    json!({
        "executor_id": executor,
        "executor_name": container.executor_name,
        "framework_id": container.framework_id.as_ref().map_or("", |id| id.value.as_str()),
        "source": executor,
    })
}

/// All containers with what they have to wait for, as `/tepui/v1/pressure` shows them. Those of which the kernel does not tell are left out.
pub(super) async fn pressures(context: &Context) -> Result<Json, Refusal> {
    let snapshot = context.handle.snapshot().await.map_err(stopping)?;
    let mut shown = Vec::new();
    for running in running(&snapshot) {
        tokio::task::yield_now().await;
        match context.backend.pressure(running.container.clone()).await {
            Ok(Some(found)) => shown.push(json!({
                "container_id": running.container.value,
                "executor_id": running.executor.value,
                "framework_id": running.framework.value,
                "pressure": pressure(&found),
            })),
            Ok(None) => {}
            Err(error) => tracing::debug!(container = %running.container, %error, "no pressure is known"),
        }
    }
    Ok(Json::Array(shown))
}

fn pressure(pressure: &Pressure) -> Json {
    let all = [("cpu", pressure.cpu), ("io", pressure.io), ("memory", pressure.memory)];
    Json::Object(all.into_iter().filter_map(|(name, one)| Some((name.to_owned(), stall(one?)))).collect())
}

fn stall(stall: Stall) -> Json {
    let all = [("some", Some(stall.some)), ("full", stall.full)];
    Json::Object(all.into_iter().filter_map(|(name, one)| Some((name.to_owned(), share(one?)))).collect())
}

#[expect(clippy::cast_precision_loss, reason = "Mesos' times are doubles in seconds")]
fn share(share: Share) -> Json {
    json!({
        "avg10_percent": share.avg10,
        "avg60_percent": share.avg60,
        "avg300_percent": share.avg300,
        "total_secs": share.total_micros as f64 / 1e6,
    })
}
