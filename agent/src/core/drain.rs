//! Draining: the operator wants nothing to run on this agent any more.
//!
//! The coordinator says so, and says so again after each registration while the drain lasts. The
//! configuration goes to disk first; then every task is killed, with its own grace period cut to the one that the operator allows. What
//! arrives to be launched meanwhile is answered as dropped. Updates that tell of the kills carry the reason of the
//! drain. When no framework has anything here any more, nor an update that waits for its acknowledgement, the drain is over and
//! forgotten. All of this as Mesos' agent does it, but that `TASK_KILLING` stays what it is when the agent will be marked gone:
//! Mesos makes even that one `TASK_GONE_BY_OPERATOR`, and so tells of the end before it has come.

use std::time::Duration;

use tepui_api::v1::framework_info::capability;
use tepui_api::v1::task_status::Reason;
use tepui_api::v1::{DrainConfig, KillPolicy, TaskState, TaskStatus};

use super::frames::grace_of;
use super::input::{FrameworkFate, Now, Output, Write};
use super::status::{Verdict, can, dropped};
use super::task::{KillCause, KillOrder, TaskKey};
use super::{Core, Waiting};

/// A drain under way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drain {
    /// As the coordinator asked for it.
    pub config: DrainConfig,
    /// When this process heard of it first, since 1970.
    pub since: Duration,
}

impl Core {
    /// The coordinator wants the agent drained.
    pub(super) fn drain(&mut self, now: Now, config: DrainConfig, out: &mut Vec<Output>) {
        if self.frameworks.active.is_empty() {
            tracing::info!("asked to drain, but nothing is here: done");
            return;
        }
        tracing::info!(
            max_grace_period = ?config.max_grace_period.map(|grace| grace.nanoseconds),
            mark_gone = config.mark_gone(),
            tasks = self.frameworks.tasks().count(),
            "draining: all tasks are killed, and none is taken on"
        );
        let since = self.drain.filter(|drain| drain.config == config).map_or(now.unix, |drain| drain.since);
        self.drain = Some(Drain { config, since });
        self.store(vec![Write::Drain(Some(config))], Some(Waiting::Drain), out);
    }

    /// The drain is on disk, or was found there: ends what runs.
    pub(super) fn carry_out_drain(&mut self, now: Now, out: &mut Vec<Output>) {
        let Some(Drain { config, .. }) = self.drain else { return };
        let going_on = self.frameworks.active.values().filter(|f| f.fate == FrameworkFate::Active);
        let tasks = going_on.flat_map(|framework| framework.tasks.values());
        let orders: Vec<(TaskKey, bool, Option<KillPolicy>)> = tasks
            .map(|task| (task.key.clone(), task.owns_container(), cut(task.info.kill_policy, &config)))
            .collect();
        for (key, own, policy) in orders {
            if own {
                let order = KillOrder { cause: KillCause::Asked, grace: grace_of(policy) };
                self.kill(now, &key, order, out);
            } else {
                self.kill_delegated(now, &key, policy, out);
            }
        }
    }

    /// What is said of a task that arrives while the agent drains.
    pub(super) fn refused_for_drain(&self, framework: &tepui_api::v1::FrameworkInfo) -> Option<Verdict> {
        self.drain.map(|_| {
            let message = "the agent is draining and takes no task on";
            Verdict::agent(dropped(framework), Reason::AgentDraining, message)
        })
    }

    /// While the agent drains, kills have its reason, whoever wished for them; and their tasks are gone
    /// when the agent will be, for frameworks that know what that means.
    pub(super) fn as_drained(&self, key: &TaskKey, verdict: Verdict) -> Verdict {
        let Some(Drain { config, .. }) = self.drain else { return verdict };
        match verdict.state {
            TaskState::TaskKilling => Verdict { reason: Some(Reason::AgentDraining), ..verdict },
            TaskState::TaskKilled => {
                let knows_gone = self
                    .frameworks
                    .get(&key.framework)
                    .is_some_and(|framework| can(&framework.info, capability::Type::PartitionAware));
                let gone = config.mark_gone() && knows_gone;
                let state = if gone { TaskState::TaskGoneByOperator } else { TaskState::TaskKilled };
                Verdict { state, reason: Some(Reason::AgentDraining), ..verdict }
            }
            _ => verdict,
        }
    }

    /// As [`Core::as_drained`], for what an executor tells.
    pub(super) fn as_drained_status(&self, key: &TaskKey, status: TaskStatus) -> TaskStatus {
        let verdict = self.as_drained(key, Verdict::executor(status.state()));
        match verdict.reason {
            Some(reason) => TaskStatus { state: verdict.state as i32, reason: Some(reason as i32), ..status },
            None => status,
        }
    }

    /// Nothing is left: the drain is over.
    pub(super) fn finish_draining(&mut self, out: &mut Vec<Output>) {
        if self.drain.is_some() && self.frameworks.active.is_empty() {
            tracing::info!("the agent has drained");
            self.drain = None;
            self.store(vec![Write::Drain(None)], None, out);
        }
    }
}

/// A task's kill policy under a drain: the operator's grace period where the task's is longer or not given.
fn cut(policy: Option<KillPolicy>, config: &DrainConfig) -> Option<KillPolicy> {
    let Some(limit) = config.max_grace_period else { return policy };
    let own = policy.and_then(|policy| policy.grace_period);
    let shorter = own.filter(|own| own.nanoseconds <= limit.nanoseconds);
    Some(KillPolicy { grace_period: Some(shorter.unwrap_or(limit)) })
}
