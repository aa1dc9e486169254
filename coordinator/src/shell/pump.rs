//! Turns the messages of one stream into records, on the stream's own task.

use std::sync::Arc;
use std::time::Duration;

use tepui_api::{MediaType, Wire, recordio};
use tokio::sync::mpsc::UnboundedReceiver;

use super::outbox::{Overrun, Writer};

/// Why a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The core closed it.
    ByCore,
    /// The client closed it, or its connection broke.
    ByClient,
    /// The client was too slow.
    Overrun(Overrun),
}

/// A message that an idle stream is sent.
#[derive(Debug)]
pub(crate) struct Heartbeat<M> {
    /// After this long, again and again, whatever else is sent.
    pub(crate) interval: Duration,
    /// The message.
    pub(crate) message: M,
}

/// Writes every message that comes into the outbox until one of its ends is closed.
pub(crate) async fn pump<M: Wire>(
    mut messages: UnboundedReceiver<Arc<M>>,
    media: MediaType,
    mut out: Writer,
    heartbeat: Option<Heartbeat<M>>,
) -> Ended {
    let beats = heartbeat.map(|beat| {
        let record = recordio::encode(&tepui_api::encode(media, &beat.message));
        let first = tokio::time::Instant::now() + beat.interval;
        (tokio::time::interval_at(first, beat.interval), record)
    });
    let (mut timer, beat) = beats.unzip();
    loop {
        let record = tokio::select! {
            biased;
            () = out.gone() => return Ended::ByClient,
            message = messages.recv() => match message {
                Some(message) => recordio::encode(&tepui_api::encode(media, &*message)),
                None => return Ended::ByCore,
            },
            () = tick(&mut timer) => match &beat {
                Some(record) => record.clone(),
                None => continue,
            },
        };
        if let Err(overrun) = out.push(record) {
            return Ended::Overrun(overrun);
        }
    }
}

async fn tick(timer: &mut Option<tokio::time::Interval>) {
    match timer {
        Some(timer) => {
            timer.tick().await;
        }
        None => std::future::pending().await,
    }
}
