//! Checks, health checks, and the commands in them.

use tepui_api::v1::environment::variable::Type as VariableType;
use tepui_api::v1::secret::Type as SecretType;
use tepui_api::v1::{
    CheckInfo, CommandInfo, Environment, HealthCheck, Secret, check_info, environment, health_check,
};

/// Why a check or command is not valid.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum CheckError {
    #[error("it must have a known 'type': COMMAND, HTTP or TCP")]
    Type,
    #[error("with this type, '{0}' must be set")]
    Part(&'static str),
    #[error("its command must have a 'value': what the shell runs, or the path of the executable")]
    CommandValue,
    #[error("its command is invalid: {0}")]
    Command(#[from] CommandError),
    #[error("its scheme is '{0}', which must be http or https")]
    Scheme(String),
    #[error("its path '{0}' must begin with '/'")]
    Path(String),
    #[error("its '{0}' must not be negative, nor be no number")]
    Negative(&'static str),
}

/// Why a command cannot be run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("the environment variable '{0}' of type SECRET must have a 'secret', and no 'value'")]
    SecretVariable(String),
    #[error("the environment variable '{0}' of type VALUE must have a 'value', and no 'secret'")]
    ValueVariable(String),
    #[error("the environment variable '{0}' has an unknown type")]
    UnknownVariable(String),
    #[error("the environment variable '{0}' has an invalid secret: {1}")]
    Secret(String, SecretError),
    #[error("the environment variable '{0}' has a secret with a zero byte, which no environment can hold")]
    ZeroByte(String),
}

/// Why a secret is none.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum SecretError {
    #[error("of type REFERENCE, it must have a 'reference' and no 'value'")]
    Reference,
    #[error("of type VALUE, it must have a 'value' and no 'reference'")]
    Value,
}

pub(crate) fn validate_command(command: &CommandInfo) -> Result<(), CommandError> {
    command.environment.iter().try_for_each(validate_environment)
}

fn validate_environment(environment: &Environment) -> Result<(), CommandError> {
    environment.variables.iter().try_for_each(validate_variable)
}

fn validate_variable(variable: &environment::Variable) -> Result<(), CommandError> {
    let name = || variable.name.clone();
    match variable.r#type() {
        VariableType::Secret => {
            let Some(secret) = variable.secret.as_ref().filter(|_| variable.value.is_none()) else {
                return Err(CommandError::SecretVariable(name()));
            };
            validate_secret(secret).map_err(|error| CommandError::Secret(name(), error))?;
            if secret.value.as_ref().is_some_and(|value| value.data.contains(&0)) {
                return Err(CommandError::ZeroByte(name()));
            }
            Ok(())
        }
        VariableType::Value if variable.value.is_none() || variable.secret.is_some() => {
            Err(CommandError::ValueVariable(name()))
        }
        VariableType::Value => Ok(()),
        VariableType::Unknown => Err(CommandError::UnknownVariable(name())),
    }
}

fn validate_secret(secret: &Secret) -> Result<(), SecretError> {
    match secret.r#type() {
        SecretType::Reference if secret.reference.is_none() || secret.value.is_some() => {
            Err(SecretError::Reference)
        }
        SecretType::Value if secret.value.is_none() || secret.reference.is_some() => Err(SecretError::Value),
        SecretType::Reference | SecretType::Value | SecretType::Unknown => Ok(()),
    }
}

pub(crate) fn validate_health_check(check: &HealthCheck) -> Result<(), CheckError> {
    match check.r#type() {
        _ if check.r#type.is_none() => return Err(CheckError::Type),
        health_check::Type::Command => {
            validate_check_command(check.command.as_ref().ok_or(CheckError::Part("command"))?)?;
        }
        health_check::Type::Http => {
            let http = check.http.as_ref().ok_or(CheckError::Part("http"))?;
            if let Some(scheme) =
                http.scheme.as_ref().filter(|scheme| *scheme != "http" && *scheme != "https")
            {
                return Err(CheckError::Scheme(scheme.clone()));
            }
            validate_path(http.path.as_ref())?;
        }
        health_check::Type::Tcp => _ = check.tcp.as_ref().ok_or(CheckError::Part("tcp"))?,
        health_check::Type::Unknown => return Err(CheckError::Type),
    }
    not_negative("delay_seconds", check.delay_seconds)?;
    not_negative("grace_period_seconds", check.grace_period_seconds)?;
    not_negative("interval_seconds", check.interval_seconds)?;
    not_negative("timeout_seconds", check.timeout_seconds)
}

pub(crate) fn validate_check(check: &CheckInfo) -> Result<(), CheckError> {
    match check.r#type() {
        _ if check.r#type.is_none() => return Err(CheckError::Type),
        check_info::Type::Command => {
            validate_check_command(&check.command.as_ref().ok_or(CheckError::Part("command"))?.command)?;
        }
        check_info::Type::Http => {
            validate_path(check.http.as_ref().ok_or(CheckError::Part("http"))?.path.as_ref())?;
        }
        check_info::Type::Tcp => _ = check.tcp.as_ref().ok_or(CheckError::Part("tcp"))?,
        check_info::Type::Unknown => return Err(CheckError::Type),
    }
    not_negative("delay_seconds", check.delay_seconds)?;
    not_negative("interval_seconds", check.interval_seconds)?;
    not_negative("timeout_seconds", check.timeout_seconds)
}

fn validate_check_command(command: &CommandInfo) -> Result<(), CheckError> {
    if command.value.is_none() {
        return Err(CheckError::CommandValue);
    }
    Ok(validate_command(command)?)
}

