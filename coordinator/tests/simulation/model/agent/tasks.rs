//! What becomes of the tasks on an agent: they start, run, are killed, end, and each step is an update.

use std::time::Duration;

use tepui_api::link::agent_frame::Body as Frame;
use tepui_api::link::{ExecutorExited, StatusUpdate};
use tepui_api::resources::Resources;
use tepui_api::v1::framework_info::capability::Type as FrameworkCapability;
use tepui_api::v1::task_status::{Reason, Source};
use tepui_api::v1::{
    self, ExecutorId, ExecutorInfo, FrameworkId, FrameworkInfo, TaskInfo, TaskState, TaskStatus,
};

use super::super::Key;
use super::super::updates::Sending;
use super::{Agent, Executor, Life, Task};
use crate::rng::Rng;

impl Agent {
    pub(super) fn run(
        &mut self,
        now: Duration,
        framework: FrameworkInfo,
        info: TaskInfo,
        executor: Option<ExecutorInfo>,
        rng: &mut Rng,
    ) -> Result<(), String> {
        let id = framework.id.clone().ok_or("a framework without an id")?;
        let key = (id.clone(), info.task_id.clone());
        if self.id() != Some(&info.agent_id) {
            return Err(format!("{} was sent a task of agent {}", self.info.hostname, info.agent_id));
        }
        if self.shutting_down.contains_key(&id)
            || self.tasks.contains_key(&key)
            || self.updates.contains(&key)
        {
            return Ok(());
        }
        self.frameworks.insert(id.clone(), framework);
        let executor_id = executor.as_ref().map(|executor| executor.executor_id.clone());
        if let Some(executor) = executor {
            let at = (id.clone(), executor.executor_id.clone());
            if self.exited.contains(&at) {
                // It had ended before the coordinator knew.
                self.drop_task(now, &key, Reason::ExecutorTerminated);
                self.out.push(exited(&at));
                return Ok(());
            }
            let entry = self.executors.entry(at);
            entry.or_insert(Executor { info: executor, idle_until: None }).idle_until = None;
        }
        let uses = Resources::from_wire(&info.resources).map_err(|error| error.to_string())?;
        let task = Task {
            shown: shown(&id, &info, executor_id.clone()),
            uses,
            life: Life::Staging { until: now + rng.millis(20..=3000) },
            executor: executor_id,
            durable_at: now + rng.millis(1..=30),
        };
        self.tasks.insert(key, task);
        let total = Resources::from_wire_lossy(&self.info.resources);
        let used = self.used();
        if !self.shrunk && !total.contains(&used) {
            return Err(format!("{} has {total} and was told to run {used}", self.info.hostname));
        }
        Ok(())
    }

