//! The cluster of a seed: processes on hosts, one network between them, one clock, and one queue of what is to happen.
//!
//! Each event is for a process, or is the network's own. What is for a process that is stopped waits until it goes on;
//! what is to cross a partition waits until that ends, as TCP would send it again, unless the connection has
//! broken by then ([`network`]). What a core answers goes on its way as further events. First faults come at
//! random ([`faults`]), then none, and all must settle ([`settle`]).

mod calls;
mod coordinator;
mod election;
mod faults;
mod machine;
mod machine_parts;
mod network;
mod scheduler;
mod settle;
mod tally;
mod zookeeper;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tepui_agent::core::ContainerCommand;
use tepui_api::v1::ContainerId;
use tepui_coordinator::core::Reply;

use crate::ledger::Ledger;
use crate::rng::Rng;
use coordinator::Coordinator;
use machine::Machine;
use network::{Down, Network, Up, Wire, WireId};
use scheduler::Scheduler;
use zookeeper::{Ask, Told, ZooKeeper};

pub use tally::Tally;

/// More events than that at one time hang.
const MOST_AT_ONCE: u32 = 20_000;

/// What a check says: nothing, or what does not hold.
pub type Checked = Result<(), String>;

/// See the module.
pub struct World {
    rng: Rng,
    now: Duration,
    queue: BTreeMap<(Duration, u64), Event>,
    sequence: u64,
    /// Events since time moved on.
    at_once: u32,
    /// What the cores were told so far.
    inputs: u64,
    /// Nothing goes wrong any more.
    calm: bool,
    network: Network,
    /// A single coordinator with a file, without ZooKeeper.
    alone: bool,
    zookeeper: ZooKeeper,
    coordinators: Vec<Coordinator>,
    machines: Vec<Machine>,
    schedulers: Vec<Scheduler>,
    wires: BTreeMap<WireId, Wire>,
    ledger: Ledger,
    tally: Tally,
    /// The last events as text, and how many are kept.
    trace: VecDeque<String>,
    traced: usize,
}

/// Something with an address of its own, and the one process on it that matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Host {
    ZooKeeper,
    Coordinator(usize),
    Machine(usize),
    Scheduler(usize),
}

/// Whether a process runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Power {
    On,
    Off {
        until: Duration,
    },
    /// It never comes back.
    Gone,
}

/// A process as its host sees it.
#[derive(Debug, Clone, Copy)]
pub struct Process {
    pub power: Power,
    /// Stopped, with all that arrives waiting.
    pub stopped_until: Option<Duration>,
    /// Which process on this host it is: what was meant for another one is lost.
    pub incarnation: u64,
    /// When it wakes, as far as the queue knows.
    pub wakes_at: Option<Duration>,
    /// Its wall clock minus the simulation's, which may be set at any time.
    pub wall: Duration,
}

/// What is to happen.
#[derive(Debug, Clone)]
pub enum Event {
    /// At a coordinator's end of a connection.
    Up(WireId, Up),
    /// At the other end.
    Down(WireId, Down),
    /// An end learns that its connection broke.
    Broken {
        wire: WireId,
        near: bool,
    },
    /// A scheduler's call, which is a request of its own.
    Call(Box<calls::Request>),
    Answer(Box<calls::Answer>),
    ToZooKeeper {
        from: usize,
        connection: u64,
        ask: Ask,
    },
    FromZooKeeper {
        to: usize,
        connection: u64,
        told: Told,
    },
    SessionEnds(u64),
    /// Whose node is the lowest, as ZooKeeper tells whoever watches.
    Detected {
        host: Host,
        incarnation: u64,
        leader: Option<zookeeper::Leader>,
    },
    /// The file of a coordinator that is alone has what it was given.
    FileWritten {
        incarnation: u64,
    },
    Wake(Host),
    /// A machine's disk has what it was given.
    Committed {
        machine: usize,
        incarnation: u64,
    },
    Command {
        machine: usize,
        incarnation: u64,
        container: ContainerId,
        command: ContainerCommand,
    },
    /// A container's process ends by itself or by a signal.
    Exits {
        machine: usize,
        container: ContainerId,
        status: i32,
    },
    /// The agent's process sees that.
    Noticed {
        machine: usize,
        incarnation: u64,
        container: ContainerId,
    },
    Fault,
}

