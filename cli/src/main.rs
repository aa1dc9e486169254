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
    let args = cluster_behind_command(std::env::args_os().collect());
    let cli = Cli::parse_from(underscores_to_hyphens(args));
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

/// Lets `tepui --zk=URL run` be the same as `tepui run --zk=URL`: which cluster is meant may come first.
fn cluster_behind_command(mut args: Vec<OsString>) -> Vec<OsString> {
    let names_cluster = |word: &&OsString| {
        let word = word.to_string_lossy();
        ["--zk=", "--coordinator=", "--master="].iter().any(|flag| word.starts_with(flag))
    };
    let flags = args.iter().skip(1).take_while(names_cluster).count();
    if let Some(both) = args.get_mut(1..flags + 2) {
        both.rotate_right(1);
    }
    args
}

/// Lets `tepui run --docker_registry` be the same as `--docker-registry`, as it is for the servers. What
/// comes after `--`, or after the first word of the command, is the task's.
fn underscores_to_hyphens(mut args: Vec<OsString>) -> Vec<OsString> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(words: &[&str]) -> Vec<String> {
        let args = words.iter().map(OsString::from).collect();
        cluster_behind_command(args).into_iter().filter_map(|word| word.into_string().ok()).collect()
    }

    #[test]
    fn the_cluster_may_come_before_the_command() {
        assert_eq!(
            moved(&["tepui", "--zk=zk://a/b", "ps", "--all"]),
            ["tepui", "ps", "--zk=zk://a/b", "--all"]
        );
        assert_eq!(moved(&["tepui", "--zk=zk://a/b"]), ["tepui", "--zk=zk://a/b"]);
        assert_eq!(moved(&["tepui", "run", "--", "--zk=x"]), ["tepui", "run", "--", "--zk=x"]);
        assert_eq!(moved(&["tepui"]), ["tepui"]);
    }
}
