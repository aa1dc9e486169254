//! Containers whose backend does not know them yet: while their sandbox is made and what they want is fetched.
//!
//! A container can be destroyed at any time. Until its backend knows it, only this can stop it: whoever destroys it says so here and
//! waits until its preparation has stopped, or has come so far that the backend can cancel it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tepui_api::v1::ContainerId;
use tokio::sync::watch;

use crate::fetcher::Stop;

/// The preparations that no backend knows of.
#[derive(Debug, Clone, Default)]
pub(super) struct UnderWay {
    stops: Arc<Mutex<HashMap<ContainerId, Arc<watch::Sender<bool>>>>>,
}

/// A preparation that no backend knows of. Ends when it is dropped.
#[derive(Debug)]
pub(super) struct Beginning {
    all: UnderWay,
    id: ContainerId,
    stop: Stop,
}

// === impl UnderWay ===

impl UnderWay {
    /// A container begins to be prepared. To be called before anybody can ask for its end.
    pub(super) fn begin(&self, id: &ContainerId) -> Beginning {
        let (sender, receiver) = watch::channel(false);
        self.stops().insert(id.clone(), Arc::new(sender));
        Beginning { all: self.clone(), id: id.clone(), stop: Stop::of(receiver) }
    }

    /// Has a preparation stop, and waits until it has, or until the backend knows the container.
    pub(super) async fn stop(&self, id: &ContainerId) {
        let Some(sender) = self.stops().get(id).cloned() else { return };
        sender.send_replace(true);
        sender.closed().await;
    }

    fn stops(&self) -> MutexGuard<'_, HashMap<ContainerId, Arc<watch::Sender<bool>>>> {
        self.stops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Beginning ===

impl Beginning {
    /// Whether it is to stop.
    pub(super) fn stop(&self) -> &Stop {
        &self.stop
    }
}

impl Drop for Beginning {
    fn drop(&mut self) {
        self.all.stops().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_stops_a_preparation_waits_for_its_end() {
        let all = UnderWay::default();
        let id = ContainerId { value: "c".into(), ..ContainerId::default() };
        all.stop(&id).await;
        let beginning = all.begin(&id);
        assert!(!beginning.stop().is_said());
        let (stopping, waiting) = (all.clone(), id.clone());
        let stopped = tokio::spawn(async move { stopping.stop(&waiting).await });
        beginning.stop().said().await;
        assert!(!stopped.is_finished());
        drop(beginning);
        stopped.await.unwrap();
        all.stop(&id).await;
    }
}
