//! What goes wrong, and what frameworks and their users do of themselves.

use std::time::Duration;

use tepui_api::v1::maintenance::{Schedule, Window};
use tepui_api::v1::{AgentId, OfferId, TimeInfo, Unavailability};
use tepui_coordinator::core::{LinkId, OperatorCall, StreamId};

use super::{Arrival, Event, Power, World};
use crate::model::agent::Link;
use crate::model::{calls, shapes};

impl World {
    /// Something goes wrong, and the next fault is planned.
    pub(super) fn fault(&mut self) {
        if self.calm {
            return;
        }
        let again = self.now + self.rng.millis(200..=6000);
        self.at(again, Event::Fault);
        let agent = self.rng.below(self.agents.len());
        let framework = self.rng.below(self.frameworks.len());
        match self.rng.weighted(&[18, 14, 12, 8, 3, 2, 8, 14, 10, 8, 5, 3, 3, 4, 4, 4, 9]) {
            0 => self.cut_some_link(),
            1 => self.cut_some_stream(),
            2 => self.restart_agent(agent),
            3 => self.freeze_agent(agent),
            4 => self.lose_agent(agent),
            5 => self.leave(agent),
            6 => self.agents[agent].model.crash_executor(self.now, &mut self.rng),
            7 => self.crash_framework(framework),
            8 => self.fail_over(framework),
            9 => self.freeze_framework(framework),
            10 => self.kill_some_coordinator(),
            11 => self.teardown(framework),
            12 => self.operator_teardown(framework),
            13 => self.resize_agent(agent),
            14 => self.agents[agent].model.chatter(),
            15 => self.cut_agent_off(agent),
            _ => self.operate(agent),
        }
        self.flush_agent(agent);
        self.plan_agent(agent);
        self.plan_framework(framework);
    }

    fn cut_some_link(&mut self) {
        self.tally.cuts += 1;
        let links: Vec<LinkId> =
            self.links.iter().filter(|(_, wire)| wire.near_open).map(|(link, _)| *link).collect();
        if let Some(link) = self.rng.pick(&links) {
            self.cut_link(*link);
        }
    }

    fn cut_some_stream(&mut self) {
        self.tally.cuts += 1;
        let streams: Vec<StreamId> =
            self.streams.iter().filter(|(_, wire)| wire.near_open).map(|(stream, _)| *stream).collect();
        if let Some(stream) = self.rng.pick(&streams) {
            self.cut_stream(*stream);
        }
    }

    // --- agents

    /// Its process dies and is started again; now and then on changed terms.
    pub(super) fn restart_agent(&mut self, index: usize) {
        if self.agents[index].power != Power::On {
            return;
        }
        self.tally.crashes += 1;
        self.drop_agent_link(index);
        let down =
            if self.rng.chance(150) { self.rng.millis(10_000..=150_000) } else { self.rng.millis(50..=4000) };
        let until = self.now + down;
        let node = &mut self.agents[index];
        node.frozen_until = None;
        node.power = Power::Off { until };
        node.model.restart(self.now, until, &mut self.rng);
        if self.rng.chance(100) {
            node.model.shrunk |= shapes::resize(&mut node.model.info, &mut self.rng);
        }
    }

    fn freeze_agent(&mut self, index: usize) {
        self.tally.freezes += 1;
        let long = self.rng.chance(400);
        let time = if long { self.rng.millis(20_000..=120_000) } else { self.rng.millis(100..=15_000) };
        // What waits for the end of one freeze must not meet another's, or it would be overtaken.
        self.agents[index].frozen_until.get_or_insert(self.now + time + Duration::from_nanos(1));
    }

    /// Its machine burns down; another with an empty disk may take its address.
    fn lose_agent(&mut self, index: usize) {
        if self.agents[index].power == Power::Gone {
            return;
        }
        self.drop_agent_link(index);
        let at = self.now + self.rng.millis(100..=60_000);
        let node = &mut self.agents[index];
        node.frozen_until = None;
        node.model.wipe(at, &mut self.rng);
        let alone = self.rng.chance(150);
        let left = self.agents.iter().filter(|node| node.power != Power::Gone).count();
        self.agents[index].power = if alone && left > 2 { Power::Gone } else { Power::Off { until: at } };
    }

    /// Leaves for good, and comes back as another.
    fn leave(&mut self, index: usize) {
        if self.agents[index].power == Power::On && self.agents[index].model.is_up() {
            self.agents[index].model.unregister();
            self.flush_agent(index);
            self.agents[index].model.ended = None;
            self.drop_agent_link(index);
            let at = self.now + self.rng.millis(500..=20_000);
            let node = &mut self.agents[index];
            node.model.wipe(at, &mut self.rng);
            node.power = Power::Off { until: at };
        }
    }

    fn resize_agent(&mut self, index: usize) {
        let node = &mut self.agents[index];
        if !node.model.is_up() {
            return;
        }
        node.model.shrunk |= shapes::resize(&mut node.model.info, &mut self.rng);
        let resources = node.model.info.resources.clone();
        let frame = tepui_api::link::TotalResources { resources };
        node.model.out.push(tepui_api::link::agent_frame::Body::TotalResources(frame));
    }

