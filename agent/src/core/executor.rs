//! An executor of a framework's own on this agent: what it is and where in its life it stands.
//!
//! ```text
//!   first task ─► Preparing ──stored and prepared──► Starting ──started──► Registering ──SUBSCRIBE──► Running
//!                     │                                 │                     │ too late               │ SHUTDOWN, container
//!                     │ its container cannot be made    │                     ▼                        ▼ ended for a reason
//!                     ▼                                 ▼                 Terminating ◄────────────────┘
//!                  Ending: its tasks' last updates are stored, ◄── exited ────┘
//!                     │    then the container's remains are removed
//!                     ▼
//!                  history; the coordinator is told
//! ```
//!
//! Command tasks have no such entity: the agent runs them itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tepui_api::v1::{
    ContainerId, ExecutorId, ExecutorInfo, FrameworkId, KillPolicy, NetworkInfo, Resource, TaskId,
};

use super::status::Verdict;

/// Names an executor: its id is its framework's choice and says nothing without it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExecutorKey {
    /// Whose executor.
    pub framework: FrameworkId,
    /// Which of its executors.
    pub executor: ExecutorId,
}

/// A request to `/api/v1/executor`. That of `SUBSCRIBE` stays open: events go to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// An executor, from the first task for it until nothing of its container is left.
#[derive(Debug, Clone)]
pub struct Executor {
    /// Its name.
    pub key: ExecutorKey,
    /// What the framework asked for.
    pub info: Arc<ExecutorInfo>,
    /// The container it runs in, and its tasks with it.
    pub container: ContainerId,
    /// Its sandbox on the host.
    pub directory: PathBuf,
    /// Who it runs as; the agent's own user when absent.
    pub user: Option<String>,
    /// Where in its life it stands.
    pub life: ExecutorLife,
    /// The first process of its container, as the host sees it, once it runs.
    pub pid: Option<u32>,
    /// The networks its container has of its own.
    pub networks: Vec<NetworkInfo>,
    /// Whether it was ever handed a task.
    pub ever_sent: bool,
    /// What its container has, or was last told to have.
    pub amounts: Amounts,
    /// A change of that is under way.
    pub update: Option<Updating>,
    /// Tasks that were to be killed while it was not connected; it is told when it subscribes.
    pub kills: BTreeMap<TaskId, Option<KillPolicy>>,
    /// Why its container is ended, if the agent decided so. Its tasks are told.
    pub verdict: Option<Verdict>,
}

/// Where in its life an executor stands, as the page above draws it.
#[derive(Debug, Clone, PartialEq)]
pub enum ExecutorLife {
    /// Its record goes to disk and its container is prepared, both at once.
    Preparing {
        /// The record is on disk.
        stored: bool,
        /// The container can be started.
        prepared: bool,
        /// Somebody subscribed in its name, before it runs.
        stream: Option<StreamId>,
    },
    /// The containerizer was told to start it.
    Starting {
        /// It subscribed already: what the containerizer has to say of the start is on its way.
        stream: Option<StreamId>,
    },
    /// Its process runs and has not subscribed yet; after an agent's restart, not to this agent.
    Registering,
    /// It has subscribed.
    Running {
        /// Where events go; `None` while the connection is broken.
        stream: Option<StreamId>,
    },
    /// It was told to end, or its container is being ended.
    Terminating {
        /// Where events go.
        stream: Option<StreamId>,
        /// When its container is ended by force; `None` once that was asked for.
        escalates: Option<Duration>,
    },
    /// Its process has ended; that is being stored, or what is left of the container is being removed.
    Ending {
        /// How it ended, as wait(2) gives it; -1 when nobody knows.
        status: i32,
    },
}

/// What a container may use.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Amounts {
    /// What it is certain to get.
    pub resources: Vec<Resource>,
    /// Hard limits by resource name; infinity lifts one.
    pub limits: BTreeMap<String, f64>,
}

/// A change of what a container may use.
#[derive(Debug, Clone, PartialEq)]
pub struct Updating {
    /// Tasks that are handed over when it is done.
    pub then: BTreeSet<TaskId>,
}

/// An executor that is over.
#[derive(Debug, Clone)]
pub struct CompletedExecutor {
    /// What the framework asked for.
    pub info: Arc<ExecutorInfo>,
    /// The container it ran in.
    pub container: ContainerId,
    /// Its sandbox on the host.
    pub directory: PathBuf,
}

// === impl ExecutorKey ===

impl ExecutorKey {
    /// The name of this framework's executor.
    pub fn new(framework: impl Into<FrameworkId>, executor: impl Into<ExecutorId>) -> Self {
        Self { framework: framework.into(), executor: executor.into() }
    }
}

impl std::fmt::Display for ExecutorKey {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} of framework {}", self.executor, self.framework)
    }
}

// === impl Executor ===

impl Executor {
    /// Where its events go, while it is connected.
    #[must_use]
    pub fn stream(&self) -> Option<StreamId> {
        match self.life {
            ExecutorLife::Preparing { stream, .. }
            | ExecutorLife::Starting { stream }
            | ExecutorLife::Running { stream }
            | ExecutorLife::Terminating { stream, .. } => stream,
            ExecutorLife::Registering | ExecutorLife::Ending { .. } => None,
        }
    }

    /// Whether it has subscribed and takes tasks.
    #[must_use]
    pub fn takes_tasks(&self) -> bool {
        match self.life {
            ExecutorLife::Running { stream } | ExecutorLife::Starting { stream } => stream.is_some(),
            _ => false,
        }
    }

    /// Whether it will take no task any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.life, ExecutorLife::Terminating { .. } | ExecutorLife::Ending { .. })
    }

    /// The executor as history.
    #[must_use]
    pub fn completed(&self) -> CompletedExecutor {
        CompletedExecutor {
            info: self.info.clone(),
            container: self.container.clone(),
            directory: self.directory.clone(),
        }
    }
}
