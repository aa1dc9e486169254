//! What a task may ask for that this agent cannot do yet. Such a task is answered with words; it is
//! never run without what it asked for.

use tepui_api::v1::{ContainerInfo, ExecutorInfo, FrameworkInfo, TaskInfo};

use super::checks;
use super::pods::is_pod;
use crate::sandbox::paths;

/// Why this task is refused.
#[must_use]
pub fn of_task(task: &TaskInfo) -> Option<String> {
    if !paths::is_component(&task.task_id.value) {
        return Some("the task's id cannot name a directory".to_owned());
    }
    match &task.executor {
        Some(executor) => of_executor(executor).or_else(|| of_program(task).filter(|_| is_pod(executor))),
        None => of_program(task),
    }
}

/// Why a task is refused that the agent runs itself.
fn of_program(task: &TaskInfo) -> Option<String> {
    let Some(command) = &task.command else {
        return Some("the task has no command".to_owned());
    };
    if command.value.as_deref().unwrap_or_default().is_empty()
        && (command.shell() || !task.container.as_ref().is_some_and(has_image))
    {
        return Some(
            if command.shell() {
                "the task's shell command has no value"
            } else {
                "the task names no executable, and no image that might have one"
            }
            .to_owned(),
        );
    }
    checks::refusal(task)
}

/// Why an executor is refused.
#[must_use]
pub fn of_executor(executor: &ExecutorInfo) -> Option<String> {
    if !paths::is_component(&executor.executor_id.value) {
        return Some("the executor's id cannot name a directory".to_owned());
    }
    if is_pod(executor) {
        return None;
    }
    let Some(command) = &executor.command else {
        return Some("the executor has no command".to_owned());
    };
    if command.value.as_deref().unwrap_or_default().is_empty()
        && (command.shell() || !executor.container.as_ref().is_some_and(has_image))
    {
        return Some("the executor's command has no value".to_owned());
    }
    None
}

fn has_image(container: &ContainerInfo) -> bool {
    container.mesos.is_some() || container.docker.is_some()
}

/// Who a task runs as: whom its command names, else its framework's user.
#[must_use]
pub fn user_of(framework: &FrameworkInfo, task: &TaskInfo) -> String {
    let named = task.command.as_ref().and_then(|command| command.user.clone());
    named.unwrap_or_else(|| framework.user.clone())
}

/// Who an executor runs as: whom its command names, else its framework's user.
#[must_use]
pub fn user_of_executor(framework: &FrameworkInfo, executor: &ExecutorInfo) -> String {
    let named = executor.command.as_ref().and_then(|command| command.user.clone());
    named.unwrap_or_else(|| framework.user.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tepui_api::v1::container_info::DockerInfo;
    use tepui_api::v1::{CommandInfo, HealthCheck};

    fn task(command: CommandInfo) -> TaskInfo {
        TaskInfo { task_id: "t".into(), command: Some(command), ..TaskInfo::default() }
    }

    fn shell(value: &str) -> CommandInfo {
        CommandInfo { value: Some(value.into()), ..CommandInfo::default() }
    }

    #[test]
    fn a_plain_command_is_taken_and_the_rest_is_named() {
        assert_eq!(of_task(&task(shell("true"))), None);
        let bare = TaskInfo { task_id: "t".into(), ..TaskInfo::default() };
        assert!(of_task(&bare).unwrap().contains("no command"));
        assert!(of_task(&task(CommandInfo::default())).unwrap().contains("no value"));
        for id in ["", ".", "..", "a/b", "/etc"] {
            let outside = TaskInfo { task_id: id.into(), ..task(shell("true")) };
            assert!(of_task(&outside).unwrap().contains("directory"), "{id}");
        }
        let checked = TaskInfo { health_check: Some(HealthCheck::default()), ..task(shell("true")) };
        assert!(of_task(&checked).unwrap().contains("health check has no type"));
        let words = CommandInfo { shell: Some(false), ..CommandInfo::default() };
        assert!(of_task(&task(words.clone())).unwrap().contains("no image"));
        let docker = ContainerInfo { docker: Some(DockerInfo::default()), ..ContainerInfo::default() };
        assert_eq!(of_task(&TaskInfo { container: Some(docker), ..task(words) }), None);
    }

    #[test]
    fn the_command_s_user_comes_before_the_framework_s() {
        let framework = FrameworkInfo { user: "a".into(), ..FrameworkInfo::default() };
        assert_eq!(user_of(&framework, &task(shell("true"))), "a");
        let named = CommandInfo { user: Some("b".into()), ..shell("true") };
        assert_eq!(user_of(&framework, &task(named)), "b");
    }
}
