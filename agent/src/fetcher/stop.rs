//! The word that something is wanted no more.

use tokio::sync::watch;

/// Whether a container is to be destroyed before it runs. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

// === impl Stop ===

impl Stop {
    /// Said by setting the sender's value to true.
    pub(crate) fn of(said: watch::Receiver<bool>) -> Self {
        Self(said)
    }

    /// Whether it was said.
    pub(crate) fn is_said(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is said.
    pub(crate) async fn said(&self) {
        if self.0.clone().wait_for(|said| *said).await.is_err() {
            // Nobody is left who could say it.
            std::future::pending().await
        }
    }
}