    /// Neither side hears the other, and neither sees it for a while.
    fn cut_agent_off(&mut self, index: usize) {
        if let Some(link) = self.agents[index].link
            && matches!(self.agents[index].model.link, Link::Up { .. })
        {
            self.tally.cuts += 1;
            self.cut_link(link);
        }
    }

    // --- frameworks

    fn crash_framework(&mut self, index: usize) {
        self.tally.crashes += 1;
        self.hang_up_stream(index);
        let down =
            if self.rng.chance(200) { self.rng.millis(5000..=200_000) } else { self.rng.millis(50..=4000) };
        let until = self.now + down;
        let node = &mut self.frameworks[index];
        node.frozen_until = None;
        node.model.disconnected(until);
        node.power = Power::Off { until };
    }

    /// Another instance takes over while the first still listens.
    fn fail_over(&mut self, index: usize) {
        if self.frameworks[index].model.is_subscribed() {
            self.connect_framework(index);
        }
    }

    fn freeze_framework(&mut self, index: usize) {
        self.tally.freezes += 1;
        let time = self.rng.millis(500..=40_000);
        self.frameworks[index].frozen_until.get_or_insert(self.now + time + Duration::from_nanos(1));
    }

    fn teardown(&mut self, index: usize) {
        let Some(id) = self.frameworks[index].model.id().cloned() else { return };
        if self.frameworks[index].model.is_subscribed() {
            self.send_call(index, calls::teardown(&id));
            if self.rng.chance(800) {
                self.begin_anew(index);
            }
        }
    }

    fn operator_teardown(&mut self, index: usize) {
        if let Some(id) = self.frameworks[index].model.id().cloned() {
            self.call_operator(OperatorCall::Teardown(id));
        }
    }

    pub(super) fn call_operator(&mut self, call: OperatorCall) {
        let at = self.now + self.delay();
        let incarnation = self.host.incarnation;
        self.at(at, Event::ToCore { incarnation, what: Arrival::Operator(call) });
    }

    /// An operator has plans with an agent or its machine.
    fn operate(&mut self, index: usize) {
        let machine = self.agents[index].model.machine();
        let id = self.agents[index].model.id().cloned().unwrap_or_else(|| AgentId::new("no-agent"));
        let call = match self.rng.weighted(&[4, 4, 4, 8, 4, 3, 5]) {
            0 => OperatorCall::MarkGone(id),
            1 => OperatorCall::Drain { agent: id, max_grace_period: None, mark_gone: self.rng.chance(300) },
            2 => OperatorCall::Deactivate(id),
            3 => OperatorCall::Reactivate(id),
            4 => {
                let start = TimeInfo { nanoseconds: 1 + self.rng.below(3) as i64 };
                let mut machines: Vec<_> = self.agents.iter().map(|node| node.model.machine()).collect();
                machines.retain(|_| self.rng.chance(500));
                let unavailability = Unavailability { start, duration: None };
                let window = |machine| Window { machine_ids: vec![machine], unavailability };
                OperatorCall::UpdateSchedule(Schedule { windows: machines.into_iter().map(window).collect() })
            }
            5 => OperatorCall::StartMaintenance(vec![machine]),
            _ => OperatorCall::StopMaintenance(vec![machine]),
        };
        self.call_operator(call);
    }

    fn begin_anew(&mut self, index: usize) {
        self.hang_up_stream(index);
        let starts_at = self.now + self.rng.millis(500..=20_000);
        let info = shapes::framework(index, &mut self.rng);
        self.frameworks[index].model.begin_anew(info, starts_at);
    }

    /// The coordinator wants no more of this instance.
    pub(super) fn framework_refused(&mut self, index: usize, why: &str) {
        if why.contains("failed over") {
            self.hang_up_stream(index);
            let retry_at = self.now + self.rng.millis(500..=5000);
            self.frameworks[index].model.disconnected(retry_at);
        } else {
            self.begin_anew(index);
        }
    }

    /// A framework that listens does something of itself.
    pub(super) fn act(&mut self, index: usize) {
        let pause = if self.calm { Duration::from_secs(5) } else { self.rng.millis(50..=2500) };
        self.frameworks[index].acts_at = self.now + pause;
        if self.calm {
            for call in self.frameworks[index].model.settle() {
                self.send_call(index, call);
            }
            return;
        }
        let others = self.frameworks.iter().enumerate().filter(|(at, _)| *at != index);
        let mut foreign: Vec<OfferId> =
            others.flat_map(|(_, node)| node.model.offers.keys().take(2).cloned()).collect();
        foreign.push(OfferId::new("no-offer"));
        let agents: Vec<AgentId> = self.agents.iter().filter_map(|node| node.model.id().cloned()).collect();
        let call = self.frameworks[index].model.act(&foreign, &agents, &mut self.rng);
        if let Some(call) = call {
            self.send_call(index, call);
        }
    }

    // --- the coordinator

    fn kill_some_coordinator(&mut self) {
        let down =
            if self.rng.chance(200) { self.rng.millis(5000..=60_000) } else { self.rng.millis(100..=3000) };
        self.kill_coordinator(down);
    }
}
