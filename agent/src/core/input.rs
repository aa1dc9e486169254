//! What the core is told ([`Input`]) and what it wants done ([`Output`]).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tepui_api::link::{agent_frame, coordinator_frame};
use tepui_api::v1::executor;
use tepui_api::v1::task_status::Reason;
use tepui_api::v1::{
    AgentInfo, CommandInfo, ContainerId, ContainerInfo, DrainConfig, ExecutorInfo, FrameworkInfo,
    NetworkInfo, Resource, TaskInfo, TaskStatus, executor_info,
};

use super::executor::{ExecutorKey, StreamId};
use super::task::{Description, KillOrder, TaskKey};
use crate::checks::check::{Health, Kind, Outcome, Probe};

/// The time, as the core is told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Since some moment before the agent began. Never jumps; deadlines are set by it.
    pub monotonic: Duration,
    /// Since 1970. What updates carry; nothing is decided by it.
    pub unix: Duration,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// There is a stream to a coordinator; it knows nothing of this agent yet.
    LinkOpened,
    /// That stream is no more.
    LinkClosed,
    /// The coordinator said something.
    Frame(Box<coordinator_frame::Body>),
    /// Something happened to a container.
    Container(ContainerId, ContainerEvent),
    /// An executor calls. The framework and the executor that it names need not exist.
    Executor(StreamId, Box<executor::Call>),
    /// Nobody listens any more to what an executor subscribed to.
    ExecutorGone(StreamId),
    /// All that was to be stored up to this ticket, which included, is on disk.
    Stored(Ticket),
    /// Time has passed: [`super::Core::next_deadline`] is reached.
    Tick,
    /// The operator ends the agent and all that runs on it.
    ShutDown,
    /// The operator ends all that an earlier run of the agent left, and then the agent, which keeps its id.
    CleanUp,
}

/// What happened to a container.
#[derive(Debug, Clone, PartialEq)]
pub enum ContainerEvent {
    /// Its sandbox cannot be made, because of its user or the disk. Nothing else of it exists.
    NoSandbox(String),
    /// It can be started.
    Prepared {
        /// The networks it has of its own.
        networks: Vec<NetworkInfo>,
    },
    /// It could not be prepared or started; its processes never ran.
    Failed {
        /// Why, for machines.
        reason: Reason,
        /// Why, for people.
        message: String,
    },
    /// What is to be told of it when it runs; comes before that.
    Described(Description),
    /// Its first process runs.
    Started {
        /// That process, as the host sees it.
        pid: u32,
        /// The networks it has of its own, with their addresses.
        networks: Vec<NetworkInfo>,
    },
    /// It has the resources that it was to get.
    Updated,
    /// It keeps those that it had.
    NotUpdated(String),
    /// Its first process has ended. Other processes and mounts of it may be left.
    Exited {
        /// As wait(2) gives it; `None` when nobody knows.
        status: Option<i32>,
        /// The limit for which it was ended.
        limitation: Option<Limitation>,
    },
    /// A probe of its task has an answer.
    Probed(Kind, Outcome),
    /// Nothing of it is left.
    Destroyed,
    /// Not all of it could be removed; nobody tries further.
    NotDestroyed(String),
}

/// A limit that a container exceeded.
#[derive(Debug, Clone, PartialEq)]
pub struct Limitation {
    /// Which kind.
    pub reason: Reason,
    /// With figures.
    pub message: String,
    /// The resources it exceeded.
    pub resources: Vec<Resource>,
}

/// Names a group of writes. They grow, and are confirmed in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What is to be done.
#[derive(Debug, Clone)]
pub enum Output {
    /// Put this on disk, in one step, after all before it; answered by [`Input::Stored`].
    Store(Ticket, Vec<Write>),
    /// Say this to the coordinator. Dropped when there is none.
    Send(Box<agent_frame::Body>),
    /// Do this with a container.
    Container(ContainerId, ContainerCommand),
    /// Answer a call of an executor. Events may follow where it was subscribed.
    Answer(StreamId, ExecutorAnswer),
    /// Send this to an executor.
    Event(StreamId, Box<executor::Event>),
    /// End what an executor subscribed to.
    CloseEvents(StreamId),
    /// Close the stream and open another.
    Reconnect,
    /// End the agent: nothing of it runs any more.
    End(End),
}

/// What a call of an executor is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecutorAnswer {
    /// It is subscribed: events follow.
    Subscribed,
    /// It was taken.
    Accepted,
    /// `400`: the agent has no such framework.
    NoFramework,
    /// `400`: the framework has no such executor.
    NoExecutor,
    /// `403`: it has to subscribe first.
    NotSubscribed,
    /// `501`: the call's type is not known.
    Unknown,
}

/// Why the agent ends itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It was asked to, and has ended all that ran.
    Asked(String),
    /// The coordinator does not take it.
    Refused(String),
    /// It was started to end what an earlier run of it had left, and has done so.
    CleanedUp,
}

/// What to do with a container.
#[derive(Debug, Clone)]
pub enum ContainerCommand {
    /// Make its sandbox, fetch its image, make its cgroups.
    Prepare(Arc<Launch>),
    /// Run it.
    Start,
    /// Send this signal to its processes.
    Signal(i32),
    /// Give it other resources and hard limits while it runs; answered by [`ContainerEvent::Updated`] or [`ContainerEvent::NotUpdated`].
    Update(Vec<Resource>, BTreeMap<String, f64>),
    /// Ask its task how it is; answered by [`ContainerEvent::Probed`]. May come while another command is under way.
    Probe(Box<Probe>),
    /// End its processes, if there are any, and remove what there is of it.
    Destroy,
}

