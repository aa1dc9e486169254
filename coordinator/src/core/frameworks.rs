//! How frameworks go: disconnected, given up, torn down. And what they say of their roles.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tepui_api::link::coordinator_frame::Body as Frame;
use tepui_api::resources::roles;
use tepui_api::v1::task_status::Reason;
use tepui_api::v1::{AgentId, FrameworkId, TaskId, TaskState};

use super::events::{self, Verdict};
use super::timers::Timer;
use super::{Connection, Core, Framework, Output, StreamId};

impl Core {
    pub(super) fn stream_closed(&mut self, stream: StreamId) {
        let Some(id) = self.streams.remove(&stream) else { return };
        let uptime = self.now.uptime;
        let Some(framework) = self.framework_mut(&id) else { return };
        // The checks at subscription keep it within what nanoseconds can hold.
        let timeout = Duration::try_from_secs_f64(framework.info.failover_timeout()).unwrap_or_default();
        let until = uptime.saturating_add(timeout);
        framework.connection = Connection::Disconnected { until };
        let (key, offers) = (framework.key, framework.offers.keys().copied().collect::<Vec<_>>());
        tracing::info!(framework = %id, ?timeout, "a framework disconnected and may come back in time");
        self.allocator.deactivate_framework(key);
        for offer in offers {
            self.discard_offer(offer, Duration::ZERO);
        }
        self.void_inverse_offers(&id);
        self.timers.set(until, Timer::FailoverEnds(id));
    }

    pub(super) fn failover_ends(&mut self, id: &FrameworkId) {
        let Some(framework) = self.framework(id) else { return };
        // It may have come back and gone again since, with a later end.
        if matches!(framework.connection, Connection::Disconnected { until } if until <= self.now.uptime) {
            tracing::info!(framework = %id, "a framework did not come back in time");
            self.remove_framework(id);
        }
    }

    /// Ends a framework: its executors and tasks are killed, and count as killed at once.
    pub(super) fn remove_framework(&mut self, id: &FrameworkId) {
        let Some(framework) = self.framework(id) else { return };
        tracing::info!(framework = %id, "a framework is removed");
        let (key, stream) = (framework.key, framework.stream());
        let offers: Vec<_> = framework.offers.keys().copied().collect();
        let tasks: Vec<TaskId> = framework.tasks.keys().cloned().collect();
        let unreachable: Vec<TaskId> =
            framework.unreachable_tasks.iter().map(|t| t.task_id.clone()).collect();
        let executors: Vec<_> = framework.executors.keys().cloned().collect();
        let agents = agents_of(framework);
        self.allocator.deactivate_framework(key);
        for offer in offers {
            self.discard_offer(offer, Duration::ZERO);
        }
        self.void_inverse_offers(id);
        for agent in agents {
            self.frame(&agent, Frame::ShutdownFramework(id.clone()));
        }
        for task in tasks {
            self.end_task(id, &task);
            self.remove_task(id, &task, false);
        }
        for task in unreachable {
            self.end_unreachable_task(id, &task);
        }
        for (agent, executor) in executors {
            self.remove_executor(&agent, id, &executor);
        }
        if let Some(stream) = stream {
            self.out.push(Output::CloseStream { stream });
            self.streams.remove(&stream);
        }
        self.allocator.remove_framework(key);
        self.frameworks_by_key.remove(&key);
        let Some(mut framework) = self.state.frameworks.remove(id) else { return };
        let ended = Arc::make_mut(&mut framework);
        ended.connection = Connection::Completed;
        ended.unregistered = Some(events::time_info(self.now.wall));
        self.notify(|_| Some(events::framework_removed(&framework)));
        self.remember_framework(framework);
    }

    fn remember_framework(&mut self, framework: Arc<Framework>) {
        self.completed_ids.insert(framework.id.clone());
        self.state.completed_frameworks.push_back(framework);
        while self.state.completed_frameworks.len() > self.settings.max_completed_frameworks
            && let Some(oldest) = self.state.completed_frameworks.pop_front()
        {
            self.completed_ids.remove(&oldest.id);
        }
    }

    /// Counts a task of a framework that is removed as killed. Nobody is left to be told but operators.
    fn end_task(&mut self, id: &FrameworkId, task_id: &TaskId) {
        let wall = self.now.wall;
        let Some(task) = self.framework(id).and_then(|framework| framework.tasks.get(task_id)) else {
            return;
        };
        let status = removed_verdict(id, task_id, &task.agent_id, task.executor_id.as_ref()).status(wall);
        self.update_task(id, task_id, status, None);
    }

    fn end_unreachable_task(&mut self, id: &FrameworkId, task_id: &TaskId) {
        let wall = self.now.wall;
        let Some(framework) = self.framework_mut(id) else { return };
        let Some(mut task) = framework.unreachable_tasks.remove(task_id) else { return };
        let status = removed_verdict(id, task_id, &task.agent_id, task.executor_id.as_ref()).status(wall);
        let ended = Arc::make_mut(&mut task);
        if !events::is_terminal(ended.state()) {
            ended.set_state(TaskState::TaskKilled);
        }
        ended.statuses.push(status);
        self.remember_task(id, task);
    }

    pub(super) fn revive(&mut self, id: &FrameworkId, roles: &[String]) {
        self.state.counters.messages_revive_offers += 1;
        let uptime = self.now.uptime;
        if let Some(framework) = self.framework(id).filter(|framework| may_name(framework, roles, "REVIVE")) {
            let key = framework.key;
            self.allocator.revive(key, roles, uptime);
            self.clear_inverse_filters(id);
        }
    }

    pub(super) fn suppress(&mut self, id: &FrameworkId, roles: &[String]) {
        self.state.counters.messages_suppress_offers += 1;
        if let Some(framework) = self.framework(id).filter(|framework| may_name(framework, roles, "SUPPRESS"))
        {
            let key = framework.key;
            self.allocator.suppress(key, roles);
        }
    }

    /// Tells operators, and the agents that run the framework, what it says of itself now.
    pub(super) fn announce_framework(&mut self, id: &FrameworkId) {
        self.notify(|core| core.framework(id).map(events::framework_updated));
        let Some(framework) = self.framework(id) else { return };
        let info = framework.info.clone();
        for agent in agents_of(framework) {
            self.frame(&agent, Frame::UpdateFramework((*info).clone()));
        }
    }
}

/// The agents that run anything of a framework.
fn agents_of(framework: &Framework) -> BTreeSet<AgentId> {
    let of_tasks = framework.tasks.values().map(|task| &task.agent_id);
    of_tasks.chain(framework.executors.keys().map(|(agent, _)| agent)).cloned().collect()
}

/// Whether a framework is in all of these roles; if not, its call does nothing, as in Mesos.
fn may_name(framework: &Framework, named: &[String], call: &str) -> bool {
    let own = framework.roles();
    let wrong = named.iter().find(|role| roles::validate(role).is_err() || !own.contains(*role));
    if let Some(role) = wrong {
        tracing::warn!(framework = %framework.id, role, call, "dropped a call that names a role of others");
    }
    wrong.is_none()
}

fn removed_verdict<'a>(
    framework: &FrameworkId,
    task: &'a TaskId,
    agent: &'a AgentId,
    executor: Option<&'a tepui_api::v1::ExecutorId>,
) -> Verdict<'a> {
    Verdict {
        task,
        agent: Some(agent),
        executor,
        state: TaskState::TaskKilled,
        reason: Reason::FrameworkRemoved,
        message: format!("Framework {framework} removed"),
    }
}
