//! What the coordinator asks for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tepui_api::link::agent_frame;
use tepui_api::link::coordinator_frame::Body;
use tepui_api::link::{Acknowledge, ExecutorExited, KillTask, RunTask, RunTaskGroup, ShutdownExecutor};
use tepui_api::v1::task_status::Reason;
use tepui_api::v1::{ContainerId, ExecutorId, FrameworkId, FrameworkInfo, KillPolicy, TaskInfo, TaskState};

use super::executor::ExecutorKey;
use super::input::{ContainerCommand, End, FrameworkFate, Launch, Now, Output, TaskWrite, Workload, Write};
use super::registration::Link;
use super::status::{Verdict, dropped};
use super::task::{KillCause, KillOrder, Life, Task, TaskKey, shown};
use super::updates::Acknowledged;
use super::{Core, Owner, Waiting, WindUp, refusal};
use crate::sandbox::{environment, paths};

/// The status that Mesos gives for an executor that was never started.
const NEVER_RAN: i32 = -1;

/// What a task has between SIGTERM and SIGKILL when nobody says otherwise: that of Mesos' command executor.
pub(super) const GRACE_PERIOD: Duration = Duration::from_secs(3);

impl Core {
    pub(super) fn frame(&mut self, now: Now, frame: Body, out: &mut Vec<Output>) {
        if self.link == Link::Down {
            // Of a coordinator that was given up: whoever leads now knows nothing of it.
            tracing::debug!(?frame, "ignoring what still came over a link that is closed");
            return;
        }
        match frame {
            Body::Registered(registered) => self.registered(now, registered, out),
            Body::Refused(refused) => self.refused(now, refused, out),
            Body::RunTask(run) => self.run_task(now, run, out),
            Body::RunTaskGroup(run) => self.run_task_group(now, run, out),
            Body::KillTask(kill) => self.kill_task(now, kill, out),
            Body::Acknowledge(acknowledge) => self.acknowledge(acknowledge, out),
            Body::Message(message) => self.framework_message(message, out),
            Body::ShutdownFramework(id) => self.shutdown_framework(now, &id, out),
            Body::ShutdownExecutor(shutdown) => self.shutdown_executor(now, shutdown, out),
            Body::UpdateFramework(info) => self.update_framework(info, out),
            Body::Drain(config) => self.drain(now, config, out),
            Body::Ping(number) => self.ping(now, number, out),
            Body::Shutdown(shutdown) => {
                tracing::warn!(
                    message = shutdown.message,
                    "the coordinator asks this agent to end all and to stop"
                );
                self.wind_up(now, WindUp::End(End::Asked(shutdown.message)), out);
            }
        }
    }

    fn run_task(&mut self, now: Now, run: RunTask, out: &mut Vec<Output>) {
        let RunTask { framework, task, launch_executor } = run;
        let Some(key) = self.accepts(now, &framework, &task, out) else {
            if let (Some(id), Some(executor)) = (&framework.id, &task.executor) {
                self.refuse_executor(id, &executor.executor_id, out);
            }
            return;
        };
        let framework = self.enter_framework(&key.framework, framework, out);
        let key = &key;
        let info = Arc::new(task);
        let refused = self.refused_for_drain(&framework).or_else(|| {
            let message = refusal::of_task(&info)?;
            Some(Verdict::agent(TaskState::TaskError, Reason::TaskInvalid, message))
        });
        if let Some(verdict) = refused {
            self.refuse_task(now, key, &info, verdict, out);
            if let Some(executor) = &info.executor {
                self.refuse_executor(&key.framework, &executor.executor_id, out);
            }
            return;
        }
        if let Some(executor) = &info.executor {
            let executor_key = ExecutorKey::new(key.framework.clone(), executor.executor_id.clone());
            let tasks = vec![info.clone()];
            if self.has_ended(&executor_key, launch_executor) {
                return self.refuse_without_executor(now, &executor_key, &framework, &tasks, out);
            }
            return self.delegate(&executor_key, executor, &framework, tasks, None, out);
        }
        let user = self.config.switch_user.then(|| refusal::user_of(&framework, &info));
        let container = ContainerId::new(uuid::Uuid::from_bytes(self.uuid()).to_string());
        let Some(agent) = self.agent_id() else { return };
        let directory = paths::run(&self.config.work_dir, agent, &key.framework, &key.task.value, &container);
        let variables = environment::Variables {
            config: &self.config,
            agent,
            framework: &framework,
            directory: &directory,
        };
        let launch = Launch {
            workload: Workload::Task(key.clone(), info.clone()),
            framework: framework.clone(),
            resources: info.resources.clone(),
            limits: limits_of(&info),
            directory: directory.clone(),
            user: user.clone(),
            environment: environment::of_command_task(&variables, &info),
        };
        let task = Task {
            key: key.clone(),
            shown: Arc::new(shown(key, &info)),
            info,
            container: container.clone(),
            directory,
            user,
            group: None,
            life: Life::Preparing { stored: false, prepared: false },
            pid: None,
            networks: Vec::new(),
            description: None,
        };
        tracing::info!(task = %key, %container, "taking on a task");
        out.push(Output::Container(container, ContainerCommand::Prepare(Arc::new(launch))));
        let record = record(&task, None);
        self.add_task(task);
        self.store(vec![record], Some(Waiting::Launch(key.clone())), out);
    }