/// All that is needed to make a container.
#[derive(Debug, Clone, PartialEq)]
pub struct Launch {
    /// What runs in it.
    pub workload: Workload,
    /// Its framework.
    pub framework: Arc<FrameworkInfo>,
    /// What it is certain to get: of an executor its own, and those of the tasks that wait for it.
    pub resources: Vec<Resource>,
    /// Hard limits by resource name; infinity lifts one.
    pub limits: BTreeMap<String, f64>,
    /// Its sandbox on the host.
    pub directory: PathBuf,
    /// Who it runs as; the agent's own user when absent.
    pub user: Option<String>,
    /// The variables that Mesos' agent sets, before the command's own.
    pub environment: Vec<(String, String)>,
}

/// What a container is made for.
#[derive(Debug, Clone, PartialEq)]
pub enum Workload {
    /// A task with a container of its own.
    Task(TaskKey, Arc<TaskInfo>),
    /// An executor of a framework's own, which runs tasks in it as it likes.
    Executor(ExecutorKey, Arc<ExecutorInfo>),
    /// A container that was asked for by a call to the agent, for no framework.
    Call(Arc<ByCall>),
}

/// A container that was asked for by a call to the agent.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ByCall {
    /// What runs in it.
    pub command: CommandInfo,
    /// Its image and the like.
    pub container: Option<ContainerInfo>,
}

// === impl Launch ===

impl Launch {
    /// The task, when it is for one.
    #[must_use]
    pub fn task(&self) -> Option<&Arc<TaskInfo>> {
        match &self.workload {
            Workload::Task(_, task) => Some(task),
            Workload::Executor(..) | Workload::Call(_) => None,
        }
    }

    /// The executor: the container's program, or that of the task.
    #[must_use]
    pub fn executor(&self) -> Option<&ExecutorInfo> {
        match &self.workload {
            Workload::Task(_, task) => task.executor.as_ref(),
            Workload::Executor(_, executor) => Some(executor),
            Workload::Call(_) => None,
        }
    }

    /// What runs in it.
    #[must_use]
    pub fn command(&self) -> Option<&CommandInfo> {
        match &self.workload {
            Workload::Task(_, task) => task.command.as_ref(),
            Workload::Executor(_, executor) => executor.command.as_ref(),
            Workload::Call(call) => Some(&call.command),
        }
    }

    /// Its image and the like.
    #[must_use]
    pub fn container(&self) -> Option<&ContainerInfo> {
        match &self.workload {
            Workload::Task(_, task) => task.container.as_ref(),
            Workload::Executor(_, executor) => executor.container.as_ref(),
            Workload::Call(call) => call.container.as_ref(),
        }
    }

    /// Whether the container has no program, as that of an executor of type DEFAULT: the agent itself runs its tasks, nested in it.
    #[must_use]
    pub fn is_holder(&self) -> bool {
        let of_type = |executor: &ExecutorInfo| executor.r#type() == executor_info::Type::Default;
        matches!(&self.workload, Workload::Executor(_, executor) if of_type(executor))
    }
}

/// A change to what is on disk.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// What the agent is registered as.
    Agent(Arc<AgentInfo>),
    /// The agent drains, or has drained.
    Drain(Option<DrainConfig>),
    /// The machine was started anew; since then it has this id.
    BootId(String),
    /// Forget everything but the boot id.
    Clear,
    /// A framework, and whether it is being shut down.
    Framework(Arc<FrameworkInfo>, FrameworkFate),
    /// It has nothing here any more.
    RemoveFramework(tepui_api::v1::FrameworkId),
    /// A task was taken on, was asked for its health, or began to be killed.
    Task(Box<TaskWrite>),
    /// An executor is about to be started.
    Executor(Box<ExecutorWrite>),
    /// Nothing of it is left.
    RemoveExecutor(ExecutorKey),
    /// An update, with its number in its task's stream.
    Update(TaskKey, u64, Arc<TaskStatus>),
    /// The update with this number was acknowledged.
    Acknowledged(TaskKey, u64),
    /// The task, its updates and what was acknowledged of them.
    RemoveTask(TaskKey),
}

/// What is written down of an executor.
#[derive(Debug, Clone, PartialEq)]
pub struct ExecutorWrite {
    /// Its name.
    pub key: ExecutorKey,
    /// What the framework asked for.
    pub info: Arc<ExecutorInfo>,
    /// Its container.
    pub container: ContainerId,
    /// Its sandbox.
    pub directory: PathBuf,
    /// Who it runs as.
    pub user: Option<String>,
}

/// Whether a framework goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameworkFate {
    /// It does.
    Active,
    /// Its tasks are being ended, and nobody waits for their updates.
    ShuttingDown,
}

/// What is written down of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskWrite {
    /// Its name.
    pub key: TaskKey,
    /// What the framework asked for.
    pub info: Arc<TaskInfo>,
    /// Its container.
    pub container: ContainerId,
    /// Its sandbox.
    pub directory: PathBuf,
    /// Who it runs as.
    pub user: Option<String>,
    /// Names the group that it was launched in.
    pub group: Option<Arc<str>>,
    /// The kill under way, so that a restarted agent carries it on.
    pub kill: Option<KillOrder>,
    /// What its health check has found, so that a restarted agent goes on with it.
    pub health: Option<Health>,
}
