//! Measures how fast tasks start and end, beside the floor below which nothing can go.
//!
//! `tepui-bench load` is a plain v1 framework, so that it runs against any Mesos-compatible master: it
//! launches tasks one by one for latencies ([`load::Latencies`]) and many at a time for throughput
//! ([`load::Throughput`]). `--floor` measures, in the same run, bare `libcontainer` and `runc run`
//! ([`floor`]). `--restart` kills an agent under many containers and times how soon it is back ([`restart`]). `--usage` asks an agent
//! with many idle containers what they use, and looks at what each costs ([`usage`]). `--isolators` launches containers with each isolator
//! in turn ([`isolators`]). `--images` starts tasks on an image beside a Docker engine and runc ([`images`]). A table goes to stdout, JSON to `--json`. Figures are printed, never asserted.

mod floor;
mod idle;
mod images;
mod isolators;
mod load;
mod report;
mod restart;
mod usage;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use tepui_isolators::plugin::PluginSettings;

#[derive(Parser, Debug)]
#[command(name = "tepui-bench", about = "Load generator and benchmarks for Mesos-compatible masters")]
struct Args {
    /// The master to load
    #[arg(long, value_name = "HOST:PORT")]
    master: Option<String>,
    /// How many tasks to launch one by one, for latencies
    #[arg(long, default_value_t = 100)]
    sequential: usize,
    /// How many tasks to launch for throughput
    #[arg(long, default_value_t = 1000)]
    tasks: usize,
    /// How many tasks may be in flight at once
    #[arg(long, default_value_t = 32)]
    inflight: usize,
    /// CPUs of each task
    #[arg(long, default_value_t = 0.05)]
    cpus: f64,
    /// Memory of each task, in MB
    #[arg(long, default_value_t = 32.0)]
    mem: f64,
    /// Image of the tasks, as a Docker image name
    #[arg(long)]
    image: Option<String>,
    /// The command of every task, run by /bin/sh
    #[arg(long, default_value = "true")]
    command: String,
    /// Measure bare libcontainer and runc as well, this many times each (needs root)
    #[arg(long, default_value_t = 0)]
    floor: usize,
    /// Instead of loading the master: kill and restart an agent of its under so many containers
    #[arg(long, value_name = "CONTAINERS", default_value_t = 0, requires_all = ["agent", "master"])]
    restart: usize,
    /// Instead of loading the master: ask an agent of its with so many idle containers what they use
    #[arg(long, value_name = "CONTAINERS", default_value_t = 0, requires_all = ["agent", "master"])]
    usage: usize,
    /// Launch so many containers with each isolator, without any master (needs root)
    #[arg(long, value_name = "TIMES", default_value_t = 0)]
    isolators: usize,
    /// Instead of loading the master: start tasks on --image so often, beside a Docker engine and runc
    #[arg(long, value_name = "TIMES", default_value_t = 0, requires_all = ["agent", "master", "image", "docker", "bundle"])]
    images: usize,
    /// With --images: the Docker engine's socket, such as unix:///var/run/docker.sock
    #[arg(long, value_name = "URL")]
    docker: Option<String>,
    /// With --images: a directory with the image's root file system as rootfs, for runc
    #[arg(long, value_name = "DIRECTORY")]
    bundle: Option<PathBuf>,
    /// With --isolators: a plugin as in the agent's --isolator_plugin, for one more row
    #[arg(long, value_name = "NAME=PROGRAM", requires = "isolators")]
    plugin: Option<PluginSettings>,
    /// The program that starts that agent and stays it, printing where it listens; needs room for all containers
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// How often to kill and restart it
    #[arg(long, default_value_t = 5)]
    turns: usize,
    /// Write all figures here as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Args {
    /// What tasks on an image are to be compared with, if they are.
    fn rivals(&self) -> Option<images::Rivals> {
        let (image, docker, bundle) = (self.image.clone()?, self.docker.clone()?, self.bundle.clone()?);
        (self.images > 0).then_some(images::Rivals { image, docker, bundle })
    }
}

fn main() -> anyhow::Result<()> {
    if floor::child()? || isolators::child()? {
        return Ok(());
    }
    let args = Args::parse();
    let mut report = report::Report::default();
    if args.floor > 0 {
        floor::measure(args.floor, &mut report)?;
    }
    if args.isolators > 0 {
        isolators::measure(args.isolators, args.plugin.as_ref(), &mut report)?;
    }
    if let (Some(master), Some(agent), 1..) = (&args.master, &args.agent, args.usage) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(usage::measure(master, agent, args.usage, &mut report))?;
    } else if let (Some(master), Some(agent), Some(rivals)) = (&args.master, &args.agent, args.rivals()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(images::measure(master, agent, &rivals, args.images, &mut report))?;
    } else if let (Some(master), Some(agent), 1..) = (&args.master, &args.agent, args.restart) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(restart::measure(master, agent, args.restart, args.turns, &mut report))?;
    } else if let Some(master) = &args.master {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shape = load::Shape {
            cpus: args.cpus,
            mem: args.mem,
            image: args.image.clone(),
            command: args.command.clone(),
            checked: false,
        };
        runtime.block_on(load::measure(
            master,
            &shape,
            args.sequential,
            args.tasks,
            args.inflight,
            &mut report,
        ))?;
    }
    print!("{report}");
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
