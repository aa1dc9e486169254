//! How long something took, each time within the last hour.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What is older does not count any more, as for the timers of Mesos.
const WINDOW: Duration = Duration::from_secs(3600);
/// Of more, the oldest are left out.
const MOST: usize = 1000;

/// Durations of one kind. Cheap to clone; all clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Durations {
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    last: Option<Duration>,
    /// When each ended, in that order.
    all: VecDeque<(Instant, Duration)>,
}

/// Something that takes its time, for as long as this lives.
#[derive(Debug)]
#[must_use = "what is not held has ended at once"]
pub struct Running {
    durations: Durations,
    since: Instant,
}

/// See `Statistics` in Mesos' `3rdparty/libprocess/include/process/statistics.hpp`.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistics {
    /// How many there are.
    pub count: usize,
    /// The shortest.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
    sorted: Vec<Duration>,
}

// === impl Durations ===

impl Durations {
    /// Something begins, and ends with what this gives, however it ends.
    pub fn begin(&self) -> Running {
        Running { durations: self.clone(), since: Instant::now() }
    }

    /// The last one, whenever that was.
    #[must_use]
    pub fn last(&self) -> Option<Duration> {
        self.lock().last
    }

    /// Those of the last hour, if there are two at least.
    #[must_use]
    pub fn statistics(&self) -> Option<Statistics> {
        let mut sorted: Vec<Duration> = {
            let mut seen = self.lock();
            seen.forget(Instant::now());
            seen.all.iter().map(|(_, duration)| *duration).collect()
        };
        sorted.sort_unstable();
        match sorted[..] {
            [min, .., max] => Some(Statistics { count: sorted.len(), min, max, sorted }),
            _ => None,
        }
    }

    fn add(&self, ended: Instant, duration: Duration) {
        let mut seen = self.lock();
        seen.last = Some(duration);
        seen.all.push_back((ended, duration));
        seen.forget(ended);
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Seen ===

impl Seen {
    fn forget(&mut self, now: Instant) {
        let old = |(ended, _): &(Instant, Duration)| now.saturating_duration_since(*ended) > WINDOW;
        while self.all.len() > MOST || self.all.front().is_some_and(old) {
            self.all.pop_front();
        }
    }
}

// === impl Running ===

impl Drop for Running {
    fn drop(&mut self) {
        let now = Instant::now();
        self.durations.add(now, now.saturating_duration_since(self.since));
    }
}

// === impl Statistics ===

impl Statistics {
    /// The duration that this share of all, from 0 to 1, does not exceed; between two of them in proportion.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a place among a thousand"
    )]
    pub fn percentile(&self, share: f64) -> Duration {
        let place = share.clamp(0.0, 1.0) * (self.sorted.len() - 1) as f64;
        let at = place as usize;
        let here = self.sorted[at];
        match self.sorted.get(at + 1) {
            Some(next) => here + (*next - here).mul_f64(place - place.floor()),
            None => here,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn two_are_needed_and_the_last_is_always_known() {
        let durations = Durations::default();
        assert_eq!((durations.last(), durations.statistics()), (None, None));
        drop(durations.begin());
        assert!(durations.last().is_some() && durations.statistics().is_none());
        let now = Instant::now();
        durations.add(now, 3 * SECOND);
        let statistics = durations.statistics().unwrap();
        assert_eq!((statistics.count, statistics.max), (2, 3 * SECOND));
        assert_eq!(durations.last(), Some(3 * SECOND));
    }

    #[test]
    fn percentiles_lie_between() {
        let durations = Durations::default();
        let now = Instant::now();
        for seconds in [5, 1, 2, 4, 3] {
            durations.add(now, seconds * SECOND);
        }
        let statistics = durations.statistics().unwrap();
        assert_eq!((statistics.min, statistics.max), (SECOND, 5 * SECOND));
        for (share, millis) in
            [(0.0, 1000), (0.25, 2000), (0.5, 3000), (0.875, 4500), (1.0, 5000), (7.0, 5000)]
        {
            assert_eq!(statistics.percentile(share).as_millis(), millis, "{share}");
        }
    }

    #[test]
    fn what_is_old_or_too_much_is_forgotten() {
        let durations = Durations::default();
        let begin = Instant::now();
        durations.add(begin, 9 * SECOND);
        for second in 1..=1500 {
            durations.add(begin + second * SECOND, SECOND);
        }
        assert_eq!(durations.lock().all.len(), MOST);
        durations.add(begin + 2 * WINDOW, SECOND);
        assert_eq!(durations.lock().all.len(), 1);
    }
}
