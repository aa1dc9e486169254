//! What is asked of a core, by frameworks and agents, and what it owes them for it.

use std::collections::{BTreeMap, BTreeSet};

use tepui_api::link::agent_frame::Body as Frame;
use tepui_api::link::coordinator_frame::Body as Order;
use tepui_api::link::{ExecutorExited, StatusUpdate};
use tepui_api::resources::{Resources, roles};
use tepui_api::v1::framework_info::capability::Type as Capability;
use tepui_api::v1::offer::operation::Type as OperationType;
use tepui_api::v1::scheduler::{Call, Event, call, call::Type, event};
use tepui_api::v1::task_status::Reason;
use tepui_api::v1::{AgentId, FrameworkId, OfferId, TaskId, TaskState, TaskStatus};
use tepui_coordinator::core::{Framework, Input, OperatorCall, Reply, StreamHeader, StreamId};

use super::{Checked, Ledger, Step};
use crate::model::is_terminal;

/// What was in the offers that are being used.
pub struct Basket {
    pub framework: FrameworkId,
    pub agent: AgentId,
    pub left: Resources,
}

impl Ledger {
    /// Enters what the input does to the books, and checks what it must give rise to.
    pub(super) fn take_input(&mut self, step: &mut Step) -> Checked {
        match step.input {
            Input::Scheduler { stream, call, .. } => self.take_call(step, *stream, call),
            Input::Operator { call: OperatorCall::Teardown(id), .. } => {
                if step.reply() == Some(&Reply::Ok) {
                    self.torn_down.insert(id.clone());
                }
                Ok(())
            }
            Input::Agent { link, frame } => {
                let agent = self.before.agents.iter().find(|(_, agent)| agent.link == Some(*link));
                let Some(agent) = agent.map(|(id, _)| id.clone()) else { return Ok(()) };
                match frame {
                    Frame::Update(update) => self.take_update(step, &agent, update),
                    Frame::ExecutorExited(ExecutorExited { framework_id, executor_id, .. }) => {
                        self.remove_executor(&agent, &(framework_id.clone(), executor_id.clone()))
                    }
                    Frame::TotalResources(total) => {
                        self.resize(&agent, Resources::from_wire_lossy(&total.resources));
                        Ok(())
                    }
                    _ => Ok(()),
                }
            }
            Input::Subscribe { stream, call, .. } => self.take_subscription(step, *stream, call),
            _ => Ok(()),
        }
    }

