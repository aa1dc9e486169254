//! Pods: tasks that the agent runs itself for an executor of type DEFAULT, each in a container nested in the executor's.
//!
//! The executor's container has no program; it holds what its tasks share. Each task lives as a command task does, with a few differences:
//!
//! - its container is prepared when the executor's runs, and started when that one has the resources that its tasks need;
//! - the tasks of one group end together: when one fails or is killed, the others are killed, each with its grace period;
//! - when the last task's container is gone, the executor ends.
//!
//! So a framework sees what Mesos' default executor would tell it.

use std::sync::Arc;
use std::time::Duration;

use tepui_api::v1::{ContainerId, ExecutorInfo, TaskState, executor_info};

use super::Core;
use super::executor::{Executor, ExecutorKey, ExecutorLife};
use super::executor_end::terminated;
use super::frames::{grace_of, limits_of};
use super::input::{ContainerCommand, Launch, Now, Output, Workload};
use super::status::is_terminal;
use super::task::{KillCause, KillOrder, Life, Task, TaskKey};
use crate::sandbox::environment;

/// What an executor of whom all has gone well ends with.
const WELL: i32 = 0;

/// Whether the agent runs the tasks of such an executor itself.
pub(super) fn is_pod(executor: &ExecutorInfo) -> bool {
    executor.r#type() == executor_info::Type::Default
}

impl Executor {
    /// Whether the agent runs its tasks itself.
    #[must_use]
    pub fn is_pod(&self) -> bool {
        is_pod(&self.info)
    }
}

impl Core {
    /// The executor whose tasks are run by the agent, this one among them.
    pub(super) fn pod_of(&self, key: &TaskKey) -> Option<ExecutorKey> {
        let task = self.frameworks.task(key)?;
        task.info.executor.as_ref().filter(|executor| is_pod(executor))?;
        task.executor()
    }

    /// Whether a task may be started: it is in no pod, or its pod is there and has what its tasks need.
    pub(super) fn pod_is_ready(&self, key: &TaskKey) -> bool {
        let Some(pod) = self.pod_of(key) else { return true };
        let ready = |executor: &Arc<Executor>| {
            matches!(executor.life, ExecutorLife::Running { .. }) && executor.update.is_none()
        };
        self.frameworks.executor(&pod).is_some_and(ready)
    }

    /// The pod's container runs: its tasks can be made.
    pub(super) fn pod_started(&mut self, key: &ExecutorKey, out: &mut Vec<Output>) {
        let Some(executor) = self.frameworks.executor_mut(key) else { return };
        executor.life = ExecutorLife::Running { stream: None };
        let tasks: Vec<TaskKey> = self.frameworks.tasks_of(key).map(|task| task.key.clone()).collect();
        self.prepare_in_pod(key, &tasks, out);
        self.hand_over(key, out);
    }

    /// Has the containers of these tasks of a pod prepared, if the pod's own runs.
    pub(super) fn prepare_in_pod(&mut self, key: &ExecutorKey, tasks: &[TaskKey], out: &mut Vec<Output>) {
        let Some(executor) = self.frameworks.executor(key).cloned() else { return };
        let Some(framework) = self.frameworks.get(&key.framework).map(|framework| framework.info.clone())
        else {
            return;
        };
        let Some(agent) = self.agent_id().filter(|_| matches!(executor.life, ExecutorLife::Running { .. }))
        else {
            return;
        };
        let addresses = executor.networks.iter().flat_map(|network| &network.ip_addresses);
        let address = addresses.filter_map(|address| address.ip_address.clone()).next();
        let address = address.unwrap_or_else(|| self.config.address.ip().to_string());
        let tasks = tasks.iter().filter_map(|key| self.frameworks.task(key));
        for task in tasks.filter(|task| matches!(task.life, Life::Preparing { .. })) {
            let variables = environment::Variables {
                config: &self.config,
                agent,
                framework: &framework,
                directory: &task.directory,
            };
            let launch = Launch {
                workload: Workload::Task(task.key.clone(), task.info.clone()),
                framework: framework.clone(),
                resources: task.info.resources.clone(),
                limits: limits_of(&task.info),
                directory: task.directory.clone(),
                user: task.user.clone(),
                environment: environment::of_pod_task(&variables, &executor.info, &task.info, &address),
            };
            out.push(Output::Container(task.container.clone(), ContainerCommand::Prepare(Arc::new(launch))));
        }
    }

