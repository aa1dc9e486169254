//! From the name of an image to a running task, beside a Docker engine and `runc` with the same image from the same registry.
//!
//! Cold: nothing of the image is there but in the registry. The engine's image is removed, and the agent starts with an empty store, before
//! each turn; what an earlier turn wrote is synced first, so that nobody pays for another's writing, and as much memory as a pull fills is touched and
//! given back, so that nobody waits for the hypervisor to find it. Warm: the image is there.
//! Docker is timed by its client, from the start of the `docker` program until it says that the container runs; a task from the moment
//! ACCEPT is sent until TASK_RUNNING is read.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use tepui_api::MediaType;
use tepui_api::client::Client;

use crate::idle::{Agent, until_active, until_empty};
use crate::load::{Framework, Shape};
use crate::report::Report;

/// How often the image is pulled anew.
const COLD: usize = 5;
/// Bytes of memory touched before each pull: the image packed and unpacked, and then some.
const READY: usize = 2 << 30;

/// What there is to compare.
#[derive(Debug, Clone)]
pub struct Rivals {
    /// The image's name, with its registry.
    pub image: String,
    /// The engine's socket, as `DOCKER_HOST` has it.
    pub docker: String,
    /// A directory with the image's root file system as `rootfs`, for runc.
    pub bundle: PathBuf,
}

/// Runs the measurement and adds its rows. The program starts an agent whose image store is empty.
///
/// # Errors
/// When an engine, runc or the agent does not do what it is told.
pub async fn measure(
    master: &str,
    program: &Path,
    rivals: &Rivals,
    times: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let docker = Docker { host: rivals.docker.clone(), image: rivals.image.clone() };
    let observer = Client::new(master, MediaType::Protobuf);
    let mut agent = Agent::start(program)?;
    until_active(&observer, true).await?;
    let shape = Shape {
        cpus: 0.05,
        mem: 32.0,
        image: Some(rivals.image.clone()),
        command: "true".to_owned(),
        checked: false,
    };
    let mut framework = Framework::subscribe(master, shape).await?;

    let (mut pulled, mut docker_cold, mut cold) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..COLD {
        if turn > 0 {
            agent.end(Signal::SIGTERM)?;
            until_active(&observer, false).await?;
            agent.start_again()?;
            until_active(&observer, true).await?;
        }
        nix::unistd::sync();
        ready_memory();
        cold.extend(framework.until_running(1).await?);

        docker.forget()?;
        nix::unistd::sync();
        ready_memory();
        let pull = docker.pull()?;
        let run = docker.run(&format!("tepui-bench-cold-{turn}"))?;
        pulled.push(pull);
        docker_cold.push(pull + run);
    }
    nix::unistd::sync();

    // Each of the three in turn, so that all have the same machine.
    let runc = Runc::new(&rivals.bundle)?;
    let (mut docker_warm, mut runc_warm, mut warm) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..times {
        warm.extend(framework.until_running(1).await?);
        docker_warm.push(docker.run(&format!("tepui-bench-warm-{turn}"))?);
        runc_warm.push(runc.run(&format!("tepui-bench-warm-{}-{turn}", std::process::id()))?);
    }
    framework.teardown().await?;
    until_empty(&agent).await?;
    agent.end(Signal::SIGTERM)?;

    report.rival("docker pull, then docker run", &docker_cold);
    report.compared("  of which docker pull", &pulled);
    report.compared("ACCEPT -> TASK_RUNNING, image in the registry only", &cold);
    report.rival("docker run, image there", &docker_warm);
    report.compared("runc run, root file system there", &runc_warm);
    report.compared("ACCEPT -> TASK_RUNNING, image there", &warm);
    Ok(())
}

/// Has the machine own the memory that unpacked files will take. A virtual machine whose free memory went back to its host gets it again page by page, in
/// seconds a gigabyte, which would be most of what is measured here.
fn ready_memory() {
    std::hint::black_box(vec![1_u8; READY]);
}

/// An engine, by its client.
struct Docker {
    host: String,
    image: String,
}

/// runc, with a bundle.
struct Runc {
    bundle: PathBuf,
    state: PathBuf,
}

// === impl Docker ===

impl Docker {
    /// Removes the image, and what nothing else needs of it.
    fn forget(&self) -> anyhow::Result<()> {
        // There is none in the first turn.
        let _ = self.command(&["image", "rm", "--force", &self.image]).stderr(Stdio::null()).status()?;
        let left = self.command(&["image", "ls", "--quiet"]).stdout(Stdio::piped()).output()?;
        ensure!(left.stdout.is_empty(), "the engine still has images");
        Ok(())
    }

    fn pull(&self) -> anyhow::Result<Duration> {
        timed(&mut self.command(&["pull", "--quiet", &self.image]))
    }

    /// Until the engine says that it runs. It is removed after that.
    fn run(&self, name: &str) -> anyhow::Result<Duration> {
        let words = ["run", "--detach", "--network=host", "--name", name, &self.image, "sleep", "60"];
        let time = timed(&mut self.command(&words))?;
        timed(&mut self.command(&["rm", "--force", name]))?;
        Ok(time)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", &self.host).args(words).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }
}

// === impl Runc ===

impl Runc {
    fn new(bundle: &Path) -> anyhow::Result<Self> {
        let namespaces: Vec<_> =
            ["pid", "mount", "ipc", "uts"].iter().map(|kind| serde_json::json!({ "type": kind })).collect();
        let spec = serde_json::json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": { "uid": 0, "gid": 0 }, "args": ["/bin/sleep", "60"], "cwd": "/", "env": ["PATH=/usr/bin:/bin"]
            },
            "root": { "path": "rootfs" },
            "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
            "linux": { "namespaces": namespaces }
        });
        std::fs::write(bundle.join("config.json"), serde_json::to_vec(&spec)?)?;
        Ok(Self { bundle: bundle.to_owned(), state: bundle.join("state") })
    }

    /// Until runc has started it and leaves. It is removed after that.
    fn run(&self, name: &str) -> anyhow::Result<Duration> {
        let time = timed(&mut self.command(&["run", "--detach", name]))?;
        timed(&mut self.command(&["delete", "--force", name]))?;
        Ok(time)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("runc");
        command.arg("--root").arg(&self.state).args(words).current_dir(&self.bundle);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }
}

fn timed(command: &mut Command) -> anyhow::Result<Duration> {
    let started = Instant::now();
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    let time = started.elapsed();
    ensure!(status.success(), "{command:?}: {status}");
    Ok(time)
}