fn validate_path(path: Option<&String>) -> Result<(), CheckError> {
    match path {
        Some(path) if !path.starts_with('/') => Err(CheckError::Path(path.clone())),
        _ => Ok(()),
    }
}

fn not_negative(name: &'static str, value: Option<f64>) -> Result<(), CheckError> {
    if value.is_some_and(|value| value < 0.0 || value.is_nan()) {
        Err(CheckError::Negative(name))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tepui_api::v1::secret;

    fn variable(r#type: VariableType, value: Option<&str>, secret: Option<Secret>) -> CommandInfo {
        let variable = environment::Variable {
            name: "V".into(),
            r#type: Some(r#type.into()),
            value: value.map(Into::into),
            secret,
        };
        CommandInfo {
            value: Some("true".into()),
            environment: Some(Environment { variables: vec![variable] }),
            ..Default::default()
        }
    }

    fn secret(r#type: SecretType, reference: bool, value: Option<&[u8]>) -> Secret {
        Secret {
            r#type: Some(r#type.into()),
            reference: reference.then(secret::Reference::default),
            value: value.map(|data| secret::Value { data: data.to_vec() }),
        }
    }

    #[test]
    fn variables_have_what_their_type_says() {
        use VariableType as T;
        let good = secret(SecretType::Value, false, Some(b"x"));
        let table = [
            (variable(T::Value, Some("x"), None), true),
            (variable(T::Value, None, None), false),
            (variable(T::Value, Some("x"), Some(good.clone())), false),
            (variable(T::Unknown, Some("x"), None), false),
            (variable(T::Secret, None, Some(good.clone())), true),
            (variable(T::Secret, None, None), false),
            (variable(T::Secret, Some("x"), Some(good)), false),
            (variable(T::Secret, None, Some(secret(SecretType::Value, false, Some(b"a\0b")))), false),
            (variable(T::Secret, None, Some(secret(SecretType::Value, false, None))), false),
            (variable(T::Secret, None, Some(secret(SecretType::Reference, true, None))), true),
            (variable(T::Secret, None, Some(secret(SecretType::Reference, true, Some(b"x")))), false),
            (variable(T::Secret, None, Some(secret(SecretType::Unknown, false, None))), true),
        ];
        for (command, good) in table {
            assert_eq!(validate_command(&command).is_ok(), good, "{command:?}");
        }
    }

    #[test]
    fn health_checks_have_what_their_type_says() {
        use health_check::Type as T;
        let of = |r#type: T| HealthCheck { r#type: Some(r#type.into()), ..Default::default() };
        let http = |scheme: Option<&str>, path: Option<&str>| HealthCheck {
            http: Some(health_check::HttpCheckInfo {
                scheme: scheme.map(Into::into),
                path: path.map(Into::into),
                port: 80,
                ..Default::default()
            }),
            ..of(T::Http)
        };
        let tcp =
            HealthCheck { tcp: Some(health_check::TcpCheckInfo { port: 1, protocol: None }), ..of(T::Tcp) };
        let command = |value: Option<&str>| HealthCheck {
            command: Some(CommandInfo { value: value.map(Into::into), ..Default::default() }),
            ..of(T::Command)
        };
        let table = [
            (HealthCheck::default(), false),
            (of(T::Unknown), false),
            (of(T::Command), false),
            (command(None), false),
            (command(Some("true")), true),
            (of(T::Http), false),
            (http(None, None), true),
            (http(Some("https"), Some("/a")), true),
            (http(Some("ftp"), None), false),
            (http(None, Some("a")), false),
            (of(T::Tcp), false),
            (tcp.clone(), true),
            (HealthCheck { delay_seconds: Some(-1.0), ..tcp.clone() }, false),
            (HealthCheck { grace_period_seconds: Some(-1.0), ..tcp.clone() }, false),
            (HealthCheck { interval_seconds: Some(-1.0), ..tcp.clone() }, false),
            (HealthCheck { timeout_seconds: Some(-1.0), ..tcp.clone() }, false),
            (HealthCheck { interval_seconds: Some(f64::NAN), ..tcp.clone() }, false),
            (HealthCheck { timeout_seconds: Some(0.0), ..tcp }, true),
        ];
        for (check, good) in table {
            assert_eq!(validate_health_check(&check).is_ok(), good, "{check:?}");
        }
    }

    #[test]
    fn checks_have_what_their_type_says() {
        use check_info::Type as T;
        let of = |r#type: T| CheckInfo { r#type: Some(r#type.into()), ..Default::default() };
        let command = |value: Option<&str>| CheckInfo {
            command: Some(check_info::Command {
                command: CommandInfo { value: value.map(Into::into), ..Default::default() },
            }),
            ..of(T::Command)
        };
        let http = |path: Option<&str>| CheckInfo {
            http: Some(check_info::Http { port: 80, path: path.map(Into::into) }),
            ..of(T::Http)
        };
        let tcp = CheckInfo { tcp: Some(check_info::Tcp { port: 1 }), ..of(T::Tcp) };
        let table = [
            (CheckInfo::default(), false),
            (of(T::Unknown), false),
            (of(T::Command), false),
            (command(None), false),
            (command(Some("true")), true),
            (of(T::Http), false),
            (http(None), true),
            (http(Some("a")), false),
            (of(T::Tcp), false),
            (CheckInfo { delay_seconds: Some(-0.1), ..tcp.clone() }, false),
            (CheckInfo { interval_seconds: Some(-0.1), ..tcp.clone() }, false),
            (CheckInfo { timeout_seconds: Some(-0.1), ..tcp.clone() }, false),
            (tcp, true),
        ];
        for (check, good) in table {
            assert_eq!(validate_check(&check).is_ok(), good, "{check:?}");
        }
    }
}
