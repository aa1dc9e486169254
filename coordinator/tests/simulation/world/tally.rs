//! What was done, over all seeds.

use std::fmt;

use super::Tally;

impl Tally {
    /// Adds what another world has done.
    pub fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.simulated += other.simulated;
        self.restarts += other.restarts;
        self.cuts += other.cuts;
        self.crashes += other.crashes;
        self.freezes += other.freezes;
        self.terminal_acknowledged += other.terminal_acknowledged;
        let (sum, counts) = (&mut self.counts, &other.counts);
        sum.offers += counts.offers;
        sum.rescinds += counts.rescinds;
        sum.launched += counts.launched;
        sum.refused += counts.refused;
        sum.updates += counts.updates;
        sum.acknowledged += counts.acknowledged;
        sum.verdicts += counts.verdicts;
        sum.unreachable += counts.unreachable;
        sum.removed += counts.removed;
        sum.gone += counts.gone;
        sum.inverse_offers += counts.inverse_offers;
        sum.registrations += counts.registrations;
        sum.subscriptions += counts.subscriptions;
        sum.frameworks_removed += counts.frameworks_removed;
        sum.reconciled += counts.reconciled;
    }

    /// A simulation in which nothing of a kind happens shows nothing.
    pub fn did_its_work(&self) {
        let counts = &self.counts;
        for (what, times) in [
            ("restarts of the coordinator", self.restarts),
            ("terminal updates acknowledged", self.terminal_acknowledged),
            ("offers", counts.offers),
            ("offers taken back", counts.rescinds),
            ("tasks launched", counts.launched),
            ("tasks refused", counts.refused),
            ("tasks given up", counts.verdicts),
            ("agents unreachable", counts.unreachable),
            ("agents removed", counts.removed),
            ("agents marked gone", counts.gone),
            ("inverse offers", counts.inverse_offers),
            ("frameworks removed", counts.frameworks_removed),
            ("answers to reconciliation", counts.reconciled),
        ] {
            assert!(times >= 10, "only {times} {what}: {self}");
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let counts = &self.counts;
        write!(f, "{} steps, {} h simulated; ", self.steps, self.simulated.as_secs() / 3600)?;
        write!(f, "{} offers ({} taken back), ", counts.offers, counts.rescinds)?;
        write!(
            f,
            "{} tasks launched, {} refused, {} given up; ",
            counts.launched, counts.refused, counts.verdicts
        )?;
        write!(f, "{} updates, {} ends acknowledged; ", counts.updates, counts.acknowledged)?;
        write!(f, "{} registrations, {} agents unreachable, ", counts.registrations, counts.unreachable)?;
        write!(f, "{} removed, {} of them gone; ", counts.removed, counts.gone)?;
        write!(f, "{} inverse offers; {} subscriptions, ", counts.inverse_offers, counts.subscriptions)?;
        write!(f, "{} frameworks removed, ", counts.frameworks_removed)?;
        write!(f, "{} reconciliation answers; ", counts.reconciled)?;
        write!(f, "{} coordinator restarts, {} connections cut, ", self.restarts, self.cuts)?;
        write!(f, "{} crashes, {} freezes", self.crashes, self.freezes)
    }
}
