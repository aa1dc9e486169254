//! What goes into the core and what comes out: the contract between it and the shell around it.
//!
//! The shell turns a request, a frame of an agent, a lost connection or the clock into one [`Input`],
//! calls [`Core::step`](super::Core::step) with it, and carries out the [`Output`]s in their order. The
//! core never waits: what it must know to be on disk it asks for with [`Output::Persist`] and goes on
//! when [`Input::Persisted`] comes back with the same ticket.

use std::sync::Arc;
use std::time::Duration;

use tepui_api::link::{agent_frame, coordinator_frame};
use tepui_api::resources::{ResourceQuantities, Scalar};
use tepui_api::v1::{AgentId, AgentInfo, FrameworkId, MasterInfo, TimeInfo, master, scheduler};
use uuid::Uuid;

/// The two clocks at one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Since any fixed point, never going back: timers run by it.
    pub uptime: Duration,
    /// Since 1970, for what people read: it may jump.
    pub wall: Duration,
}

/// One event stream of a scheduler; on the wire it is the `Mesos-Stream-Id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub Uuid);

/// One connection of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u64);

/// One request that waits for a [`Reply`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// One change of the registry that is being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What may happen to a coordinator.
#[derive(Debug, Clone)]
pub enum Input {
    /// A `SUBSCRIBE` call. The shell makes the stream's id and keeps what comes for it until the
    /// [`Reply`]: [`Reply::Subscribed`] opens it, whatever events follow; a refusal drops it.
    Subscribe {
        /// Who waits.
        request: RequestId,
        /// The stream that is to be opened.
        stream: StreamId,
        /// The whole call, with its type.
        call: scheduler::Call,
    },
    /// Any other call of a scheduler. Always answered with one [`Reply`].
    Scheduler {
        /// Who waits.
        request: RequestId,
        /// From the header `Mesos-Stream-Id`.
        stream: StreamHeader,
        /// The call.
        call: scheduler::Call,
    },
    /// A scheduler's connection ended, from whatever side.
    StreamClosed {
        /// Which.
        stream: StreamId,
    },
    /// A frame came over an agent's link.
    Agent {
        /// Which link.
        link: LinkId,
        /// The frame.
        frame: agent_frame::Body,
    },
    /// An agent's connection ended, from whatever side.
    LinkClosed {
        /// Which.
        link: LinkId,
    },
    /// An operator's call that changes something; reads are served from a [`Snapshot`](super::Snapshot).
    Operator {
        /// Who waits.
        request: RequestId,
        /// The call.
        call: OperatorCall,
    },
    /// A change is on disk and will be there after a crash. A store that cannot write ends the
    /// process, since nothing may be promised from then on.
    Persisted {
        /// As in [`Output::Persist`].
        ticket: Ticket,
    },
    /// Time has passed; due at [`Core::next_deadline`](super::Core::next_deadline), and harmless at any time.
    Tick,
}

/// What a call said of its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamHeader {
    /// No header.
    Absent,
    /// A header that is no UUID, so no stream of ours.
    Unknown,
    /// A header with this id.
    Present(StreamId),
}

/// The operator calls that change state.
#[derive(Debug, Clone, PartialEq)]
pub enum OperatorCall {
    /// Ends a framework and all it runs.
    Teardown(FrameworkId),
}

/// What the shell is to do.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "moved once, from the core into a queue")]
pub enum Output {
    /// Send an event to a scheduler.
    Event {
        /// On this stream.
        stream: StreamId,
        /// The event.
        event: Arc<scheduler::Event>,
    },
    /// End a scheduler's stream, once what was sent on it is out. No [`Input::StreamClosed`] is needed.
    CloseStream {
        /// Which.
        stream: StreamId,
    },
    /// Send a frame to an agent.
    Frame {
        /// Over this link.
        link: LinkId,
        /// The frame.
        frame: coordinator_frame::Body,
    },
    /// End an agent's link, once what was sent on it is out. No [`Input::LinkClosed`] is needed.
    CloseLink {
        /// Which.
        link: LinkId,
    },
    /// Answer a request.
    Reply {
        /// Which.
        request: RequestId,
        /// How.
        reply: Reply,
    },
    /// Write a change to the registry and answer with [`Input::Persisted`]. Changes are to be written
    /// in the order in which they come out; several may go into one transaction.
    Persist {
        /// To answer with.
        ticket: Ticket,
        /// The change.
        change: RegistryChange,
    },
    /// Tell the subscribers of the operator API. Only comes while
    /// [`Core::observe`](super::Core::observe) is on.
    Notify(Arc<master::Event>),
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// `202 Accepted` without a body.
    Accepted,
    /// `200 OK` without a body.
    Ok,
    /// `200 OK` and the event stream, with its `Mesos-Stream-Id`.
    Subscribed,
    /// `200 OK` with a message, for a call that is answered with one.
    Response(Box<ResponseBody>),
    /// A status and a sentence as plain text.
    Refused {
        /// HTTP status.
        status: u16,
        /// Why.
        message: String,
    },
}

