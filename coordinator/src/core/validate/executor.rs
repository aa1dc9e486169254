//! Executors that tasks bring along.

use tepui_api::resources::{Resources, UseError};
use tepui_api::v1::executor_info::Type;
use tepui_api::v1::{AgentId, ExecutorInfo, container_info};

use super::super::framework::Framework;
use super::IdError;
use super::checks::{CommandError, validate_command};
use super::container::{self, ContainerError};

/// Why an executor cannot be run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum ExecutorError {
    #[error("an executor of type DEFAULT must not have a 'command'")]
    DefaultCommand,
    #[error("the container of an executor of type DEFAULT must be of type MESOS")]
    DefaultContainer,
    #[error("the container of an executor of type DEFAULT must not have an image")]
    DefaultImage,
    #[error("an executor of type CUSTOM must have a 'command'")]
    CustomCommand,
    #[error("the executor's id is invalid: {0}")]
    Id(#[from] IdError),
    #[error("the executor's 'shutdown_grace_period' must not be negative")]
    GracePeriod,
    #[error("the executor's command is invalid: {0}")]
    Command(#[from] CommandError),
    #[error("the executor's container is invalid: {0}")]
    Container(#[from] ContainerError),
    #[error("'ExecutorInfo.framework_id' must be set")]
    NoFramework,
    #[error("'ExecutorInfo.framework_id' is '{0}', where '{1}' is expected")]
    OtherFramework(String, String),
    #[error("the executor's resources cannot be used: {0}")]
    Resources(#[from] UseError),
    #[error("the executor '{0}' runs already on this agent, and this ExecutorInfo differs from its own")]
    Incompatible(String),
}

/// Checks an executor; `resources` are those it has, already read.
pub(crate) fn validate(
    executor: &ExecutorInfo,
    resources: &Resources,
    framework: &Framework,
    agent: &AgentId,
) -> Result<(), ExecutorError> {
    validate_type(executor)?;
    super::id(&executor.executor_id.value)?;
    if executor.shutdown_grace_period.is_some_and(|period| period.nanoseconds < 0) {
        return Err(ExecutorError::GracePeriod);
    }
    if let Some(command) = &executor.command {
        validate_command(command)?;
    }
    if let Some(container) = &executor.container {
        container::validate(container)?;
    }
    match &executor.framework_id {
        None => return Err(ExecutorError::NoFramework),
        Some(id) if *id != framework.id => {
            return Err(ExecutorError::OtherFramework(id.value.clone(), framework.id.value.clone()));
        }
        Some(_) => {}
    }
    resources.check_use()?;
    resources.check_persistence_ids()?;
    resources.allocation_role()?;
    resources.check_revocable()?;
    match framework.executors.get(&(agent.clone(), executor.executor_id.clone())) {
        Some(running) if **running != *executor => {
            Err(ExecutorError::Incompatible(executor.executor_id.value.clone()))
        }
        _ => Ok(()),
    }
}

fn validate_type(executor: &ExecutorInfo) -> Result<(), ExecutorError> {
    match executor.r#type() {
        Type::Default => {
            if executor.command.is_some() {
                return Err(ExecutorError::DefaultCommand);
            }
            if let Some(container) = &executor.container {
                if container.r#type() != container_info::Type::Mesos {
                    return Err(ExecutorError::DefaultContainer);
                }
                if container.mesos.as_ref().is_some_and(|mesos| mesos.image.is_some()) {
                    return Err(ExecutorError::DefaultImage);
                }
            }
            Ok(())
        }
        Type::Custom if executor.command.is_none() => Err(ExecutorError::CustomCommand),
        Type::Custom | Type::Unknown => Ok(()),
    }
}
