//! A framework with one task that runs on an agent: where many tests begin.

#![allow(clippy::unwrap_used, reason = "only compiled for tests")]

use std::time::Duration;

use tepui_api::link::Register;
use tepui_api::v1::agent_info::capability::Type as AgentCapability;
use tepui_api::v1::framework_info::capability::Type as Capability;
use tepui_api::v1::{AgentId, FrameworkId, FrameworkInfo, TaskState, agent_info};

use super::super::*;
use super::world::*;

pub(crate) struct Running {
    pub(crate) world: World,
    pub(crate) link: LinkId,
    pub(crate) agent: AgentId,
    pub(crate) stream: StreamId,
    pub(crate) id: FrameworkId,
}

/// The agent is named `a`, can drain, and runs the task `t`; its framework has accepted all that it was offered.
pub(crate) fn running(change: impl FnOnce(&mut FrameworkInfo)) -> Running {
    running_with(settings(), change)
}

pub(crate) fn running_with(settings: Settings, change: impl FnOnce(&mut FrameworkInfo)) -> Running {
    let mut world = World::with(settings, Recovered::default());
    let link = world.register(draining_agent("a"));
    let agent = world.registered(link).agent_id;
    let (stream, id) = world.framework(info(change));
    world.soon();
    let offer = world.offers(stream).remove(0);
    let tasks = vec![task("t", &agent, "cpus:1;mem:32")];
    world.call(stream, &id, accept(&[&offer.id], vec![launch(tasks)]));
    let uuid = world.update(link, &id, "t", TaskState::TaskRunning);
    world.call(stream, &id, acknowledge(&agent, "t", &uuid));
    world.statuses(stream);
    world.frames(link);
    Running { world, link, agent, stream, id }
}

pub(crate) fn draining_agent(name: &str) -> Register {
    let mut register = register(name, "cpus:4;mem:1000");
    register
        .capabilities
        .push(agent_info::Capability { r#type: Some(AgentCapability::AgentDraining.into()) });
    register
}

pub(crate) fn capabilities(aware: bool) -> impl FnOnce(&mut FrameworkInfo) {
    move |info| {
        if aware {
            with_capabilities(info, &[Capability::PartitionAware]);
        }
    }
}

impl Running {
    /// What the agent would say when it registers again.
    pub(crate) fn register(&self) -> Register {
        let snapshot = self.world.core.snapshot();
        let mut register = draining_agent("a");
        register.agent.id = Some(self.agent.clone());
        register.tasks = snapshot.tasks().map(|task| (**task).clone()).collect();
        register.frameworks =
            snapshot.frameworks.values().map(|framework| (*framework.info).clone()).collect();
        register
    }

    /// The agent is not heard of for so long that it is unreachable.
    pub(crate) fn silence(&mut self) {
        self.world.step(Input::LinkClosed { link: self.link });
        self.world.wait(Duration::from_secs(91));
    }

    /// The task ends, and its framework has heard of it.
    pub(crate) fn end_task(&mut self) {
        let uuid = self.world.update(self.link, &self.id.clone(), "t", TaskState::TaskKilled);
        self.world.call(self.stream, &self.id.clone(), acknowledge(&self.agent, "t", &uuid));
    }

    pub(crate) fn on_agent(&self) -> std::sync::Arc<Agent> {
        self.world.core.snapshot().agents[&self.agent].clone()
    }
}

impl World {
    /// A call of an operator, and its answer.
    pub(crate) fn operator(&mut self, call: OperatorCall) -> Reply {
        self.step(Input::Operator { request: RequestId(0), call });
        self.replies.pop().unwrap()
    }
}
