//! A coordinator from its start to its end.

use std::net::{SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use tepui_api::v1::MasterInfo;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::core;
use crate::election::{Election, Single};
use crate::flags::{RegistryKind, Settings};
use crate::http::{Context, Server};
use crate::identity::master_info;
use crate::registry::{FileRegistry, MemoryRegistry, Registry, RegistryError};
use crate::shell::{CoreHandle, CoreThread, RegistryThread, Request};

/// Why a coordinator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The registry needs a place.
    #[error("the coordinator needs --work_dir=DIR for its registry (or --registry=in_memory, which forgets)")]
    NoWorkDir,
    /// The registry cannot be used.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The port cannot be had.
    #[error("cannot listen on {address}: {error}; choose another with --ip and --port")]
    Listen {
        /// What was asked for.
        address: SocketAddrV4,
        /// Why not.
        error: std::io::Error,
    },
    /// The system refused a thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// Why a coordinator ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// What must survive cannot be written any more.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A defect: its core ended.
    #[error("the coordinator's core ended unexpectedly; its last words are in the log")]
    Core,
}

/// A coordinator that is running. Dropping it ends its threads; [`Running::stop`] also waits for them.
#[derive(Debug)]
pub struct Running {
    address: SocketAddrV4,
    info: Arc<MasterInfo>,
    work_dir: Option<PathBuf>,
    core: StopOnDrop,
    server: Server,
    /// Comes when the core's thread and the registry's have ended; `None` once that was seen.
    ended: Option<oneshot::Receiver<Result<(), Failure>>>,
}

/// Ends the core's thread when it is dropped, and with it all others.
#[derive(Debug)]
struct StopOnDrop(CoreHandle);

/// Starts a coordinator: reads its registry, listens, and serves.
///
/// # Errors
/// When the registry cannot be read, or the address cannot be listened on.
pub async fn start(settings: Settings) -> Result<Running, StartError> {
    let mut registry = open_registry(&settings)?;
    let recovered = registry.recover()?;
    let asked = SocketAddrV4::new(settings.ip, settings.port);
    let listen = |error| StartError::Listen { address: asked, error };
    let listener = TcpListener::bind(asked).await.map_err(listen)?;
    let address = match listener.local_addr().map_err(listen)? {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(_) => asked,
    };
    let info = Arc::new(master_info(&settings, address));
    tracing::info!(
        %address, id = info.id, agents = recovered.admitted.len(), unreachable = recovered.unreachable.len(),
        "the coordinator starts with the agents of its registry",
    );

    let (handle, incoming) = CoreHandle::new();
    let RegistryThread { changes, thread: registry, stats } =
        RegistryThread::start(registry, handle.clone()).map_err(StartError::Thread)?;
    let observers = settings.max_operator_event_stream_subscribers;
    let CoreThread { thread: core } =
        CoreThread::start(core_settings(&settings, &info), recovered, observers, incoming, changes)
            .map_err(StartError::Thread)?;
    let ended = watch_over(core, registry).map_err(StartError::Thread)?;

    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let work_dir = settings.work_dir.clone();
    let context = Arc::new(Context {
        core: handle.clone(),
        settings,
        info: Arc::clone(&info),
        leadership: Single::default().leadership(),
        started: now,
        elected: now,
        operator_streams: 0.into(),
        registry: stats,
    });
    let server = Server::start(listener, context);
    Ok(Running { address, info, work_dir, core: StopOnDrop(handle), server, ended: Some(ended) })
}

// === impl Running ===

impl Running {
    /// What it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// How it shows itself.
    #[must_use]
    pub fn master_info(&self) -> &MasterInfo {
        &self.info
    }

    /// Where its registry is, when it is on disk.
    #[must_use]
    pub fn work_dir(&self) -> Option<&std::path::Path> {
        self.work_dir.as_deref()
    }

    /// Waits until it ends by itself, which only a failure makes it do. Nothing is served from then on;
    /// the process should end. May be dropped and called again.
    pub async fn failed(&mut self) -> Failure {
        self.end().await.err().unwrap_or(Failure::Core)
    }

    /// Ends all streams and links, finishes answers under way, and writes what is to be written.
    ///
    /// # Errors
    /// When the registry could not be written.
    pub async fn stop(mut self) -> Result<(), Failure> {
        self.core.stop();
        let ended = self.end().await;
        self.server.stop().await;
        ended
    }

    /// Waits for the threads. A failure is told once.
    async fn end(&mut self) -> Result<(), Failure> {
        let Some(ended) = &mut self.ended else { return Ok(()) };
        let how = ended.await.unwrap_or(Err(Failure::Core));
        self.ended = None;
        how
    }
}

// === impl StopOnDrop ===

impl StopOnDrop {
    fn stop(&self) {
        // A core that has ended already is what is wanted.
        let _ = self.0.send(Request::Stop);
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Waits for both threads on a third, since joining blocks.
fn watch_over(
    core: JoinHandle<()>,
    registry: JoinHandle<Result<(), RegistryError>>,
) -> std::io::Result<oneshot::Receiver<Result<(), Failure>>> {
    let (tell, ended) = oneshot::channel();
    std::thread::Builder::new().name("coordinator-end".to_owned()).spawn(move || {
        let core = core.join();
        let how = match registry.join() {
            Ok(Err(error)) => Err(error.into()),
            Ok(Ok(())) if core.is_ok() => Ok(()),
            Ok(Ok(())) | Err(_) => Err(Failure::Core),
        };
        // Nobody may want to know any more.
        let _ = tell.send(how);
    })?;
    Ok(ended)
}

fn open_registry(settings: &Settings) -> Result<Box<dyn Registry>, StartError> {
    match (settings.registry, &settings.work_dir) {
        (RegistryKind::InMemory, _) => Ok(Box::new(MemoryRegistry::default())),
        (RegistryKind::File, Some(work_dir)) => Ok(Box::new(FileRegistry::open(work_dir)?)),
        (RegistryKind::File, None) => Err(StartError::NoWorkDir),
    }
}

fn core_settings(settings: &Settings, info: &MasterInfo) -> core::Settings {
    let mut core = core::Settings::new(info.clone());
    core.seed = Uuid::new_v4().as_u64_pair().0;
    core.agent_ping_timeout = settings.agent_ping_timeout.into();
    core.max_agent_ping_timeouts = settings.max_agent_ping_timeouts;
    core.agent_reregister_timeout = settings.agent_reregister_timeout.into();
    core.allocation_interval = settings.allocation_interval.into();
    core.offer_timeout = settings.offer_timeout.map(Into::into);
    core.max_completed_frameworks = settings.max_completed_frameworks;
    core.max_completed_tasks_per_framework = settings.max_completed_tasks_per_framework;
    core.max_unreachable_tasks_per_framework = settings.max_unreachable_tasks_per_framework;
    core.registry_max_agent_count = settings.registry_max_agent_count;
    core.registry_max_agent_age = settings.registry_max_agent_age.into();
    let role_list = |text: &String| text.split(',').map(|role| role.trim().to_owned()).collect();
    core.roles = settings.roles.as_ref().map(role_list);
    core.min_allocatable_resources.clone_from(&settings.min_allocatable_resources.0);
    core.filter_gpu_resources = settings.filter_gpu_resources;
    core.weights = settings.weights.clone().unwrap_or_default().0;
    core
}
