//! What is to happen later, in order of time.
//!
//! A timer is never taken back: what it is for says, when it is due, whether it still applies.

use std::collections::BTreeMap;
use std::time::Duration;

use tepui_api::v1::{AgentId, FrameworkId};

use super::framework::OfferNumber;
use super::io::StreamId;

/// What is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Timer {
    /// A scheduler's stream needs a heartbeat.
    Heartbeat(StreamId),
    /// A framework that went away at a time that ends here is given up.
    FailoverEnds(FrameworkId),
    /// The next ping of an agent; the number is that of the one before.
    Ping(AgentId, u64),
    /// An offer has not been answered.
    OfferEnds(OfferNumber),
    /// Agents that were admitted before the start have had their time.
    ReregistrationEnds,
    /// The next of the silent agents that wait becomes unreachable.
    Removal,
    /// Frameworks are asked for what they use on machines that are to go away.
    InverseOffers,
    /// Agents that have long been unreachable or gone are forgotten.
    RegistryGc,
}

/// All timers.
#[derive(Debug, Default)]
pub(super) struct Timers {
    queue: BTreeMap<(Duration, u64), Timer>,
    next: u64,
}

// === impl Timers ===

impl Timers {
    pub(super) fn set(&mut self, at: Duration, timer: Timer) {
        self.queue.insert((at, self.next), timer);
        self.next += 1;
    }

    /// Takes out one that is due.
    pub(super) fn due(&mut self, now: Duration) -> Option<Timer> {
        let first = self.queue.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    pub(super) fn next(&self) -> Option<Duration> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }
}
