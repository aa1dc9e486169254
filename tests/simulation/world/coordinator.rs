//! A coordinator's process while it leads: its core, made anew for each term, and what becomes of what the core wants.
//!
//! As in the real shell, nothing reaches the core, and nothing it wants is done, once the lease has ended: whoever asks
//! then is sent elsewhere.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tepui_api::link::agent_frame::Body as Frame;
use tepui_api::v1::{MasterInfo, scheduler};
use tepui_coordinator::core::{
    Core, Input, LinkId, Now, Output, Recovered, RegistryChange, RequestId, Settings, StreamId, Ticket,
};
use tepui_coordinator::registry::Registry as _;

use super::election::Client;
use super::network::{Down, Near, WireId};
use super::zookeeper::{Ask, Leader};
use super::{Checked, Event, Host, Process, World};
use crate::rng::Rng;

/// Between two looks at all books of a core, in steps.
const AUDITED: u64 = 16;
/// When a core says that it is due again and again, it hangs.
const MOST_IDLE_TICKS: u32 = 100;

/// A coordinator's host.
pub struct Coordinator {
    pub process: Process,
    pub client: Client,
    /// To ZooKeeper, for the session; what comes over an older one is lost.
    pub connection: u64,
    /// To ZooKeeper, for the registry, which has a session of its own.
    pub registry_connection: u64,
    pub reign: Option<Reign>,
    kind: Kind,
    next_link: u64,
}

/// One term of one coordinator.
pub struct Reign {
    pub term: u64,
    /// Of the node that it leads by.
    pub number: u64,
    pub core: Core,
    links: BTreeMap<LinkId, WireId>,
    streams: BTreeMap<StreamId, WireId>,
    /// What the registry was asked to write, oldest first; of it, so many are on their way.
    unwritten: VecDeque<(Ticket, RegistryChange)>,
    writing: usize,
    /// When what is on its way is sent again.
    pub resend_at: Option<Duration>,
    requests: u64,
    steps: u64,
    idle_ticks: u32,
}

/// What all coordinators of a cluster are told by their flags.
#[derive(Debug, Clone)]
pub struct Kind(Settings);

// === impl Kind ===

impl Kind {
    pub fn new(rng: &mut Rng) -> Self {
        Self(Settings {
            agent_ping_timeout: rng.millis(1500..=6000),
            max_agent_ping_timeouts: 2 + rng.below(3) as u32,
            agent_reregister_timeout: rng.millis(4000..=30_000),
            allocation_interval: rng.millis(1000..=4000),
            offer_timeout: rng.chance(400).then(|| rng.millis(1000..=20_000)),
            max_completed_frameworks: 100,
            max_completed_tasks_per_framework: 20,
            max_unreachable_tasks_per_framework: 1000,
            registry_max_agent_count: 1 + rng.below(20),
            registry_max_agent_age: rng.millis(60_000..=3_600_000),
            ..Settings::new(MasterInfo::default())
        })
    }
}

// === impl Coordinator ===

impl Coordinator {
    pub fn new(kind: Kind) -> Self {
        Self {
            process: Process::new(&mut Rng::new(1)),
            client: Client::default(),
            connection: 0,
            registry_connection: 0,
            reign: None,
            kind,
            next_link: 0,
        }
    }
}

impl World {
    pub(super) fn start_coordinator(&mut self, index: usize) -> Checked {
        self.say(format!("coordinator {index} starts"));
        self.coordinators[index].client = Client::default();
        self.coordinators[index].next_link = 0;
        if self.alone {
            let recovered = self.zookeeper.recover()?;
            self.zookeeper.term += 1;
            self.begin_reign(index, self.zookeeper.term, 0, recovered)?;
        } else {
            self.remind(Host::Coordinator(index));
        }
        Ok(())
    }

