//! What was done to all clusters, so that a run can be seen to have tried what it is for.

use std::fmt;
use std::time::Duration;

use crate::ledger::Ledger;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    pub inputs: u64,
    pub simulated: Duration,
    pub leaders: u64,
    pub terms: u64,
    pub deposed: u64,
    pub fenced: u64,
    pub crashes: u64,
    pub stops: u64,
    pub partitions: u64,
    pub breaks: u64,
    pub quorums: u64,
    pub wiped: u64,
    pub operated: u64,
    pub accepted: u64,
    pub acknowledged: u64,
    pub settling: Duration,
    /// Of all that happened, to tell two runs of a seed apart.
    pub digest: u64,
}

// === impl Tally ===

impl Tally {
    pub fn finish(&mut self, inputs: u64, simulated: Duration, ledger: &Ledger) {
        self.inputs = inputs;
        self.simulated = simulated;
        self.digest = self.digest.wrapping_add(ledger.digest());
    }

    pub fn add(&mut self, other: &Self) {
        self.inputs += other.inputs;
        self.simulated += other.simulated;
        self.leaders += other.leaders;
        self.terms += other.terms;
        self.deposed += other.deposed;
        self.fenced += other.fenced;
        self.crashes += other.crashes;
        self.stops += other.stops;
        self.partitions += other.partitions;
        self.breaks += other.breaks;
        self.quorums += other.quorums;
        self.wiped += other.wiped;
        self.operated += other.operated;
        self.accepted += other.accepted;
        self.acknowledged += other.acknowledged;
        self.settling = self.settling.max(other.settling);
    }

    /// Fails when a run of many seeds left out something that it is for.
    pub fn did_its_work(&self) {
        let all = [
            ("terms", self.terms),
            ("leaders deposed", self.deposed),
            ("writes fenced off", self.fenced),
            ("crashes", self.crashes),
            ("stops", self.stops),
            ("partitions", self.partitions),
            ("quorums lost", self.quorums),
            ("machines replaced", self.wiped),
            ("calls of operators", self.operated),
            ("tasks accepted", self.accepted),
            ("ends acknowledged", self.acknowledged),
        ];
        for (what, count) in all {
            assert!(count > 0, "no {what}: {self}");
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(
            f,
            "{} inputs in {:.0} h; {} terms, {} deposed, {} writes fenced off; {} crashes, {} stops, {} partitions, \
             {} connections broken, {} quorums lost, {} machines replaced, {} calls of operators; {} tasks accepted, {} ends acknowledged; \
             settled within {:.0} s",
            self.inputs,
            self.simulated.as_secs_f64() / 3600.0,
            self.terms,
            self.deposed,
            self.fenced,
            self.crashes,
            self.stops,
            self.partitions,
            self.breaks,
            self.quorums,
            self.wiped,
            self.operated,
            self.accepted,
            self.acknowledged,
            self.settling.as_secs_f64(),
        )
    }
}

/// What a message prints as, without what is not in it.
pub fn shorten(text: &str) -> String {
    const LIMIT: usize = 400;
    let mut short = text.to_owned();
    for absent in [": None", ": []", ": {}"] {
        while let Some(at) = short.find(absent) {
            let field = short[..at].rfind([' ', '{', '(']).map_or(0, |before| before + 1);
            let after = at + absent.len();
            let end = if short[after..].starts_with(", ") { after + 2 } else { after };
            short.replace_range(field..end, "");
        }
    }
    // Ids, without the names of their types.
    while let Some(at) = short.find(" { value: \"") {
        let name = short[..at].rfind([' ', '(', '{', '[']).map_or(0, |before| before + 1);
        let Some(length) = short[at..].find("\" }") else { break };
        let id = short[at + 11..at + length].to_owned();
        short.replace_range(name..at + length + 3, &id);
    }
    if short.len() > LIMIT {
        let end = (0..=LIMIT).rev().find(|at| short.is_char_boundary(*at)).unwrap_or(0);
        short.truncate(end);
        short.push('…');
    }
    short
}
