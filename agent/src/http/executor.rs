//! `POST /api/v1/executor`: calls of executors, and their streams of events.
//!
//! The checks and their order are those of Mesos' `Http::executor`: the method (405), the body's type (400, 415), the body (400), whether
//! the call is whole (400), and what the client accepts, where there is a stream to accept (406). What follows needs the framework and the
//! executor and is the core's: neither may be missing (400), and all but SUBSCRIBE needs a subscription (403).

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode};
use http_body::Body as HttpBody;
use tepui_api::http::{Body, Refusal, accept, content_type, read_body};
use tepui_api::v1::TaskState;
use tepui_api::v1::executor::call::Type;
use tepui_api::v1::executor::{Call, Event, event};
use tepui_api::v1::task_status::Source;
use tepui_api::{MediaType, recordio};

use super::{Answer, Context, stopping};
use crate::core::ExecutorAnswer;
use crate::shell::Listening;

/// How often an idle stream is written to. Mesos' figure.
const HEARTBEAT: Duration = Duration::from_secs(30 * 60);

/// Answers a call.
pub(super) async fn answer<B>(context: &Context, request: Request<B>) -> Answer
where
    B: HttpBody<Data = Bytes> + Send,
    B::Error: std::fmt::Display,
{
    let media = content_type(request.headers())?;
    let answered_as = accept(request.headers());
    let body = read_body(request.into_body()).await?;
    let call: Call =
        tepui_api::decode(media, &body).map_err(|error| Refusal::bad_request(error.to_string()))?;
    check(&call)
        .map_err(|error| Refusal::bad_request(format!("Failed to validate Executor::Call: {error}")))?;
    // Mesos ignores what other calls accept, since their answers have no body.
    let answered_as = if call.r#type() == Type::Subscribe { answered_as? } else { MediaType::Json };
    let (answer, events) = context.handle.executor(call).await.map_err(stopping)?;
    match answer {
        ExecutorAnswer::Subscribed => Ok(stream_of(events, answered_as)),
        ExecutorAnswer::Accepted => Ok(tepui_api::http::empty(StatusCode::ACCEPTED)),
        ExecutorAnswer::NoFramework => Err(Refusal::bad_request("Framework cannot be found")),
        ExecutorAnswer::NoExecutor => Err(Refusal::bad_request("Executor cannot be found")),
        ExecutorAnswer::NotSubscribed => {
            Err(Refusal::new(StatusCode::FORBIDDEN, "Executor is not subscribed"))
        }
        ExecutorAnswer::Unknown => Err(Refusal::not_implemented("a call of type UNKNOWN")),
    }
}

/// Why a call is not whole, by the rules of Mesos' `validateExecutorCall`.
fn check(call: &Call) -> Result<(), String> {
    if call.r#type.is_none() {
        return Err("Expecting 'type' to be present".to_owned());
    }
    match call.r#type() {
        Type::Subscribe if call.subscribe.is_none() => Err("Expecting 'subscribe' to be present".to_owned()),
        Type::Message if call.message.is_none() => Err("Expecting 'message' to be present".to_owned()),
        Type::Update => check_update(call),
        Type::Subscribe | Type::Message | Type::Heartbeat | Type::Unknown => Ok(()),
    }
}

fn check_update(call: &Call) -> Result<(), String> {
    let Some(update) = &call.update else { return Err("Expecting 'update' to be present".to_owned()) };
    let (status, executor) = (&update.status, &call.executor_id);
    match status.uuid.as_deref() {
        None => return Err("Expecting 'uuid' to be present".to_owned()),
        Some(uuid) if uuid.len() != 16 => {
            return Err(format!("a 'uuid' has 16 bytes, but this one has {}", uuid.len()));
        }
        Some(_) => {}
    }
    if let Some(other) = status.executor_id.as_ref().filter(|other| *other != executor) {
        return Err(format!(
            "the status is of the executor '{other}', but the call is of the executor '{executor}'"
        ));
    }
    if status.source() != Source::Executor || status.source.is_none() {
        return Err(format!(
            "a status from the executor '{executor}' must have the source 'SOURCE_EXECUTOR'"
        ));
    }
    if status.state() == TaskState::TaskStaging {
        return Err(format!("the executor '{executor}' cannot say that a task is in TASK_STAGING"));
    }
    Ok(())
}

fn stream_of(events: Listening, media: MediaType) -> Response<Body> {
    let first = tokio::time::Instant::now() + HEARTBEAT;
    let beats = tokio::time::interval_at(first, HEARTBEAT);
    let records = stream::unfold((events, beats), move |(mut events, mut beats)| async move {
        let event = tokio::select! {
            event = events.next() => event?,
            _ = beats.tick() => {
                Box::new(Event { r#type: Some(event::Type::Heartbeat as i32), ..Event::default() })
            }
        };
        Some((recordio::encode(&tepui_api::encode(media, &*event)), (events, beats)))
    });
    tepui_api::http::stream(media.as_str(), records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tepui_api::v1::TaskStatus;
    use tepui_api::v1::executor::call::{Subscribe, Update};

    fn update(status: TaskStatus) -> Result<(), String> {
        check(&Call {
            executor_id: "e".into(),
            framework_id: "f".into(),
            r#type: Some(Type::Update as i32),
            update: Some(Update { status }),
            ..Call::default()
        })
    }

    #[test]
    fn what_is_not_whole_is_told() {
        let call = Call { executor_id: "e".into(), framework_id: "f".into(), ..Call::default() };
        assert!(check(&call).unwrap_err().contains("'type'"));
        let subscribe = Call { r#type: Some(Type::Subscribe as i32), ..call };
        assert!(check(&subscribe).unwrap_err().contains("'subscribe'"));
        assert!(check(&Call { subscribe: Some(Subscribe::default()), ..subscribe }).is_ok());

        let whole = TaskStatus {
            task_id: "t".into(),
            state: TaskState::TaskRunning as i32,
            uuid: Some(vec![1; 16]),
            source: Some(Source::Executor as i32),
            ..TaskStatus::default()
        };
        assert_eq!(update(whole.clone()), Ok(()));
        for (status, words) in [
            (TaskStatus { uuid: None, ..whole.clone() }, "'uuid'"),
            (TaskStatus { uuid: Some(vec![1]), ..whole.clone() }, "16 bytes"),
            (TaskStatus { source: None, ..whole.clone() }, "SOURCE_EXECUTOR"),
            (TaskStatus { source: Some(Source::Agent as i32), ..whole.clone() }, "SOURCE_EXECUTOR"),
            (TaskStatus { executor_id: Some("x".into()), ..whole.clone() }, "'x'"),
            (TaskStatus { state: TaskState::TaskStaging as i32, ..whole }, "TASK_STAGING"),
        ] {
            let error = update(status).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