    fn take_subscription(&mut self, step: &Step, stream: StreamId, call: &Call) -> Checked {
        let Some(subscribe) = &call.subscribe else { return Ok(()) };
        let answer = step.events(stream).next().map(|event| event.r#type());
        match answer {
            Some(event::Type::Subscribed) => {
                let framework =
                    step.after.frameworks.values().find(|framework| framework.stream() == Some(stream));
                let Some(framework) = framework else {
                    return Err(format!("{stream:?} was subscribed, but is no framework's"));
                };
                if self.torn_down.contains(&framework.id) {
                    return Err(format!("framework {} subscribed after its end", framework.id));
                }
                self.counts.subscriptions += 1;
                let book = self.frameworks.entry(framework.id.clone()).or_default();
                book.suppressed = subscribe.suppressed_roles.iter().cloned().collect();
                Ok(())
            }
            Some(event::Type::Error) => Ok(()),
            other => Err(format!("a subscription was answered with {other:?}")),
        }
    }

    fn take_call(&mut self, step: &mut Step, header: StreamHeader, call: &Call) -> Checked {
        let known = call.framework_id.as_ref().and_then(|id| self.before.frameworks.get(id)).cloned();
        let own = known.as_ref().and_then(|framework| framework.stream());
        let may = own.is_some_and(|own| header == StreamHeader::Present(own));
        match step.reply() {
            Some(Reply::Accepted | Reply::Ok) if !may => {
                return Err("a call on another's stream was accepted".to_owned());
            }
            Some(Reply::Accepted | Reply::Ok) => {}
            _ => return Ok(()),
        }
        let (Some(framework), Some(stream)) = (known, own) else { return Ok(()) };
        let id = framework.id.clone();
        match call.r#type() {
            Type::Accept => self.take_accept(step, &id, call.accept.as_ref()),
            Type::Decline => {
                for offer in call.decline.iter().flat_map(|decline| &decline.offer_ids) {
                    self.void_own(&id, offer);
                }
                Ok(())
            }
            Type::Teardown => {
                self.torn_down.insert(id);
                Ok(())
            }
            Type::Acknowledge => self.take_acknowledgement(step, &id, call.acknowledge.as_ref()),
            Type::Kill => self.take_kill(step, &framework, stream, call.kill.as_ref()),
            Type::Reconcile => {
                let asked = call.reconcile.iter().flat_map(|r| &r.tasks);
                let asked: Vec<_> = asked.map(|task| (task.task_id.clone(), task.agent_id.clone())).collect();
                self.check_answers(step, &framework, stream, &asked)
            }
            Type::Message => {
                let agent = call.message.as_ref().map(|message| &message.agent_id);
                self.expect_frame(step, agent, true, |frame| matches!(frame, Order::Message(_)))
            }
            Type::Revive => {
                self.wish(&framework, call.revive.as_ref().map(|r| &r.roles[..]).unwrap_or_default(), false)
            }
            Type::Suppress => {
                self.wish(&framework, call.suppress.as_ref().map(|s| &s.roles[..]).unwrap_or_default(), true)
            }
            Type::UpdateFramework => {
                let suppressed =
                    call.update_framework.iter().flat_map(|u| u.suppressed_roles.iter().cloned());
                let suppressed = suppressed.collect();
                self.frameworks.entry(id).or_default().suppressed = suppressed;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Roles in which a framework wants offers, or none.
    fn wish(&mut self, framework: &Framework, named: &[String], suppress: bool) -> Checked {
        let own = framework.roles();
        if named.iter().any(|role| roles::validate(role).is_err() || !own.contains(role)) {
            return Ok(());
        }
        let named: BTreeSet<String> = if named.is_empty() { own } else { named.iter().cloned().collect() };
        let book = self.frameworks.entry(framework.id.clone()).or_default();
        for role in named {
            if suppress {
                book.suppressed.insert(role);
            } else {
                book.suppressed.remove(&role);
            }
        }
        Ok(())
    }

    fn void_own(&mut self, id: &FrameworkId, offer: &OfferId) {
        if self.offers.get(offer).is_some_and(|offer| offer.framework == *id) {
            self.remove_offer(offer);
        }
    }

    /// The offers are gone whatever comes of it; each task that was to be launched is launched or refused.
    fn take_accept(&mut self, step: &mut Step, id: &FrameworkId, accept: Option<&call::Accept>) -> Checked {
        let Some(accept) = accept else { return Ok(()) };
        let mut basket: Option<Basket> = None;
        let mut valid = !accept.offer_ids.is_empty();
        let mut role: Option<String> = None;
        let mut seen = BTreeSet::new();
        for offer_id in &accept.offer_ids {
            let offer = self.offers.get(offer_id).filter(|offer| offer.framework == *id);
            let Some(offer) = offer else {
                valid = false;
                continue;
            };
            let basket = basket.get_or_insert_with(|| Basket {
                framework: id.clone(),
                agent: offer.agent.clone(),
                left: Resources::new(),
            });
            valid &= basket.agent == offer.agent
                && *role.get_or_insert_with(|| offer.role.clone()) == offer.role
                && seen.insert(offer_id);
            basket.left += &offer.resources;
        }
        for offer in &accept.offer_ids {
            self.void_own(id, offer);
        }
        step.basket = basket.filter(|_| valid);
        let mut wanted: BTreeMap<&TaskId, usize> = BTreeMap::new();
        for operation in &accept.operations {
            let launch = operation.launch.iter().flat_map(|launch| &launch.task_infos);
            let group = operation.launch_group.iter().flat_map(|group| &group.task_group.tasks);
            if matches!(operation.r#type(), OperationType::Launch | OperationType::LaunchGroup) {
                launch.chain(group).for_each(|task| *wanted.entry(&task.task_id).or_default() += 1);
            }
        }
        let answers = answers_to_launch(step);
        self.counts.refused += answers.refused as u64;
        for (task, times) in wanted {
            let answered = answers.by_task.get(task).copied().unwrap_or_default();
            if answered != times {
                return Err(format!(
                    "task {task} was to be launched {times} times, and was answered {answered} times"
                ));
            }
        }
        Ok(())
    }

    fn take_acknowledgement(
        &mut self,
        step: &Step,
        id: &FrameworkId,
        call: Option<&call::Acknowledge>,
    ) -> Checked {
        let Some(call::Acknowledge { agent_id, task_id, uuid }) = call else { return Ok(()) };
        let linked = self.before.agents.get(agent_id).is_some_and(|agent| agent.link.is_some());
        let key = (id.clone(), task_id.clone());
        let known = self.task(&key).filter(|task| task.agent == *agent_id);
        let sent = linked && known.is_none_or(|task| task.told.is_some());
        let ends = known
            .and_then(|task| task.told.as_ref())
            .is_some_and(|(state, last)| last == uuid && is_terminal(*state));
        if sent && ends {
            self.counts.acknowledged += 1;
            self.remove_task(&key)?;
        }
        let is_it = |frame: &Order| matches!(frame, Order::Acknowledge(a) if a.task_id == *task_id && a.uuid == *uuid);
        self.expect_frame(step, Some(agent_id), sent, is_it)
    }

    fn take_kill(
        &mut self,
        step: &Step,
        framework: &Framework,
        stream: StreamId,
        call: Option<&call::Kill>,
    ) -> Checked {
        let Some(kill) = call else { return Ok(()) };
        let key = (framework.id.clone(), kill.task_id.clone());
        let Some(task) = self.task(&key) else {
            return self.check_answers(
                step,
                framework,
                stream,
                &[(kill.task_id.clone(), kill.agent_id.clone())],
            );
        };
        let agent = task.agent.clone();
        let meant = kill.agent_id.as_ref().is_none_or(|named| *named == agent);
        let is_it = |frame: &Order| matches!(frame, Order::KillTask(k) if k.task_id == kill.task_id);
        self.expect_frame(step, Some(&agent), meant, is_it)
    }

    /// A frame must go to an agent, if it has a link, or must not.
    fn expect_frame(
        &self,
        step: &Step,
        agent: Option<&AgentId>,
        must: bool,
        is_it: impl Fn(&Order) -> bool,
    ) -> Checked {
        let link = agent.and_then(|agent| self.before.agents.get(agent)).and_then(|agent| agent.link);
        let Some(link) = link else { return Ok(()) };
        let found = step.frames(link).filter(|frame| is_it(frame)).count();
        if found == usize::from(must) {
            return Ok(());
        }
        Err(format!("{found} frames for {agent:?}, where {} were due", usize::from(must)))
    }

    /// Reconciliation: what must be answered, and that it is.
    fn check_answers(
        &mut self,
        step: &Step,
        framework: &Framework,
        stream: StreamId,
        asked: &[(TaskId, Option<AgentId>)],
    ) -> Checked {
        let mut expected: Vec<(TaskId, TaskState)> = Vec::new();
        if asked.is_empty() {
            let book = self.frameworks.get(&framework.id);
            for (id, task) in book.into_iter().flat_map(|book| &book.tasks) {
                expected.push((id.clone(), task.told.as_ref().map_or(task.state, |(state, _)| *state)));
            }
        }
        for (id, agent) in asked {
            expected.extend(self.answer(framework, id, agent.as_ref()).map(|state| (id.clone(), state)));
        }
        let is_answer =
            |status: &&TaskStatus| status.reason() == Reason::Reconciliation && status.uuid.is_none();
        let statuses =
            step.events(stream).filter_map(|event| event.update.as_ref()).map(|update| &update.status);
        let mut found: Vec<(TaskId, TaskState)> =
            statuses.filter(is_answer).map(|status| (status.task_id.clone(), status.state())).collect();
        expected.sort();
        found.sort();
        self.counts.reconciled += found.len() as u64;
        if expected == found {
            return Ok(());
        }
        Err(format!("reconciliation of {asked:?} was answered {found:?}, where {expected:?} is right"))
    }

    fn answer(&self, framework: &Framework, task: &TaskId, agent: Option<&AgentId>) -> Option<TaskState> {
        if let Some(task) = self.task(&(framework.id.clone(), task.clone())) {
            return Some(task.told.as_ref().map_or(task.state, |(state, _)| *state));
        }
        let before = &self.before;
        let awaited = agent
            .map_or(!before.recovered_agents.is_empty(), |agent| before.recovered_agents.contains_key(agent));
        if awaited {
            return None;
        }
        if !framework.has(Capability::PartitionAware) {
            return Some(TaskState::TaskLost);
        }
        Some(match agent {
            Some(agent) if before.agents.contains_key(agent) => TaskState::TaskGone,
            Some(agent) if before.unreachable_agents.contains_key(agent) => TaskState::TaskUnreachable,
            Some(agent) if before.gone_agents.contains_key(agent) => TaskState::TaskGoneByOperator,
            _ => TaskState::TaskUnknown,
        })
    }

    /// An update goes on to its framework if that listens, in the agent's order, and frees what the task used.
    fn take_update(&mut self, step: &Step, agent: &AgentId, update: &StatusUpdate) -> Checked {
        let StatusUpdate { framework_id: id, status, .. } = update;
        let (state, latest) = (status.state(), update.latest_state());
        let latest = if is_terminal(state) { state } else { latest };
        let stream = self.before.frameworks.get(id).and_then(|framework| framework.stream());
        let key = (id.clone(), status.task_id.clone());
        let number =
            status.data.as_deref().and_then(|data| data.try_into().ok()).map_or(0, u64::from_be_bytes);
        if let Some(task) = self.frameworks.get_mut(id).and_then(|book| book.tasks.get_mut(&key.1))
            && task.agent == *agent
        {
            if number < task.number {
                return Err(format!("update {number} of {} comes after {}", key.1, task.number));
            }
            task.number = number;
            if let (Some(_), Some(uuid)) = (stream, &status.uuid) {
                task.told = Some((state, uuid.clone()));
            }
            self.change_task(&key, latest)?;
        }
        let Some(stream) = stream else { return Ok(()) };
        let forwarded = |event: &&std::sync::Arc<Event>| {
            let forwarded = event.update.as_ref().map(|update| &update.status);
            forwarded.is_some_and(|f| {
                f.task_id == status.task_id && f.uuid == status.uuid && f.state == status.state
            })
        };
        self.counts.updates += 1;
        match step.events(stream).filter(forwarded).count() {
            1 => Ok(()),
            times => Err(format!("update {number} of {} went to its framework {times} times", key.1)),
        }
    }
}

#[derive(Default)]
struct Answers {
    by_task: BTreeMap<TaskId, usize>,
    refused: usize,
}

/// The tasks that were launched or refused in a step.
fn answers_to_launch(step: &Step) -> Answers {
    use tepui_coordinator::core::Output;
    let mut answers = Answers::default();
    for output in step.outputs {
        match output {
            Output::Frame { frame: Order::RunTask(run), .. } => {
                *answers.by_task.entry(run.task.task_id.clone()).or_default() += 1;
            }
            Output::Frame { frame: Order::RunTaskGroup(run), .. } => {
                for task in &run.task_group.tasks {
                    *answers.by_task.entry(task.task_id.clone()).or_default() += 1;
                }
            }
            Output::Event { event, .. } => {
                let Some(update) = &event.update else { continue };
                let refused = [Reason::TaskInvalid, Reason::TaskGroupInvalid, Reason::InvalidOffers];
                if refused.contains(&update.status.reason()) {
                    answers.refused += 1;
                    *answers.by_task.entry(update.status.task_id.clone()).or_default() += 1;
                }
            }
            _ => {}
        }
    }
    answers
}
