//! `POST /api/v1`: the operators' calls.

use std::sync::Arc;

use http::{Request, StatusCode};
use http_body::Body as HttpBody;
use serde_json::Value as Json;
use tepui_api::MediaType;
use tepui_api::http::{Refusal, message, read_body};
use tepui_api::v1::agent::response::{self, Type as Answered};
use tepui_api::v1::agent::{Call, Response, call::Type};
use tepui_api::v1::{AgentInfo, DurationInfo, ExecutorInfo, Flag, Metric, TimeInfo};

use super::attach::{self, Form};
use super::executors::Entry;
use super::{Answer, Context, containers, files, metrics, nested, stopping};
use crate::core::{Framework, Life, Snapshot, is_terminal};
use crate::identity;

/// Answers a call.
pub(super) async fn answer<B>(context: &Context, request: Request<B>) -> Answer
where
    B: HttpBody<Data = bytes::Bytes> + Send,
    B::Error: std::fmt::Display,
{
    let media = attach::content(request.headers())?;
    let form = attach::accept(request.headers())?;
    let media = match media {
        Form::Plain(media) => media,
        Form::Records(media) => return streamed(context, request, media, form).await,
    };
    let body = read_body(request.into_body()).await?;
    let call: Call =
        tepui_api::decode(media, &body).map_err(|error| Refusal::bad_request(error.to_string()))?;
    let kind = call.r#type();
    if kind == Type::AttachContainerInput {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Expecting 'Content-Type' to be application/recordio for ATTACH_CONTAINER_INPUT call",
        ));
    }
    match kind {
        Type::AttachContainerOutput => return attach::output(context, call, form).await,
        Type::LaunchNestedContainerSession => return attach::launch(context, call, form).await,
        _ => {}
    }
    let Form::Plain(answered_as) = form else {
        return Err(Refusal::new(
            StatusCode::NOT_ACCEPTABLE,
            format!("Streaming response is not supported for {} call", kind.as_str_name()),
        ));
    };
    if kind == Type::PruneImages {
        return prune_images(context, call).await;
    }
    if let Some(answer) = attach::of_session(context, &call, answered_as).await {
        return answer;
    }
    if nested::knows(kind) {
        return nested::answer(context, call, answered_as).await;
    }
    let response = respond(context, call).await?;
    Ok(match answered_as {
        MediaType::Json => tepui_api::http::json(as_json(&response)),
        MediaType::Protobuf => message(answered_as, &response),
    })
}

/// A request of several calls.
async fn streamed<B>(context: &Context, request: Request<B>, media: MediaType, form: Form) -> Answer
where
    B: HttpBody<Data = bytes::Bytes> + Send,
    B::Error: std::fmt::Display,
{
    let mut calls = attach::Calls::new(request.into_body(), media);
    let first = calls.next().await?;
    let first = first.ok_or_else(|| Refusal::bad_request("Received EOF while reading request body"))?;
    let kind = first.r#type();
    if kind != Type::AttachContainerInput {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!(
                "Streaming 'Content-Type' application/recordio is not supported for {} call",
                kind.as_str_name()
            ),
        ));
    }
    if matches!(form, Form::Records(_)) {
        return Err(Refusal::new(
            StatusCode::NOT_ACCEPTABLE,
            "Streaming response is not supported for ATTACH_CONTAINER_INPUT call",
        ));
    }
    attach::input(context, first, &mut calls).await
}

/// The lists that Mesos shows even when there is nothing in them.
const LISTS: [(&str, &[&str]); 3] = [
    (
        "get_tasks",
        &["pending_tasks", "queued_tasks", "launched_tasks", "terminated_tasks", "completed_tasks"],
    ),
    ("get_executors", &["executors", "completed_executors"]),
    ("get_frameworks", &["frameworks", "completed_frameworks"]),
];

fn as_json(response: &Response) -> String {
    let mut json = serde_json::to_value(response).unwrap_or_default();
    show_empty_lists(&mut json);
    if let Some(state) = json.get_mut("get_state") {
        show_empty_lists(state);
    }
    json.to_string()
}

