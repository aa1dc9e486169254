//! ATTACH_CONTAINER_OUTPUT: what a container writes, as it writes it.
//!
//! Each record is a `ProcessIO`: DATA of STDOUT or STDERR, or a CONTROL heartbeat. The stream ends with the output. It has a heartbeat at its start and
//! every 30 seconds, as Mesos' I/O switchboard sends them.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderValue, Response};
use tepui_api::http::{Body, MESSAGE_CONTENT_TYPE, RECORDIO, Refusal};
use tepui_api::v1::agent::{Call, ProcessIo, process_io};
use tepui_api::v1::{ContainerId, DurationInfo};
use tepui_api::{encode, recordio};
use tokio::sync::mpsc;

use super::super::{Answer, Context};
use super::media::Form;
use super::{check_id, follow, not_found};
use crate::shell::guest::Piece;

/// Mesos' `DEFAULT_..._HEARTBEAT` of the I/O switchboard.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// Answers the call.
pub(in crate::http) async fn output(context: &Context, call: Call, form: Form) -> Answer {
    let attach = call.attach_container_output;
    let attach =
        attach.ok_or_else(|| Refusal::bad_request("Expecting 'attach_container_output' to be present"))?;
    check_id(&attach.container_id, "attach_container_output.container_id")?;
    let pieces = match context.sessions.attach(&attach.container_id) {
        Some(pieces) => pieces,
        None => of_task(context, &attach.container_id).await?,
    };
    Ok(answer(form, pieces, ()))
}

/// What a task writes from now on, by the files that it goes to.
///
/// Mesos has this only for containers with a terminal.
async fn of_task(context: &Context, id: &ContainerId) -> Result<mpsc::Receiver<Piece>, Refusal> {
    let snapshot = context.handle.snapshot().await.map_err(super::super::stopping)?;
    let task = snapshot.frameworks.tasks().find(|task| task.container == *id);
    // Executors and containers by call are known to those who make them.
    let other = || context.backend.place(id).map(|(sandbox, _)| sandbox);
    let directory = task.map(|task| task.directory.clone()).or_else(other).ok_or_else(|| not_found(id))?;
    Ok(follow::follow(&context.workers, std::sync::Arc::clone(&context.backend), id.clone(), &directory))
}

/// A stream of what comes. `guard` is dropped when the client has gone or all is said.
pub(super) fn answer(
    form: Form,
    pieces: mpsc::Receiver<Piece>,
    guard: impl Send + 'static,
) -> Response<Body> {
    let media = form.message();
    let first = tokio::time::Instant::now() + HEARTBEAT;
    let heartbeats = tokio::time::interval_at(first, HEARTBEAT);
    let later =
        stream::unfold((pieces, heartbeats, guard), move |(mut pieces, mut heartbeats, guard)| async move {
            let message = tokio::select! {
                biased;
                _ = heartbeats.tick() => heartbeat(),
                piece = pieces.recv() => data(piece?),
            };
            Some((message, (pieces, heartbeats, guard)))
        });
    let messages = stream::once(std::future::ready(heartbeat())).chain(later);
    let records = messages.map(move |message| recordio::encode(&encode(media, &message)));
    let content_type = match form {
        Form::Plain(media) => media.as_str(),
        Form::Records(_) => RECORDIO,
    };
    let mut answer = tepui_api::http::stream(content_type, records);
    if let Form::Records(media) = form {
        let value = HeaderValue::from_static(media.as_str());
        answer.headers_mut().insert(MESSAGE_CONTENT_TYPE, value);
    }
    answer
}

fn data(piece: Piece) -> ProcessIo {
    let (kind, bytes): (_, Bytes) = match piece {
        Piece::Out(bytes) => (process_io::data::Type::Stdout, bytes),
        Piece::Error(bytes) => (process_io::data::Type::Stderr, bytes),
    };
    ProcessIo {
        r#type: Some(process_io::Type::Data as i32),
        data: Some(process_io::Data { r#type: Some(kind as i32), data: Some(bytes.to_vec()) }),
        control: None,
    }
}

fn heartbeat() -> ProcessIo {
    let nanoseconds = i64::try_from(HEARTBEAT.as_nanos()).unwrap_or(i64::MAX);
    ProcessIo {
        r#type: Some(process_io::Type::Control as i32),
        data: None,
        control: Some(process_io::Control {
            r#type: Some(process_io::control::Type::Heartbeat as i32),
            tty_info: None,
            heartbeat: Some(process_io::control::Heartbeat { interval: Some(DurationInfo { nanoseconds }) }),
        }),
    }
}
