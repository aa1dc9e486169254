//! What comes out of a core: offers, launches, verdicts.

use tepui_api::link::coordinator_frame::Body as Order;
use tepui_api::resources::{Resources, roles};
use tepui_api::v1::framework_info::capability::Type as Capability;
use tepui_api::v1::{ExecutorInfo, FrameworkId, InverseOffer, Offer, TaskInfo, TaskState};
use tepui_coordinator::core::{Framework, Output, StreamId};

use super::{Checked, Ledger, OfferBook, Step, TaskBook};

impl Ledger {
    /// Offers that were taken back: each was open, and its framework's whose stream it is told on.
    pub(super) fn take_rescinds(&mut self, step: &Step) -> Checked {
        for output in step.outputs {
            let Output::Event { stream, event } = output else { continue };
            let Some(rescind) = &event.rescind else { continue };
            let id = &rescind.offer_id;
            let Some(offer) = self.remove_offer(id) else {
                return Err(format!("the offer {id} was taken back, but is not open"));
            };
            if self.before.frameworks.get(&offer.framework).and_then(|f| f.stream()) != Some(*stream) {
                return Err(format!("it was told on another's stream that the offer {id} is taken back"));
            }
            self.counts.rescinds += 1;
        }
        Ok(())
    }

    /// Launches, offers, and what frameworks are told of tasks that were given up.
    pub(super) fn take_outputs(&mut self, step: &mut Step) -> Checked {
        for output in step.outputs {
            match output {
                Output::Frame { frame: Order::RunTask(run), .. } => {
                    let executor = run.task.executor.as_ref();
                    self.take_launch(step, run.framework.id.as_ref(), &run.task, executor)?;
                }
                Output::Frame { frame: Order::RunTaskGroup(run), .. } => {
                    for task in &run.task_group.tasks {
                        self.take_launch(step, run.framework.id.as_ref(), task, Some(&run.executor))?;
                    }
                }
                Output::Event { stream, event } => {
                    for offer in event.inverse_offers.iter().flat_map(|offers| &offers.inverse_offers) {
                        self.take_inverse_offer(step, *stream, offer)?;
                    }
                    for offer in event.offers.iter().flat_map(|offers| &offers.offers) {
                        self.take_offer(step, *stream, offer)?;
                    }
                }
                _ => {}
            }
        }
        self.check_verdicts(step)?;
        self.close_books(step)
    }

    fn take_launch(
        &mut self,
        step: &mut Step,
        framework: Option<&FrameworkId>,
        task: &TaskInfo,
        executor: Option<&ExecutorInfo>,
    ) -> Checked {
        let Some(basket) = &mut step.basket else {
            return Err(format!("task {} was launched without offers", task.task_id));
        };
        if framework != Some(&basket.framework) || task.agent_id != basket.agent {
            return Err(format!("task {} was launched for another framework or agent", task.task_id));
        }
        let uses = Resources::from_wire(&task.resources).map_err(|error| error.to_string())?;
        let mut needs = uses.clone();
        let (framework, agent) = (basket.framework.clone(), basket.agent.clone());
        let mut new_executor = None;
        if let Some(executor) = executor {
            let key = (framework.clone(), executor.executor_id.clone());
            if !self.agents.get(&agent).is_some_and(|book| book.executors.contains_key(&key)) {
                let uses = Resources::from_wire(&executor.resources).map_err(|error| error.to_string())?;
                needs += &uses;
                new_executor = Some((key, uses));
            }
        }
        if !basket.left.contains(&needs) {
            let (id, left) = (&task.task_id, &basket.left);
            return Err(format!("task {id} was launched with {needs}, of which the offers have only {left}"));
        }
        basket.left -= &needs;
        self.counts.launched += 1;
        if let Some((key, uses)) = new_executor {
            self.enter_executor(&agent, key, uses);
        }
        let key = (framework, task.task_id.clone());
        if self.task(&key).is_some() {
            return Err(format!("task {} was launched, but is in the books already", task.task_id));
        }
        self.enter_task(&key, TaskBook { agent, uses, state: TaskState::TaskStaging, told: None, number: 0 });
        Ok(())
    }