    /// The pod has what its tasks need: those that wait for it are started.
    pub(super) fn start_in_pod(&mut self, now: Now, key: &ExecutorKey, out: &mut Vec<Output>) {
        let preparing = |task: &&Arc<Task>| matches!(task.life, Life::Preparing { .. });
        let tasks: Vec<TaskKey> =
            self.frameworks.tasks_of(key).filter(preparing).map(|task| task.key.clone()).collect();
        for task in tasks {
            self.start_if_ready(now, &task, out);
        }
    }

    /// A task has failed or was killed: so are the others of its group.
    pub(super) fn end_group_of(&mut self, now: Now, key: &TaskKey, out: &mut Vec<Output>) {
        let Some(pod) = self.pod_of(key) else { return };
        let over = self.frameworks.executor(&pod).is_none_or(|executor| executor.is_over());
        let Some(group) = self.frameworks.task(key).and_then(|task| task.group.clone()) else { return };
        if over || self.is_abandoned(key) {
            return;
        }
        let goes_on = |task: &&Arc<Task>| {
            task.group.as_ref() == Some(&group)
                && matches!(task.life, Life::Preparing { .. } | Life::Starting { .. } | Life::Running)
        };
        let others = self.frameworks.tasks_of(&pod).filter(goes_on);
        let others: Vec<_> = others.map(|task| (task.key.clone(), task.info.kill_policy)).collect();
        for (other, policy) in others {
            tracing::info!(task = %other, because_of = %key.task, "killing a task of a group of which another is over");
            self.kill(now, &other, KillOrder { cause: KillCause::Asked, grace: grace_of(policy) }, out);
        }
    }

    /// Nothing is left of a task's container. With the last one the pod ends.
    pub(super) fn left_pod(&mut self, now: Now, pod: &ExecutorKey, out: &mut Vec<Output>) {
        let Some(executor) = self.frameworks.executor(pod) else { return };
        if matches!(executor.life, ExecutorLife::Ending { .. }) {
            return;
        }
        if self.frameworks.tasks_of(pod).any(|task| task.has_container()) {
            return self.hand_over(pod, out);
        }
        tracing::info!(executor = %pod, "all tasks of an executor are over");
        self.end_executor(now, pod, WELL, terminated(None), out);
    }

    /// Ends the tasks of a pod, and the pod by force when its grace period is over.
    pub(super) fn shut_down_pod(
        &mut self,
        now: Now,
        key: &ExecutorKey,
        grace: Duration,
        out: &mut Vec<Output>,
    ) {
        if self.frameworks.executor(key).is_none_or(|executor| executor.is_over()) {
            return;
        }
        self.ask_to_end(now, key, None, grace, out);
        let cause = if self.is_gone(key) { KillCause::Abandoned } else { KillCause::Asked };
        let tasks = self.frameworks.tasks_of(key).filter(|task| task.has_container());
        let tasks: Vec<_> = tasks.map(|task| (task.key.clone(), task.info.kill_policy)).collect();
        for (task, policy) in tasks {
            self.kill(now, &task, KillOrder { cause, grace: grace_of(policy).min(grace) }, out);
        }
        self.left_pod(now, key, out);
    }

    /// A pod of an earlier run of the agent that goes on, and in which something may have come to its end meanwhile.
    pub(super) fn resume_pod(&mut self, now: Now, key: &ExecutorKey, out: &mut Vec<Output>) {
        let failed = |task: &&Arc<Task>| {
            is_terminal(task.state()) && task.state() != TaskState::TaskFinished && task.group.is_some()
        };
        let failed: Vec<TaskKey> =
            self.frameworks.tasks_of(key).filter(failed).map(|task| task.key.clone()).collect();
        for task in failed {
            self.end_group_of(now, &task, out);
        }
        self.left_pod(now, key, out);
    }
}

/// The id of a container nested in another.
pub(super) fn nested(parent: &ContainerId, value: String) -> ContainerId {
    ContainerId { value, parent: Some(Box::new(parent.clone())) }
}
