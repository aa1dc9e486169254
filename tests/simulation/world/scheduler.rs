//! A model of a framework's scheduler: it finds the leader, subscribes, launches, kills, acknowledges and reconciles, and may fail over.

use std::collections::BTreeMap;
use std::time::Duration;

use tepui_api::v1::framework_info::Capability;
use tepui_api::v1::framework_info::capability::Type as CapabilityType;
use tepui_api::v1::offer::Operation;
use tepui_api::v1::offer::operation::{Launch, Type as OperationType};
use tepui_api::v1::scheduler::{Event as Told, event};
use tepui_api::v1::{
    AgentId, CommandInfo, ExecutorInfo, FrameworkId, FrameworkInfo, Offer, OfferId, Resource, TaskId,
    TaskInfo, TaskState, TaskStatus,
};

use super::calls;
use super::network::{Down, Up, WireId};
use super::{Checked, Host, Power, Process, World};
use crate::ledger::is_terminal;
use crate::rng::Rng;

/// Without a heartbeat for so long a stream is dead.
const SILENCE: Duration = Duration::from_secs(35);

/// See the module.
pub struct Scheduler {
    pub process: Process,
    pub info: FrameworkInfo,
    pub phase: Phase,
    pub offers: BTreeMap<OfferId, Offer>,
    /// What it believes of its tasks.
    pub view: BTreeMap<TaskId, Seen>,
    next_task: u64,
    acts_at: Duration,
    leader: Option<usize>,
    watches: bool,
}

/// How it is connected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Phase {
    Down { until: Duration },
    Subscribing { wire: WireId, give_up_at: Duration },
    Subscribed { wire: WireId, silent_at: Duration },
}

/// What a scheduler believes of a task.
#[derive(Debug, Clone)]
pub struct Seen {
    pub agent: AgentId,
    pub state: TaskState,
}

// === impl Scheduler ===

impl Scheduler {
    pub fn new(index: usize, now: Duration, rng: &mut Rng) -> Self {
        let starts_at = now + rng.millis(0..=3000);
        Self {
            process: Process::new(rng),
            info: framework(index, rng),
            phase: Phase::Down { until: starts_at },
            offers: BTreeMap::new(),
            view: BTreeMap::new(),
            next_task: 0,
            acts_at: Duration::ZERO,
            leader: None,
            watches: rng.chance(600),
        }
    }

    pub fn id(&self) -> Option<&FrameworkId> {
        self.info.id.as_ref()
    }

    pub fn wire(&self) -> Option<WireId> {
        match self.phase {
            Phase::Down { .. } => None,
            Phase::Subscribing { wire, .. } | Phase::Subscribed { wire, .. } => Some(wire),
        }
    }

    pub fn is_subscribed(&self) -> bool {
        matches!(self.phase, Phase::Subscribed { .. })
    }

    fn live(&self) -> Vec<(TaskId, AgentId)> {
        let live = self.view.iter().filter(|(_, seen)| !is_terminal(seen.state));
        live.map(|(task, seen)| (task.clone(), seen.agent.clone())).collect()
    }
}

