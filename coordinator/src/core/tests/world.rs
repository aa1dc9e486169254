//! What the tests of the core share: a core with a clock, and short words for what is said to it.

#![allow(clippy::unwrap_used, reason = "only compiled for tests")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tepui_api::link::agent_frame::Body as AgentFrame;
use tepui_api::link::coordinator_frame::Body as Frame;
use tepui_api::link::{Register, Registered, StatusUpdate};
use tepui_api::resources::Resources;
use tepui_api::v1::agent_info::capability::Type as AgentCapability;
use tepui_api::v1::framework_info::capability::Type as Capability;
use tepui_api::v1::offer::{Operation, operation};
use tepui_api::v1::scheduler::call::{self, Type};
use tepui_api::v1::scheduler::{Call, Event, event};
use tepui_api::v1::{
    AgentId, AgentInfo, CommandInfo, Filters, FrameworkId, FrameworkInfo, MasterInfo, Offer, OfferId, TaskId,
    TaskInfo, TaskState, TaskStatus, agent_info, framework_info,
};
use uuid::Uuid;

use super::super::*;

pub(crate) const MASTER: &str = "11111111-2222-3333-4444-555555555555";

/// A core, its clock, and what came out of it for each stream, link and request.
pub(crate) struct World {
    pub(crate) core: Core,
    pub(crate) now: Now,
    pub(crate) events: BTreeMap<StreamId, Vec<Arc<Event>>>,
    pub(crate) frames: BTreeMap<LinkId, Vec<Frame>>,
    pub(crate) closed_streams: Vec<StreamId>,
    pub(crate) closed_links: Vec<LinkId>,
    pub(crate) replies: Vec<Reply>,
    pub(crate) notices: Vec<Arc<master::Event>>,
    pub(crate) failures: Vec<String>,
    /// Registry changes that are held back, while `slow_registry`.
    pub(crate) persisting: Vec<(Ticket, RegistryChange)>,
    pub(crate) persisted: Vec<RegistryChange>,
    pub(crate) slow_registry: bool,
    /// Agents answer pings.
    pub(crate) pongs: bool,
    next: u64,
}

