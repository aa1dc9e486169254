//! The agent's state machine: which tasks it has, where in their lives they stand, and which of
//! their updates have not arrived yet. No clock, no socket, no disk, no thread: the shell around it
//! tells it what happened ([`Input`], with the time) and does what it wants done ([`Output`]).
//!
//! How a task flows through here:
//!
//! 1. [`frames`]: `RunTask` comes from the coordinator. [`refusal`] looks for what this agent cannot do. The
//!    task's record goes to the store and its launch to the containerizer, both at once.
//! 2. [`containers`]: both are done: `TASK_STARTING` goes to the store, the container is started; it runs: `TASK_RUNNING`;
//!    it exits: the terminal update is stored, and then the container's remains are removed, which tell how it ended until then.
//! 3. [`checks`]: while it runs, its checks are asked, and what they find is told.
//! 4. [`kill`]: somebody wants it to end: SIGTERM, a while to obey, SIGKILL.
//! 5. [`updates`]: what was stored is sent, until it is acknowledged; the last acknowledgement makes the task history
//!    ([`frameworks`]).
//! 6. [`drain`]: the operator wants all of them to end.
//! 7. [`registration`]: what is said when a link to a coordinator opens; [`recovery`]: what is done with
//!    the records that an earlier process of this agent left.
//!
//! A task that brings an executor of its framework's own is handed to that instead: [`executors`] starts it, in a container of its
//! own, and tells its tasks of its end; what it says comes in by [`executor_calls`].
//!
//! [`Core::step`] never fails and never blocks. Readers get a [`Snapshot`], which costs nothing to make.

mod checks;
mod containers;
mod drain;
mod executor;
mod executor_calls;
mod executor_end;
mod executors;
mod frames;
mod frameworks;
mod input;
mod kill;
mod pods;
mod recovery;
mod refusal;
mod registration;
mod status;
mod task;
#[cfg(test)]
mod tests;
mod updates;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use tepui_api::link::{ExecutorExited, StatusUpdate, agent_frame};
use tepui_api::v1::{
    AgentId, AgentInfo, ContainerId, FrameworkId, Label, Labels, Resource, TaskState, TaskStatus,
};

pub use drain::Drain;
pub use executor::{CompletedExecutor, Executor, ExecutorKey, ExecutorLife, StreamId};
pub use frameworks::{Framework, Frameworks};
pub use input::{
    ByCall, ContainerCommand, ContainerEvent, End, ExecutorAnswer, ExecutorWrite, FrameworkFate, Input,
    Launch, Limitation, Now, Output, TaskWrite, Ticket, Workload, Write,
};
pub use recovery::{Found, StoredState, StoredTask, StoredUpdate};
pub use registration::capabilities;
pub use status::is_terminal;
pub use task::{CompletedTask, Description, KillCause, KillOrder, Life, Task, TaskKey};

#[cfg(test)]
pub(crate) use tests::test_config;

use kill::Timer;
use registration::Link;
use status::Verdict;
use updates::{Sending, Streams};

/// What the core knows of its agent from the start.
#[derive(Debug, Clone)]
pub struct Config {
    /// The agent, without an id.
    pub agent: AgentInfo,
    /// The version it tells the coordinator.
    pub version: String,
    /// Made anew by each process, so that two with one work directory are told apart.
    pub instance: String,
    /// Where its HTTP server is reached.
    pub address: SocketAddr,
    /// The root of the sandboxes.
    pub work_dir: PathBuf,
    /// Whether tasks run as the user that they name.
    pub switch_user: bool,
    /// What a task has between SIGTERM and SIGKILL when its framework is shut down.
    pub shutdown_grace_period: Duration,
    /// Where tasks with an image find their sandbox.
    pub sandbox_directory: String,
    /// How long an executor may take to subscribe once it runs.
    pub executor_registration_timeout: Duration,
    /// What tasks of frameworks that checkpoint are told as `MESOS_RECOVERY_TIMEOUT`.
    pub recovery_timeout: Duration,
    /// How long an executor may take to subscribe to an agent that was restarted; those of frameworks that checkpoint are told it as
    /// `MESOS_SUBSCRIPTION_BACKOFF_MAX`.
    pub executor_reregistration_timeout: Duration,
    /// Variables that the operator gives to every task.
    pub environment: Vec<(String, String)>,
    /// How many tasks that are over are remembered for each framework.
    pub max_completed: usize,
}

