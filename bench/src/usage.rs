//! What many idle containers cost: a look at what all of them use, and each of them beside the user's own process.
//!
//! The sweep is `GET /monitor/statistics` of a real agent under its default isolators; its CPU time is the agent's own, by `/proc`. A container's
//! cost is the memory that its shim and its init share with nobody (`Private_*` of `smaps_rollup`), and by how much the agent has grown for it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use nix::unistd::{SysconfVar, sysconf};
use tepui_api::MediaType;
use tepui_api::client::Client;

use crate::idle::{self, Agent, Gate, launch, until_active, until_empty};
use crate::load::Framework;
use crate::report::Report;

const PATH: &str = "/monitor/statistics";
const SWEEPS: usize = 30;
const SECONDS: u32 = 10;
const ASKERS: usize = 10;
/// After this time without work, tokio ends the threads that it keeps for what blocks.
const THREADS_END: Duration = Duration::from_secs(12);

/// Runs the measurement and adds its rows.
///
/// # Errors
/// When something takes too long, or figures are missing.
pub async fn measure(
    master: &str,
    program: &Path,
    containers: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let gate = Gate::make()?;
    let observer = Client::new(master, MediaType::Protobuf);
    let mut agent = Agent::start(program)?;
    until_active(&observer, true).await?;
    // One container comes and goes, so that everything is loaded that the first one needs.
    let mut first = Framework::subscribe(master, idle::shape(&gate)).await?;
    launch(&mut first, 1).await?;
    first.teardown().await?;
    until_empty(&agent).await?;
    tokio::time::sleep(THREADS_END).await;
    let mut framework = Framework::subscribe(master, idle::shape(&gate)).await?;
    let outcome = run(&mut framework, &agent, containers, report).await;
    // However it went, nothing is to be left.
    gate.open()?;
    framework.teardown().await?;
    until_empty(&agent).await?;
    agent.end(Signal::SIGTERM)?;
    outcome
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
async fn run(
    framework: &mut Framework,
    agent: &Agent,
    containers: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let before = Cost::of(agent.pid())?;
    let began = Instant::now();
    launch(framework, containers).await?;
    report.rate("containers launched, which stay", containers, began.elapsed());

    let entries = sweep(agent, containers).await?;
    ensure!(entries > 0, "nobody tells what containers use");
    let (cpu, mut times) = (cpu_time(agent.pid())?, Vec::new());
    for _ in 0..SWEEPS {
        let began = Instant::now();
        sweep(agent, containers).await?;
        times.push(began.elapsed());
    }
    let cpu = cpu_time(agent.pid())? - cpu;
    report.latency(format!("GET {PATH}, {containers} containers"), times);
    report.figure(
        format!("agent's CPU for one such sweep of {containers}"),
        cpu.as_secs_f64() * 1e3 / SWEEPS as f64,
        "ms",
    );

    let idle = each_second(agent, None).await?;
    report.figure("agent's CPU when nobody asks", idle * 100.0, "% of one CPU");
    let asked = each_second(agent, Some(containers)).await?;
    report.figure("agent's CPU when asked each second", asked * 100.0, "% of one CPU");

    let (cpu, began) = (cpu_time(agent.pid())?, Instant::now());
    let askers = (0..ASKERS).map(|_| sweep(agent, containers));
    futures_util::future::try_join_all(askers).await?;
    report.latency(format!("{ASKERS} askers at once, until all are answered"), vec![began.elapsed()]);
    let cpu = cpu_time(agent.pid())? - cpu;
    report.figure(format!("agent's CPU for {ASKERS} askers at once"), cpu.as_secs_f64() * 1e3, "ms");

    tokio::time::sleep(THREADS_END).await;
    let after = Cost::of(agent.pid())?;
    report.figure("agent's threads without containers", before.threads as f64, "");
    report.figure(format!("agent's threads with {containers} containers"), after.threads as f64, "");
    let grown = after.private.saturating_sub(before.private) as f64 / containers.max(1) as f64;
    let mut helpers = Vec::new();
    for init in agent.processes().await?.into_values() {
        let shim = parent(init)?;
        helpers.push(Cost::of(shim)?.private + Cost::of(init)?.private);
    }
    helpers.sort_unstable();
    let median = helpers.get(helpers.len() / 2).copied().context("there is no container")?;
    let most = helpers.last().copied().unwrap_or_default();
    report.figure("unshared memory of shim and init, median", kib(median), "KiB a container");
    report.figure("unshared memory of shim and init, most", kib(most), "KiB a container");
    report.figure("unshared memory that the agent grew by", grown / 1024.0, "KiB a container");
    report.figure("an idle container, in all", kib(median) + grown / 1024.0, "KiB");
    Ok(())
}

/// One sweep; how many containers were told of.
async fn sweep(agent: &Agent, containers: usize) -> anyhow::Result<usize> {
    let text = agent.client.get(PATH).await?;
    let entries: Vec<serde_json::Value> = serde_json::from_slice(&text)?;
    let whole = entries.iter().filter(|entry| {
        let figure = |name: &str| !entry["statistics"][name].is_null();
        figure("cpus_user_time_secs") && figure("mem_rss_bytes")
    });
    let whole = whole.count();
    ensure!(whole == containers, "{whole} of {containers} containers have all figures");
    Ok(whole)
}

/// The share of a CPU that the agent takes, when it is asked each second, or not at all.
async fn each_second(agent: &Agent, ask: Option<usize>) -> anyhow::Result<f64> {
    let (cpu, began) = (cpu_time(agent.pid())?, Instant::now());
    for second in 1..=SECONDS {
        if let Some(containers) = ask {
            sweep(agent, containers).await?;
        }
        tokio::time::sleep_until((began + Duration::from_secs(1) * second).into()).await;
    }
    Ok((cpu_time(agent.pid())? - cpu).as_secs_f64() / began.elapsed().as_secs_f64())
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn kib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0
}

/// What a process has for itself.
struct Cost {
    /// Bytes.
    private: u64,
    threads: usize,
}

impl Cost {
    fn of(pid: u32) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let private = text.lines().filter(|line| line.starts_with("Private_"));
        let kib: u64 = private.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum();
        let threads = std::fs::read_dir(format!("/proc/{pid}/task"))?.count();
        Ok(Self { private: kib * 1024, threads })
    }
}

/// The words of `/proc/<pid>/stat` after the name, which begin with the third.
fn stat(pid: u32) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = text.rsplit_once(')').context("/proc tells no process")?;
    Ok(rest.split_whitespace().map(str::to_owned).collect())
}

fn parent(pid: u32) -> anyhow::Result<u32> {
    Ok(stat(pid)?.get(1).context("/proc tells no parent")?.parse()?)
}

/// In user mode and in the kernel, of all threads.
#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let stat = stat(pid)?;
    let ticks = |at: usize| anyhow::Ok(stat.get(at).context("/proc tells no time")?.parse::<u64>()?);
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("the system knows no clock ticks")?;
    Ok(Duration::from_secs_f64((ticks(11)? + ticks(12)?) as f64 / per_second as f64))
}
