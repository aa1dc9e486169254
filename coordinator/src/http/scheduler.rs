//! `POST /api/v1/scheduler`: calls of frameworks, and their streams of events.
//!
//! The checks and their order are those of Mesos' `Master::Http::scheduler`: who leads (307, 503), the
//! method (405), the body's type (400, 415), the body (400), whether the call is whole (400), what the
//! client accepts, where there is an answer to accept (406), a stream id where none may be (400). What
//! follows needs the framework and is the core's.

use std::sync::Arc;

use http::header::HeaderValue;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tepui_api::http::{Body, Refusal, STREAM_ID};
use tepui_api::v1::scheduler::Call;
use tepui_api::v1::scheduler::call::Type;
use tepui_api::{MediaType, http as api};
use uuid::Uuid;

use super::{Context, answer, read_call, stopping, validate};
use crate::core::{Reply, StreamHeader, StreamId};
use crate::shell::outbox::outbox;
use crate::shell::pump::{Ended, pump};

/// A call that may be handed to the core, and how the client wants its answer.
struct Checked {
    call: Call,
    stream: StreamHeader,
    /// Only for calls that are answered with a body.
    accept: MediaType,
}

/// Answers one call.
pub(super) async fn handle(context: &Arc<Context>, request: Request<Incoming>) -> Response<Body> {
    let target = request.uri().path_and_query().map_or("", |p| p.as_str());
    if let Err(elsewhere) = context.check_leading(target) {
        return *elsewhere;
    }
    if request.method() != Method::POST {
        return api::method_not_allowed("POST", request.method());
    }
    let Checked { call, stream, accept } = match check(request).await {
        Ok(checked) => checked,
        Err(refusal) => return refusal.into(),
    };
    if call.r#type() == Type::Subscribe {
        return subscribe(context, call, accept).await;
    }
    match context.core.scheduler(stream, call).await {
        Ok(Reply::Response(response)) => api::message(accept, &response.0),
        reply => answer(reply),
    }
}

async fn check(request: Request<Incoming>) -> Result<Checked, Refusal> {
    let (head, body) = request.into_parts();
    let call: Call = read_call(&head, body).await?;
    validate::check(&call)
        .map_err(|error| Refusal::bad_request(format!("Failed to validate scheduler::Call: {error}")))?;
    if call.r#type() == Type::Unknown {
        return Err(Refusal::not_implemented("a call of type UNKNOWN"));
    }
    // Mesos ignores what other calls accept, since their answers have no body.
    let has_answer = matches!(call.r#type(), Type::Subscribe | Type::ReconcileOperations);
    let accept = if has_answer { api::accept(&head.headers)? } else { MediaType::Json };
    let stream = match head.headers.get(STREAM_ID) {
        None => StreamHeader::Absent,
        Some(value) => match value.to_str().ok().and_then(|text| Uuid::try_parse(text).ok()) {
            Some(id) => StreamHeader::Present(StreamId(id)),
            None => StreamHeader::Unknown,
        },
    };
    if call.r#type() == Type::Subscribe && stream != StreamHeader::Absent {
        return Err(Refusal::bad_request("Subscribe calls should not include the 'Mesos-Stream-Id' header"));
    }
    Ok(Checked { call, stream, accept })
}

async fn subscribe(context: &Arc<Context>, call: Call, accept: MediaType) -> Response<Body> {
    let id = Uuid::new_v4();
    let (reply, guard, events) = match context.core.subscribe(StreamId(id), call).await {
        Ok(subscribed) => subscribed,
        Err(gone) => return stopping(gone),
    };
    if reply != Reply::Subscribed {
        return answer(Ok(reply));
    }
    let id = id.to_string();
    let Ok(header) = HeaderValue::from_str(&id) else {
        return api::error(StatusCode::INTERNAL_SERVER_ERROR, "the stream's id cannot stand in a header");
    };
    let (writer, reader) = outbox(context.lease.clone());
    tokio::spawn(async move {
        let ended = pump(events, accept, writer, None).await;
        if let Ended::Overrun(overrun) = ended {
            tracing::warn!(stream = id, %overrun, "a scheduler's stream is closed");
        }
        drop(guard);
    });
    let mut response = api::stream(accept.as_str(), reader);
    response.headers_mut().insert(STREAM_ID, header);
    response
}
