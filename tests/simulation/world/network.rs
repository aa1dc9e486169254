//! Connections and partitions: what is sent arrives late but in order, and when a connection breaks, each end learns of it
//! in its own time and what was under way is lost.
//!
//! A partition cuts the way from one host to another, in one direction or both. What is sent meanwhile arrives when it
//! ends; whoever waits for too long gives the connection up by itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tepui_api::link::agent_frame::Body as Frame;
use tepui_api::link::coordinator_frame::Body as Order;
use tepui_api::v1::scheduler;
use tepui_coordinator::core::{LinkId, StreamId};

use super::{Checked, Event, Host, World};

/// Connections are numbered as they are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WireId(pub u64);

/// One connection of an agent or a scheduler to a coordinator.
#[derive(Debug)]
pub struct Wire {
    pub client: Host,
    pub server: usize,
    pub near: Near,
    /// Of a subscription that has arrived.
    pub stream: Option<StreamId>,
    /// The client has not closed it, nor learned that it is closed.
    pub far_open: bool,
    /// What would arrive after this is lost.
    broken_up: Option<Duration>,
    broken_down: Option<Duration>,
    last_up: Duration,
    last_down: Duration,
}

/// The coordinator's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Near {
    /// Nothing has arrived yet.
    Waiting,
    /// The core knows it.
    Link(LinkId),
    Stream(StreamId),
    Closed,
}

/// To a coordinator.
#[derive(Debug, Clone)]
pub enum Up {
    /// An agent's connection.
    Open,
    Frame(Box<Frame>),
    Subscribe(Box<scheduler::Call>),
    Closed,
}

/// From a coordinator.
#[derive(Debug, Clone)]
pub enum Down {
    Order(Box<Order>),
    Event(Arc<scheduler::Event>),
    /// It does not lead; perhaps it knows who does.
    Redirect(Option<usize>),
    Closed,
}

/// Which ways are cut, and until when.
#[derive(Debug, Default)]
pub struct Network {
    cuts: BTreeMap<(Host, Host), Duration>,
}

// === impl Network ===

impl Network {
    /// Cuts the way from one host to another.
    pub fn cut(&mut self, from: Host, to: Host, until: Duration) {
        let end = self.cuts.entry((from, to)).or_insert(until);
        *end = (*end).max(until);
    }

    /// Until when the way is cut.
    pub fn blocked(&self, from: Host, to: Host, now: Duration) -> Option<Duration> {
        if self.cuts.is_empty() {
            return None;
        }
        self.cuts.get(&(from, to)).copied().filter(|until| *until > now)
    }
}

// === impl Wire ===

impl Wire {
    fn new(client: Host, server: usize) -> Self {
        Self {
            client,
            server,
            near: Near::Waiting,
            stream: None,
            far_open: true,
            broken_up: None,
            broken_down: None,
            last_up: Duration::ZERO,
            last_down: Duration::ZERO,
        }
    }
}

impl World {
    /// How long a message takes.
    pub(super) fn delay(&mut self) -> Duration {
        if self.calm {
            return self.rng.millis(1..=4);
        }
        match self.rng.weighted(&[88, 10, 2]) {
            0 => self.rng.millis(1..=15),
            1 => self.rng.millis(15..=300),
            _ => self.rng.millis(300..=3000),
        }
    }

    /// How long an end takes to see that its connection broke.
    fn notice(&mut self) -> Duration {
        match self.rng.weighted(&[70, 25, 5]) {
            0 => self.rng.millis(1..=200),
            1 => self.rng.millis(200..=6000),
            _ => self.rng.millis(6000..=25_000),
        }
    }

    /// Whether a client can open a connection: both ways are whole and somebody listens.
    pub(super) fn reachable(&self, client: Host, server: usize) -> bool {
        let there = Host::Coordinator(server);
        self.coordinators[server].process.on()
            && self.network.blocked(client, there, self.now).is_none()
            && self.network.blocked(there, client, self.now).is_none()
    }

    pub(super) fn open_wire(&mut self, client: Host, server: usize) -> WireId {
        let id = WireId(self.sequence);
        self.sequence += 1;
        self.wires.insert(id, Wire::new(client, server));
        id
    }

    pub(super) fn send_up(&mut self, id: WireId, what: Up) {
        let delay = self.delay();
        let now = self.now;
        let Some(wire) = self.wires.get_mut(&id).filter(|wire| wire.far_open) else { return };
        let at = (now + delay).max(wire.last_up);
        // What comes after something that is lost is lost as well.
        wire.last_up = at;
        if wire.broken_up.is_none_or(|end| at <= end) {
            self.at(at, Event::Up(id, what));
        }
    }

    pub(super) fn send_down(&mut self, id: WireId, what: Down) {
        let delay = self.delay();
        let now = self.now;
        let Some(wire) = self.wires.get_mut(&id).filter(|wire| wire.near != Near::Closed) else { return };
        let at = (now + delay).max(wire.last_down);
        // What comes after something that is lost is lost as well.
        wire.last_down = at;
        if wire.broken_down.is_none_or(|end| at <= end) {
            self.at(at, Event::Down(id, what));
        }
    }

