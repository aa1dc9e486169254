//! The task that `tepui run` launches, as the API describes it, and how its end becomes an exit code.

use tepui_api::v1;

use super::args::RunArgs;

/// Exit code when the task did not end by its own doing.
const EXIT_NOT_RUN: i32 = super::EXIT_NOT_RUN as i32;
/// Exit code after Ctrl-C.
pub const EXIT_INTERRUPTED: i32 = 130;

/// Why a task cannot be described.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// `--env=NAME` of a variable that is not there.
    #[error("--env={0}: this shell has no variable {0}; give a value as --env={0}=VALUE")]
    NoSuchVariable(String),
    /// `--env==x`.
    #[error("--env={0}: a variable needs a name, as in --env=NAME=VALUE")]
    NoName(String),
}

/// What every instance has in common; its id, agent and resources come with an offer.
///
/// # Errors
/// When `--env` makes no sense.
pub fn template(args: &RunArgs, name: &str) -> Result<v1::TaskInfo, TaskError> {
    let variables = args.env.iter().map(|given| variable(given)).collect::<Result<Vec<_>, _>>()?;
    let (value, arguments) = match args.command.first() {
        Some(program) => (Some(program.clone()), args.command.clone()),
        None => (None, Vec::new()),
    };
    let command = v1::CommandInfo {
        shell: Some(false),
        value,
        arguments,
        user: args.user.clone(),
        environment: (!variables.is_empty()).then_some(v1::Environment { variables }),
        ..Default::default()
    };
    Ok(v1::TaskInfo {
        name: name.to_owned(),
        command: Some(command),
        container: args.image.as_deref().map(container),
        ..Default::default()
    })
}

fn variable(given: &str) -> Result<v1::environment::Variable, TaskError> {
    let (name, value) = match given.split_once('=') {
        Some((name, value)) => (name, value.to_owned()),
        None => {
            let value = std::env::var(given).map_err(|_| TaskError::NoSuchVariable(given.to_owned()))?;
            (given, value)
        }
    };
    if name.is_empty() {
        return Err(TaskError::NoName(given.to_owned()));
    }
    Ok(v1::environment::Variable { name: name.to_owned(), value: Some(value), ..Default::default() })
}

fn container(image: &str) -> v1::ContainerInfo {
    let docker = v1::image::Docker { name: image.to_owned(), ..Default::default() };
    let image =
        v1::Image { r#type: v1::image::Type::Docker as i32, docker: Some(docker), ..Default::default() };
    v1::ContainerInfo {
        r#type: v1::container_info::Type::Mesos as i32,
        mesos: Some(v1::container_info::MesosInfo { image: Some(image) }),
        ..Default::default()
    }
}

/// Whether no further update can follow this state.
#[must_use]
pub fn is_terminal(state: v1::TaskState) -> bool {
    use v1::TaskState as S;
    !matches!(
        state,
        S::TaskStaging
            | S::TaskStarting
            | S::TaskRunning
            | S::TaskKilling
            | S::TaskUnreachable
            | S::TaskUnknown
    )
}

/// The exit code that tells how a task ended. The API has no field for it; executors say it in the
/// message ("Command exited with status 7", "Command terminated with signal Killed").
#[must_use]
pub fn exit_code(status: &v1::TaskStatus) -> i32 {
    if status.state() == v1::TaskState::TaskFinished {
        return 0;
    }
    let message = status.message();
    if let Some(code) = number_after(message, "exited with status ") {
        return code;
    }
    if let Some((_, signal)) = message.split_once("terminated with signal ") {
        let name = signal.split([';', ',', '(']).next().unwrap_or_default().trim();
        return number_after(message, "terminated with signal ")
            .or_else(|| signal_number(name))
            .map_or(1, |n| 128 + n);
    }
    if status.state() == v1::TaskState::TaskFailed { 1 } else { EXIT_NOT_RUN }
}

fn number_after(text: &str, mark: &str) -> Option<i32> {
    let (_, rest) = text.split_once(mark)?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// Signals by the words of strsignal(3), which executors put into their messages.
fn signal_number(words: &str) -> Option<i32> {
    const WORDS: &[(&str, i32)] = &[
        ("Hangup", 1),
        ("Interrupt", 2),
        ("Quit", 3),
        ("Illegal instruction", 4),
        ("Trace/breakpoint trap", 5),
        ("Aborted", 6),
        ("Bus error", 7),
        ("Floating point exception", 8),
        ("Killed", 9),
        ("User defined signal 1", 10),
        ("Segmentation fault", 11),
        ("User defined signal 2", 12),
        ("Broken pipe", 13),
        ("Alarm clock", 14),
        ("Terminated", 15),
        ("Bad system call", 31),
    ];
    WORDS.iter().find(|(name, _)| words.starts_with(name)).map(|(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(state: v1::TaskState, message: &str) -> i32 {
        exit_code(&v1::TaskStatus {
            state: state as i32,
            message: Some(message.to_owned()),
            ..Default::default()
        })
    }

    #[test]
    fn exit_codes_follow_the_task() {
        use v1::TaskState as S;
        assert_eq!(ended(S::TaskFinished, "Command exited with status 0"), 0);
        assert_eq!(ended(S::TaskFailed, "Command exited with status 7"), 7);
        assert_eq!(ended(S::TaskFailed, "Command terminated with signal Killed"), 137);
        assert_eq!(ended(S::TaskKilled, "Command terminated with signal Terminated"), 143);
        assert_eq!(ended(S::TaskFailed, "Memory limit exceeded"), 1);
        assert_eq!(ended(S::TaskError, "no such role"), EXIT_NOT_RUN);
    }
}
