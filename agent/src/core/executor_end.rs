//! How a framework's own executor ends: asked to, by force, or by itself; and what follows for its tasks.

use std::time::Duration;

use tepui_api::link::{ExecutorExited, agent_frame};
use tepui_api::v1::TaskState;
use tepui_api::v1::executor::event;
use tepui_api::v1::framework_info::capability;
use tepui_api::v1::task_status::Reason;

use super::executor::{ExecutorKey, ExecutorLife, StreamId};
use super::executors::{NO_STATUS, send};
use super::input::{ContainerCommand, FrameworkFate, Limitation, Now, Output, Write};
use super::kill::{KILL, Timer};
use super::registration::Link;
use super::status::{Verdict, can};
use super::task::{Life, TaskKey};
use super::updates::Released;
use super::{Core, Waiting};

impl Core {
    /// What a task is that may or may not have run, and certainly runs no more.
    pub(super) fn gone(&self, key: &ExecutorKey) -> TaskState {
        let framework = self.frameworks.get(&key.framework).map(|framework| &framework.info);
        let knows = framework.is_some_and(|info| can(info, capability::Type::PartitionAware));
        if knows { TaskState::TaskGone } else { TaskState::TaskLost }
    }

    /// Asks an executor to end, and ends it by force when its grace period is over.
    pub(super) fn shut_down_executor(&mut self, now: Now, key: &ExecutorKey, out: &mut Vec<Output>) {
        let usual = self.config.shutdown_grace_period;
        let Some(executor) = self.frameworks.executor_mut(key) else { return };
        let own = executor.info.shutdown_grace_period;
        let grace =
            own.map_or(usual, |own| Duration::from_nanos(u64::try_from(own.nanoseconds).unwrap_or(0)));
        if executor.is_pod() {
            return self.shut_down_pod(now, key, grace, out);
        }
        match executor.life {
            ExecutorLife::Preparing { .. } => {
                self.end_executor(now, key, NO_STATUS, terminated(None), out);
            }
            ExecutorLife::Starting { stream } | ExecutorLife::Running { stream } => {
                self.ask_to_end(now, key, stream, grace, out);
            }
            ExecutorLife::Registering => self.ask_to_end(now, key, None, grace, out),
            ExecutorLife::Terminating { .. } | ExecutorLife::Ending { .. } => {}
        }
    }

    pub(super) fn ask_to_end(
        &mut self,
        now: Now,
        key: &ExecutorKey,
        stream: Option<StreamId>,
        grace: Duration,
        out: &mut Vec<Output>,
    ) {
        let Some(executor) = self.frameworks.executor_mut(key) else { return };
        tracing::info!(executor = %key, ?grace, "shutting an executor down");
        let escalates = now.monotonic + grace;
        executor.life = ExecutorLife::Terminating { stream, escalates: Some(escalates) };
        let timer = Timer::ExecutorGrace(key.clone(), executor.container.value.clone());
        self.timers.insert((escalates, timer));
        if let Some(stream) = stream {
            send(stream, event::Type::Shutdown, |_| {}, out);
        }
    }

    /// Ends an executor's container at once, for a reason of the agent's.
    pub(super) fn end_by_force(
        &mut self,
        now: Now,
        key: &ExecutorKey,
        verdict: Verdict,
        out: &mut Vec<Output>,
    ) {
        let Some(executor) = self.frameworks.executor_mut(key) else { return };
        match executor.life {
            ExecutorLife::Preparing { .. } => return self.end_executor(now, key, NO_STATUS, verdict, out),
            ExecutorLife::Ending { .. } => return,
            _ => {}
        }
        executor.verdict.get_or_insert(verdict);
        executor.life = ExecutorLife::Terminating { stream: executor.stream(), escalates: None };
        out.push(Output::Container(executor.container.clone(), ContainerCommand::Signal(KILL)));
    }

    pub(super) fn executor_grace_over(
        &mut self,
        at: Duration,
        key: &ExecutorKey,
        container: &str,
        out: &mut Vec<Output>,
    ) {
        let Some(executor) = self.frameworks.executor_mut(key) else { return };
        if executor.container.value == container
            && let ExecutorLife::Terminating { escalates, .. } = &mut executor.life
            && *escalates == Some(at)
        {
            tracing::info!(executor = %key, "the executor did not end in its grace period: killing it by force");
            *escalates = None;
            out.push(Output::Container(executor.container.clone(), ContainerCommand::Signal(KILL)));
        }
    }

    /// The executor has not subscribed in time: as a new one, or to an agent that was restarted.
    pub(super) fn registration_over(
        &mut self,
        now: Now,
        key: &ExecutorKey,
        container: &str,
        again: bool,
        out: &mut Vec<Output>,
    ) {
        let waits = self.frameworks.executor(key).is_some_and(|executor| {
            executor.container.value == container && executor.life == ExecutorLife::Registering
        });
        if !waits {
            return;
        }
        let verdict = if again {
            let limit = tepui_api::units::Duration(self.config.executor_reregistration_timeout);
            let message = format!("Executor did not reregister within {limit}");
            Verdict::agent(self.gone(key), Reason::ExecutorReregistrationTimeout, message)
        } else {
            let limit = tepui_api::units::Duration(self.config.executor_registration_timeout);
            let message = format!("Executor did not register within {limit}");
            Verdict::agent(TaskState::TaskFailed, Reason::ExecutorRegistrationTimeout, message)
        };
        tracing::warn!(executor = %key, message = verdict.message, "killing an executor");
        self.end_by_force(now, key, verdict, out);
    }

