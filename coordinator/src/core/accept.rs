//! The call `ACCEPT`: operations on what was offered.
//!
//! The offers are taken out of the books, each operation takes from what is in them, in order, and
//! what is left goes back to the allocator with the filter of the call. Whatever cannot be done is
//! told: a task by an update, an operation with an id by its status.

use tepui_api::link::{RunTask, RunTaskGroup, coordinator_frame::Body as Frame};
use tepui_api::resources::Resources;
use tepui_api::v1::framework_info::capability::Type as Capability;
use tepui_api::v1::offer::Operation;
use tepui_api::v1::offer::operation::Type;
use tepui_api::v1::resource::AllocationInfo;
use tepui_api::v1::scheduler::call::Accept;
use tepui_api::v1::task_status::Reason;
use tepui_api::v1::{
    AgentId, ExecutorInfo, FrameworkId, HealthCheck, OfferId, OperationState, Resource, TaskInfo, TaskState,
    health_check,
};

use super::events::{self, Verdict};
use super::offers::refusal;
use super::tasks::new_task;
use super::validate::group::{self, GroupLaunch};
use super::validate::task::{self, Launch};
use super::{Core, OfferNumber};
use crate::allocator::Return;

/// Why offers cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum OfferError {
    #[error("No offers specified")]
    None,
    #[error("the offer {0} is there twice")]
    Duplicate(OfferId),
    #[error("Offer {0} is no longer valid")]
    Gone(OfferId),
    #[error("the offer {0} is that of another framework")]
    OtherFramework(OfferId),
    #[error("the offers are made to the roles '{0}' and '{1}', but all must be made to one")]
    TwoRoles(String, String),
    #[error("the offers are of the agents '{0}' and '{1}', but all must be of one")]
    TwoAgents(AgentId, AgentId),
}

/// The offers of one call, on their way to being used.
struct Accepted {
    offers: Vec<OfferNumber>,
    agent: AgentId,
    role: String,
}

impl Core {
    pub(super) fn accept(&mut self, id: &FrameworkId, accept: Accept) {
        for operation in accept.operations.iter().filter(|operation| operation.r#type() == Type::Launch) {
            if operation.launch.as_ref().is_some_and(|launch| !launch.task_infos.is_empty()) {
                self.state.counters.messages_launch_tasks += 1;
            } else {
                self.state.counters.messages_decline_offers += 1;
            }
        }
        match self.check_offers(id, &accept.offer_ids) {
            Ok(accepted) => self.use_offers(id, &accepted, accept),
            Err(error) => self.refuse_offers(id, &accept, &error),
        }
    }

    fn check_offers(&self, id: &FrameworkId, offers: &[OfferId]) -> Result<Accepted, OfferError> {
        for (at, offer) in offers.iter().enumerate() {
            if offers[..at].contains(offer) {
                return Err(OfferError::Duplicate(offer.clone()));
            }
        }
        if let Some(gone) = offers.iter().find(|offer| self.offer(offer).is_none()) {
            return Err(OfferError::Gone(gone.clone()));
        }
        let mut accepted: Option<Accepted> = None;
        for offer in offers {
            let (number, framework, held) =
                self.offer(offer).ok_or_else(|| OfferError::Gone(offer.clone()))?;
            if framework != id {
                return Err(OfferError::OtherFramework(offer.clone()));
            }
            let agent = &held.offer.agent_id;
            match &mut accepted {
                None => {
                    let (agent, role) = (agent.clone(), held.role.to_string());
                    accepted = Some(Accepted { offers: vec![number], agent, role });
                }
                Some(first) if *first.role != *held.role => {
                    return Err(OfferError::TwoRoles(first.role.clone(), held.role.to_string()));
                }
                Some(first) if first.agent != *agent => {
                    return Err(OfferError::TwoAgents(first.agent.clone(), agent.clone()));
                }
                Some(first) => first.offers.push(number),
            }
        }
        accepted.ok_or(OfferError::None)
    }

    /// Some offers are not what the framework believes: all are void, and no operation is done.
    fn refuse_offers(&mut self, id: &FrameworkId, accept: &Accept, error: &OfferError) {
        tracing::warn!(framework = %id, %error, "a framework accepted invalid offers");
        for offer in &accept.offer_ids {
            let own = self.offer(offer).filter(|(_, framework, _)| *framework == id);
            if let Some(number) = own.map(|(number, ..)| number) {
                self.discard_offer(number, std::time::Duration::ZERO);
            }
        }
        let aware = self.framework(id).is_some_and(|framework| framework.has(Capability::PartitionAware));
        let state = if aware { TaskState::TaskDropped } else { TaskState::TaskLost };
        let message = format!("Task launched with invalid offers: {error}");
        for operation in &accept.operations {
            match tasks_of(operation) {
                Some(tasks) => self.refuse_tasks(id, tasks, state, Reason::InvalidOffers, &message),
                None => self.drop_operation(id, operation, &format!("the offers are invalid: {error}")),
            }
        }
    }

