//! The thread that writes the registry: takes all changes that wait, writes them in one go, and tells
//! the core.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;

use tepui_zookeeper::Lease;

use crate::core::{RegistryChange, Ticket};
use crate::registry::{Registry, RegistryError};

use super::handle::{CoreHandle, Request};

/// Changes that are written in one go: few enough to keep the first waiting only milliseconds.
const BATCH: usize = 4096;

/// What the thread tells of itself, for metrics.
#[derive(Debug, Default)]
pub(crate) struct RegistryStats {
    /// On disk; 0 for a registry that is not.
    pub(crate) bytes: AtomicU64,
    /// How long the last write took; 0 before there was one.
    pub(crate) last_write_micros: AtomicU64,
    /// Changes that are being written.
    pub(crate) queued: AtomicU64,
}

/// The running thread. It ends when the sender of changes is dropped, or when the lease is over.
#[derive(Debug)]
pub(crate) struct RegistryThread {
    /// Where changes go, in their order.
    pub(crate) changes: mpsc::Sender<(Ticket, RegistryChange)>,
    /// How it ended.
    pub(crate) thread: JoinHandle<Result<(), RegistryError>>,
    /// How it is.
    pub(crate) stats: Arc<RegistryStats>,
}

// === impl RegistryThread ===

impl RegistryThread {
    /// Starts it.
    ///
    /// # Errors
    /// When the system has no room for a thread.
    pub(crate) fn start(
        registry: Box<dyn Registry>,
        core: CoreHandle,
        lease: Lease,
    ) -> std::io::Result<Self> {
        let (changes, waiting) = mpsc::channel();
        let stats = Arc::new(RegistryStats::default());
        stats.note_size(&*registry);
        let own = Arc::clone(&stats);
        let thread = std::thread::Builder::new()
            .name("registry".to_owned())
            .spawn(move || write_all(registry, &waiting, (&core, &lease), &own))?;
        Ok(Self { changes, thread, stats })
    }
}

// === impl RegistryStats ===

impl RegistryStats {
    fn note_size(&self, registry: &dyn Registry) {
        self.bytes.store(registry.size().unwrap_or(0), Ordering::Relaxed);
    }
}

fn write_all(
    mut registry: Box<dyn Registry>,
    waiting: &mpsc::Receiver<(Ticket, RegistryChange)>,
    (core, lease): (&CoreHandle, &Lease),
    stats: &RegistryStats,
) -> Result<(), RegistryError> {
    while let Ok(first) = waiting.recv()
        && lease.holds()
    {
        let (tickets, changes): (Vec<_>, Vec<_>) =
            std::iter::once(first).chain(waiting.try_iter()).take(BATCH).unzip();
        stats.queued.store(changes.len() as u64, Ordering::Relaxed);
        let begun = Instant::now();
        if let Err(error) = registry.write(&changes) {
            tracing::error!(%error, "the registry cannot be written, so the coordinator ends");
            let _ = core.send(Request::Stop);
            return Err(error);
        }
        let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        stats.last_write_micros.store(micros, Ordering::Relaxed);
        stats.queued.store(0, Ordering::Relaxed);
        stats.note_size(&*registry);
        for ticket in tickets {
            if core.send(Request::Persisted(ticket)).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}
