//! What readers see: the state as it was between two steps.
//!
//! Taking one copies a few pointers, whatever the size of the cluster; the core then copies what it
//! changes while a reader still holds it. Readers walk the maps, or ask for the answers of the
//! operator API.

use std::sync::Arc;

use imbl::{OrdMap, Vector};
use tepui_api::v1::allocator::InverseOfferStatus;
use tepui_api::v1::master::response::{GetAgents, GetExecutors, GetFrameworks, GetTasks, get_executors};
use tepui_api::v1::{AgentId, AgentInfo, FrameworkId, MasterInfo, Task, TimeInfo};

use super::agent::Agent;
use super::framework::Framework;
use super::io::Settings;
use super::maintenance::Plan;

/// The whole state at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The coordinator.
    pub master: Arc<MasterInfo>,
    /// Frameworks that are connected, away or recovered.
    pub frameworks: OrdMap<FrameworkId, Arc<Framework>>,
    /// Frameworks that ended, oldest first.
    pub completed_frameworks: Vector<Arc<Framework>>,
    /// Admitted agents that have registered since the coordinator started.
    pub agents: OrdMap<AgentId, Arc<Agent>>,
    /// Admitted agents that are awaited.
    pub recovered_agents: OrdMap<AgentId, Arc<AgentInfo>>,
    /// Agents that fell silent, and when.
    pub unreachable_agents: OrdMap<AgentId, TimeInfo>,
    /// Agents that an operator declared lost for good, and when.
    pub gone_agents: OrdMap<AgentId, TimeInfo>,
    /// Which machines are to be down, and which are.
    pub maintenance: Plan,
    /// What frameworks answered last to inverse offers of each agent.
    pub inverse_offer_statuses: OrdMap<AgentId, OrdMap<FrameworkId, InverseOfferStatus>>,
    /// Roles with a weight of their own.
    pub weights: OrdMap<String, f64>,
    /// The metrics' counters.
    pub counters: Counters,
}

/// How often things happened since the start, for metrics under Mesos' names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is named as the metric master/<name> in Mesos' documents")]
pub struct Counters {
    pub tasks_finished: u64,
    pub tasks_failed: u64,
    pub tasks_killed: u64,
    pub tasks_lost: u64,
    pub tasks_error: u64,
    pub tasks_dropped: u64,
    pub tasks_gone: u64,
    pub tasks_gone_by_operator: u64,
    pub messages_register_framework: u64,
    pub messages_kill_task: u64,
    pub messages_launch_tasks: u64,
    pub messages_decline_offers: u64,
    pub messages_revive_offers: u64,
    pub messages_suppress_offers: u64,
    pub messages_reconcile_tasks: u64,
    pub messages_status_update_acknowledgement: u64,
    pub messages_framework_to_executor: u64,
    pub messages_executor_to_framework: u64,
    pub messages_register_slave: u64,
    pub messages_reregister_slave: u64,
    pub messages_unregister_slave: u64,
    pub messages_status_update: u64,
    pub valid_status_updates: u64,
    pub invalid_status_updates: u64,
    pub valid_status_update_acknowledgements: u64,
    pub invalid_status_update_acknowledgements: u64,
    pub valid_framework_to_executor_messages: u64,
    pub invalid_framework_to_executor_messages: u64,
    pub valid_executor_to_framework_messages: u64,
    pub invalid_executor_to_framework_messages: u64,
    pub slave_registrations: u64,
    pub slave_reregistrations: u64,
    pub slave_removals: u64,
    pub slave_unreachable_scheduled: u64,
    pub slave_unreachable_canceled: u64,
    pub slave_unreachable_completed: u64,
    pub slave_removals_reason_unhealthy: u64,
    pub slave_removals_reason_unregistered: u64,
    pub slave_removals_reason_registered: u64,
    pub recovery_slave_removals: u64,
    pub allocation_runs: u64,
}

impl Snapshot {
    /// An empty cluster.
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            master: Arc::new(settings.master.clone()),
            frameworks: OrdMap::new(),
            completed_frameworks: Vector::new(),
            agents: OrdMap::new(),
            recovered_agents: OrdMap::new(),
            unreachable_agents: OrdMap::new(),
            gone_agents: OrdMap::new(),
            maintenance: Plan::default(),
            inverse_offer_statuses: OrdMap::new(),
            weights: settings.weights.iter().cloned().collect(),
            counters: Counters::default(),
        }
    }

    /// Answers `GET_FRAMEWORKS`.
    #[must_use]
    pub fn get_frameworks(&self) -> GetFrameworks {
        GetFrameworks {
            frameworks: self.frameworks.values().map(|framework| framework.to_wire()).collect(),
            completed_frameworks: self
                .completed_frameworks
                .iter()
                .map(|framework| framework.to_wire())
                .collect(),
            recovered_frameworks: Vec::new(),
        }
    }

    /// Answers `GET_AGENTS`.
    #[must_use]
    pub fn get_agents(&self) -> GetAgents {
        GetAgents {
            agents: self.agents.values().map(|agent| agent.to_wire()).collect(),
            recovered_agents: self.recovered_agents.values().map(|info| (**info).clone()).collect(),
        }
    }

    /// Answers `GET_TASKS`.
    #[must_use]
    pub fn get_tasks(&self) -> GetTasks {
        let own = |tasks: &mut dyn Iterator<Item = &Arc<Task>>| tasks.map(|task| (**task).clone()).collect();
        GetTasks {
            pending_tasks: Vec::new(),
            tasks: own(&mut self.tasks()),
            unreachable_tasks: own(&mut self.unreachable_tasks()),
            completed_tasks: own(&mut self.completed_tasks()),
            orphan_tasks: Vec::new(),
        }
    }

    /// Answers `GET_EXECUTORS`.
    #[must_use]
    pub fn get_executors(&self) -> GetExecutors {
        let executors = self.frameworks.values().flat_map(|framework| &framework.executors);
        GetExecutors {
            executors: executors
                .map(|((agent, _), info)| get_executors::Executor {
                    executor_info: (**info).clone(),
                    agent_id: agent.clone(),
                })
                .collect(),
            orphan_executors: Vec::new(),
        }
    }

    /// Tasks that live, or ended with an update that is not acknowledged, of all frameworks.
    pub fn tasks(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.frameworks.values().flat_map(|framework| framework.tasks.values())
    }

    /// Tasks on agents that fell silent, of all frameworks.
    pub fn unreachable_tasks(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.every_framework().flat_map(|framework| framework.unreachable_tasks.iter())
    }

    /// Tasks that ended, of all frameworks, those that ended too among them.
    pub fn completed_tasks(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.every_framework().flat_map(|framework| &framework.completed_tasks)
    }

    fn every_framework(&self) -> impl Iterator<Item = &Arc<Framework>> {
        self.frameworks.values().chain(&self.completed_frameworks)
    }
}
