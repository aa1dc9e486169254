//! The coordinator as a plain state machine: no clock, no socket, no lock, no disk.
//!
//! The shell turns what happens into an [`Input`] and calls [`Core::step`]; what is to be done about
//! it comes back as [`Output`]s. Calls of schedulers go through `calls` to `subscribe`, `accept`,
//! `offers`, `tasks` and `reconcile`, and are judged by `validate`; frames of agents go to
//! `join` and `rejoin`, `leave`, `removals` and `updates`; those of operators to `operators`, `gone`, `drain`,
//! `maintenance` and `weights`. Resources are shared out by
//! [`crate::allocator`], which these modules tell of every charge and return.
//!
//! All that readers may see stands in [`Snapshot`], whose maps are persistent: the core works on
//! one, and a copy for a reader costs a few pointers.

mod accept;
mod agent;
mod audit;
mod calls;
mod drain;
mod events;
mod framework;
mod frameworks;
mod gone;
mod io;
mod join;
mod leave;
mod maintenance;
mod offers;
mod operators;
mod reconcile;
mod registry;
mod rejoin;
mod removals;
mod snapshot;
mod subscribe;
mod tasks;
#[cfg(test)]
mod tests;
mod timers;
mod updates;
mod validate;
mod weights;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tepui_api::link::coordinator_frame;
use tepui_api::v1::scheduler::Event;
use tepui_api::v1::{AgentId, FrameworkId, TaskId, master};

use crate::allocator::{AgentKey, Allocator, FrameworkKey, Options};

pub use agent::Agent;
pub use audit::Broken;
pub use drain::Deactivation;
pub use framework::{Connection, Framework, HeldOffer, OfferNumber, RecentTasks};
pub use io::{
    Input, LinkId, Maintenance, Now, OperatorCall, Output, Recovered, RegistryChange, RemovalRate, Reply,
    RequestId, ResponseBody, Settings, StreamHeader, StreamId, Ticket,
};
pub use maintenance::{Machine, Plan};
pub use snapshot::{Counters, Snapshot};

use join::Joining;
use leave::Observation;
use registry::Pending;
use removals::Removals;
use timers::{Timer, Timers};

/// Between two heartbeats on a scheduler's stream, as in Mesos.
pub const HEARTBEAT: Duration = Duration::from_secs(15);

/// See the module's page.
#[derive(Debug)]
pub struct Core {
    settings: Settings,
    /// What readers see.
    state: Snapshot,
    allocator: Allocator,
    now: Now,
    timers: Timers,
    /// What this step has come to so far.
    out: Vec<Output>,
    next: Numbers,
    heartbeat: Arc<Event>,
    /// Whose stream it is, while it is open.
    streams: HashMap<StreamId, FrameworkId>,
    /// Whose link it is, once that is settled.
    links: HashMap<LinkId, AgentId>,
    offers: HashMap<OfferNumber, FrameworkId>,
    frameworks_by_key: HashMap<FrameworkKey, FrameworkId>,
    agents_by_key: HashMap<AgentKey, AgentId>,
    /// Registered agents by their machines.
    on_machines: HashMap<Arc<Machine>, BTreeSet<AgentId>>,
    /// Agents at their addresses, to know one that registers anew.
    addresses: HashMap<String, AgentId>,
    completed_ids: HashSet<FrameworkId>,
    /// Which tasks of an unreachable agent its frameworks remember.
    unreachable_tasks: HashMap<AgentId, Vec<(FrameworkId, TaskId)>>,
    /// Kills that are repeated if the agent comes back with the task still alive.
    kills: HashMap<AgentId, BTreeSet<(FrameworkId, TaskId)>>,
    observations: HashMap<AgentId, Observation>,
    removals: Removals,
    /// How many agents were awaited at the start.
    expected_agents: usize,
    deactivations: drain::Deactivations,
    planning: maintenance::Planning,
    inverse: maintenance::Answers,
    /// What a coordinator must be able to do to read the registry.
    minimum_capabilities: BTreeSet<String>,
    joining: Joining,
    /// What goes on once the registry has it.
    pending: BTreeMap<Ticket, Pending>,
    /// Agents of which the registry is writing something; nothing else is begun with them.
    in_registry: HashSet<AgentId>,
    observed: bool,
}

/// The numbers that ids are made from.
#[derive(Debug, Default)]
struct Numbers {
    framework: u64,
    agent: u64,
    offer: u64,
    ticket: u64,
    ping: u64,
}

// === impl Core ===

