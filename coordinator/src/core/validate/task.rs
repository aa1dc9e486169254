//! Tasks that a framework wants to launch.

use tepui_api::resources::{Resources, Scalar, UseError};
use tepui_api::v1::agent_info::capability::Type as AgentCapability;
use tepui_api::v1::{ContainerInfo, ExecutorInfo, TaskInfo, executor_info};

use super::super::agent::Agent;
use super::super::framework::Framework;
use super::IdError;
use super::checks::{CheckError, CommandError, validate_check, validate_command, validate_health_check};
use super::container::{self, ContainerError};
use super::executor::{self, ExecutorError};

/// Why a task cannot be launched.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum TaskError {
    #[error("the task's id is invalid: {0}")]
    Id(#[from] IdError),
    #[error("Task has duplicate ID: {0}")]
    DuplicateId(String),
    #[error("the task's id '{0}' is that of a task on an unreachable agent")]
    UnreachableId(String),
    #[error("the task is for the agent '{0}', where '{1}' is expected")]
    Agent(String, String),
    #[error("the task's 'kill_policy.grace_period' must not be negative")]
    GracePeriod,
    #[error("the task's 'max_completion_time' must not be negative")]
    CompletionTime,
    #[error("the task's check is invalid: {0}")]
    Check(CheckError),
    #[error("the task's health check is invalid: {0}")]
    HealthCheck(CheckError),
    #[error("Task uses no resources")]
    NoResources,
    #[error("the task's resources cannot be used: {0}")]
    Resources(#[from] UseError),
    #[error("the task's command is invalid: {0}")]
    Command(#[from] CommandError),
    #[error("the task's container is invalid: {0}")]
    Container(#[from] ContainerError),
    #[error("the agent cannot limit the resources of a task")]
    LimitsUnsupported,
    #[error("only 'cpus' and 'mem' can be among a task's limits, not '{0}'")]
    LimitName(String),
    #[error("a task with a limit of '{0}' must have '{0}' among its resources")]
    LimitWithoutRequest(&'static str),
    #[error("the limit of '{0}' must not be below what the task's resources say")]
    LimitBelowRequest(&'static str),
    #[error("a task must have either a 'command' or an 'executor', and not both")]
    CommandOrExecutor,
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    #[error("'ExecutorInfo.type' must be CUSTOM")]
    ExecutorType,
    #[error("'ExecutorInfo.command' must be set")]
    ExecutorCommand,
    #[error("the executor's resources must not be shared ones")]
    SharedExecutorResources,
    #[error("'share_cgroups' cannot be true on the container of an executor")]
    ExecutorSharesCgroups,
    #[error("the resources of the task and of its executor overlap")]
    Overlap,
    #[error("the task and its executor need {needed}, more than the {available} that are available")]
    TooMuch {
        /// By both.
        needed: String,
        /// In the offers, after earlier tasks.
        available: String,
    },
    #[error("only the tasks of a group can have 'share_cgroups' set to false")]
    OwnCgroups,
}

/// A task to launch, with its resources read.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    pub(crate) task: TaskInfo,
    pub(crate) resources: Resources,
    /// Those of the executor it brings.
    pub(crate) executor_resources: Resources,
}

/// Checks a task against the framework, the agent, and what is left of the offers.
pub(crate) fn validate(
    launch: &Launch,
    framework: &Framework,
    agent: &Agent,
    available: &Resources,
) -> Result<(), TaskError> {
    validate_alone(&launch.task, &launch.resources, framework, agent)?;
    validate_executor(launch, framework, agent, available)?;
    if share_cgroups(launch.task.container.as_ref()) == Some(false) {
        return Err(TaskError::OwnCgroups);
    }
    Ok(())
}

/// What `share_cgroups` says, if it is there.
pub(super) fn share_cgroups(container: Option<&ContainerInfo>) -> Option<bool> {
    container?.linux_info.as_ref()?.share_cgroups
}

/// Checks everything but the executor and whether there is enough.
pub(super) fn validate_alone(
    task: &TaskInfo,
    resources: &Resources,
    framework: &Framework,
    agent: &Agent,
) -> Result<(), TaskError> {
    super::id(&task.task_id.value)?;
    if framework.tasks.contains_key(&task.task_id) {
        return Err(TaskError::DuplicateId(task.task_id.value.clone()));
    }
    if framework.unreachable_tasks.contains(&task.task_id) {
        return Err(TaskError::UnreachableId(task.task_id.value.clone()));
    }
    if task.agent_id != agent.id {
        return Err(TaskError::Agent(task.agent_id.value.clone(), agent.id.value.clone()));
    }
    let grace_period = task.kill_policy.as_ref().and_then(|policy| policy.grace_period);
    if grace_period.is_some_and(|period| period.nanoseconds < 0) {
        return Err(TaskError::GracePeriod);
    }
    if task.max_completion_time.is_some_and(|time| time.nanoseconds < 0) {
        return Err(TaskError::CompletionTime);
    }
    task.check.iter().try_for_each(validate_check).map_err(TaskError::Check)?;
    task.health_check.iter().try_for_each(validate_health_check).map_err(TaskError::HealthCheck)?;
    if task.resources.is_empty() {
        return Err(TaskError::NoResources);
    }
    resources.check_use()?;
    resources.check_persistence_ids()?;
    resources.allocation_role()?;
    resources.check_revocable()?;
    task.command.iter().try_for_each(validate_command)?;
    task.container.iter().try_for_each(container::validate)?;
    validate_limits(task, resources, agent)
}

fn validate_limits(task: &TaskInfo, resources: &Resources, agent: &Agent) -> Result<(), TaskError> {
    if task.limits.is_empty() {
        return Ok(());
    }
    if !agent.has(AgentCapability::TaskResourceLimits) {
        return Err(TaskError::LimitsUnsupported);
    }
    if let Some(other) = task.limits.keys().find(|name| *name != "cpus" && *name != "mem") {
        return Err(TaskError::LimitName(other.clone()));
    }
    for name in ["cpus", "mem"] {
        let Some(limit) = task.limits.get(name) else { continue };
        let request = resources.scalar(name).ok_or(TaskError::LimitWithoutRequest(name))?;
        // An infinite limit is none.
        if limit.value < request.as_f64() {
            return Err(TaskError::LimitBelowRequest(name));
        }
    }
    Ok(())
}

fn validate_executor(
    launch: &Launch,
    framework: &Framework,
    agent: &Agent,
    available: &Resources,
) -> Result<(), TaskError> {
    let task = &launch.task;
    if task.executor.is_some() == task.command.is_some() {
        return Err(TaskError::CommandOrExecutor);
    }
    let mut needed = launch.resources.clone();
    if let Some(info) = &task.executor {
        validate_custom_executor(info, &launch.executor_resources, framework, agent)?;
        if !framework.executors.contains_key(&(agent.id.clone(), info.executor_id.clone())) {
            needed += &launch.executor_resources;
        }
        let together = &launch.resources + &launch.executor_resources;
        together.check_use()?;
        if overlap([&launch.resources, &launch.executor_resources]) {
            return Err(TaskError::Overlap);
        }
        together.check_persistence_ids()?;
        together.check_revocable()?;
    }
    if !available.contains(&needed) {
        return Err(TaskError::TooMuch { needed: needed.to_string(), available: available.to_string() });
    }
    Ok(())
}

fn validate_custom_executor(
    info: &ExecutorInfo,
    resources: &Resources,
    framework: &Framework,
    agent: &Agent,
) -> Result<(), TaskError> {
    executor::validate(info, resources, framework, &agent.id)?;
    if info.r#type.is_some() && info.r#type() != executor_info::Type::Custom {
        return Err(TaskError::ExecutorType);
    }
    if info.command.is_none() {
        return Err(TaskError::ExecutorCommand);
    }
    if !resources.shared().is_empty() {
        return Err(TaskError::SharedExecutorResources);
    }
    if share_cgroups(info.container.as_ref()) == Some(true) {
        return Err(TaskError::ExecutorSharesCgroups);
    }
    Ok(())
}

/// Whether ranges or sets in these have something in common: then their sum is less than all of them.
pub(super) fn overlap<'a>(all: impl IntoIterator<Item = &'a Resources>) -> bool {
    let mut quantities = tepui_api::resources::ResourceQuantities::new();
    let mut sum = Resources::new();
    for resources in all {
        quantities += &resources.to_quantities();
        sum += resources;
    }
    quantities != sum.to_quantities()
}

/// Below this, in CPUs, no executor of a group is run.
pub(super) const MINIMUM_CPUS: Scalar = Scalar::from_thousandths(10);
/// Below this, in megabytes, no executor of a group is run.
pub(super) const MINIMUM_MEM: Scalar = Scalar::from_units(32);