    fn run_task_group(&mut self, now: Now, run: RunTaskGroup, out: &mut Vec<Output>) {
        let RunTaskGroup { framework, executor, task_group, launch_executor } = run;
        let Some(id) = framework.id.clone() else { return };
        let mut tasks = Vec::new();
        for task in task_group.tasks {
            if self.accepts(now, &framework, &task, out).is_none() {
                continue;
            }
            tasks.push(Arc::new(TaskInfo { executor: Some(executor.clone()), ..task }));
        }
        if tasks.is_empty() {
            return self.refuse_executor(&id, &executor.executor_id, out);
        }
        let framework = self.enter_framework(&id, framework, out);
        let refused = self.refused_for_drain(&framework).or_else(|| {
            let message = refusal::of_executor(&executor)
                .or_else(|| tasks.iter().find_map(|task| refusal::of_task(task)))?;
            Some(Verdict::agent(TaskState::TaskError, Reason::TaskGroupInvalid, message))
        });
        if let Some(verdict) = refused {
            for task in &tasks {
                let key = TaskKey::new(id.clone(), task.task_id.clone());
                self.refuse_task(now, &key, task, verdict.clone(), out);
            }
            return self.refuse_executor(&id, &executor.executor_id, out);
        }
        let group: Arc<str> = uuid::Uuid::from_bytes(self.uuid()).to_string().into();
        let key = ExecutorKey::new(id, executor.executor_id.clone());
        if self.has_ended(&key, launch_executor) {
            return self.refuse_without_executor(now, &key, &framework, &tasks, out);
        }
        self.delegate(&key, &executor, &framework, tasks, Some(group), out);
    }

    /// Whether a task's executor is over, or was when the task was sent.
    fn has_ended(&self, key: &ExecutorKey, launch: Option<bool>) -> bool {
        match self.frameworks.executor(key) {
            Some(executor) => executor.is_over(),
            None => launch == Some(false),
        }
    }

    /// Answers tasks whose executor is over. Another is not started: the coordinator has charged for none.
    fn refuse_without_executor(
        &mut self,
        now: Now,
        key: &ExecutorKey,
        framework: &Arc<FrameworkInfo>,
        tasks: &[Arc<TaskInfo>],
        out: &mut Vec<Output>,
    ) {
        for task in tasks {
            let message = "the task's executor is being ended, or has ended";
            let verdict = Verdict::agent(dropped(framework), Reason::ExecutorTerminated, message);
            let key = TaskKey::new(key.framework.clone(), task.task_id.clone());
            self.refuse_task(now, &key, task, verdict, out);
        }
    }

    /// Has the coordinator give back what it charged for an executor that never ran. If this is lost with the
    /// link, the next registration, which does not name the executor, says the same.
    fn refuse_executor(&self, framework: &FrameworkId, executor: &ExecutorId, out: &mut Vec<Output>) {
        if self.frameworks.executor(&ExecutorKey::new(framework.clone(), executor.clone())).is_some() {
            // It was not started for what is refused.
            return;
        }
        let exited = ExecutorExited {
            framework_id: framework.clone(),
            executor_id: executor.clone(),
            status: NEVER_RAN,
        };
        out.push(Output::Send(Box::new(agent_frame::Body::ExecutorExited(exited))));
    }