    /// The process dies. Of what a file was being given, some is in it.
    pub(super) fn kill_coordinator(&mut self, index: usize, down: Duration) {
        if !self.coordinators[index].process.on() {
            return;
        }
        self.tally.crashes += 1;
        if let Some(reign) = self.coordinators[index].reign.take()
            && self.alone
        {
            let some = self.rng.below(reign.writing + 1);
            let changes: Vec<_> = reign.unwritten.into_iter().take(some).map(|(_, change)| change).collect();
            self.zookeeper.registry.write(&changes).unwrap();
        }
        let until = self.now + down;
        self.coordinators[index].process.dies(until);
        self.server_died(index);
        self.new_connections(index);
        self.wake_at(Host::Coordinator(index), until);
    }

    /// A term begins, with a core that knows only what the registry holds.
    pub(super) fn begin_reign(
        &mut self,
        index: usize,
        term: u64,
        number: u64,
        recovered: Recovered,
    ) -> Checked {
        self.say(format!("coordinator {index} begins term {term}"));
        self.tally.terms += 1;
        let mut settings = self.coordinators[index].kind.0.clone();
        let id = self.rng.uuid().to_string();
        settings.master =
            MasterInfo { id, hostname: Some(format!("c{index}")), port: 5050, ..MasterInfo::default() };
        settings.seed = self.rng.number();
        let core = Core::new(settings, recovered, self.clocks(index));
        let registry_connection = self.sequence;
        self.sequence += 1;
        let coordinator = &mut self.coordinators[index];
        coordinator.registry_connection = registry_connection;
        coordinator.reign = Some(Reign {
            term,
            number,
            core,
            links: BTreeMap::new(),
            streams: BTreeMap::new(),
            unwritten: VecDeque::new(),
            writing: 0,
            resend_at: None,
            requests: 0,
            steps: 0,
            idle_ticks: 0,
        });
        self.plan_coordinator(index);
        Ok(())
    }

    /// It leads no longer: the core is dropped, and everybody who was connected is sent away.
    pub(super) fn step_down(&mut self, index: usize) {
        if self.coordinators[index].reign.take().is_none() {
            return;
        }
        self.say(format!("coordinator {index} steps down"));
        self.tally.deposed += 1;
        for wire in self.wires_of(index) {
            self.close_down(wire);
        }
        self.stand_anew(index);
    }

    fn clocks(&self, index: usize) -> Now {
        Now { uptime: self.now, wall: self.now + self.coordinators[index].process.wall }
    }

    /// Whether it leads at this moment; the end of its lease is seen here.
    pub(super) fn leads(&mut self, index: usize) -> bool {
        let lease = self.coordinators[index].client.lease;
        if self.coordinators[index].reign.is_some() && !self.alone && lease_ended(self.now, lease) {
            self.step_down(index);
        }
        self.coordinators[index].reign.is_some()
    }

    /// One step of a core: it takes the input in, and what it wants is done.
    pub(super) fn step(&mut self, index: usize, input: Input) -> Result<Vec<Output>, String> {
        if !self.leads(index) {
            return Ok(Vec::new());
        }
        self.inputs += 1;
        let now = self.clocks(index);
        let Some(reign) = &mut self.coordinators[index].reign else { return Ok(Vec::new()) };
        let tracing = self.traced > 0;
        let shown = tracing.then(|| format!("coordinator {index} ← {input:?}"));
        let outputs = reign.core.step(now, input);
        reign.steps += 1;
        let (number, audited) = (reign.number, reign.steps.is_multiple_of(AUDITED));
        if audited {
            reign.core.audit().map_err(|broken| format!("coordinator {index}: {broken}"))?;
        }
        if let Some(shown) = shown {
            self.say(shown);
            outputs.iter().for_each(|output| self.say(format!("    → {output:?}")));
        }
        let leader = Some(Leader { coordinator: index, number });
        if !self.alone && !outputs.is_empty() && self.zookeeper.leader() != leader {
            return Err(format!(
                "coordinator {index} acts, but {:?} leads: {:?}",
                self.zookeeper.leader(),
                outputs[0]
            ));
        }
        if let Some(Output::Fail(why)) = outputs.last() {
            return Err(format!("coordinator {index} gives up: {why}"));
        }
        self.ledger.coordinator_acts(&outputs)?;
        for output in &outputs {
            self.carry_out(index, output);
        }
        self.write_registry_next(index);
        Ok(outputs)
    }

