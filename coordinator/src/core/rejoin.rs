//! How agents come back: with the tasks and executors they have, which are compared with what the
//! coordinator believes.
//!
//! An agent that is registered lost its link, or restarted: what it lacks it is told, and answers with
//! updates. One that is not was away since the coordinator's start, or was unreachable: what it
//! has is taken over.

use std::collections::BTreeSet;

use std::sync::Arc;
use tepui_api::link::coordinator_frame::Body as Frame;
use tepui_api::link::{KillTask, KnownTask, Register};
use tepui_api::resources::Resources;
use tepui_api::v1::task_status::Reason;
use tepui_api::v1::{AgentId, AgentInfo, ExecutorInfo, FrameworkId, FrameworkInfo, Resource, Task, TaskId};

use super::events::{self, holds_nothing, is_terminal};
use super::framework::roles;
use super::io::RegistryChange;
use super::join::Arrival;
use super::registry::{Pending, differs};
use super::{Agent, Core, Framework};

impl Core {
    /// An agent registers with the id it was given.
    pub(super) fn rejoin(&mut self, arrival: Arrival) {
        let Arrival { link, register } = &arrival;
        let Some(id) = register.agent.id.clone() else { return };
        // A registration can be late, and its process dead by now. Links are numbered as they come.
        let held = self.agent(&id).and_then(|agent| agent.link);
        let waiting = self.joining.waiting.get(&id).map(|waiting| waiting.link);
        if held.max(waiting).is_some_and(|newer| newer > *link) || self.has_later_attempt(&id, register) {
            tracing::info!(agent = %id, ?link, "ignored a registration that a newer one has overtaken");
            return self.close_link(*link);
        }
        // The holder has to have answered before another is told that it lives.
        let displaced =
            self.joining.displaced.get(&id).is_some_and(|others| others.contains(&register.instance));
        if displaced && self.holder_lives(&id) {
            let message = "another process has taken over this agent's id; two cannot share a work directory";
            return self.turn_away(*link, message.to_owned(), false);
        }
        if let Some(agent) = self.agent(&id) {
            let host = super::agent::split_address(&register.address).map(|(host, _)| host);
            if agent.info.hostname != register.agent.hostname || host != Some(agent.host()) {
                let message = format!(
                    "the agent {id} cannot change its hostname or IP from {} ({})",
                    agent.info.hostname,
                    agent.host()
                );
                return self.turn_away(*link, message, false);
            }
        }
        if self.in_registry.contains(&id) {
            if let Some(older) = self.joining.waiting.insert(id, arrival) {
                self.close_link(older.link);
            }
            return;
        }
        let info = register.agent.clone();
        if let Some(agent) = self.agent(&id) {
            if differs(&agent.info, register) {
                let change = RegistryChange::Update(info);
                return self.persist(Some(&id), change, Pending::Resume(Box::new(arrival)));
            }
            return self.resume(arrival);
        }
        let change = match self.state.recovered_agents.get(&id) {
            Some(known) if !differs(known, register) => return self.readmitted(arrival),
            Some(_) => RegistryChange::Update(info),
            None => RegistryChange::Reachable(info),
        };
        self.persist(Some(&id), change, Pending::Readmit(Box::new(arrival)));
    }

    /// Whether the same process has registered after this. Links are no measure for that: a connection that the process gave up
    /// can come to be read after the next one.
    fn has_later_attempt(&self, id: &AgentId, register: &Register) -> bool {
        let attempt = register.attempt();
        let held = self.agent(id).filter(|agent| agent.instance == register.instance);
        let waiting = self.joining.waiting.get(id).map(|waiting| &waiting.register);
        let waiting = waiting.filter(|waiting| waiting.instance == register.instance);
        held.is_some_and(|agent| agent.attempt > attempt)
            || waiting.is_some_and(|waiting| waiting.attempt() > attempt)
    }

    /// An agent that has not been here since the start, or since it was unreachable.
    pub(super) fn readmitted(&mut self, arrival: Arrival) {
        let Arrival { link, register } = arrival;
        let Some(id) = register.agent.id.clone() else { return };
        tracing::info!(agent = %id, hostname = register.agent.hostname, tasks = register.tasks.len(), "an agent came back");
        let awaited = self.state.recovered_agents.remove(&id).is_some();
        let was_unreachable = self.state.unreachable_agents.remove(&id).is_some();
        self.state.counters.slave_reregistrations += 1;
        self.forget_unreachable_tasks(&id);
        self.recover_frameworks(&register.frameworks);
        self.add_agent(&id, &register, true);
        let message =
            if was_unreachable { "Unreachable agent re-registered" } else { "Unknown agent re-registered" };
        for executor in &register.executors {
            self.take_over_executor(&id, executor);
        }
        for task in &register.tasks {
            if self.completed_ids.contains(&task.framework_id) {
                continue;
            }
            if !awaited {
                self.forget_ended(task);
                let status =
                    events::latest(task, task.state(), message, Reason::AgentReregistered, self.now.wall);
                self.send(&task.framework_id, events::update(status));
            }
            self.take_over_task(&id, task.clone());
        }
        if awaited {
            self.take_over_history(register.completed_tasks);
        }
        self.notify(|core| core.agent(&id).map(events::agent_added));
        self.settle(&id, link, Vec::new());
        self.tell_of_frameworks(&id, &register.frameworks);
    }