    /// Whether a task may be taken on at all.
    fn accepts(
        &mut self,
        now: Now,
        framework: &FrameworkInfo,
        task: &TaskInfo,
        out: &mut Vec<Output>,
    ) -> Option<TaskKey> {
        let id = framework.id.as_ref()?;
        let key = TaskKey::new(id.clone(), task.task_id.clone());
        if self.agent_id() != Some(&task.agent_id) {
            tracing::warn!(task = %key, agent = %task.agent_id, "ignoring a task that is meant for another agent id");
            return None;
        }
        if self.winding_up.is_some() {
            tracing::warn!(task = %key, "ignoring a task: this agent is ending");
            return None;
        }
        if self.frameworks.task(&key).is_some() || self.streams.contains(&key) {
            tracing::warn!(task = %key, "ignoring a task whose id is in use");
            return None;
        }
        if let Some(framework) = self.frameworks.active.get_mut(id)
            && framework.fate == FrameworkFate::ShuttingDown
            && framework.tasks.is_empty()
            && framework.executors.is_empty()
        {
            // All has ended, and only the answers to what was not taken on are still to be acknowledged.
            framework.fate = FrameworkFate::Active;
            let write = Write::Framework(framework.info.clone(), FrameworkFate::Active);
            self.store(vec![write], None, out);
        }
        if self.frameworks.get(id).is_some_and(|f| f.fate == FrameworkFate::ShuttingDown) {
            // The coordinator that had it removed was followed by one that does not know of that. Mesos says
            // nothing here, and its master believes in the task until the agent registers again.
            let message = "the agent is still ending what the framework ran before it was removed";
            let verdict = Verdict::agent(dropped(framework), Reason::FrameworkRemoved, message);
            self.update_unknown(now, &key, verdict, out);
            return None;
        }
        Some(key)
    }

    /// Answers a task that this agent does not run, for what it is or for how the agent is.
    fn refuse_task(
        &mut self,
        now: Now,
        key: &TaskKey,
        info: &Arc<TaskInfo>,
        verdict: Verdict,
        out: &mut Vec<Output>,
    ) {
        let task = Task {
            key: key.clone(),
            shown: Arc::new(shown(key, info)),
            info: info.clone(),
            container: ContainerId::default(),
            directory: std::path::PathBuf::new(),
            user: None,
            group: None,
            life: Life::Terminated,
            pid: None,
            networks: Vec::new(),
            description: None,
        };
        let record = record(&task, None);
        self.add_task(task);
        self.update_with(now, key, verdict, false, vec![record], out);
    }

    pub(super) fn add_task(&mut self, task: Task) {
        if task.has_container() && task.owns_container() {
            self.containers.insert(task.container.clone(), Owner::Task(task.key.clone()));
        }
        if let Some(framework) = self.frameworks.active.get_mut(&task.key.framework) {
            framework.tasks.insert(task.key.task.clone(), Arc::new(task));
        }
    }

    /// The framework with its newest description, which is written down when it is new.
    fn enter_framework(
        &mut self,
        id: &FrameworkId,
        info: FrameworkInfo,
        out: &mut Vec<Output>,
    ) -> Arc<FrameworkInfo> {
        if let Some(known) = self.frameworks.get(id)
            && *known.info == info
        {
            return known.info.clone();
        }
        let info = Arc::new(info);
        let framework = self.frameworks.enter(id, info.clone());
        framework.info = info.clone();
        let fate = framework.fate;
        self.store(vec![Write::Framework(info.clone(), fate)], None, out);
        info
    }

    fn update_framework(&mut self, info: FrameworkInfo, out: &mut Vec<Output>) {
        let Some(id) = info.id.clone() else { return };
        if self.frameworks.get(&id).is_some() {
            self.enter_framework(&id, info, out);
        }
    }

    fn kill_task(&mut self, now: Now, kill: KillTask, out: &mut Vec<Output>) {
        let key = TaskKey::new(kill.framework_id, kill.task_id);
        let Some(framework) = self.frameworks.get(&key.framework) else {
            tracing::warn!(task = %key, "ignoring a kill: the framework has nothing here");
            return;
        };
        if framework.fate == FrameworkFate::ShuttingDown {
            tracing::info!(task = %key, "ignoring a kill: the framework is being shut down");
            return;
        }
        let Some(task) = framework.tasks.get(&key.task) else {
            let message = "the agent has no such task";
            let verdict = Verdict::agent(dropped(&framework.info), Reason::ExecutorTerminated, message);
            return self.update_unknown(now, &key, verdict, out);
        };
        if !task.owns_container() {
            return self.kill_delegated(now, &key, kill.kill_policy, out);
        }
        let policy = kill.kill_policy.or(task.info.kill_policy);
        let order = KillOrder { cause: KillCause::Asked, grace: grace_of(policy) };
        self.kill(now, &key, order, out);
    }

