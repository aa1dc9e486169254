//! Where sandboxes are, as in Mesos: `<work_dir>/slaves/<agent>/frameworks/<framework>/executors/<executor>/runs/<container>`,
//! with a link `latest` beside the runs.

use std::path::{Path, PathBuf};

use tepui_api::v1::{AgentId, ContainerId, FrameworkId};

/// The name of the link to an executor's newest run.
pub const LATEST: &str = "latest";

/// The directory of all sandboxes of an agent.
#[must_use]
pub fn agent(work_dir: &Path, agent: &AgentId) -> PathBuf {
    work_dir.join("slaves").join(&agent.value)
}

/// The directory of an executor's runs. A command task's executor has the task's id.
#[must_use]
pub fn runs(work_dir: &Path, agent_id: &AgentId, framework: &FrameworkId, executor: &str) -> PathBuf {
    let framework = agent(work_dir, agent_id).join("frameworks").join(&framework.value);
    framework.join("executors").join(executor).join("runs")
}

/// The sandbox of a container.
#[must_use]
pub fn run(
    work_dir: &Path,
    agent: &AgentId,
    framework: &FrameworkId,
    executor: &str,
    container: &ContainerId,
) -> PathBuf {
    runs(work_dir, agent, framework, executor).join(&container.value)
}

/// The sandbox of a container that is nested in the one with this sandbox.
#[must_use]
pub fn nested(parent: &Path, name: &str) -> PathBuf {
    parent.join("containers").join(name)
}

/// The sandbox of a container that an operator launched without a parent.
#[must_use]
pub fn standalone(work_dir: &Path, name: &str) -> PathBuf {
    work_dir.join("standalone").join(name)
}

/// Whether an id can be the name of a directory. Mesos forbids others from the start.
#[must_use]
pub fn is_component(id: &str) -> bool {
    !id.is_empty() && id.len() <= 255 && id != "." && id != ".." && !id.contains(['/', '\0'])
}