fn show_empty_lists(json: &mut Json) {
    for (message, lists) in LISTS {
        let Some(Json::Object(message)) = json.get_mut(message) else { continue };
        for list in lists {
            message.entry(*list).or_insert_with(|| Json::Array(Vec::new()));
        }
    }
}

async fn respond(context: &Context, call: Call) -> Result<Response, Refusal> {
    let Some(kind) = call.r#type.and_then(|number| Type::try_from(number).ok()) else {
        return Err(Refusal::bad_request("Expecting 'type' to be present"));
    };
    let mut response = Response::default();
    let answered = match kind {
        Type::GetHealth => {
            response.get_health = Some(response::GetHealth { healthy: true });
            Answered::GetHealth
        }
        Type::GetVersion => {
            response.get_version = Some(response::GetVersion { version_info: identity::version() });
            Answered::GetVersion
        }
        Type::GetFlags => {
            let flag = |(name, value): (&str, String)| Flag { name: name.to_owned(), value: Some(value) };
            let flags = context.settings.table().into_iter().map(flag).collect();
            response.get_flags = Some(response::GetFlags { flags });
            Answered::GetFlags
        }
        Type::GetMetrics => {
            check_timeout(call.get_metrics.and_then(|get| get.timeout))?;
            let all = metrics::collect(context, &snapshot(context).await?);
            let metrics = all.into_iter().map(|(name, value)| Metric { name, value: Some(value) });
            response.get_metrics = Some(response::GetMetrics { metrics: metrics.collect() });
            Answered::GetMetrics
        }
        Type::GetLoggingLevel => {
            response.get_logging_level = Some(response::GetLoggingLevel { level: 0 });
            Answered::GetLoggingLevel
        }
        Type::ListFiles => {
            let list = call.list_files.ok_or_else(|| missing("list_files"))?;
            let file_infos = files::blocking(&context.files, move |files| files.browse(&list.path)).await?;
            response.list_files = Some(response::ListFiles { file_infos });
            Answered::ListFiles
        }
        Type::ReadFile => {
            let read = call.read_file.ok_or_else(|| missing("read_file"))?;
            let piece = files::blocking(&context.files, move |files| {
                files.read(&read.path, read.offset, read.length)
            });
            let piece = piece.await?;
            response.read_file = Some(response::ReadFile { size: piece.size, data: piece.data });
            Answered::ReadFile
        }
        Type::GetState => {
            let snapshot = snapshot(context).await?;
            response.get_state = Some(response::GetState {
                get_tasks: Some(get_tasks(&snapshot)),
                get_executors: Some(get_executors(&snapshot)),
                get_frameworks: Some(get_frameworks(&snapshot)),
            });
            Answered::GetState
        }
        Type::GetTasks => {
            response.get_tasks = Some(get_tasks(&snapshot(context).await?));
            Answered::GetTasks
        }
        Type::GetExecutors => {
            response.get_executors = Some(get_executors(&snapshot(context).await?));
            Answered::GetExecutors
        }
        Type::GetFrameworks => {
            response.get_frameworks = Some(get_frameworks(&snapshot(context).await?));
            Answered::GetFrameworks
        }
        Type::GetContainers => {
            let mut containers = Arc::unwrap_or_clone(containers::all(context).await?);
            let more = call.get_containers.unwrap_or_default();
            containers.extend(containers::others(context, more.show_nested(), more.show_standalone()).await);
            response.get_containers = Some(response::GetContainers { containers });
            Answered::GetContainers
        }
        Type::GetAgent => {
            let snapshot = snapshot(context).await?;
            response.get_agent = Some(response::GetAgent {
                // Mesos' agent leaves out of its own answer what its master shows.
                agent_info: Some(AgentInfo { checkpoint: None, ..(*snapshot.agent).clone() }),
                drain_config: snapshot.drain.map(|drain| drain.config),
                estimated_drain_start_time: snapshot.drain.map(|drain| TimeInfo {
                    nanoseconds: i64::try_from(drain.since.as_nanos()).unwrap_or(i64::MAX),
                }),
            });
            Answered::GetAgent
        }
        Type::GetOperations => {
            response.get_operations = Some(response::GetOperations::default());
            Answered::GetOperations
        }
        Type::GetResourceProviders => {
            response.get_resource_providers = Some(response::GetResourceProviders::default());
            Answered::GetResourceProviders
        }
        Type::Unknown => {
            return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, "the call's type is not known"));
        }
        other => return Err(Refusal::not_implemented(format!("the call {}", other.as_str_name()))),
    };
    response.r#type = Some(answered as i32);
    Ok(response)
}