    /// A framework is asked for what it uses or is offered, where the agent is there and is to go away.
    fn take_inverse_offer(&mut self, step: &Step, stream: StreamId, offer: &InverseOffer) -> Checked {
        let id = &offer.id;
        if !self.offers_ever.insert(id.clone()) {
            return Err(format!("the id {id} of an inverse offer was used before"));
        }
        if step.after.frameworks.get(&offer.framework_id).and_then(|f| f.stream()) != Some(stream) {
            return Err(format!("the inverse offer {id} went to another's stream"));
        }
        let agent = offer.agent_id.as_ref().and_then(|agent| step.after.agents.get(agent));
        let Some(agent) = agent.filter(|agent| agent.active()) else {
            return Err(format!("the inverse offer {id} is of an agent that is not active"));
        };
        if step.after.maintenance.unavailability(&agent.machine) != Some(&offer.unavailability) {
            return Err(format!("the inverse offer {id} is of a machine that stays"));
        }
        self.counts.inverse_offers += 1;
        Ok(())
    }

    fn take_offer(&mut self, step: &Step, stream: StreamId, offer: &Offer) -> Checked {
        let id = &offer.id;
        let framework = step.after.frameworks.get(&offer.framework_id).filter(|f| f.stream() == Some(stream));
        let Some(framework) = framework else {
            return Err(format!("the offer {id} went to another's stream"));
        };
        if !self.offers_ever.insert(id.clone()) {
            return Err(format!("the offer id {id} was used before"));
        }
        let Some(agent) = step.after.agents.get(&offer.agent_id).filter(|agent| agent.active()) else {
            return Err(format!("the offer {id} is of an agent that is not active"));
        };
        if step.after.maintenance.unavailability(&agent.machine) != offer.unavailability.as_ref() {
            return Err(format!("the offer {id} does not say when its agent is to be away"));
        }
        let resources = Resources::from_wire(&offer.resources).map_err(|error| error.to_string())?;
        let role = role_of(framework, offer)?;
        self.check_entitled(framework, &role, &resources).map_err(|what| format!("the offer {id} {what}"))?;
        self.counts.offers += 1;
        let resources = resources.unallocated().allocated(role.as_str());
        let book =
            OfferBook { framework: framework.id.clone(), agent: offer.agent_id.clone(), role, resources };
        self.enter_offer(id.clone(), book);
        Ok(())
    }

    /// Whether a framework may be offered these in a role.
    fn check_entitled(&self, framework: &Framework, role: &str, resources: &Resources) -> Checked {
        if !framework.roles().contains(role) {
            return Err(format!("is to the role {role}, in which its framework is not"));
        }
        if self.frameworks.get(&framework.id).is_some_and(|book| book.suppressed.contains(role)) {
            return Err(format!("is to the role {role}, which its framework suppressed"));
        }
        if resources.is_empty() {
            return Err("is empty".to_owned());
        }
        for resource in resources.iter() {
            let reserved = resource.reserved_to();
            if reserved.is_some_and(|owner| !roles::is_in_subtree(role, owner)) {
                return Err(format!("to the role {role} holds {resource}"));
            }
            if resource.has_refined_reservations() && !framework.has(Capability::ReservationRefinement) {
                return Err(format!("holds {resource}, which its framework cannot read"));
            }
        }
        Ok(())
    }

    /// Tasks that were given up: their frameworks are told once, if they listen.
    fn check_verdicts(&mut self, step: &Step) -> Checked {
        for key in &step.given_up {
            let Some(stream) = step.after.frameworks.get(&key.0).and_then(|framework| framework.stream())
            else {
                continue;
            };
            let told = step.events(stream).filter_map(|event| event.update.as_ref()).filter(|update| {
                let state = update.status.state();
                update.status.task_id == key.1
                    && update.status.uuid.is_none()
                    && matches!(
                        state,
                        TaskState::TaskLost | TaskState::TaskUnreachable | TaskState::TaskGoneByOperator
                    )
            });
            match told.count() {
                1 => self.counts.verdicts += 1,
                times => {
                    return Err(format!("task {} was given up, and its framework told {times} times", key.1));
                }
            }
        }
        Ok(())
    }
}

fn role_of(framework: &Framework, offer: &Offer) -> Result<String, String> {
    let named = offer.allocation_info.as_ref().and_then(|info| info.role.clone());
    match (framework.has(Capability::MultiRole), named) {
        (true, Some(role)) => Ok(role),
        (false, None) => Ok(framework.info.role().to_owned()),
        (_, named) => Err(format!("the offer {} has the wrong allocation {named:?}", offer.id)),
    }
}
