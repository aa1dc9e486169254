//! How long who leads may act: a deadline on a clock that never goes back nor stands still.
//!
//! The clock is `CLOCK_BOOTTIME`: setting the time of day does not move it, and it goes on while the process is
//! stopped and while the machine sleeps. So after a long stop the first look at the lease finds that it is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// The right to act as leader, until its deadline. Clones share the deadline. Once it is over it never holds again.
#[derive(Debug, Clone)]
pub struct Lease(Arc<AtomicU64>);

/// Nanoseconds since the machine started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BootTime(u64);

/// Stands for a lease that has no deadline.
const ENDLESS: u64 = u64::MAX;

// === impl Lease ===

impl Lease {
    /// For a coordinator that is alone.
    #[must_use]
    pub fn endless() -> Self {
        Self(Arc::new(AtomicU64::new(ENDLESS)))
    }

    /// From now on for this long.
    #[must_use]
    pub fn lasting(time: Duration) -> Self {
        Self::until(BootTime::now().after(time))
    }

    pub(crate) fn until(deadline: BootTime) -> Self {
        Self(Arc::new(AtomicU64::new(deadline.0)))
    }

    /// Whether what is done this moment is done by who leads.
    #[must_use]
    pub fn holds(&self) -> bool {
        let deadline = self.0.load(Ordering::Acquire);
        deadline == ENDLESS || deadline > BootTime::now().0
    }

    /// How long it still holds without being extended.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        match self.0.load(Ordering::Acquire) {
            ENDLESS => Duration::MAX,
            deadline => Duration::from_nanos(deadline.saturating_sub(BootTime::now().0)),
        }
    }

    /// Ends it, for all clones.
    pub fn end(&self) {
        self.0.store(0, Ordering::Release);
    }

    /// Moves the deadline on, if the lease still holds; whether it did. The deadline never moves back.
    pub(crate) fn extend(&self, deadline: BootTime) -> bool {
        let extended = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |present| {
            (present > BootTime::now().0).then(|| present.max(deadline.0))
        });
        extended.is_ok()
    }
}

// === impl BootTime ===

impl BootTime {
    pub(crate) fn now() -> Self {
        // A clock that cannot be read, which Linux does not know, must end leases rather than extend them.
        let nanoseconds = clock_gettime(ClockId::CLOCK_BOOTTIME).ok().and_then(|time| {
            let whole = u64::try_from(time.tv_sec()).ok()?.checked_mul(1_000_000_000)?;
            whole.checked_add(u64::try_from(time.tv_nsec()).ok()?)
        });
        Self(nanoseconds.unwrap_or(ENDLESS - 1))
    }

    pub(crate) fn after(self, time: Duration) -> Self {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(ENDLESS - 1);
        Self(self.0.saturating_add(nanoseconds).min(ENDLESS - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_at_its_deadline_and_stays_ended() {
        let lease = Lease::lasting(Duration::from_millis(20));
        assert!(lease.holds());
        while lease.holds() {
            std::thread::sleep(lease.remaining().min(Duration::from_millis(1)));
        }
        assert_eq!(lease.remaining(), Duration::ZERO);
        assert!(!lease.extend(BootTime::now().after(Duration::from_secs(60))));
        assert!(!lease.holds());
    }

    #[test]
    fn a_lease_is_extended_for_all_clones_and_never_shortened() {
        let lease = Lease::lasting(Duration::from_secs(60));
        let clone = lease.clone();
        assert!(lease.extend(BootTime::now().after(Duration::from_secs(600))));
        assert!(lease.extend(BootTime::now()));
        assert!(clone.remaining() > Duration::from_secs(500));
        clone.end();
        assert!(!lease.holds());
    }

    #[test]
    fn an_endless_lease_only_ends_by_word() {
        let lease = Lease::endless();
        assert!(lease.holds() && lease.remaining() > Duration::from_secs(1 << 40));
        assert!(lease.extend(BootTime::now()) && lease.holds());
        lease.end();
        assert!(!lease.holds());
    }
}
