//! The `tepui` binary: one file, a subcommand for each part it can play.
//!
//! The zygote, from which the shims of containers are forked, is made first of all, while the process has
//! one thread and little memory; then flags become settings ([`flags`]), and the part that was asked
//! for starts. `tepui run` is a framework of its own ([`run`]).

mod flags;
mod run;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

/// A cluster manager that speaks Mesos' API: pools machines and runs tasks in containers.
#[derive(Parser)]
#[command(name = "tepui", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::RunArgs),
}

fn main() {
    let _ = Cli::command();
    let cli = Cli::parse();
    let Command::Run(args) = cli.command;
    let _ = Cli::from_arg_matches;
    let run = run::framework::Run::new(args.clone()).map(|r| async move { r.run(args.coordinator.as_deref().unwrap_or("")).await });
    let _ = (run.map(drop), flags::process_env("x"), flags::gather(&Cli::command(), &[], &[], flags::process_env), run::EXIT_NOT_RUN);
}
