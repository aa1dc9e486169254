//! One look for all who ask at the same time.
//!
//! Whoever asks is answered by a look that began after it asked, so that nobody is told what was before; all who ask while a look is
//! under way share the next one. So ten monitors that ask at once cost two looks, and the containers are never looked at twice at a time.

use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What was found last, and whose turn it is to look.
pub(crate) struct Together<T> {
    /// Held by who looks. What was found is kept only while others wait for it, with the number of the look.
    turn: tokio::sync::Mutex<Option<(u64, T)>>,
    /// How many looks have begun.
    begun: AtomicU64,
    /// How many wait for their turn.
    waiting: AtomicUsize,
}

/// Somebody who waits, until dropped.
struct Waiting<'a>(&'a AtomicUsize);

// === impl Together ===

impl<T> Default for Together<T> {
    fn default() -> Self {
        Self { turn: tokio::sync::Mutex::new(None), begun: AtomicU64::new(0), waiting: AtomicUsize::new(0) }
    }
}

impl<T: Clone> Together<T> {
    /// What `look` finds, or what somebody else found whose look began after this call.
    ///
    /// # Errors
    /// Those of `look`, which are not shared.
    pub(crate) async fn ask<E, F>(&self, look: impl FnOnce() -> F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        let before = self.begun.load(Ordering::SeqCst);
        let waiting = Waiting::new(&self.waiting);
        let mut last = self.turn.lock().await;
        drop(waiting);
        let found = match last.take() {
            Some((number, found)) if number > before => (number, found),
            _ => {
                let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
                (number, look().await?)
            }
        };
        if self.waiting.load(Ordering::SeqCst) > 0 {
            *last = Some(found.clone());
        }
        Ok(found.1)
    }
}

// === impl Waiting ===

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;

    use tokio::sync::Semaphore;

    use super::*;

    /// Gives the number of looks so far, once it is let go.
    async fn look(looks: &AtomicU32, gate: &Semaphore) -> Result<u32, Infallible> {
        let number = looks.fetch_add(1, Ordering::SeqCst) + 1;
        gate.acquire().await.unwrap().forget();
        Ok(number)
    }

    #[tokio::test]
    async fn all_who_ask_during_a_look_share_the_next() {
        let (together, looks, gate) =
            (Arc::new(Together::default()), Arc::new(AtomicU32::new(0)), Arc::new(Semaphore::new(0)));
        let ask = || {
            let (together, looks, gate) = (Arc::clone(&together), Arc::clone(&looks), Arc::clone(&gate));
            tokio::spawn(async move { together.ask(|| look(&looks, &gate)).await.unwrap() })
        };
        let first = ask();
        while looks.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let others: Vec<_> = (0..10).map(|_| ask()).collect();
        while together.waiting.load(Ordering::SeqCst) < 10 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(1);
        assert_eq!(first.await.unwrap(), 1);
        gate.add_permits(1);
        for other in others {
            assert_eq!(other.await.unwrap(), 2, "not what was seen before they asked, and once for all");
        }
        // Nothing is kept for those who come later.
        gate.add_permits(1);
        assert_eq!(ask().await.unwrap(), 3);
        assert!(together.turn.lock().await.is_none());
    }

    #[tokio::test]
    async fn who_goes_away_makes_nobody_wait() {
        let (together, looks, gate) = (Together::default(), AtomicU32::new(0), Semaphore::new(0));
        let gone =
            tokio::time::timeout(std::time::Duration::from_millis(10), together.ask(|| look(&looks, &gate)));
        assert!(gone.await.is_err());
        gate.add_permits(1);
        assert_eq!(together.ask(|| look(&looks, &gate)).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_failure_is_not_shared() {
        let together = Together::<u32>::default();
        assert_eq!(together.ask(|| async { Err("no") }).await, Err("no"));
        assert_eq!(together.ask(|| async { Ok::<_, &str>(1) }).await, Ok(1));
    }
}