    pub(super) fn advance(&mut self, now: Duration, key: &Key, rng: &mut Rng) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        match task.life {
            Life::Staging { .. } if rng.chance(50) => self.end(now, key, TaskState::TaskFailed),
            Life::Staging { .. } => {
                let long = rng.chance(200);
                let until = now + if long { rng.millis(60_000..=600_000) } else { rng.millis(100..=30_000) };
                let end = if rng.chance(200) { TaskState::TaskFailed } else { TaskState::TaskFinished };
                task.life = Life::Running { until, end };
                if rng.chance(700) {
                    self.update(now, key, TaskState::TaskStarting);
                }
                self.update(now, key, TaskState::TaskRunning);
            }
            Life::Running { end, .. } => self.end(now, key, end),
            Life::Killing { .. } => self.end(now, key, TaskState::TaskKilled),
            Life::Over => {}
        }
    }

    pub(super) fn kill(&mut self, now: Duration, key: Key, rng: &mut Rng) {
        if self.shutting_down.contains_key(&key.0) {
            return;
        }
        let Some(framework) = self.frameworks.get(&key.0) else { return };
        let tells = has(framework, FrameworkCapability::TaskKillingState);
        let Some(task) = self.tasks.get_mut(&key) else {
            if !self.updates.contains(&key) {
                self.drop_task(now, &key, Reason::ExecutorTerminated);
            }
            return;
        };
        match task.life {
            Life::Staging { .. } => self.end(now, &key, TaskState::TaskKilled),
            Life::Running { .. } => {
                task.life = Life::Killing { until: now + rng.millis(10..=5000) };
                if tells {
                    self.update(now, &key, TaskState::TaskKilling);
                }
            }
            Life::Killing { .. } | Life::Over => {}
        }
    }

    fn end(&mut self, now: Duration, key: &Key, state: TaskState) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        if task.life == Life::Over {
            return;
        }
        task.life = Life::Over;
        let executor = task.executor.clone();
        self.update(now, key, state);
        if let Some(executor) = executor {
            self.rest_executor(now, (key.0.clone(), executor));
        }
    }

    /// An executor without tasks waits for more, and then ends.
    fn rest_executor(&mut self, now: Duration, key: (FrameworkId, ExecutorId)) {
        let busy = self
            .tasks
            .iter()
            .any(|(task, t)| task.0 == key.0 && t.executor.as_ref() == Some(&key.1) && t.life != Life::Over);
        if !busy && let Some(executor) = self.executors.get_mut(&key) {
            executor.idle_until = Some(now + Duration::from_secs(3));
        }
    }

    pub(super) fn executor_exits(
        &mut self,
        now: Duration,
        key: &(FrameworkId, ExecutorId),
        state: TaskState,
    ) {
        self.executors.remove(key);
        self.exited.insert(key.clone());
        let tasks: Vec<Key> = (self.tasks.iter())
            .filter(|(task, t)| task.0 == key.0 && t.executor.as_ref() == Some(&key.1))
            .map(|(task, _)| task.clone())
            .collect();
        for task in tasks {
            self.end(now, &task, state);
        }
        if self.is_up() {
            self.out.push(exited(key));
        } else {
            self.untold.push(key.clone());
        }
        self.retire_frameworks();
    }

    pub(super) fn shutdown_framework(&mut self, now: Duration, id: &FrameworkId, rng: &mut Rng) {
        if !self.frameworks.contains_key(id) {
            return;
        }
        self.shutting_down.insert(id.clone(), now + rng.millis(10..=5000));
        self.tasks.retain(|key, _| key.0 != *id);
        self.executors.retain(|key, _| key.0 != *id);
        let keys: Vec<Key> = self.updates.keys().filter(|key| key.0 == *id).cloned().collect();
        for key in keys {
            self.updates.remove(&key);
        }
        self.frameworks.remove(id);
    }

    /// Says of a task that it is not here.
    pub(super) fn drop_task(&mut self, now: Duration, key: &Key, reason: Reason) {
        let aware = self.frameworks.get(&key.0).is_some_and(|f| has(f, FrameworkCapability::PartitionAware));
        let state = if aware { TaskState::TaskDropped } else { TaskState::TaskLost };
        let status = self.status(now, key, state, Some(reason));
        self.push(now, key, status);
    }

    fn update(&mut self, now: Duration, key: &Key, state: TaskState) {
        let status = self.status(now, key, state, None);
        if let Some(task) = self.tasks.get_mut(key) {
            task.shown.state = status.state;
            task.shown.statuses = vec![TaskStatus { data: None, ..status.clone() }];
        }
        self.push(now, key, status);
    }

    fn push(&mut self, now: Duration, key: &Key, status: TaskStatus) {
        let connected = self.is_up();
        if let Some(sending) = self.updates.push(key, status, connected, now) {
            self.send(sending);
        }
    }

    fn status(&mut self, now: Duration, key: &Key, state: TaskState, reason: Option<Reason>) -> TaskStatus {
        self.next_update += 1;
        let mut uuid = self.next_update.to_be_bytes().to_vec();
        uuid.extend(self.instance.as_bytes().iter().take(8));
        TaskStatus {
            task_id: key.1.clone(),
            state: state.into(),
            source: Some(if reason.is_some() { Source::Agent } else { Source::Executor }.into()),
            reason: reason.map(Into::into),
            agent_id: self.info.id.clone(),
            timestamp: Some(now.as_secs_f64()),
            data: Some(self.next_update.to_be_bytes().to_vec()),
            uuid: Some(uuid),
            ..TaskStatus::default()
        }
    }

    pub(super) fn send(&mut self, sending: Sending) {
        let Sending { key, status, latest } = sending;
        if let Some(task) = self.tasks.get_mut(&key) {
            task.shown.status_update_state = Some(status.state);
            task.shown.status_update_uuid.clone_from(&status.uuid);
        }
        self.out.push(Frame::Update(StatusUpdate {
            framework_id: key.0,
            status,
            latest_state: latest.into(),
        }));
    }
}

fn has(framework: &FrameworkInfo, capability: FrameworkCapability) -> bool {
    framework.capabilities.iter().any(|has| has.r#type() == capability)
}

pub(super) fn exited(key: &(FrameworkId, ExecutorId)) -> Frame {
    Frame::ExecutorExited(ExecutorExited {
        framework_id: key.0.clone(),
        executor_id: key.1.clone(),
        status: 0,
    })
}

fn shown(framework: &FrameworkId, info: &TaskInfo, executor: Option<ExecutorId>) -> v1::Task {
    v1::Task {
        name: info.name.clone(),
        task_id: info.task_id.clone(),
        framework_id: framework.clone(),
        executor_id: executor,
        agent_id: info.agent_id.clone(),
        state: TaskState::TaskStaging.into(),
        resources: info.resources.clone(),
        ..v1::Task::default()
    }
}