/// Which way an event goes, when it goes over the network.
enum Way {
    Inside,
    Between(Host, Host),
}

// === impl World ===

impl World {
    /// The world of a seed, before anything has happened.
    pub fn new(seed: u64, traced: usize) -> Self {
        let mut rng = Rng::new(seed);
        let alone = rng.chance(150);
        let count = if alone { 1 } else { 2 + rng.below(2) };
        let kind = coordinator::Kind::new(&mut rng);
        let timeout = rng.millis(2000..=6000);
        let mut world = Self {
            now: Duration::from_secs(1),
            queue: BTreeMap::new(),
            sequence: 0,
            at_once: 0,
            inputs: 0,
            calm: false,
            network: Network::default(),
            alone,
            zookeeper: ZooKeeper::new(timeout),
            coordinators: (0..count).map(|_| Coordinator::new(kind.clone())).collect(),
            machines: Vec::new(),
            schedulers: Vec::new(),
            wires: BTreeMap::new(),
            ledger: Ledger::default(),
            tally: Tally::default(),
            trace: VecDeque::new(),
            traced,
            rng,
        };
        for index in 0..1 + world.rng.below(4) {
            let machine = Machine::new(index, &mut world.rng);
            world.machines.push(machine);
        }
        for index in 0..1 + world.rng.below(3) {
            let scheduler = Scheduler::new(index, world.now, &mut world.rng);
            world.schedulers.push(scheduler);
        }
        for host in world.hosts() {
            world.wake_at(host, world.now);
        }
        world.at(world.now + Duration::from_secs(8), Event::Fault);
        world
    }

    /// Lets the cores be told so much while things fail, and then lets all settle.
    ///
    /// # Errors
    /// With what does not hold.
    pub fn run(&mut self, inputs: u64) -> Checked {
        while self.inputs < inputs {
            self.advance()?;
        }
        self.settle()?;
        self.tally.finish(self.inputs, self.now, &self.ledger);
        Ok(())
    }

    /// What was done.
    pub fn tally(&self) -> Tally {
        self.tally.clone()
    }

    /// The simulation's clock.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// The last events, for a report.
    pub fn report(&self) -> String {
        self.trace.iter().map(|line| format!("  {line}\n")).collect()
    }

    fn hosts(&self) -> Vec<Host> {
        let coordinators = (0..self.coordinators.len()).map(Host::Coordinator);
        let machines = (0..self.machines.len()).map(Host::Machine);
        coordinators.chain(machines).chain((0..self.schedulers.len()).map(Host::Scheduler)).collect()
    }

    fn advance(&mut self) -> Checked {
        let Some(((at, sequence), event)) = self.queue.pop_first() else {
            return Err("nothing happens any more".to_owned());
        };
        self.at_once = if at > self.now { 0 } else { self.at_once + 1 };
        if self.at_once > MOST_AT_ONCE {
            return Err(format!("time stands still: {event:?}"));
        }
        self.now = self.now.max(at);
        if let Some(until) = self.held_until(&event) {
            if let Event::Wake(host) = event {
                self.process_mut(host).wakes_at = Some(until);
            }
            // With its old number, so that what waits for the same end keeps its order.
            self.queue.insert((until.max(self.now), sequence), event);
            return Ok(());
        }
        self.note(&event);
        self.happen(at, event)
    }

    /// Until when an event has to wait: its way is cut, or its process stopped.
    fn held_until(&self, event: &Event) -> Option<Duration> {
        let (way, host) = self.way_of(event);
        if let Way::Between(from, to) = way {
            let blocked = self.network.blocked(from, to, self.now);
            let quorum = [from, to].contains(&Host::ZooKeeper).then(|| self.zookeeper.lost_until(self.now));
            if let Some(until) = blocked.max(quorum.flatten()) {
                return Some(until);
            }
        }
        self.process(host?)?.stopped(self.now)
    }

