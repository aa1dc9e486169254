//! The checks of tasks that run: when they are asked, and what their answers change.
//!
//! A task's checks begin with `TASK_RUNNING` and stop when the task is killed or ends. What they find is told by further
//! `TASK_RUNNING` updates, which say all that the last one said; a task that fails its health check too often is killed as if its
//! framework had asked for it. Updates of other states say nothing of checks, but that the last one of a task that was killed for
//! its health says `healthy: false`. So does Mesos' command executor. What is told is on disk, and so a restarted agent goes on from there.

use std::time::Duration;

use tepui_api::v1::task_status::Reason;
use tepui_api::v1::{CheckStatusInfo, TaskInfo, TaskState, TaskStatus};

use super::Core;
use super::frames::{grace_of, record};
use super::input::{ContainerCommand, Now, Output, Write};
use super::kill::Timer;
use super::recovery::StoredUpdate;
use super::status::Verdict;
use super::task::{KillCause, KillOrder, Life, Task, TaskKey};
use crate::checks::check::{Check, Finding, Health, Kind, Outcome, unchecked};

/// The checks of a task that runs.
#[derive(Debug)]
pub(super) struct Checks {
    check: Option<Check>,
    health_check: Option<Check>,
    /// What they found last.
    found: Found,
}

/// What a `TASK_RUNNING` update says of them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Found {
    healthy: Option<bool>,
    status: Option<CheckStatusInfo>,
}

// === impl Checks ===

impl Checks {
    /// The checks that a task asks for, from now on; `None` when there are none.
    fn of(task: &TaskInfo, now: Duration) -> Option<Self> {
        // What cannot be done was refused when the task was taken on.
        let check = task.check.as_ref().and_then(|info| Check::of_check(info, now).ok());
        let health_check = task.health_check.as_ref().and_then(|info| Check::of_health_check(info, now).ok());
        let found = Found { healthy: None, status: task.check.as_ref().map(unchecked) };
        (check.is_some() || health_check.is_some()).then_some(Self { check, health_check, found })
    }

    fn get(&mut self, kind: Kind) -> Option<&mut Check> {
        match kind {
            Kind::Check => self.check.as_mut(),
            Kind::HealthCheck => self.health_check.as_mut(),
        }
    }

    fn each(&mut self) -> impl Iterator<Item = (Kind, &mut Check)> {
        let check = self.check.as_mut().map(|check| (Kind::Check, check));
        check.into_iter().chain(self.health_check.as_mut().map(|check| (Kind::HealthCheck, check)))
    }
}

// === impl Core ===

impl Core {
    /// A task's processes run.
    pub(super) fn begin_checks(&mut self, now: Now, key: &TaskKey) {
        let Some(task) = self.frameworks.task(key) else { return };
        if let Some(checks) = Checks::of(&task.info, now.monotonic) {
            self.keep_checks(key, checks);
        }
    }

    /// A task's processes run, and did so under an earlier process of the agent, since this time since 1970.
    pub(super) fn resume_checks(
        &mut self,
        now: Now,
        key: &TaskKey,
        since: Duration,
        health: Health,
        updates: &[StoredUpdate],
        out: &mut Vec<Output>,
    ) {
        let Some(task) = self.frameworks.task(key) else { return };
        let policy = task.info.kill_policy;
        let Some(mut checks) = Checks::of(&task.info, now.monotonic) else { return };
        let statuses = updates.iter().map(|update| &update.status);
        if let Some(last) = statuses.rev().find(|status| status.state() == TaskState::TaskRunning) {
            let status = last.check_status.or(checks.found.status);
            checks.found = Found { healthy: last.healthy, status };
        }
        let ran = now.unix.saturating_sub(since);
        let told = checks.found.status;
        for (_, check) in checks.each() {
            check.resume(now.monotonic, ran, self.part(), told, health);
        }
        let failed = checks.health_check.as_ref().is_some_and(Check::has_failed);
        self.keep_checks(key, checks);
        if failed {
            self.kill(now, key, KillOrder { cause: KillCause::Unhealthy, grace: grace_of(policy) }, out);
        }
    }

