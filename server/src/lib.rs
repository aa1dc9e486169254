//! What every server of Tepui has in common: flags to settings, the log, where it listens, and when it is to stop.
//!
//! [`parse`] makes settings from the command line, the environment and a file of flags ([`gather`]). [`log`] and [`runtime`] set the process up,
//! [`announce`] tells where it listens, and [`asked_to_stop`] waits for SIGTERM or Ctrl-C.
//!
//! The first line on stdout is `listening on IP:PORT`, once the server answers, so that whoever starts one
//! with `--port=0` can read the port. Everything else goes to stderr as log lines.

pub mod gather;

use std::ffi::OsString;
use std::io::{self, Write as _};

use clap::{Args, Command, FromArgMatches};
use tokio::signal::unix::{SignalKind, signal};

pub use gather::{Absent, FlagError};

/// Why a server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Its flags make no sense.
    #[error(transparent)]
    Flags(#[from] FlagError),
    /// Their values do not.
    #[error(transparent)]
    Values(#[from] clap::Error),
    /// It is not root.
    #[error(
        "{0} makes containers: namespaces, mounts and cgroups need root. Run it with sudo, or name a cluster that \
         is already there: tepui run --coordinator=HOST:PORT -- CMD"
    )]
    Root(String),
    /// The system has no thread left.
    #[error("cannot start threads: {0}")]
    Threads(#[source] io::Error),
    /// It could not be told to stop.
    #[error("cannot wait for signals: {0}")]
    Signals(#[source] io::Error),
}

/// The flags of a server, and of its log.
#[derive(Args)]
pub struct Flags<S: Args> {
    /// Its own.
    #[command(flatten)]
    pub settings: S,
    /// Its log's.
    #[command(flatten)]
    pub log: LogFlags,
}

/// How much is logged.
#[derive(Args)]
pub struct LogFlags {
    /// Log lines of this level and above: DEBUG, INFO, WARNING or ERROR
    #[arg(long = "logging_level", value_name = "LEVEL", default_value = "INFO", help_heading = "Log",
          value_parser = ["DEBUG", "INFO", "WARNING", "ERROR"], ignore_case = true)]
    logging_level: String,
    /// Log nothing but errors
    #[arg(long, value_name = "BOOL", default_value_t = false, action = clap::ArgAction::Set, help_heading = "Log")]
    quiet: bool,
}

/// Which server it is that [`parse`] reads flags for.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// How users call it, such as `tepui agent`.
    pub shown: &'a str,
    /// What it does, in one sentence.
    pub about: &'static str,
    /// The flags that Mesos has and it has not.
    pub absent: &'static [Absent],
}

// === impl LogFlags ===

impl LogFlags {
    /// As tracing has it.
    #[must_use]
    pub fn level(&self) -> &'static str {
        match self.logging_level.to_ascii_uppercase().as_str() {
            _ if self.quiet => "error",
            "ERROR" => "error",
            "WARNING" => "warn",
            "DEBUG" => "debug",
            _ => "info",
        }
    }
}

/// Settings from what a user gave: this command line, the environment, and the file that one of them names.
///
/// # Errors
/// When a flag is not known, lacks its value, or a file cannot be read. Values that make no sense end the process, with words.
pub fn parse<S: Args + FromArgMatches>(about: About, given: &[OsString]) -> Result<S, ServerError> {
    let About { shown, about, absent } = about;
    let command = S::augment_args(Command::new(shown.to_owned())).about(about).args_override_self(true);
    let known = command.clone();
    let line = gather::gather(&known, absent, given, gather::process_env)?;
    let command = command.bin_name(shown).after_help(
        "Every flag can also be given as an environment variable (TEPUI_WORK_DIR for --work_dir), or in a TOML file \
         named by --config=FILE. A value file:///PATH stands for the contents of that file.",
    );
    let matches = command.get_matches_from(std::iter::once(shown.to_owned()).chain(line));
    Ok(S::from_arg_matches(&matches)?)
}

/// Settings from flags that this program itself gives.
///
/// # Errors
/// When one of them is not known.
pub fn settings<S: Args + FromArgMatches>(
    name: &'static str,
    flags: &[(&str, String)],
) -> Result<S, ServerError> {
    let line = flags.iter().map(|(flag, value)| format!("--{flag}={value}"));
    let command = S::augment_args(Command::new(name));
    let matches = command.try_get_matches_from(std::iter::once(name.to_owned()).chain(line))?;
    Ok(S::from_arg_matches(&matches)?)
}

/// # Errors
/// When this is not root, with what root is needed for.
pub fn need_root(what: &str) -> Result<(), ServerError> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err(ServerError::Root(what.to_owned())) }
}

/// The runtime of a server.
///
/// # Errors
/// When threads cannot be started.
pub fn runtime() -> Result<tokio::runtime::Runtime, ServerError> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(ServerError::Threads)
}

/// Log lines go to stderr; TEPUI_LOG (as tracing's env-filter reads it) wins over the flag's level.
pub fn log(level: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("TEPUI_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}

/// Says where the server listens.
pub fn announce(address: impl std::fmt::Display) {
    println!("listening on {address}");
    let _ = std::io::stdout().flush();
}

/// Waits for SIGTERM or Ctrl-C.
///
/// # Errors
/// When signals cannot be waited for.
pub async fn asked_to_stop() -> Result<(), ServerError> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServerError::Signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(ServerError::Signals)?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("stopping");
    Ok(())
}