    /// How an event comes, and whose process is to take it in.
    fn way_of(&self, event: &Event) -> (Way, Option<Host>) {
        let between = |from, to| (Way::Between(from, to), Some(to));
        let ends = |wire: &WireId| self.wires.get(wire).map(|w| (w.client, Host::Coordinator(w.server)));
        match event {
            Event::Up(wire, _) => match ends(wire) {
                Some((client, server)) => between(client, server),
                None => (Way::Inside, None),
            },
            Event::Down(wire, _) => match ends(wire) {
                Some((client, server)) => between(server, client),
                None => (Way::Inside, None),
            },
            Event::Broken { wire, near } => {
                (Way::Inside, ends(wire).map(|(client, server)| if *near { server } else { client }))
            }
            Event::Call(request) => {
                between(Host::Scheduler(request.scheduler), Host::Coordinator(request.server))
            }
            Event::Answer(answer) => {
                between(Host::Coordinator(answer.server), Host::Scheduler(answer.scheduler))
            }
            Event::ToZooKeeper { from, .. } => between(Host::Coordinator(*from), Host::ZooKeeper),
            Event::FromZooKeeper { to, .. } => between(Host::ZooKeeper, Host::Coordinator(*to)),
            Event::Detected { host, .. } => between(Host::ZooKeeper, *host),
            Event::Wake(host) => (Way::Inside, Some(*host)),
            Event::FileWritten { .. } => (Way::Inside, Some(Host::Coordinator(0))),
            Event::Committed { machine, .. }
            | Event::Command { machine, .. }
            | Event::Noticed { machine, .. } => (Way::Inside, Some(Host::Machine(*machine))),
            Event::Exits { .. } | Event::SessionEnds(_) | Event::Fault => (Way::Inside, None),
        }
    }

    fn happen(&mut self, at: Duration, event: Event) -> Checked {
        match event {
            Event::Up(wire, what) => self.up_arrives(wire, what)?,
            Event::Down(wire, what) => self.down_arrives(wire, what)?,
            Event::Broken { wire, near } => self.broken(wire, near)?,
            Event::Call(request) => self.call_arrives(*request)?,
            Event::Answer(answer) => self.answered(&answer),
            Event::ToZooKeeper { from, connection, ask } => self.asked(from, connection, ask)?,
            Event::FromZooKeeper { to, connection, told } => self.told(to, connection, told)?,
            Event::SessionEnds(session) => self.session_ends(session),
            Event::Detected { host, incarnation, leader } => self.detected(host, incarnation, leader)?,
            Event::FileWritten { incarnation } => self.file_written(incarnation)?,
            Event::Wake(host) => {
                let process = self.process_mut(host);
                if process.wakes_at == Some(at) {
                    process.wakes_at = None;
                    self.wake(host)?;
                }
            }
            Event::Committed { machine, incarnation } => self.committed(machine, incarnation)?,
            Event::Command { machine, incarnation, container, command } => {
                self.carry_out_command(machine, incarnation, &container, &command)?;
            }
            Event::Exits { machine, container, status } => self.exits(machine, &container, status),
            Event::Noticed { machine, incarnation, container } => {
                self.exit_noticed(machine, incarnation, &container)?;
            }
            Event::Fault => self.fault()?,
        }
        Ok(())
    }

    fn wake(&mut self, host: Host) -> Checked {
        let now = self.now;
        let process = self.process_mut(host);
        match process.power {
            Power::Gone => return Ok(()),
            Power::Off { until } if until > now => {
                self.wake_at(host, until);
                return Ok(());
            }
            Power::Off { .. } => {
                process.power = Power::On;
                process.stopped_until = None;
                self.starts(host)?;
            }
            Power::On => {}
        }
        match host {
            Host::ZooKeeper => Ok(()),
            Host::Coordinator(index) => self.wake_coordinator(index),
            Host::Machine(index) => self.wake_machine(index),
            Host::Scheduler(index) => self.wake_scheduler(index),
        }
    }