    fn carry_out(&mut self, index: usize, output: &Output) {
        let Some(reign) = &mut self.coordinators[index].reign else { return };
        match output {
            Output::Event { stream, event } => {
                if let Some(wire) = reign.streams.get(stream).copied() {
                    self.send_down(wire, Down::Event(event.clone()));
                }
            }
            Output::CloseStream { stream } => {
                if let Some(wire) = reign.streams.remove(stream) {
                    self.close_down(wire);
                }
            }
            Output::Frame { link, frame } => {
                if let Some(wire) = reign.links.get(link).copied() {
                    self.send_down(wire, Down::Order(Box::new(frame.clone())));
                }
            }
            Output::CloseLink { link } => {
                if let Some(wire) = reign.links.remove(link) {
                    self.close_down(wire);
                }
            }
            Output::Persist { ticket, change } => reign.unwritten.push_back((*ticket, change.clone())),
            // Replies go out with the request that they answer.
            Output::Reply { .. } | Output::Notify(_) | Output::Fail(_) => {}
        }
    }

    // --- the registry

    /// All that waits goes in one batch, when none is on its way.
    fn write_registry_next(&mut self, index: usize) {
        let Some(reign) = &mut self.coordinators[index].reign else { return };
        if reign.writing > 0 || reign.unwritten.is_empty() {
            return;
        }
        reign.writing = reign.unwritten.len();
        self.send_batch(index);
    }

    pub(super) fn send_batch(&mut self, index: usize) {
        let incarnation = self.coordinators[index].process.incarnation;
        let connection = self.coordinators[index].registry_connection;
        let slow = self.rng.chance(40) && !self.calm;
        let delay = if slow { self.rng.millis(200..=3000) } else { self.rng.millis(1..=20) };
        let at = self.now + delay;
        if self.alone {
            return self.at(at, Event::FileWritten { incarnation });
        }
        let again = self.now + self.rng.millis(4000..=8000);
        let Some(reign) = &mut self.coordinators[index].reign else { return };
        let changes: Vec<_> = reign.unwritten.iter().take(reign.writing).cloned().collect();
        if changes.is_empty() {
            return;
        }
        reign.resend_at = Some(again);
        let ask = Ask::Write { term: reign.term, changes };
        self.at(at, Event::ToZooKeeper { from: index, connection, ask });
    }

    pub(super) fn file_written(&mut self, incarnation: u64) -> Checked {
        let coordinator = &self.coordinators[0];
        if coordinator.process.incarnation != incarnation {
            return Ok(());
        }
        let Some(reign) = &coordinator.reign else { return Ok(()) };
        let changes: Vec<_> =
            reign.unwritten.iter().take(reign.writing).map(|(_, change)| change.clone()).collect();
        self.zookeeper.registry.write(&changes).map_err(|error| error.to_string())?;
        self.batch_written(0)
    }

    /// The batch under way is safe.
    pub(super) fn batch_written(&mut self, index: usize) -> Checked {
        let Some(reign) = &mut self.coordinators[index].reign else { return Ok(()) };
        let done: Vec<Ticket> = reign.unwritten.drain(..reign.writing).map(|(ticket, _)| ticket).collect();
        reign.writing = 0;
        reign.resend_at = None;
        for ticket in done {
            self.step(index, Input::Persisted { ticket })?;
        }
        self.write_registry_next(index);
        self.plan_coordinator(index);
        Ok(())
    }

    /// The last ticket of the batch under way.
    pub(super) fn batch_ends(&self, index: usize) -> Option<Ticket> {
        let reign = self.coordinators[index].reign.as_ref()?;
        reign.unwritten.get(reign.writing.checked_sub(1)?).map(|(ticket, _)| *ticket)
    }

    // --- connections

    fn redirect(&mut self, id: WireId, index: usize) {
        let known = self.coordinators[index].client.leader.map(|leader| leader.coordinator);
        self.send_down(id, Down::Redirect(known.filter(|other| *other != index)));
        self.close_down(id);
    }

