//! What executors say: they subscribe, tell how their tasks go, and send messages to their schedulers.
//!
//! A call is refused, as in Mesos, when its framework or its executor is not here, or when the executor has not subscribed. All
//! else is taken (`202`), and what makes no sense is passed over with a line in the log.

use std::collections::HashSet;

use tepui_api::link::{ExecutorMessage, FrameworkMessage, agent_frame};
use tepui_api::v1::executor::call::{Subscribe, Type};
use tepui_api::v1::executor::{Call, event};
use tepui_api::v1::task_status::{Reason, Source};
use tepui_api::v1::{TaskId, TaskState, TaskStatus};

use super::executor::{ExecutorKey, ExecutorLife, StreamId};
use super::executors::send;
use super::input::{ExecutorAnswer, FrameworkFate, Now, Output};
use super::status::{self, Verdict, dropped, is_terminal};
use super::task::{Life, TaskKey};
use super::updates::Known;
use super::{Core, Waiting};

impl Core {
    pub(super) fn executor_call(&mut self, now: Now, request: StreamId, call: Call, out: &mut Vec<Output>) {
        let kind = call.r#type();
        if kind == Type::Heartbeat {
            return out.push(Output::Answer(request, ExecutorAnswer::Accepted));
        }
        let key = ExecutorKey { framework: call.framework_id, executor: call.executor_id };
        if self.frameworks.get(&key.framework).is_none() {
            return out.push(Output::Answer(request, ExecutorAnswer::NoFramework));
        }
        // The agent itself speaks for those of type DEFAULT.
        let Some(executor) = self.frameworks.executor(&key).filter(|executor| !executor.is_pod()) else {
            return out.push(Output::Answer(request, ExecutorAnswer::NoExecutor));
        };
        let subscribed = match &executor.life {
            ExecutorLife::Registering => false,
            ExecutorLife::Preparing { stream, .. } | ExecutorLife::Starting { stream } => stream.is_some(),
            ExecutorLife::Running { .. } | ExecutorLife::Terminating { .. } | ExecutorLife::Ending { .. } => {
                true
            }
        };
        if !subscribed && kind != Type::Subscribe {
            return out.push(Output::Answer(request, ExecutorAnswer::NotSubscribed));
        }
        let answer =
            if kind == Type::Subscribe { ExecutorAnswer::Subscribed } else { ExecutorAnswer::Accepted };
        match kind {
            Type::Subscribe => {
                out.push(Output::Answer(request, answer));
                self.subscribe(now, &key, request, call.subscribe.unwrap_or_default(), out);
            }
            Type::Update => {
                // Mesos answers at once. Executors that remember nothing take the answer for a promise, so it waits for the disk.
                let status = call.update.map(|update| update.status);
                let told = status.is_some_and(|s| self.executor_update(now, &key, s, Some(request), out));
                if !told {
                    out.push(Output::Answer(request, answer));
                }
            }
            Type::Message => {
                out.push(Output::Answer(request, answer));
                if self.is_gone(&key) {
                    tracing::warn!(executor = %key, "dropping a message to a framework that is being ended");
                    self.counters.invalid_messages += 1;
                } else if let Some(message) = call.message {
                    self.counters.messages += 1;
                    let message = ExecutorMessage {
                        framework_id: key.framework,
                        executor_id: key.executor,
                        data: message.data,
                    };
                    out.push(Output::Send(Box::new(agent_frame::Body::Message(message))));
                }
            }
            Type::Heartbeat | Type::Unknown => out.push(Output::Answer(request, ExecutorAnswer::Unknown)),
        }
    }

