//! Commands about tasks that run: `ps`, `logs`, `exec`, `attach` and `kill`.
//!
//! Each asks the coordinator which task is meant and which agent has it ([`find`]), and then speaks to that agent. [`stream`] passes input and output
//! between this process and a container; [`terminal`] has the user's terminal in hand meanwhile.

mod attach;
mod exec;
mod find;
mod kill;
mod logs;
mod ps;
mod stream;
mod terminal;

use clap::{Args, Subcommand};

/// What is asked about tasks.
#[derive(Subcommand)]
pub enum TaskCommand {
    /// Run a command in the container of a task, as `docker exec` does
    Exec(exec::ExecArgs),
    /// Show what a task writes from now on, and type into its terminal if it has one
    Attach(attach::AttachArgs),
    /// Show what a task has written
    Logs(logs::LogsArgs),
    /// List tasks
    Ps(ps::PsArgs),
    /// Send a signal to a task, KILL unless another is named
    Kill(kill::KillArgs),
}

/// Which cluster.
#[derive(Args, Debug, Clone)]
pub struct Cluster {
    /// The coordinator of the cluster, or zk://HOST:PORT,.../PATH, where ZooKeeper tells which one leads
    #[arg(
        long,
        aliases = ["master", "zk"],
        value_name = "HOST:PORT|URL",
        env = "TEPUI_COORDINATOR",
        hide_env_values = true,
        default_value = "127.0.0.1:5050"
    )]
    coordinator: String,
}

/// Does it; the exit code.
///
/// # Errors
/// When the cluster cannot be reached, or no task is meant.
pub fn run(command: TaskCommand) -> anyhow::Result<i32> {
    crate::serve::log("error");
    let runtime = crate::serve::runtime()?;
    let code = runtime.block_on(async {
        match command {
            TaskCommand::Exec(args) => exec::exec(args).await,
            TaskCommand::Attach(args) => attach::attach(args).await,
            TaskCommand::Logs(args) => logs::logs(args).await,
            TaskCommand::Ps(args) => ps::ps(args).await,
            TaskCommand::Kill(args) => kill::kill(args).await,
        }
    });
    // A thread may wait for the next key for ever.
    runtime.shutdown_background();
    code
}
