//! A model of an agent: its tasks run for random times, their updates are kept until acknowledged, and
//! what it has on disk outlives its process.

mod tasks;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tepui_api::link::agent_frame::Body as Frame;
use tepui_api::link::coordinator_frame::Body as Order;
use tepui_api::link::{Register, Registered, RunTask, Unregister};
use tepui_api::resources::Resources;
use tepui_api::v1::agent_info::Capability;
use tepui_api::v1::task_status::Reason;
use tepui_api::v1::{
    self, AgentId, AgentInfo, ExecutorId, ExecutorInfo, FrameworkId, FrameworkInfo, MachineId, TaskState,
};

use super::updates::Updates;
use super::{Key, earliest, is_terminal};
use crate::rng::Rng;

/// See the module.
#[derive(Debug)]
pub struct Agent {
    /// What it says of itself; with its id once it has one. On disk.
    pub info: AgentInfo,
    pub capabilities: Vec<Capability>,
    pub address: String,
    /// Of the process that runs.
    pub instance: String,
    registrations: u64,
    pub link: Link,
    pub tasks: BTreeMap<Key, Task>,
    pub executors: BTreeMap<(FrameworkId, ExecutorId), Executor>,
    pub frameworks: BTreeMap<FrameworkId, FrameworkInfo>,
    pub updates: Updates,
    /// What it says, to be sent over its link.
    pub out: Vec<Frame>,
    /// It has said that it ends, or was told to.
    pub ended: Option<String>,
    /// It was told to end, with all it runs.
    pub shut_down: bool,
    /// Its resources shrank while something ran on it.
    pub shrunk: bool,
    /// Each terminal update that was acknowledged, until the world has asked.
    pub acknowledged: u64,
    shutting_down: BTreeMap<FrameworkId, Duration>,
    exited: BTreeSet<(FrameworkId, ExecutorId)>,
    /// Executors that it named when it registered, and that have ended since, before the answer.
    untold: Vec<(FrameworkId, ExecutorId)>,
    completed: VecDeque<v1::Task>,
    /// Numbers all updates, whatever their task.
    next_update: u64,
}

/// Its connection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Link {
    /// None; the next is tried at this time.
    Down { retry_at: Duration },
    /// It has said who it is.
    Registering { give_up_at: Duration },
    /// The coordinator took it in.
    Up { silent_at: Duration, timeout: Duration },
}

#[derive(Debug)]
pub struct Task {
    pub shown: v1::Task,
    pub uses: Resources,
    pub life: Life,
    executor: Option<ExecutorId>,
    /// From when on it survives the process.
    durable_at: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Life {
    Staging { until: Duration },
    Running { until: Duration, end: TaskState },
    Killing { until: Duration },
    Over,
}

#[derive(Debug)]
pub struct Executor {
    pub info: ExecutorInfo,
    /// When it ends, for want of tasks.
    idle_until: Option<Duration>,
}

// === impl Agent ===

impl Agent {
    pub fn new(info: AgentInfo, capabilities: Vec<Capability>, address: String, rng: &mut Rng) -> Self {
        Self {
            info,
            capabilities,
            address,
            instance: rng.uuid().to_string(),
            registrations: 0,
            link: Link::Down { retry_at: Duration::ZERO },
            tasks: BTreeMap::new(),
            executors: BTreeMap::new(),
            frameworks: BTreeMap::new(),
            updates: Updates::default(),
            out: Vec::new(),
            ended: None,
            shut_down: false,
            shrunk: false,
            acknowledged: 0,
            shutting_down: BTreeMap::new(),
            exited: BTreeSet::new(),
            untold: Vec::new(),
            completed: VecDeque::new(),
            next_update: 0,
        }
    }

    pub fn id(&self) -> Option<&AgentId> {
        self.info.id.as_ref()
    }

    /// Where it is.
    pub fn machine(&self) -> MachineId {
        let ip = self.address.split(':').next().unwrap_or_default();
        MachineId { hostname: Some(self.info.hostname.clone()), ip: Some(ip.to_owned()) }
    }

    pub fn is_up(&self) -> bool {
        matches!(self.link, Link::Up { .. })
    }

    /// Begins a connection: the frame with which it says who it is. `tag` tells this one from all others.
    pub fn register(&mut self, now: Duration, tag: &str) -> Frame {
        self.link = Link::Registering { give_up_at: now + Duration::from_secs(20) };
        self.updates.disconnect();
        self.out.clear();
        self.untold.clear();
        self.registrations += 1;
        let going_on = |id: &FrameworkId| !self.shutting_down.contains_key(id);
        let tasks: Vec<v1::Task> = self.tasks.values().map(|task| task.shown.clone()).collect();
        let executors: Vec<ExecutorInfo> =
            self.executors.values().map(|executor| executor.info.clone()).collect();
        Frame::Register(Register {
            agent: self.info.clone(),
            version: tag.to_owned(),
            capabilities: self.capabilities.clone(),
            instance: self.instance.clone(),
            address: self.address.clone(),
            tasks: tasks.into_iter().filter(|task| going_on(&task.framework_id)).collect(),
            executors,
            frameworks: self
                .frameworks
                .iter()
                .filter(|(id, _)| going_on(id))
                .map(|(_, info)| info.clone())
                .collect(),
            completed_tasks: self.completed.iter().cloned().collect(),
            checkpointed_resources: Vec::new(),
            attempt: Some(self.registrations),
        })
    }

