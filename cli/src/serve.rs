//! `tepui coordinator` and `tepui agent`: flags to settings, start, say where, stop on SIGTERM or Ctrl-C.
//!
//! The first line on stdout is `listening on IP:PORT`, once the server answers, so that whoever starts one
//! with `--port=0` can read the port. Everything else goes to stderr as log lines.

use std::ffi::OsString;
use std::io::Write as _;

use anyhow::Context as _;
use clap::{Args, Command, FromArgMatches};
use tokio::signal::unix::{SignalKind, signal};

use crate::flags::{self, Absent};

/// The flags of a server, and of its log.
#[derive(Args)]
struct Flags<S: Args> {
    #[command(flatten)]
    settings: S,
    #[command(flatten)]
    log: LogFlags,
}

/// How much is logged.
#[derive(Args)]
struct LogFlags {
    /// Log lines of this level and above: DEBUG, INFO, WARNING or ERROR
    #[arg(long = "logging_level", value_name = "LEVEL", default_value = "INFO", help_heading = "Log",
          value_parser = ["DEBUG", "INFO", "WARNING", "ERROR"], ignore_case = true)]
    logging_level: String,
    /// Log nothing but errors
    #[arg(long, value_name = "BOOL", default_value_t = false, action = clap::ArgAction::Set, help_heading = "Log")]
    quiet: bool,
}

/// Runs a coordinator until it is told to stop.
///
/// # Errors
/// When the flags make no sense or it cannot start.
pub fn coordinator(given: &[OsString]) -> anyhow::Result<()> {
    let about = "Pools the machines of a cluster and forwards offers of their resources to frameworks";
    let flags: Flags<tepui_coordinator::Settings> =
        parse("coordinator", about, tepui_coordinator::NOT_IMPLEMENTED, given)?;
    log(flags.log.level());
    runtime()?.block_on(async {
        let mut running = tepui_coordinator::start(flags.settings).await?;
        announce(running.address());
        tokio::select! {
            stop = asked_to_stop() => {
                stop?;
                Ok(running.stop().await?)
            }
            failure = running.failed() => Err(failure.into()),
        }
    })
}

/// Runs an agent until it is told to stop. Its containers go on.
///
/// # Errors
/// When the flags make no sense, without root, or when it cannot start.
pub fn agent(given: &[OsString]) -> anyhow::Result<()> {
    let about = "Offers this machine's resources to a coordinator and runs tasks in containers";
    let flags: Flags<tepui_agent::flags::Settings> =
        parse("agent", about, tepui_agent::flags::NOT_IMPLEMENTED, given)?;
    need_root("tepui agent")?;
    // Forked while this process has one thread and little memory.
    let zygote = tepui_shim::Zygote::fork()?;
    log(flags.log.level());
    runtime()?.block_on(async {
        let running = tepui_agent::start(flags.settings, zygote).await?;
        announce(running.address());
        tokio::select! {
            stop = asked_to_stop() => stop?,
            end = running.ended() => tracing::warn!(?end, "the agent ends"),
        }
        running.stop().await;
        Ok(())
    })
}

/// # Errors
/// When this is not root, with what root is needed for.
pub fn need_root(what: &str) -> anyhow::Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    anyhow::bail!(
        "{what} makes containers: namespaces, mounts and cgroups need root. Run it with sudo, or name a cluster that \
         is already there: tepui run --coordinator=HOST:PORT -- CMD"
    )
}

impl LogFlags {
    fn level(&self) -> &'static str {
        match self.logging_level.to_ascii_uppercase().as_str() {
            _ if self.quiet => "error",
            "ERROR" => "error",
            "WARNING" => "warn",
            "DEBUG" => "debug",
            _ => "info",
        }
    }
}

/// The runtime of a server.
///
/// # Errors
/// When threads cannot be started.
pub fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")
}

/// Log lines go to stderr; TEPUI_LOG (as tracing's env-filter reads it) wins over the flag's level.
pub fn log(level: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("TEPUI_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}

/// Settings from flags that this program itself gives.
///
/// # Errors
/// When one of them is not known.
pub fn settings<S: Args + FromArgMatches>(name: &'static str, flags: &[(&str, String)]) -> anyhow::Result<S> {
    let line = flags.iter().map(|(flag, value)| format!("--{flag}={value}"));
    let command = S::augment_args(Command::new(name));
    let matches = command.try_get_matches_from(std::iter::once(name.to_owned()).chain(line))?;
    Ok(S::from_arg_matches(&matches)?)
}

fn parse<S: Args + FromArgMatches>(
    name: &'static str,
    about: &'static str,
    absent: &[Absent],
    given: &[OsString],
) -> anyhow::Result<S> {
    let command = S::augment_args(Command::new(name)).about(about).args_override_self(true);
    let known = command.clone();
    let line = flags::gather(&known, absent, given, flags::process_env)?;
    let shown = format!("tepui {name}");
    let command = command.bin_name(&shown).after_help(
        "Every flag can also be given as an environment variable (TEPUI_WORK_DIR for --work_dir), or in a TOML file \
         named by --config=FILE. A value file:///PATH stands for the contents of that file.",
    );
    let matches = command.get_matches_from(std::iter::once(shown).chain(line));
    Ok(S::from_arg_matches(&matches)?)
}

fn announce(address: impl std::fmt::Display) {
    println!("listening on {address}");
    let _ = std::io::stdout().flush();
}

async fn asked_to_stop() -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("stopping");
    Ok(())
}
