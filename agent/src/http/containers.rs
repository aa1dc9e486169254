//! The containers that run, with what they use.

use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::{Value as Json, json};
use tepui_api::v1::agent::response::get_containers::Container;
use tepui_api::v1::{ContainerStatus, ExecutorId};

use super::Context;
use super::executors::Entry;
use crate::core::{Life, Snapshot, Task};

/// How many containers are asked at once.
const AT_ONCE: usize = 16;

/// All containers that run. One that ends while it is asked is left without figures.
pub(super) async fn all(context: &Context, snapshot: &Snapshot) -> Vec<Container> {
    let running: Vec<_> = snapshot.frameworks.tasks().filter(|task| runs(task)).cloned().collect();
    stream::iter(running).map(|task| one(context, task)).buffered(AT_ONCE).collect().await
}

fn runs(task: &Task) -> bool {
    matches!(task.life, Life::Running | Life::Killing(_))
}

async fn one(context: &Context, task: std::sync::Arc<Task>) -> Container {
    let id = task.container.clone();
    let (usage, status) = tokio::join!(context.backend.usage(id.clone()), context.backend.status(id.clone()));
    let known = ContainerStatus {
        container_id: Some(id.clone()),
        executor_pid: task.pid,
        ..status.unwrap_or_default()
    };
    Container {
        framework_id: Some(task.key.framework.clone()),
        executor_id: Some(ExecutorId::new(task.key.task.value.clone())),
        executor_name: Entry::Active(&task).executor(&task.key.framework).name,
        container_id: id,
        container_status: Some(known),
        resource_statistics: usage.ok(),
    }
}

/// As `/containers` shows one.
pub(super) fn as_json(container: &Container) -> Json {
    let mut json = statistics(container);
    json["container_id"] = json!(container.container_id.value);
    json["status"] = serde_json::to_value(&container.container_status).unwrap_or_default();
    json
}

/// As `/monitor/statistics` shows one.
pub(super) fn statistics(container: &Container) -> Json {
    let id = |value: Option<&str>| value.unwrap_or_default().to_owned();
    let executor = id(container.executor_id.as_ref().map(|id| id.value.as_str()));
    let mut json = json!({
        "executor_id": executor,
        "executor_name": container.executor_name,
        "framework_id": id(container.framework_id.as_ref().map(|id| id.value.as_str())),
        "source": executor,
    });
    if let Some(statistics) = &container.resource_statistics {
        json["statistics"] = serde_json::to_value(statistics).unwrap_or_default();
    }
    json
}
