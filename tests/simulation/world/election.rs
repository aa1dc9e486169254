//! A coordinator's session with ZooKeeper: how it stands for election, when it may lead, and when it must stop.
//!
//! The lease is what the coordinator knows for certain: its session lives at least its time-out from when the
//! last request that was answered was *sent*. ZooKeeper counts from when that arrived, so the lease always ends first,
//! and whoever leads next begins after it.

use std::time::Duration;

use super::zookeeper::{Ask, Leader, Told};
use super::{Checked, Event, Host, World};

/// Between two candidacies, as in the real one.
const PAUSE: Duration = Duration::from_secs(1);

/// How a coordinator stands with ZooKeeper.
#[derive(Debug, Default)]
pub struct Client {
    session: Option<u64>,
    state: State,
    /// Until when its session certainly lives.
    pub lease: Duration,
    /// When it heard from ZooKeeper last.
    heard: Duration,
    ping_at: Duration,
    /// Its node.
    number: Option<u64>,
    standing: bool,
    beginning: bool,
    /// Who leads, as far as it was told.
    pub leader: Option<Leader>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Offline { retry_at: Duration },
    Connecting,
    Online,
}

// === impl State ===

impl Default for State {
    fn default() -> Self {
        Self::Offline { retry_at: Duration::ZERO }
    }
}

impl World {
    pub(super) fn wake_coordinator(&mut self, index: usize) -> Checked {
        if !self.alone {
            self.leads(index);
            self.keep_session(index);
            self.keep_writing(index);
        }
        self.tick(index)?;
        self.plan_coordinator(index);
        Ok(())
    }

    pub(super) fn plan_coordinator(&mut self, index: usize) {
        if !self.coordinators[index].process.on() {
            return;
        }
        let timeout = self.zookeeper.timeout;
        let coordinator = &self.coordinators[index];
        let client = &coordinator.client;
        let mut at = coordinator.reign.as_ref().and_then(|reign| reign.core.next_deadline());
        let mut sooner = |other: Duration| at = Some(at.map_or(other, |at| at.min(other)));
        if !self.alone {
            match client.state {
                State::Offline { retry_at } => sooner(retry_at),
                State::Connecting => sooner(client.heard + timeout * 2 / 3),
                State::Online => {
                    sooner(client.ping_at);
                    sooner(client.heard + timeout * 2 / 3);
                }
            }
            if let Some(reign) = &coordinator.reign {
                if client.lease > self.now {
                    sooner(client.lease);
                }
                reign.resend_at.into_iter().for_each(sooner);
            }
        }
        if let Some(at) = at {
            self.wake_at(Host::Coordinator(index), at);
        }
    }

    /// What was under way to or from ZooKeeper is lost.
    pub(super) fn new_connections(&mut self, index: usize) {
        let coordinator = &mut self.coordinators[index];
        coordinator.connection = self.sequence;
        coordinator.registry_connection = self.sequence;
        self.sequence += 1;
    }

    /// Its connection to ZooKeeper breaks, which it sees at once.
    pub(super) fn lose_zookeeper(&mut self, index: usize) {
        if !self.coordinators[index].process.on() || self.alone {
            return;
        }
        let retry_at = self.now + self.rng.millis(1..=500);
        self.new_connections(index);
        let coordinator = &mut self.coordinators[index];
        let client = &mut coordinator.client;
        client.state = State::Offline { retry_at };
        (client.standing, client.beginning) = (false, false);
        if let Some(reign) = &mut coordinator.reign {
            reign.resend_at = reign.resend_at.map(|at| at.min(retry_at));
        }
        self.plan_coordinator(index);
    }

    fn ask(&mut self, index: usize, ask: Ask) {
        let connection = self.coordinators[index].connection;
        let at = self.now + self.delay();
        let at = self.zookeeper.in_order(Host::Coordinator(index), true, at);
        self.at(at, Event::ToZooKeeper { from: index, connection, ask });
    }

    /// Whoever steps down stands anew after a pause, in another session and under another id.
    pub(super) fn stand_anew(&mut self, index: usize) {
        if let Some(session) = self.coordinators[index].client.session {
            self.ask(index, Ask::Leave { session });
        }
        let state = State::Offline { retry_at: self.now + PAUSE };
        let client = &mut self.coordinators[index].client;
        *client = Client { leader: client.leader, state, ..Client::default() };
    }

