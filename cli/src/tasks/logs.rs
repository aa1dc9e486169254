//! `tepui logs`: what a task has written, as long as its sandbox is there.

use std::time::Duration;

use clap::Args;
use tepui_api::v1::ExecutorId;
use tokio::sync::watch;

use super::Cluster;
use super::find::{Found, Leader};
use crate::run::Follower;

/// Between two looks at whether a task that is followed has ended.
const PAUSE: Duration = Duration::from_secs(1);

/// Which task, and how.
#[derive(Args)]
pub struct LogsArgs {
    #[command(flatten)]
    cluster: Cluster,
    /// Go on until the task has ended
    #[arg(short, long)]
    follow: bool,
    /// Only what it wrote to its standard output
    #[arg(long, conflicts_with = "stderr")]
    stdout: bool,
    /// Only what it wrote to its standard error
    #[arg(long)]
    stderr: bool,
    /// The task: its id or the beginning of it, or its name. It may be over
    task: String,
}

/// Shows it.
pub(super) async fn logs(args: LogsArgs) -> anyhow::Result<i32> {
    let mut leader = Leader::find(&args.cluster).await?;
    let found = leader.task(&args.task, true).await?;
    let follower = Follower::of_run(found.agent.clone(), &run(&found), !args.stderr, !args.stdout);
    let (ended, is_over) = watch::channel(!args.follow);
    let watching = async {
        while !*ended.borrow() {
            tokio::time::sleep(PAUSE).await;
            // A coordinator that is away is asked again.
            if let Ok((alive, _)) = leader.tasks().await {
                let lives = alive.iter().any(|task| {
                    task.task_id == found.task.task_id && task.framework_id == found.task.framework_id
                });
                ended.send_replace(!lives);
            }
        }
        std::future::pending::<std::convert::Infallible>().await
    };
    tokio::select! {
        shown = follower.follow(is_over) => shown?,
        never = watching => match never {},
    }
    Ok(0)
}

/// Where its files are, as the agent shows them.
fn run(found: &Found) -> String {
    let task = &found.task;
    let executor = task.executor_id.clone().unwrap_or_else(|| ExecutorId::new(task.task_id.value.clone()));
    let root = found.container().ok().map(|id| {
        let mut root = id;
        while let Some(parent) = root.parent {
            root = *parent;
        }
        root.value
    });
    let run = root.unwrap_or_else(|| "latest".to_owned());
    let inner = match found.container().ok().filter(|id| id.parent.is_some()) {
        // A task of a group has a sandbox in its executor's.
        Some(id) => format!("/containers/{}", id.value),
        None => String::new(),
    };
    format!("/frameworks/{}/executors/{executor}/runs/{run}{inner}", task.framework_id)
}