fn framework(index: usize, rng: &mut Rng) -> FrameworkInfo {
    let optional = [(CapabilityType::PartitionAware, 600), (CapabilityType::TaskKillingState, 300)];
    let mut capabilities: Vec<CapabilityType> =
        optional.into_iter().filter(|(_, share)| rng.chance(*share)).map(|(kind, _)| kind).collect();
    let multi_role = rng.chance(500);
    if multi_role {
        capabilities.push(CapabilityType::MultiRole);
    }
    FrameworkInfo {
        user: "root".to_owned(),
        name: format!("f{index}"),
        failover_timeout: Some([0.0, 5.0, 60.0, 600.0, 600.0][rng.below(5)]),
        checkpoint: Some(rng.chance(800)),
        roles: if multi_role { vec![format!("r{index}"), "shared".to_owned()] } else { Vec::new() },
        capabilities: capabilities.into_iter().map(|c| Capability { r#type: Some(c.into()) }).collect(),
        ..FrameworkInfo::default()
    }
}

impl World {
    // --- how it is connected

    pub(super) fn wake_scheduler(&mut self, index: usize) -> Checked {
        let now = self.now;
        match self.schedulers[index].phase {
            Phase::Down { until } if until <= now => self.subscribe(index),
            Phase::Subscribing { give_up_at: at, .. } | Phase::Subscribed { silent_at: at, .. }
                if at <= now =>
            {
                self.leave(index, 500);
            }
            Phase::Subscribed { .. } if self.schedulers[index].acts_at <= now => self.act(index),
            _ => {}
        }
        self.plan_scheduler(index);
        Ok(())
    }

    pub(super) fn plan_scheduler(&mut self, index: usize) {
        let scheduler = &self.schedulers[index];
        if scheduler.process.power != Power::On {
            return;
        }
        let at = match scheduler.phase {
            Phase::Down { until } => until,
            Phase::Subscribing { give_up_at, .. } => give_up_at,
            Phase::Subscribed { silent_at, .. } => silent_at.min(scheduler.acts_at),
        };
        self.wake_at(Host::Scheduler(index), at);
    }

    pub(super) fn subscribe(&mut self, index: usize) {
        let any = self.rng.below(self.coordinators.len());
        let server = self.schedulers[index].leader.unwrap_or(any);
        if !self.reachable(Host::Scheduler(index), server) {
            let until = self.now + self.rng.millis(100..=1500);
            self.schedulers[index].leader = None;
            self.schedulers[index].phase = Phase::Down { until };
            return;
        }
        let wire = self.open_wire(Host::Scheduler(index), server);
        let give_up_at = self.now + Duration::from_secs(10);
        let scheduler = &mut self.schedulers[index];
        scheduler.phase = Phase::Subscribing { wire, give_up_at };
        scheduler.offers.clear();
        let call = Box::new(calls::subscribe(&scheduler.info));
        self.send_up(wire, Up::Subscribe(call));
    }

    /// Leaves its stream, and subscribes again in a while.
    pub(super) fn leave(&mut self, index: usize, pause: u64) {
        if let Some(wire) = self.schedulers[index].wire() {
            self.hang_up(wire);
        }
        self.retry(index, pause);
    }

    fn retry(&mut self, index: usize, pause: u64) {
        let until = self.now + self.rng.millis(1..=pause);
        let scheduler = &mut self.schedulers[index];
        scheduler.phase = Phase::Down { until };
        scheduler.offers.clear();
        self.plan_scheduler(index);
    }

    /// It ended; another framework takes its place.
    pub(super) fn begin_anew(&mut self, index: usize) {
        self.leave(index, 5000);
        self.say(format!("scheduler {index} begins anew"));
        let info = framework(index, &mut self.rng);
        let scheduler = &mut self.schedulers[index];
        scheduler.info = info;
        scheduler.view.clear();
    }

    pub(super) fn kill_scheduler(&mut self, index: usize, down: Duration) {
        if !self.schedulers[index].process.on() {
            return;
        }
        self.tally.crashes += 1;
        if let Some(wire) = self.schedulers[index].wire() {
            self.client_died(wire);
        }
        let until = self.now + down;
        let scheduler = &mut self.schedulers[index];
        scheduler.process.dies(until);
        scheduler.phase = Phase::Down { until };
        scheduler.offers.clear();
        scheduler.leader = None;
        self.wake_at(Host::Scheduler(index), until);
    }

    pub(super) fn scheduler_detects(&mut self, index: usize, leader: Option<usize>) {
        let scheduler = &mut self.schedulers[index];
        if !scheduler.watches {
            return;
        }
        scheduler.leader = leader;
        let server = scheduler.wire().and_then(|wire| self.wires.get(&wire)).map(|wire| wire.server);
        if leader.is_some() && server.is_some() && server != leader {
            self.leave(index, 50);
        }
    }

    pub(super) fn answered(&mut self, answer: &calls::Answer) {
        let index = answer.scheduler;
        self.say(format!("scheduler {index} ← {:?}", answer.reply));
        let scheduler = &self.schedulers[index];
        // A call that is refused is how a scheduler learns that it is not subscribed.
        if scheduler.process.incarnation == answer.incarnation && scheduler.wire() == Some(answer.wire) {
            self.leave(index, 500);
        }
    }

    // --- what it hears

    pub(super) fn scheduler_hears(&mut self, index: usize, wire: WireId, what: Down) -> Checked {
        if self.schedulers[index].wire() != Some(wire) {
            return Ok(());
        }
        match what {
            Down::Event(event) => self.scheduler_event(index, wire, &event)?,
            Down::Redirect(there) => {
                if there.is_some() || !self.schedulers[index].watches {
                    self.schedulers[index].leader = there;
                }
                self.leave(index, 300);
            }
            Down::Closed => self.retry(index, 1500),
            Down::Order(_) => {}
        }
        self.plan_scheduler(index);
        Ok(())
    }

    fn scheduler_event(&mut self, index: usize, wire: WireId, event: &Told) -> Checked {
        let now = self.now;
        let scheduler = &mut self.schedulers[index];
        match event.r#type() {
            event::Type::Subscribed => {
                let id = event.subscribed.as_ref().map(|subscribed| subscribed.framework_id.clone());
                if scheduler.info.id.is_some() && scheduler.info.id != id {
                    return Err(format!("{:?} was subscribed as {id:?}", scheduler.info.id));
                }
                let new = scheduler.info.id.is_none();
                scheduler.info.id.clone_from(&id);
                scheduler.phase = Phase::Subscribed { wire, silent_at: now + SILENCE };
                scheduler.acts_at = now + Duration::from_millis(10);
                if let Some(id) = id.filter(|_| new) {
                    self.ledger.framework_named(&id)?;
                }
            }
            event::Type::Error => {
                let message = event.error.as_ref().map(|error| error.message.clone()).unwrap_or_default();
                if message.contains("failed over") {
                    self.leave(index, 1000);
                } else {
                    self.begin_anew(index);
                }
                return Ok(());
            }
            _ if !scheduler.is_subscribed() => {
                return Err(format!("scheduler {index} heard of something before SUBSCRIBED: {event:?}"));
            }
            event::Type::Offers => {
                let offers = event.offers.iter().flat_map(|offers| &offers.offers);
                scheduler.offers.extend(offers.map(|offer| (offer.id.clone(), offer.clone())));
            }
            event::Type::Rescind => {
                if let Some(rescind) = &event.rescind {
                    scheduler.offers.remove(&rescind.offer_id);
                }
            }
            event::Type::Update => {
                if let Some(update) = &event.update {
                    self.status(index, &update.status)?;
                }
            }
            _ => {}
        }
        if let Phase::Subscribed { silent_at, .. } = &mut self.schedulers[index].phase {
            *silent_at = now + SILENCE;
        }
        Ok(())
    }

    fn status(&mut self, index: usize, status: &TaskStatus) -> Checked {
        let Some(id) = self.schedulers[index].id().cloned() else { return Ok(()) };
        self.ledger.scheduler_hears(&id, status)?;
        if let Some(seen) = self.schedulers[index].view.get_mut(&status.task_id)
            && status.agent_id.as_ref().is_none_or(|agent| *agent == seen.agent)
        {
            // A task that was told to be lost may come back with its agent, so anything may follow.
            seen.state = status.state();
        }
        let Some(call) = calls::acknowledge(&id, status) else { return Ok(()) };
        let forgets = !self.calm && self.rng.chance(50);
        if !forgets {
            self.ledger.acknowledged(status.uuid());
            self.tally.acknowledged += u64::from(is_terminal(status.state()));
            self.send_call(index, call);
        }
        Ok(())
    }

    // --- what it does

    pub(super) fn act(&mut self, index: usize) {
        let pause = if self.calm { Duration::from_secs(3) } else { self.rng.millis(50..=1200) };
        self.schedulers[index].acts_at = self.now + pause;
        let Some(id) = self.schedulers[index].id().cloned() else { return };
        let live = self.schedulers[index].live();
        if self.calm {
            self.send_call(index, calls::reconcile(&id, Vec::new()));
            let asked: Vec<_> = live.into_iter().map(|(task, agent)| (task, Some(agent))).collect();
            if !asked.is_empty() {
                self.send_call(index, calls::reconcile(&id, asked));
            }
            return;
        }
        match self.rng.weighted(&[60, 12, 3, 12, 3, 10]) {
            0 => self.accept(index, &id),
            1 => {
                let offers: Vec<OfferId> =
                    std::mem::take(&mut self.schedulers[index].offers).into_keys().collect();
                if !offers.is_empty() {
                    let seconds = self.rng.below(3) as f64;
                    self.send_call(index, calls::decline(&id, offers, seconds));
                }
            }
            2 => self.send_call(index, calls::revive(&id)),
            3 => {
                if let Some((task, agent)) = self.rng.pick(&live).cloned() {
                    let named = self.rng.chance(700);
                    let grace = self.rng.chance(300).then(|| self.rng.within(0..=2) as i64);
                    self.send_call(index, calls::kill(&id, task, named.then_some(agent), grace));
                }
            }
            4 => self.send_call(index, calls::reconcile(&id, Vec::new())),
            _ => {
                let named = self.rng.chance(800);
                let asked = live.into_iter().map(|(task, agent)| (task, named.then_some(agent))).collect();
                self.send_call(index, calls::reconcile(&id, asked));
            }
        }
    }

    /// Launches tasks on the offers of one agent.
    fn accept(&mut self, index: usize, id: &FrameworkId) {
        let scheduler = &mut self.schedulers[index];
        let Some((_, first)) = scheduler.offers.first_key_value() else { return };
        let (agent, role) = (first.agent_id.clone(), first.allocation_info.clone());
        let goes_with = |offer: &Offer| offer.agent_id == agent && offer.allocation_info == role;
        let mut offers: Vec<Offer> = scheduler.offers.values().filter(|o| goes_with(o)).cloned().collect();
        // Now and then all are used again, as by a scheduler that lost count.
        if !self.rng.chance(15) {
            scheduler.offers.retain(|_, offer| !goes_with(offer));
        }
        let mut tasks = Vec::new();
        for _ in 0..1 + self.rng.below(2) {
            let share = self.rng.within(200..=900) as f64 / 1000.0;
            let Some(offer) = offers.first_mut() else { return };
            let resources: Vec<Resource> =
                offer.resources.iter_mut().filter_map(|resource| part(resource, share)).collect();
            if resources.is_empty() {
                continue;
            }
            self.schedulers[index].next_task += 1;
            let task = TaskId::new(format!("t{index}-{}", self.schedulers[index].next_task));
            let seen = Seen { agent: agent.clone(), state: TaskState::TaskStaging };
            self.schedulers[index].view.insert(task.clone(), seen);
            let command = CommandInfo { value: Some("true".to_owned()), ..CommandInfo::default() };
            // Some are for an executor of the framework's own, one on each agent.
            let executor = self.rng.chance(50).then(|| ExecutorInfo {
                executor_id: "e".into(),
                framework_id: Some(id.clone()),
                command: Some(command.clone()),
                ..ExecutorInfo::default()
            });
            tasks.push(TaskInfo {
                name: "task".to_owned(),
                task_id: task,
                agent_id: agent.clone(),
                resources,
                command: executor.is_none().then(|| command.clone()),
                executor,
                ..TaskInfo::default()
            });
        }
        let launch = Operation {
            r#type: Some(OperationType::Launch.into()),
            launch: Some(Launch { task_infos: tasks }),
            ..Operation::default()
        };
        let ids = offers.into_iter().map(|offer| offer.id).collect();
        self.send_call(index, calls::accept(id, ids, vec![launch]));
    }
}

/// A part of what is left of a resource.
fn part(resource: &mut Resource, share: f64) -> Option<Resource> {
    let scalar = resource.scalar.as_mut()?;
    let amount = (scalar.value * share * 1000.0).floor() / 1000.0;
    if amount <= 0.0 {
        return None;
    }
    scalar.value = ((scalar.value - amount) * 1000.0).round() / 1000.0;
    let mut taken = resource.clone();
    taken.scalar.as_mut()?.value = amount;
    Some(taken)
}