    fn starts(&mut self, host: Host) -> Checked {
        match host {
            Host::Coordinator(index) => self.start_coordinator(index),
            Host::Machine(index) => self.start_agent(index),
            Host::Scheduler(_) | Host::ZooKeeper => Ok(()),
        }
    }

    fn at(&mut self, at: Duration, event: Event) {
        self.queue.insert((at.max(self.now), self.sequence), event);
        self.sequence += 1;
    }

    /// Sees to it that a process is woken no later than at a time.
    fn wake_at(&mut self, host: Host, at: Duration) {
        let at = at.max(self.now);
        let process = self.process_mut(host);
        if process.wakes_at.is_none_or(|earlier| at < earlier) {
            process.wakes_at = Some(at);
            self.at(at, Event::Wake(host));
        }
    }

    fn process(&self, host: Host) -> Option<&Process> {
        match host {
            Host::ZooKeeper => None,
            Host::Coordinator(index) => Some(&self.coordinators[index].process),
            Host::Machine(index) => Some(&self.machines[index].process),
            Host::Scheduler(index) => Some(&self.schedulers[index].process),
        }
    }

    fn process_mut(&mut self, host: Host) -> &mut Process {
        match host {
            Host::Coordinator(index) => &mut self.coordinators[index].process,
            Host::Machine(index) => &mut self.machines[index].process,
            Host::Scheduler(index) => &mut self.schedulers[index].process,
            Host::ZooKeeper => panic!("ZooKeeper is no single process"),
        }
    }

    /// Keeps a figure of all that happened, by which two runs of one seed can be compared, and its text.
    fn note(&mut self, event: &Event) {
        self.tally.digest = self
            .tally
            .digest
            .wrapping_mul(0x100_0000_01b3)
            .wrapping_add(self.now.as_nanos() as u64)
            .wrapping_add(self.inputs.rotate_left(32));
        // What reaches a core is told with what comes of it.
        let told = matches!(event, Event::Wake(_) | Event::Up(..) | Event::Call(_) | Event::Command { .. });
        let order = matches!(event, Event::Down(_, Down::Order(_)));
        if self.traced > 0 && !told && !order {
            let text = format!("{event:?}");
            self.say(text);
        }
    }

    /// A line of the report.
    fn say(&mut self, text: impl AsRef<str>) {
        if self.traced == 0 {
            return;
        }
        let line = format!("{:>10.3} s  {}", self.now.as_secs_f64(), tally::shorten(text.as_ref()));
        self.trace.push_back(line);
        if self.trace.len() > self.traced {
            self.trace.pop_front();
        }
    }
}

// === impl Process ===

impl Process {
    /// A process that starts at once.
    pub fn new(rng: &mut Rng) -> Self {
        Self {
            power: Power::Off { until: Duration::ZERO },
            stopped_until: None,
            incarnation: 0,
            wakes_at: None,
            wall: Duration::from_secs(1_700_000_000 + rng.within(0..=100)),
        }
    }

    /// Until when it is stopped.
    pub fn stopped(&self, now: Duration) -> Option<Duration> {
        self.stopped_until.filter(|until| *until > now && self.power == Power::On)
    }

    /// Whether it is there; it may be stopped.
    pub fn on(&self) -> bool {
        self.power == Power::On
    }

    /// It dies, and is started again at a time.
    pub fn dies(&mut self, until: Duration) {
        self.power = Power::Off { until };
        self.stopped_until = None;
        self.incarnation += 1;
    }
}

/// Whether a reply says yes.
fn is_yes(reply: &Reply) -> bool {
    matches!(reply, Reply::Accepted | Reply::Ok | Reply::Subscribed | Reply::Response(_))
}
