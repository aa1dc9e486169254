//! Random lives under random faults, from a seed: links that break, agents that are killed between any two steps with the last
//! writes lost, acknowledgements that come twice or late, containers that end, and checks that fail, whenever they like.
//!
//! What must hold at each step: no update is sent before it is on disk, nor after its acknowledgement is; a task is told of
//! each state at most once, but for what its checks find, of which it is told only when it is news; nothing runs that is not on record. And in the end, when the faults stop: each task that the
//! framework launched has a terminal update that it acknowledged, and nothing is left on the agent or its disk.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;
use crate::checks::check::Outcome;
use tepui_api::v1::executor::call::{Subscribe, Type, Update};
use tepui_api::v1::executor::{self, event};
use tepui_api::v1::{DrainConfig, check_info, health_check};

const SEEDS: u64 = 300;
const STEPS: usize = 330;

/// A container as it really is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Truth {
    Prepared,
    Running,
    Exited(i32),
}

/// A framework's own executor as it really is. Tasks are of two kinds: those that it has told to run, and those that it has not.
#[derive(Debug)]
struct Puppet {
    executor: String,
    stream: Option<StreamId>,
    tasks: BTreeMap<String, bool>,
    /// Told, and not acknowledged.
    unheard: Vec<TaskStatus>,
    /// It was asked to end.
    asked: bool,
}

struct Fate {
    rng: StdRng,
    core: Core,
    now: Now,
    /// Given to the store, not yet on disk.
    unstored: Vec<(Ticket, Vec<Write>)>,
    disk: StoredState,
    /// Commands under way.
    commands: Vec<(ContainerId, ContainerCommand)>,
    containers: HashMap<ContainerId, Truth>,
    destroyed: HashSet<ContainerId>,
    registered: bool,
    /// Sent and not acknowledged, as far as the framework remembers.
    inbox: Vec<TaskStatus>,
    launched: BTreeSet<String>,
    /// Tasks whose terminal update the framework acknowledged.
    over: BTreeSet<String>,
    /// The one update of each state of each task.
    seen: BTreeMap<(String, i32), Vec<u8>>,
    /// The last update of each task that tells of its checks.
    told: BTreeMap<String, TaskStatus>,
    /// How many of them there were.
    findings: u64,
    /// Acknowledged, and the disk had nothing left to write after that.
    settled: HashSet<Vec<u8>>,
    acknowledged: HashSet<Vec<u8>>,
    /// Containers that were ever started.
    started: HashSet<ContainerId>,
    restarts: u64,
    /// The executors whose containers run or will.
    puppets: BTreeMap<String, Puppet>,
    /// How often an executor subscribed, and how often it told something.
    streams: u64,
    reports: u64,
}

