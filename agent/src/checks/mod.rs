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

use std::time::Duration;

use tepui_api::v1::ContainerId;

use crate::shell::backend::{Backend, Inside};
pub use check::{Check, Finding, Health, Kind, Outcome, Probe, Target};
use network::Network;

/// Asks a task once. Takes no longer than the probe's time-out.
pub(crate) async fn probe(backend: &dyn Backend, id: &ContainerId, probe: &Probe) -> Outcome {
    let timeout = probe.timeout;
    let network = || Network::of(probe.pid);
    let outcome = match &probe.target {
        // Whoever runs it ends it with all its children when the time is up.
        Target::Command(command) => {
            let inside = Inside { command: (**command).clone(), timeout };
            backend.run_inside(id.clone(), inside).await.map(Outcome::of_wait_status)
        }
        Target::Http(url) => {
            let asked = async { http::status(&network()?, url).await.map(Outcome::Answered) };
            within(timeout, asked).await
        }
        Target::Tcp { address, port } => {
            let asked = async { tcp::connects(&network()?, *address, *port).await.map(Outcome::Connected) };
            within(timeout, asked).await
        }
    };
    outcome.unwrap_or_else(Outcome::Failed)
}

async fn within(
    timeout: Option<Duration>,
    asked: impl Future<Output = Result<Outcome, String>>,
) -> Result<Outcome, String> {
    match timeout {
        None => asked.await,
        Some(timeout) => tokio::time::timeout(timeout, asked)
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {} s", timeout.as_secs_f64()))),
    }
}
