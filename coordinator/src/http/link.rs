//! `POST /tepui/v1/link`: the link of an agent, frames in RecordIO both ways over one HTTP/2 stream.

use std::sync::Arc;

use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use prost::Message as _;
use tepui_api::http as api;
use tepui_api::http::Body;
use tepui_api::link::{AgentFrame, CoordinatorFrame, coordinator_frame};
use tepui_api::recordio::{self, Decoder, RecordError};
use tokio::sync::mpsc::UnboundedReceiver;

use super::{Context, stopping};
use crate::shell::outbox::{Overrun, Writer, outbox};
use crate::shell::{CoreGone, LinkGuard};

/// The media type of the link's records, in RecordIO.
const LINK: &str = "application/x-tepui-link";

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
enum LinkEnd {
    #[error("the agent closed it")]
    ByAgent,
    #[error("the coordinator closed it")]
    ByCore,
    #[error("its connection broke: {0}")]
    Broken(#[from] hyper::Error),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("the agent sent a frame that cannot be read: {0}")]
    Frame(#[from] prost::DecodeError),
    #[error(transparent)]
    Overrun(#[from] Overrun),
    #[error(transparent)]
    Stopping(#[from] CoreGone),
}

/// Opens a link.
pub(super) async fn handle(context: &Arc<Context>, request: Request<Incoming>) -> Response<Body> {
    let target = request.uri().path_and_query().map_or("", |p| p.as_str());
    if let Err(elsewhere) = context.check_leading(target) {
        return *elsewhere;
    }
    if request.method() != Method::POST {
        return api::method_not_allowed("POST", request.method());
    }
    if request.version() != Version::HTTP_2 {
        let text = "an agent's link needs HTTP/2 with prior knowledge";
        return api::error(StatusCode::HTTP_VERSION_NOT_SUPPORTED, text);
    }
    let (guard, frames) = match context.core.open_link() {
        Ok(link) => link,
        Err(gone) => return stopping(gone),
    };
    let (writer, reader) = outbox(context.lease.clone());
    tokio::spawn(async move {
        let link = guard.id();
        let ended = tokio::select! {
            end = take(request.into_body(), &guard) => end,
            end = give(frames, writer) => end,
        };
        tracing::info!(link = link.0, reason = %ended, "an agent's link ended");
    });
    api::stream(LINK, reader)
}

/// Hands the agent's frames to the core.
async fn take(mut body: Incoming, guard: &LinkGuard) -> LinkEnd {
    let mut decoder = Decoder::new();
    loop {
        let chunk = match body.frame().await {
            None => return LinkEnd::ByAgent,
            Some(Err(error)) => return error.into(),
            Some(Ok(frame)) => frame.into_data(),
        };
        let Ok(chunk) = chunk else { continue };
        decoder.push(&chunk);
        if let Err(end) = hand_over(&mut decoder, guard) {
            return end;
        }
    }
}

fn hand_over(decoder: &mut Decoder, guard: &LinkGuard) -> Result<(), LinkEnd> {
    while let Some(record) = decoder.next_record()? {
        // A frame without a body is of a newer agent and says something that is not known here.
        if let Some(frame) = AgentFrame::decode(record)?.body {
            guard.frame(frame)?;
        }
    }
    Ok(())
}

/// Writes the core's frames.
async fn give(mut frames: UnboundedReceiver<coordinator_frame::Body>, mut writer: Writer) -> LinkEnd {
    loop {
        let frame = tokio::select! {
            biased;
            () = writer.gone() => return LinkEnd::ByAgent,
            frame = frames.recv() => frame,
        };
        let Some(frame) = frame else { return LinkEnd::ByCore };
        let record = recordio::encode(&CoordinatorFrame { body: Some(frame) }.encode_to_vec());
        if let Err(overrun) = writer.push(record) {
            return overrun.into();
        }
    }
}
