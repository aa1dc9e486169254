//! A model of a framework: it subscribes, uses and declines offers, acknowledges updates, and makes every call
//! that there is, rightly and wrongly.

use std::collections::BTreeMap;
use std::time::Duration;

use tepui_api::v1::scheduler::{Call, Event, event};
use tepui_api::v1::task_status::Reason;
use tepui_api::v1::{
    AgentId, ExecutorInfo, FrameworkId, FrameworkInfo, Offer, OfferId, TaskId, TaskState, TaskStatus,
};
use tepui_coordinator::core::StreamId;

use super::accept::{View, filters};
use super::{calls, is_terminal, shapes};
use crate::rng::Rng;

/// See the module.
#[derive(Debug)]
pub struct Framework {
    /// What it says of itself; with its id once it has one.
    pub info: FrameworkInfo,
    pub phase: Phase,
    pub offers: BTreeMap<OfferId, Offer>,
    /// What it believes of its tasks.
    pub view: View,
    pub executors: Vec<(AgentId, ExecutorInfo)>,
    /// Offers that it has used or lost.
    pub stale: Vec<OfferId>,
    pub next_executor: u64,
    pub next_task: u64,
    pub suppressed: Vec<String>,
    /// Updates that it has acknowledged.
    acknowledged: Vec<(AgentId, TaskId, Vec<u8>)>,
}

/// How it is connected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Phase {
    /// Not; it subscribes at this time.
    Down { until: Duration },
    /// It has subscribed and waits for the answer.
    Subscribing { stream: StreamId, give_up_at: Duration },
    /// It listens.
    Subscribed { stream: StreamId, silent_at: Duration },
}

/// What a framework believes of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    pub agent: AgentId,
    pub state: TaskState,
    /// Of its agent's last update.
    pub number: u64,
}

/// What comes of looking at an event.
#[derive(Debug, Default)]
pub struct Reaction {
    pub calls: Vec<Call>,
    /// The coordinator wants no more of it.
    pub error: Option<String>,
}

/// Without a heartbeat for so long a stream is dead.
const SILENCE: Duration = Duration::from_secs(75);

// === impl Framework ===

impl Framework {
    pub fn new(info: FrameworkInfo, starts_at: Duration) -> Self {
        Self {
            info,
            phase: Phase::Down { until: starts_at },
            offers: BTreeMap::new(),
            view: BTreeMap::new(),
            executors: Vec::new(),
            stale: Vec::new(),
            next_executor: 0,
            next_task: 0,
            suppressed: Vec::new(),
            acknowledged: Vec::new(),
        }
    }

    pub fn id(&self) -> Option<&FrameworkId> {
        self.info.id.as_ref()
    }

    pub fn stream(&self) -> Option<StreamId> {
        match self.phase {
            Phase::Down { .. } => None,
            Phase::Subscribing { stream, .. } | Phase::Subscribed { stream, .. } => Some(stream),
        }
    }

    pub fn is_subscribed(&self) -> bool {
        matches!(self.phase, Phase::Subscribed { .. })
    }

