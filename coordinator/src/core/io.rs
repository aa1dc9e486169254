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
use tepui_api::v1::maintenance::Schedule;
use tepui_api::v1::quota::QuotaConfig;
use tepui_api::v1::{
    AgentId, AgentInfo, DrainInfo, DurationInfo, FrameworkId, MachineId, MachineInfo, MasterInfo, TimeInfo,
    WeightInfo, master, master_info, scheduler,
};
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
    /// Declares that an agent is lost for good, with all that ran on it.
    MarkGone(AgentId),
    /// Ends all tasks of an agent, gently, and offers nothing of it.
    Drain {
        /// Which agent.
        agent: AgentId,
        /// No task gets more time than this to end.
        max_grace_period: Option<DurationInfo>,
        /// Once nothing is left of its tasks, it is marked gone.
        mark_gone: bool,
    },
    /// Offers nothing of an agent from now on.
    Deactivate(AgentId),
    /// Offers again what is free on an agent that was deactivated or drained.
    Reactivate(AgentId),
    /// Replaces the schedule of maintenance.
    UpdateSchedule(Schedule),
    /// Takes machines of the schedule down: their agents are removed and refused.
    StartMaintenance(Vec<MachineId>),
    /// Puts machines that are down back into service.
    StopMaintenance(Vec<MachineId>),
    /// Gives roles other weights.
    UpdateWeights(Vec<WeightInfo>),
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
    /// End the coordinator, with this sentence: going on would do harm that only a person can judge.
    Fail(String),
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
    /// An operator has declared that an agent, admitted or unreachable, is lost for good: it is neither any
    /// more, and whoever comes with its id is refused.
    Gone {
        /// The agent.
        agent: AgentId,
        /// Since when.
        at: TimeInfo,
    },
    /// Gone agents beyond the limits of age and number are forgotten.
    ForgetGone(Vec<AgentId>),
    /// Nothing of an agent, admitted or unreachable, is offered. It stays so, whether the agent is silent or
    /// comes back, until [`RegistryChange::Reactivate`], and ends with its entry: by [`RegistryChange::Remove`],
    /// [`RegistryChange::Gone`] or [`RegistryChange::Forget`].
    Deactivate {
        /// The agent.
        agent: AgentId,
        /// Why, when it is because it is being drained, or has been.
        drain: Option<DrainInfo>,
    },
    /// An agent takes tasks again.
    Reactivate(AgentId),
    /// Who is to go on from here must be able to do this, by the name that `MasterInfo.Capability.Type` has for it.
    NeedCapability(String),
    /// Nobody need be able to do this any more.
    DropCapability(String),
    /// The plan of maintenance changes.
    Maintenance {
        /// From what the registry has.
        before: Box<Maintenance>,
        /// To this.
        after: Box<Maintenance>,
    },
    /// These roles have these weights; those of others stay.
    Weights(Vec<(String, f64)>),
    /// These roles have these quotas; one without guarantees and limits is forgotten, those of others stay.
    Quotas(Vec<QuotaConfig>),
}

/// When which machines are to be down, and which are so.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Maintenance {
    /// As operators gave it.
    pub schedule: Schedule,
    /// The machines of the schedule that are `DRAINING` or `DOWN`, by id; all others are `UP`.
    pub machines: Vec<MachineInfo>,
}

/// What the registry held when the coordinator started.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recovered {
    /// Agents that are expected back.
    pub admitted: Vec<AgentInfo>,
    /// Agents that had fallen silent, and since when.
    pub unreachable: Vec<(AgentId, TimeInfo)>,
    /// Agents that were declared lost for good, and when.
    pub gone: Vec<(AgentId, TimeInfo)>,
    /// Admitted or unreachable agents of which nothing is offered, and the drain, if there is one.
    pub deactivated: Vec<(AgentId, Option<DrainInfo>)>,
    /// What a coordinator must be able to do to go on from here.
    pub minimum_capabilities: Vec<String>,
    /// Maintenance that is planned or under way.
    pub maintenance: Maintenance,
    /// Weights of roles.
    pub weights: Vec<(String, f64)>,
    /// Quotas of roles.
    pub quotas: Vec<QuotaConfig>,
}

// === impl Recovered ===

impl Recovered {
    /// What a coordinator of these capabilities lacks to go on from here; it must not start then.
    #[must_use]
    pub fn missing_capabilities(&self, capabilities: &[master_info::Capability]) -> Vec<&str> {
        let has = |name: &str| capabilities.iter().any(|has| has.r#type().as_str_name() == name);
        self.minimum_capabilities.iter().map(String::as_str).filter(|name| !has(name)).collect()
    }
}

/// At most so many agents become unreachable in so much time, evenly spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemovalRate {
    /// Between two of them.
    pub spacing: Duration,
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
    /// The share of known agents, from 0 to 1, that may fail to come back in that time. When more do, the
    /// coordinator ends rather than giving them up. 1 in Mesos.
    pub recovery_agent_removal_limit: f64,
    /// How fast silent agents may become unreachable; as fast as they fall silent, without.
    pub agent_removal_rate_limit: Option<RemovalRate>,
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
            recovery_agent_removal_limit: 1.0,
            agent_removal_rate_limit: None,
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
