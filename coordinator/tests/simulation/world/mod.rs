//! A coordinator's core, and the agents and frameworks around it, on one clock and one network that fails.
//!
//! Everything that is to happen stands in one queue, ordered by time; the seed determines all of it. What arrives
//! at the core is a step: the ledger looks at it, and the outputs go on their way. First faults
//! come at random; then they end, and all must settle within a bounded time.

mod actors;
mod chaos;
mod coordinator;
mod network;
mod settle;
mod tally;

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use tepui_api::link::agent_frame::Body as Frame;
use tepui_api::link::coordinator_frame::Body as Order;
use tepui_api::v1::scheduler::{Call, Event as Told};
use tepui_coordinator::core::{
    Core, Input, LinkId, OperatorCall, Output, Reply, Settings, StreamHeader, StreamId, Ticket,
};
use tepui_coordinator::registry::MemoryRegistry;

use crate::ledger::{Counts, Ledger};
use crate::model::agent::Agent;
use crate::model::framework::Framework;
use crate::model::shapes;
use crate::rng::Rng;
use network::Wire;

/// See the module.
pub struct World {
    rng: Rng,
    /// Of the simulation; both clocks of the core follow from it.
    now: Duration,
    queue: BTreeMap<(Duration, u64), Event>,
    sequence: u64,
    steps: u64,
    /// Nothing goes wrong any more.
    calm: bool,
    host: Host,
    agents: Vec<Node<Agent>>,
    frameworks: Vec<Node<Framework>>,
    links: BTreeMap<LinkId, Wire>,
    streams: BTreeMap<StreamId, Wire>,
    trace: VecDeque<Traced>,
    /// How many inputs a report shows.
    traced: usize,
    tally: Tally,
}

/// A step, for the report.
struct Traced {
    step: u64,
    now: Duration,
    input: Input,
    outputs: Vec<Output>,
}

/// The coordinator's machine.
struct Host {
    core: Option<Core>,
    ledger: Option<Ledger>,
    settings: Settings,
    registry: MemoryRegistry,
    /// What the registry was asked to write, oldest first.
    unwritten: VecDeque<(Ticket, tepui_coordinator::core::RegistryChange)>,
    last_write: Duration,
    /// Which process of it this is.
    incarnation: u64,
    next_request: u64,
    wall_offset: Duration,
    /// Ticks in a row that changed nothing of when the next is due.
    idle_ticks: u32,
}

/// The machine of a model.
struct Node<M> {
    model: M,
    power: Power,
    /// Stopped, with all that arrives waiting.
    frozen_until: Option<Duration>,
    /// When it wakes, as far as the queue knows.
    wakes_at: Option<Duration>,
    link: Option<LinkId>,
    /// When a framework does something of itself.
    acts_at: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Power {
    On,
    Off {
        until: Duration,
    },
    /// It never comes back.
    Gone,
}

/// What is to happen.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "few are alive at a time")]
enum Event {
    /// Something arrives at this process of the coordinator.
    ToCore {
        incarnation: u64,
        what: Arrival,
    },
    ToAgent {
        agent: usize,
        link: LinkId,
        what: Option<Order>,
    },
    ToFramework {
        framework: usize,
        stream: StreamId,
        what: Option<Arc<Told>>,
    },
    Answer {
        framework: usize,
        stream: Option<StreamId>,
        reply: Reply,
    },
    WakeAgent(usize),
    WakeFramework(usize),
    Fault,
    Start,
}

#[derive(Debug, Clone)]
enum Arrival {
    Frame(LinkId, Frame),
    LinkClosed(LinkId),
    Subscribe { stream: StreamId, call: Call },
    Call { framework: usize, stream: Option<StreamId>, header: StreamHeader, call: Call },
    StreamClosed(StreamId),
    Operator(OperatorCall),
    Persisted(Ticket),
}

/// What was done to all of them.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    pub steps: u64,
    pub simulated: Duration,
    pub restarts: u64,
    pub cuts: u64,
    pub crashes: u64,
    pub freezes: u64,
    pub terminal_acknowledged: u64,
    pub counts: Counts,
    /// Of all inputs and outputs, to tell two runs apart.
    pub digest: u64,
}

// === impl World ===

impl World {
    /// The world of a seed, before anything has happened.
    pub fn new(seed: u64, traced: usize) -> Self {
        let mut rng = Rng::new(seed);
        let agents = 2 + rng.below(6);
        let frameworks = 2 + rng.below(4);
        let host = Host::new(&mut rng);
        let mut world = Self {
            now: Duration::from_secs(1),
            queue: BTreeMap::new(),
            sequence: 0,
            steps: 0,
            calm: false,
            host,
            agents: Vec::new(),
            frameworks: Vec::new(),
            links: BTreeMap::new(),
            streams: BTreeMap::new(),
            trace: VecDeque::new(),
            traced,
            tally: Tally::default(),
            rng,
        };
        for index in 0..agents {
            let (info, capabilities, address) = shapes::agent(index, &mut world.rng);
            let agent = Agent::new(info, capabilities, address, &mut world.rng);
            world.agents.push(Node::new(agent));
            world.plan_agent(index);
        }
        for index in 0..frameworks {
            let info = shapes::framework(index, &mut world.rng);
            let starts_at = world.now + world.rng.millis(0..=5000);
            world.frameworks.push(Node::new(Framework::new(info, starts_at)));
            world.plan_framework(index);
        }
        let now = world.now;
        world.at(now, Event::Start);
        world.at(now + Duration::from_secs(5), Event::Fault);
        world
    }

