//! How a task is made to end: SIGTERM to all its processes, and when its grace period is over, the end of its
//! container. And what else is done when time has passed.

use std::time::Duration;

use tepui_api::v1::TaskState;
use tepui_api::v1::framework_info::capability;
use tepui_api::v1::task_status::Reason;

use super::Core;
use super::executor::ExecutorKey;
use super::frames::record;
use super::input::{ContainerCommand, Now, Output};
use super::status::{Verdict, can};
use super::task::{Kill, KillCause, KillOrder, Life, TaskKey};
use crate::checks::check::Kind;

/// What to look at when its time has come. Whether there still is something to do is seen then.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A task's grace period ends.
    Escalation(TaskKey),
    /// A task's `max_completion_time` ends.
    Completion(TaskKey),
    /// A task's check is due.
    Check(TaskKey, Kind),
    /// An executor must have subscribed, in the container with this id.
    Registration(ExecutorKey, String),
    /// An executor must have subscribed to this agent, which was restarted.
    Reregistration(ExecutorKey, String),
    /// An executor's grace period ends.
    ExecutorGrace(ExecutorKey, String),
    /// The coordinator has been silent for too long.
    PingTimeout,
}

/// SIGTERM.
const TERM: i32 = 15;

impl Core {
    /// Begins to kill a task, or shortens the grace period of a kill under way; it never lengthens it.
    pub(super) fn kill(&mut self, now: Now, key: &TaskKey, order: KillOrder, out: &mut Vec<Output>) {
        let Some(task) = self.frameworks.task_mut(key) else { return };
        match &mut task.life {
            Life::Preparing { .. } => {
                let verdict = Verdict::agent(
                    TaskState::TaskKilled,
                    Reason::TaskKilledDuringLaunch,
                    "the task was killed before it was started",
                );
                self.end(now, key, verdict, out);
            }
            Life::Starting { kill } => match kill {
                Some(before) => before.grace = before.grace.min(order.grace),
                None => *kill = Some(order),
            },
            Life::Running => self.terminate(now, key, order, out),
            Life::Killing(kill) => {
                let sooner = kill.began + order.grace;
                if kill.escalates.is_some_and(|at| sooner < at) {
                    kill.escalates = Some(sooner.max(now.monotonic));
                    self.timers.insert((sooner.max(now.monotonic), Timer::Escalation(key.clone())));
                }
            }
            // Its executor ends it: see `kill_delegated`.
            Life::Queued { .. } | Life::Delegated => {}
            Life::Ending | Life::Terminated => {}
        }
        if order.cause == KillCause::Abandoned
            && self.frameworks.task(key).is_some_and(|task| task.life == Life::Terminated)
        {
            self.forget_task(key, out);
        }
    }

    fn terminate(&mut self, now: Now, key: &TaskKey, order: KillOrder, out: &mut Vec<Output>) {
        let Some(framework) = self.frameworks.get(&key.framework).map(|f| f.info.clone()) else { return };
        self.stop_checks(key);
        let Some(task) = self.frameworks.task_mut(key) else { return };
        tracing::info!(task = %key, cause = ?order.cause, grace = ?order.grace, "killing a task");
        let container = task.container.clone();
        let escalates = now.monotonic + order.grace;
        task.life =
            Life::Killing(Kill { cause: order.cause, began: now.monotonic, escalates: Some(escalates) });
        let written = record(task, Some(order));
        let told = task.shown.statuses.iter().any(|status| status.state() == TaskState::TaskKilling);
        let tell = matches!(order.cause, KillCause::Asked | KillCause::Unhealthy) && !told;
        self.store(vec![written], None, out);
        if tell && can(&framework, capability::Type::TaskKillingState) {
            self.update(now, key, Verdict::executor(TaskState::TaskKilling), false, out);
        }
        out.push(Output::Container(container, ContainerCommand::Signal(TERM)));
        self.timers.insert((escalates, Timer::Escalation(key.clone())));
    }

    pub(super) fn fire_timers(&mut self, now: Now, out: &mut Vec<Output>) {
        while self.timers.first().is_some_and(|(at, _)| *at <= now.monotonic) {
            let Some((at, timer)) = self.timers.pop_first() else { return };
            match timer {
                Timer::Escalation(key) => self.escalate(at, &key, out),
                Timer::Completion(key) => self.completion_time_over(now, &key, out),
                Timer::Check(key, kind) => self.check_due(at, &key, kind, out),
                Timer::Registration(key, container) => {
                    self.registration_over(now, &key, &container, false, out);
                }
                Timer::Reregistration(key, container) => {
                    self.registration_over(now, &key, &container, true, out);
                }
                Timer::ExecutorGrace(key, container) => self.executor_grace_over(at, &key, &container, out),
                Timer::PingTimeout => self.ping_timeout(at, out),
            }
        }
    }

    /// The grace period is over: the whole container is ended. Its exit is reported as always.
    fn escalate(&mut self, at: Duration, key: &TaskKey, out: &mut Vec<Output>) {
        let Some(task) = self.frameworks.task_mut(key) else { return };
        if let Life::Killing(kill) = &mut task.life
            && kill.escalates == Some(at)
        {
            tracing::info!(task = %key, "the task did not end in its grace period: killing it by force");
            kill.escalates = None;
            out.push(Output::Container(task.container.clone(), ContainerCommand::Signal(KILL)));
        }
    }

    fn completion_time_over(&mut self, now: Now, key: &TaskKey, out: &mut Vec<Output>) {
        if self.frameworks.task(key).is_some_and(|task| task.life == Life::Running) {
            tracing::info!(task = %key, "the task ran longer than its maximum completion time");
            let order = KillOrder { cause: KillCause::CompletionTime, grace: Duration::ZERO };
            self.kill(now, key, order, out);
        }
    }
}

/// SIGKILL: to every process of the container.
pub(super) const KILL: i32 = 9;
