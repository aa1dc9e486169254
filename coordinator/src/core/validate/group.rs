//! Groups of tasks that are launched together, or not at all.

use tepui_api::resources::{Resources, UseError};
use tepui_api::v1::{
    ContainerInfo, ExecutorInfo, TaskGroupInfo, TaskInfo, container_info, executor_info, health_check,
};

use super::super::agent::Agent;
use super::super::framework::{Framework, sum};
use super::executor::{self, ExecutorError};
use super::task::{MINIMUM_CPUS, MINIMUM_MEM, TaskError, overlap, share_cgroups, validate_alone};

/// Why a group cannot be launched.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum GroupError {
    #[error("the task '{0}' is invalid: {1}")]
    Task(String, TaskError),
    #[error("the task '{0}' is invalid: 'TaskInfo.executor' must be set")]
    TaskExecutor(String),
    #[error("the task '{0}' is invalid: HTTP and TCP health checks need the network of the group")]
    TaskHealthCheck(String),
    #[error("the task '{0}' is invalid: its container cannot be of type DOCKER")]
    TaskDocker(String),
    #[error("the task '{0}' is invalid: limits need 'share_cgroups' to be false")]
    TaskLimits(String),
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    #[error("'ExecutorInfo.type' must be set, to DEFAULT or CUSTOM")]
    ExecutorType,
    #[error("the executor's container cannot be of type DOCKER")]
    ExecutorDocker,
    #[error("the executor of the task '{0}' differs from that of its group")]
    ExecutorsDiffer(String),
    #[error("the executor must have at least {0} {1}")]
    ExecutorResources(String, &'static str),
    #[error("the resources of the tasks and of their executor cannot be used together: {0}")]
    Resources(#[from] UseError),
    #[error("the resources of the tasks and of their executor overlap")]
    Overlap,
    #[error("the group and its executor need {needed}, more than the {available} that are available")]
    TooMuch {
        /// By all.
        needed: String,
        /// In the offers, after earlier tasks.
        available: String,
    },
    #[error("'share_cgroups' cannot be true on the container of an executor")]
    ExecutorSharesCgroups,
    #[error("'share_cgroups' must be the same for all tasks of one executor")]
    ShareCgroupsDiffer,
}

/// A group to launch, with its resources read.
#[derive(Debug, Clone)]
pub(crate) struct GroupLaunch {
    pub(crate) executor: ExecutorInfo,
    pub(crate) executor_resources: Resources,
    pub(crate) group: TaskGroupInfo,
    /// In the order of the group's tasks.
    pub(crate) resources: Vec<Resources>,
}

/// Checks a group against the framework, the agent, and what is left of the offers.
pub(crate) fn validate(
    launch: &GroupLaunch,
    framework: &Framework,
    agent: &Agent,
    available: &Resources,
) -> Result<(), GroupError> {
    for (task, resources) in launch.group.tasks.iter().zip(&launch.resources) {
        validate_task(task, resources, framework, agent)?;
    }
    validate_executor(launch, framework, agent, available)?;
    validate_cgroups(launch, framework, agent)
}

fn validate_task(
    task: &TaskInfo,
    resources: &Resources,
    framework: &Framework,
    agent: &Agent,
) -> Result<(), GroupError> {
    let name = || task.task_id.value.clone();
    validate_alone(task, resources, framework, agent).map_err(|error| GroupError::Task(name(), error))?;
    if task.executor.is_none() {
        return Err(GroupError::TaskExecutor(name()));
    }
    if let Some(container) = &task.container {
        let check = task.health_check.as_ref().map(|check| check.r#type());
        if !container.network_infos.is_empty()
            && matches!(check, Some(health_check::Type::Http | health_check::Type::Tcp))
        {
            return Err(GroupError::TaskHealthCheck(name()));
        }
        if container.r#type() == container_info::Type::Docker {
            return Err(GroupError::TaskDocker(name()));
        }
    }
    if !task.limits.is_empty() && share_cgroups(task.container.as_ref()) != Some(false) {
        return Err(GroupError::TaskLimits(name()));
    }
    Ok(())
}

fn validate_executor(
    launch: &GroupLaunch,
    framework: &Framework,
    agent: &Agent,
    available: &Resources,
) -> Result<(), GroupError> {
    let (executor, resources) = (&launch.executor, &launch.executor_resources);
    executor::validate(executor, resources, framework, &agent.id)?;
    if executor.r#type() == executor_info::Type::Unknown {
        return Err(GroupError::ExecutorType);
    }
    let docker = |container: &ContainerInfo| container.r#type() == container_info::Type::Docker;
    if executor.container.as_ref().is_some_and(docker) {
        return Err(GroupError::ExecutorDocker);
    }
    let other =
        launch.group.tasks.iter().find(|task| task.executor.as_ref().is_some_and(|own| own != executor));
    if let Some(task) = other {
        return Err(GroupError::ExecutorsDiffer(task.task_id.value.clone()));
    }
    if resources.cpus().is_none_or(|cpus| cpus < MINIMUM_CPUS) {
        return Err(GroupError::ExecutorResources(MINIMUM_CPUS.to_string(), "cpus"));
    }
    if resources.scalar("mem").is_none_or(|mem| mem < MINIMUM_MEM) {
        return Err(GroupError::ExecutorResources(MINIMUM_MEM.to_string(), "MB of mem"));
    }
    if resources.disk().is_none() {
        return Err(GroupError::ExecutorResources("some".into(), "disk"));
    }
    let tasks = sum(&launch.resources);
    let together = &tasks + resources;
    together.check_persistence_ids()?;
    together.check_revocable()?;
    if overlap(launch.resources.iter().chain([resources])) {
        return Err(GroupError::Overlap);
    }
    let runs = framework.executors.contains_key(&(agent.id.clone(), executor.executor_id.clone()));
    let needed = if runs { tasks } else { together };
    if !available.contains(&needed) {
        return Err(GroupError::TooMuch { needed: needed.to_string(), available: available.to_string() });
    }
    Ok(())
}

fn validate_cgroups(launch: &GroupLaunch, framework: &Framework, agent: &Agent) -> Result<(), GroupError> {
    let executor = &launch.executor;
    if share_cgroups(executor.container.as_ref()) == Some(true) {
        return Err(GroupError::ExecutorSharesCgroups);
    }
    let shares = |container: &Option<ContainerInfo>| share_cgroups(container.as_ref()).unwrap_or(true);
    let Some(first) = launch.group.tasks.first() else { return Ok(()) };
    let expected = shares(&first.container);
    let mut others: Vec<bool> = launch.group.tasks.iter().map(|task| shares(&task.container)).collect();
    if framework.executors.contains_key(&(agent.id.clone(), executor.executor_id.clone())) {
        let known = framework.tasks.values().chain(framework.unreachable_tasks.iter());
        let same = known.filter(|task| {
            task.agent_id == agent.id && task.executor_id.as_ref() == Some(&executor.executor_id)
        });
        others.extend(same.map(|task| shares(&task.container)));
    }
    if others.into_iter().any(|other| other != expected) {
        return Err(GroupError::ShareCgroupsDiffer);
    }
    Ok(())
}
