//! What agents report: updates of tasks, messages of executors, the ends of executors.
//!
//! An update goes to its framework as it came, in the order in which the agent sends them; the agent
//! repeats it until it is acknowledged, so one for a framework that is away is only taken note of.

use std::sync::Arc;

use tepui_api::link::{ExecutorExited, ExecutorMessage, StatusUpdate};
use tepui_api::v1::{AgentId, TaskState, TaskStatus};

use super::events::{self, is_terminal};
use super::{Core, Framework};

impl Core {
    pub(super) fn status_update(&mut self, agent: &AgentId, update: StatusUpdate) {
        self.state.counters.messages_status_update += 1;
        let (state, latest) = (update.status.state(), update.latest_state());
        if never_from_agents(state) || never_from_agents(latest) {
            tracing::warn!(%agent, state = state.as_str_name(), "ignored an update with a state that no agent can know");
            self.state.counters.invalid_status_updates += 1;
            return;
        }
        // A task that ended stays so.
        let latest = if is_terminal(state) { state } else { latest };
        let StatusUpdate { framework_id: id, status, .. } = update;
        let status = TaskStatus { agent_id: Some(agent.clone()), ..status };
        let task_id = status.task_id.clone();
        let connected = self.framework(&id).is_some_and(Framework::connected);
        let known = self.task(&id, &task_id).is_some_and(|task| task.agent_id == *agent);
        if connected && known && status.uuid.is_some() {
            let task = self.framework_mut(&id).and_then(|framework| framework.tasks.get_mut(&task_id));
            if let Some(task) = task.map(Arc::make_mut) {
                task.status_update_state = Some(status.state);
                task.status_update_uuid.clone_from(&status.uuid);
            }
        }
        if connected {
            tracing::debug!(framework = %id, task = %task_id, state = status.state().as_str_name(), "forwarding an update");
            self.send(&id, events::update(status.clone()));
        } else {
            tracing::warn!(framework = %id, task = %task_id, "took note of an update for a framework that is away");
        }
        if known {
            self.update_task(&id, &task_id, status, Some(latest));
        }
        if connected && known {
            self.state.counters.valid_status_updates += 1;
        } else {
            self.state.counters.invalid_status_updates += 1;
        }
    }

    pub(super) fn executor_message(&mut self, agent: &AgentId, message: ExecutorMessage) {
        let ExecutorMessage { framework_id, executor_id, data } = message;
        self.state.counters.messages_executor_to_framework += 1;
        if !self.framework(&framework_id).is_some_and(Framework::connected) {
            self.state.counters.invalid_executor_to_framework_messages += 1;
            return;
        }
        self.state.counters.valid_executor_to_framework_messages += 1;
        self.send(&framework_id, events::message(agent.clone(), executor_id, data));
    }

    pub(super) fn executor_exited(&mut self, agent: &AgentId, exited: ExecutorExited) {
        let ExecutorExited { framework_id, executor_id, status } = exited;
        // Updates of the executor's tasks come from the agent by themselves.
        if self.remove_executor(agent, &framework_id, &executor_id) {
            self.send(&framework_id, events::failure(agent.clone(), Some((executor_id, status))));
        }
    }
}

/// States in which the coordinator puts a task whose agent it does not hear.
fn never_from_agents(state: TaskState) -> bool {
    matches!(state, TaskState::TaskUnreachable | TaskState::TaskUnknown)
}