/// Answered without a body, when it is done.
async fn prune_images(context: &Context, call: Call) -> Answer {
    let keep = call.prune_images.unwrap_or_default().excluded_images;
    let backend = Arc::clone(&context.backend);
    let pruned = context.workers.spawn(async move { backend.prune_images(keep).await });
    match pruned.await {
        Ok(Ok(())) => Ok(tepui_api::http::empty(StatusCode::OK)),
        Ok(Err(error)) => Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error)),
        Err(error) => Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

async fn snapshot(context: &Context) -> Result<Snapshot, Refusal> {
    context.handle.snapshot().await.map_err(stopping)
}

fn missing(field: &str) -> Refusal {
    Refusal::bad_request(format!("Expecting '{field}' to be present"))
}

/// Metrics are there at once; a time-out can only be nonsense.
fn check_timeout(timeout: Option<DurationInfo>) -> Result<(), Refusal> {
    match timeout {
        Some(timeout) if timeout.nanoseconds < 0 => {
            Err(Refusal::bad_request("'get_metrics.timeout' must not be negative"))
        }
        _ => Ok(()),
    }
}

/// Tasks by what is known of them: to be launched, launched, over but not acknowledged, and history.
fn get_tasks(snapshot: &Snapshot) -> response::GetTasks {
    let mut tasks = response::GetTasks::default();
    for (_, entry) in Entry::all(snapshot) {
        let shown = entry.shown().clone();
        match entry {
            Entry::Completed(_) => tasks.completed_tasks.push(shown),
            Entry::Active(_) if is_terminal(shown.state()) => tasks.terminated_tasks.push(shown),
            // One that its executor was given is launched, whatever that has told.
            Entry::Active(task) if shown.statuses.is_empty() && task.life != Life::Delegated => {
                tasks.queued_tasks.push(shown);
            }
            Entry::Active(_) => tasks.launched_tasks.push(shown),
        }
    }
    tasks
}

fn get_executors(snapshot: &Snapshot) -> response::GetExecutors {
    let mut executors = response::GetExecutors::default();
    let own = |info: &ExecutorInfo| response::get_executors::Executor { executor_info: info.clone() };
    for framework in snapshot.frameworks.active.values().chain(&snapshot.frameworks.completed) {
        executors.executors.extend(framework.executors.values().map(|executor| own(&executor.info)));
        let completed = framework.completed_executors.iter().map(|executor| own(&executor.info));
        executors.completed_executors.extend(completed);
    }
    for (framework, entry) in Entry::all(snapshot).filter(|(_, entry)| entry.is_command_task()) {
        let executor = response::get_executors::Executor { executor_info: entry.executor(framework) };
        match entry {
            Entry::Active(_) => executors.executors.push(executor),
            Entry::Completed(_) => executors.completed_executors.push(executor),
        }
    }
    executors
}

fn get_frameworks(snapshot: &Snapshot) -> response::GetFrameworks {
    let one = |framework: &Framework| response::get_frameworks::Framework {
        framework_info: (*framework.info).clone(),
    };
    response::GetFrameworks {
        frameworks: snapshot.frameworks.active.values().map(one).collect(),
        completed_frameworks: snapshot.frameworks.completed.iter().map(one).collect(),
    }
}
