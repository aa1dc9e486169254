//! The events that schedulers and operators are sent, as messages.

use std::sync::Arc;
use std::time::Duration;

use tepui_api::v1::master::event as operator;
use tepui_api::v1::scheduler::{Event, event};
use tepui_api::v1::task_status::{Reason, Source};
use tepui_api::v1::{
    AgentId, ExecutorId, FrameworkId, InverseOffer, MasterInfo, Offer, OfferId, OperationId, OperationState,
    OperationStatus, Task, TaskId, TaskState, TaskStatus, TimeInfo, master,
};

use super::HEARTBEAT;

/// Whether a task that reached this state stays in it.
pub(super) fn is_terminal(state: TaskState) -> bool {
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

/// Whether a task in this state uses nothing, as far as the coordinator is concerned.
pub(super) fn holds_nothing(state: TaskState) -> bool {
    is_terminal(state) || state == TaskState::TaskUnreachable
}

/// A moment on the wire.
pub(super) fn time_info(wall: Duration) -> TimeInfo {
    TimeInfo { nanoseconds: i64::try_from(wall.as_nanos()).unwrap_or(i64::MAX) }
}

/// What the coordinator itself says of a task. It is not acknowledged, so it has no `uuid`.
pub(super) struct Verdict<'a> {
    pub(super) task: &'a TaskId,
    pub(super) agent: Option<&'a AgentId>,
    pub(super) executor: Option<&'a ExecutorId>,
    pub(super) state: TaskState,
    pub(super) reason: Reason,
    pub(super) message: String,
}

impl Verdict<'_> {
    pub(super) fn status(self, wall: Duration) -> TaskStatus {
        TaskStatus {
            task_id: self.task.clone(),
            agent_id: self.agent.cloned(),
            executor_id: self.executor.cloned(),
            state: self.state.into(),
            source: Some(Source::Master.into()),
            reason: Some(self.reason.into()),
            message: Some(self.message),
            timestamp: Some(wall.as_secs_f64()),
            ..Default::default()
        }
    }
}

/// The state of a task as reconciliation answers it: what its framework was told last.
pub(super) fn known_state(task: &Task, message: &str, reason: Reason, wall: Duration) -> TaskStatus {
    let state = if task.status_update_state.is_some() { task.status_update_state() } else { task.state() };
    latest(task, state, message, reason, wall)
}

/// A task in a given state with the health, checks and container it was last seen with.
pub(super) fn latest(
    task: &Task,
    state: TaskState,
    message: &str,
    reason: Reason,
    wall: Duration,
) -> TaskStatus {
    let verdict = Verdict {
        task: &task.task_id,
        agent: Some(&task.agent_id),
        executor: task.executor_id.as_ref(),
        state,
        reason,
        message: message.to_owned(),
    };
    let last = task.statuses.last();
    TaskStatus {
        healthy: last.and_then(|status| status.healthy),
        check_status: last.and_then(|status| status.check_status),
        container_status: task.statuses.iter().rev().find_map(|status| status.container_status.clone()),
        ..verdict.status(wall)
    }
}

// === for schedulers ===

