//! `environment_secret`: environment variables of type SECRET.
//!
//! Their values go from the agent's memory to the program's environment, and into no file. Always there. Rules: Mesos' `docs/secrets.md`.

use std::sync::Arc;

use tepui_api::v1::CommandInfo;
use tepui_api::v1::environment::variable::Type;

use super::secrets::resolve;
use crate::catalogue::Parts;
use crate::compose::MakeError;
use crate::isolator::{Answer, ContainerContext, Contribution, Isolator, IsolatorError, done};

struct EnvironmentSecret;

pub(crate) fn make(_: &Parts) -> Result<Arc<dyn Isolator>, MakeError> {
    Ok(Arc::new(EnvironmentSecret))
}

fn prepare(context: &ContainerContext, contribution: &mut Contribution) -> Result<(), IsolatorError> {
    let of_task = context.task.as_ref().and_then(|task| task.command.as_ref());
    let of_executor = || context.executor.as_ref().and_then(|executor| executor.command.as_ref());
    let variables = of_task
        .or_else(of_executor)
        .and_then(|command: &CommandInfo| command.environment.as_ref())
        .map_or(&[][..], |environment| &environment.variables);
    for variable in variables.iter().filter(|variable| variable.r#type() == Type::Secret) {
        let whose = format!("for the environment variable '{}'", variable.name);
        let Some(secret) = &variable.secret else {
            return Err(IsolatorError::Refused(format!("the secret {whose} is not there")));
        };
        let value = resolve(secret, &whose)?;
        if value.expose().contains(&0) {
            return Err(IsolatorError::Refused(format!(
                "the secret {whose} has a zero byte, which no environment can hold"
            )));
        }
        contribution.secret_environment.insert(variable.name.clone(), value);
    }
    Ok(())
}

impl Isolator for EnvironmentSecret {
    fn name(&self) -> &str {
        "environment_secret"
    }

    fn prepare<'a>(
        &'a self,
        context: &'a ContainerContext,
        contribution: &'a mut Contribution,
    ) -> Answer<'a> {
        done(prepare(context, contribution))
    }
}

#[cfg(test)]
mod tests {
    use tepui_api::v1::environment::Variable;
    use tepui_api::v1::{Environment, Secret, TaskInfo, secret};

    use super::super::tests::context;
    use super::*;

    fn prepared(variables: Vec<Variable>) -> Result<Contribution, IsolatorError> {
        let environment = Some(Environment { variables });
        let command = CommandInfo { environment, ..CommandInfo::default() };
        let task = TaskInfo { command: Some(command), ..TaskInfo::default() };
        let mut contribution = Contribution::default();
        let context = ContainerContext { task: Some(task), ..context(None) };
        prepare(&context, &mut contribution).map(|()| contribution)
    }

    fn variable(name: &str, data: &[u8]) -> Variable {
        let secret = Secret {
            r#type: Some(secret::Type::Value.into()),
            value: Some(secret::Value { data: data.to_vec() }),
            ..Secret::default()
        };
        Variable {
            name: name.to_owned(),
            r#type: Some(Type::Secret.into()),
            secret: Some(secret),
            ..Variable::default()
        }
    }

    #[test]
    fn only_secrets_are_taken() {
        let plain = Variable { name: "A".into(), value: Some("plain".into()), ..Variable::default() };
        let contribution = prepared(vec![plain, variable("B", b"s3cret")]).unwrap();
        let names: Vec<_> = contribution.secret_environment.keys().map(String::as_str).collect();
        assert_eq!(names, ["B"]);
        assert_eq!(contribution.secret_environment["B"].expose(), b"s3cret");
        assert!(!format!("{contribution:?}").contains("s3cret"));
    }

    #[test]
    fn one_that_no_environment_can_hold_is_refused() {
        assert!(prepared(vec![variable("B", b"a\0b")]).is_err());
        let nothing = Variable { secret: None, ..variable("B", b"") };
        assert!(prepared(vec![nothing]).is_err());
    }
}