    /// The connection is gone, as far as it knows.
    pub fn disconnected(&mut self, retry_at: Duration) {
        self.link = Link::Down { retry_at };
        self.updates.disconnect();
        self.out.clear();
    }

    /// The process died, and another takes over what is on disk.
    pub fn restart(&mut self, now: Duration, retry_at: Duration, rng: &mut Rng) {
        self.disconnected(retry_at);
        self.instance = rng.uuid().to_string();
        let forgets_unchecked = rng.chance(500);
        let frameworks = &self.frameworks;
        let kept = |key: &FrameworkId| {
            !forgets_unchecked || frameworks.get(key).is_some_and(FrameworkInfo::checkpoint)
        };
        self.tasks.retain(|key, task| kept(&key.0) && (task.durable_at <= now || self.updates.contains(key)));
        let lost: Vec<Key> = self.updates.keys().filter(|key| !kept(&key.0)).cloned().collect();
        for key in lost {
            self.updates.remove(&key);
        }
        let tasks = &self.tasks;
        self.executors.retain(|(framework, id), _| {
            kept(framework)
                && tasks.iter().any(|(key, task)| key.0 == *framework && task.executor.as_ref() == Some(id))
        });
        self.retire_frameworks();
    }

    /// Nothing is left, not even its id.
    pub fn wipe(&mut self, retry_at: Duration, rng: &mut Rng) {
        let info = AgentInfo { id: None, ..self.info.clone() };
        let next_update = self.next_update;
        let fresh = Self::new(info, self.capabilities.clone(), self.address.clone(), rng);
        *self = Self { link: Link::Down { retry_at }, next_update, ..fresh };
    }

    /// Ends for good.
    pub fn unregister(&mut self) {
        self.out.push(Frame::Unregister(Unregister {}));
        self.ended = Some("it left".to_owned());
    }

    /// What it uses, by those that have not ended.
    pub fn used(&self) -> Resources {
        let mut used = Resources::new();
        for task in self.tasks.values().filter(|task| task.life != Life::Over) {
            used += &task.uses;
        }
        for executor in self.executors.values() {
            used += &Resources::from_wire_lossy(&executor.info.resources);
        }
        used.unallocated()
    }

    /// What the coordinator says.
    ///
    /// # Errors
    /// With what no coordinator may say.
    pub fn order(&mut self, now: Duration, order: Order, rng: &mut Rng) -> Result<(), String> {
        if let Link::Up { silent_at, timeout } = &mut self.link {
            *silent_at = now + *timeout;
        }
        match order {
            Order::Registered(registered) => self.registered(now, registered)?,
            Order::Refused(refused) => {
                self.ended = Some(if refused.register_anew { String::new() } else { refused.message });
            }
            Order::Shutdown(_) => self.shut_down = true,
            _ if !self.is_up() => {
                return Err(format!("an order before the answer to the registration: {order:?}"));
            }
            Order::RunTask(RunTask { framework, task, .. }) => {
                let executor = task.executor.clone();
                self.run(now, framework, task, executor, rng)?;
            }
            Order::RunTaskGroup(run) => {
                for task in run.task_group.tasks {
                    self.run(now, run.framework.clone(), task, Some(run.executor.clone()), rng)?;
                }
            }
            Order::KillTask(kill) => self.kill(now, (kill.framework_id, kill.task_id), rng),
            Order::Acknowledge(acknowledge) => {
                self.acknowledge(now, &(acknowledge.framework_id, acknowledge.task_id), &acknowledge.uuid);
            }
            Order::Message(_) => {}
            Order::ShutdownFramework(id) => self.shutdown_framework(now, &id, rng),
            Order::ShutdownExecutor(shutdown) => {
                let key = (shutdown.framework_id.clone(), shutdown.executor_id.clone());
                if self.executors.contains_key(&key) {
                    self.executor_exits(now, &key, TaskState::TaskKilled);
                } else if self.tasks.contains_key(&(
                    shutdown.framework_id.clone(),
                    shutdown.executor_id.value.as_str().into(),
                )) {
                    self.kill(now, (shutdown.framework_id, shutdown.executor_id.value.as_str().into()), rng);
                }
            }
            Order::UpdateFramework(info) => {
                let id = info.id.clone().ok_or("a framework without an id")?;
                if let Some(known) = self.frameworks.get_mut(&id) {
                    *known = info;
                }
            }
            Order::Ping(number) => self.out.push(Frame::Pong(number)),
            Order::Drain(_) => {
                let tasks: Vec<Key> = self.tasks.keys().cloned().collect();
                tasks.into_iter().for_each(|key| self.kill(now, key, rng));
            }
        }
        Ok(())
    }