fn of(r#type: event::Type) -> Event {
    Event { r#type: Some(r#type.into()), ..Default::default() }
}

pub(super) fn subscribed(framework_id: &FrameworkId, master: &MasterInfo) -> Arc<Event> {
    Arc::new(Event {
        subscribed: Some(event::Subscribed {
            framework_id: framework_id.clone(),
            heartbeat_interval_seconds: Some(HEARTBEAT.as_secs_f64()),
            master_info: Some(master.clone()),
        }),
        ..of(event::Type::Subscribed)
    })
}

pub(super) fn heartbeat() -> Arc<Event> {
    Arc::new(of(event::Type::Heartbeat))
}

pub(super) fn error(message: impl Into<String>) -> Arc<Event> {
    Arc::new(Event { error: Some(event::Error { message: message.into() }), ..of(event::Type::Error) })
}

pub(super) fn offers(offers: Vec<Offer>) -> Arc<Event> {
    Arc::new(Event { offers: Some(event::Offers { offers }), ..of(event::Type::Offers) })
}

pub(super) fn rescind(offer_id: OfferId) -> Arc<Event> {
    Arc::new(Event { rescind: Some(event::Rescind { offer_id }), ..of(event::Type::Rescind) })
}

pub(super) fn inverse_offers(inverse_offers: Vec<InverseOffer>) -> Arc<Event> {
    Arc::new(Event {
        inverse_offers: Some(event::InverseOffers { inverse_offers }),
        ..of(event::Type::InverseOffers)
    })
}

pub(super) fn rescind_inverse(inverse_offer_id: OfferId) -> Arc<Event> {
    Arc::new(Event {
        rescind_inverse_offer: Some(event::RescindInverseOffer { inverse_offer_id }),
        ..of(event::Type::RescindInverseOffer)
    })
}

pub(super) fn update(status: TaskStatus) -> Arc<Event> {
    Arc::new(Event { update: Some(event::Update { status }), ..of(event::Type::Update) })
}

pub(super) fn operation(
    operation_id: OperationId,
    state: OperationState,
    message: &str,
    agent_id: Option<AgentId>,
) -> Arc<Event> {
    let status = OperationStatus {
        operation_id: Some(operation_id),
        state: state.into(),
        message: Some(message.to_owned()),
        agent_id,
        ..Default::default()
    };
    Arc::new(Event {
        update_operation_status: Some(event::UpdateOperationStatus { status }),
        ..of(event::Type::UpdateOperationStatus)
    })
}

pub(super) fn message(agent_id: AgentId, executor_id: ExecutorId, data: Vec<u8>) -> Arc<Event> {
    Arc::new(Event {
        message: Some(event::Message { agent_id, executor_id, data }),
        ..of(event::Type::Message)
    })
}

/// An executor ended, or with neither executor nor status an agent is gone.
pub(super) fn failure(agent_id: AgentId, executor: Option<(ExecutorId, i32)>) -> Arc<Event> {
    let (executor_id, status) = executor.unzip();
    Arc::new(Event {
        failure: Some(event::Failure { agent_id: Some(agent_id), executor_id, status }),
        ..of(event::Type::Failure)
    })
}

// === for operators ===

fn notice(r#type: operator::Type) -> master::Event {
    master::Event { r#type: Some(r#type.into()), ..Default::default() }
}

pub(super) fn task_added(task: &Task) -> master::Event {
    master::Event {
        task_added: Some(operator::TaskAdded { task: task.clone() }),
        ..notice(operator::Type::TaskAdded)
    }
}

pub(super) fn task_updated(framework_id: FrameworkId, status: TaskStatus, state: TaskState) -> master::Event {
    let updated = operator::TaskUpdated { framework_id, status, state: state.into() };
    master::Event { task_updated: Some(updated), ..notice(operator::Type::TaskUpdated) }
}

pub(super) fn framework_added(framework: &super::Framework) -> master::Event {
    master::Event {
        framework_added: Some(operator::FrameworkAdded { framework: framework.to_wire() }),
        ..notice(operator::Type::FrameworkAdded)
    }
}

pub(super) fn framework_updated(framework: &super::Framework) -> master::Event {
    master::Event {
        framework_updated: Some(operator::FrameworkUpdated { framework: framework.to_wire() }),
        ..notice(operator::Type::FrameworkUpdated)
    }
}

pub(super) fn framework_removed(framework: &super::Framework) -> master::Event {
    master::Event {
        framework_removed: Some(operator::FrameworkRemoved { framework_info: (*framework.info).clone() }),
        ..notice(operator::Type::FrameworkRemoved)
    }
}

pub(super) fn agent_added(agent: &super::Agent) -> master::Event {
    master::Event {
        agent_added: Some(operator::AgentAdded { agent: agent.to_wire() }),
        ..notice(operator::Type::AgentAdded)
    }
}

pub(super) fn agent_removed(agent_id: AgentId) -> master::Event {
    master::Event {
        agent_removed: Some(operator::AgentRemoved { agent_id }),
        ..notice(operator::Type::AgentRemoved)
    }
}