    fn subscribe(
        &mut self,
        now: Now,
        key: &ExecutorKey,
        stream: StreamId,
        subscribe: Subscribe,
        out: &mut Vec<Output>,
    ) {
        let ending = self.winding_up.is_some() || self.is_gone(key);
        let Some(executor) = self.frameworks.executor_mut(key) else { return };
        let old = executor.stream();
        let running = match executor.life {
            ExecutorLife::Starting { .. } => ExecutorLife::Starting { stream: Some(stream) },
            ExecutorLife::Registering | ExecutorLife::Running { .. } => {
                ExecutorLife::Running { stream: Some(stream) }
            }
            ExecutorLife::Preparing { stored, prepared, .. } => {
                ExecutorLife::Preparing { stored, prepared, stream: Some(stream) }
            }
            ExecutorLife::Terminating { .. } | ExecutorLife::Ending { .. } => {
                return shut_out(key, stream, out);
            }
        };
        if ending {
            return shut_out(key, stream, out);
        }
        tracing::info!(executor = %key, "an executor has subscribed");
        executor.life = running;
        if let Some(old) = old {
            out.push(Output::CloseEvents(old));
        }
        let subscribed = event::Subscribed {
            executor_info: (*executor.info).clone(),
            framework_info: Default::default(),
            agent_info: (*self.agent).clone(),
            container_id: Some(executor.container.clone()),
        };
        for update in subscribe.unacknowledged_updates {
            self.executor_update(now, key, update.status, None, out);
        }
        let known: HashSet<TaskId> =
            subscribe.unacknowledged_tasks.into_iter().map(|task| task.task_id).collect();
        self.drop_unheard(now, key, &known, out);
        self.shut_down_if_needless(now, key, out);
        if self.frameworks.executor(key).is_none_or(|executor| executor.is_over()) {
            return;
        }
        let framework = self.frameworks.get(&key.framework).map(|framework| (*framework.info).clone());
        let subscribed = event::Subscribed { framework_info: framework.unwrap_or_default(), ..subscribed };
        send(stream, event::Type::Subscribed, |event| event.subscribed = Some(subscribed), out);
        self.hand_over(key, out);
        self.send_kills(key, out);
    }

    /// Tasks that were handed over and that the executor has not heard of: the agent ended, or the connection broke, in between.
    fn drop_unheard(&mut self, now: Now, key: &ExecutorKey, known: &HashSet<TaskId>, out: &mut Vec<Output>) {
        let unheard = self.frameworks.tasks_of(key).filter(|task| {
            task.life == Life::Delegated
                && task.state() == TaskState::TaskStaging
                && !known.contains(&task.key.task)
        });
        let unheard: Vec<TaskKey> = unheard.map(|task| task.key.clone()).collect();
        for task_key in unheard {
            let Some(framework) = self.frameworks.get(&key.framework) else { return };
            let message = "the task was on its way to its executor when the agent was restarted or the executor's connection broke";
            let verdict = Verdict::agent(dropped(&framework.info), Reason::AgentRestarted, message);
            if let Some(task) = self.frameworks.task_mut(&task_key) {
                task.life = Life::Terminated;
            }
            self.update(now, &task_key, verdict, false, out);
        }
    }

    /// An executor tells how a task goes: by a request, which is answered when it is on disk if this gives true; or when it subscribes,
    /// because it was not told that it was heard.
    fn executor_update(
        &mut self,
        now: Now,
        key: &ExecutorKey,
        status: TaskStatus,
        request: Option<StreamId>,
        out: &mut Vec<Output>,
    ) -> bool {
        let task_key = TaskKey::new(key.framework.clone(), status.task_id.clone());
        let Some(uuid) = status.uuid.clone() else { return false };
        if self.is_gone(key) {
            self.counters.invalid_updates += 1;
            return false;
        }
        match self.streams.knows(&task_key, &uuid) {
            Known::Stored => {
                self.tell_heard(key, &status.task_id, uuid, out);
                return false;
            }
            // It is told when that is on disk, and answered not before.
            Known::Pending => {
                let Some(request) = request else { return false };
                self.store(Vec::new(), Some(Waiting::Answer(request)), out);
                return true;
            }
            Known::No => {}
        }
        let Some(task) = self.frameworks.task(&task_key) else {
            if request.is_none() || self.was_delegated(&task_key, key) {
                // An agent never loses a task whose updates are not acknowledged: all of that was heard.
                self.tell_heard(key, &status.task_id, uuid, out);
                return false;
            }
            tracing::warn!(task = %task_key, executor = %key.executor, "an executor tells of a task that is not here");
            let status = self.completed_status(now, key, status);
            self.push_report(key, &task_key, status, request, out);
            return true;
        };
        if !task.is_delegated_to(key) {
            tracing::warn!(task = %task_key, executor = %key.executor, "ignoring what an executor tells of another's task");
            self.counters.invalid_updates += 1;
            return false;
        }
        let terminal = is_terminal(status.state());
        match task.life {
            Life::Delegated => {}
            Life::Queued { .. } if terminal => {}
            _ => {
                tracing::warn!(task = %task_key, state = status.state().as_str_name(),
                    "ignoring what an executor tells of a task that it was not given, or that is over");
                self.tell_heard(key, &status.task_id, uuid, out);
                return false;
            }
        }
        let status = self.as_drained_status(&task_key, self.completed_status(now, key, status));
        let Some(task) = self.frameworks.task_mut(&task_key) else { return false };
        task.show(&status);
        if terminal {
            task.life = Life::Terminated;
        }
        self.count(status.state());
        self.push_report(key, &task_key, status, request, out);
        if terminal {
            self.hand_over(key, out);
        }
        true
    }