pub(crate) fn settings() -> Settings {
    Settings::new(MasterInfo { id: MASTER.into(), ip: 1, port: 5050, ..Default::default() })
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(settings(), Recovered::default())
    }

    pub(crate) fn with(settings: Settings, recovered: Recovered) -> Self {
        let now = Now { uptime: Duration::ZERO, wall: Duration::from_secs(1_700_000_000) };
        Self {
            core: Core::new(settings, recovered, now),
            now,
            events: BTreeMap::new(),
            frames: BTreeMap::new(),
            closed_streams: Vec::new(),
            closed_links: Vec::new(),
            replies: Vec::new(),
            notices: Vec::new(),
            failures: Vec::new(),
            persisting: Vec::new(),
            persisted: Vec::new(),
            slow_registry: false,
            pongs: true,
            next: 0,
        }
    }

    pub(crate) fn step(&mut self, input: Input) {
        let mut pongs = Vec::new();
        for output in self.core.step(self.now, input) {
            match output {
                Output::Frame { link, frame: Frame::Ping(number) } if self.pongs => {
                    pongs.push((link, number))
                }
                Output::Event { stream, event } => self.events.entry(stream).or_default().push(event),
                Output::CloseStream { stream } => self.closed_streams.push(stream),
                Output::Frame { link, frame } => self.frames.entry(link).or_default().push(frame),
                Output::CloseLink { link } => self.closed_links.push(link),
                Output::Reply { reply, .. } => self.replies.push(reply),
                Output::Persist { ticket, change } => self.persisting.push((ticket, change)),
                Output::Notify(event) => self.notices.push(event),
                Output::Fail(why) => self.failures.push(why),
            }
        }
        self.core.audit().unwrap();
        for (link, number) in pongs {
            self.step(Input::Agent { link, frame: AgentFrame::Pong(number) });
        }
        if !self.slow_registry {
            self.write_registry();
        }
    }

    pub(crate) fn write_registry(&mut self) {
        while !self.persisting.is_empty() {
            let (ticket, change) = self.persisting.remove(0);
            self.persisted.push(change);
            self.step(Input::Persisted { ticket });
        }
    }

    /// Lets time pass, waking the core whenever it asks for it.
    pub(crate) fn wait(&mut self, time: Duration) {
        let end = self.now.uptime + time;
        while let Some(deadline) = self.core.next_deadline().filter(|deadline| *deadline <= end) {
            let forward = deadline.saturating_sub(self.now.uptime);
            self.now.uptime += forward;
            self.now.wall += forward;
            self.step(Input::Tick);
        }
        self.now.wall += end - self.now.uptime;
        self.now.uptime = end;
        self.step(Input::Tick);
    }

    /// Lets offers come that something gave rise to.
    pub(crate) fn soon(&mut self) {
        self.wait(Duration::from_millis(5));
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    // --- frameworks

    pub(crate) fn subscribe(&mut self, info: FrameworkInfo) -> StreamId {
        let stream = StreamId(Uuid::from_u128(u128::from(self.number())));
        let call = Call {
            framework_id: info.id.clone(),
            r#type: Some(Type::Subscribe.into()),
            subscribe: Some(call::Subscribe { framework_info: info, ..Default::default() }),
            ..Default::default()
        };
        self.step(Input::Subscribe { request: RequestId(0), stream, call });
        stream
    }

    /// Subscribes, and answers the id it was given.
    pub(crate) fn framework(&mut self, info: FrameworkInfo) -> (StreamId, FrameworkId) {
        let stream = self.subscribe(info);
        let first = self.take(stream, event::Type::Subscribed);
        (stream, first[0].subscribed.clone().unwrap().framework_id)
    }

    pub(crate) fn call(&mut self, stream: StreamId, id: &FrameworkId, call: Call) -> Reply {
        let call = Call { framework_id: Some(id.clone()), ..call };
        let header = StreamHeader::Present(stream);
        self.step(Input::Scheduler { request: RequestId(0), stream: header, call });
        self.replies.pop().unwrap()
    }

    /// Takes out the events of a type that came on a stream.
    pub(crate) fn take(&mut self, stream: StreamId, r#type: event::Type) -> Vec<Arc<Event>> {
        let events = self.events.entry(stream).or_default();
        let (taken, left) = std::mem::take(events).into_iter().partition(|event| event.r#type() == r#type);
        *events = left;
        taken
    }

    pub(crate) fn offers(&mut self, stream: StreamId) -> Vec<Offer> {
        let events = self.take(stream, event::Type::Offers);
        events.iter().flat_map(|event| event.offers.clone().unwrap().offers).collect()
    }

    pub(crate) fn statuses(&mut self, stream: StreamId) -> Vec<TaskStatus> {
        let events = self.take(stream, event::Type::Update);
        events.iter().map(|event| event.update.clone().unwrap().status).collect()
    }

    pub(crate) fn errors(&mut self, stream: StreamId) -> Vec<String> {
        let events = self.take(stream, event::Type::Error);
        events.iter().map(|event| event.error.clone().unwrap().message).collect()
    }

    // --- agents

    /// A new agent, and its link.
    pub(crate) fn agent(&mut self, name: &str, resources: &str) -> (LinkId, AgentId) {
        let register = register(name, resources);
        let link = self.register(register);
        (link, self.registered(link).agent_id)
    }

    pub(crate) fn register(&mut self, register: Register) -> LinkId {
        let link = LinkId(self.number());
        self.step(Input::Agent { link, frame: AgentFrame::Register(register) });
        link
    }

    /// The answer to a registration.
    pub(crate) fn registered(&mut self, link: LinkId) -> Registered {
        let frames = self.frames.entry(link).or_default();
        let at = frames.iter().position(|frame| matches!(frame, Frame::Registered(_))).unwrap();
        match frames.remove(at) {
            Frame::Registered(registered) => registered,
            _ => unreachable!(),
        }
    }

    pub(crate) fn frames(&mut self, link: LinkId) -> Vec<Frame> {
        self.frames.remove(&link).unwrap_or_default()
    }

    /// An update from an agent; answers its uuid.
    pub(crate) fn update(&mut self, link: LinkId, id: &FrameworkId, task: &str, state: TaskState) -> Vec<u8> {
        self.update_late(link, id, task, state, state)
    }

    pub(crate) fn update_late(
        &mut self,
        link: LinkId,
        id: &FrameworkId,
        task: &str,
        state: TaskState,
        latest: TaskState,
    ) -> Vec<u8> {
        let uuid = u128::from(self.number()).to_be_bytes().to_vec();
        let status = TaskStatus {
            task_id: task.into(),
            state: state.into(),
            uuid: Some(uuid.clone()),
            data: Some(vec![1]),
            ..Default::default()
        };
        let update = StatusUpdate { framework_id: id.clone(), status, latest_state: latest.into() };
        self.step(Input::Agent { link, frame: AgentFrame::Update(update) });
        uuid
    }
}

pub(crate) fn info(change: impl FnOnce(&mut FrameworkInfo)) -> FrameworkInfo {
    let mut info = FrameworkInfo {
        user: "u".into(),
        name: "test".into(),
        checkpoint: Some(true),
        failover_timeout: Some(60.0),
        ..Default::default()
    };
    change(&mut info);
    info
}

pub(crate) fn with_capabilities(info: &mut FrameworkInfo, capabilities: &[Capability]) {
    let capability = |c: &Capability| framework_info::Capability { r#type: Some((*c).into()) };
    info.capabilities = capabilities.iter().map(capability).collect();
}

pub(crate) fn register(name: &str, resources: &str) -> Register {
    let capabilities = [
        AgentCapability::MultiRole,
        AgentCapability::HierarchicalRole,
        AgentCapability::ReservationRefinement,
    ];
    Register {
        agent: AgentInfo {
            hostname: name.into(),
            resources: Resources::parse(resources, "*").unwrap().to_wire(),
            ..Default::default()
        },
        version: "1.11.0".into(),
        capabilities: capabilities
            .iter()
            .map(|c| agent_info::Capability { r#type: Some((*c).into()) })
            .collect(),
        instance: format!("instance-of-{name}"),
        address: format!("10.0.0.{}:5051", name.len()),
        ..Default::default()
    }
}

pub(crate) fn task(id: &str, agent: &AgentId, resources: &str) -> TaskInfo {
    TaskInfo {
        name: id.into(),
        task_id: id.into(),
        agent_id: agent.clone(),
        resources: Resources::parse(resources, "*").unwrap().to_wire(),
        command: Some(CommandInfo { value: Some("true".into()), ..Default::default() }),
        ..Default::default()
    }
}

pub(crate) fn launch(tasks: Vec<TaskInfo>) -> Operation {
    Operation {
        r#type: Some(operation::Type::Launch.into()),
        launch: Some(operation::Launch { task_infos: tasks }),
        ..Default::default()
    }
}

pub(crate) fn accept(offers: &[&OfferId], operations: Vec<Operation>) -> Call {
    Call {
        r#type: Some(Type::Accept.into()),
        accept: Some(call::Accept {
            offer_ids: offers.iter().map(|id| (*id).clone()).collect(),
            operations,
            filters: None,
        }),
        ..Default::default()
    }
}

pub(crate) fn decline(offer: &OfferId, refuse_seconds: f64) -> Call {
    Call {
        r#type: Some(Type::Decline.into()),
        decline: Some(call::Decline {
            offer_ids: vec![offer.clone()],
            filters: Some(Filters { refuse_seconds: Some(refuse_seconds) }),
        }),
        ..Default::default()
    }
}

pub(crate) fn of_type(r#type: Type) -> Call {
    Call { r#type: Some(r#type.into()), ..Default::default() }
}

pub(crate) fn acknowledge(agent: &AgentId, task: &str, uuid: &[u8]) -> Call {
    Call {
        acknowledge: Some(call::Acknowledge {
            agent_id: agent.clone(),
            task_id: task.into(),
            uuid: uuid.to_vec(),
        }),
        ..of_type(Type::Acknowledge)
    }
}

pub(crate) fn kill(task: &str) -> Call {
    Call {
        kill: Some(call::Kill { task_id: TaskId::new(task), ..Default::default() }),
        ..of_type(Type::Kill)
    }
}

pub(crate) fn reconcile(tasks: &[(&str, Option<&AgentId>)]) -> Call {
    let one = |(task, agent): &(&str, Option<&AgentId>)| call::reconcile::Task {
        task_id: TaskId::new(*task),
        agent_id: agent.cloned(),
    };
    Call {
        reconcile: Some(call::Reconcile { tasks: tasks.iter().map(one).collect() }),
        ..of_type(Type::Reconcile)
    }
}
