//! What agents say when they register.

use std::collections::BTreeSet;

use tepui_api::link::Register;
use tepui_api::resources::{ResourceError, Resources};

use super::IdError;
use super::framework::FrameworkError;

/// Why an agent cannot register so.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum RegisterError {
    #[error("the agent's id is invalid: {0}")]
    Id(#[from] IdError),
    #[error("the agent's resources are invalid: {0}")]
    Resources(#[from] ResourceError),
    #[error("the framework '{0}' is there twice")]
    DuplicateFramework(String),
    #[error("a framework must have an id")]
    FrameworkId,
    #[error("the framework '{0}' is invalid: {1}")]
    Framework(String, FrameworkError),
    #[error("the task '{0}' is there twice")]
    DuplicateTask(String),
    #[error("the task '{0}' has a framework that is not there")]
    TaskFramework(String),
    #[error("the task '{0}' says that it is on another agent")]
    TaskAgent(String),
    #[error("the executor '{0}' is there twice")]
    DuplicateExecutor(String),
    #[error("the executor '{0}' has a framework that is not there")]
    ExecutorFramework(String),
}

/// Checks all that an agent says of itself.
pub(crate) fn validate(register: &Register) -> Result<(), RegisterError> {
    if let Some(id) = &register.agent.id {
        super::id(&id.value)?;
    }
    Resources::from_wire(&register.agent.resources)?;
    Resources::from_wire(&register.checkpointed_resources)?;
    let mut frameworks = BTreeSet::new();
    for info in &register.frameworks {
        let id = info.id.as_ref().filter(|id| !id.value.is_empty()).ok_or(RegisterError::FrameworkId)?;
        super::framework::validate(info, None)
            .map_err(|error| RegisterError::Framework(id.value.clone(), error))?;
        if !frameworks.insert(id) {
            return Err(RegisterError::DuplicateFramework(id.value.clone()));
        }
    }
    let mut tasks = BTreeSet::new();
    for task in &register.tasks {
        let name = || task.task_id.value.clone();
        Resources::from_wire(&task.resources)?;
        if !frameworks.contains(&task.framework_id) {
            return Err(RegisterError::TaskFramework(name()));
        }
        if register.agent.id.as_ref() != Some(&task.agent_id) {
            return Err(RegisterError::TaskAgent(name()));
        }
        if !tasks.insert((&task.framework_id, &task.task_id)) {
            return Err(RegisterError::DuplicateTask(name()));
        }
    }
    let mut executors = BTreeSet::new();
    for executor in &register.executors {
        let name = || executor.executor_id.value.clone();
        Resources::from_wire(&executor.resources)?;
        let framework = executor.framework_id.as_ref().filter(|id| frameworks.contains(id));
        let framework = framework.ok_or_else(|| RegisterError::ExecutorFramework(name()))?;
        if !executors.insert((framework, &executor.executor_id)) {
            return Err(RegisterError::DuplicateExecutor(name()));
        }
    }
    Ok(())
}