/// A scheduler [`Response`](scheduler::Response), compared by value.
#[derive(Debug, Clone, PartialEq)]
pub struct ResponseBody(pub scheduler::Response);

impl Eq for ResponseBody {}

/// A change of what must survive the coordinator.
#[derive(Debug, Clone, PartialEq)]
pub enum RegistryChange {
    /// A new agent may join.
    Admit(AgentInfo),
    /// An admitted agent came back changed.
    Update(AgentInfo),
    /// An admitted agent is gone for good and forgotten.
    Remove(AgentId),
    /// An admitted agent has fallen silent.
    Unreachable {
        /// The agent.
        agent: AgentId,
        /// Since when.
        since: TimeInfo,
    },
    /// An unreachable agent, or one that the registry has forgotten, is back: it is admitted again.
    Reachable(AgentInfo),
    /// Unreachable agents beyond the limits of age and number are forgotten.
    Forget(Vec<AgentId>),
}

/// What the registry held when the coordinator started.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recovered {
    /// Agents that are expected back.
    pub admitted: Vec<AgentInfo>,
    /// Agents that had fallen silent, and since when.
    pub unreachable: Vec<(AgentId, TimeInfo)>,
}

/// What a coordinator is told when it starts.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How it shows itself. Its `id`, a UUID made anew by each process, begins the ids of all
    /// frameworks, agents and offers it makes.
    pub master: MasterInfo,
    /// What random choices come from.
    pub seed: u64,
    /// How long an agent may take to answer a ping. 15 s in Mesos.
    pub agent_ping_timeout: Duration,
    /// How many pings it may miss before it is unreachable. 5 in Mesos.
    pub max_agent_ping_timeouts: u32,
    /// How long after a start agents may take to come back before they are unreachable. 10 min in Mesos.
    pub agent_reregister_timeout: Duration,
    /// Between two rounds of offers to which no event gave rise. 1 s in Mesos.
    pub allocation_interval: Duration,
    /// From an event that gives rise to offers to those offers, so that many events make one round.
    pub allocation_delay: Duration,
    /// Offers that are not answered in this time are rescinded; never, without.
    pub offer_timeout: Option<Duration>,
    /// How many frameworks that ended are remembered. 50 in Mesos.
    pub max_completed_frameworks: usize,
    /// How many ended tasks of a framework are remembered. 1000 in Mesos.
    pub max_completed_tasks_per_framework: usize,
    /// How many unreachable tasks of a framework are remembered. 1000 in Mesos.
    pub max_unreachable_tasks_per_framework: usize,
    /// How many unreachable agents the registry keeps. 100 × 1024 in Mesos.
    pub registry_max_agent_count: usize,
    /// How long it keeps them. Two weeks in Mesos.
    pub registry_max_agent_age: Duration,
    /// Roles that frameworks may have; all, without.
    pub roles: Option<Vec<String>>,
    /// An offer holds all amounts of at least one of these; anything will do, without. In Mesos 0.01 CPUs
    /// or 32 MB of memory. A framework may say otherwise for its roles.
    pub min_allocatable_resources: Vec<ResourceQuantities>,
    /// Agents with GPUs are only offered to frameworks that know of GPUs. True in Mesos.
    pub filter_gpu_resources: bool,
    /// Weights of roles, 1 where none is set.
    pub weights: Vec<(String, f64)>,
}

impl Settings {
    /// Mesos' defaults.
    #[must_use]
    pub fn new(master: MasterInfo) -> Self {
        Self {
            master,
            seed: 0,
            agent_ping_timeout: Duration::from_secs(15),
            max_agent_ping_timeouts: 5,
            agent_reregister_timeout: Duration::from_mins(10),
            allocation_interval: Duration::from_secs(1),
            allocation_delay: Duration::from_millis(1),
            offer_timeout: None,
            max_completed_frameworks: 50,
            max_completed_tasks_per_framework: 1000,
            max_unreachable_tasks_per_framework: 1000,
            registry_max_agent_count: 100 * 1024,
            registry_max_agent_age: Duration::from_hours(14 * 24),
            roles: None,
            min_allocatable_resources: vec![
                ResourceQuantities::from_iter([("cpus", Scalar::from_thousandths(10))]),
                ResourceQuantities::from_iter([("mem", Scalar::from_units(32))]),
            ],
            filter_gpu_resources: true,
            weights: Vec::new(),
        }
    }
}