/// The state machine.
#[derive(Debug)]
pub struct Core {
    config: Config,
    rng: StdRng,
    /// As the agent is registered, with an id once it has one.
    agent: Arc<AgentInfo>,
    link: Link,
    /// How often it has asked a coordinator to take it in.
    registrations: u64,
    frameworks: Frameworks,
    /// Whose a container is, as long as something of the container may be there.
    containers: HashMap<ContainerId, Owner>,
    streams: Streams,
    /// The checks of tasks that run and have some.
    checks: HashMap<TaskKey, checks::Checks>,
    timers: BTreeSet<(Duration, Timer)>,
    next_ticket: u64,
    /// What happens when a ticket is confirmed, in the order of the tickets.
    waiting: VecDeque<(Ticket, Waiting)>,
    /// Set when the agent is to end, or to begin anew, once no container is left.
    winding_up: Option<WindUp>,
    /// The agent is not as it is written down: a reconfiguration changed it. It is written when the coordinator has taken it in.
    reconfigured: bool,
    /// Set while the operator wants nothing to run here.
    drain: Option<Drain>,
    counters: Counters,
    /// Executors that ended while the coordinator was taking the agent in, with them among what it has.
    exited: Vec<ExecutorExited>,
}

/// Whose a container is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Owner {
    /// A task that has it for itself.
    Task(TaskKey),
    /// An executor that shares it with its tasks.
    Executor(ExecutorKey),
}

/// What waits for the store.
#[derive(Debug)]
enum Waiting {
    /// The records of tasks for an executor, and that of the executor if it is new.
    Delegation { executor: ExecutorKey, tasks: Vec<TaskKey> },
    /// An update that an executor told, which need not remember it after that.
    Report { task: TaskKey, sequence: u64, executor: ExecutorKey, uuid: Vec<u8>, request: Option<StreamId> },
    /// What an executor told once more while it was on its way to the disk.
    Answer(StreamId),
    /// The last updates of an executor's tasks.
    ExecutorEnd(ExecutorKey),
    /// A task's record.
    Launch(TaskKey),
    /// An update.
    Update(TaskKey, u64),
    /// A task's last update. What is left of its container tells how it ended until this is on disk.
    LastUpdate(TaskKey, u64),
    /// The wish that the agent drains.
    Drain,
    /// An acknowledgement, after which the next update goes out.
    Acknowledged(TaskKey),
}

/// What follows when nothing runs any more.
#[derive(Debug, Clone, PartialEq, Eq)]
enum WindUp {
    /// Forgets all, too.
    End(End),
    /// Keeps its id.
    CleanedUp,
    RegisterAnew,
}

/// What readers see. Later steps do not change it.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// As the agent is registered.
    pub agent: Arc<AgentInfo>,
    /// Whether a coordinator has taken it in.
    pub registered: bool,
    /// Frameworks, tasks and their history.
    pub frameworks: Frameworks,
    /// The drain under way.
    pub drain: Option<Drain>,
    /// Events counted since the process began.
    pub counters: Counters,
}

// === impl Snapshot ===

impl Snapshot {
    /// What tasks that are not over and executors hold of the agent's resources.
    #[must_use]
    pub fn in_use(&self) -> Vec<Resource> {
        let tasks = self.frameworks.tasks().filter(|task| {
            task.has_container() || matches!(task.life, Life::Queued { .. } | Life::Delegated)
        });
        let of_tasks = tasks.flat_map(|task| task.info.resources.iter());
        let of_executors = self.frameworks.executors().flat_map(|executor| executor.info.resources.iter());
        of_tasks.chain(of_executors).cloned().collect()
    }
}

/// Events counted since the process began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Tasks that ended in each of these states.
    pub finished: u64,
    /// See [`Counters::finished`].
    pub failed: u64,
    /// See [`Counters::finished`].
    pub killed: u64,
    /// See [`Counters::finished`].
    pub lost: u64,
    /// See [`Counters::finished`].
    pub gone: u64,
    /// Containers that could not be prepared or started.
    pub launch_errors: u64,
    /// Containers that could not be removed.
    pub destroy_errors: u64,
    /// Updates made.
    pub updates: u64,
    /// Updates of executors that were not taken.
    pub invalid_updates: u64,
    /// Messages passed on, of executors to their frameworks and of frameworks to their executors.
    pub messages: u64,
    /// Messages dropped, because whom they are for is not there.
    pub invalid_messages: u64,
    /// Containers that ended.
    pub terminated: u64,
}

// === impl Core ===

impl Core {
    /// An agent without a past. All ids it makes follow from the seed.
    #[must_use]
    pub fn new(config: Config, seed: [u8; 32]) -> Self {
        Self {
            rng: StdRng::from_seed(seed),
            agent: Arc::new(config.agent.clone()),
            config,
            link: Link::Down,
            registrations: 0,
            frameworks: Frameworks::default(),
            containers: HashMap::new(),
            streams: Streams::default(),
            checks: HashMap::new(),
            timers: BTreeSet::new(),
            next_ticket: 0,
            waiting: VecDeque::new(),
            winding_up: None,
            reconfigured: false,
            drain: None,
            counters: Counters::default(),
            exited: Vec::new(),
        }
    }

