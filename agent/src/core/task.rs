//! A task on this agent: what it is, where in its life it stands, and what is written down of it.
//!
//! ```text
//!   RunTask ─► Preparing ──stored and prepared──► Starting ──started──► Running ──kill──► Killing
//!                  │                                  │                    │                 │
//!                  │ killed, or cannot be prepared    │ cannot start       │ exited          │ exited
//!                  ▼                                  ▼                    ▼                 ▼
//!               Ending: a terminal update is stored, then the container's remains are removed
//!                  │ removed
//!                  ▼
//!               Terminated: updates go out until the last is acknowledged; then the task is history
//! ```
//!
//! A task with an executor of its framework's own has no container: `Queued` until the executor takes tasks, then `Delegated`, until the
//! executor says that it is over (`Terminated`) or has ended itself (`Ending` while its remains are removed).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::executor::ExecutorKey;
use super::status::is_terminal;
use tepui_api::v1::{self, ContainerId, FrameworkId, NetworkInfo, TaskId, TaskInfo, TaskState, TaskStatus};

/// Names a task: its id is its framework's choice and says nothing without it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskKey {
    /// Whose task.
    pub framework: FrameworkId,
    /// Which of its tasks.
    pub task: TaskId,
}

/// A task, from the order to run it until its last update is acknowledged.
#[derive(Debug, Clone)]
pub struct Task {
    /// Its name.
    pub key: TaskKey,
    /// What the framework asked for.
    pub info: Arc<TaskInfo>,
    /// The container it runs in: one for each task, or that of its executor.
    pub container: ContainerId,
    /// Its sandbox on the host.
    pub directory: PathBuf,
    /// Who it runs as; the agent's own user when absent.
    pub user: Option<String>,
    /// Names the group that it was launched in; tasks of a group have the same.
    pub group: Option<Arc<str>>,
    /// Where in its life it stands.
    pub life: Life,
    /// The first process of its container, as the host sees it, once it runs.
    pub pid: Option<u32>,
    /// The networks its container has of its own.
    pub networks: Vec<NetworkInfo>,
    /// What the containerizer says of its container, until the first `TASK_RUNNING` tells it.
    pub description: Option<Description>,
    /// The task as the API shows it. Shared with readers.
    pub shown: Arc<v1::Task>,
}

/// What a containerizer says of a container that has started, to be told with the first `TASK_RUNNING`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Description {
    /// The status' `data`.
    pub data: Vec<u8>,
    /// The status' labels.
    pub labels: Vec<(String, String)>,
}

/// Where in its life a task stands, as the page above draws it.
#[derive(Debug, Clone, PartialEq)]
pub enum Life {
    /// Its record goes to disk and its container is prepared, both at once.
    Preparing {
        /// The record is on disk.
        stored: bool,
        /// The container can be started.
        prepared: bool,
    },
    /// The containerizer was told to start it.
    Starting {
        /// Somebody asked to kill it meanwhile; done once it runs.
        kill: Option<KillOrder>,
    },
    /// Its processes run.
    Running,
    /// Its processes were asked to end.
    Killing(Kill),
    /// It waits for its executor.
    Queued {
        /// The record is on disk.
        stored: bool,
    },
    /// Its executor has been given it, and says how it goes.
    Delegated,
    /// They have ended; that is being stored, or what is left of the container is being removed.
    Ending,
    /// Nothing of it is left on the agent but unacknowledged updates and the sandbox.
    Terminated,
}

/// The wish that a task ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KillOrder {
    /// Whose wish.
    pub cause: KillCause,
    /// How long its processes have between SIGTERM and SIGKILL.
    pub grace: Duration,
}

/// Why a task is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillCause {
    /// The scheduler's or the operator's.
    Asked,
    /// It ran longer than its `max_completion_time`.
    CompletionTime,
    /// It failed its health check too often.
    Unhealthy,
    /// Its framework is gone, or the agent ends: nobody waits for updates.
    Abandoned,
}

/// A kill under way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Kill {
    /// Why.
    pub cause: KillCause,
    /// When SIGTERM was sent, on the monotonic clock.
    pub began: Duration,
    /// When SIGKILL follows; `None` once it was sent.
    pub escalates: Option<Duration>,
}