    fn use_offers(&mut self, id: &FrameworkId, accepted: &Accepted, accept: Accept) {
        let mut left = Resources::new();
        for offer in &accepted.offers {
            if let Some((_, held)) = self.take_offer(*offer) {
                left += &held.resources;
            }
        }
        for operation in accept.operations {
            if operation.id.is_some()
                && let Some(tasks) = tasks_of(&operation)
            {
                let message = "the 'id' of an operation cannot be set to launch tasks";
                self.refuse_tasks(id, tasks, TaskState::TaskError, reason_of(&operation), message);
                continue;
            }
            match operation.r#type() {
                Type::Launch => {
                    let tasks = operation.launch.unwrap_or_default().task_infos;
                    self.launch(id, accepted, tasks, &mut left);
                }
                Type::LaunchGroup => {
                    if let Some(group) = operation.launch_group {
                        self.launch_group(id, accepted, group, &mut left);
                    }
                }
                Type::Unknown => tracing::warn!(framework = %id, "ignored an operation of an unknown type"),
                other => {
                    let message = format!("{} is not implemented", other.as_str_name());
                    self.drop_operation(id, &operation, &message);
                }
            }
        }
        let why = Return::Unused { refuse: refusal(accept.filters.as_ref()) };
        self.give_back(id, &accepted.agent, &left, why);
    }

    fn launch(&mut self, id: &FrameworkId, accepted: &Accepted, tasks: Vec<TaskInfo>, left: &mut Resources) {
        // As in Mesos, resources that cannot be read make all tasks of the operation invalid.
        let launches: Result<Vec<Launch>, _> =
            tasks.iter().map(|task| read_launch(id, accepted, task.clone())).collect();
        let launches = match launches {
            Ok(launches) => launches,
            Err(error) => {
                let message = error.to_string();
                return self.refuse_tasks(id, &tasks, TaskState::TaskError, Reason::TaskInvalid, &message);
            }
        };
        for launch in launches {
            let (Some(framework), Some(agent)) = (self.framework(id), self.agent(&accepted.agent)) else {
                return;
            };
            match task::validate(&launch, framework, agent, left) {
                Ok(()) => self.launch_one(id, launch, left),
                Err(error) => {
                    let (state, message) = (TaskState::TaskError, error.to_string());
                    self.refuse_tasks(id, &[launch.task], state, Reason::TaskInvalid, &message);
                }
            }
        }
    }

    fn launch_one(&mut self, id: &FrameworkId, launch: Launch, left: &mut Resources) {
        let Launch { task, resources, executor_resources } = launch;
        let agent = task.agent_id.clone();
        *left -= &resources;
        let mut launch_executor = None;
        if let Some(executor) = &task.executor {
            let charged = self.add_executor(id, &agent, executor, &executor_resources);
            if charged {
                *left -= &executor_resources;
            }
            launch_executor = Some(charged);
        }
        self.add_task(new_task(&task, id), &resources);
        let Some(framework) = self.framework(id) else { return };
        let framework = (*framework.info).clone();
        tracing::info!(framework = %id, task = %task.task_id, %agent, %resources, "launching a task");
        self.frame(&agent, Frame::RunTask(RunTask { framework, task, launch_executor }));
    }

    fn launch_group(
        &mut self,
        id: &FrameworkId,
        accepted: &Accepted,
        operation: tepui_api::v1::offer::operation::LaunchGroup,
        left: &mut Resources,
    ) {
        let tasks = operation.task_group.tasks.clone();
        let (Some(framework), Some(agent)) = (self.framework(id), self.agent(&accepted.agent)) else {
            return;
        };
        let checked = read_group(accepted, operation).map_err(|error| error.to_string()).and_then(|launch| {
            group::validate(&launch, framework, agent, left).map_err(|error| error.to_string())?;
            Ok(launch)
        });
        let launch = match checked {
            Ok(launch) => launch,
            Err(message) => {
                let reason = Reason::TaskGroupInvalid;
                return self.refuse_tasks(id, &tasks, TaskState::TaskError, reason, &message);
            }
        };
        let info = (*framework.info).clone();
        let GroupLaunch { executor, executor_resources, group, resources } = launch;
        let charged = self.add_executor(id, &accepted.agent, &executor, &executor_resources);
        if charged {
            *left -= &executor_resources;
        }
        for (task, resources) in group.tasks.iter().zip(&resources) {
            *left -= resources;
            self.add_task(new_task(task, id), resources);
        }
        tracing::info!(framework = %id, agent = %accepted.agent, tasks = group.tasks.len(), "launching a group of tasks");
        let frame =
            RunTaskGroup { framework: info, executor, task_group: group, launch_executor: Some(charged) };
        self.frame(&accepted.agent, Frame::RunTaskGroup(frame));
    }

    /// Tells a framework that tasks were not launched.
    fn refuse_tasks(
        &mut self,
        id: &FrameworkId,
        tasks: &[TaskInfo],
        state: TaskState,
        reason: Reason,
        message: &str,
    ) {
        for task in tasks {
            match state {
                TaskState::TaskDropped => self.state.counters.tasks_dropped += 1,
                TaskState::TaskLost => self.state.counters.tasks_lost += 1,
                _ => self.state.counters.tasks_error += 1,
            }
            tracing::info!(framework = %id, task = %task.task_id, message, "a task is not launched");
            let verdict = Verdict {
                task: &task.task_id,
                agent: Some(&task.agent_id),
                executor: None,
                state,
                reason,
                message: message.to_owned(),
            };
            self.send(id, events::update(verdict.status(self.now.wall)));
        }
    }

    /// Tells a framework that an operation was not done, if it wants to know.
    fn drop_operation(&mut self, id: &FrameworkId, operation: &Operation, message: &str) {
        tracing::warn!(framework = %id, operation = operation.r#type().as_str_name(), message, "dropped an operation");
        if let Some(operation_id) = operation.id.clone() {
            let state = OperationState::OperationError;
            self.send(id, events::operation(operation_id, state, message, None));
        }
    }
}

