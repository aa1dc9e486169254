//! What must hold after every step. Simulations and tests ask; nothing here changes anything.

use std::collections::BTreeMap;

use tepui_api::resources::Resources;
use tepui_api::v1::{AgentId, TaskStatus};

use super::events::holds_nothing;
use super::framework::sum;
use super::{Agent, Core};

/// Something that must hold and does not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The books of the core and those of the allocator differ.
    #[error(
        "of agent {agent}, {used} are used and {offered} offered, but the allocator has charged {charged}"
    )]
    Charges {
        /// Which agent.
        agent: AgentId,
        /// By tasks and executors.
        used: String,
        /// To frameworks.
        offered: String,
        /// By the allocator.
        charged: String,
    },
    /// Something is offered or charged twice, or lost.
    #[error("agent {agent} has {total}, of which {charged} are charged and {free} free")]
    Total {
        /// Which agent.
        agent: AgentId,
        /// All it has.
        total: String,
        /// Used or offered.
        charged: String,
        /// Neither.
        free: String,
    },
    /// A task, executor or offer is in one place and not in the other.
    #[error("agent {agent}: {what}")]
    Books {
        /// Which agent.
        agent: AgentId,
        /// What differs.
        what: String,
    },
}

impl Core {
    /// Checks one agent: what is used, offered and free is all it has, and everything on it is known to
    /// its framework too.
    ///
    /// # Errors
    /// With the first thing that does not hold.
    pub fn audit_agent(&self, id: &AgentId) -> Result<(), Broken> {
        let Some(agent) = self.agent(id) else { return Ok(()) };
        let broken = |what: String| Err(Broken::Books { agent: id.clone(), what });
        let mut used: BTreeMap<_, Resources> = BTreeMap::new();
        for (framework_id, task_id) in &agent.tasks {
            let Some(task) = self.task(framework_id, task_id).filter(|task| task.agent_id == *id) else {
                return broken(format!("task {task_id} of {framework_id} is not in its framework's books"));
            };
            if !holds_nothing(task.state()) {
                *used.entry(framework_id.clone()).or_default() += Resources::from_wire_lossy(&task.resources);
            }
        }
        for (framework_id, executor_id) in &agent.executors {
            let key = (id.clone(), executor_id.clone());
            let Some(info) = self.framework(framework_id).and_then(|f| f.executors.get(&key)) else {
                return broken(format!(
                    "executor {executor_id} of {framework_id} is not in its framework's books"
                ));
            };
            *used.entry(framework_id.clone()).or_default() += Resources::from_wire_lossy(&info.resources);
        }
        used.retain(|_, resources| !resources.is_empty());
        if used != agent.used.iter().map(|(id, used)| (id.clone(), used.clone())).collect() {
            return broken(format!("its tasks and executors use {used:?}, its books say {:?}", agent.used));
        }
        let mut offered = Resources::new();
        for number in &agent.offers {
            let framework = self.offers.get(number).and_then(|framework| self.framework(framework));
            let Some(held) = framework.and_then(|framework| framework.offers.get(number)) else {
                return broken(format!("offer {number} is not in its framework's books"));
            };
            offered += &held.resources;
        }
        if offered != agent.offered {
            return broken(format!("{offered} is in offers, its books say {}", agent.offered));
        }
        self.audit_charges(agent, &sum(used.values()), &offered)
    }

    fn audit_charges(&self, agent: &Agent, used: &Resources, offered: &Resources) -> Result<(), Broken> {
        let expected = (used + offered).unallocated();
        let charged = self.allocator.taken(agent.key).cloned().unwrap_or_default();
        if expected != charged {
            return Err(Broken::Charges {
                agent: agent.id.clone(),
                used: used.to_string(),
                offered: offered.to_string(),
                charged: charged.to_string(),
            });
        }
        let free = self.allocator.free(agent.key).cloned().unwrap_or_default();
        // An agent that shrank may have more in use than it has.
        let expected = &agent.total - &charged;
        let whole = !agent.total.contains(&charged) || &charged + &free == agent.total;
        if free != expected || !whole {
            return Err(Broken::Total {
                agent: agent.id.clone(),
                total: agent.total.to_string(),
                charged: charged.to_string(),
                free: free.to_string(),
            });
        }
        Ok(())
    }

    /// Checks everything.
    ///
    /// # Errors
    /// With the first thing that does not hold.
    pub fn audit(&self) -> Result<(), Broken> {
        self.state.agents.keys().try_for_each(|agent| self.audit_agent(agent))?;
        for framework in self.state.frameworks.values() {
            for task in framework.tasks.values() {
                let known = self.agent(&task.agent_id);
                let key = (framework.id.clone(), task.task_id.clone());
                if !known.is_some_and(|agent| agent.tasks.contains(&key)) {
                    let what = format!("task {} of {} is not in its books", task.task_id, framework.id);
                    return Err(Broken::Books { agent: task.agent_id.clone(), what });
                }
            }
            for (number, held) in &framework.offers {
                let agent = self.agent(&held.offer.agent_id);
                if self.offers.get(number) != Some(&framework.id)
                    || !agent.is_some_and(|agent| agent.active() && agent.offers.contains(number))
                    || !framework.connected()
                {
                    let what =
                        format!("offer {number} outlived its agent's activity or its framework's connection");
                    return Err(Broken::Books { agent: held.offer.agent_id.clone(), what });
                }
            }
        }
        if self.offers.len()
            != self.state.frameworks.values().map(|framework| framework.offers.len()).sum::<usize>()
        {
            let what = "an open offer is in no framework's books".to_owned();
            return Err(Broken::Books { agent: AgentId::default(), what });
        }
        Ok(())
    }

    /// The last status of a task in the books, with the state its framework was told last.
    #[must_use]
    pub fn last_status(
        &self,
        framework: &tepui_api::v1::FrameworkId,
        task: &tepui_api::v1::TaskId,
    ) -> Option<&TaskStatus> {
        self.task(framework, task)?.statuses.last()
    }
}
