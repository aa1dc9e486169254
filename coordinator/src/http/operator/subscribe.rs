//! `SUBSCRIBE`: the state, and then every change of it, as a stream of events.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use tepui_api::http::Body;
use tepui_api::v1::master::{Event, event};
use tepui_api::{MediaType, http as api, recordio};

use super::super::{Context, stopping, write_apart};
use super::state;
use crate::shell::outbox::outbox;
use crate::shell::pump::{Ended, Heartbeat, pump};

/// `DEFAULT_HEARTBEAT_INTERVAL` of Mesos.
const INTERVAL: Duration = Duration::from_secs(15);

/// Opens the stream.
pub(super) async fn handle(context: &Arc<Context>, media: MediaType) -> Response<Body> {
    let (state, events) = match context.core.observe().await {
        Ok(observed) => observed,
        Err(gone) => return stopping(gone),
    };
    let write = move || state::subscribed(&state, INTERVAL.as_secs_f64(), media);
    let first: Bytes = match write_apart(write).await {
        Ok(bytes) => recordio::encode(&bytes),
        Err(refusal) => return refusal.into(),
    };
    let beat = Event { r#type: Some(event::Type::Heartbeat.into()), ..Event::default() };
    let second = recordio::encode(&tepui_api::encode(media, &beat));
    let (mut writer, reader) = outbox(context.lease.clone());
    // A large cluster's state alone is more than may wait.
    writer.allow(first.len());
    for record in [first, second] {
        if let Err(overrun) = writer.push(record) {
            return api::error(http::StatusCode::INTERNAL_SERVER_ERROR, &overrun.to_string());
        }
    }
    let context = Arc::clone(context);
    tokio::spawn(async move {
        context.operator_streams.fetch_add(1, Ordering::Relaxed);
        let heartbeat = Heartbeat { interval: INTERVAL, message: beat };
        let ended = pump(events, media, writer, Some(heartbeat)).await;
        context.operator_streams.fetch_sub(1, Ordering::Relaxed);
        if let Ended::Overrun(overrun) = ended {
            tracing::warn!(%overrun, "an operator's stream is closed");
        }
    });
    api::stream(media.as_str(), reader)
}
