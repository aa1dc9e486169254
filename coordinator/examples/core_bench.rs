//! Measures what a task costs the core: `cargo run --release -p tepui-coordinator --example core_bench`.
//!
//! One framework launches tasks on many agents, 10 an offer; each runs, finishes, and has both updates
//! acknowledged. A row with a reader takes a snapshot every 100 steps and keeps it for as long, so that the core
//! has to copy what it changes.

#![allow(clippy::expect_used, clippy::panic, reason = "a benchmark that cannot go on says so and ends")]

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use tepui_api::link::coordinator_frame::Body as Frame;
use tepui_api::link::{Register, StatusUpdate, agent_frame};
use tepui_api::resources::Resources;
use tepui_api::v1::offer::{Operation, operation};
use tepui_api::v1::scheduler::call::{self, Type};
use tepui_api::v1::scheduler::{Call, event};
use tepui_api::v1::{
    AgentInfo, CommandInfo, FrameworkId, FrameworkInfo, MasterInfo, Offer, TaskInfo, TaskState, TaskStatus,
};
use tepui_coordinator::core::{
    Core, Input, LinkId, Now, Output, Recovered, RequestId, Settings, Snapshot, StreamHeader, StreamId,
};
use uuid::Uuid;

const AGENTS: u64 = 1_000;
const PER_OFFER: usize = 10;

struct Bench {
    core: Core,
    now: Duration,
    inbox: VecDeque<Input>,
    id: FrameworkId,
    launched: usize,
    wanted: usize,
    finished: usize,
    steps: usize,
    spent: Duration,
    reader: Option<Snapshot>,
    reads: bool,
    links: BTreeMap<String, LinkId>,
}

const STREAM: StreamId = StreamId(Uuid::from_u128(1));

fn main() {
    for reads in [false, true] {
        let mut bench = Bench::new(100_000, reads);
        bench.run();
        let per_task = bench.spent.as_secs_f64() * 1e6 / bench.finished as f64;
        println!(
            "{} tasks on {AGENTS} agents{}: {per_task:.1} µs a task, {:.0} tasks/s on one core, {} steps",
            bench.finished,
            if reads { ", read all the time" } else { "" },
            1e6 / per_task,
            bench.steps
        );
    }
}

impl Bench {
    fn new(wanted: usize, reads: bool) -> Self {
        let master = MasterInfo { id: "bench".into(), ..Default::default() };
        let now = Now { uptime: Duration::ZERO, wall: Duration::ZERO };
        Self {
            core: Core::new(Settings::new(master), Recovered::default(), now),
            now: Duration::ZERO,
            inbox: VecDeque::new(),
            id: FrameworkId::default(),
            launched: 0,
            wanted,
            finished: 0,
            steps: 0,
            spent: Duration::ZERO,
            reader: None,
            reads,
            links: BTreeMap::new(),
        }
    }

