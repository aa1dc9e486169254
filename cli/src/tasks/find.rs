//! Which task is meant, and where it runs.

use std::time::Duration;

use anyhow::{Context as _, bail};
use tepui_api::MediaType;
use tepui_api::client::{Client, ClientError};
use tepui_api::v1::{AgentInfo, ContainerId, Task, master};

use super::Cluster;
use crate::run::leader::Coordinator;

/// How long somebody may take to be elected.
const PATIENCE: Duration = Duration::from_secs(15);
/// How many are named when several are meant.
const NAMED: usize = 10;

/// The coordinator that leads.
pub(super) struct Leader {
    client: Client,
}

/// A task and its agent.
pub(super) struct Found {
    pub task: Task,
    pub agent: Client,
}

impl Leader {
    pub(super) async fn find(cluster: &Cluster) -> anyhow::Result<Self> {
        let mut coordinator = Coordinator::new(&cluster.coordinator).context("--coordinator")?;
        let Some(authority) = coordinator.find(PATIENCE).await else {
            bail!("nobody leads the cluster of {} (waited {PATIENCE:?})", cluster.coordinator);
        };
        Ok(Self { client: Client::new(authority, MediaType::Protobuf) })
    }

    async fn ask(&mut self, kind: master::call::Type) -> anyhow::Result<master::Response> {
        let call = master::Call { r#type: Some(kind as i32), ..Default::default() };
        // One that does not lead says who does.
        for _ in 0..3 {
            match self.client.call("/api/v1", &call).await {
                Err(ClientError::Status { location: Some(location), .. }) => {
                    let Some(authority) = crate::run::authority_of(&location) else {
                        bail!("the coordinator sends us to {location}, which is no address");
                    };
                    self.client = Client::new(authority, MediaType::Protobuf);
                }
                answer => return Ok(answer?),
            }
        }
        bail!("the coordinators send us from one to the other; is one being elected?")
    }

    /// All tasks: those that are not over, and those that are.
    pub(super) async fn tasks(&mut self) -> anyhow::Result<(Vec<Task>, Vec<Task>)> {
        let all = self.ask(master::call::Type::GetTasks).await?.get_tasks.unwrap_or_default();
        let master::response::GetTasks {
            pending_tasks,
            tasks,
            unreachable_tasks,
            completed_tasks,
            orphan_tasks,
        } = all;
        let alive = [pending_tasks, tasks, unreachable_tasks, orphan_tasks].concat();
        Ok((alive, completed_tasks))
    }

    /// Those that are known by name.
    pub(super) async fn frameworks(&mut self) -> anyhow::Result<Vec<tepui_api::v1::FrameworkInfo>> {
        let all = self.ask(master::call::Type::GetFrameworks).await?.get_frameworks.unwrap_or_default();
        let infos = all.frameworks.into_iter().chain(all.completed_frameworks);
        Ok(infos.map(|framework| framework.framework_info).collect())
    }

    /// All agents, with the addresses at which they are reached.
    pub(super) async fn agents(&mut self) -> anyhow::Result<Vec<(AgentInfo, String)>> {
        let all = self.ask(master::call::Type::GetAgents).await?.get_agents.unwrap_or_default();
        let address = |agent: &master::response::get_agents::Agent| {
            let of_pid =
                agent.pid.as_deref().and_then(|pid| pid.split_once('@')).map(|(_, at)| at.to_owned());
            let info = &agent.agent_info;
            of_pid.unwrap_or_else(|| format!("{}:{}", info.hostname, info.port.unwrap_or(5051)))
        };
        Ok(all
            .agents
            .into_iter()
            .map(|agent| {
                let at = address(&agent);
                (agent.agent_info, at)
            })
            .collect())
    }

    /// The task that is meant by its id or the beginning of it, or by its name. One that is over only if `over` is true and no other is meant.
    pub(super) async fn task(&mut self, meant: &str, over: bool) -> anyhow::Result<Found> {
        let (alive, completed) = self.tasks().await?;
        let found = match choose(meant, &alive)? {
            Some(task) => Some(task),
            None if over => choose(meant, &completed)?,
            None => None,
        };
        let Some(task) = found.cloned() else {
            let was = completed.iter().any(|task| task.task_id.value.starts_with(meant));
            match was {
                true => bail!("the task {meant} is over"),
                false => bail!("there is no task {meant}; `tepui ps` lists them"),
            }
        };
        let agents = self.agents().await?;
        let agent = agents.into_iter().find(|(info, _)| info.id.as_ref() == Some(&task.agent_id));
        let Some((_, authority)) = agent else {
            bail!("the agent {} of the task {} is not there", task.agent_id, task.task_id);
        };
        Ok(Found { task, agent: Client::new(authority, MediaType::Protobuf) })
    }
}

/// `None` if none is meant.
fn choose<'a>(meant: &str, tasks: &'a [Task]) -> anyhow::Result<Option<&'a Task>> {
    let ways: [&dyn Fn(&Task) -> bool; 3] =
        [&|task| task.task_id.value == meant, &|task| task.name == meant, &|task| {
            task.task_id.value.starts_with(meant)
        }];
    for way in ways {
        let found: Vec<&Task> = tasks.iter().filter(|task| way(task)).collect();
        match found[..] {
            [] => {}
            [only] => return Ok(Some(only)),
            [..] => {
                let mut names: Vec<String> = found
                    .iter()
                    .map(|task| format!("{} (of the framework {})", task.task_id, task.framework_id))
                    .collect();
                names.truncate(NAMED);
                bail!("several tasks are meant by {meant}: {}", names.join(", "));
            }
        }
    }
    Ok(None)
}

impl Found {
    /// The container of the task.
    pub(super) fn container(&self) -> anyhow::Result<ContainerId> {
        let statuses = self.task.statuses.iter().rev();
        let known =
            statuses.filter_map(|status| status.container_status.as_ref()?.container_id.clone()).next();
        known.with_context(|| format!("the task {} has no container yet", self.task.task_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(id: &str, name: &str) -> Task {
        let mut task = Task { name: name.to_owned(), ..Task::default() };
        task.task_id.value = id.to_owned();
        task
    }

    #[test]
    fn a_task_is_meant_by_its_id_its_beginning_or_its_name() {
        let tasks = [task("web-1", "web"), task("web-12", "web"), task("db-1", "store")];
        let id =
            |meant: &str| choose(meant, &tasks).map(|found| found.map(|task| task.task_id.value.as_str()));
        assert_eq!(
            id("web-1").unwrap(),
            Some("web-1"),
            "all of it, though it is also the beginning of another"
        );
        assert_eq!(id("d").unwrap(), Some("db-1"));
        assert_eq!(id("store").unwrap(), Some("db-1"));
        assert_eq!(id("x").unwrap(), None);
        let error = id("we").unwrap_err().to_string();
        assert!(error.contains("web-1 (") && error.contains("web-12 ("), "{error}");
    }
}
