//! Tasks and executors in the books, and what frameworks ask of them.
//!
//! A task is entered in its framework and on its agent when it is launched, or when an agent comes
//! with it. It uses resources until it ends or its agent is unreachable; it is kept until its framework
//! has acknowledged the update that says so.

use std::sync::Arc;

use tepui_api::link::{
    Acknowledge as AcknowledgeFrame, FrameworkMessage, KillTask, ShutdownExecutor,
    coordinator_frame::Body as Frame,
};
use tepui_api::resources::Resources;
use tepui_api::v1::scheduler::call;
use tepui_api::v1::task_status::Reason;
use tepui_api::v1::{
    AgentId, ExecutorId, ExecutorInfo, FrameworkId, Task, TaskId, TaskInfo, TaskState, TaskStatus,
};

use super::events::{self, holds_nothing, is_terminal};
use super::{Core, Framework};
use crate::allocator::Return;

impl Core {
    /// Enters a task that has been charged, or that uses nothing any more.
    pub(super) fn add_task(&mut self, task: Task, resources: &Resources) {
        let (framework, agent) = (task.framework_id.clone(), task.agent_id.clone());
        let uses = !holds_nothing(task.state());
        let task = Arc::new(task);
        if let Some(agent) = self.agent_mut(&agent) {
            agent.tasks.insert((framework.clone(), task.task_id.clone()));
        }
        if let Some(framework) = self.framework_mut(&framework) {
            framework.tasks.insert(task.task_id.clone(), task.clone());
        }
        if uses {
            self.enter_use(&framework, &agent, resources);
        }
        self.notify(|_| Some(events::task_added(&task)));
    }

    /// Enters an executor that has been charged, unless it is there; answers whether it was not.
    pub(super) fn add_executor(
        &mut self,
        framework_id: &FrameworkId,
        agent_id: &AgentId,
        info: &ExecutorInfo,
        resources: &Resources,
    ) -> bool {
        let key = (agent_id.clone(), info.executor_id.clone());
        let Some(framework) = self.framework_mut(framework_id) else { return false };
        if framework.executors.contains_key(&key) {
            return false;
        }
        framework.executors.insert(key, Arc::new(info.clone()));
        if let Some(agent) = self.agent_mut(agent_id) {
            agent.executors.insert((framework_id.clone(), info.executor_id.clone()));
        }
        self.enter_use(framework_id, agent_id, resources);
        true
    }

    /// Takes an executor out of the books, and its resources back. Answers whether it was there.
    pub(super) fn remove_executor(
        &mut self,
        agent_id: &AgentId,
        framework_id: &FrameworkId,
        executor_id: &ExecutorId,
    ) -> bool {
        let key = (agent_id.clone(), executor_id.clone());
        let Some(framework) = self.framework_mut(framework_id) else { return false };
        let Some(info) = framework.executors.remove(&key) else { return false };
        if let Some(agent) = self.agent_mut(agent_id) {
            agent.executors.remove(&(framework_id.clone(), executor_id.clone()));
        }
        self.leave_use(framework_id, agent_id, &Resources::from_wire_lossy(&info.resources));
        true
    }

    /// Takes in what is newly known of a task; `latest` is the state it has by now, when that is known to
    /// be later than the one in `status`. Resources come back with the first state that uses none.
    pub(super) fn update_task(
        &mut self,
        id: &FrameworkId,
        task_id: &TaskId,
        status: TaskStatus,
        latest: Option<TaskState>,
    ) {
        let Some(task) = self.framework_mut(id).and_then(|framework| framework.tasks.get_mut(task_id)) else {
            return;
        };
        let task = Arc::make_mut(task);
        let (state, reason) = (status.state(), status.reason.map(|_| status.reason()));
        let before = task.state();
        if !is_terminal(before) {
            task.set_state(latest.unwrap_or(state));
        }
        let ended = !holds_nothing(before) && holds_nothing(task.state());
        let repeated = task.statuses.last().is_some_and(|last| last.state == status.state);
        if repeated {
            task.statuses.pop();
        }
        // Its data may be large, and nobody asks for it later.
        task.statuses.push(TaskStatus { data: None, ..status.clone() });
        let (agent, current) = (task.agent_id.clone(), task.state());
        let resources = ended.then(|| Resources::from_wire_lossy(&task.resources));
        let checked =
            matches!(reason, Some(Reason::TaskCheckStatusUpdated | Reason::TaskHealthCheckStatusUpdated));
        if !repeated || checked {
            self.notify(|_| Some(events::task_updated(id.clone(), status, current)));
        }
        if let Some(resources) = resources {
            self.count_end(state);
            self.leave_use(id, &agent, &resources);
        }
    }