    /// Lets so many inputs reach the core while things fail, and then lets all settle.
    ///
    /// # Errors
    /// With what does not hold.
    pub fn run(&mut self, steps: u64) -> Result<(), String> {
        while self.steps < steps {
            self.advance()?;
        }
        self.settle()
    }

    /// What was done.
    pub fn tally(&self) -> Tally {
        let counts = self.host.ledger.as_ref().map(|ledger| ledger.counts().clone()).unwrap_or_default();
        Tally { steps: self.steps, simulated: self.now, counts, ..self.tally.clone() }
    }

    /// The last inputs, for a report.
    pub fn report(&self) -> String {
        let mut text = String::new();
        // Who asks for many wants them whole.
        let limit = if self.traced > 100 { usize::MAX } else { 1000 };
        for Traced { step, now, input, outputs } in &self.trace {
            let line = shorten(&format!("{input:?}"), limit);
            let _ = writeln!(text, "  {step:>6} at {:>12.3} s  {line}", now.as_secs_f64());
            for output in outputs {
                let _ = writeln!(text, "  {step:>6}      → {}", shorten(&format!("{output:?}"), limit / 2));
            }
        }
        text
    }

    /// In which step it is.
    pub fn step_number(&self) -> u64 {
        self.steps
    }

    /// Takes what happens next: the core's clock, or what stands first in the queue.
    fn advance(&mut self) -> Result<(), String> {
        let next = self.queue.first_key_value().map(|((at, _), _)| *at);
        if let Some(due) = self.tick_due()
            && next.is_none_or(|next| due <= next)
        {
            self.now = self.now.max(due);
            return self.tick();
        }
        let Some(((at, _), event)) = self.queue.pop_first() else {
            return Err("nothing happens any more".to_owned());
        };
        self.now = self.now.max(at);
        self.happen(at, event)
    }

    fn happen(&mut self, at: Duration, event: Event) -> Result<(), String> {
        match event {
            Event::ToCore { incarnation, what } => {
                if incarnation != self.host.incarnation || self.host.core.is_none() {
                    return Ok(());
                }
                self.arrives(what)
            }
            Event::ToAgent { agent, link, what } => {
                if let Some(until) = self.agents[agent].frozen(self.now) {
                    self.at(until, Event::ToAgent { agent, link, what });
                    return Ok(());
                }
                self.reaches_agent(agent, link, what)
            }
            Event::ToFramework { framework, stream, what } => {
                if let Some(until) = self.frameworks[framework].frozen(self.now) {
                    self.at(until, Event::ToFramework { framework, stream, what });
                    return Ok(());
                }
                self.reaches_framework(framework, stream, what)
            }
            Event::Answer { framework, stream, reply } => {
                self.answered(framework, stream, &reply);
                Ok(())
            }
            Event::WakeAgent(agent) => {
                if self.agents[agent].wakes_at == Some(at) {
                    self.agents[agent].wakes_at = None;
                    self.wake_agent(agent);
                }
                Ok(())
            }
            Event::WakeFramework(framework) => {
                if self.frameworks[framework].wakes_at == Some(at) {
                    self.frameworks[framework].wakes_at = None;
                    self.wake_framework(framework);
                }
                Ok(())
            }
            Event::Fault => {
                self.fault();
                Ok(())
            }
            Event::Start => {
                self.start();
                Ok(())
            }
        }
    }

    fn at(&mut self, at: Duration, event: Event) {
        self.queue.insert((at.max(self.now), self.sequence), event);
        self.sequence += 1;
    }
}

/// What a message prints as, without what is not in it.
fn shorten(text: &str, limit: usize) -> String {
    let mut short = text.to_owned();
    for absent in [": None", ": []", ": {}"] {
        while let Some(at) = short.find(absent) {
            let field = short[..at].rfind([' ', '{', '(']).map_or(0, |before| before + 1);
            let after = at + absent.len();
            let end = if short[after..].starts_with(", ") { after + 2 } else { after };
            short.replace_range(field..end, "");
        }
    }
    if short.len() > limit {
        let end = (0..=limit).rev().find(|at| short.is_char_boundary(*at)).unwrap_or(0);
        short.truncate(end);
        short.push('…');
    }
    short
}

// === impl Node ===

impl<M> Node<M> {
    fn new(model: M) -> Self {
        Self {
            model,
            power: Power::On,
            frozen_until: None,
            wakes_at: None,
            link: None,
            acts_at: Duration::ZERO,
        }
    }

    /// Until when it is stopped.
    fn frozen(&mut self, now: Duration) -> Option<Duration> {
        if self.frozen_until.is_some_and(|until| until <= now) {
            self.frozen_until = None;
        }
        self.frozen_until
    }
}
