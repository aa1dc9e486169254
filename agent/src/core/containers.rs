//! What happens to containers, and what follows for their tasks.

use std::time::Duration;

use tepui_api::v1::task_status::Reason;
use tepui_api::v1::{ContainerId, NetworkInfo, TaskState};

use super::input::{ContainerCommand, ContainerEvent, FrameworkFate, Limitation, Now, Output};
use super::kill::Timer;
use super::status::{Verdict, dropped, is_terminal};
use super::task::{KillCause, Life, TaskKey};
use super::updates::Released;
use super::{Core, Owner};

impl Core {
    pub(super) fn container_event(
        &mut self,
        now: Now,
        id: &ContainerId,
        event: ContainerEvent,
        out: &mut Vec<Output>,
    ) {
        let key = match self.containers.get(id).cloned() {
            Some(Owner::Task(key)) => key,
            Some(Owner::Executor(key)) => return self.executor_event(now, &key, event, out),
            None => {
                tracing::debug!(container = %id, ?event, "nothing is known of this container any more");
                return;
            }
        };
        let key = &key;
        match event {
            ContainerEvent::NoSandbox(message) => self.no_sandbox(now, key, message, out),
            ContainerEvent::Prepared { networks } => self.prepared(now, key, networks, out),
            ContainerEvent::Described(description) => {
                if let Some(task) = self.frameworks.task_mut(key) {
                    task.description = Some(description);
                }
            }
            ContainerEvent::Failed { reason, message } => self.failed(now, key, reason, message, out),
            ContainerEvent::Started { pid, networks } => self.started(now, key, pid, networks, out),
            // The resources of a command task do not change.
            ContainerEvent::Updated | ContainerEvent::NotUpdated(_) => {}
            ContainerEvent::Exited { status, limitation } => self.exited(now, key, status, limitation, out),
            ContainerEvent::Probed(kind, outcome) => self.probed(now, key, kind, &outcome, out),
            ContainerEvent::Destroyed => self.destroyed(now, key, out),
            ContainerEvent::NotDestroyed(message) => {
                tracing::error!(task = %key, container = %id, message, "a container could not be removed wholly");
                self.counters.destroy_errors += 1;
                self.destroyed(now, key, out);
            }
        }
    }

    pub(super) fn record_stored(&mut self, now: Now, key: &TaskKey, out: &mut Vec<Output>) {
        if let Some(task) = self.frameworks.task_mut(key)
            && let Life::Preparing { stored, .. } = &mut task.life
        {
            *stored = true;
            self.start_if_ready(now, key, out);
        }
    }

    fn prepared(&mut self, now: Now, key: &TaskKey, networks: Vec<NetworkInfo>, out: &mut Vec<Output>) {
        if let Some(task) = self.frameworks.task_mut(key)
            && let Life::Preparing { prepared, .. } = &mut task.life
        {
            *prepared = true;
            task.networks = networks;
            self.start_if_ready(now, key, out);
        }
    }

    /// `TASK_STARTING` goes out before the container runs, so that its way to the framework and back
    /// overlaps with the start.
    pub(super) fn start_if_ready(&mut self, now: Now, key: &TaskKey, out: &mut Vec<Output>) {
        if !self.pod_is_ready(key) {
            return;
        }
        let Some(task) = self.frameworks.task_mut(key) else { return };
        if task.life != (Life::Preparing { stored: true, prepared: true }) {
            return;
        }
        task.life = Life::Starting { kill: None };
        out.push(Output::Container(task.container.clone(), ContainerCommand::Start));
        self.update(now, key, Verdict::executor(TaskState::TaskStarting), false, out);
    }

    fn started(
        &mut self,
        now: Now,
        key: &TaskKey,
        pid: u32,
        networks: Vec<NetworkInfo>,
        out: &mut Vec<Output>,
    ) {
        let of_pod = self.pod_of(key).and_then(|pod| Some(self.frameworks.executor(&pod)?.networks.clone()));
        let Some(task) = self.frameworks.task_mut(key) else { return };
        let Life::Starting { kill } = task.life else { return };
        task.pid = Some(pid);
        // Without networks of its own, one that is nested is in those of its pod.
        task.networks = if networks.is_empty() { of_pod.unwrap_or_default() } else { networks };
        task.life = Life::Running;
        let limit = task.info.max_completion_time;
        self.update(now, key, Verdict::executor(TaskState::TaskRunning), false, out);
        self.begin_checks(now, key);
        if let Some(nanoseconds) =
            limit.and_then(|limit| u64::try_from(limit.nanoseconds).ok()).filter(|n| *n > 0)
        {
            let at = now.monotonic + Duration::from_nanos(nanoseconds);
            self.timers.insert((at, Timer::Completion(key.clone())));
        }
        if let Some(order) = kill {
            self.kill(now, key, order, out);
        }
    }

    /// The task cannot have a sandbox: it was never launched. Mesos says so with the reason of an
    /// executor that is gone.
    fn no_sandbox(&mut self, now: Now, key: &TaskKey, message: String, out: &mut Vec<Output>) {
        let Some(framework) = self.frameworks.get(&key.framework) else { return };
        let verdict = Verdict::agent(dropped(&framework.info), Reason::ExecutorTerminated, message);
        self.counters.launch_errors += 1;
        self.end(now, key, verdict, out);
    }