    /// Does what is due.
    pub fn wake(&mut self, now: Duration, rng: &mut Rng) {
        let due: Vec<Key> = self
            .tasks
            .iter()
            .filter(|(_, task)| task.due().is_some_and(|at| at <= now))
            .map(|(key, _)| key.clone())
            .collect();
        for key in due {
            self.advance(now, &key, rng);
        }
        let idle: Vec<_> = self
            .executors
            .iter()
            .filter(|(_, e)| e.idle_until.is_some_and(|at| at <= now))
            .map(|(key, _)| key.clone())
            .collect();
        for key in idle {
            self.executor_exits(now, &key, TaskState::TaskFailed);
        }
        let ended: Vec<FrameworkId> =
            self.shutting_down.iter().filter(|(_, at)| **at <= now).map(|(id, _)| id.clone()).collect();
        for id in ended {
            self.shutting_down.remove(&id);
        }
        if self.is_up() {
            let overdue = self.updates.overdue(now);
            overdue.into_iter().for_each(|sending| self.send(sending));
        }
    }

    /// When it has something to do; not counting its link.
    pub fn deadline(&self) -> Option<Duration> {
        let tasks = self.tasks.values().filter_map(Task::due).min();
        let executors = self.executors.values().filter_map(|executor| executor.idle_until).min();
        let frameworks = self.shutting_down.values().copied().min();
        let updates = if self.is_up() { self.updates.deadline() } else { None };
        earliest([tasks, executors, frameworks, updates])
    }

    /// One of its executors crashes.
    pub fn crash_executor(&mut self, now: Duration, rng: &mut Rng) {
        let keys: Vec<_> = self.executors.keys().cloned().collect();
        if let Some(key) = rng.pick(&keys) {
            self.executor_exits(now, key, TaskState::TaskFailed);
        }
    }

    /// Executors say something to their frameworks.
    pub fn chatter(&mut self) {
        for (framework_id, executor_id) in self.executors.keys() {
            self.out.push(Frame::Message(tepui_api::link::ExecutorMessage {
                framework_id: framework_id.clone(),
                executor_id: executor_id.clone(),
                data: b"hello".to_vec(),
            }));
        }
    }

    fn registered(&mut self, now: Duration, registered: Registered) -> Result<(), String> {
        match self.id() {
            Some(id) if *id != registered.agent_id => {
                return Err(format!("{id} was registered as {}", registered.agent_id));
            }
            Some(_) => {}
            None => self.info.id = Some(registered.agent_id.clone()),
        }
        let timeout = Duration::from_secs_f64(registered.ping_timeout_seconds);
        self.link = Link::Up { silent_at: now + timeout, timeout };
        let heads = self.updates.connect(now);
        heads.into_iter().for_each(|sending| self.send(sending));
        for key in std::mem::take(&mut self.untold) {
            self.out.push(tasks::exited(&key));
        }
        for unknown in registered.unknown_tasks {
            let key = (unknown.framework_id, unknown.task_id);
            if !self.tasks.contains_key(&key) && !self.updates.contains(&key) {
                self.drop_task(now, &key, Reason::Reconciliation);
            }
        }
        Ok(())
    }

    fn acknowledge(&mut self, now: Duration, key: &Key, uuid: &[u8]) {
        match self.updates.acknowledge(key, uuid) {
            None => {}
            Some(true) => {
                self.acknowledged += 1;
                if let Some(task) = self.tasks.remove(key) {
                    self.completed.push_back(task.shown);
                    while self.completed.len() > 8 {
                        self.completed.pop_front();
                    }
                }
                self.retire_frameworks();
            }
            Some(false) => {
                if let Some(sending) = self.updates.send_head(key, now) {
                    self.send(sending);
                }
            }
        }
    }

    fn retire_frameworks(&mut self) {
        let (tasks, executors, updates) = (&self.tasks, &self.executors, &self.updates);
        self.frameworks.retain(|id, _| {
            tasks.keys().any(|key| key.0 == *id)
                || executors.keys().any(|key| key.0 == *id)
                || updates.keys().any(|key| key.0 == *id)
        });
    }
}

// === impl Task ===

impl Task {
    fn due(&self) -> Option<Duration> {
        match self.life {
            Life::Staging { until } | Life::Running { until, .. } | Life::Killing { until } => Some(until),
            Life::Over => None,
        }
    }

    pub fn is_over(&self) -> bool {
        is_terminal(self.shown.state())
    }
}