impl Fate {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let core = Core::new(test_config(), rng.random());
        Self {
            rng,
            core,
            now: Now { monotonic: SECOND, unix: 1000 * SECOND },
            unstored: Vec::new(),
            disk: StoredState::default(),
            commands: Vec::new(),
            containers: HashMap::new(),
            destroyed: HashSet::new(),
            registered: false,
            inbox: Vec::new(),
            launched: BTreeSet::new(),
            over: BTreeSet::new(),
            seen: BTreeMap::new(),
            told: BTreeMap::new(),
            findings: 0,
            settled: HashSet::new(),
            acknowledged: HashSet::new(),
            started: HashSet::new(),
            restarts: 0,
            puppets: BTreeMap::new(),
            streams: 0,
            reports: 0,
        }
    }

    fn step(&mut self, input: Input) {
        let mut out = Vec::new();
        self.core.step(self.now, input, &mut out);
        self.take(out);
    }

    fn frame(&mut self, body: Body) {
        self.step(Input::Frame(Box::new(body)));
    }

    fn take(&mut self, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Store(ticket, writes) => self.unstored.push((ticket, writes)),
                Output::Container(id, command) => self.commands.push((id, command)),
                Output::Send(body) => match *body {
                    agent_frame::Body::Register(register) => self.register(&register),
                    agent_frame::Body::Update(update) => self.update(update.status),
                    _ => {}
                },
                Output::Answer(..) => {}
                Output::Event(stream, event) => self.event(stream, *event),
                Output::CloseEvents(stream) => {
                    let puppet = self.puppets.values_mut().find(|puppet| puppet.stream == Some(stream));
                    puppet.into_iter().for_each(|puppet| puppet.stream = None);
                }
                Output::Reconnect => self.registered = false,
                Output::End(end) => panic!("nobody asked for an end: {end:?}"),
            }
        }
    }

    /// The coordinator takes the agent in, and names the tasks that it misses.
    fn register(&mut self, register: &tepui_api::link::Register) {
        let known: BTreeSet<&str> = register.tasks.iter().map(|task| task.task_id.as_str()).collect();
        let missing =
            self.launched.iter().filter(|id| !self.over.contains(*id) && !known.contains(id.as_str()));
        let unknown_tasks =
            missing.map(|id| KnownTask { framework_id: "F".into(), task_id: id.as_str().into() }).collect();
        self.registered = true;
        self.inbox.clear();
        self.frame(Body::Registered(Registered {
            agent_id: "A".into(),
            ping_timeout_seconds: 1e6,
            unknown_tasks,
        }));
    }

    fn update(&mut self, status: TaskStatus) {
        let task = status.task_id.value.clone();
        let uuid = status.uuid.clone().unwrap();
        assert!(
            self.on_disk(&task, &uuid),
            "sent before it was on disk, or after its acknowledgement was: {status:?}"
        );
        assert!(!self.settled.contains(&uuid), "repeated after its acknowledgement: {status:?}");
        if status.reason == Some(Reason::ExecutorTerminated as i32) && !is_delegated(&task) {
            let is = |t: &&StoredTask| t.record.key.task == status.task_id;
            let ran =
                self.disk.tasks.iter().find(is).is_some_and(|t| self.started.contains(&t.record.container));
            assert!(!ran, "how it ended was known and is forgotten: {status:?}");
        }
        if matches!(status.reason(), Reason::TaskCheckStatusUpdated | Reason::TaskHealthCheckStatusUpdated) {
            self.finding(&status);
            self.inbox.push(status);
            return;
        }
        let first = self.seen.entry((task, status.state)).or_insert_with(|| uuid.clone());
        assert_eq!(*first, uuid, "told twice of one state: {status:?}");
        self.inbox.push(status);
    }

    /// What a check found, which is told once, and only when it is news.
    fn finding(&mut self, status: &TaskStatus) {
        let last = self.told.insert(status.task_id.value.clone(), status.clone());
        if last.as_ref().is_some_and(|last| last.uuid == status.uuid) {
            return;
        }
        self.findings += 1;
        assert_eq!(status.state(), TaskState::TaskRunning);
        let (last_status, last_healthy) = last.map_or((None, None), |last| (last.check_status, last.healthy));
        if status.reason() == Reason::TaskCheckStatusUpdated {
            assert_ne!(status.check_status, last_status, "no news: {status:?}");
            assert_eq!(status.healthy, last_healthy, "what was known of its health is kept: {status:?}");
        } else {
            assert!(!(status.healthy() && last_healthy == Some(true)), "no news: {status:?}");
        }
    }

    /// Whether an update is stored and its acknowledgement is not.
    fn on_disk(&self, task: &str, uuid: &[u8]) -> bool {
        let is = |update: &StoredUpdate| update.status.uuid.as_deref() == Some(uuid) && !update.acknowledged;
        let of_tasks =
            self.disk.tasks.iter().filter(|t| t.record.key.task.value == task).flat_map(|t| &t.updates);
        let orphans = self.disk.orphans.iter().filter(|(key, _)| key.task.value == task).flat_map(|(_, u)| u);
        of_tasks.chain(orphans).any(is)
    }

    /// The disk takes some of what it was given.
    fn store(&mut self, groups: usize) {
        let groups = groups.min(self.unstored.len());
        let mut last = None;
        for (ticket, writes) in self.unstored.drain(..groups) {
            for write in writes {
                apply(&mut self.disk, write);
            }
            last = Some(ticket);
        }
        if self.unstored.is_empty() {
            self.settled.extend(self.acknowledged.drain());
        }
        if let Some(ticket) = last {
            self.step(Input::Stored(ticket));
        }
    }

    /// One command under way is carried out.
    fn carry_out(&mut self, at: usize) {
        let (id, command) = self.commands.remove(at);
        if let Some(event) = self.effect(&id, &command) {
            self.step(Input::Container(id, event));
        }
    }

    /// An executor is told something.
    fn event(&mut self, stream: StreamId, event: executor::Event) {
        let puppet = self.puppets.values_mut().find(|puppet| puppet.stream == Some(stream));
        // Whoever is told after it has ended does not hear it.
        let Some(puppet) = puppet else { return };
        match event.r#type() {
            event::Type::Launch => {
                let id = event.launch.unwrap().task.task_id.value;
                assert!(
                    self.disk.tasks.iter().any(|task| task.record.key.task.value == id),
                    "given before it is on disk"
                );
                assert!(puppet.tasks.insert(id.clone(), false).is_none(), "given twice: {id}");
            }
            event::Type::Acknowledged => {
                let acknowledged = event.acknowledged.unwrap();
                puppet.unheard.retain(|status| status.uuid.as_ref() != Some(&acknowledged.uuid));
                let task = acknowledged.task_id.value;
                let on_disk = |t: &StoredTask| {
                    t.updates.iter().any(|update| update.status.uuid.as_ref() == Some(&acknowledged.uuid))
                };
                let known = self.disk.tasks.iter().find(|t| t.record.key.task.value == task);
                let over =
                    known.is_some_and(|t| t.updates.iter().any(|update| is_terminal(update.status.state())));
                // One that was over before it told that is not heard any more.
                assert!(known.is_none_or(on_disk) || over, "acknowledged before it is on disk");
            }
            event::Type::Shutdown => puppet.asked = true,
            _ => {}
        }
    }

    /// An executor does something.
    fn puppet_acts(&mut self) {
        let running: Vec<String> = self.puppets.keys().cloned().collect();
        let running: Vec<&String> = running
            .iter()
            .filter(|id| self.containers.get(&ContainerId::new((*id).clone())) == Some(&Truth::Running))
            .collect();
        if running.is_empty() {
            return;
        }
        let container = running[self.rng.random_range(0..running.len())].clone();
        let request = StreamId(self.streams * 1000 + self.reports);
        let what = self.rng.random_range(0..10);
        let Some(puppet) = self.puppets.get_mut(&container) else { return };
        let call = executor::Call {
            executor_id: puppet.executor.as_str().into(),
            framework_id: "F".into(),
            ..executor::Call::default()
        };
        let Some(stream) = puppet.stream else {
            self.streams += 1;
            let request = StreamId(1_000_000 + self.streams);
            puppet.stream = Some(request);
            let again = |status: &TaskStatus| Update { status: status.clone() };
            let subscribe = Subscribe {
                unacknowledged_tasks: puppet.tasks.keys().map(|id| delegated(id, &puppet.executor)).collect(),
                unacknowledged_updates: puppet.unheard.iter().map(again).collect(),
            };
            let call =
                executor::Call { r#type: Some(Type::Subscribe as i32), subscribe: Some(subscribe), ..call };
            return self.step(Input::Executor(request, Box::new(call)));
        };
        if what == 0 {
            puppet.stream = None;
            return self.step(Input::ExecutorGone(stream));
        }
        if puppet.asked && what < 5 {
            let id = ContainerId::new(container);
            if let Some(event) = self.end(&id, 0) {
                self.step(Input::Container(id, event));
            }
            return;
        }
        let status = if what < 3 && !puppet.unheard.is_empty() {
            puppet.unheard[0].clone()
        } else {
            let Some((id, running)) = puppet.tasks.iter().next().map(|(id, told)| (id.clone(), *told)) else {
                return;
            };
            let state = if running { TaskState::TaskFinished } else { TaskState::TaskRunning };
            if running {
                puppet.tasks.remove(&id)
            } else {
                puppet.tasks.insert(id.clone(), true)
            };
            self.reports += 1;
            let mut uuid = vec![0; 8];
            uuid.extend(self.reports.to_be_bytes());
            let status = TaskStatus {
                task_id: id.as_str().into(),
                state: state as i32,
                uuid: Some(uuid),
                source: Some(Source::Executor as i32),
                ..TaskStatus::default()
            };
            puppet.unheard.push(status.clone());
            status
        };
        let call =
            executor::Call { r#type: Some(Type::Update as i32), update: Some(Update { status }), ..call };
        self.step(Input::Executor(request, Box::new(call)));
    }

    fn effect(&mut self, id: &ContainerId, command: &ContainerCommand) -> Option<ContainerEvent> {
        let failed =
            || Some(ContainerEvent::Failed { reason: Reason::ContainerLaunchFailed, message: "no".into() });
        match command {
            ContainerCommand::Prepare(_) if self.destroyed.contains(id) || self.rng.random_ratio(1, 10) => {
                failed()
            }
            ContainerCommand::Prepare(launch) => {
                if let Workload::Executor(key, _) = &launch.workload {
                    let puppet = Puppet {
                        executor: key.executor.value.clone(),
                        stream: None,
                        tasks: BTreeMap::new(),
                        unheard: Vec::new(),
                        asked: false,
                    };
                    self.puppets.insert(id.value.clone(), puppet);
                }
                self.containers.insert(id.clone(), Truth::Prepared);
                Some(ContainerEvent::Prepared { networks: vec![] })
            }
            ContainerCommand::Update(..) if self.rng.random_ratio(1, 20) => {
                Some(ContainerEvent::NotUpdated("no".into()))
            }
            ContainerCommand::Update(..) => Some(ContainerEvent::Updated),
            ContainerCommand::Start if self.rng.random_ratio(1, 20) => failed(),
            ContainerCommand::Start => {
                assert!(
                    self.disk.tasks.iter().any(|task| task.record.container == *id)
                        || self.disk.executors.iter().any(|executor| executor.container == *id),
                    "a container is started that is not on record"
                );
                let truth = self.containers.get_mut(id)?;
                *truth = Truth::Running;
                self.started.insert(id.clone());
                Some(ContainerEvent::Started { pid: 1, networks: vec![] })
            }
            ContainerCommand::Signal(15) if self.rng.random_bool(0.5) => None,
            ContainerCommand::Signal(number) => self.end(id, *number),
            ContainerCommand::Probe(probe) => {
                let outcome = match self.rng.random_range(0..4) {
                    _ if self.containers.get(id) != Some(&Truth::Running) => Outcome::Failed("gone".into()),
                    0 => Outcome::Failed("slow".into()),
                    1 => Outcome::Connected(false),
                    _ => Outcome::Connected(true),
                };
                Some(ContainerEvent::Probed(probe.kind, outcome))
            }
            ContainerCommand::Destroy => {
                self.containers.remove(id);
                self.destroyed.insert(id.clone());
                Some(ContainerEvent::Destroyed)
            }
        }
    }

    fn end(&mut self, id: &ContainerId, status: i32) -> Option<ContainerEvent> {
        let truth = self.containers.get_mut(id).filter(|truth| **truth == Truth::Running)?;
        *truth = Truth::Exited(status);
        self.puppets.remove(&id.value);
        Some(ContainerEvent::Exited { status: Some(status), limitation: None })
    }

    /// The agent is killed: what was not on disk is lost, commands under way are done or not; another agent begins.
    fn restart(&mut self) {
        let some = self.rng.random_range(0..=self.unstored.len());
        for (_, writes) in self.unstored.drain(..some) {
            for write in writes {
                apply(&mut self.disk, write);
            }
        }
        self.unstored.clear();
        self.acknowledged.clear();
        for (id, command) in std::mem::take(&mut self.commands) {
            let prepared = self.containers.get(&id) == Some(&Truth::Prepared);
            if prepared && matches!(command, ContainerCommand::Start) && self.rng.random_bool(0.5) {
                self.effect(&id, &command);
            }
        }
        let mut found = HashMap::new();
        let known: HashSet<ContainerId> = self.disk.launches().map(|(id, _)| id).collect();
        self.containers.retain(|id, _| known.contains(id));
        for (id, truth) in &self.containers {
            let state = match truth {
                Truth::Prepared => Found::Nothing,
                Truth::Running => Found::Running { pid: 1, networks: vec![] },
                Truth::Exited(status) => Found::Exited { status: Some(*status), limitation: None },
            };
            found.insert(id.clone(), state);
        }
        self.restarts += 1;
        for puppet in self.puppets.values_mut() {
            puppet.stream = None;
        }
        self.registered = false;
        self.inbox.clear();
        self.core = Core::new(test_config(), self.rng.random());
        let mut out = Vec::new();
        self.core.recover(self.now, self.disk.clone(), &found, &mut out);
        self.take(out);
    }

    fn acknowledge(&mut self, at: usize, keep: bool) {
        let status = if keep { self.inbox[at].clone() } else { self.inbox.remove(at) };
        if is_terminal(status.state()) {
            self.over.insert(status.task_id.value.clone());
        }
        let uuid = status.uuid.unwrap();
        self.frame(Body::Acknowledge(Acknowledge {
            framework_id: "F".into(),
            task_id: status.task_id,
            uuid: uuid.clone(),
        }));
        self.acknowledged.insert(uuid);
    }

    /// A task with a check, a health check, both or none.
    fn some_checks(&mut self, task: TaskInfo) -> TaskInfo {
        let check = CheckInfo {
            r#type: Some(check_info::Type::Tcp as i32),
            tcp: Some(check_info::Tcp { port: 1 }),
            delay_seconds: Some(1.0),
            interval_seconds: Some(2.0),
            ..CheckInfo::default()
        };
        let health_check = HealthCheck {
            r#type: Some(health_check::Type::Tcp as i32),
            tcp: Some(health_check::TcpCheckInfo { port: 1, protocol: None }),
            delay_seconds: Some(1.0),
            interval_seconds: Some(2.0),
            grace_period_seconds: Some(f64::from(self.rng.random_range(0..3))),
            ..HealthCheck::default()
        };
        TaskInfo {
            check: self.rng.random_bool(0.5).then_some(check),
            health_check: self.rng.random_bool(0.5).then_some(health_check),
            ..task
        }
    }

    fn something_happens(&mut self) {
        if !self.puppets.is_empty() && self.rng.random_ratio(1, 5) {
            for _ in 0..self.rng.random_range(1..5) {
                self.puppet_acts();
            }
            return;
        }
        match self.rng.random_range(0..100) {
            0..15 if self.registered => {
                let id = format!("t{}", self.launched.len());
                self.launched.insert(id.clone());
                let capabilities = &[capability::Type::TaskKillingState];
                let task = if is_delegated(&id) {
                    let executor = format!("e{}", self.rng.random_range(0..2));
                    delegated(&id, &executor)
                } else {
                    self.some_checks(task(&id))
                };
                self.frame(Body::RunTask(RunTask {
                    framework: framework(capabilities),
                    task,
                    launch_executor: None,
                }));
            }
            15 if self.registered => self.frame(Body::Drain(DrainConfig::default())),
            16..22 if self.registered => {
                let alive: Vec<String> = self.launched.difference(&self.over).cloned().collect();
                if !alive.is_empty() {
                    let task_id = alive[self.rng.random_range(0..alive.len())].as_str();
                    // Only of tasks that are here: another's would be answered as unknown.
                    if self.core.frameworks.task(&TaskKey::new("F", task_id)).is_some() {
                        self.frame(Body::KillTask(KillTask {
                            framework_id: "F".into(),
                            task_id: task_id.into(),
                            kill_policy: None,
                        }));
                    }
                }
            }
            22..45 if !self.commands.is_empty() => {
                let at = self.rng.random_range(0..self.commands.len());
                self.carry_out(at);
            }
            45..65 if !self.unstored.is_empty() => {
                let groups = self.rng.random_range(1..=self.unstored.len());
                self.store(groups);
            }
            65..80 if self.registered && !self.inbox.is_empty() => {
                let (at, twice) = (self.rng.random_range(0..self.inbox.len()), self.rng.random_bool(0.2));
                self.acknowledge(at, twice);
            }
            80..86 => {
                let running: Vec<ContainerId> = self.containers.keys().cloned().collect();
                for id in running {
                    if self.rng.random_ratio(1, 3)
                        && let Some(event) = self.end(&id, 0)
                    {
                        self.step(Input::Container(id, event));
                    }
                }
            }
            86..92 => {
                let seconds = self.rng.random_range(0..20);
                self.now.monotonic += seconds * SECOND;
                self.step(Input::Tick);
            }
            92..94 if self.registered => {
                self.registered = false;
                self.inbox.clear();
                self.step(Input::LinkClosed);
            }
            94..98 if !self.registered => self.step(Input::LinkOpened),
            98..100 => self.restart(),
            _ => {}
        }
    }

    /// No more faults: all that was begun comes to its end.
    fn settle(&mut self) {
        for _ in 0..2000 {
            if !self.registered {
                self.step(Input::LinkOpened);
            }
            self.store(usize::MAX);
            while !self.commands.is_empty() {
                self.carry_out(0);
                self.store(usize::MAX);
            }
            let all: Vec<ContainerId> = self.containers.keys().cloned().collect();
            for id in all {
                if let Some(event) = self.end(&id, 0) {
                    self.step(Input::Container(id, event));
                }
            }
            while !self.inbox.is_empty() {
                self.acknowledge(0, false);
                self.store(usize::MAX);
            }
            self.now.monotonic += 30 * SECOND;
            self.step(Input::Tick);
            if self.over == self.launched && self.unstored.is_empty() && self.commands.is_empty() {
                return;
            }
        }
        let left: Vec<_> = self.launched.difference(&self.over).collect();
        panic!("tasks without an end: {left:?}");
    }
}

/// Every third task is for an executor of its framework's own.
fn is_delegated(task: &str) -> bool {
    task[1..].parse::<u64>().is_ok_and(|number| number % 3 == 0)
}

fn delegated(task: &str, executor: &str) -> TaskInfo {
    let executor = ExecutorInfo {
        executor_id: executor.into(),
        command: Some(CommandInfo { value: Some("run".into()), ..CommandInfo::default() }),
        ..ExecutorInfo::default()
    };
    TaskInfo { command: None, executor: Some(executor), ..super::task(task) }
}

#[test]
fn every_task_ends_acknowledged_whatever_happens() {
    let (mut restarts, mut findings, mut reports) = (0, 0, 0);
    for seed in 0..SEEDS {
        let mut fate = Fate::new(seed);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            fate.step(Input::LinkOpened);
            for _ in 0..STEPS {
                fate.something_happens();
            }
            fate.settle();
        }));
        if let Err(panic) = outcome {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
        restarts += fate.restarts;
        findings += fate.findings;
        reports += fate.reports;
        assert_eq!(fate.containers, HashMap::new(), "seed {seed}: containers are left");
        let state = StoredState { agent: fate.disk.agent.clone(), ..StoredState::default() };
        assert_eq!(fate.disk, state, "seed {seed}: something is left on disk");
        assert!(fate.core.snapshot().frameworks.active.is_empty(), "seed {seed}");
        assert!(fate.core.containers.is_empty() && fate.core.waiting.is_empty(), "seed {seed}");
        assert!(fate.core.checks.is_empty(), "seed {seed}");
    }
    assert!(restarts > SEEDS, "too few restarts to prove anything: {restarts}");
    assert!(reports > SEEDS, "executors told too little to prove anything: {reports}");
    assert!(findings > SEEDS, "too few findings of checks to prove anything: {findings}");
}