    pub(super) fn link_arrives(&mut self, id: WireId) -> Checked {
        let Some(index) = self.wires.get(&id).map(|wire| wire.server) else { return Ok(()) };
        if !self.leads(index) {
            self.redirect(id, index);
            return Ok(());
        }
        let coordinator = &mut self.coordinators[index];
        coordinator.next_link += 1;
        let link = LinkId(coordinator.next_link);
        if let (Some(reign), Some(wire)) = (&mut coordinator.reign, self.wires.get_mut(&id)) {
            reign.links.insert(link, id);
            wire.near = Near::Link(link);
        }
        Ok(())
    }

    pub(super) fn frame_arrives(&mut self, id: WireId, frame: Frame) -> Checked {
        let Some(wire) = self.wires.get(&id) else { return Ok(()) };
        let (Near::Link(link), index) = (wire.near, wire.server) else { return Ok(()) };
        self.step(index, Input::Agent { link, frame })?;
        self.plan_coordinator(index);
        Ok(())
    }

    pub(super) fn subscription_arrives(&mut self, id: WireId, call: scheduler::Call) -> Checked {
        let Some(index) = self.wires.get(&id).map(|wire| wire.server) else { return Ok(()) };
        if !self.leads(index) {
            self.redirect(id, index);
            return Ok(());
        }
        let stream = StreamId(self.rng.uuid());
        let request = self.request(index);
        if let (Some(reign), Some(wire)) = (&mut self.coordinators[index].reign, self.wires.get_mut(&id)) {
            reign.streams.insert(stream, id);
            wire.near = Near::Stream(stream);
            wire.stream = Some(stream);
        }
        self.step(index, Input::Subscribe { request, stream, call })?;
        self.plan_coordinator(index);
        Ok(())
    }

    pub(super) fn near_end_closes(&mut self, id: WireId) -> Checked {
        if self.wires.get(&id).is_some_and(|wire| wire.far_open) {
            // If only this end believes so, the other learns of it.
            self.send_down(id, Down::Closed);
        }
        let Some(wire) = self.wires.get_mut(&id) else { return Ok(()) };
        let (near, index) = (std::mem::replace(&mut wire.near, Near::Closed), wire.server);
        self.forget_wire(id);
        let Some(reign) = &mut self.coordinators[index].reign else { return Ok(()) };
        let input = match near {
            Near::Link(link) => reign.links.remove(&link).map(|_| Input::LinkClosed { link }),
            Near::Stream(stream) => reign.streams.remove(&stream).map(|_| Input::StreamClosed { stream }),
            Near::Waiting | Near::Closed => None,
        };
        if let Some(input) = input {
            self.step(index, input)?;
            self.plan_coordinator(index);
        }
        Ok(())
    }

    pub(super) fn request(&mut self, index: usize) -> RequestId {
        let Some(reign) = &mut self.coordinators[index].reign else { return RequestId(0) };
        reign.requests += 1;
        RequestId(reign.requests)
    }

    // --- time

    /// Lets the core do what is due.
    pub(super) fn tick(&mut self, index: usize) -> Checked {
        let due = |reign: &Reign| reign.core.next_deadline();
        let Some(before) = self.coordinators[index].reign.as_ref().and_then(due) else { return Ok(()) };
        if before > self.now {
            return Ok(());
        }
        let outputs = self.step(index, Input::Tick)?.len();
        let now = self.now;
        let Some(reign) = &mut self.coordinators[index].reign else { return Ok(()) };
        let stuck = outputs == 0 && due(reign).is_some_and(|due| due <= now && due <= before);
        reign.idle_ticks = if stuck { reign.idle_ticks + 1 } else { 0 };
        if reign.idle_ticks > MOST_IDLE_TICKS {
            return Err(format!("the core of coordinator {index} is due at {before:?}, whatever the time"));
        }
        Ok(())
    }
}

/// Whether a leader can no longer count on its session. Asked before each step.
fn lease_ended(now: Duration, lease: Duration) -> bool {
    now >= lease
}
