//! The form of the records on disk: protobuf, so that later versions can add fields and still read what
//! earlier ones wrote. Numbers once used are never used again for something else.

use std::time::Duration;

use tepui_api::v1::{ContainerId, ExecutorInfo, FrameworkInfo, TaskInfo};

use super::redact::{redact, redact_executor};
use crate::checks::check::Health;
use crate::core::{ExecutorKey, ExecutorWrite, FrameworkFate, KillCause, KillOrder, TaskKey, TaskWrite};

/// A framework.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FrameworkRecord {
    /// As its scheduler described it.
    #[prost(message, required, tag = "1")]
    pub info: FrameworkInfo,
    /// Its tasks are being ended.
    #[prost(bool, required, tag = "2")]
    pub shutting_down: bool,
}

/// A task.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TaskRecord {
    /// What the framework asked for.
    #[prost(message, required, tag = "1")]
    pub info: TaskInfo,
    /// Its container's id.
    #[prost(string, required, tag = "2")]
    pub container: String,
    /// Its sandbox.
    #[prost(string, required, tag = "3")]
    pub directory: String,
    /// Who it runs as.
    #[prost(string, optional, tag = "4")]
    pub user: Option<String>,
    /// A kill that was begun.
    #[prost(message, optional, tag = "5")]
    pub kill: Option<KillRecord>,
    /// The group that it was launched in.
    #[prost(string, optional, tag = "6")]
    pub group: Option<String>,
    /// The container that its own is nested in.
    #[prost(string, optional, tag = "7")]
    pub parent: Option<String>,
    /// What its health check has found.
    #[prost(message, optional, tag = "10")]
    pub health: Option<HealthRecord>,
}

/// What a health check has found.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct HealthRecord {
    /// It has passed before.
    #[prost(bool, required, tag = "1")]
    pub passed: bool,
    /// Failures in a row.
    #[prost(uint32, required, tag = "2")]
    pub failures: u32,
}

/// An executor of a framework's own. Since format 3.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExecutorRecord {
    /// What the framework asked for.
    #[prost(message, required, tag = "1")]
    pub info: ExecutorInfo,
    /// Its container's id.
    #[prost(string, required, tag = "2")]
    pub container: String,
    /// Its sandbox.
    #[prost(string, required, tag = "3")]
    pub directory: String,
    /// Who it runs as.
    #[prost(string, optional, tag = "4")]
    pub user: Option<String>,
}

/// A kill.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct KillRecord {
    /// Why.
    #[prost(enumeration = "Cause", required, tag = "1")]
    pub cause: i32,
    /// The grace period in nanoseconds.
    #[prost(uint64, required, tag = "2")]
    pub grace: u64,
}

/// Why a task is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Cause {
    /// See [`KillCause::Asked`].
    Asked = 0,
    /// See [`KillCause::CompletionTime`].
    CompletionTime = 1,
    /// See [`KillCause::Abandoned`].
    Abandoned = 2,
    /// See [`KillCause::Unhealthy`].
    Unhealthy = 3,
}

// === impl FrameworkRecord ===

impl FrameworkRecord {
    /// The record of a framework.
    pub fn new(info: &FrameworkInfo, fate: FrameworkFate) -> Self {
        Self { info: info.clone(), shutting_down: fate == FrameworkFate::ShuttingDown }
    }

    /// The framework of a record.
    pub fn into_framework(self) -> (FrameworkInfo, FrameworkFate) {
        let fate = if self.shutting_down { FrameworkFate::ShuttingDown } else { FrameworkFate::Active };
        (self.info, fate)
    }
}

// === impl TaskRecord ===

impl TaskRecord {
    /// The record of a task, without its secrets.
    pub fn new(task: &TaskWrite) -> Self {
        let mut info = (*task.info).clone();
        redact(&mut info);
        Self {
            info,
            container: task.container.value.clone(),
            directory: task.directory.to_string_lossy().into_owned(),
            user: task.user.clone(),
            kill: task.kill.map(KillRecord::new),
            group: task.group.as_deref().map(str::to_owned),
            // That of an executor, which has no parent itself.
            parent: task.container.parent.as_ref().map(|parent| parent.value.clone()),
            health: task.health.map(|Health { passed, failures }| HealthRecord { passed, failures }),
        }
    }

    /// The task of a record.
    pub fn into_task(self, key: TaskKey) -> TaskWrite {
        TaskWrite {
            key,
            info: self.info.into(),
            container: ContainerId {
                parent: self.parent.map(|parent| Box::new(ContainerId::new(parent))),
                ..ContainerId::new(self.container)
            },
            directory: self.directory.into(),
            user: self.user,
            group: self.group.map(Into::into),
            kill: self.kill.map(KillRecord::order),
            health: self.health.map(|HealthRecord { passed, failures }| Health { passed, failures }),
        }
    }
}

// === impl ExecutorRecord ===

impl ExecutorRecord {
    /// The record of an executor, without its secrets.
    pub fn new(executor: &ExecutorWrite) -> Self {
        let mut info = (*executor.info).clone();
        redact_executor(&mut info);
        Self {
            info,
            container: executor.container.value.clone(),
            directory: executor.directory.to_string_lossy().into_owned(),
            user: executor.user.clone(),
        }
    }

    /// The executor of a record.
    pub fn into_executor(self, key: ExecutorKey) -> ExecutorWrite {
        ExecutorWrite {
            key,
            info: self.info.into(),
            container: ContainerId::new(self.container),
            directory: self.directory.into(),
            user: self.user,
        }
    }
}

// === impl KillRecord ===

impl KillRecord {
    fn new(order: KillOrder) -> Self {
        let cause = match order.cause {
            KillCause::Asked => Cause::Asked,
            KillCause::CompletionTime => Cause::CompletionTime,
            KillCause::Abandoned => Cause::Abandoned,
            KillCause::Unhealthy => Cause::Unhealthy,
        };
        Self { cause: cause as i32, grace: u64::try_from(order.grace.as_nanos()).unwrap_or(u64::MAX) }
    }

    fn order(self) -> KillOrder {
        let cause = match self.cause() {
            Cause::Asked => KillCause::Asked,
            Cause::CompletionTime => KillCause::CompletionTime,
            Cause::Abandoned => KillCause::Abandoned,
            Cause::Unhealthy => KillCause::Unhealthy,
        };
        KillOrder { cause, grace: Duration::from_nanos(self.grace) }
    }
}
