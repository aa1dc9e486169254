//! What runs in a container, and in which environment: the task's wishes merged with its image's.
//!
//! Variables, from the weakest to the strongest: those that the agent sets, the image's, the command's own, those of isolators. So an
//! image's `PATH` replaces the agent's, and a task can replace both, as in Mesos.

use std::collections::BTreeMap;

use tepui_images::{CommandError, CommandInput, ImageConfig, LaunchCommand};

use crate::containerizer::config::ContainerConfig;

/// What to execute.
pub(super) fn program(
    config: &ContainerConfig,
    image: Option<&ImageConfig>,
) -> Result<LaunchCommand, CommandError> {
    let command = &config.command;
    let input = CommandInput {
        shell: command.shell(),
        value: command.value.as_deref(),
        arguments: &command.arguments,
    };
    tepui_images::merge_command(input, image)
}

/// Where it starts.
pub(super) fn directory(
    config: &ContainerConfig,
    image: Option<&ImageConfig>,
    sandbox_directory: &str,
) -> String {
    match config.image() {
        Some(_) => tepui_images::working_directory(image, sandbox_directory),
        None => config.sandbox.to_string_lossy().into_owned(),
    }
}

/// Its environment, as `NAME=VALUE`. One that cannot be passed on (a name that is empty or has a `=`, a zero byte) is left out.
pub(super) fn environment(
    config: &ContainerConfig,
    image: Option<&ImageConfig>,
    isolators: &BTreeMap<String, String>,
    directory: &str,
) -> Vec<String> {
    let mut variables: Vec<(String, String)> = config.environment.clone();
    let mut set = |name: &str, value: &str| match variables.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => value.clone_into(old),
        None => variables.push((name.to_owned(), value.to_owned())),
    };
    set("PWD", directory);
    let of_image = image.into_iter().flat_map(|image| &image.env).filter_map(|entry| entry.split_once('='));
    of_image.chain(config.own_environment()).for_each(|(name, value)| set(name, value));
    isolators.iter().for_each(|(name, value)| set(name, value));
    let passable = variables
        .into_iter()
        .filter(|(name, value)| !name.is_empty() && !name.contains(['\0', '=']) && !value.contains('\0'));
    passable.map(|(name, value)| format!("{name}={value}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use tepui_api::v1::{CommandInfo, ContainerId, Environment, environment::Variable};

    fn config(variables: &[(&str, &str)]) -> ContainerConfig {
        let variables = variables.iter().map(|(name, value)| Variable {
            name: (*name).to_owned(),
            value: Some((*value).to_owned()),
            ..Variable::default()
        });
        let environment = Some(Environment { variables: variables.collect() });
        ContainerConfig {
            container_id: ContainerId::new("c"),
            task: None,
            executor: None,
            resources: Vec::new(),
            limits: BTreeMap::new(),
            command: CommandInfo { environment, value: Some("true".to_owned()), ..CommandInfo::default() },
            container: None,
            environment: vec![("PATH".to_owned(), "/agent".to_owned()), ("A".to_owned(), "agent".to_owned())],
            user: None,
            sandbox: PathBuf::from("/sandbox"),
            holder: false,
        }
    }

    #[test]
    fn the_strongest_variable_wins() {
        let image = ImageConfig {
            env: vec!["PATH=/image".to_owned(), "B=image".to_owned()],
            ..ImageConfig::default()
        };
        let isolators = BTreeMap::from([("C".to_owned(), "isolator".to_owned())]);
        let task = [("B", "task=1"), ("C", "task"), ("BAD", "\0"), ("", "")];
        let got = environment(&config(&task), Some(&image), &isolators, "/w");
        assert_eq!(got, ["PATH=/image", "A=agent", "PWD=/w", "B=task=1", "C=isolator"]);
        let got = environment(&config(&[("PATH", "/task")]), None, &BTreeMap::new(), "/w");
        assert_eq!(got, ["PATH=/task", "A=agent", "PWD=/w"]);
    }

    #[test]
    fn a_line_goes_to_the_shell() {
        let command = program(&config(&[]), None).unwrap();
        assert_eq!(
            (command.path.as_str(), command.argv),
            ("/bin/sh", ["sh", "-c", "true"].map(str::to_owned).to_vec())
        );
        assert_eq!(directory(&config(&[]), None, "/mnt/mesos/sandbox"), "/sandbox");
    }
}