    fn shutdown_executor(&mut self, now: Now, shutdown: ShutdownExecutor, out: &mut Vec<Output>) {
        let executor = ExecutorKey::new(shutdown.framework_id.clone(), shutdown.executor_id.clone());
        if self.frameworks.executor(&executor).is_some() {
            if !self.is_gone(&executor) {
                self.shut_down_executor(now, &executor, out);
            }
            return;
        }
        // A command task's executor has the task's id.
        let key = TaskKey::new(shutdown.framework_id, shutdown.executor_id.value.as_str());
        if self.frameworks.task(&key).is_none() {
            tracing::warn!(executor = %key.task, framework = %key.framework, "ignoring the shutdown of an unknown executor");
            return;
        }
        let order = KillOrder { cause: KillCause::Asked, grace: self.config.shutdown_grace_period };
        self.kill(now, &key, order, out);
    }

    /// Ends all that a framework has here; it is gone, so nobody is told.
    pub(super) fn shutdown_framework(&mut self, now: Now, id: &FrameworkId, out: &mut Vec<Output>) {
        self.drop_orphans(id, out);
        let Some(framework) = self.frameworks.active.get_mut(id) else { return };
        if framework.fate == FrameworkFate::ShuttingDown {
            return;
        }
        tracing::info!(framework = %id, tasks = framework.tasks.len(), "shutting a framework down");
        framework.fate = FrameworkFate::ShuttingDown;
        let info = framework.info.clone();
        let keys: Vec<TaskKey> = framework.tasks.values().map(|task| task.key.clone()).collect();
        let executors: Vec<ExecutorKey> = framework.executors.values().map(|e| e.key.clone()).collect();
        self.store(vec![Write::Framework(info, FrameworkFate::ShuttingDown)], None, out);
        for key in &keys {
            self.streams.remove(key);
        }
        let order = KillOrder { cause: KillCause::Abandoned, grace: self.config.shutdown_grace_period };
        for key in &keys {
            self.kill(now, key, order, out);
        }
        for key in &executors {
            self.shut_down_executor(now, key, out);
        }
        if let Some(write) = self.retire_if_idle(id) {
            self.store(vec![write], None, out);
        }
    }

    /// Forgets what was to be said of tasks that this agent never had: nobody is there to hear it.
    fn drop_orphans(&mut self, id: &FrameworkId, out: &mut Vec<Output>) {
        let of_framework = self.streams.of_framework(id);
        let orphans: Vec<TaskKey> =
            of_framework.filter(|key| self.frameworks.task(key).is_none()).cloned().collect();
        for key in &orphans {
            self.streams.remove(key);
        }
        if !orphans.is_empty() {
            self.store(orphans.into_iter().map(Write::RemoveTask).collect(), None, out);
        }
    }

    fn acknowledge(&mut self, acknowledge: Acknowledge, out: &mut Vec<Output>) {
        let key = TaskKey::new(acknowledge.framework_id, acknowledge.task_id);
        match self.streams.acknowledge(&key, &acknowledge.uuid) {
            Acknowledged::Ignored => {
                tracing::debug!(task = %key, "ignoring an acknowledgement that nothing waits for");
            }
            Acknowledged::Head { last: true, .. } => self.forget_task(&key, out),
            // Of a task that is not here an executor told something, and has nothing more to tell.
            Acknowledged::Head { .. }
                if self.frameworks.task(&key).is_none() && self.streams.is_settled(&key) =>
            {
                self.forget_task(&key, out);
            }
            Acknowledged::Head { sequence, .. } => {
                let write = Write::Acknowledged(key.clone(), sequence);
                self.store(vec![write], Some(Waiting::Acknowledged(key)), out);
            }
        }
    }
}

/// What a task has between SIGTERM and SIGKILL under this policy.
pub(super) fn grace_of(policy: Option<KillPolicy>) -> Duration {
    policy
        .and_then(|policy| policy.grace_period)
        .map_or(GRACE_PERIOD, |grace| Duration::from_nanos(u64::try_from(grace.nanoseconds).unwrap_or(0)))
}

/// A task's hard limits by resource name.
pub(super) fn limits_of(task: &TaskInfo) -> BTreeMap<String, f64> {
    task.limits.iter().map(|(name, limit)| (name.clone(), limit.value)).collect()
}

/// What is written down of a task.
pub(super) fn record(task: &Task, kill: Option<KillOrder>) -> Write {
    Write::Task(Box::new(TaskWrite {
        key: task.key.clone(),
        info: task.info.clone(),
        container: task.container.clone(),
        directory: task.directory.clone(),
        user: task.user.clone(),
        group: task.group.clone(),
        kill,
        health: None,
    }))
}
