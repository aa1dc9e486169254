//! After the faults: one coordinator leads, everyone who lives is connected to it, and it, the agents and the schedulers
//! believe the same of every task, within a bounded time. What was cut or stopped then goes on in its own time.

use std::collections::BTreeSet;
use std::time::Duration;

use tepui_agent::core::FrameworkFate;
use tepui_api::v1::{AgentId, FrameworkId, TaskId, TaskState};
use tepui_coordinator::core::Snapshot;

use super::network::Near;
use super::{Checked, World};
use crate::ledger::is_terminal;

/// How long it may take: the longest fault, and after it all time-outs of the cores and the models in a row.
const BOUND: Duration = Duration::from_secs(400);

impl World {
    pub(super) fn settle(&mut self) -> Checked {
        self.calm = true;
        let begun = self.now;
        let mut look = self.now;
        loop {
            self.advance()?;
            if self.now < look {
                continue;
            }
            look = self.now + Duration::from_secs(2);
            match self.unsettled()? {
                None => break,
                Some(what) if self.now > begun + BOUND => {
                    return Err(format!("{} s after the last fault: {what}", BOUND.as_secs()));
                }
                Some(_) => {}
            }
        }
        self.tally.settling = self.now - begun;
        Ok(())
    }

    /// What is not yet as it should be.
    fn unsettled(&mut self) -> Result<Option<String>, String> {
        let leaders: Vec<usize> = (0..self.coordinators.len()).filter(|index| self.leads(*index)).collect();
        let [leader] = leaders[..] else {
            let clients: Vec<_> = self.coordinators.iter().map(|coordinator| &coordinator.client).collect();
            let node = self.zookeeper.leader();
            return Ok(Some(format!("{leaders:?} lead; ZooKeeper says {node:?}; {clients:?}")));
        };
        let Some(reign) = &self.coordinators[leader].reign else { return Ok(None) };
        let state = reign.core.snapshot();
        let what =
            self.unsettled_agents(leader, &state).or_else(|| self.unsettled_schedulers(leader, &state));
        if what.is_none() {
            reign.core.audit().map_err(|broken| format!("coordinator {leader}: {broken}"))?;
            let recovered = self.zookeeper.recover()?;
            let known = |id: &AgentId| recovered.admitted.iter().any(|info| info.id.as_ref() == Some(id));
            if let Some(id) = state.agents.keys().find(|id| !known(id)) {
                // What was written a moment ago may not have been answered yet.
                return Ok(Some(format!("agent {id} is registered, but not in the registry")));
            }
        }
        Ok(what)
    }

    fn unsettled_agents(&self, leader: usize, state: &Snapshot) -> Option<String> {
        if let Some(id) = state.recovered_agents.keys().next() {
            return Some(format!("agent {id} is still awaited"));
        }
        // Of a framework that was given up while no coordinator knew, tasks may be left, which nobody acknowledges.
        let owned: BTreeSet<FrameworkId> = self.schedulers.iter().filter_map(|s| s.id().cloned()).collect();
        let mut live = BTreeSet::new();
        for index in (0..self.machines.len()).filter(|index| self.machine_lives(*index)) {
            let machine = &self.machines[index];
            let name = &machine.hostname;
            let Some(core) = &machine.core else { return Some(format!("no agent runs on {name}")) };
            let own = core.snapshot();
            let Some(agent) = own.agent.id.as_ref().and_then(|id| state.agents.get(id)) else {
                return Some(format!("{name} is not registered: {:?}", own.agent.id));
            };
            let wire = machine.wire.and_then(|wire| self.wires.get(&wire)).filter(|w| w.server == leader);
            let link = wire.and_then(|wire| match wire.near {
                Near::Link(link) => Some(link),
                _ => None,
            });
            if !own.registered || link.is_none() || agent.link != link {
                return Some(format!("{name} is not connected: {link:?} there, {:?} here", agent.link));
            }
            live.insert(agent.id.clone());
            let active = own.frameworks.active.values().filter(|f| f.fate == FrameworkFate::Active);
            let there: BTreeSet<(FrameworkId, TaskId)> = active
                .flat_map(|framework| framework.tasks.values())
                .map(|task| (task.key.framework.clone(), task.key.task.clone()))
                .filter(|key| owned.contains(&key.0))
                .collect();
            let here: BTreeSet<(FrameworkId, TaskId)> =
                agent.tasks.iter().filter(|key| owned.contains(&key.0)).cloned().collect();
            if let Some((_, task)) = here.difference(&there).next() {
                return Some(format!("the coordinator believes in task {task}, which {name} does not have"));
            }
            if let Some((_, task)) = there.difference(&here).next() {
                return Some(format!("{name} has task {task}, of which the coordinator does not know"));
            }
            if let Some(key) = machine.disk.unacknowledged(|id| owned.contains(id)) {
                return Some(format!("{name} has an update of {key} that is not acknowledged"));
            }
        }
        let dead = state.agents.keys().find(|id| !live.contains(*id));
        dead.map(|id| format!("agent {id}, which is gone, is still in the books"))
    }

    fn unsettled_schedulers(&self, leader: usize, state: &Snapshot) -> Option<String> {
        for scheduler in &self.schedulers {
            let name = &scheduler.info.name;
            let Some(framework) = scheduler.id().and_then(|id| state.frameworks.get(id)) else {
                return Some(format!("{name} is not subscribed: {:?}", scheduler.phase));
            };
            let wire = scheduler.wire().and_then(|wire| self.wires.get(&wire)).filter(|w| w.server == leader);
            let stream = wire.and_then(|wire| wire.stream);
            if !scheduler.is_subscribed() || stream.is_none() || framework.stream() != stream {
                return Some(format!(
                    "{name} does not listen: {stream:?} there, {:?} here",
                    framework.connection
                ));
            }
            for (id, seen) in &scheduler.view {
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
                        "{name} believes that task {id} is {:?}; it runs: {runs}",
                        seen.state
                    ));
                }
            }
            if let Some(task) = framework.tasks.values().find(|task| is_terminal(task.state())) {
                return Some(format!("task {} of {name} has ended, which is not acknowledged", task.task_id));
            }
            if let Some(task) = framework.tasks.keys().find(|id| !scheduler.view.contains_key(*id)) {
                return Some(format!("the coordinator has task {task}, which {name} never launched"));
            }
        }
        None
    }
}