    fn keep_session(&mut self, index: usize) {
        let (now, timeout) = (self.now, self.zookeeper.timeout);
        let client = &mut self.coordinators[index].client;
        match client.state {
            State::Offline { retry_at } if retry_at <= now => {
                client.state = State::Connecting;
                (client.standing, client.beginning) = (false, false);
                client.heard = now;
                let session = client.session;
                self.coordinators[index].connection = self.sequence;
                self.sequence += 1;
                self.ask(index, Ask::Connect { session, sent: now });
            }
            State::Connecting | State::Online if now >= client.heard + timeout * 2 / 3 => {
                let retry_at = now + self.rng.millis(1..=500);
                let coordinator = &mut self.coordinators[index];
                coordinator.connection = self.sequence;
                self.sequence += 1;
                coordinator.client.state = State::Offline { retry_at };
                (coordinator.client.standing, coordinator.client.beginning) = (false, false);
            }
            State::Online if client.ping_at <= now => {
                client.ping_at = now + timeout / 3;
                if let Some(session) = client.session {
                    self.ask(index, Ask::Ping { session, sent: now });
                }
            }
            _ => {}
        }
    }

    /// A batch that is not answered is sent again: writing it twice does no harm.
    fn keep_writing(&mut self, index: usize) {
        let now = self.now;
        let due = |at: Option<Duration>| at.is_some_and(|at| at <= now);
        if self.coordinators[index].reign.as_ref().is_some_and(|reign| due(reign.resend_at)) {
            self.coordinators[index].registry_connection = self.sequence;
            self.sequence += 1;
            self.send_batch(index);
        }
    }

    pub(super) fn coordinator_told(&mut self, index: usize, told: Told) -> Checked {
        let (now, timeout) = (self.now, self.zookeeper.timeout);
        let client = &mut self.coordinators[index].client;
        if !matches!(told, Told::Written { .. } | Told::Fenced { .. }) {
            if matches!(client.state, State::Offline { .. }) {
                return Ok(());
            }
            client.heard = now;
        }
        match told {
            Told::Alive { session, sent } => {
                client.session = Some(session);
                client.lease = client.lease.max(sent + timeout);
                if client.state == State::Connecting {
                    client.state = State::Online;
                    client.ping_at = now + timeout / 3;
                }
                if client.number.is_none() && !client.standing {
                    client.standing = true;
                    self.ask(index, Ask::Stand { session });
                }
                self.maybe_begin(index);
            }
            Told::Expired { session } => {
                if client.session == Some(session) {
                    self.step_down(index);
                    self.stand_anew(index);
                }
            }
            Told::Standing { number } => {
                client.number = Some(number);
                client.standing = false;
                self.remind(Host::Coordinator(index));
            }
            Told::Begun { number, term, recovered } => {
                client.beginning = false;
                let may = client.number == Some(number) && now < client.lease;
                if may && self.coordinators[index].reign.is_none() {
                    self.begin_reign(index, term, number, *recovered)?;
                }
            }
            Told::NotLeading => client.beginning = false,
            Told::Written { term, last } => {
                let own = self.coordinators[index].reign.as_ref().is_some_and(|reign| reign.term == term);
                if own && self.batch_ends(index) == Some(last) && self.leads(index) {
                    self.batch_written(index)?;
                }
            }
            Told::Fenced { term } => {
                if self.coordinators[index].reign.as_ref().is_some_and(|reign| reign.term == term) {
                    self.step_down(index);
                }
            }
        }
        self.plan_coordinator(index);
        Ok(())
    }

    /// Asks for a term, when its node leads and it has none.
    fn maybe_begin(&mut self, index: usize) {
        let now = self.now;
        let coordinator = &mut self.coordinators[index];
        let client = &mut coordinator.client;
        let (Some(number), Some(session)) = (client.number, client.session) else { return };
        let chosen = client.leader == Some(Leader { coordinator: index, number });
        if chosen && coordinator.reign.is_none() && !client.beginning && now < client.lease {
            client.beginning = true;
            self.ask(index, Ask::Begin { session, number });
        }
    }

    /// Somebody is told who leads.
    pub(super) fn detected(&mut self, host: Host, incarnation: u64, leader: Option<Leader>) -> Checked {
        if !self.process(host).is_some_and(|process| process.on() && process.incarnation == incarnation) {
            return Ok(());
        }
        match host {
            Host::Coordinator(index) => {
                let client = &mut self.coordinators[index].client;
                client.leader = leader;
                let own = client.number.map(|number| Leader { coordinator: index, number });
                if leader.is_none() || leader != own {
                    self.step_down(index);
                } else {
                    self.maybe_begin(index);
                }
                self.plan_coordinator(index);
                Ok(())
            }
            Host::Machine(index) => self.machine_detects(index, leader.map(|leader| leader.coordinator)),
            Host::Scheduler(index) => {
                self.scheduler_detects(index, leader.map(|leader| leader.coordinator));
                Ok(())
            }
            Host::ZooKeeper => Ok(()),
        }
    }
}