    /// Takes in what happened; adds what is to be done for it, in order.
    pub fn step(&mut self, now: Now, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::LinkOpened => self.link_opened(out),
            Input::LinkClosed => self.link_closed(),
            Input::Frame(frame) => self.frame(now, *frame, out),
            Input::Container(id, event) => self.container_event(now, &id, event, out),
            Input::Executor(request, call) => self.executor_call(now, request, *call, out),
            Input::ExecutorGone(stream) => self.executor_gone(stream),
            Input::Stored(ticket) => self.stored(now, ticket, out),
            Input::Tick => {}
            Input::CleanUp => self.wind_up(now, WindUp::CleanedUp, out),
            Input::ShutDown => self.wind_up(
                now,
                WindUp::End(End::Asked("the agent was asked to end all that runs on it".to_owned())),
                out,
            ),
        }
        self.fire_timers(now, out);
        for sending in self.streams.overdue(now.monotonic) {
            tracing::info!(task = %sending.key, "sending a status update again, which was not acknowledged in time");
            self.send(sending, out);
        }
        self.finish_draining(out);
        self.finish_winding_up(out);
    }

    /// When the next [`Input::Tick`] is due, on the monotonic clock.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let timer = self.timers.first().map(|(at, _)| *at);
        [timer, self.streams.next_deadline()].into_iter().flatten().min()
    }

    /// What there is, for readers.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            agent: self.agent.clone(),
            registered: matches!(self.link, Link::Up { .. }),
            frameworks: self.frameworks.clone(),
            drain: self.drain,
            counters: self.counters,
        }
    }

    fn agent_id(&self) -> Option<&AgentId> {
        self.agent.id.as_ref()
    }

    fn uuid(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.rng.fill_bytes(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid().into_bytes()
    }

    /// A random number from 0 to 1.
    fn part(&mut self) -> f64 {
        self.rng.random()
    }

    /// Hands writes to the store.
    fn store(&mut self, writes: Vec<Write>, waiting: Option<Waiting>, out: &mut Vec<Output>) {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        if let Some(waiting) = waiting {
            self.waiting.push_back((ticket, waiting));
        }
        out.push(Output::Store(ticket, writes));
    }

    fn stored(&mut self, now: Now, up_to: Ticket, out: &mut Vec<Output>) {
        while let Some((_, waiting)) = self.waiting.pop_front_if(|(ticket, _)| *ticket <= up_to) {
            match waiting {
                Waiting::Launch(key) => self.record_stored(now, &key, out),
                Waiting::Delegation { executor, tasks } => {
                    self.delegation_stored(now, &executor, &tasks, out);
                }
                Waiting::Report { task, sequence, executor, uuid, request } => {
                    out.extend(request.map(|request| Output::Answer(request, ExecutorAnswer::Accepted)));
                    self.tell_heard(&executor, &task.task, uuid, out);
                    self.update_stored(now, &task, sequence, out);
                }
                Waiting::Answer(request) => out.push(Output::Answer(request, ExecutorAnswer::Accepted)),
                Waiting::ExecutorEnd(key) => self.remove_executor_remains(&key, out),
                Waiting::Drain => self.carry_out_drain(now, out),
                Waiting::Update(key, sequence) => self.update_stored(now, &key, sequence, out),
                Waiting::LastUpdate(key, sequence) => {
                    self.update_stored(now, &key, sequence, out);
                    self.remove_remains(&key, out);
                }
                Waiting::Acknowledged(key) => {
                    if let Some(sending) = self.streams.settled(now.monotonic, &key) {
                        self.send(sending, out);
                    }
                }
            }
        }
    }

    fn update_stored(&mut self, now: Now, key: &TaskKey, sequence: u64, out: &mut Vec<Output>) {
        if let Some(sending) = self.streams.stored(now.monotonic, key, sequence) {
            self.send(sending, out);
        }
    }

    /// Makes an update for a task and stores it; it is sent after that. With `held` it waits further,
    /// until the task's container is gone.
    fn update(&mut self, now: Now, key: &TaskKey, verdict: Verdict, held: bool, out: &mut Vec<Output>) {
        self.update_with(now, key, verdict, held, Vec::new(), out);
    }

    /// As [`Core::update`], with other writes in the same step: all of them are on disk, or none is.
    fn update_with(
        &mut self,
        now: Now,
        key: &TaskKey,
        verdict: Verdict,
        held: bool,
        writes: Vec<Write>,
        out: &mut Vec<Output>,
    ) {
        let Some(agent) = self.agent_id().cloned() else { return };
        let uuid = self.uuid();
        let verdict = self.as_drained(key, verdict);
        let ip = self.config.address.ip().to_string();
        let Some(task) = self.frameworks.task_mut(key) else { return };
        let by_executor = verdict.source == tepui_api::v1::task_status::Source::Executor;
        let executor = Some(status::executor_id(task));
        let mut status = status::task_status(key, &agent, executor, uuid, now.unix, verdict);
        if by_executor {
            let container = &task.container;
            status.container_status =
                Some(status::container_status(container, task.pid, &task.networks, &ip));
            let info = task.info.clone();
            self.show_checks(key, &info, &mut status);
        }
        let Some(task) = self.frameworks.task_mut(key) else { return };
        if status.state() == TaskState::TaskRunning
            && let Some(description) = task.description.take()
        {
            status.data = Some(description.data);
            status.labels = labels(description.labels);
        }
        task.show(&status);
        self.count(status.state());
        if !self.is_abandoned(key) {
            self.push_update(key, status, held, writes, out);
        }
    }

    /// Makes an update about a task that this agent does not have.
    fn update_unknown(&mut self, now: Now, key: &TaskKey, verdict: Verdict, out: &mut Vec<Output>) {
        let Some(agent) = self.agent_id().cloned() else { return };
        if self.streams.contains(key) {
            return;
        }
        let uuid = self.uuid();
        let status = status::task_status(key, &agent, None, uuid, now.unix, verdict);
        self.count(status.state());
        self.push_update(key, status, false, Vec::new(), out);
    }

    fn push_update(
        &mut self,
        key: &TaskKey,
        status: TaskStatus,
        held: bool,
        writes: Vec<Write>,
        out: &mut Vec<Output>,
    ) {
        let waiting = if is_terminal(status.state()) { Waiting::LastUpdate } else { Waiting::Update };
        self.push_update_then(key, status, held, writes, waiting, out);
    }

    /// As [`Core::push_update`], with what happens when it is on disk.
    fn push_update_then(
        &mut self,
        key: &TaskKey,
        status: TaskStatus,
        held: bool,
        mut writes: Vec<Write>,
        then: impl FnOnce(TaskKey, u64) -> Waiting,
        out: &mut Vec<Output>,
    ) {
        tracing::info!(task = %key, state = status.state().as_str_name(), message = status.message.as_deref(),
            "the task has a new state");
        let status = Arc::new(status);
        let sequence = self.streams.push(key, status.clone(), held);
        writes.push(Write::Update(key.clone(), sequence, status));
        self.store(writes, Some(then(key.clone(), sequence)), out);
    }

    fn send(&mut self, sending: Sending, out: &mut Vec<Output>) {
        if let Some(task) = self.frameworks.task_mut(&sending.key) {
            task.show_sent(&sending.status);
        }
        let body = agent_frame::Body::Update(StatusUpdate {
            framework_id: sending.key.framework,
            status: Arc::unwrap_or_clone(sending.status),
            latest_state: sending.latest as i32,
        });
        out.push(Output::Send(Box::new(body)));
    }

    /// A task is over, and so is all that was to be said about it.
    fn forget_task(&mut self, key: &TaskKey, out: &mut Vec<Output>) {
        self.streams.remove(key);
        if let Some(task) = self.frameworks.task(key).filter(|task| task.owns_container()) {
            self.containers.remove(&task.container);
        }
        self.frameworks.complete(key, self.config.max_completed);
        let mut writes = vec![Write::RemoveTask(key.clone())];
        writes.extend(self.retire_if_idle(&key.framework));
        self.store(writes, None, out);
    }

    /// A framework with no tasks, executors and updates here becomes history.
    fn retire_if_idle(&mut self, id: &FrameworkId) -> Option<Write> {
        let framework = self.frameworks.get(id)?;
        let idle = framework.tasks.is_empty()
            && framework.executors.is_empty()
            && self.streams.of_framework(id).next().is_none();
        idle.then(|| {
            self.frameworks.retire(id);
            Write::RemoveFramework(id.clone())
        })
    }

    fn count(&mut self, state: TaskState) {
        self.counters.updates += 1;
        match state {
            TaskState::TaskFinished => self.counters.finished += 1,
            TaskState::TaskFailed => self.counters.failed += 1,
            TaskState::TaskKilled => self.counters.killed += 1,
            TaskState::TaskLost => self.counters.lost += 1,
            TaskState::TaskGone => self.counters.gone += 1,
            _ => {}
        }
    }
}

fn labels(named: Vec<(String, String)>) -> Option<Labels> {
    let label = |(key, value)| Label { key, value: Some(value) };
    (!named.is_empty()).then(|| Labels { labels: named.into_iter().map(label).collect() })
}