impl Core {
    /// A coordinator that starts, with what its registry held.
    #[must_use]
    pub fn new(settings: Settings, recovered: Recovered, now: Now) -> Self {
        let allocator = Allocator::new(Options {
            interval: settings.allocation_interval,
            delay: settings.allocation_delay,
            minimum: settings.min_allocatable_resources.clone(),
            filter_gpus: settings.filter_gpu_resources,
            seed: settings.seed,
            weights: settings.weights.clone(),
        });
        let mut core = Self {
            state: Snapshot::new(&settings),
            allocator,
            now,
            timers: Timers::default(),
            out: Vec::new(),
            next: Numbers::default(),
            heartbeat: events::heartbeat(),
            streams: HashMap::new(),
            links: HashMap::new(),
            offers: HashMap::new(),
            frameworks_by_key: HashMap::new(),
            agents_by_key: HashMap::new(),
            on_machines: HashMap::new(),
            addresses: HashMap::new(),
            completed_ids: HashSet::new(),
            unreachable_tasks: HashMap::new(),
            kills: HashMap::new(),
            observations: HashMap::new(),
            removals: Removals::default(),
            expected_agents: recovered.admitted.len(),
            deactivations: drain::Deactivations::default(),
            planning: maintenance::Planning::default(),
            inverse: maintenance::Answers::default(),
            minimum_capabilities: BTreeSet::new(),
            joining: Joining::default(),
            pending: BTreeMap::new(),
            in_registry: HashSet::new(),
            observed: false,
            settings,
        };
        core.recover(recovered);
        core
    }

    /// Takes in what happened, and answers what is to be done about it, in order.
    #[must_use]
    pub fn step(&mut self, now: Now, input: Input) -> Vec<Output> {
        self.now = Now { uptime: now.uptime.max(self.now.uptime), wall: now.wall };
        match input {
            Input::Subscribe { request, stream, call } => self.subscribe(request, stream, call),
            Input::Scheduler { request, stream, call } => self.scheduler_call(request, stream, call),
            Input::StreamClosed { stream } => self.stream_closed(stream),
            Input::Agent { link, frame } => self.agent_frame(link, frame),
            Input::LinkClosed { link } => self.link_closed(link),
            Input::Operator { request, call } => self.operator_call(request, call),
            Input::Persisted { ticket } => self.persisted(ticket),
            Input::Tick => {}
        }
        while let Some(timer) = self.timers.due(self.now.uptime) {
            self.timer(timer);
        }
        self.check_drains();
        self.make_offers();
        std::mem::take(&mut self.out)
    }

    /// When the next [`Input::Tick`] is due, on the clock [`Now::uptime`]; a time that has passed means at once.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.timers.next().into_iter().chain(self.allocator.next_deadline()).min()
    }

    /// The state between two steps.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            counters: Counters { allocation_runs: self.allocator.runs(), ..self.state.counters },
            ..self.state.clone()
        }
    }

    /// Whether anyone is subscribed to the operator API: only then is [`Output::Notify`] made.
    pub fn observe(&mut self, on: bool) {
        self.observed = on;
    }

    fn timer(&mut self, timer: Timer) {
        match timer {
            Timer::Heartbeat(stream) => self.beat(stream),
            Timer::FailoverEnds(framework) => self.failover_ends(&framework),
            Timer::Ping(agent, number) => self.ping(&agent, number),
            Timer::OfferEnds(offer) => {
                self.rescind_offer(offer);
                self.rescind_inverse_offer(offer);
            }
            Timer::Removal => self.next_removal(),
            Timer::InverseOffers => self.make_inverse_offers(),
            Timer::ReregistrationEnds => self.reregistration_ends(),
            Timer::RegistryGc => self.collect_registry_garbage(),
        }
    }

    // --- what every module needs

    fn framework(&self, id: &FrameworkId) -> Option<&Framework> {
        self.state.frameworks.get(id).map(|framework| &**framework)
    }

    fn framework_mut(&mut self, id: &FrameworkId) -> Option<&mut Framework> {
        self.state.frameworks.get_mut(id).map(Arc::make_mut)
    }

    fn agent(&self, id: &AgentId) -> Option<&Agent> {
        self.state.agents.get(id).map(|agent| &**agent)
    }

    fn agent_mut(&mut self, id: &AgentId) -> Option<&mut Agent> {
        self.state.agents.get_mut(id).map(Arc::make_mut)
    }

    /// Sends an event to a framework that listens; to one that does not, it is lost as in Mesos.
    fn send(&mut self, framework: &FrameworkId, event: Arc<Event>) {
        if let Some(stream) = self.framework(framework).and_then(Framework::stream) {
            self.out.push(Output::Event { stream, event });
        }
    }

    /// Sends a frame to an agent that has a link.
    fn frame(&mut self, agent: &AgentId, frame: coordinator_frame::Body) {
        if let Some(link) = self.agent(agent).and_then(|agent| agent.link) {
            self.out.push(Output::Frame { link, frame });
        }
    }

    fn reply(&mut self, request: RequestId, reply: Reply) {
        self.out.push(Output::Reply { request, reply });
    }

    fn refuse(&mut self, request: RequestId, status: u16, message: impl Into<String>) {
        self.reply(request, Reply::Refused { status, message: message.into() });
    }

    /// Tells operators, if there are any; the event is only made then.
    fn notify(&mut self, event: impl FnOnce(&Self) -> Option<master::Event>) {
        if self.observed
            && let Some(event) = event(self)
        {
            self.out.push(Output::Notify(Arc::new(event)));
        }
    }
}