    pub fn roles(&self) -> Vec<String> {
        let multi = self
            .info
            .capabilities
            .iter()
            .any(|c| c.r#type() == tepui_api::v1::framework_info::capability::Type::MultiRole);
        if multi { self.info.roles.clone() } else { vec![self.info.role().to_owned()] }
    }

    /// Begins a stream: the call that it makes.
    pub fn subscribe(&mut self, now: Duration, stream: StreamId) -> Call {
        self.phase = Phase::Subscribing { stream, give_up_at: now + Duration::from_secs(20) };
        self.forget_offers();
        let roles = self.roles();
        self.suppressed.retain(|role| roles.contains(role));
        calls::subscribe(&self.info, self.suppressed.clone())
    }

    /// The stream is gone, as far as it knows.
    pub fn disconnected(&mut self, retry_at: Duration) {
        self.phase = Phase::Down { until: retry_at };
        self.forget_offers();
    }

    /// It ended; another takes its place in the model.
    pub fn begin_anew(&mut self, info: FrameworkInfo, starts_at: Duration) {
        *self = Self {
            next_task: self.next_task,
            next_executor: self.next_executor,
            ..Self::new(info, starts_at)
        };
    }

    fn forget_offers(&mut self) {
        let ids: Vec<OfferId> = self.offers.keys().cloned().collect();
        self.offers.clear();
        ids.iter().for_each(|id| self.remember_stale(id));
    }

    pub(super) fn remember_stale(&mut self, id: &OfferId) {
        if self.stale.len() >= 16 {
            self.stale.remove(0);
        }
        self.stale.push(id.clone());
    }

    /// Looks at an event of its stream. `calm`: it does nothing that is wrong.
    ///
    /// # Errors
    /// With what no coordinator may say.
    pub fn event(
        &mut self,
        now: Duration,
        event: &Event,
        calm: bool,
        rng: &mut Rng,
    ) -> Result<Reaction, String> {
        let mut reaction = Reaction::default();
        match event.r#type() {
            event::Type::Subscribed => {
                let Phase::Subscribing { stream, .. } = self.phase else {
                    return Err("subscribed twice on one stream".to_owned());
                };
                let id = event.subscribed.as_ref().map(|subscribed| subscribed.framework_id.clone());
                if self.info.id.is_some() && self.info.id != id {
                    return Err(format!("{:?} was subscribed as {id:?}", self.info.id));
                }
                self.info.id = id;
                self.phase = Phase::Subscribed { stream, silent_at: now + SILENCE };
            }
            event::Type::Error => {
                reaction.error = Some(event.error.as_ref().map(|e| e.message.clone()).unwrap_or_default());
            }
            _ if !self.is_subscribed() => return Err(format!("an event before SUBSCRIBED: {event:?}")),
            event::Type::Offers => {
                for offer in event.offers.iter().flat_map(|offers| &offers.offers) {
                    self.offers.insert(offer.id.clone(), offer.clone());
                }
            }
            event::Type::Rescind => {
                if let Some(rescind) = &event.rescind
                    && self.offers.remove(&rescind.offer_id).is_some()
                {
                    self.remember_stale(&rescind.offer_id);
                }
            }
            event::Type::InverseOffers => {
                let Some(id) = self.id().cloned() else { return Ok(reaction) };
                for offer in event.inverse_offers.iter().flat_map(|offers| &offers.inverse_offers) {
                    if !rng.chance(200) {
                        reaction.calls.push(calls::answer_inverse(&id, &offer.id, rng.chance(500)));
                    }
                }
            }
            event::Type::Update => {
                if let Some(update) = &event.update {
                    self.update(&update.status, calm, rng, &mut reaction.calls)?;
                }
            }
            _ => {}
        }
        if let Phase::Subscribed { silent_at, .. } = &mut self.phase {
            *silent_at = now + SILENCE;
        }
        Ok(reaction)
    }

    fn update(
        &mut self,
        status: &TaskStatus,
        calm: bool,
        rng: &mut Rng,
        out: &mut Vec<Call>,
    ) -> Result<(), String> {
        let Some(id) = self.id().cloned() else { return Ok(()) };
        let seen = self.view.get_mut(&status.task_id);
        let number = status.data.as_deref().and_then(|data| data.try_into().ok()).map(u64::from_be_bytes);
        if let Some(seen) = seen
            // An invalid offer says nothing of a task that was launched on another.
            && status.reason() != Reason::InvalidOffers
            && status.agent_id.as_ref().is_none_or(|agent| *agent == seen.agent)
        {
            if let Some(number) = number {
                if number < seen.number {
                    let (task, last) = (&status.task_id, seen.number);
                    return Err(format!("update {number} of {task} reached its framework after {last}"));
                }
                seen.number = number;
            }
            // A task that was told to have ended may come back with its agent, so anything may follow.
            seen.state = status.state();
        }
        let (Some(uuid), Some(agent)) = (&status.uuid, &status.agent_id) else { return Ok(()) };
        let call = |uuid: Vec<u8>| calls::acknowledge(&id, agent.clone(), status.task_id.clone(), uuid);
        if calm {
            out.push(call(uuid.clone()));
            return Ok(());
        }
        if rng.chance(20) {
            out.push(call(b"never made".to_vec()));
        }
        if !rng.chance(80) {
            out.push(call(uuid.clone()));
            self.acknowledged.push((agent.clone(), status.task_id.clone(), uuid.clone()));
            if self.acknowledged.len() > 16 {
                self.acknowledged.remove(0);
            }
        }
        if rng.chance(30) {
            out.push(call(uuid.clone()));
        }
        Ok(())
    }

