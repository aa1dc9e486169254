//! What status updates say: states, sources, reasons and messages, as Mesos' command executor and agent
//! set them.
//!
//! An update about a task whose container runs comes from "the executor" (`SOURCE_EXECUTOR`), though
//! no executor process exists, and carries the container's status. What the agent decides itself (a
//! launch that failed, a limit that was exceeded) is `SOURCE_AGENT`, with a reason and without a container.

use std::time::Duration;

use tepui_api::v1::task_status::{Reason, Source};
use tepui_api::v1::{
    AgentId, ContainerId, ContainerStatus, ExecutorId, FrameworkInfo, NetworkInfo, Resource,
    TaskResourceLimitation, TaskState, TaskStatus, framework_info::capability, network_info::IpAddress,
};

use super::input::Limitation;
use super::task::{Task, TaskKey};

/// What an update says beyond whom it is about.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The state.
    pub state: TaskState,
    /// Who says so.
    pub source: Source,
    /// Why, for machines.
    pub reason: Option<Reason>,
    /// Why, for people.
    pub message: Option<String>,
    /// The resources whose limit was exceeded.
    pub limited: Vec<Resource>,
    /// Set when the task's health is why it ended.
    pub healthy: Option<bool>,
}

// === impl Verdict ===

impl Verdict {
    /// What a command executor says without a reason.
    #[must_use]
    pub fn executor(state: TaskState) -> Self {
        Self {
            state,
            source: Source::Executor,
            reason: None,
            message: None,
            limited: Vec::new(),
            healthy: None,
        }
    }

    /// What the agent itself says.
    pub fn agent(state: TaskState, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            state,
            source: Source::Agent,
            reason: Some(reason),
            message: Some(message.into()),
            limited: Vec::new(),
            healthy: None,
        }
    }

    /// The container exceeded a limit, and was ended for it.
    #[must_use]
    pub fn limitation(limitation: &Limitation) -> Self {
        Self {
            limited: limitation.resources.clone(),
            ..Self::agent(TaskState::TaskFailed, limitation.reason, limitation.message.clone())
        }
    }

    /// The container's first process ended with this wait(2) status, unasked.
    #[must_use]
    pub fn exited(status: i32) -> Self {
        let state = if status == 0 { TaskState::TaskFinished } else { TaskState::TaskFailed };
        Self { message: Some(wait_words(status)), ..Self::executor(state) }
    }
}

/// The status of a task, without its container.
#[must_use]
pub fn task_status(
    key: &TaskKey,
    agent: &AgentId,
    executor: Option<ExecutorId>,
    uuid: [u8; 16],
    unix: Duration,
    verdict: Verdict,
) -> TaskStatus {
    TaskStatus {
        task_id: key.task.clone(),
        state: verdict.state as i32,
        message: verdict.message,
        source: Some(verdict.source as i32),
        reason: verdict.reason.map(|reason| reason as i32),
        agent_id: Some(agent.clone()),
        executor_id: executor,
        timestamp: Some(unix.as_secs_f64()),
        uuid: Some(uuid.to_vec()),
        healthy: verdict.healthy,
        limitation: (!verdict.limited.is_empty())
            .then_some(TaskResourceLimitation { resources: verdict.limited }),
        ..TaskStatus::default()
    }
}

/// The executor that a task's updates name: its own, or for a command task one with the task's id.
#[must_use]
pub fn executor_id(task: &Task) -> ExecutorId {
    match &task.info.executor {
        Some(executor) => executor.executor_id.clone(),
        None => ExecutorId::new(task.key.task.value.clone()),
    }
}

/// A container's status. Without networks of its own it is reached at the agent's address.
#[must_use]
pub fn container_status(
    id: &ContainerId,
    pid: Option<u32>,
    networks: &[NetworkInfo],
    agent_ip: &str,
) -> ContainerStatus {
    let network_infos = if networks.is_empty() {
        let address = IpAddress { ip_address: Some(agent_ip.to_owned()), ..IpAddress::default() };
        vec![NetworkInfo { ip_addresses: vec![address], ..NetworkInfo::default() }]
    } else {
        networks.to_vec()
    };
    ContainerStatus {
        container_id: Some(id.clone()),
        network_infos,
        executor_pid: pid,
        ..ContainerStatus::default()
    }
}

/// Whether nothing follows this state.
#[must_use]
pub fn is_terminal(state: TaskState) -> bool {
    match state {
        TaskState::TaskFinished
        | TaskState::TaskFailed
        | TaskState::TaskKilled
        | TaskState::TaskError
        | TaskState::TaskLost
        | TaskState::TaskDropped
        | TaskState::TaskGone
        | TaskState::TaskGoneByOperator => true,
        TaskState::TaskStaging
        | TaskState::TaskStarting
        | TaskState::TaskRunning
        | TaskState::TaskKilling
        | TaskState::TaskUnreachable
        | TaskState::TaskUnknown => false,
    }
}

/// Whether the framework said it can handle something.
#[must_use]
pub fn can(framework: &FrameworkInfo, capability: capability::Type) -> bool {
    framework.capabilities.iter().any(|c| c.r#type() == capability)
}

/// The state of a task that was never launched: `TASK_DROPPED`, or `TASK_LOST` for a framework that
/// does not know partitions.
#[must_use]
pub fn dropped(framework: &FrameworkInfo) -> TaskState {
    if can(framework, capability::Type::PartitionAware) {
        TaskState::TaskDropped
    } else {
        TaskState::TaskLost
    }
}

/// A wait(2) status in Mesos' words.
#[must_use]
pub fn wait_words(status: i32) -> String {
    let signal = status & 0x7f;
    if signal == 0 {
        return format!("Command exited with status {}", (status >> 8) & 0xff);
    }
    let core = if status & 0x80 == 0 { "" } else { " (core dumped)" };
    match usize::try_from(signal).ok().and_then(|n| SIGNALS.get(n - 1)) {
        Some(name) => format!("Command terminated with signal {name}{core}"),
        None => format!("Command terminated with signal {signal}{core}"),
    }
}

/// What strsignal(3) calls the signals from 1 on.
const SIGNALS: [&str; 31] = [
    "Hangup",
    "Interrupt",
    "Quit",
    "Illegal instruction",
    "Trace/breakpoint trap",
    "Aborted",
    "Bus error",
    "Floating point exception",
    "Killed",
    "User defined signal 1",
    "Segmentation fault",
    "User defined signal 2",
    "Broken pipe",
    "Alarm clock",
    "Terminated",
    "Stack fault",
    "Child exited",
    "Continued",
    "Stopped (signal)",
    "Stopped",
    "Stopped (tty input)",
    "Stopped (tty output)",
    "Urgent I/O condition",
    "CPU time limit exceeded",
    "File size limit exceeded",
    "Virtual timer expired",
    "Profiling timer expired",
    "Window changed",
    "I/O possible",
    "Power failure",
    "Bad system call",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_statuses_have_words() {
        assert_eq!(wait_words(0), "Command exited with status 0");
        assert_eq!(wait_words(3 << 8), "Command exited with status 3");
        assert_eq!(wait_words(9), "Command terminated with signal Killed");
        assert_eq!(wait_words(11 | 0x80), "Command terminated with signal Segmentation fault (core dumped)");
        assert_eq!(wait_words(64), "Command terminated with signal 64");
    }

    #[test]
    fn only_zero_finishes() {
        assert_eq!(Verdict::exited(0).state, TaskState::TaskFinished);
        assert_eq!(Verdict::exited(256).state, TaskState::TaskFailed);
        assert_eq!(Verdict::exited(9).state, TaskState::TaskFailed);
    }
}
