//! An agent is killed and started again under many containers: how soon is it back, and has anything suffered?
//!
//! The tasks are idle ([`crate::idle`]). The agent is killed (every second time asked to
//! stop) and started again, over and over; the time runs from the start of its program until the master says that it is active, with all tasks
//! running. Each time every task must still be the process that it was, and no update may have come. In the end the pipe is opened, all tasks
//! end, and each must say so once.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use tepui_api::MediaType;
use tepui_api::client::Client;
use tepui_api::v1::{self, TaskState, master};

use crate::idle::{self, Agent, Gate, ask, launch, next, quiet, until_active, until_empty};
use crate::load::Framework;
use crate::report::Report;

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
    let mut framework = Framework::subscribe(master, idle::shape(&gate)).await?;

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

/// How many tasks the master says are running.
async fn running_tasks(master: &Client) -> anyhow::Result<usize> {
    let tasks = ask(master, master::call::Type::GetTasks).await?.get_tasks.unwrap_or_default().tasks;
    Ok(tasks.iter().filter(|task| task.state() == TaskState::TaskRunning).count())
}