    /// Takes a task out of the books, to be remembered among those that ended or are unreachable.
    pub(super) fn remove_task(&mut self, id: &FrameworkId, task_id: &TaskId, unreachable: bool) {
        let limit = self.settings.max_unreachable_tasks_per_framework;
        let Some(task) = self.framework_mut(id).and_then(|framework| framework.tasks.remove(task_id)) else {
            return;
        };
        debug_assert!(holds_nothing(task.state()), "a task is removed when it uses nothing");
        let agent_id = task.agent_id.clone();
        if let Some(agent) = self.agent_mut(&agent_id) {
            agent.tasks.remove(&(id.clone(), task_id.clone()));
            if agent.tasks.is_empty() && agent.deactivation.is_some() {
                self.deactivations.to_check.insert(agent_id.clone());
            }
        }
        if let Some(kills) = self.kills.get_mut(&agent_id) {
            kills.remove(&(id.clone(), task_id.clone()));
        }
        if !unreachable {
            return self.remember_task(id, task);
        }
        if let Some(framework) = self.framework_mut(id) {
            framework.unreachable_tasks.insert(task, limit);
        }
        self.unreachable_tasks.entry(agent_id).or_default().push((id.clone(), task_id.clone()));
    }

    pub(super) fn remember_task(&mut self, id: &FrameworkId, task: Arc<Task>) {
        let limit = self.settings.max_completed_tasks_per_framework;
        if let Some(framework) = self.framework_mut(id) {
            framework.completed_tasks.push_back(task);
            while framework.completed_tasks.len() > limit {
                framework.completed_tasks.pop_front();
            }
        }
    }

    fn enter_use(&mut self, framework_id: &FrameworkId, agent_id: &AgentId, resources: &Resources) {
        if resources.is_empty() {
            return;
        }
        if let Some(agent) = self.agent_mut(agent_id) {
            *agent.used.entry(framework_id.clone()).or_default() += resources;
        }
        if let Some(framework) = self.framework_mut(framework_id) {
            *framework.used.entry(agent_id.clone()).or_default() += resources;
        }
    }

    fn leave_use(&mut self, framework_id: &FrameworkId, agent_id: &AgentId, resources: &Resources) {
        if resources.is_empty() {
            return;
        }
        if let Some(agent) = self.agent_mut(agent_id)
            && let Some(used) = agent.used.get_mut(framework_id)
        {
            debug_assert!(used.contains(resources), "what ends has been in use");
            *used -= resources;
            if used.is_empty() {
                agent.used.remove(framework_id);
            }
        }
        if let Some(framework) = self.framework_mut(framework_id)
            && let Some(used) = framework.used.get_mut(agent_id)
        {
            *used -= resources;
            if used.is_empty() {
                framework.used.remove(agent_id);
            }
        }
        self.give_back(framework_id, agent_id, resources, Return::Ended);
    }

    pub(super) fn count_end(&mut self, state: TaskState) {
        let counters = &mut self.state.counters;
        match state {
            TaskState::TaskFinished => counters.tasks_finished += 1,
            TaskState::TaskFailed => counters.tasks_failed += 1,
            TaskState::TaskKilled => counters.tasks_killed += 1,
            TaskState::TaskLost => counters.tasks_lost += 1,
            TaskState::TaskError => counters.tasks_error += 1,
            TaskState::TaskDropped => counters.tasks_dropped += 1,
            TaskState::TaskGone => counters.tasks_gone += 1,
            TaskState::TaskGoneByOperator => counters.tasks_gone_by_operator += 1,
            TaskState::TaskStaging
            | TaskState::TaskStarting
            | TaskState::TaskRunning
            | TaskState::TaskKilling
            | TaskState::TaskUnreachable
            | TaskState::TaskUnknown => {}
        }
    }

    // --- what frameworks ask