    /// An executor is over, and so are its tasks: they are told, and its remains removed once that is on disk.
    pub(super) fn end_executor(
        &mut self,
        now: Now,
        key: &ExecutorKey,
        status: i32,
        verdict: Verdict,
        out: &mut Vec<Output>,
    ) {
        let Some(executor) = self.frameworks.executor_mut(key) else { return };
        if matches!(executor.life, ExecutorLife::Ending { .. }) {
            return;
        }
        if let Some(stream) = executor.stream() {
            out.push(Output::CloseEvents(stream));
        }
        executor.life = ExecutorLife::Ending { status };
        executor.update = None;
        // A limit that was exceeded tells more than what the agent did about it.
        let verdict = match executor.verdict.take() {
            Some(decided) if verdict.limited.is_empty() => decided,
            _ => verdict,
        };
        if self.is_gone(key) {
            return self.remove_executor_remains(key, out);
        }
        let tasks: Vec<TaskKey> = self.frameworks.tasks_of(key).map(|task| task.key.clone()).collect();
        for task_key in tasks {
            let Some(task) = self.frameworks.task_mut(&task_key) else { continue };
            if task.owns_container() {
                self.end(now, &task_key, verdict.clone(), out);
            } else if matches!(task.life, Life::Queued { .. } | Life::Delegated) {
                task.life = Life::Ending;
                self.update(now, &task_key, verdict.clone(), true, out);
            }
        }
        // Confirmed after all of those.
        self.store(Vec::new(), Some(Waiting::ExecutorEnd(key.clone())), out);
    }

    /// How it ended is on disk.
    pub(super) fn remove_executor_remains(&mut self, key: &ExecutorKey, out: &mut Vec<Output>) {
        if let Some(executor) = self.frameworks.executor(key)
            && matches!(executor.life, ExecutorLife::Ending { .. })
        {
            out.push(Output::Container(executor.container.clone(), ContainerCommand::Destroy));
        }
    }

    pub(super) fn executor_destroyed(&mut self, now: Now, key: &ExecutorKey, out: &mut Vec<Output>) {
        let Some(executor) = self.frameworks.executor(key) else { return };
        if !matches!(executor.life, ExecutorLife::Ending { .. }) {
            // Nobody asked for it, but nothing of it is left.
            let message = "the executor's container is gone, and nobody knows how it ended";
            let verdict = Verdict::agent(TaskState::TaskFailed, Reason::ExecutorTerminated, message);
            return self.end_executor(now, key, NO_STATUS, verdict, out);
        }
        let ExecutorLife::Ending { status } = executor.life else { return };
        let container = executor.container.clone();
        self.containers.remove(&container);
        let gone = self.is_gone(key);
        tracing::info!(executor = %key, status, "an executor has ended");
        let exited =
            ExecutorExited { framework_id: key.framework.clone(), executor_id: key.executor.clone(), status };
        if self.link == Link::Registering {
            // A coordinator hears nothing of an agent that it is still taking in.
            self.exited.push(exited);
        } else {
            out.push(Output::Send(Box::new(agent_frame::Body::ExecutorExited(exited))));
        }
        let tasks: Vec<TaskKey> = self.frameworks.tasks_of(key).map(|task| task.key.clone()).collect();
        for task_key in tasks {
            if gone {
                self.forget_task(&task_key, out);
                continue;
            }
            let Some(task) = self.frameworks.task_mut(&task_key) else { continue };
            if task.life != Life::Ending {
                continue;
            }
            task.life = Life::Terminated;
            match self.streams.release(now.monotonic, &task_key) {
                Released::Send(sending) => self.send(sending, out),
                Released::Acknowledged => self.forget_task(&task_key, out),
                Released::Nothing => {}
            }
        }
        self.frameworks.complete_executor(key, self.config.max_completed);
        let mut writes = vec![Write::RemoveExecutor(key.clone())];
        writes.extend(self.retire_if_idle(&key.framework));
        self.store(writes, None, out);
    }

    /// Whether nobody waits for what becomes of the framework's tasks.
    pub(super) fn is_gone(&self, key: &ExecutorKey) -> bool {
        self.frameworks.get(&key.framework).is_none_or(|f| f.fate == FrameworkFate::ShuttingDown)
    }
}

/// What is said of the tasks of an executor whose process has ended.
pub(super) fn terminated(limitation: Option<&Limitation>) -> Verdict {
    match limitation {
        Some(limitation) => Verdict::limitation(limitation),
        None => Verdict::agent(
            TaskState::TaskFailed,
            Reason::ExecutorTerminated,
            "Executor terminated".to_owned(),
        ),
    }
}