    fn keep_checks(&mut self, key: &TaskKey, mut checks: Checks) {
        for (kind, check) in checks.each() {
            self.timers.extend(check.due().map(|at| (at, Timer::Check(key.clone(), kind))));
        }
        self.checks.insert(key.clone(), checks);
    }

    /// The task is killed, or has ended. An answer that is still under way finds nobody.
    pub(super) fn stop_checks(&mut self, key: &TaskKey) {
        self.checks.remove(key);
    }

    pub(super) fn check_due(&mut self, at: Duration, key: &TaskKey, kind: Kind, out: &mut Vec<Output>) {
        let Some(task) = self.frameworks.task(key) else { return };
        let (container, pid) = (task.container.clone(), task.pid);
        let check = self.checks.get_mut(key).and_then(|checks| checks.get(kind));
        if let Some(check) = check.filter(|check| check.due() == Some(at)) {
            let probe = check.begin(pid);
            out.push(Output::Container(container, ContainerCommand::Probe(Box::new(probe))));
        }
    }

    pub(super) fn probed(
        &mut self,
        now: Now,
        key: &TaskKey,
        kind: Kind,
        outcome: &Outcome,
        out: &mut Vec<Output>,
    ) {
        let running = self.frameworks.task(key).filter(|task| task.life == Life::Running);
        let Some(task) = running.cloned() else { return };
        let Some(checks) = self.checks.get_mut(key) else { return };
        let Some(check) = checks.get(kind).filter(|check| check.due().is_none()) else { return };
        let finding = check.answered(now.monotonic, outcome);
        let health = check.health();
        self.timers.extend(check.due().map(|at| (at, Timer::Check(key.clone(), kind))));
        match (finding, outcome) {
            (None, Outcome::Failed(why)) => {
                tracing::debug!(task = %key, ?kind, why, "a check has no result");
            }
            (Some(_), Outcome::Failed(why)) => {
                tracing::warn!(task = %key, ?kind, why, "a check has no result");
            }
            (Some(Finding::Health { healthy: false, .. }), outcome) => {
                tracing::warn!(task = %key, ?outcome, "the task failed its health check");
            }
            _ => {}
        }
        match finding {
            None => {}
            Some(Finding::Status(status)) => {
                checks.found.status = Some(status);
                self.tell_found(now, key, Reason::TaskCheckStatusUpdated, vec![], out);
            }
            Some(Finding::Health { healthy, kill }) => {
                checks.found.healthy = Some(healthy);
                let noted = vec![with_health(&task, health)];
                self.tell_found(now, key, Reason::TaskHealthCheckStatusUpdated, noted, out);
                if kill {
                    let grace = grace_of(task.info.kill_policy);
                    self.kill(now, key, KillOrder { cause: KillCause::Unhealthy, grace }, out);
                }
            }
        }
    }

    fn tell_found(
        &mut self,
        now: Now,
        key: &TaskKey,
        reason: Reason,
        noted: Vec<Write>,
        out: &mut Vec<Output>,
    ) {
        let verdict = Verdict { reason: Some(reason), ..Verdict::executor(TaskState::TaskRunning) };
        self.update_with(now, key, verdict, false, noted, out);
    }

    /// What an update in this state says of a task's checks.
    pub(super) fn show_checks(&self, key: &TaskKey, task: &TaskInfo, status: &mut TaskStatus) {
        let unknown = Found { healthy: None, status: task.check.as_ref().map(unchecked) };
        let found = match self.checks.get(key).filter(|_| status.state() == TaskState::TaskRunning) {
            Some(checks) => checks.found,
            None => unknown,
        };
        status.check_status = found.status;
        status.healthy = status.healthy.or(found.healthy);
    }
}

/// A task's record, with what is to be known of its health after a restart.
fn with_health(task: &Task, health: Health) -> Write {
    let mut write = record(task, None);
    if let Write::Task(record) = &mut write {
        record.health = Some(health);
    }
    write
}

/// Why a check of this task cannot be done.
pub(super) fn refusal(task: &TaskInfo) -> Option<String> {
    let check = task.check.as_ref().and_then(|info| Check::of_check(info, Duration::ZERO).err());
    check.or_else(|| Check::of_health_check(task.health_check.as_ref()?, Duration::ZERO).err())
}