    /// Whether this executor had this task, which is over.
    fn was_delegated(&self, task: &TaskKey, key: &ExecutorKey) -> bool {
        let framework = self.frameworks.get(&key.framework);
        framework.is_some_and(|framework| {
            framework.completed.iter().any(|done| {
                done.info.task_id == task.task
                    && done.info.executor.as_ref().is_some_and(|own| own.executor_id == key.executor)
            })
        })
    }

    /// A status with what the agent adds to it.
    fn completed_status(&self, now: Now, key: &ExecutorKey, status: TaskStatus) -> TaskStatus {
        let ip = self.config.address.ip().to_string();
        let own = self.frameworks.executor(key).map(|executor| {
            status::container_status(&executor.container, executor.pid, &executor.networks, &ip)
        });
        let container_status = match (status.container_status, own) {
            (Some(told), Some(own)) => Some(tepui_api::v1::ContainerStatus {
                container_id: told.container_id.or(own.container_id),
                network_infos: if told.network_infos.is_empty() {
                    own.network_infos
                } else {
                    told.network_infos
                },
                executor_pid: told.executor_pid.or(own.executor_pid),
                ..told
            }),
            (told, own) => told.or(own),
        };
        TaskStatus {
            source: Some(Source::Executor as i32),
            agent_id: self.agent_id().cloned(),
            executor_id: Some(key.executor.clone()),
            timestamp: Some(status.timestamp.unwrap_or(now.unix.as_secs_f64())),
            container_status,
            ..status
        }
    }

    fn push_report(
        &mut self,
        key: &ExecutorKey,
        task: &TaskKey,
        status: TaskStatus,
        request: Option<StreamId>,
        out: &mut Vec<Output>,
    ) {
        let (executor, uuid) = (key.clone(), status.uuid.clone().unwrap_or_default());
        let then = |task, sequence| Waiting::Report { task, sequence, executor, uuid, request };
        let told = status.uuid.clone();
        self.push_update_then(task, status, false, Vec::new(), then, out);
        self.streams.remember(task, told.as_deref());
    }

    /// What an executor told is on disk: it need not remember it.
    pub(super) fn tell_heard(&self, key: &ExecutorKey, task: &TaskId, uuid: Vec<u8>, out: &mut Vec<Output>) {
        let Some(stream) = self.frameworks.executor(key).and_then(|executor| executor.stream()) else {
            return;
        };
        let acknowledged = event::Acknowledged { task_id: task.clone(), uuid };
        send(stream, event::Type::Acknowledged, |event| event.acknowledged = Some(acknowledged), out);
    }

    /// Nobody listens at the other end of an executor's stream.
    pub(super) fn executor_gone(&mut self, closed: StreamId) {
        let found = self.frameworks.executors().find(|executor| executor.stream() == Some(closed));
        let Some(key) = found.map(|executor| executor.key.clone()) else { return };
        let Some(executor) = self.frameworks.executor_mut(&key) else { return };
        tracing::info!(executor = %key, "an executor's connection is closed");
        match &mut executor.life {
            ExecutorLife::Starting { stream }
            | ExecutorLife::Running { stream }
            | ExecutorLife::Preparing { stream, .. }
            | ExecutorLife::Terminating { stream, .. } => *stream = None,
            ExecutorLife::Registering | ExecutorLife::Ending { .. } => {}
        }
    }

    /// A scheduler has something to say to an executor.
    pub(super) fn framework_message(&mut self, message: FrameworkMessage, out: &mut Vec<Output>) {
        let FrameworkMessage { framework_id, executor_id, data } = message;
        let key = ExecutorKey { framework: framework_id, executor: executor_id };
        let running = self.frameworks.get(&key.framework).is_some_and(|f| f.fate == FrameworkFate::Active);
        let executor = self.frameworks.executor(&key).filter(|executor| running && !executor.is_over());
        match executor.and_then(|executor| executor.stream()) {
            Some(stream) => {
                self.counters.messages += 1;
                send(
                    stream,
                    event::Type::Message,
                    |event| event.message = Some(event::Message { data }),
                    out,
                );
            }
            None => {
                tracing::warn!(executor = %key, "dropping a message: no such executor is connected");
                self.counters.invalid_messages += 1;
            }
        }
    }
}

/// The executor is not wanted any more.
fn shut_out(key: &ExecutorKey, stream: StreamId, out: &mut Vec<Output>) {
    tracing::warn!(executor = %key, "an executor that is being ended subscribes: telling it to shut down");
    send(stream, event::Type::Shutdown, |_| {}, out);
    out.push(Output::CloseEvents(stream));
}
