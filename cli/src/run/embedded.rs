//! A coordinator and an agent inside this process, for `tepui run` without a cluster.
//!
//! They listen on loopback, on free ports, and keep what they must in a directory of their own, which goes away
//! with them unless `--work-dir` names one. Unpacked images stay in `--image-store` for the next run.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tepui_shim::Zygote;

use super::args::RunArgs;
use super::framework::Run;
use super::janitor::Janitor;
use super::leader::Coordinator;
use crate::serve;

/// Starts both, runs, stops both; the exit code of the task.
///
/// # Errors
/// Without root, or when one of them cannot start.
pub fn run(args: &RunArgs, run: Run) -> anyhow::Result<i32> {
    serve::need_root("tepui run without --coordinator")?;
    let home = Home::new(args.work_dir.as_deref())?;
    // Both are forked while this process has one thread and little memory.
    let janitor = Janitor::fork(&home)?;
    let zygote = Zygote::fork()?;
    serve::log("error");
    let outcome = serve::runtime()?.block_on(within(args, run, zygote, &home));
    home.remove();
    janitor.dismiss();
    outcome
}

async fn within(args: &RunArgs, run: Run, zygote: Zygote, home: &Home) -> anyhow::Result<i32> {
    let coordinator = tepui_coordinator::start(coordinator_settings(home)?).await?;
    let address = coordinator.address();
    let agent = match tepui_agent::start(agent_settings(args, home, &address.to_string())?, zygote).await {
        Ok(agent) => agent,
        Err(error) => {
            let _ = coordinator.stop().await;
            return Err(error.into());
        }
    };
    if !args.quiet {
        eprintln!("tepui: coordinator at http://{address}, agent at http://{}", agent.address());
        eprintln!("tepui: sandbox below {}", home.path.display());
    }
    let outcome = run.run(Coordinator::At(address.to_string())).await;
    agent.stop_and_clean_up().await;
    coordinator.stop().await?;
    Ok(outcome?)
}

fn coordinator_settings(home: &Home) -> anyhow::Result<tepui_coordinator::Settings> {
    let work_dir = home.path.join("coordinator");
    Ok(serve::settings(
        "coordinator",
        &[
            ("ip", Ipv4Addr::LOCALHOST.to_string()),
            ("port", "0".to_owned()),
            ("hostname", "localhost".to_owned()),
            ("registry", "in_memory".to_owned()),
            ("work_dir", text(&work_dir)?),
        ],
    )?)
}

fn agent_settings(args: &RunArgs, home: &Home, master: &str) -> anyhow::Result<tepui_agent::flags::Settings> {
    let mut flags = vec![
        ("ip", Ipv4Addr::LOCALHOST.to_string()),
        ("port", "0".to_owned()),
        ("hostname", "localhost".to_owned()),
        ("master", master.to_owned()),
        ("work_dir", text(&home.path.join("agent"))?),
        ("runtime_dir", text(&home.runtime)?),
        ("cgroups_root", home.cgroups.clone()),
        ("docker_store_dir", text(&args.image_store)?),
    ];
    if let Some(registry) = &args.docker_registry {
        flags.push(("docker_registry", registry.clone()));
    }
    Ok(serve::settings("agent", &flags)?)
}

fn text(path: &Path) -> anyhow::Result<String> {
    path.to_str().map(str::to_owned).with_context(|| format!("{} is not UTF-8", path.display()))
}

/// Where the two live.
pub struct Home {
    path: PathBuf,
    runtime: PathBuf,
    /// Beneath each cgroup tree.
    pub cgroups: String,
    keep: bool,
}

// === impl Home ===

impl Home {
    fn new(wanted: Option<&Path>) -> anyhow::Result<Self> {
        let runtime = PathBuf::from(format!("/run/tepui-run-{}", std::process::id()));
        let (path, keep) = match wanted {
            Some(path) => (std::path::absolute(path)?, true),
            None => (std::env::temp_dir().join(format!("tepui-run-{}", std::process::id())), false),
        };
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let cgroups = format!("tepui-run-{}", std::process::id());
        Ok(Self { path, runtime, cgroups, keep })
    }

    /// Removes all but what was to be kept.
    pub fn remove(&self) {
        // Never through a mount: what is below may be seen by containers.
        let _ = tepui_shim::remove_tree(&self.runtime);
        let _ = tepui_isolators::cgroups::remove_empty_root(Path::new(&self.cgroups));
        if !self.keep {
            let _ = tepui_shim::remove_tree(&self.path);
        }
    }
}