/// A task that is over and whose last update was acknowledged.
#[derive(Debug, Clone)]
pub struct CompletedTask {
    /// What the framework asked for.
    pub info: Arc<TaskInfo>,
    /// The container it ran in.
    pub container: ContainerId,
    /// Its sandbox on the host.
    pub directory: PathBuf,
    /// The task as the API shows it.
    pub shown: Arc<v1::Task>,
}

// === impl TaskKey ===

impl TaskKey {
    /// The name of this framework's task.
    pub fn new(framework: impl Into<FrameworkId>, task: impl Into<TaskId>) -> Self {
        Self { framework: framework.into(), task: task.into() }
    }
}

impl std::fmt::Display for TaskKey {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} of framework {}", self.task, self.framework)
    }
}

// === impl Task ===

impl Task {
    /// Whether its container may still hold processes, mounts or cgroups.
    #[must_use]
    pub fn has_container(&self) -> bool {
        !matches!(self.life, Life::Terminated | Life::Queued { .. } | Life::Delegated)
    }

    /// Whether it has its container for itself.
    #[must_use]
    pub fn owns_container(&self) -> bool {
        self.info.executor.as_ref().is_none_or(super::pods::is_pod)
    }

    /// The framework's own executor that runs it. A command task has none.
    #[must_use]
    pub fn executor(&self) -> Option<ExecutorKey> {
        let executor = self.info.executor.as_ref()?;
        Some(ExecutorKey::new(self.key.framework.clone(), executor.executor_id.clone()))
    }

    /// Whether this executor is the one that runs it.
    #[must_use]
    pub fn is_delegated_to(&self, key: &ExecutorKey) -> bool {
        self.key.framework == key.framework
            && self.info.executor.as_ref().is_some_and(|executor| executor.executor_id == key.executor)
    }

    /// The state that the API shows.
    #[must_use]
    pub fn state(&self) -> TaskState {
        self.shown.state()
    }

    /// Writes an update into what the API shows. Only the latest status of each run of equal states is
    /// kept, without its data, as Mesos keeps them.
    pub fn show(&mut self, status: &TaskStatus) {
        let shown = Arc::make_mut(&mut self.shown);
        shown.state = status.state;
        if shown.statuses.last().is_some_and(|last| last.state == status.state) {
            shown.statuses.pop();
        }
        shown.statuses.push(TaskStatus { data: None, ..status.clone() });
    }

    /// Writes down which update was sent last.
    pub fn show_sent(&mut self, status: &TaskStatus) {
        let shown = Arc::make_mut(&mut self.shown);
        shown.status_update_state = Some(status.state);
        shown.status_update_uuid.clone_from(&status.uuid);
    }

    /// The task as a coordinator may know it that the agent registers with: not ended as long as something of its container
    /// may be there, as its last update is held until then. What it holds would be offered to others.
    #[must_use]
    pub fn as_told(&self) -> v1::Task {
        let mut told = (*self.shown).clone();
        if self.has_container() && is_terminal(told.state()) {
            told.statuses.pop();
            let before = told.statuses.last().map_or(TaskState::TaskStaging as i32, |status| status.state);
            told.state = before;
        }
        told
    }

    /// The task as history.
    #[must_use]
    pub fn completed(&self) -> CompletedTask {
        CompletedTask {
            info: self.info.clone(),
            container: self.container.clone(),
            directory: self.directory.clone(),
            shown: self.shown.clone(),
        }
    }
}

/// How the API shows a task that was just taken on.
#[must_use]
pub fn shown(key: &TaskKey, info: &TaskInfo) -> v1::Task {
    v1::Task {
        name: info.name.clone(),
        task_id: key.task.clone(),
        framework_id: key.framework.clone(),
        executor_id: info.executor.as_ref().map(|executor| executor.executor_id.clone()),
        agent_id: info.agent_id.clone(),
        state: TaskState::TaskStaging as i32,
        resources: info.resources.clone(),
        labels: info.labels.clone(),
        discovery: info.discovery.clone(),
        container: info.container.clone(),
        health_check: info.health_check.clone(),
        kill_policy: info.kill_policy,
        // Mesos shows the user only when the task or its executor names one.
        user: (info.command.as_ref().and_then(|c| c.user.clone()))
            .or_else(|| info.executor.as_ref()?.command.as_ref()?.user.clone()),
        limits: info.limits.clone(),
        ..v1::Task::default()
    }
}
