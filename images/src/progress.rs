//! What a pull tells those who watch it.
//!
//! A pull that several callers share has one [`ProgressHub`]; each caller subscribes to it and gets
//! the latest report of every layer at once, then each later one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::digest::Digest;

/// How far one layer of a pull is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The layer, by diff id: the digest of its plain tar. The same layer may belong to several images.
    pub layer: Digest,
    /// Bytes of the layer's blob (as stored in the registry or archive) that have arrived.
    pub done: u64,
    /// Bytes of the whole blob.
    pub total: u64,
    /// What is happening to the layer.
    pub phase: Phase,
}

/// The stages of a layer, in their order. `Present` and `Done` are the ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Known, and waiting for its turn.
    Waiting,
    /// Its bytes arrive, and are unpacked as they do.
    Fetching,
    /// All bytes are here; the rest is being unpacked and checked.
    Unpacking,
    /// Unpacked, checked and in the store.
    Done,
    /// It was in the store before.
    Present,
}

/// Receives reports. Called from the threads that do the work, so it must be quick.
pub type ProgressFn = Arc<dyn Fn(Progress) + Send + Sync>;

/// Hands the reports of one flight to all its subscribers.
#[derive(Default)]
pub(crate) struct ProgressHub {
    state: Mutex<HubState>,
}

#[derive(Default)]
struct HubState {
    latest: BTreeMap<Digest, Progress>,
    subscribers: Vec<(u64, ProgressFn)>,
    next_id: u64,
}

/// Ends a subscription when dropped.
pub(crate) struct Subscription {
    hub: Arc<ProgressHub>,
    id: u64,
}

// === impl ProgressHub ===

impl ProgressHub {
    pub(crate) fn report(&self, progress: Progress) {
        let subscribers: Vec<ProgressFn> = {
            let mut state = self.lock();
            state.latest.insert(progress.layer.clone(), progress.clone());
            state.subscribers.iter().map(|(_, subscriber)| subscriber.clone()).collect()
        };
        for subscriber in subscribers {
            subscriber(progress.clone());
        }
    }

    pub(crate) fn subscribe(self: &Arc<Self>, subscriber: ProgressFn) -> Subscription {
        let (id, missed) = {
            let mut state = self.lock();
            let id = state.next_id;
            state.next_id += 1;
            state.subscribers.push((id, subscriber.clone()));
            (id, state.latest.values().cloned().collect::<Vec<_>>())
        };
        for progress in missed {
            subscriber(progress);
        }
        Subscription { hub: self.clone(), id }
    }

    fn lock(&self) -> MutexGuard<'_, HubState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Subscription ===

impl Drop for Subscription {
    fn drop(&mut self) {
        self.hub.lock().subscribers.retain(|(id, _)| *id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(done: u64) -> Progress {
        Progress { layer: Digest::of(b"layer"), done, total: 10, phase: Phase::Fetching }
    }

    #[test]
    fn late_subscribers_get_the_latest_and_leavers_nothing() {
        let hub = Arc::new(ProgressHub::default());
        hub.report(progress(1));
        hub.report(progress(2));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = seen.clone();
        let subscription = hub.subscribe(Arc::new(move |p: Progress| sink.lock().unwrap().push(p.done)));
        hub.report(progress(3));
        drop(subscription);
        hub.report(progress(4));
        assert_eq!(*seen.lock().unwrap(), [2, 3]);
    }
}
