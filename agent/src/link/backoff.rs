//! How long to wait before the next attempt to reach the coordinator.

use std::time::Duration;

/// The wait after the first failure. Short, since most failures are a coordinator that restarts.
const FIRST: Duration = Duration::from_millis(100);

/// Waits that double up to a limit, each shortened by chance, so that agents that lost their coordinator together do not
/// come back together.
#[derive(Debug)]
pub struct Backoff {
    limit: Duration,
    next: Duration,
}

// === impl Backoff ===

impl Backoff {
    /// Waits up to this limit.
    #[must_use]
    pub fn new(limit: Duration) -> Self {
        Self { limit, next: FIRST.min(limit) }
    }

    /// The next wait: between half of what it could be and all of it, by a number from 0 to 1.
    pub fn wait(&mut self, chance: f64) -> Duration {
        let wait = self.next.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0);
        self.next = (self.next * 2).min(self.limit);
        wait
    }

    /// The last attempt succeeded.
    pub fn reset(&mut self) {
        self.next = FIRST.min(self.limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_begin_anew() {
        let mut backoff = Backoff::new(Duration::from_secs(1));
        let waits: Vec<u128> = (0..6).map(|_| backoff.wait(1.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff.wait(0.0).as_millis(), 500);
        backoff.reset();
        assert_eq!(backoff.wait(1.0).as_millis(), 100);
    }
}