    /// What it does of itself while it listens. `foreign` are offers of others, `agents` ids of all.
    pub fn act(&mut self, foreign: &[OfferId], agents: &[AgentId], rng: &mut Rng) -> Option<Call> {
        let id = self.id()?.clone();
        let weights = [420, 150, 40, 15, 110, 25, 60, 30, 12, 25, 20, 6];
        match rng.weighted(&weights) {
            0 => self.accept(foreign, rng),
            1 => self.decline(&id, foreign, rng),
            2 => {
                self.suppressed.clear();
                Some(calls::revive(&id, self.maybe_roles(rng)))
            }
            3 => {
                let roles = self.maybe_roles(rng);
                self.suppressed.extend(roles.iter().cloned());
                Some(calls::suppress(&id, roles))
            }
            4 => self.kill(&id, agents, rng),
            5 => Some(calls::reconcile(&id, Vec::new())),
            6 => Some(calls::reconcile(&id, self.ask(agents, rng))),
            7 => {
                let (agent, executor) = rng.pick(&self.executors)?;
                Some(calls::message(&id, agent.clone(), executor.executor_id.clone()))
            }
            8 => {
                let (agent, executor) = rng.pick(&self.executors)?;
                Some(calls::shutdown(&id, executor.executor_id.clone(), agent.clone()))
            }
            9 => {
                let (agent, task, uuid) = rng.pick(&self.acknowledged)?.clone();
                let uuid = if rng.chance(500) { uuid } else { b"?".to_vec() };
                Some(calls::acknowledge(&id, agent, task, uuid))
            }
            10 => Some(self.change(&id, rng)),
            _ => Some(calls::odd(&id, rng.below(8))),
        }
    }

    fn decline(&mut self, id: &FrameworkId, foreign: &[OfferId], rng: &mut Rng) -> Option<Call> {
        let mut ids: Vec<OfferId> = self.offers.keys().filter(|_| rng.chance(600)).cloned().collect();
        if rng.chance(50) {
            ids.extend(rng.pick(foreign).cloned());
            ids.extend(rng.pick(&self.stale).cloned());
        }
        for offer in &ids {
            if self.offers.remove(offer).is_some() {
                self.remember_stale(offer);
            }
        }
        (!ids.is_empty()).then(|| calls::decline(id, ids, filters(rng)))
    }

    fn kill(&mut self, id: &FrameworkId, agents: &[AgentId], rng: &mut Rng) -> Option<Call> {
        let live: Vec<(&TaskId, &Seen)> =
            self.view.iter().filter(|(_, seen)| !is_terminal(seen.state)).collect();
        let (task, seen) = rng.pick(&live)?;
        let agent = match rng.weighted(&[60, 30, 10]) {
            0 => Some(seen.agent.clone()),
            1 => None,
            _ => rng.pick(agents).cloned(),
        };
        let task = if rng.chance(30) { TaskId::new("none such") } else { (*task).clone() };
        Some(calls::kill(id, task, agent))
    }

    fn ask(&self, agents: &[AgentId], rng: &mut Rng) -> Vec<(TaskId, Option<AgentId>)> {
        let mut asked: Vec<(TaskId, Option<AgentId>)> = (self.view.iter())
            .filter(|_| rng.chance(200))
            .map(|(task, seen)| (task.clone(), Some(seen.agent.clone())))
            .collect();
        for (_, agent) in &mut asked {
            if rng.chance(100) {
                *agent = if rng.chance(500) { None } else { rng.pick(agents).cloned() };
            }
        }
        if rng.chance(100) || asked.is_empty() {
            asked.push((TaskId::new("none such"), rng.pick(agents).cloned()));
        }
        asked
    }

    fn change(&mut self, id: &FrameworkId, rng: &mut Rng) -> Call {
        let mut info = self.info.clone();
        if !info.roles.is_empty() && rng.chance(700) {
            info.roles = shapes::some_roles(rng);
        } else {
            info.failover_timeout = Some(rng.within(0..=200) as f64);
        }
        if rng.chance(100) {
            // Not allowed.
            info.checkpoint = Some(!info.checkpoint());
        } else {
            self.info = info.clone();
        }
        let suppressed: Vec<String> = info.roles.iter().filter(|_| rng.chance(150)).cloned().collect();
        self.suppressed.clone_from(&suppressed);
        calls::update_framework(id, &info, suppressed)
    }

    fn maybe_roles(&self, rng: &mut Rng) -> Vec<String> {
        let mut roles: Vec<String> = self.roles().into_iter().filter(|_| rng.chance(300)).collect();
        if rng.chance(50) {
            roles.push("nobodys".to_owned());
        }
        roles
    }

    /// Asks about all that it does not know the end of, and about what it has forgotten.
    pub fn settle(&self) -> Vec<Call> {
        let Some(id) = self.id() else { return Vec::new() };
        let open = self.view.iter().filter(|(_, seen)| !is_terminal(seen.state));
        let open: Vec<(TaskId, Option<AgentId>)> =
            open.map(|(task, seen)| (task.clone(), Some(seen.agent.clone()))).collect();
        let mut out = vec![calls::reconcile(id, Vec::new())];
        if !open.is_empty() {
            out.push(calls::reconcile(id, open));
        }
        out
    }
}
