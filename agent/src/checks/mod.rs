//! Checks and health checks of tasks: what to ask a task, when, and what its answers mean.
//!
//! A task may have a check, whose results its framework is told as they are, and a health check, which is judged here: a task that
//! fails it too often is killed. Both are told the same way.
//!
//! ```text
//!   core/checks.rs   a task runs ──► [check] says when the next probe is due ──► ContainerCommand::Probe
//!                                                                                     │
//!   shell            a task of its own runs [`probe`]:  [http], [tcp] in the container's [network], or a command in it
//!                                                                                     │
//!   core/checks.rs   ContainerEvent::Probed ──► [check] says what it means ──► an update, a kill, or nothing
//! ```
//!
//! No process is started for a probe by HTTP or TCP, unlike in Mesos, whose executors run `curl` each time.

pub mod check;
mod http;
mod network;
mod tcp;

use tepui_api::v1::ContainerId;

use crate::shell::backend::Backend;
pub use check::{Check, Finding, Health, Kind, Outcome, Probe, Target};
use network::Network;

/// Asks a task once. Takes no longer than the probe's time-out.
pub(crate) async fn probe(_backend: &dyn Backend, _id: &ContainerId, probe: &Probe) -> Outcome {
    let asked = async {
        let network = || Network::of(probe.pid);
        match &probe.target {
            Target::Command(_) => Err("commands are not run yet".to_owned()),
            Target::Http(url) => http::status(&network()?, url).await.map(Outcome::Answered),
            Target::Tcp { address, port } => {
                tcp::connects(&network()?, *address, *port).await.map(Outcome::Connected)
            }
        }
    };
    let outcome = match probe.timeout {
        None => asked.await,
        Some(timeout) => tokio::time::timeout(timeout, asked)
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {} s", timeout.as_secs_f64()))),
    };
    outcome.unwrap_or_else(Outcome::Failed)
}
