//! What becomes of containers' output: `--container_logger`, and what a task says of its own.
//!
//! By default a container writes into the files of its sandbox itself. With the rotating logger it writes into pipes; its shim, or who copies its output
//! from a Docker engine, keeps the files small. The words are those of Mesos' module `org_apache_mesos_LogrotateContainerLogger`.

use tepui_api::units::{Bytes, UnitError};
use tepui_api::v1::{CommandInfo, environment};
use tepui_shim::{LogLimits, Rotation};

/// Before the names of variables by which a task changes how its output is rotated.
pub const PREFIX: &str = "CONTAINER_LOGGER_";
/// The least size of a file, as in Mesos: a page.
const LEAST: u64 = 4096;

/// How the rotating logger rotates, unless a task says otherwise.
pub const DEFAULT: Rotation = {
    // As in Mesos, and as logrotate does it when it is not told to keep any.
    let limits = LogLimits { max_size: 10 << 20, keep: 0 };
    Rotation { stdout: limits, stderr: limits }
};

/// Why output cannot be rotated so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoggerError {
    /// Not an amount.
    #[error("{name}: {source}")]
    Size {
        /// Of what.
        name: String,
        /// Why.
        source: UnitError,
    },
    /// Less than a page.
    #[error("{0} must be at least 4096 bytes")]
    Small(String),
    /// Not a setting of the logger.
    #[error(
        "the container logger has no setting '{0}'; it has max_stdout_size, max_stderr_size, logrotate_stdout_options and logrotate_stderr_options"
    )]
    Unknown(String),
    /// Something that logrotate knows.
    #[error(
        "{name}: '{option}' is not supported: say 'rotate N' to keep N former files; they are not compressed, mailed or run programs for"
    )]
    Option {
        /// Of which output.
        name: String,
        /// Which.
        option: String,
    },
}

/// Applies a setting, by its name in Mesos' module.
///
/// # Errors
/// When there is no such setting, or its value makes no sense.
pub fn set(rotation: &mut Rotation, name: &str, value: &str) -> Result<(), LoggerError> {
    match name {
        "max_stdout_size" => rotation.stdout.max_size = size(name, value)?,
        "max_stderr_size" => rotation.stderr.max_size = size(name, value)?,
        "logrotate_stdout_options" => rotation.stdout.keep = keep(name, value)?,
        "logrotate_stderr_options" => rotation.stderr.keep = keep(name, value)?,
        _ => return Err(LoggerError::Unknown(name.to_owned())),
    }
    Ok(())
}

/// How the output of a container with this command is rotated.
///
/// # Errors
/// When the command's variables make no sense.
pub(super) fn of_command(agent: &Rotation, command: &CommandInfo) -> Result<Rotation, LoggerError> {
    let mut rotation = *agent;
    for variable in command.environment.iter().flat_map(|environment| &environment.variables) {
        if let Some(name) = variable.name.strip_prefix(PREFIX)
            && variable.r#type() == environment::variable::Type::Value
        {
            set(&mut rotation, &name.to_ascii_lowercase(), variable.value())?;
        }
    }
    Ok(rotation)
}

fn size(name: &str, value: &str) -> Result<u64, LoggerError> {
    let parsed = value.trim().parse::<Bytes>();
    let Bytes(size) = parsed.map_err(|source| LoggerError::Size { name: name.to_owned(), source })?;
    if size < LEAST { Err(LoggerError::Small(name.to_owned())) } else { Ok(size) }
}

/// Reads what would be the body of a configuration of logrotate, as far as it means something here.
fn keep(name: &str, options: &str) -> Result<u32, LoggerError> {
    let mut keep = 0;
    for line in options.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let refused = || LoggerError::Option { name: name.to_owned(), option: line.to_owned() };
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["rotate", count] => keep = count.parse().map_err(|_| refused())?,
            // How it is anyway. The size is the logger's own affair.
            ["size", _]
            | ["nocompress" | "missingok" | "nomissingok" | "nomail" | "nocopytruncate" | "nocopy"] => {}
            ["notifempty" | "ifempty" | "create" | "nodateext" | "nosharedscripts"] => {}
            _ => return Err(refused()),
        }
    }
    Ok(keep)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tepui_api::v1::Environment;

    fn command(variables: &[(&str, &str)]) -> CommandInfo {
        let variable = |(name, value): &(&str, &str)| environment::Variable {
            name: (*name).to_owned(),
            value: Some((*value).to_owned()),
            ..environment::Variable::default()
        };
        let variables = variables.iter().map(variable).collect();
        CommandInfo { environment: Some(Environment { variables }), ..CommandInfo::default() }
    }

    #[test]
    fn a_task_changes_what_it_names() {
        let given = command(&[
            ("MAX_STDOUT_SIZE", "1B"),
            ("CONTAINER_LOGGER_MAX_STDOUT_SIZE", "5KB"),
            ("CONTAINER_LOGGER_LOGROTATE_STDERR_OPTIONS", "rotate 9\n  missingok\n# a comment\n"),
        ]);
        let rotation = of_command(&DEFAULT, &given).unwrap();
        assert_eq!(rotation.stdout, LogLimits { max_size: 5 << 10, keep: 0 });
        assert_eq!(rotation.stderr, LogLimits { max_size: 10 << 20, keep: 9 });
        assert_eq!(of_command(&DEFAULT, &CommandInfo::default()).unwrap(), DEFAULT);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_words() {
        for (name, value, words) in [
            ("MAX_STDOUT_SIZE", "large", "max_stdout_size: 'large' is no amount"),
            ("MAX_STDERR_SIZE", "4095B", "at least 4096"),
            ("LOGROTATE_STDOUT_OPTIONS", "rotate 3\ncompress", "'compress' is not supported"),
            ("LOGROTATE_STDOUT_OPTIONS", "rotate many", "'rotate many' is not supported"),
            ("ROTATE", "1", "no setting 'rotate'"),
        ] {
            let given = command(&[(&format!("{PREFIX}{name}"), value)]);
            let error = of_command(&DEFAULT, &given).unwrap_err().to_string();
            assert!(error.contains(words), "{name}={value}: {error}");
        }
    }
}
