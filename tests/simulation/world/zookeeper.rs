//! A model of ZooKeeper: sessions that end when nothing is heard of them, ephemeral nodes with numbers, of which the lowest
//! leads, and a registry that only the writer of the present term can change.
//!
//! The ensemble is one: what its servers agree on. Without a quorum it answers nobody and no session ends; when the
//! quorum is back, every session has its whole time again, as with a new leader of the ensemble.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tepui_api::v1::AgentId;
use tepui_coordinator::core::{Recovered, RegistryChange, Ticket};
use tepui_coordinator::registry::{MemoryRegistry, Registry as _};

use super::{Checked, Event, Host, World};

/// Who leads, as the nodes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leader {
    pub coordinator: usize,
    /// Of its node.
    pub number: u64,
}

/// See the module.
#[derive(Debug)]
pub struct ZooKeeper {
    /// Of sessions.
    pub timeout: Duration,
    lost_until: Option<Duration>,
    sessions: BTreeMap<u64, Session>,
    next: u64,
    /// Nodes by number: who made them, in which session.
    nodes: BTreeMap<u64, (usize, u64)>,
    /// The version that fences writers off: each leader raises it once.
    pub term: u64,
    /// The last change that this term's leader has written.
    landed: Option<Ticket>,
    pub registry: MemoryRegistry,
    /// What it tells and is told comes in order, for each host and direction.
    heard: BTreeMap<(Host, bool), Duration>,
}

#[derive(Debug)]
struct Session {
    ends: Duration,
}

/// What a coordinator asks.
#[derive(Debug, Clone)]
pub enum Ask {
    /// A session: the one it had, or a new one.
    Connect {
        session: Option<u64>,
        sent: Duration,
    },
    Ping {
        session: u64,
        sent: Duration,
    },
    /// Make an ephemeral node.
    Stand {
        session: u64,
    },
    /// Begin a term, and read the registry.
    Begin {
        session: u64,
        number: u64,
    },
    /// Change the registry. Over a connection and session of the registry's own.
    Write {
        term: u64,
        changes: Vec<(Ticket, RegistryChange)>,
    },
    /// The session is of no more use.
    Leave {
        session: u64,
    },
}

/// What it is told.
#[derive(Debug, Clone)]
pub enum Told {
    /// The session lives at least its time-out from when the request was sent.
    Alive {
        session: u64,
        sent: Duration,
    },
    Expired {
        session: u64,
    },
    Standing {
        number: u64,
    },
    Begun {
        number: u64,
        term: u64,
        recovered: Box<Recovered>,
    },
    NotLeading,
    Written {
        term: u64,
        last: Ticket,
    },
    /// Another has begun a term since.
    Fenced {
        term: u64,
    },
}

// === impl ZooKeeper ===

impl ZooKeeper {
    pub fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            lost_until: None,
            sessions: BTreeMap::new(),
            next: 1,
            nodes: BTreeMap::new(),
            term: 0,
            landed: None,
            registry: MemoryRegistry::default(),
            heard: BTreeMap::new(),
        }
    }

    /// When what is sent now arrives: not before what was sent earlier. `to`: whether ZooKeeper is told.
    pub fn in_order(&mut self, host: Host, to: bool, at: Duration) -> Duration {
        let last = self.heard.entry((host, to)).or_insert(at);
        *last = (*last).max(at);
        *last
    }

    /// Whose node is the lowest.
    pub fn leader(&self) -> Option<Leader> {
        let (number, (coordinator, _)) = self.nodes.first_key_value()?;
        Some(Leader { coordinator: *coordinator, number: *number })
    }

    /// Until when there is no quorum.
    pub fn lost_until(&self, now: Duration) -> Option<Duration> {
        self.lost_until.filter(|until| *until > now)
    }

    fn alive(&mut self, session: u64, now: Duration) -> bool {
        let timeout = self.timeout;
        let Some(alive) = self.sessions.get_mut(&session) else { return false };
        alive.ends = now + timeout;
        true
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// What the registry holds; no agent may be in it twice.
    ///
    /// # Errors
    /// With the agent that is.
    pub fn recover(&mut self) -> Result<Recovered, String> {
        let recovered = self.registry.recover().map_err(|error| error.to_string())?;
        let admitted = recovered.admitted.iter().filter_map(|info| info.id.clone());
        let mut seen = BTreeSet::new();
        let silent = recovered.unreachable.iter().chain(&recovered.gone).map(|(id, _)| id.clone());
        for id in admitted.chain(silent) {
            if !seen.insert(id.clone()) {
                return Err(format!("agent {id} is in two states of the registry"));
            }
        }
        let gone = |id: &AgentId| recovered.gone.iter().any(|(gone, _)| gone == id);
        if let Some((id, _)) = recovered.deactivated.iter().find(|(id, _)| gone(id) || !seen.contains(id)) {
            return Err(format!(
                "agent {id} is deactivated in the registry, but neither admitted nor unreachable"
            ));
        }
        Ok(recovered)
    }
}

impl World {
    /// The servers lose each other for a while.
    pub(super) fn lose_quorum(&mut self, until: Duration) {
        self.zookeeper.lost_until = self.zookeeper.lost_until.max(Some(until));
    }

    pub(super) fn session_ends(&mut self, session: u64) {
        let now = self.now;
        let timeout = self.zookeeper.timeout;
        if let Some(until) = self.zookeeper.lost_until(now) {
            let ends = until + timeout;
            if let Some(alive) = self.zookeeper.sessions.get_mut(&session) {
                alive.ends = alive.ends.max(ends);
            }
        }
        let Some(alive) = self.zookeeper.sessions.get(&session) else { return };
        if alive.ends > now {
            let at = alive.ends;
            return self.at(at, Event::SessionEnds(session));
        }
        self.end_session(session);
    }