    pub(super) fn kill(&mut self, id: &FrameworkId, kill: call::Kill) {
        self.state.counters.messages_kill_task += 1;
        let Some(task) = self.framework(id).and_then(|framework| framework.tasks.get(&kill.task_id)) else {
            let task = call::reconcile::Task { task_id: kill.task_id, agent_id: kill.agent_id };
            return self.reconcile(id, call::Reconcile { tasks: vec![task] });
        };
        let agent = task.agent_id.clone();
        if kill.agent_id.as_ref().is_some_and(|named| *named != agent) {
            tracing::warn!(framework = %id, task = %kill.task_id, "ignored a kill of a task on another agent");
            return;
        }
        // Whether or not the frame arrives: the agent is told again when it registers.
        self.kills.entry(agent.clone()).or_default().insert((id.clone(), kill.task_id.clone()));
        let frame =
            KillTask { framework_id: id.clone(), task_id: kill.task_id, kill_policy: kill.kill_policy };
        self.frame(&agent, Frame::KillTask(frame));
    }

    pub(super) fn acknowledge(&mut self, id: &FrameworkId, acknowledge: call::Acknowledge) {
        let call::Acknowledge { agent_id, task_id, uuid } = acknowledge;
        self.state.counters.messages_status_update_acknowledgement += 1;
        if self.agent(&agent_id).is_none_or(|agent| !agent.connected()) {
            // It sends the update again when it is back.
            self.state.counters.invalid_status_update_acknowledgements += 1;
            return;
        }
        let task = self.framework(id).and_then(|framework| framework.tasks.get(&task_id));
        if let Some(task) = task.filter(|task| task.agent_id == agent_id) {
            if task.status_update_state.is_none() {
                // Sent by a coordinator before this one; the agent will send it again.
                self.state.counters.invalid_status_update_acknowledgements += 1;
                return;
            }
            let last = task.status_update_uuid.as_ref() == Some(&uuid);
            if last && is_terminal(task.status_update_state()) {
                self.remove_task(id, &task_id, false);
            }
        }
        self.state.counters.valid_status_update_acknowledgements += 1;
        let frame = AcknowledgeFrame { framework_id: id.clone(), task_id, uuid };
        self.frame(&agent_id, Frame::Acknowledge(frame));
    }

    pub(super) fn message(&mut self, id: &FrameworkId, message: call::Message) {
        let call::Message { agent_id, executor_id, data } = message;
        self.state.counters.messages_framework_to_executor += 1;
        if self.agent(&agent_id).is_none_or(|agent| !agent.connected()) {
            self.state.counters.invalid_framework_to_executor_messages += 1;
            return;
        }
        self.state.counters.valid_framework_to_executor_messages += 1;
        let frame = FrameworkMessage { framework_id: id.clone(), executor_id, data };
        self.frame(&agent_id, Frame::Message(frame));
    }

    pub(super) fn shutdown_executor(&mut self, id: &FrameworkId, shutdown: call::Shutdown) {
        let frame = ShutdownExecutor { framework_id: id.clone(), executor_id: shutdown.executor_id };
        self.frame(&shutdown.agent_id, Frame::ShutdownExecutor(frame));
    }

    /// A task in the books, wherever it is.
    pub(super) fn task(&self, id: &FrameworkId, task: &TaskId) -> Option<&Arc<Task>> {
        self.framework(id).and_then(|framework: &Framework| framework.tasks.get(task))
    }
}

/// A task that is being launched.
pub(super) fn new_task(info: &TaskInfo, framework: &FrameworkId) -> Task {
    let command =
        info.command.as_ref().or(info.executor.as_ref().and_then(|executor| executor.command.as_ref()));
    Task {
        name: info.name.clone(),
        task_id: info.task_id.clone(),
        framework_id: framework.clone(),
        executor_id: info.executor.as_ref().map(|executor| executor.executor_id.clone()),
        agent_id: info.agent_id.clone(),
        state: TaskState::TaskStaging.into(),
        resources: info.resources.clone(),
        labels: info.labels.clone(),
        discovery: info.discovery.clone(),
        container: info.container.clone(),
        health_check: info.health_check.clone(),
        kill_policy: info.kill_policy,
        user: command.and_then(|command| command.user.clone()),
        limits: info.limits.clone(),
        ..Default::default()
    }
}
