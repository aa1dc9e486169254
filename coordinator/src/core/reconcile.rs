//! Reconciliation: what the coordinator knows of tasks, and what it knows it does not.
//!
//! A task that is known is answered with the state its framework was told last. Of one that is not, the agent
//! decides: awaited, no answer yet; registered, gone; unreachable, so is the task; gone, gone by an operator;
//! unknown too, unknown. Frameworks without `PARTITION_AWARE` are told that the task is lost in each of these cases.

use tepui_api::v1::framework_info::capability::Type as Capability;
use tepui_api::v1::scheduler::call::reconcile_operations::Operation;
use tepui_api::v1::scheduler::call::{Reconcile, ReconcileOperations, reconcile};
use tepui_api::v1::task_status::Reason;
use tepui_api::v1::{FrameworkId, OperationState, TaskState, TaskStatus};

use super::events::{self, Verdict};
use super::{Core, Framework};

impl Core {
    pub(super) fn reconcile(&mut self, id: &FrameworkId, reconcile: Reconcile) {
        self.state.counters.messages_reconcile_tasks += 1;
        let Some(framework) = self.framework(id) else { return };
        let statuses: Vec<TaskStatus> = if reconcile.tasks.is_empty() {
            let tasks = framework.tasks.values();
            tasks
                .map(|task| {
                    events::known_state(
                        task,
                        "Reconciliation: Latest task state",
                        Reason::Reconciliation,
                        self.now.wall,
                    )
                })
                .collect()
        } else {
            reconcile.tasks.iter().filter_map(|asked| self.reconcile_one(framework, asked)).collect()
        };
        for status in statuses {
            self.send(id, events::update(status));
        }
    }

    fn reconcile_one(&self, framework: &Framework, asked: &reconcile::Task) -> Option<TaskStatus> {
        let wall = self.now.wall;
        if let Some(task) = framework.tasks.get(&asked.task_id) {
            let message = "Reconciliation: Latest task state";
            return Some(events::known_state(task, message, Reason::Reconciliation, wall));
        }
        let awaited = match &asked.agent_id {
            Some(agent) => self.state.recovered_agents.contains_key(agent),
            // It may be on any of those that are awaited.
            None => !self.state.recovered_agents.is_empty(),
        };
        if awaited {
            return None;
        }
        let agent = asked.agent_id.as_ref();
        let since = agent.and_then(|agent| self.state.unreachable_agents.get(agent)).copied();
        let (state, message) = if agent.is_some_and(|agent| self.agent(agent).is_some()) {
            (TaskState::TaskGone, "Reconciliation: Task is unknown to the agent")
        } else if since.is_some() {
            (TaskState::TaskUnreachable, "Reconciliation: Task is unreachable")
        } else if agent.is_some_and(|agent| self.state.gone_agents.contains_key(agent)) {
            (TaskState::TaskGoneByOperator, "Reconciliation: Task is gone")
        } else {
            (TaskState::TaskUnknown, "Reconciliation: Task is unknown")
        };
        let aware = framework.has(Capability::PartitionAware);
        let verdict = Verdict {
            task: &asked.task_id,
            agent,
            executor: None,
            state: if aware { state } else { TaskState::TaskLost },
            reason: Reason::Reconciliation,
            message: message.to_owned(),
        };
        Some(TaskStatus { unreachable_time: since, ..verdict.status(wall) })
    }

    /// There are no operations yet, so only what is known of the agent can be told.
    pub(super) fn reconcile_operations(&mut self, id: &FrameworkId, reconcile: ReconcileOperations) {
        for Operation { operation_id, agent_id, .. } in reconcile.operations {
            let agent = agent_id.as_ref();
            let (state, message) =
                if agent.is_some_and(|agent| self.state.recovered_agents.contains_key(agent)) {
                    (OperationState::OperationRecovering, "Reconciliation: the agent has not come back yet")
                } else if agent.is_some_and(|agent| self.state.unreachable_agents.contains_key(agent)) {
                    (OperationState::OperationUnreachable, "Reconciliation: the agent is unreachable")
                } else if agent.is_some_and(|agent| self.state.gone_agents.contains_key(agent)) {
                    (OperationState::OperationGoneByOperator, "Reconciliation: the agent is gone")
                } else {
                    (OperationState::OperationUnknown, "Reconciliation: the operation is unknown")
                };
            self.send(id, events::operation(operation_id, state, message, agent_id));
        }
    }
}