    /// A registered agent that lost its link, or restarted.
    pub(super) fn resume(&mut self, arrival: Arrival) {
        let Arrival { link, register } = arrival;
        let Some(id) = register.agent.id.clone() else { return };
        if self.agent(&id).is_none() {
            // It was taken down while the registry was writing; it comes in as one that is not known.
            return self.rejoin(Arrival { link, register });
        }
        tracing::info!(agent = %id, tasks = register.tasks.len(), "an agent registered again");
        self.state.counters.slave_reregistrations += 1;
        self.replace_process(&id, &register);
        self.recover_frameworks(&register.frameworks);
        let lacking = self.tasks_lacking(&id, &register);
        self.drop_executors_lacking(&id, &register);
        for executor in &register.executors {
            self.take_over_executor(&id, executor);
        }
        let mut unwanted: Vec<(FrameworkId, TaskId)> = Vec::new();
        for task in &register.tasks {
            let (framework, task_id) = (&task.framework_id, &task.task_id);
            if is_terminal(task.state()) || self.completed_ids.contains(framework) {
                continue;
            }
            let key = (framework.clone(), task_id.clone());
            let known = self.task(framework, task_id).is_some_and(|task| task.agent_id == id);
            if !known {
                let offers: Vec<_> =
                    self.agent(&id).map(|agent| agent.offers.iter().copied().collect()).unwrap_or_default();
                for offer in offers {
                    self.rescind_offer(offer);
                }
                // It was given up when the agent disconnected, and its framework told so.
                self.forget_ended(task);
                self.take_over_task(&id, task.clone());
                unwanted.push(key);
            } else if self.kills.get(&id).is_some_and(|kills| kills.contains(&key)) {
                unwanted.push(key);
            }
        }
        self.settle(&id, link, lacking);
        for (framework_id, task_id) in unwanted {
            let frame = KillTask { framework_id, task_id, kill_policy: None };
            self.frame(&id, Frame::KillTask(frame));
        }
        self.tell_of_frameworks(&id, &register.frameworks);
    }

    /// Takes over what the agent says of itself, and remembers the process that was there before.
    fn replace_process(&mut self, id: &AgentId, register: &Register) {
        let now = events::time_info(self.now.wall);
        let uptime = self.now.uptime;
        let total = Resources::from_wire_lossy(&register.agent.resources);
        let Some(agent) = self.agent_mut(id) else { return };
        let old_instance = std::mem::replace(&mut agent.instance, register.instance.clone());
        agent.attempt = register.attempt();
        let old_address = std::mem::replace(&mut agent.address, register.address.clone());
        let both_live = agent.link.is_some() && old_instance != register.instance;
        let changed = agent.total != total;
        agent.info = Arc::new(AgentInfo { id: Some(id.clone()), ..register.agent.clone() });
        agent.version.clone_from(&register.version);
        agent.capabilities = register.capabilities.clone().into();
        agent.reregistered = Some(now);
        agent.total = total.clone();
        let (key, traits) = (agent.key, agent.traits());
        let offers: Vec<_> = agent.offers.iter().copied().collect();
        if changed {
            for offer in offers {
                self.rescind_offer(offer);
            }
        }
        self.allocator.update_agent(key, traits, total, uptime);
        if both_live {
            let displaced = self.joining.displaced.entry(id.clone()).or_default();
            displaced.retain(|other| *other != register.instance);
            displaced.push(old_instance);
            if displaced.len() > 8 {
                displaced.remove(0);
            }
        }
        if self.addresses.get(&old_address) == Some(id) {
            self.addresses.remove(&old_address);
        }
        self.addresses.insert(register.address.clone(), id.clone());
    }

    /// Frameworks that are not known: from before the coordinator's start.
    fn recover_frameworks(&mut self, frameworks: &[FrameworkInfo]) {
        for info in frameworks {
            let Some(id) = info.id.clone() else { continue };
            if self.completed_ids.contains(&id) || self.framework(&id).is_some() {
                continue;
            }
            tracing::info!(framework = %id, "recovered a framework from an agent that runs it");
            self.add_framework(&id, info.clone(), &[], None);
            self.notify(|core| core.framework(&id).map(events::framework_added));
        }
    }

    /// What the coordinator believes is on the agent, and the agent does not name.
    pub(super) fn tasks_lacking(&self, id: &AgentId, register: &Register) -> Vec<KnownTask> {
        let named: BTreeSet<_> =
            register.tasks.iter().map(|task| (&task.framework_id, &task.task_id)).collect();
        let believed = self.agent(id).into_iter().flat_map(|agent| &agent.tasks);
        believed
            .filter(|(framework, task)| !named.contains(&(framework, task)))
            .map(|(framework, task)| KnownTask { framework_id: framework.clone(), task_id: task.clone() })
            .collect()
    }