    fn failed(&mut self, now: Now, key: &TaskKey, reason: Reason, message: String, out: &mut Vec<Output>) {
        let message = format!("Failed to launch container: {message}");
        self.counters.launch_errors += 1;
        self.end(now, key, Verdict::agent(TaskState::TaskFailed, reason, message), out);
    }

    fn exited(
        &mut self,
        now: Now,
        key: &TaskKey,
        status: Option<i32>,
        limitation: Option<Limitation>,
        out: &mut Vec<Output>,
    ) {
        let Some(task) = self.frameworks.task_mut(key) else { return };
        let killed = match &task.life {
            Life::Starting { kill } => {
                // It was so quick that its start is only known by its end.
                let killed = kill.map(|order| order.cause);
                self.update(now, key, Verdict::executor(TaskState::TaskRunning), false, out);
                killed
            }
            Life::Running => None,
            Life::Killing(kill) => Some(kill.cause),
            Life::Preparing { .. }
            | Life::Queued { .. }
            | Life::Delegated
            | Life::Ending
            | Life::Terminated => return,
        };
        self.counters.terminated += 1;
        self.end(now, key, exit_verdict(status, limitation.as_ref(), killed), out);
    }

    /// A task is over: says so, and has what is left of its container removed once that is on disk.
    pub(super) fn end(&mut self, now: Now, key: &TaskKey, verdict: Verdict, out: &mut Vec<Output>) {
        let Some(task) = self.frameworks.task_mut(key) else { return };
        if matches!(task.life, Life::Ending | Life::Terminated) {
            return;
        }
        task.life = Life::Ending;
        self.stop_checks(key);
        let well = verdict.state == TaskState::TaskFinished;
        if self.is_abandoned(key) {
            self.remove_remains(key, out);
        } else {
            self.update(now, key, verdict, true, out);
        }
        if !well {
            self.end_group_of(now, key, out);
        }
    }

    pub(super) fn remove_remains(&mut self, key: &TaskKey, out: &mut Vec<Output>) {
        if let Some(task) = self.frameworks.task(key)
            && task.owns_container()
            && task.life == Life::Ending
        {
            out.push(Output::Container(task.container.clone(), ContainerCommand::Destroy));
        }
    }

    fn destroyed(&mut self, now: Now, key: &TaskKey, out: &mut Vec<Output>) {
        let Some(task) = self.frameworks.task_mut(key) else { return };
        match task.life {
            Life::Ending => {}
            Life::Terminated | Life::Queued { .. } | Life::Delegated => return,
            Life::Preparing { .. } | Life::Starting { .. } | Life::Running | Life::Killing(_) => {
                // Nobody asked for it, but nothing of it is left.
                let message = "the container is gone, and nobody knows how it ended";
                let verdict = Verdict::agent(TaskState::TaskFailed, Reason::ExecutorTerminated, message);
                self.end(now, key, verdict, out);
            }
        }
        let pod = self.pod_of(key);
        let Some(task) = self.frameworks.task_mut(key) else { return };
        task.life = Life::Terminated;
        let container = task.container.clone();
        self.containers.remove(&container);
        if self.is_abandoned(key) {
            self.forget_task(key, out);
        } else {
            match self.streams.release(now.monotonic, key) {
                Released::Send(sending) => self.send(sending, out),
                Released::Acknowledged => self.forget_task(key, out),
                Released::Nothing => {}
            }
        }
        if let Some(pod) = pod {
            self.left_pod(now, &pod, out);
        }
    }

    /// Whether nobody waits for a task's updates.
    pub(super) fn is_abandoned(&self, key: &TaskKey) -> bool {
        let framework = self.frameworks.get(&key.framework);
        framework.is_none_or(|framework| framework.fate == FrameworkFate::ShuttingDown)
    }
}

/// What is said of a task whose first process has ended.
pub(super) fn exit_verdict(
    status: Option<i32>,
    limitation: Option<&Limitation>,
    killed: Option<KillCause>,
) -> Verdict {
    if let Some(limitation) = limitation {
        return Verdict::limitation(limitation);
    }
    let exited = match status {
        Some(status) => Verdict::exited(status),
        None => Verdict {
            message: Some("Failed to get the exit status of the command".to_owned()),
            ..Verdict::executor(TaskState::TaskFailed)
        },
    };
    debug_assert!(is_terminal(exited.state));
    match killed {
        None => exited,
        Some(KillCause::Unhealthy) => {
            let state = if status.is_some() { TaskState::TaskKilled } else { exited.state };
            Verdict { state, healthy: Some(false), ..exited }
        }
        Some(KillCause::CompletionTime) => {
            Verdict { state: TaskState::TaskFailed, reason: Some(Reason::MaxCompletionTimeReached), ..exited }
        }
        // Without a status the wish is fulfilled all the same, but nobody can say by what.
        Some(_) if status.is_none() => exited,
        Some(_) => Verdict { state: TaskState::TaskKilled, ..exited },
    }
}
