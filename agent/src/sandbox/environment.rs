//! The variables that a command task or an executor finds, beside those of its image and its own.

use std::path::Path;

use tepui_api::units;
use tepui_api::v1::{AgentId, ContainerInfo, ExecutorInfo, FrameworkInfo, Resource, TaskInfo};

use crate::core::Config;

/// The search path of a task without an image: that of Mesos' agent.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What Mesos' agent adds to a task's grace period, so that its executor can report before it is ended itself.
const EXECUTOR_MARGIN: std::time::Duration = std::time::Duration::from_secs(2);

/// What the variables are made from.
#[derive(Debug, Clone, Copy)]
pub struct Variables<'a> {
    /// The agent's settings.
    pub config: &'a Config,
    /// Its id.
    pub agent: &'a AgentId,
    /// The task's framework.
    pub framework: &'a FrameworkInfo,
    /// The sandbox on the host.
    pub directory: &'a Path,
}

/// The variables of a command task, by name. They are those that Mesos' command executor hands on (its
/// `executorEnvironment`, and what its containerizer adds), and `MESOS_TASK_ID`.
#[must_use]
pub fn of_command_task(from: &Variables, task: &TaskInfo) -> Vec<(String, String)> {
    let config = from.config;
    let grace = task.kill_policy.and_then(|policy| policy.grace_period).map_or(
        config.shutdown_grace_period,
        |grace| {
            std::time::Duration::from_nanos(u64::try_from(grace.nanoseconds).unwrap_or(0)) + EXECUTOR_MARGIN
        },
    );
    let mut variables = of_program(
        from,
        &Program {
            executor: &task.task_id.value,
            container: task.container.as_ref(),
            resources: &task.resources,
            grace,
        },
    );
    variables.push(("MESOS_TASK_ID".to_owned(), task.task_id.value.clone()));
    variables
}

/// The variables of a framework's own executor, by name: those of Mesos' `executorEnvironment`, and what its containerizer adds.
#[must_use]
pub fn of_executor(
    from: &Variables,
    executor: &ExecutorInfo,
    resources: &[Resource],
) -> Vec<(String, String)> {
    let grace = executor.shutdown_grace_period.map_or(from.config.shutdown_grace_period, |grace| {
        std::time::Duration::from_nanos(u64::try_from(grace.nanoseconds).unwrap_or(0))
    });
    let mut variables = of_program(
        from,
        &Program {
            executor: &executor.executor_id.value,
            container: executor.container.as_ref(),
            resources,
            grace,
        },
    );
    // A libprocess in the executor takes any port that is free.
    variables.push(("LIBPROCESS_PORT".to_owned(), "0".to_owned()));
    variables
}

/// The variables of a task in a pod, by name: those of a command task, but for its executor, and where the pod is reached, as Mesos' default executor
/// tells its tasks.
#[must_use]
pub fn of_pod_task(
    from: &Variables,
    executor: &ExecutorInfo,
    task: &TaskInfo,
    address: &str,
) -> Vec<(String, String)> {
    let mut variables = of_command_task(from, task);
    for (name, value) in &mut variables {
        if name == "MESOS_EXECUTOR_ID" {
            value.clone_from(&executor.executor_id.value);
        }
    }
    variables.push(("MESOS_CONTAINER_IP".to_owned(), address.to_owned()));
    variables
}

/// What differs between a command task and an executor.
struct Program<'a> {
    executor: &'a str,
    container: Option<&'a ContainerInfo>,
    resources: &'a [Resource],
    grace: std::time::Duration,
}

fn of_program(from: &Variables, program: &Program) -> Vec<(String, String)> {
    let Variables { config, agent, framework, directory } = *from;
    let directory = directory.to_string_lossy();
    let address = config.address;
    let checkpoint = framework.checkpoint();
    let role = program.resources.iter().find_map(|r| r.allocation_info.as_ref()?.role.clone());
    let has_image = program.container.and_then(|c| c.mesos.as_ref()).is_some_and(|m| m.image.is_some());
    let sandbox = if has_image { config.sandbox_directory.clone() } else { directory.to_string() };
    let framework_id = framework.id.as_ref().map(|id| id.value.clone()).unwrap_or_default();

    let mut variables = vec![("PATH".to_owned(), PATH.to_owned())];
    variables.extend(config.environment.iter().cloned());
    let mut add = |name: &str, value: String| variables.push((name.to_owned(), value));
    add("MESOS_AGENT_ENDPOINT", address.to_string());
    add("MESOS_ALLOCATION_ROLE", role.unwrap_or_else(|| "*".to_owned()));
    add("MESOS_CHECKPOINT", if checkpoint { "1" } else { "0" }.to_owned());
    add("MESOS_DIRECTORY", directory.to_string());
    add("MESOS_EXECUTOR_ID", program.executor.to_owned());
    add("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD", units::Duration(program.grace).to_string());
    add("MESOS_FRAMEWORK_ID", framework_id);
    add("MESOS_HTTP_COMMAND_EXECUTOR", "0".to_owned());
    add("MESOS_SANDBOX", sandbox);
    add("MESOS_SLAVE_ID", agent.value.clone());
    add("MESOS_SLAVE_PID", format!("slave(1)@{address}"));
    if checkpoint {
        add("MESOS_RECOVERY_TIMEOUT", units::Duration(config.recovery_timeout).to_string());
        let backoff = units::Duration(config.executor_reregistration_timeout);
        add("MESOS_SUBSCRIPTION_BACKOFF_MAX", backoff.to_string());
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::test_config;
    use std::collections::BTreeMap;
    use tepui_api::v1::{DurationInfo, KillPolicy, Resource, resource::AllocationInfo};

    #[test]
    fn the_variables_are_those_of_mesos() {
        let config = test_config();
        let framework =
            FrameworkInfo { id: Some("F".into()), checkpoint: Some(true), ..FrameworkInfo::default() };
        let allocation = AllocationInfo { role: Some("web".into()) };
        let resource = Resource { allocation_info: Some(allocation), ..Resource::default() };
        let task = TaskInfo {
            task_id: "T".into(),
            resources: vec![resource],
            kill_policy: Some(KillPolicy { grace_period: Some(DurationInfo { nanoseconds: 8_000_000_000 }) }),
            ..TaskInfo::default()
        };
        let from = Variables {
            config: &config,
            agent: &"A".into(),
            framework: &framework,
            directory: Path::new("/w/runs/c"),
        };
        let got: BTreeMap<_, _> = of_command_task(&from, &task).into_iter().collect();
        let expected = [
            ("MESOS_AGENT_ENDPOINT", "127.0.0.1:5051"),
            ("MESOS_ALLOCATION_ROLE", "web"),
            ("MESOS_CHECKPOINT", "1"),
            ("MESOS_DIRECTORY", "/w/runs/c"),
            ("MESOS_EXECUTOR_ID", "T"),
            ("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD", "10secs"),
            ("MESOS_FRAMEWORK_ID", "F"),
            ("MESOS_HTTP_COMMAND_EXECUTOR", "0"),
            ("MESOS_RECOVERY_TIMEOUT", "15mins"),
            ("MESOS_SANDBOX", "/w/runs/c"),
            ("MESOS_SLAVE_ID", "A"),
            ("MESOS_SLAVE_PID", "slave(1)@127.0.0.1:5051"),
            ("MESOS_SUBSCRIPTION_BACKOFF_MAX", "2secs"),
            ("MESOS_TASK_ID", "T"),
            ("PATH", PATH),
        ];
        let got: Vec<(&str, &str)> = got.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(got, expected);
    }
}