    pub(super) fn drop_executors_lacking(&mut self, id: &AgentId, register: &Register) {
        let named: BTreeSet<_> = register
            .executors
            .iter()
            .filter_map(|executor| Some((executor.framework_id.clone()?, executor.executor_id.clone())))
            .collect();
        let believed = self.agent(id).map(|agent| agent.executors.clone()).unwrap_or_default();
        for (framework, executor) in believed.iter().filter(|key| !named.contains(*key)) {
            self.remove_executor(id, framework, executor);
        }
    }

    fn take_over_executor(&mut self, id: &AgentId, executor: &ExecutorInfo) {
        let Some(framework_id) = &executor.framework_id else { return };
        let Some(framework) = self.framework(framework_id) else { return };
        let key = (id.clone(), executor.executor_id.clone());
        if framework.executors.contains_key(&key) {
            return;
        }
        let resources = marked(&executor.resources, framework);
        let executor = ExecutorInfo { resources: resources.to_wire(), ..executor.clone() };
        self.charge(id, framework_id, &resources);
        self.add_executor(framework_id, id, &executor, &resources);
    }

    /// Enters a task that an agent came with.
    fn take_over_task(&mut self, id: &AgentId, task: Task) {
        let framework_id = task.framework_id.clone();
        let Some(framework) = self.framework(&framework_id) else { return };
        if let Some(other) = framework.tasks.get(&task.task_id) {
            // The framework has used its id again. One of the two has to go, and this is the older.
            tracing::warn!(framework = %framework_id, task = %task.task_id, agent = %id, other = %other.agent_id,
                "killing a task whose id is used on another agent by now");
            self.kills.entry(id.clone()).or_default().insert((framework_id, task.task_id));
            return;
        }
        let resources = marked(&task.resources, framework);
        if !holds_nothing(task.state()) {
            self.charge(id, &framework_id, &resources);
        }
        self.add_task(Task { resources: resources.to_wire(), ..task }, &resources);
    }

    fn charge(&mut self, agent: &AgentId, framework: &FrameworkId, resources: &Resources) {
        let (Some(agent), Some(framework)) = (self.agent(agent), self.framework(framework)) else { return };
        let (agent, framework) = (agent.key, framework.key);
        for (role, resources) in resources.allocations() {
            self.allocator.charge(agent, framework, &role, &resources.unallocated());
        }
    }

    /// Frameworks forget which tasks of this agent were unreachable: those that still are will be named.
    pub(super) fn forget_unreachable_tasks(&mut self, id: &AgentId) {
        for (framework, task) in self.unreachable_tasks.remove(id).unwrap_or_default() {
            if let Some(framework) = self.framework_mut(&framework)
                && framework.unreachable_tasks.get(&task).is_some_and(|task| task.agent_id == *id)
            {
                framework.unreachable_tasks.remove(&task);
            }
        }
    }

    /// A task is not both alive and among those that ended.
    fn forget_ended(&mut self, task: &Task) {
        let Some(framework) = self.framework(&task.framework_id) else { return };
        if framework.completed_tasks.iter().any(|ended| ended.task_id == task.task_id)
            && let Some(framework) = self.framework_mut(&task.framework_id)
        {
            framework.completed_tasks.retain(|ended| ended.task_id != task.task_id);
        }
    }

    fn take_over_history(&mut self, tasks: Vec<Task>) {
        for task in tasks {
            let id = task.framework_id.clone();
            if self.framework(&id).is_some_and(|framework| !framework.tasks.contains_key(&task.task_id)) {
                self.remember_task(&id, Arc::new(task));
            }
        }
    }

    /// Ends frameworks on the agent that have ended here, and tells it what others say of themselves now.
    fn tell_of_frameworks(&mut self, agent: &AgentId, frameworks: &[FrameworkInfo]) {
        for info in frameworks {
            let Some(id) = &info.id else { continue };
            if self.completed_ids.contains(id) {
                self.frame(agent, Frame::ShutdownFramework(id.clone()));
            } else if let Some(framework) = self.framework(id)
                && *framework.info != *info
            {
                let info = (*framework.info).clone();
                self.frame(agent, Frame::UpdateFramework(info));
            }
        }
        let doomed = self.kills.get(agent).cloned().unwrap_or_default();
        let agent_tasks = self.agent(agent).map(|agent: &Agent| agent.tasks.clone()).unwrap_or_default();
        for (framework_id, task_id) in doomed.iter().filter(|key| !agent_tasks.contains(*key)) {
            let frame =
                KillTask { framework_id: framework_id.clone(), task_id: task_id.clone(), kill_policy: None };
            self.frame(agent, Frame::KillTask(frame));
        }
    }
}

/// Reads resources that an agent says are in use, marked with the role they are used in.
fn marked(wire: &[Resource], framework: &Framework) -> Resources {
    let resources = Resources::from_wire_lossy(wire);
    if resources.iter().all(|resource| resource.allocation().is_some_and(|role| !role.is_empty())) {
        return resources;
    }
    let role = roles(&framework.info).into_iter().next().unwrap_or_else(|| "*".to_owned());
    resources.unallocated().allocated(role)
}
