//! `tepui coordinator` and `tepui agent`: flags to settings, start, say where, stop on SIGTERM or Ctrl-C.

use std::ffi::OsString;

use tepui_server::{About, Flags, announce, asked_to_stop};

pub use tepui_server::{log, need_root, runtime, settings};

/// Runs a coordinator until it is told to stop.
///
/// # Errors
/// When the flags make no sense or it cannot start.
pub fn coordinator(given: &[OsString]) -> anyhow::Result<()> {
    let about = About {
        shown: "tepui coordinator",
        about: "Pools the machines of a cluster and forwards offers of their resources to frameworks",
        absent: tepui_coordinator::NOT_IMPLEMENTED,
    };
    let flags: Flags<tepui_coordinator::Settings> = tepui_server::parse(about, given)?;
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
    Ok(tepui_agent::Agent::builder().run("tepui agent", given)?)
}
