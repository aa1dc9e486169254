//! The thread that writes the registry: takes all changes that wait, writes them in one go, and tells
//! the core.

use std::sync::mpsc;
use std::thread::JoinHandle;

use crate::core::{RegistryChange, Ticket};
use crate::registry::{Registry, RegistryError};

use super::handle::{CoreHandle, Request};

/// Changes that are written in one go: few enough to keep the first waiting only milliseconds.
const BATCH: usize = 4096;

/// The running thread. It ends when the sender of changes is dropped.
#[derive(Debug)]
pub(crate) struct RegistryThread {
    /// Where changes go, in their order.
    pub(crate) changes: mpsc::Sender<(Ticket, RegistryChange)>,
    /// How it ended.
    pub(crate) thread: JoinHandle<Result<(), RegistryError>>,
}

// === impl RegistryThread ===

impl RegistryThread {
    /// Starts it.
    ///
    /// # Errors
    /// When the system has no room for a thread.
    pub(crate) fn start(registry: Box<dyn Registry>, core: CoreHandle) -> std::io::Result<Self> {
        let (changes, waiting) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("registry".to_owned())
            .spawn(move || write_all(registry, &waiting, &core))?;
        Ok(Self { changes, thread })
    }
}

fn write_all(
    mut registry: Box<dyn Registry>,
    waiting: &mpsc::Receiver<(Ticket, RegistryChange)>,
    core: &CoreHandle,
) -> Result<(), RegistryError> {
    while let Ok(first) = waiting.recv() {
        let (tickets, changes): (Vec<_>, Vec<_>) =
            std::iter::once(first).chain(waiting.try_iter()).take(BATCH).unzip();
        if let Err(error) = registry.write(&changes) {
            tracing::error!(%error, "the registry cannot be written, so the coordinator ends");
            let _ = core.send(Request::Stop);
            return Err(error);
        }
        for ticket in tickets {
            if core.send(Request::Persisted(ticket)).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}
