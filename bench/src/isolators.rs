//! What each isolator adds to the launch of a container, beside the bare floor of the same run.
//!
//! One row for a container without isolators, for each isolator alone (with those that it needs), for the agent's default list, and for all that
//! work together here. A container is made by the agent's own containerizer, zygote and shim included, and runs `/bin/true` like the floor.
//! "launch" is until it runs: to be compared with `create` and `start` of the floor; "cycle" goes on until nothing of it is left.
//!
//! The rows take turns, a few containers each, so that a noisy moment of the machine hits all of them and the floor alike. Each turn is a process
//! of its own (this binary again, with [`CHILD`] set): the zygote has to be forked before there is a second thread.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};
use tepui_agent::containerizer::{ContainerConfig, NativeContainerizer, Settings};
use tepui_api::v1::{CommandInfo, ContainerId, Resource, value};
use tepui_images::StoreOptions;
use tepui_isolators::plugin::{Plugin, PluginSettings, Timeouts};
use tepui_shim::Zygote;

use crate::floor;
use crate::report::Report;

/// How many turns the samples are divided among.
const TURNS: usize = 5;
/// Tells a new process of this binary which isolators to measure, and how many containers to launch.
const CHILD: &str = "TEPUI_BENCH_ISOLATORS";
const CHILD_TIMES: &str = "TEPUI_BENCH_ISOLATORS_TIMES";
/// Tells it of a plugin, as in the agent's `--isolator_plugin`.
const CHILD_PLUGIN: &str = "TEPUI_BENCH_ISOLATORS_PLUGIN";
/// No isolation at all, nor figures.
const NONE: &str = "filesystem/posix";

/// One row of the table.
struct Row {
    what: String,
    isolation: String,
    plugin: Option<PluginSettings>,
    launch: Vec<Duration>,
    cycle: Vec<Duration>,
}

impl Row {
    fn new(what: &str, isolation: String) -> Self {
        let what = what.to_owned();
        Self { what, isolation, plugin: None, launch: Vec::new(), cycle: Vec::new() }
    }
}

/// What a child has measured, in microseconds: until it ran, and until all of it was gone.
#[derive(Serialize, Deserialize)]
enum Figures {
    Times(Vec<(u64, u64)>),
    /// The host, or the agent without further flags, does not have what the isolator needs.
    Impossible(String),
}

/// Launches `times` containers with each isolator, and adds the rows.
///
/// # Errors
/// Without root, or when a container cannot be run.
pub fn measure(times: usize, plugin: Option<&PluginSettings>, report: &mut Report) -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("--isolators needs root: containers are made on this machine");
    }
    let each = times.div_ceil(TURNS).max(2);
    let mut rows = rows()?;
    if let Some(plugin) = plugin {
        let what = format!("a plugin ({})", plugin.name);
        let isolation = format!("filesystem/linux,{}", plugin.name);
        rows.push(Row { plugin: Some(plugin.clone()), ..Row::new(&what, isolation) });
    }
    let (mut floor_launch, mut floor_cycle) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        for steps in floor::libcontainer(each)? {
            floor_launch.push(steps[..2].iter().sum());
            floor_cycle.push(steps.iter().sum());
        }
        for row in &mut rows {
            let Figures::Times(figures) = run_child(&row.isolation, row.plugin.as_ref(), each)? else {
                bail!("{} can be had no more", row.what)
            };
            for (launch, cycle) in figures {
                row.launch.push(Duration::from_micros(launch));
                row.cycle.push(Duration::from_micros(cycle));
            }
        }
    }
    report.isolators(
        &floor_launch,
        &floor_cycle,
        rows.into_iter().map(|row| (row.what, row.launch, row.cycle)),
    );
    Ok(())
}

/// What is to be measured on this host. Says what cannot be.
fn rows() -> anyhow::Result<Vec<Row>> {
    let row = Row::new;
    let mut rows = vec![row("no isolator", NONE.to_owned())];
    let mut together = vec!["filesystem/linux".to_owned()];
    for (name, _) in tepui_isolators::known().filter(|(name, here)| *here && *name != NONE) {
        let alone = name.to_owned();
        let with_linux = format!("filesystem/linux,{name}");
        let mut why = String::new();
        let found = [alone, with_linux].into_iter().find(|isolation| match run_child(isolation, None, 1) {
            Ok(Figures::Times(_)) => true,
            Ok(Figures::Impossible(reason)) => {
                why = reason;
                false
            }
            Err(error) => {
                why = error.to_string();
                false
            }
        });
        let Some(isolation) = found else {
            eprintln!("{name} is left out: {why}");
            continue;
        };
        rows.push(row(name, isolation));
        if !name.starts_with("posix/") || name == "posix/rlimits" {
            together.push(name.to_owned());
        }
    }
    together.dedup();
    let default = tepui_agent::flags::Settings::new("localhost:5050", "/").isolation;
    rows.push(row("the agent's default list", default));
    together.sort();
    together.dedup();
    let all = together.join(",");
    match run_child(&all, None, 1)? {
        Figures::Times(_) => rows.push(row(&format!("all {} at once", together.len()), all)),
        Figures::Impossible(why) => eprintln!("all at once is left out: {why}"),
    }
    Ok(rows)
}

