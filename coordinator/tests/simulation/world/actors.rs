//! How agents and frameworks are told what reaches them, and woken when something is due.

use std::sync::Arc;
use std::time::Duration;

use tepui_api::link::coordinator_frame::Body as Order;
use tepui_api::v1::scheduler::Event as Told;
use tepui_coordinator::core::{LinkId, Reply, StreamId};

use super::{Event, Power, World};
use crate::model::agent::Link;
use crate::model::earliest;
use crate::model::framework::Phase;

impl World {
    // --- agents

    pub(super) fn reaches_agent(
        &mut self,
        index: usize,
        link: LinkId,
        what: Option<Order>,
    ) -> Result<(), String> {
        let Some(wire) = self.links.get_mut(&link).filter(|wire| wire.far_open) else { return Ok(()) };
        if what.is_none() {
            wire.far_open = false;
        } else if !wire.arrives_down(self.now) {
            return Ok(());
        }
        let node = &mut self.agents[index];
        if node.link != Some(link) || node.power != Power::On {
            return Ok(());
        }
        match what {
            None => {
                node.link = None;
                let retry_at = self.now + self.rng.millis(20..=2000);
                self.agents[index].model.disconnected(retry_at);
            }
            Some(order) => {
                node.model.order(self.now, order, &mut self.rng)?;
                if let Some(why) = node.model.ended.take() {
                    // No two processes ever share an id here, so each is the only one that has a right to it.
                    return Err(format!("{} was turned away: {why}", self.agents[index].model.info.hostname));
                }
                if node.model.shut_down {
                    // It is gone or its machine is down. Whoever comes back there begins with an empty disk.
                    self.drop_agent_link(index);
                    let at = self.now + self.rng.millis(500..=20_000);
                    let node = &mut self.agents[index];
                    node.model.wipe(at, &mut self.rng);
                    node.power = Power::Off { until: at };
                }
            }
        }
        self.flush_agent(index);
        self.plan_agent(index);
        Ok(())
    }

    pub(super) fn wake_agent(&mut self, index: usize) {
        let node = &mut self.agents[index];
        if let Some(until) = node.frozen(self.now) {
            node.wakes_at = Some(until);
            self.at(until, Event::WakeAgent(index));
            return;
        }
        match node.power {
            Power::Gone => return,
            Power::Off { until } if until > self.now => {}
            Power::Off { .. } => {
                node.power = Power::On;
                self.plan_agent(index);
                return;
            }
            Power::On => {
                node.model.wake(self.now, &mut self.rng);
                self.flush_agent(index);
                let due = |at: Duration| at <= self.now;
                match self.agents[index].model.link {
                    Link::Down { retry_at } if due(retry_at) => self.connect_agent(index),
                    Link::Registering { give_up_at } if due(give_up_at) => self.agent_hangs_up(index),
                    Link::Up { silent_at, .. } if due(silent_at) => self.agent_hangs_up(index),
                    _ => {}
                }
            }
        }
        self.plan_agent(index);
    }

    pub(super) fn plan_agent(&mut self, index: usize) {
        let node = &self.agents[index];
        let at = match node.power {
            Power::Gone => None,
            Power::Off { until } => Some(until),
            Power::On => {
                let link = match node.model.link {
                    Link::Down { retry_at } => retry_at,
                    Link::Registering { give_up_at } => give_up_at,
                    Link::Up { silent_at, .. } => silent_at,
                };
                earliest([node.model.deadline(), Some(link)])
            }
        };
        if let Some(at) = at.map(|at| at.max(self.now)).filter(|at| node.wakes_at != Some(*at)) {
            self.agents[index].wakes_at = Some(at);
            self.at(at, Event::WakeAgent(index));
        }
    }

    // --- frameworks

    pub(super) fn reaches_framework(
        &mut self,
        index: usize,
        stream: StreamId,
        what: Option<Arc<Told>>,
    ) -> Result<(), String> {
        let Some(wire) = self.streams.get_mut(&stream).filter(|wire| wire.far_open) else { return Ok(()) };
        if what.is_none() {
            wire.far_open = false;
        } else if !wire.arrives_down(self.now) {
            return Ok(());
        }
        let node = &mut self.frameworks[index];
        if node.model.stream() != Some(stream) || node.power != Power::On {
            return Ok(());
        }
        match what {
            None => {
                let retry_at = self.now + self.rng.millis(20..=4000);
                self.frameworks[index].model.disconnected(retry_at);
            }
            Some(event) => {
                let reaction = node.model.event(self.now, &event, self.calm, &mut self.rng)?;
                for call in reaction.calls {
                    self.send_call(index, call);
                }
                if let Some(why) = reaction.error {
                    self.framework_refused(index, &why);
                }
            }
        }
        self.plan_framework(index);
        Ok(())
    }

    pub(super) fn answered(&mut self, index: usize, stream: Option<StreamId>, reply: &Reply) {
        let node = &mut self.frameworks[index];
        // That it is not subscribed is how a framework learns of a stream that broke.
        if matches!(reply, Reply::Refused { status: 403, .. })
            && stream.is_some()
            && node.model.stream() == stream
            && node.model.is_subscribed()
        {
            self.hang_up_stream(index);
            let retry_at = self.now + self.rng.millis(10..=1000);
            self.frameworks[index].model.disconnected(retry_at);
            self.plan_framework(index);
        }
    }

    pub(super) fn wake_framework(&mut self, index: usize) {
        let node = &mut self.frameworks[index];
        if let Some(until) = node.frozen(self.now) {
            node.wakes_at = Some(until);
            self.at(until, Event::WakeFramework(index));
            return;
        }
        match node.power {
            Power::Gone => return,
            Power::Off { until } if until > self.now => {}
            Power::Off { .. } => node.power = Power::On,
            Power::On => match node.model.phase {
                Phase::Down { until } if until <= self.now => self.connect_framework(index),
                Phase::Subscribing { give_up_at: at, .. } | Phase::Subscribed { silent_at: at, .. }
                    if at <= self.now =>
                {
                    self.hang_up_stream(index);
                    let retry_at = self.now + self.rng.millis(20..=1000);
                    self.frameworks[index].model.disconnected(retry_at);
                }
                Phase::Subscribed { .. } if node.acts_at <= self.now => self.act(index),
                _ => {}
            },
        }
        self.plan_framework(index);
    }

    pub(super) fn plan_framework(&mut self, index: usize) {
        let node = &self.frameworks[index];
        let at = match (node.power, node.model.phase) {
            (Power::Gone, _) => return,
            (Power::Off { until }, _) | (_, Phase::Down { until }) => until,
            (_, Phase::Subscribing { give_up_at, .. }) => give_up_at,
            (_, Phase::Subscribed { silent_at, .. }) => silent_at.min(node.acts_at),
        };
        let at = at.max(self.now);
        if node.wakes_at != Some(at) {
            self.frameworks[index].wakes_at = Some(at);
            self.at(at, Event::WakeFramework(index));
        }
    }
}
