//! Single flight: the same work, asked for by many at once, is done once.
//!
//! A flight is driven by whoever waits for it; when one of them leaves, the others carry it on, and
//! when the last has left it is dropped, which cancels it. Nothing is spawned, so nothing outlives
//! those who asked.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};

use crate::progress::{ProgressFn, ProgressHub, Subscription};

type Work<T> = Shared<BoxFuture<'static, T>>;

/// The flights under way, by what they fetch.
pub(crate) struct Flights<K, T: Clone> {
    under_way: Mutex<HashMap<K, Flight<T>>>,
}

struct Flight<T: Clone> {
    work: WeakShared<BoxFuture<'static, T>>,
    hub: Arc<ProgressHub>,
}

/// A seat on a flight.
pub(crate) struct Seat<T: Clone> {
    work: Work<T>,
    /// Whether this caller's own work is what runs, rather than another's.
    pub(crate) first: bool,
    subscription: Option<Subscription>,
}

// === impl Flights ===

impl<K: Eq + Hash, T: Clone + Send + Sync + 'static> Flights<K, T> {
    pub(crate) fn new() -> Self {
        Self { under_way: Mutex::new(HashMap::new()) }
    }

    /// Joins the flight for `key`, or starts it with what `start` returns.
    ///
    /// `start` gets the hub into which the work reports; `watcher` hears those reports for as long as the seat is held.
    pub(crate) fn join<F>(
        &self,
        key: K,
        watcher: Option<ProgressFn>,
        start: impl FnOnce(Arc<ProgressHub>) -> F,
    ) -> Seat<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let (work, hub, first) = self.find_or_start(key, start);
        Seat { work, first, subscription: watcher.map(|watcher| hub.subscribe(watcher)) }
    }

    fn find_or_start<F>(
        &self,
        key: K,
        start: impl FnOnce(Arc<ProgressHub>) -> F,
    ) -> (Work<T>, Arc<ProgressHub>, bool)
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let running = under_way.get(&key).and_then(|flight| {
            // A finished flight can still be held by those it served; a new caller wants a new one.
            let work = flight.work.upgrade().filter(|work| work.peek().is_none())?;
            Some((work, flight.hub.clone()))
        });
        if let Some((work, hub)) = running {
            return (work, hub, false);
        }
        under_way.retain(|_, flight| flight.work.upgrade().is_some_and(|work| work.peek().is_none()));
        let hub = Arc::new(ProgressHub::default());
        let work = start(hub.clone()).boxed().shared();
        if let Some(weak) = work.downgrade() {
            under_way.insert(key, Flight { work: weak, hub: hub.clone() });
        }
        (work, hub, true)
    }
}

// === impl Seat ===

impl<T: Clone> Seat<T> {
    /// Flies, and gets off at the end.
    pub(crate) async fn arrive(self) -> T {
        let Self { work, subscription, .. } = self;
        let result = work.await;
        drop(subscription);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn many_callers_share_one_flight() {
        let flights = Flights::<&str, usize>::new();
        let runs = Arc::new(AtomicUsize::new(0));
        let (release, released) = oneshot::channel::<()>();
        let counter = runs.clone();
        let first = flights.join("a", None, |_| async move {
            counter.fetch_add(1, Ordering::SeqCst);
            let _ = released.await;
            7
        });
        let seats: Vec<_> = (0..10)
            .map(|_| flights.join("a", None, |_| async { unreachable!("one flight is enough") }))
            .collect();
        assert!(first.first && seats.iter().all(|seat| !seat.first));
        // The one who started it leaves; the others still arrive.
        drop(first);
        release.send(()).unwrap();
        for seat in seats {
            assert_eq!(seat.arrive().await, 7);
        }
        assert_eq!(runs.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_flight_nobody_waits_for_is_cancelled_and_the_next_starts_anew() {
        struct Cancelled(Arc<AtomicUsize>);
        impl Drop for Cancelled {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let flights = Flights::<&str, usize>::new();
        let cancelled = Arc::new(AtomicUsize::new(0));
        let guard = Cancelled(cancelled.clone());
        let seat = flights.join("a", None, |_| async move {
            let _guard = guard;
            std::future::pending().await
        });
        drop(seat);
        assert_eq!(cancelled.load(Ordering::SeqCst), 1);
        let next = flights.join("a", None, |_| async { 8 });
        assert!(next.first);
        assert_eq!(next.arrive().await, 8);
    }
}
