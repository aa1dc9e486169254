//! An agent is killed and started again under many containers: how soon is it back, and has anything suffered?
//!
//! Each task reads a named pipe that nobody has opened for writing yet, which costs nothing. The agent is killed (every second time asked to
//! stop) and started again, over and over; the time runs from the start of its program until the master says that it is active, with all tasks
//! running. Each time every task must still be the process that it was, and no update may have come. In the end the pipe is opened, all tasks
//! end, and each must say so once.

use std::collections::{BTreeMap, HashMap};
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
use tepui_api::v1::{self, TaskState, agent, master, scheduler};

use crate::load::{Framework, Shape};
use crate::report::Report;

const OPERATOR: &str = "/api/v1";
/// Nothing should take this long; the run fails then rather than hang.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at the master. The figure is too long by half of it.
const PAUSE: Duration = Duration::from_millis(2);
/// How long to wait for what must not come.
const QUIET: Duration = Duration::from_millis(500);

/// Runs the measurement and adds its row.
///
/// # Errors
/// When something takes too long, or a task suffers.
pub async fn measure(
    master: &str,
    program: &Path,
    containers: usize,
    turns: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let gate = Gate::make()?;
    let observer = Client::new(master, MediaType::Protobuf);
    let mut agent = Agent::start(program)?;
    until_active(&observer, true).await?;
    let command = format!("exec cat {}", gate.pipe.display());
    let shape = Shape { cpus: 0.01, mem: 16.0, image: None, command };
    let mut framework = Framework::subscribe(master, shape).await?;

    let mut times = Vec::new();
    let outcome = run(&mut framework, &mut agent, &observer, &gate, containers, turns, &mut times).await;
    report.latency(format!("agent restarted under {containers} containers: back"), times);
    // However it went, nothing is to be left.
    framework.teardown().await?;
    until_empty(&agent).await?;
    agent.end(Signal::SIGTERM)?;
    outcome
}

async fn run(
    framework: &mut Framework,
    agent: &mut Agent,
    observer: &Client,
    gate: &Gate,
    containers: usize,
    turns: usize,
    times: &mut Vec<Duration>,
) -> anyhow::Result<()> {
    launch(framework, containers).await?;
    let before = agent.processes().await?;
    ensure!(before.len() == containers, "the agent has {} containers, not {containers}", before.len());
    for turn in 0..turns {
        agent.end(if turn % 2 == 0 { Signal::SIGKILL } else { Signal::SIGTERM })?;
        until_active(observer, false).await?;
        let started = Instant::now();
        agent.start_again()?;
        until_active(observer, true).await?;
        let tasks = running_tasks(observer).await?;
        times.push(started.elapsed());
        ensure!(tasks == containers, "the master knows of {tasks} running tasks, not {containers}");
        ensure!(agent.processes().await? == before, "a task is not the process that it was");
        quiet(framework).await?;
    }
    gate.open()?;
    all_end_once(framework, containers).await
}

/// The pipe that the tasks read.
struct Gate {
    directory: PathBuf,
    pipe: PathBuf,
}

/// An agent in a process of its own, which ends with this.
struct Agent {
    program: PathBuf,
    process: Child,
    client: Client,
}

// === impl Gate ===

impl Gate {
    fn make() -> anyhow::Result<Self> {
        // Not below /tmp: a task has one of its own.
        let directory = PathBuf::from(format!("/var/tmp/tepui-bench-{}", std::process::id()));
        std::fs::create_dir(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let pipe = directory.join("gate");
        let gate = Self { directory, pipe };
        nix::unistd::mkfifo(&gate.pipe, nix::sys::stat::Mode::from_bits_truncate(0o644))?;
        Ok(gate)
    }

    /// Lets all readers go on, to the end of the file: the kernel remembers that there was a writer.
    fn open(&self) -> anyhow::Result<()> {
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
    fn start(program: &Path) -> anyhow::Result<Self> {
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

    fn start_again(&mut self) -> anyhow::Result<()> {
        *self = Self::start(&self.program)?;
        Ok(())
    }

    fn end(&mut self, signal: Signal) -> anyhow::Result<()> {
        kill(Pid::from_raw(i32::try_from(self.process.id())?), signal)?;
        self.process.wait()?;
        Ok(())
    }

    /// The first process of each task.
    async fn processes(&self) -> anyhow::Result<BTreeMap<String, u32>> {
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
async fn launch(framework: &mut Framework, count: usize) -> anyhow::Result<()> {
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

/// Waits for the end of all tasks, and then for what should not come.
async fn all_end_once(framework: &mut Framework, count: usize) -> anyhow::Result<()> {
    let mut ends: HashMap<v1::TaskId, usize> = HashMap::new();
    while ends.len() < count {
        let ended = ends.len();
        let event = next(framework).await?.with_context(|| format!("{ended} of {count} tasks ended"))?;
        let Some(status) = event.update.map(|update| update.status) else { continue };
        ensure!(status.state() == TaskState::TaskFinished, "a task ended otherwise: {status:?}");
        *ends.entry(status.task_id.clone()).or_default() += 1;
        framework.acknowledge(status).await?;
    }
    quiet(framework).await?;
    let twice = ends.values().filter(|times| **times > 1).count();
    ensure!(twice == 0, "{twice} ends were told more than once");
    Ok(())
}

/// Fails if an update comes.
async fn quiet(framework: &mut Framework) -> anyhow::Result<()> {
    while let Ok(event) = tokio::time::timeout(QUIET, framework.events.next()).await {
        if let Some(update) = event?.update {
            bail!("an update came that should not: {:?}", update.status);
        }
    }
    Ok(())
}

async fn next(framework: &mut Framework) -> anyhow::Result<Option<scheduler::Event>> {
    match tokio::time::timeout(PATIENCE, framework.events.next()).await {
        Ok(event) => Ok(Some(event?)),
        Err(_) => Ok(None),
    }
}

async fn ask(client: &Client, kind: master::call::Type) -> anyhow::Result<master::Response> {
    let call = master::Call { r#type: Some(kind as i32), ..Default::default() };
    Ok(client.call(OPERATOR, &call).await?)
}

/// Waits until the master's one agent is active, or is not.
async fn until_active(master: &Client, wanted: bool) -> anyhow::Result<()> {
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
async fn until_empty(agent: &Agent) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !agent.processes().await?.is_empty() {
        ensure!(Instant::now() < deadline, "the agent's containers do not end");
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// How many tasks the master says are running.
async fn running_tasks(master: &Client) -> anyhow::Result<usize> {
    let tasks = ask(master, master::call::Type::GetTasks).await?.get_tasks.unwrap_or_default().tasks;
    Ok(tasks.iter().filter(|task| task.state() == TaskState::TaskRunning).count())
}
