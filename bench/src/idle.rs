//! An agent of one's own with many idle containers.
//!
//! Each task reads a named pipe that nobody has opened for writing yet, which costs nothing ([`Gate`]). The agent ([`Agent`]) is a process that
//! this one starts, by a program that knows its flags.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tepui_api::MediaType;
use tepui_api::client::Client;
use tepui_api::v1::{TaskState, agent, master, scheduler};

use crate::load::{Framework, Shape};

const OPERATOR: &str = "/api/v1";
/// Nothing should take this long; the run fails then rather than hang.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at the master. A figure is too long by half of it.
const PAUSE: Duration = Duration::from_millis(2);
/// How long to wait for what must not come.
const QUIET: Duration = Duration::from_millis(500);

/// A task that reads the gate.
pub(crate) fn shape(gate: &Gate) -> Shape {
    let command = format!("exec cat {}", gate.pipe.display());
    Shape { cpus: 0.01, mem: 16.0, image: None, command, checked: false }
}

/// The pipe that the tasks read.
pub(crate) struct Gate {
    directory: PathBuf,
    pub(crate) pipe: PathBuf,
}

/// An agent in a process of its own, which ends with this.
pub(crate) struct Agent {
    program: PathBuf,
    process: Child,
    pub(crate) client: Client,
}

// === impl Gate ===

impl Gate {
    pub(crate) fn make() -> anyhow::Result<Self> {
        // Not below /tmp: a task has one of its own.
        let directory = PathBuf::from(format!("/var/tmp/tepui-bench-{}", std::process::id()));
        std::fs::create_dir(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let pipe = directory.join("gate");
        let gate = Self { directory, pipe };
        nix::unistd::mkfifo(&gate.pipe, nix::sys::stat::Mode::from_bits_truncate(0o644))?;
        Ok(gate)
    }

    /// Lets all readers go on, to the end of the file: the kernel remembers that there was a writer.
    pub(crate) fn open(&self) -> anyhow::Result<()> {
        drop(File::options().write(true).open(&self.pipe)?);
        Ok(())
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.pipe);
        let _ = std::fs::remove_dir(&self.directory);
    }
}

// === impl Agent ===

impl Agent {
    pub(crate) fn start(program: &Path) -> anyhow::Result<Self> {
        let mut process = Command::new(program)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let stdout = process.stdout.take().context("the agent has no stdout")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening on ");
        let address = address.context("the agent does not say where it listens")?.to_owned();
        Ok(Self { program: program.to_owned(), process, client: Client::new(address, MediaType::Protobuf) })
    }

    pub(crate) fn start_again(&mut self) -> anyhow::Result<()> {
        *self = Self::start(&self.program)?;
        Ok(())
    }

    pub(crate) fn end(&mut self, signal: Signal) -> anyhow::Result<()> {
        kill(Pid::from_raw(i32::try_from(self.process.id())?), signal)?;
        self.process.wait()?;
        Ok(())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The first process of each task.
    pub(crate) async fn processes(&self) -> anyhow::Result<BTreeMap<String, u32>> {
        let call =
            agent::Call { r#type: Some(agent::call::Type::GetContainers as i32), ..Default::default() };
        let answer: agent::Response = self.client.call(OPERATOR, &call).await?;
        let all = answer.get_containers.unwrap_or_default().containers.into_iter();
        let one = |container: agent::response::get_containers::Container| {
            let task = container.executor_id.context("a container belongs to nobody")?.value;
            let pid = container.container_status.and_then(|status| status.executor_pid);
            Ok((task, pid.context("a container has no process")?))
        };
        all.map(one).collect()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Launches the tasks and waits until all run.
pub(crate) async fn launch(framework: &mut Framework, count: usize) -> anyhow::Result<()> {
    let (mut launched, mut running) = (0, 0);
    while running < count {
        let event = next(framework).await?.context("no tasks run: there is no event")?;
        match event.r#type() {
            scheduler::event::Type::Offers => {
                for offer in event.offers.unwrap_or_default().offers {
                    launched += framework.answer(offer, count - launched).await?.len();
                }
            }
            scheduler::event::Type::Update => {
                let Some(status) = event.update.map(|update| update.status) else { continue };
                match status.state() {
                    TaskState::TaskStaging | TaskState::TaskStarting => {}
                    TaskState::TaskRunning => running += 1,
                    other => bail!("a task became {}: {}", other.as_str_name(), status.message()),
                }
                framework.acknowledge(status).await?;
            }
            _ => {}
        }
    }
    // The last acknowledgements are on their way.
    quiet(framework).await
}

/// Fails if an update comes.
pub(crate) async fn quiet(framework: &mut Framework) -> anyhow::Result<()> {
    while let Ok(event) = tokio::time::timeout(QUIET, framework.events.next()).await {
        if let Some(update) = event?.update {
            bail!("an update came that should not: {:?}", update.status);
        }
    }
    Ok(())
}

pub(crate) async fn next(framework: &mut Framework) -> anyhow::Result<Option<scheduler::Event>> {
    match tokio::time::timeout(PATIENCE, framework.events.next()).await {
        Ok(event) => Ok(Some(event?)),
        Err(_) => Ok(None),
    }
}

pub(crate) async fn ask(client: &Client, kind: master::call::Type) -> anyhow::Result<master::Response> {
    let call = master::Call { r#type: Some(kind as i32), ..Default::default() };
    Ok(client.call(OPERATOR, &call).await?)
}

/// Waits until the master's one agent is active, or is not.
pub(crate) async fn until_active(master: &Client, wanted: bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask(master, master::call::Type::GetAgents).await?;
        let agents = answer.get_agents.unwrap_or_default().agents;
        if agents.iter().any(|agent| agent.active) == wanted {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the agent's being active did not become {wanted}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits until the agent has no container.
pub(crate) async fn until_empty(agent: &Agent) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !agent.processes().await?.is_empty() {
        ensure!(Instant::now() < deadline, "the agent's containers do not end");
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
