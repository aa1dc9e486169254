//! Isolators that are programs of their own: [`Plugin`] makes one behind a Unix socket look like any other.
//!
//! The protocol is `proto/tepui/isolator/v1/isolator.proto`, over gRPC. Who does what:
//!
//! ```text
//!  [program]       starts the plugin and starts it again, if it is a program (NAME=/path), and takes its output into the log
//!  [manager]       connects, shakes hands, tells of the containers that are there, and then keeps watch: one task a plugin
//!      │ Session
//!  [calls]         Plugin's calls, each with its time-out; what a failure means is decided here
//!  [wire]          from the trait's words to the protocol's, and back
//!  [contribution]  what a plugin may add to a container, checked before any of it is taken
//!  [ledger]        which containers the plugin was told of, on disk before it is told, until it has cleaned up
//! ```
//!
//! A plugin that is away, hangs or lies fails the launches that need it. All else goes on without it: no other call fails a container, and
//! after one that was not answered in time, only launches wait for the plugin for a while ([`calls::QUIET`]).

mod calls;
mod channel;
mod contribution;
mod ledger;
mod manager;
mod program;
mod settings;
#[cfg(test)]
mod tests;
mod wire;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::cgroups::Cgroups;
use crate::custom::{Custom, CustomError, Host};
use crate::isolator::{Isolator, LimitationSender};
use channel::Session;
use ledger::Ledger;
use program::Program;
pub use settings::{PluginError, PluginSettings, Target, Timeouts};

/// The messages and the client and server of the protocol, as generated.
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::nursery)]
pub mod proto {
    tonic::include_proto!("tepui.isolator.v1");
}

/// The version of the protocol.
pub const PROTOCOL_VERSION: u32 = 1;

/// An isolator behind a Unix socket.
pub struct Plugin {
    shared: Arc<Shared>,
    manager: JoinHandle<()>,
    program: Option<Arc<Program>>,
}

/// What the calls and the manager have in common.
struct Shared {
    name: String,
    timeouts: Timeouts,
    limitations: LimitationSender,
    /// Where a container with an image finds its sandbox.
    sandbox_directory: PathBuf,
    cgroups: Option<Arc<Cgroups>>,
    ledger: Ledger,
    /// The manager writes it, calls wait for it.
    presence: watch::Sender<Presence>,
    /// Whether the agent has told which containers there are; the plugin is not connected before.
    recovered: watch::Sender<bool>,
    /// Wakes the manager: a container is to be cleaned up.
    owed: Notify,
    /// When the last call was not answered in time, if it was not.
    hung: Mutex<Option<Instant>>,
}

/// Whether the plugin can be called.
#[derive(Clone)]
enum Presence {
    /// Not now; why, for people.
    Away(String),
    /// Yes.
    Here(Session),
}

// === impl Plugin ===

impl Plugin {
    /// The custom isolator for a plugin: always on.
    #[must_use]
    pub fn custom(settings: PluginSettings, timeouts: Timeouts) -> Custom {
        Custom::always(settings.name.clone(), move |host| {
            let plugin = Plugin::start(settings, timeouts, host)?;
            Ok(Arc::new(plugin) as Arc<dyn Isolator>)
        })
    }

    /// Starts the program, if it is one, and the task that looks after the connection. To be called within a tokio runtime.
    fn start(settings: PluginSettings, timeouts: Timeouts, host: &Host) -> Result<Self, CustomError> {
        let PluginSettings { name, target } = settings;
        let ledger = Ledger::open(host.work_dir()?.join("owed"))?;
        let (program, socket) = match target {
            Target::Socket(path) => (None, path),
            Target::Program(path) => {
                let socket = host.runtime_dir()?.join("plugin.sock");
                (Some(Arc::new(Program::start(&name, &path, &socket)?)), socket)
            }
        };
        let shared = Arc::new(Shared {
            name,
            timeouts,
            limitations: host.limitations.clone(),
            sandbox_directory: host.places.sandbox_directory.clone(),
            cgroups: host.cgroups.clone(),
            ledger,
            presence: watch::Sender::new(Presence::Away("it has not been connected yet".to_owned())),
            recovered: watch::Sender::new(false),
            owed: Notify::new(),
            hung: Mutex::default(),
        });
        let manager = manager::Manager::new(Arc::clone(&shared), socket, program.clone());
        let manager = tokio::spawn(manager.run());
        Ok(Self { shared, manager, program })
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.manager.abort();
    }
}
