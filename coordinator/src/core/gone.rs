//! Agents that an operator declared lost for good.
//!
//! Their tasks count as gone by an operator, or as lost where the framework knows no such state, and their ids are
//! never admitted again: who comes with one is told to shut down. The registry has it before anyone is told.

use tepui_api::link::Shutdown;
use tepui_api::link::coordinator_frame::Body as Frame;
use tepui_api::v1::framework_info::capability::Type as Capability;
use tepui_api::v1::task_status::Reason;
use tepui_api::v1::{AgentId, FrameworkId, TaskId, TaskState, TimeInfo};

use super::events::{self, Verdict};
use super::io::RegistryChange;
use super::leave::Departure;
use super::registry::Pending;
use super::{Core, Reply, RequestId};

/// What is told to agents and of tasks.
pub(super) const MESSAGE: &str = "Agent has been marked gone";

impl Core {
    /// The call `MARK_AGENT_GONE`.
    pub(super) fn mark_gone_call(&mut self, request: RequestId, id: &AgentId) {
        if self.state.gone_agents.contains_key(id) {
            return self.reply(request, Reply::Ok);
        }
        // Whatever the registry is writing of the agent, the call may be repeated when that is done.
        if let Some(what) = self.being_written(id) {
            return self.refuse(request, 503, format!("Agent '{id}' is {what}; try again"));
        }
        if !self.is_known(id) {
            return self.refuse(request, 404, format!("Agent '{id}' not found"));
        }
        tracing::info!(agent = %id, "an operator marks an agent gone");
        self.mark_gone(id, Some(request));
    }

    /// Begins to mark an agent gone of which the registry is writing nothing.
    pub(super) fn mark_gone(&mut self, id: &AgentId, request: Option<RequestId>) {
        let at = events::time_info(self.now.wall);
        let pending = Pending::Gone { agent: id.clone(), at, request };
        self.persist(Some(id), RegistryChange::Gone { agent: id.clone(), at }, pending);
    }

    /// The registry has an agent as gone.
    pub(super) fn gone(&mut self, id: &AgentId, at: TimeInfo) {
        self.state.gone_agents.insert(id.clone(), at);
        self.cancel_removal(id);
        self.forget_deactivation(id);
        if self.agent(id).is_some() {
            self.frame(id, Frame::Shutdown(Shutdown { message: MESSAGE.to_owned() }));
            return self.take_down(id, &Departure::Gone);
        }
        // Of an agent that was awaited no tasks are known yet; who asks for them is told by reconciliation.
        self.state.recovered_agents.remove(id);
        self.state.unreachable_agents.remove(id);
        for (framework, task) in self.unreachable_tasks.remove(id).unwrap_or_default() {
            self.unreachable_task_is_gone(id, &framework, &task);
        }
    }

    fn unreachable_task_is_gone(&mut self, agent: &AgentId, id: &FrameworkId, task_id: &TaskId) {
        let Some(framework) = self.framework(id) else { return };
        let (state, reason) = verdict(framework.has(Capability::PartitionAware));
        let Some(framework) = self.framework_mut(id) else { return };
        if framework.unreachable_tasks.get(task_id).is_none_or(|task| task.agent_id != *agent) {
            return;
        }
        let Some(mut task) = framework.unreachable_tasks.remove(task_id) else { return };
        let verdict = Verdict {
            task: task_id,
            agent: Some(agent),
            executor: task.executor_id.as_ref(),
            state,
            reason,
            message: MESSAGE.to_owned(),
        };
        let status = verdict.status(self.now.wall);
        let ended = std::sync::Arc::make_mut(&mut task);
        // A framework that is not partition-aware had been told that it is lost.
        if !events::is_terminal(ended.state()) {
            ended.set_state(state);
            self.count_end(state);
        }
        ended.statuses.push(status.clone());
        let current = ended.state();
        self.notify(|_| Some(events::task_updated(id.clone(), status.clone(), current)));
        self.remember_task(id, task);
        self.send(id, events::update(status));
    }

    /// Whether an agent is registered, awaited or unreachable.
    pub(super) fn is_known(&self, id: &AgentId) -> bool {
        self.agent(id).is_some()
            || self.state.recovered_agents.contains_key(id)
            || self.state.unreachable_agents.contains_key(id)
    }

    /// Tells what comes with the id of a gone agent to shut down; answers whether it was one.
    pub(super) fn turn_away_gone(&mut self, link: super::LinkId, id: &AgentId) -> bool {
        if !self.state.gone_agents.contains_key(id) {
            return false;
        }
        tracing::warn!(agent = %id, "turned away an agent that is marked gone");
        self.shut_down_link(link, MESSAGE);
        true
    }
}

/// What becomes of the tasks of a gone agent.
pub(super) fn verdict(partition_aware: bool) -> (TaskState, Reason) {
    if partition_aware {
        (TaskState::TaskGoneByOperator, Reason::AgentRemovedByOperator)
    } else {
        (TaskState::TaskLost, Reason::AgentRemoved)
    }
}
