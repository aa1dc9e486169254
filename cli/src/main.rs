//! The `tepui` binary: one file, a subcommand for each part it can play.
//!
//! `coordinator` and `agent` are servers ([`serve`]), with flags in Mesos' forms (`tepui-server`); `run` is a
//! framework of its own ([`run`]); `images` looks after a store of images ([`images`]); `exec`, `attach`, `logs`,
//! `ps` and `kill` are about tasks that run ([`tasks`]). Whatever will make containers forks its zygote first of all, while the
//! process has one thread and little memory.

mod images;
mod run;
mod serve;
mod tasks;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A cluster manager that speaks Mesos' API: pools machines and runs tasks in containers.
#[derive(Parser)]
#[command(name = "tepui", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(Box<run::RunArgs>),
    Images(Box<images::ImagesArgs>),
    #[command(flatten)]
    Tasks(tasks::TaskCommand),
    /// Pool the machines of a cluster and forward offers of their resources to frameworks
    #[command(disable_help_flag = true)]
    Coordinator {
        /// Flags, as `tepui coordinator --help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        flags: Vec<OsString>,
    },
    /// Offer this machine's resources to a coordinator and run tasks in containers
    #[command(disable_help_flag = true)]
    Agent {
        /// Flags, as `tepui agent --help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        flags: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse_from(underscores_to_hyphens(std::env::args_os()));
    let outcome = match cli.command {
        Command::Coordinator { flags } => serve::coordinator(&flags).map(|()| 0),
        Command::Agent { flags } => serve::agent(&flags).map(|()| 0),
        Command::Run(args) => run::run(*args),
        Command::Images(args) => images::images(*args),
        Command::Tasks(command) => tasks::run(command),
    };
    match outcome {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            eprintln!("tepui: {error:#}");
            ExitCode::from(run::EXIT_NOT_RUN)
        }
    }
}

/// Lets `tepui run --docker_registry` be the same as `--docker-registry`, as it is for the servers. What
/// comes after `--`, or after the first word of the command, is the task's.
fn underscores_to_hyphens(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<OsString> = args.collect();
    if args.get(1).is_none_or(|word| word != "run") {
        return args;
    }
    for arg in args.iter_mut().skip(2) {
        let Some(text) = arg.to_str() else { continue };
        let Some(body) = text.strip_prefix("--").filter(|body| !body.is_empty()) else {
            if text == "--" {
                break;
            }
            continue;
        };
        let (name, value) = body.split_once('=').map_or((body, None), |(name, value)| (name, Some(value)));
        let name = name.replace('_', "-");
        *arg = match value {
            Some(value) => format!("--{name}={value}").into(),
            None => format!("--{name}").into(),
        };
    }
    args
}
