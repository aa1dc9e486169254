//! What the disk is not to know of a task: its secrets.
//!
//! The agent's store outlives containers, and a task that is read back from it has been started already, so that nobody needs them.

use tepui_api::v1::{CommandInfo, ContainerInfo, ExecutorInfo, Secret, TaskInfo};

/// Takes the values of all secrets out of a task. That there was one, and its name, stays.
pub fn redact(task: &mut TaskInfo) {
    let check = task.check.as_mut().and_then(|check| check.command.as_mut());
    let commands = [
        task.command.as_mut(),
        task.health_check.as_mut().and_then(|check| check.command.as_mut()),
        check.map(|check| &mut check.command),
    ];
    commands.into_iter().flatten().for_each(redact_command);
    task.container.iter_mut().for_each(redact_container);
    task.executor.iter_mut().for_each(redact_executor);
}

/// Takes the values of all secrets out of an executor.
pub fn redact_executor(executor: &mut ExecutorInfo) {
    executor.command.iter_mut().for_each(redact_command);
    executor.container.iter_mut().for_each(redact_container);
}

fn redact_command(command: &mut CommandInfo) {
    let variables = command.environment.iter_mut().flat_map(|environment| &mut environment.variables);
    variables.filter_map(|variable| variable.secret.as_mut()).for_each(redact_secret);
}

fn redact_container(container: &mut ContainerInfo) {
    if let Some(docker) = container
        .mesos
        .as_mut()
        .and_then(|mesos| mesos.image.as_mut())
        .and_then(|image| image.docker.as_mut())
        && let Some(config) = &mut docker.config
    {
        redact_secret(config);
    }
    for source in container.volumes.iter_mut().filter_map(|volume| volume.source.as_mut()) {
        source.secret.iter_mut().for_each(redact_secret);
        let static_provisioning = source.csi_volume.as_mut().and_then(|csi| csi.static_provisioning.as_mut());
        if let Some(csi) = static_provisioning {
            csi.node_stage_secrets.values_mut().for_each(redact_secret);
            csi.node_publish_secrets.values_mut().for_each(redact_secret);
        }
    }
}

fn redact_secret(secret: &mut Secret) {
    if let Some(value) = &mut secret.value {
        value.data = Default::default();
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use tepui_api::v1::volume::Source;
    use tepui_api::v1::{Environment, HealthCheck, Volume, environment, secret};

    use super::*;

    #[test]
    fn no_secret_is_left_wherever_it_was() {
        let secret =
            || Secret { value: Some(secret::Value { data: b"s3cret-s3cret".to_vec() }), ..Secret::default() };
        let variable =
            || environment::Variable { name: "TOKEN".into(), secret: Some(secret()), ..Default::default() };
        let command = || {
            let environment = Some(Environment { variables: vec![variable()] });
            CommandInfo { environment, ..CommandInfo::default() }
        };
        let container = || {
            let source = Some(Source { secret: Some(secret()), ..Source::default() });
            ContainerInfo { volumes: vec![Volume { source, ..Volume::default() }], ..Default::default() }
        };
        let executor = ExecutorInfo {
            command: Some(command()),
            container: Some(container()),
            ..ExecutorInfo::default()
        };
        let mut task = TaskInfo {
            command: Some(command()),
            container: Some(container()),
            executor: Some(executor),
            health_check: Some(HealthCheck { command: Some(command()), ..HealthCheck::default() }),
            ..TaskInfo::default()
        };
        let holds = |task: &TaskInfo, text: &str| {
            task.encode_to_vec().windows(text.len()).any(|part| part == text.as_bytes())
        };
        assert!(holds(&task, "s3cret-s3cret"));
        redact(&mut task);
        assert!(!holds(&task, "s3cret") && holds(&task, "TOKEN"));
    }
}
