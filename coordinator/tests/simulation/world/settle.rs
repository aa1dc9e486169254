//! After the faults: everyone who lives is connected again, and the coordinator, the agents and the frameworks come
//! to believe the same of every task, within a bounded time.

use std::collections::BTreeSet;
use std::time::Duration;

use tepui_api::v1::TaskState;
use tepui_coordinator::core::{OperatorCall, Snapshot};

use super::{Power, World};
use crate::ledger::Ledger;
use crate::model::agent::Task;
use crate::model::{Key, is_terminal};

/// How long it may take: longer than any time-out of the models and of the coordinator's settings together.
const BOUND: Duration = Duration::from_secs(900);

impl World {
    pub(super) fn settle(&mut self) -> Result<(), String> {
        self.calm = true;
        self.start();
        for index in 0..self.agents.len() {
            let node = &mut self.agents[index];
            if let Power::Off { until } = &mut node.power {
                *until = (*until).min(self.now + Duration::from_secs(5));
            }
            self.agents[index].wakes_at = None;
            self.plan_agent(index);
        }
        for index in 0..self.frameworks.len() {
            let node = &mut self.frameworks[index];
            if let Power::Off { until } = &mut node.power {
                *until = (*until).min(self.now + Duration::from_secs(5));
            }
            self.frameworks[index].wakes_at = None;
            self.plan_framework(index);
        }
        let end = self.now + BOUND;
        let mut look = self.now;
        loop {
            self.advance()?;
            if self.now < look {
                continue;
            }
            look = self.now + Duration::from_secs(5);
            // Machines that are down come up again, or nobody on them could come back.
            let down =
                self.host.ledger.as_ref().map(|ledger| ledger.snapshot().maintenance_status().down_machines);
            if let Some(down) = down.filter(|down| !down.is_empty()) {
                self.call_operator(OperatorCall::StopMaintenance(down));
            }
            match self.unsettled() {
                None => break,
                Some(what) if self.now > end => {
                    return Err(format!("{} s after the last fault: {what}", BOUND.as_secs()));
                }
                Some(_) => {}
            }
        }
        self.tally.terminal_acknowledged = self.agents.iter().map(|node| node.model.acknowledged).sum();
        Ok(())
    }

    /// What is not yet as it should be.
    fn unsettled(&self) -> Option<String> {
        let state = self.host.ledger.as_ref().map(Ledger::snapshot)?;
        self.unsettled_agents(state).or_else(|| self.unsettled_frameworks(state))
    }

    fn unsettled_agents(&self, state: &Snapshot) -> Option<String> {
        if let Some(id) = state.recovered_agents.keys().next() {
            return Some(format!("agent {id} is still awaited"));
        }
        let mut live = BTreeSet::new();
        // A framework that was given up while the coordinator was down may be recovered from its agents, and
        // nobody comes to acknowledge.
        let owned: BTreeSet<_> = self.frameworks.iter().filter_map(|node| node.model.id().cloned()).collect();
        for node in self.agents.iter().filter(|node| node.power != Power::Gone) {
            let model = &node.model;
            let name = &model.info.hostname;
            let Some(agent) = model.id().and_then(|id| state.agents.get(id)) else {
                return Some(format!("{name} is not registered; it is {:?}", model.link));
            };
            if !model.is_up() || agent.link.is_none() || agent.link != node.link {
                return Some(format!(
                    "{name} is not connected: {:?} there, {:?} here",
                    model.link, agent.link
                ));
            }
            live.insert(agent.id.clone());
            if let Some((_, task)) = model.updates.keys().find(|key| owned.contains(&key.0)) {
                return Some(format!("{name} has an update of task {task} that is not acknowledged"));
            }
            let lacks = |key: &Key| !model.tasks.contains_key(key) && owned.contains(&key.0);
            if let Some((_, task)) = agent.tasks.iter().find(|key| lacks(key)) {
                return Some(format!("the coordinator believes in task {task}, which {name} does not have"));
            }
            let of_nobody =
                |key: &Key| !owned.contains(&key.0) && model.tasks.get(key).is_some_and(Task::is_over);
            if let Some((_, task)) =
                model.tasks.keys().find(|key| !agent.tasks.contains(*key) && !of_nobody(key))
            {
                return Some(format!("{name} has task {task}, of which the coordinator does not know"));
            }
            if let Some((key, _)) =
                model.tasks.iter().find(|(key, task)| owned.contains(&key.0) && task.is_over())
            {
                return Some(format!("{name} has not been told to forget task {}", key.1));
            }
            if let Some(key) = agent.executors.iter().find(|key| !model.executors.contains_key(*key)) {
                return Some(format!("the coordinator believes in executor {} on {name}", key.1));
            }
        }
        let dead = state.agents.keys().find(|id| !live.contains(*id));
        dead.map(|id| format!("agent {id}, which is gone, is still in the books"))
    }

    fn unsettled_frameworks(&self, state: &Snapshot) -> Option<String> {
        for node in &self.frameworks {
            let model = &node.model;
            let name = &model.info.name;
            let Some(framework) = model.id().and_then(|id| state.frameworks.get(id)) else {
                return Some(format!("{name} is not subscribed: {:?}", model.phase));
            };
            if !model.is_subscribed() || framework.stream() != model.stream() {
                return Some(format!(
                    "{name} does not listen: {:?} there, {:?} here",
                    model.phase, framework.connection
                ));
            }
            for (id, seen) in &model.view {
                let runs = framework.tasks.get(id).is_some_and(|task| !is_terminal(task.state()));
                let believed = matches!(
                    seen.state,
                    TaskState::TaskStaging
                        | TaskState::TaskStarting
                        | TaskState::TaskRunning
                        | TaskState::TaskKilling
                );
                if runs != believed {
                    return Some(format!(
                        "{name} believes that task {id} is {:?}, but it runs: {runs}",
                        seen.state
                    ));
                }
            }
            if let Some(task) = framework.tasks.values().find(|task| is_terminal(task.state())) {
                return Some(format!("task {} of {name} has ended, which is not acknowledged", task.task_id));
            }
        }
        None
    }
}
