//! How command tasks' executors are shown. No such process exists; Mesos has one for each command task, and tools that list
//! executors look for it.

use tepui_api::v1::{CommandInfo, ContainerId, ExecutorId, ExecutorInfo, FrameworkId, TaskInfo};

use crate::core::{CompletedTask, Snapshot, Task};

/// The start of a command that Mesos shows of a command executor is this long at most, in bytes.
const SHOWN: usize = 15;

/// An executor and the task that it stands for, alive or over.
#[derive(Debug, Clone, Copy)]
pub(super) enum Entry<'a> {
    /// Its task has something here.
    Active(&'a Task),
    /// Its task is history.
    Completed(&'a CompletedTask),
}

// === impl Entry ===

impl<'a> Entry<'a> {
    /// All executors of a snapshot, those of a framework together.
    pub(super) fn all(snapshot: &'a Snapshot) -> impl Iterator<Item = (&'a FrameworkId, Entry<'a>)> {
        let frameworks = &snapshot.frameworks;
        frameworks.active.values().chain(&frameworks.completed).flat_map(|framework| {
            let id = framework.info.id.as_ref();
            let active = framework.tasks.values().map(|task| Entry::Active(task));
            let completed = framework.completed.iter().map(|task| Entry::Completed(task));
            active.chain(completed).filter_map(move |entry| Some((id?, entry)))
        })
    }

    /// Whether it stands for a command task, which has no executor of its framework's own.
    pub(super) fn is_command_task(&self) -> bool {
        self.info().executor.is_none()
    }

    pub(super) fn info(&self) -> &'a TaskInfo {
        match self {
            Entry::Active(task) => &task.info,
            Entry::Completed(task) => &task.info,
        }
    }

    pub(super) fn shown(&self) -> &'a tepui_api::v1::Task {
        match self {
            Entry::Active(task) => &task.shown,
            Entry::Completed(task) => &task.shown,
        }
    }

    pub(super) fn container(&self) -> &'a ContainerId {
        match self {
            Entry::Active(task) => &task.container,
            Entry::Completed(task) => &task.container,
        }
    }

    pub(super) fn directory(&self) -> &'a std::path::Path {
        match self {
            Entry::Active(task) => &task.directory,
            Entry::Completed(task) => &task.directory,
        }
    }

    /// The executor as the API shows it.
    pub(super) fn executor(&self, framework: &FrameworkId) -> ExecutorInfo {
        let task = self.info();
        if let Some(executor) = &task.executor {
            return executor.clone();
        }
        ExecutorInfo {
            executor_id: ExecutorId::new(task.task_id.value.clone()),
            framework_id: Some(framework.clone()),
            command: Some(CommandInfo {
                shell: Some(false),
                value: Some("tepui".to_owned()),
                arguments: vec!["tepui".to_owned(), "agent".to_owned()],
                ..CommandInfo::default()
            }),
            container: task.container.clone(),
            name: Some(name(task)),
            source: Some(task.task_id.value.clone()),
            labels: task.labels.clone(),
            discovery: task.discovery.clone(),
            ..ExecutorInfo::default()
        }
    }
}

/// The name of a command executor, in Mesos' form.
fn name(task: &TaskInfo) -> String {
    let command = task.command.clone().unwrap_or_default();
    let value = command.value.clone().unwrap_or_default();
    let shown = match (command.shell(), value.is_empty()) {
        (true, true) => "NO COMMAND".to_owned(),
        (true, false) => format!("sh -c '{}'", shorten(&value)),
        (false, true) => "NO EXECUTABLE".to_owned(),
        (false, false) => {
            let mut words = vec![value];
            words.extend(command.arguments);
            format!("[{}]", shorten(&words.join(", ")))
        }
    };
    format!("Command Executor (Task: {}) (Command: {shown})", task.task_id)
}

fn shorten(text: &str) -> String {
    if text.len() <= SHOWN {
        return text.to_owned();
    }
    format!("{}...", &text[..text.floor_char_boundary(SHOWN - 3)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_mesos() {
        let named = |shell, value: &str, arguments: &[&str]| {
            name(&TaskInfo {
                task_id: "t".into(),
                command: Some(CommandInfo {
                    shell: Some(shell),
                    value: Some(value.into()),
                    arguments: arguments.iter().map(|a| (*a).to_owned()).collect(),
                    ..CommandInfo::default()
                }),
                ..TaskInfo::default()
            })
        };
        assert_eq!(named(true, "sleep 10", &[]), "Command Executor (Task: t) (Command: sh -c 'sleep 10')");
        assert_eq!(
            named(true, "while true; do :; done", &[]),
            "Command Executor (Task: t) (Command: sh -c 'while true; ...')"
        );
        assert_eq!(
            named(false, "/bin/echo", &["echo", "ä"]),
            "Command Executor (Task: t) (Command: [/bin/echo, e...])"
        );
    }
}