    fn end_session(&mut self, session: u64) {
        let before = self.zookeeper.leader();
        self.zookeeper.sessions.remove(&session);
        self.zookeeper.nodes.retain(|_, (_, of)| *of != session);
        self.tell_watchers(before);
    }

    fn tell_watchers(&mut self, before: Option<Leader>) {
        let leader = self.zookeeper.leader();
        if leader == before {
            return;
        }
        self.say(format!("ZooKeeper: {leader:?} leads"));
        self.tally.leaders += 1;
        for host in self.hosts() {
            self.tell_leader(host, leader);
        }
    }

    pub(super) fn asked(&mut self, from: usize, connection: u64, ask: Ask) -> Checked {
        let now = self.now;
        let of_registry = matches!(ask, Ask::Write { .. });
        let present = &self.coordinators[from];
        let known = if of_registry { present.registry_connection } else { present.connection };
        // What was sent over a connection that broke may have arrived all the same.
        if connection != known && self.rng.chance(500) {
            return Ok(());
        }
        let told = match ask {
            Ask::Connect { session: None, sent } => {
                let session = self.zookeeper.number();
                let ends = now + self.zookeeper.timeout;
                self.zookeeper.sessions.insert(session, Session { ends });
                self.at(ends, Event::SessionEnds(session));
                Told::Alive { session, sent }
            }
            Ask::Connect { session: Some(session), sent } | Ask::Ping { session, sent } => {
                if self.zookeeper.alive(session, now) {
                    Told::Alive { session, sent }
                } else {
                    Told::Expired { session }
                }
            }
            Ask::Stand { session } => {
                if !self.zookeeper.alive(session, now) {
                    Told::Expired { session }
                } else {
                    let before = self.zookeeper.leader();
                    let known = self.zookeeper.nodes.iter().find(|(_, (_, of))| *of == session);
                    let number = known.map(|(number, _)| *number).unwrap_or_else(|| self.zookeeper.number());
                    self.zookeeper.nodes.insert(number, (from, session));
                    self.tell_watchers(before);
                    Told::Standing { number }
                }
            }
            Ask::Begin { session, number } => self.begin_term(from, session, number)?,
            Ask::Write { term, changes } => self.write_registry(term, &changes, connection == known)?,
            Ask::Leave { session } => {
                self.end_session(session);
                return Ok(());
            }
        };
        let at = now + self.delay();
        let at = self.zookeeper.in_order(Host::Coordinator(from), false, at);
        self.at(at, Event::FromZooKeeper { to: from, connection, told });
        Ok(())
    }

    fn begin_term(&mut self, from: usize, session: u64, number: u64) -> Result<Told, String> {
        let now = self.now;
        if !self.zookeeper.alive(session, now) {
            return Ok(Told::Expired { session });
        }
        if self.zookeeper.leader() != Some(Leader { coordinator: from, number }) {
            return Ok(Told::NotLeading);
        }
        self.zookeeper.term += 1;
        self.zookeeper.landed = None;
        let recovered = Box::new(self.zookeeper.recover()?);
        Ok(Told::Begun { number, term: self.zookeeper.term, recovered })
    }

    fn write_registry(
        &mut self,
        term: u64,
        changes: &[(Ticket, RegistryChange)],
        whole: bool,
    ) -> Result<Told, String> {
        let Some((last, _)) = changes.last() else { return Ok(Told::Fenced { term }) };
        if !fence(term, self.zookeeper.term) {
            self.tally.fenced += 1;
            return Ok(Told::Fenced { term });
        }
        if term != self.zookeeper.term {
            return Err(format!(
                "a write of term {term} landed in the registry in term {}: {changes:?}",
                self.zookeeper.term
            ));
        }
        // Large batches go in parts, and the writer may be cut off between two. Each part is written on condition of the version that the
        // part before it left: one that was sent twice over two connections lands once.
        let landed = if whole { changes.len() } else { self.rng.below(changes.len() + 1) };
        let before = self.zookeeper.landed;
        let parts = changes.iter().take(landed);
        let new: Vec<_> = parts.filter(|(ticket, _)| before.is_none_or(|before| *ticket > before)).collect();
        self.zookeeper.landed = new.last().map(|(ticket, _)| *ticket).or(before);
        let plain: Vec<RegistryChange> = new.into_iter().map(|(_, change)| change.clone()).collect();
        self.zookeeper.registry.write(&plain).map_err(|error| error.to_string())?;
        Ok(Told::Written { term, last: *last })
    }

    /// What was asked over a connection that is gone, or by a process that is gone, is answered to nobody.
    pub(super) fn told(&mut self, to: usize, connection: u64, told: Told) -> Checked {
        if !self.coordinators[to].process.on() {
            return Ok(());
        }
        let coordinator = &self.coordinators[to];
        let of_registry = matches!(told, Told::Written { .. } | Told::Fenced { .. });
        let known = if of_registry { coordinator.registry_connection } else { coordinator.connection };
        if connection != known {
            return Ok(());
        }
        self.coordinator_told(to, told)
    }

    /// Tells the watchers who have lost sight of it who leads, as when they connect anew.
    pub(super) fn remind(&mut self, host: Host) {
        let leader = self.zookeeper.leader();
        self.tell_leader(host, leader);
    }

    fn tell_leader(&mut self, host: Host, leader: Option<Leader>) {
        let at = self.now + self.delay();
        let at = self.zookeeper.in_order(host, false, at);
        let incarnation = self.process(host).map_or(0, |process| process.incarnation);
        self.at(at, Event::Detected { host, incarnation, leader });
    }
}

/// Whether a write of one term may land in another: the check of the version that ZooKeeper does with the write.
fn fence(writer: u64, present: u64) -> bool {
    writer == present
}
