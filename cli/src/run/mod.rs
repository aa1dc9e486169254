//! `tepui run`: one command, run as a task, from anywhere to its exit code.
//!
//! [`args`] says what is wanted; [`leader`] finds the coordinator; [`embedded`] starts a coordinator and an agent when none is named, and
//! [`janitor`] sees to it that nothing of them is left;
//! [`framework`] is the scheduler that launches the task and follows it, with [`output`] showing what the
//! task prints and [`progress`] the pull of its image.

mod args;
mod embedded;
mod fit;
mod framework;
mod janitor;
pub(crate) mod leader;
mod output;
mod progress;
mod task;

use anyhow::Context as _;

pub use args::RunArgs;
pub(crate) use framework::authority_of;
pub(crate) use output::Follower;

/// Exit code when there was nothing to take one from, as shells and Docker have it for "could not run".
pub const EXIT_NOT_RUN: u8 = 125;

/// Runs what the arguments say; the exit code of the task.
///
/// # Errors
/// When there is no cluster to run on, or it is gone for good.
pub fn run(args: RunArgs) -> anyhow::Result<i32> {
    let run = framework::Run::new(args.clone())?;
    match &args.coordinator {
        Some(coordinator) => {
            crate::serve::log("error");
            Ok(crate::serve::runtime()?.block_on(async {
                let coordinator = leader::Coordinator::new(coordinator).context("--coordinator")?;
                anyhow::Ok(run.run(coordinator).await?)
            })?)
        }
        None => embedded::run(&args, run),
    }
}