    fn run(&mut self) {
        let info = FrameworkInfo { user: "u".into(), name: "bench".into(), ..Default::default() };
        let subscribe = call::Subscribe { framework_info: info, ..Default::default() };
        let call =
            Call { r#type: Some(Type::Subscribe.into()), subscribe: Some(subscribe), ..Default::default() };
        self.inbox.push_back(Input::Subscribe { request: RequestId(0), stream: STREAM, call });
        let total =
            Resources::parse("cpus:32;mem:65536;ports:[31000-32000]", "*").expect("resources").to_wire();
        for n in 0..AGENTS {
            let register = Register {
                agent: AgentInfo {
                    hostname: format!("host-{n}"),
                    resources: total.clone(),
                    ..Default::default()
                },
                version: "1".into(),
                instance: n.to_string(),
                address: format!("10.0.{}.{}:5051", n / 256, n % 256),
                ..Default::default()
            };
            let frame = agent_frame::Body::Register(register);
            self.inbox.push_back(Input::Agent { link: LinkId(n), frame });
        }
        while self.finished < self.wanted {
            let input = self.inbox.pop_front().unwrap_or(Input::Tick);
            if matches!(input, Input::Tick) {
                self.now = self.core.next_deadline().expect("something is to come").max(self.now);
            }
            self.step(input);
        }
    }

    fn step(&mut self, input: Input) {
        self.steps += 1;
        if self.reads && self.steps.is_multiple_of(100) {
            self.reader = Some(self.core.snapshot());
        }
        let now = Now { uptime: self.now, wall: self.now };
        let begin = Instant::now();
        let outputs = self.core.step(now, input);
        self.spent += begin.elapsed();
        for output in outputs {
            match output {
                Output::Persist { ticket, .. } => self.inbox.push_back(Input::Persisted { ticket }),
                Output::Frame { link, frame } => self.agent(link, frame),
                Output::Event { event, .. } => self.scheduler(&event),
                _ => {}
            }
        }
    }

    fn agent(&mut self, link: LinkId, frame: Frame) {
        match frame {
            Frame::Registered(registered) => _ = self.links.insert(registered.agent_id.value, link),
            Frame::Ping(number) => {
                self.inbox.push_back(Input::Agent { link, frame: agent_frame::Body::Pong(number) });
            }
            Frame::RunTask(run) => {
                for state in [TaskState::TaskRunning, TaskState::TaskFinished] {
                    let status = TaskStatus {
                        task_id: run.task.task_id.clone(),
                        state: state.into(),
                        uuid: Some(vec![1; 16]),
                        ..Default::default()
                    };
                    let update =
                        StatusUpdate { framework_id: self.id.clone(), status, latest_state: state.into() };
                    self.inbox.push_back(Input::Agent { link, frame: agent_frame::Body::Update(update) });
                }
            }
            _ => {}
        }
    }

    fn scheduler(&mut self, event: &tepui_api::v1::scheduler::Event) {
        match event.r#type() {
            event::Type::Subscribed => {
                self.id = event.subscribed.clone().expect("it is there").framework_id;
            }
            event::Type::Offers => {
                for offer in event.offers.iter().flat_map(|offers| &offers.offers) {
                    self.accept(offer);
                }
            }
            event::Type::Update => {
                let status = event.update.clone().expect("it is there").status;
                if status.state() == TaskState::TaskFinished {
                    self.finished += 1;
                }
                let acknowledge = call::Acknowledge {
                    agent_id: status.agent_id.expect("an agent"),
                    task_id: status.task_id,
                    uuid: status.uuid.expect("from an agent"),
                };
                self.call(Call {
                    r#type: Some(Type::Acknowledge.into()),
                    acknowledge: Some(acknowledge),
                    ..Default::default()
                });
            }
            _ => {}
        }
    }

    fn accept(&mut self, offer: &Offer) {
        let count = PER_OFFER.min(self.wanted - self.launched);
        let resources = Resources::parse("cpus:0.1;mem:32", "*").expect("resources").to_wire();
        let tasks = (0..count).map(|n| TaskInfo {
            name: "task".into(),
            task_id: format!("task-{}", self.launched + n).into_boxed_str().as_ref().into(),
            agent_id: offer.agent_id.clone(),
            resources: resources.clone(),
            command: Some(CommandInfo { value: Some("true".into()), ..Default::default() }),
            ..Default::default()
        });
        let launch = Operation {
            r#type: Some(operation::Type::Launch.into()),
            launch: Some(operation::Launch { task_infos: tasks.collect() }),
            ..Default::default()
        };
        self.launched += count;
        let accept =
            call::Accept { offer_ids: vec![offer.id.clone()], operations: vec![launch], filters: None };
        self.call(Call { r#type: Some(Type::Accept.into()), accept: Some(accept), ..Default::default() });
    }

    fn call(&mut self, call: Call) {
        let call = Call { framework_id: Some(self.id.clone()), ..call };
        let header = StreamHeader::Present(STREAM);
        self.inbox.push_back(Input::Scheduler { request: RequestId(0), stream: header, call });
    }
}