fn run_child(isolation: &str, plugin: Option<&PluginSettings>, times: usize) -> anyhow::Result<Figures> {
    let output = Command::new(std::env::current_exe()?)
        .env(CHILD, isolation)
        .env(CHILD_TIMES, times.to_string())
        .envs(plugin.map(|plugin| (CHILD_PLUGIN, plugin.to_string())))
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start the process that launches containers")?;
    ensure!(output.status.success(), "launching containers with {isolation} failed: {}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// When this process is the child that measures: does so, prints the times and returns true.
///
/// # Errors
/// When a container cannot be run.
pub fn child() -> anyhow::Result<bool> {
    let Some(isolation) = std::env::var_os(CHILD) else { return Ok(false) };
    let isolation = isolation.to_str().context("which isolators?")?;
    let times: usize = std::env::var(CHILD_TIMES).unwrap_or_default().parse().context("how many times?")?;
    // Before there is a second thread.
    let zygote = Zygote::fork()?;
    let scratch = Scratch::new()?;
    // As the agent does by default.
    let _ = tepui_isolators::cgroups::favor_dynmods(true);
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build()?;
    let figures = threads.block_on(run(&scratch.0, isolation, zygote, times))?;
    println!("{}", serde_json::to_string(&figures)?);
    Ok(true)
}

/// A directory and a place for cgroups that go away with their user. Not below /tmp: a container has one of its own.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let path = PathBuf::from(format!("/var/tmp/tepui-bench-isolators-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    fn cgroups_root() -> PathBuf {
        PathBuf::from(format!("tepui-bench-isolators-{}", std::process::id()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = tepui_shim::remove_tree(&self.0) {
            eprintln!("{error}");
        }
        if let Err(error) = tepui_isolators::cgroups::remove_empty_root(&Self::cgroups_root()) {
            eprintln!("{error}");
        }
    }
}

async fn run(dir: &Path, isolation: &str, zygote: Zygote, times: usize) -> anyhow::Result<Figures> {
    let settings = Settings {
        rotation: None,
        runtime_dir: dir.join("run"),
        work_dir: dir.join("work"),
        isolation: isolation.split(',').map(str::to_owned).collect(),
        isolators: tepui_isolators::Settings {
            cgroups_root: Scratch::cgroups_root(),
            ..tepui_isolators::Settings::default()
        },
        image_store_dir: dir.join("store"),
        image_options: StoreOptions::default(),
        image_backend: None,
        ignore_image_runtime: false,
        sandbox_directory: "/mnt/mesos/sandbox".to_owned(),
        shim_patience: Duration::from_secs(10),
    };
    let plugin = std::env::var(CHILD_PLUGIN).ok().map(|text| text.parse::<PluginSettings>()).transpose()?;
    let customs = plugin.map(|plugin| Plugin::custom(plugin, Timeouts::default())).into_iter().collect();
    let (containerizer, mut exits) = match NativeContainerizer::with_isolators(settings, zygote, customs) {
        Ok(made) => made,
        Err(error) => return Ok(Figures::Impossible(error.to_string())),
    };
    let mut figures = Vec::new();
    // The first finds everything cold.
    for number in 0..=times {
        let config = config(dir, number)?;
        let id = config.container_id.clone();
        let began = Instant::now();
        containerizer.prepare(config).await?;
        containerizer.start(&id).await?;
        let launch = began.elapsed();
        let exited = exits.recv().await.context("the containerizer is gone")?;
        ensure!(exited.status == Some(0), "a container ended with {:?}", exited.status);
        containerizer.destroy(&id).await?;
        let cycle = began.elapsed();
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        figures.push((micros(launch), micros(cycle)));
    }
    containerizer.stop().await;
    figures.remove(0);
    Ok(Figures::Times(figures))
}

fn config(dir: &Path, number: usize) -> anyhow::Result<ContainerConfig> {
    let sandbox = dir.join("sandboxes").join(number.to_string());
    fs::create_dir_all(&sandbox)?;
    for name in ["stdout", "stderr"] {
        fs::write(sandbox.join(name), "")?;
    }
    let scalar = |name: &str, amount: f64| Resource {
        name: name.to_owned(),
        r#type: value::Type::Scalar.into(),
        scalar: Some(value::Scalar { value: amount }),
        ..Resource::default()
    };
    Ok(ContainerConfig {
        container_id: ContainerId::new(format!("c{number}")),
        task: None,
        executor: None,
        resources: vec![scalar("cpus", 1.0), scalar("mem", 64.0), scalar("disk", 64.0)],
        limits: tepui_isolators::Limits::new(),
        command: CommandInfo {
            shell: Some(false),
            value: Some("/bin/true".to_owned()),
            arguments: vec!["/bin/true".to_owned()],
            ..CommandInfo::default()
        },
        container: None,
        environment: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
        user: None,
        sandbox,
        holder: false,
    })
}