/// The tasks that an operation launches; `None` when it is of another kind.
fn tasks_of(operation: &Operation) -> Option<&[TaskInfo]> {
    match operation.r#type() {
        Type::Launch => Some(operation.launch.as_ref().map_or(&[], |launch| &launch.task_infos)),
        Type::LaunchGroup => {
            Some(operation.launch_group.as_ref().map_or(&[], |group| &group.task_group.tasks))
        }
        _ => None,
    }
}

fn reason_of(operation: &Operation) -> Reason {
    match operation.r#type() {
        Type::LaunchGroup => Reason::TaskGroupInvalid,
        _ => Reason::TaskInvalid,
    }
}

/// Reads a task's resources, and fills in what older frameworks leave out.
fn read_launch(
    framework: &FrameworkId,
    accepted: &Accepted,
    mut task: TaskInfo,
) -> Result<Launch, tepui_api::resources::ResourceError> {
    let resources = read_resources(&mut task.resources, accepted)?;
    let mut executor_resources = Resources::new();
    if let Some(executor) = &mut task.executor {
        executor_resources = read_resources(&mut executor.resources, accepted)?;
        executor.framework_id.get_or_insert_with(|| framework.clone());
    }
    if let Some(check) = &mut task.health_check {
        guess_type(check);
    }
    Ok(Launch { task, resources, executor_resources })
}

fn read_group(
    accepted: &Accepted,
    operation: tepui_api::v1::offer::operation::LaunchGroup,
) -> Result<GroupLaunch, tepui_api::resources::ResourceError> {
    let (mut executor, mut group) = (operation.executor, operation.task_group);
    let executor_resources = read_resources(&mut executor.resources, accepted)?;
    let mut resources = Vec::with_capacity(group.tasks.len());
    for task in &mut group.tasks {
        resources.push(read_resources(&mut task.resources, accepted)?);
        let own: &mut ExecutorInfo = task.executor.get_or_insert_with(|| executor.clone());
        read_resources(&mut own.resources, accepted)?;
    }
    Ok(GroupLaunch { executor, executor_resources, group, resources })
}

/// Reads resources, and marks those that are not marked with the role of the offers.
fn read_resources(
    wire: &mut Vec<Resource>,
    accepted: &Accepted,
) -> Result<Resources, tepui_api::resources::ResourceError> {
    for resource in wire.iter_mut() {
        let allocation = resource.allocation_info.get_or_insert_with(AllocationInfo::default);
        allocation.role.get_or_insert_with(|| accepted.role.clone());
    }
    let resources = Resources::from_wire(wire)?;
    *wire = resources.to_wire();
    Ok(resources)
}

/// The type of a health check was optional once.
fn guess_type(check: &mut HealthCheck) {
    if check.r#type.is_some() {
        return;
    }
    match (&check.command, &check.http) {
        (Some(_), None) => check.set_type(health_check::Type::Command),
        (None, Some(_)) => check.set_type(health_check::Type::Http),
        _ => {}
    }
}
