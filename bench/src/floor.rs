//! The floor: what a container costs when nothing is around it.
//!
//! Bare `libcontainer`, and `runc run` of the same thing where runc is installed. Both run `/bin/true` on the host's
//! root file system, which a child process with one thread has mounted read-only in a mount namespace of its own. The child
//! removes nothing; this process, which does not see the mount, removes the directory when the child has ended.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use crate::report::{FLOOR, Report};

/// Measures both floors `times` times each and adds their rows.
///
/// # Errors
/// Without root, or when a container cannot be run.
pub fn measure(times: usize, report: &mut Report) -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("--floor needs root: containers are made on this machine");
    }
    let dir = Scratch::new()?;
    let figures = figures_of_child(&dir.0, times, true)?;
    let sums = |steps: std::ops::Range<usize>| -> Vec<Duration> {
        let micros = |row: &[u64; 4]| row[steps.clone()].iter().sum();
        figures.libcontainer.iter().map(|row| Duration::from_micros(micros(row))).collect()
    };
    report.latency(FLOOR, sums(0..4));
    report.latency("bare libcontainer: create and start", sums(0..2));
    match figures.runc {
        Some(micros) => report.latency("runc run", micros.into_iter().map(Duration::from_micros).collect()),
        None => eprintln!("runc is not installed: its row is left out"),
    }
    Ok(())
}

/// Bare libcontainer alone: the steps create, start, wait and delete of each container.
///
/// # Errors
/// When a container cannot be run.
pub fn libcontainer(times: usize) -> anyhow::Result<Vec<[Duration; 4]>> {
    let dir = Scratch::new()?;
    let figures = figures_of_child(&dir.0, times, false)?;
    Ok(figures.libcontainer.into_iter().map(|row| row.map(Duration::from_micros)).collect())
}

/// What the child has measured, in microseconds.
#[derive(Serialize, Deserialize)]
struct Figures {
    /// Create, start, wait, delete.
    libcontainer: Vec<[u64; 4]>,
    runc: Option<Vec<u64>>,
}

/// A directory that goes away with its user.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("tepui-bench-floor-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = tepui_shim::remove_tree(&self.0) {
            eprintln!("{error}");
        }
    }
}

/// In a process of its own, since it enters a mount namespace: this binary again, with [`CHILD`] set.
fn figures_of_child(dir: &Path, times: usize, with_runc: bool) -> anyhow::Result<Figures> {
    let output = Command::new(std::env::current_exe()?)
        .env(CHILD, dir)
        .env(CHILD_TIMES, times.to_string())
        .envs(with_runc.then_some((CHILD_RUNC, "1")))
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start the process that measures the floor")?;
    if !output.status.success() {
        bail!("measuring the floor failed: {}", output.status);
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Tells a new process of this binary that it is to measure libcontainer, and where.
const CHILD: &str = "TEPUI_BENCH_FLOOR_DIR";
const CHILD_TIMES: &str = "TEPUI_BENCH_FLOOR_TIMES";
/// Set if runc is to be measured too, where it is installed.
const CHILD_RUNC: &str = "TEPUI_BENCH_FLOOR_RUNC";

/// When this process is the child that measures: does so, prints the times and returns true.
///
/// # Errors
/// When a container cannot be run.
pub fn child() -> anyhow::Result<bool> {
    let Some(dir) = std::env::var_os(CHILD) else { return Ok(false) };
    let dir = Path::new(&dir);
    let times: usize = std::env::var(CHILD_TIMES).unwrap_or_default().parse().context("how many times?")?;
    tepui_shim::prepare_bare_root(dir)?;
    let micros = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
    let mut libcontainer = Vec::new();
    for n in 0..times {
        let t = tepui_shim::bare_container_cycle(dir, &format!("tepui-bench-{}-{n}", std::process::id()))?;
        libcontainer.push([t.create, t.start, t.wait, t.delete].map(micros));
    }
    let version =
        || Command::new("runc").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let wanted = std::env::var_os(CHILD_RUNC).is_some();
    let runc = (wanted && version().is_ok()).then(|| runc(dir, times)).transpose()?;
    let runc = runc.map(|times| times.into_iter().map(micros).collect());
    println!("{}", serde_json::to_string(&Figures { libcontainer, runc })?);
    Ok(true)
}

/// On the root file system that this process has prepared.
fn runc(dir: &Path, times: usize) -> anyhow::Result<Vec<Duration>> {
    let bundle = dir.join("runc");
    fs::create_dir_all(&bundle)?;
    fs::write(bundle.join("config.json"), serde_json::to_vec(&runc_spec(&dir.join("rootfs")))?)?;
    let mut samples = Vec::new();
    for n in 0..times {
        let started = Instant::now();
        let status = Command::new("runc")
            .arg("--root")
            .arg(dir.join("runc-state"))
            .args(["run", &format!("tepui-bench-runc-{}-{n}", std::process::id())])
            .current_dir(&bundle)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .context("cannot run runc")?;
        samples.push(started.elapsed());
        if !status.success() {
            bail!("runc run failed: {status}");
        }
        tepui_shim::renew_bare_root(dir)?;
    }
    Ok(samples)
}

fn runc_spec(root: &Path) -> serde_json::Value {
    let namespaces: Vec<_> =
        ["pid", "mount", "ipc", "uts"].iter().map(|kind| serde_json::json!({ "type": kind })).collect();
    serde_json::json!({
        "ociVersion": "1.0.2",
        "process": { "user": { "uid": 0, "gid": 0 }, "args": ["/bin/true"], "cwd": "/", "env": ["PATH=/usr/bin:/bin"] },
        "root": { "path": root },
        "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
        "linux": { "namespaces": namespaces }
    })
}