    /// The client closes its end; what it sent before may still arrive.
    pub(super) fn hang_up(&mut self, id: WireId) {
        let lost = !self.calm && self.rng.chance(300);
        let now = self.now;
        if let Some(wire) = self.wires.get_mut(&id).filter(|wire| lost && wire.far_open) {
            wire.broken_up = Some(now);
            wire.far_open = false;
            let notice = self.notice();
            return self.at(now + notice, Event::Broken { wire: id, near: true });
        }
        self.send_up(id, Up::Closed);
        if let Some(wire) = self.wires.get_mut(&id) {
            wire.far_open = false;
        }
        self.forget_wire(id);
    }

    /// The coordinator closes its end; what it sent before still arrives.
    pub(super) fn close_down(&mut self, id: WireId) {
        self.send_down(id, Down::Closed);
        if let Some(wire) = self.wires.get_mut(&id) {
            wire.near = Near::Closed;
        }
        self.forget_wire(id);
    }

    /// The network breaks a connection; both ends learn of it.
    pub(super) fn break_wire(&mut self, id: WireId) {
        let (up, down) = (self.rng.millis(0..=200), self.rng.millis(0..=200));
        let (near, far) = (self.notice(), self.notice());
        let now = self.now;
        let Some(wire) = self.wires.get_mut(&id) else { return };
        wire.broken_up = Some(wire.broken_up.map_or(now + up, |end| end.min(now + up)));
        wire.broken_down = Some(wire.broken_down.map_or(now + down, |end| end.min(now + down)));
        self.at(now + up.max(near), Event::Broken { wire: id, near: true });
        self.at(now + down.max(far), Event::Broken { wire: id, near: false });
    }

    /// The client's process died: the coordinator learns of it, if its host lives at once.
    pub(super) fn client_died(&mut self, id: WireId) {
        let late = self.rng.millis(0..=300);
        let notice = self.notice();
        let now = self.now;
        let Some(wire) = self.wires.get_mut(&id) else { return };
        wire.far_open = false;
        wire.broken_up = Some(wire.broken_up.map_or(now + late, |end| end.min(now + late)));
        self.at(now + late.max(notice), Event::Broken { wire: id, near: true });
    }

    /// A coordinator's process died: all its clients learn of it.
    pub(super) fn server_died(&mut self, server: usize) {
        let now = self.now;
        let ids: Vec<WireId> = self.wires_of(server);
        for id in ids {
            let late = self.rng.millis(0..=50);
            let notice = self.notice();
            let Some(wire) = self.wires.get_mut(&id) else { continue };
            wire.near = Near::Closed;
            wire.broken_down = Some(wire.broken_down.map_or(now + late, |end| end.min(now + late)));
            self.at(now + late.max(notice), Event::Broken { wire: id, near: false });
        }
    }

    /// The connections that a coordinator has not closed.
    pub(super) fn wires_of(&self, server: usize) -> Vec<WireId> {
        let open = self.wires.iter().filter(|(_, wire)| wire.server == server && wire.near != Near::Closed);
        open.map(|(id, _)| *id).collect()
    }

    pub(super) fn up_arrives(&mut self, id: WireId, what: Up) -> Checked {
        let now = self.now;
        let Some(wire) = self.wires.get(&id) else { return Ok(()) };
        if wire.near == Near::Closed || wire.broken_up.is_some_and(|end| now > end) {
            return Ok(());
        }
        match what {
            Up::Open => self.link_arrives(id),
            Up::Frame(frame) => self.frame_arrives(id, *frame),
            Up::Subscribe(call) => self.subscription_arrives(id, *call),
            Up::Closed => self.near_end_closes(id),
        }
    }

    pub(super) fn down_arrives(&mut self, id: WireId, what: Down) -> Checked {
        let now = self.now;
        let Some(wire) = self.wires.get_mut(&id).filter(|wire| wire.far_open) else { return Ok(()) };
        if wire.broken_down.is_some_and(|end| now > end) {
            return Ok(());
        }
        let client = wire.client;
        if matches!(what, Down::Closed) {
            wire.far_open = false;
            self.forget_wire(id);
        }
        match client {
            Host::Machine(machine) => self.machine_hears(machine, id, what),
            Host::Scheduler(scheduler) => self.scheduler_hears(scheduler, id, what),
            Host::Coordinator(_) | Host::ZooKeeper => Ok(()),
        }
    }

    /// An end sees that its connection is gone.
    pub(super) fn broken(&mut self, id: WireId, near: bool) -> Checked {
        let Some(wire) = self.wires.get_mut(&id) else { return Ok(()) };
        if near {
            return if wire.near == Near::Closed { Ok(()) } else { self.near_end_closes(id) };
        }
        if !wire.far_open {
            return Ok(());
        }
        let client = wire.client;
        // If only this end believes so, the other learns of it.
        self.send_up(id, Up::Closed);
        if let Some(wire) = self.wires.get_mut(&id) {
            wire.far_open = false;
        }
        self.forget_wire(id);
        match client {
            Host::Machine(machine) => self.machine_hears(machine, id, Down::Closed),
            Host::Scheduler(scheduler) => self.scheduler_hears(scheduler, id, Down::Closed),
            Host::Coordinator(_) | Host::ZooKeeper => Ok(()),
        }
    }

    /// Forgets a connection that both ends have left.
    pub(super) fn forget_wire(&mut self, id: WireId) {
        if self.wires.get(&id).is_some_and(|wire| wire.near == Near::Closed && !wire.far_open) {
            self.wires.remove(&id);
        }
    }
}
