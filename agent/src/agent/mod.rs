//! Starting and stopping an agent: [`start`], [`Agent::builder`] and [`Running`].

mod builder;
mod image_gc;
mod native;
mod recovery;
mod sweeper;
#[cfg(test)]
mod tests;
mod threads;

use std::net::{SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tepui_api::v1::ContainerId;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

use crate::by_call::ByCalls;
use crate::core::{Config, ContainerEvent, Core, End};
use crate::fetcher::{self, Fetcher};
use crate::flags::{ReconfigurationPolicy, Recover, Settings};
use crate::gpus::Gpus;
use crate::http::{Context, Server};
use crate::identity;
use crate::link::{self, LinkEvent, Master, MasterError};
use crate::resources::{self, DetectError};
use crate::sandbox::attach_all;
use crate::sandbox::files::Files;
use crate::sandbox::gc::Gc;
use crate::shell::backend::Backend;
use crate::shell::{Clock, Containers, Event, Handle, Shell};
use crate::store::{Store, StoreError};
pub use builder::{Agent, Builder, RunError, start};
use threads::{Thread, Workers};

/// How long the last frame may take to reach the coordinator.
const FAREWELL: Duration = Duration::from_millis(500);
/// What is given to containers beyond their grace period, when the agent ends them all.
const MARGIN: Duration = Duration::from_secs(15);

/// Why an agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// `--master` is wrong.
    #[error(transparent)]
    Master(#[from] MasterError),
    /// The work directory cannot be used.
    #[error("cannot use the work directory {path}: {source}")]
    WorkDir {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The address is in use, or not this machine's.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Resources or attributes are wrong.
    #[error(transparent)]
    Detect(#[from] DetectError),
    /// The state on disk cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The agent is not the one that it was.
    #[error(
        "this agent cannot go on as {id}, for {changes}. Start it as it was before; or with --reconfiguration_policy={policy}, which allows that; or remove {state} to have it register as a new agent, which loses its tasks"
    )]
    Changed {
        /// Its id.
        id: String,
        /// What is different.
        changes: String,
        /// The mildest policy that allows it.
        policy: ReconfigurationPolicy,
        /// The directory with its state.
        state: PathBuf,
    },
    /// `--docker_registry` is wrong.
    #[error("--docker_registry: {0}")]
    Registry(#[from] tepui_images::ReferenceError),
    /// `--fetcher_cache_dir` cannot be used.
    #[error("cannot use the directory {path} of the fetcher's cache: {source}")]
    FetcherCache {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The system has no thread left.
    #[error("cannot start the agent's threads: {0}")]
    Threads(#[source] std::io::Error),
    /// Containers cannot be made on this machine, or those of an earlier run cannot be found again.
    #[error("{0}")]
    Containerizer(String),
}

/// A running agent. Dropped without [`Running::stop`] it ends at once; its containers go on in either case.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    handle: Handle,
    shell: Thread,
    backend: Stopped,
    /// Where containers are made. Ends with the agent.
    _workers: Workers,
    server: Server,
    link: JoinHandle<()>,
    link_closed: Arc<Notify>,
    sweeper: JoinHandle<()>,
    image_gc: Option<JoinHandle<()>>,
    ended: watch::Receiver<Option<End>>,
    shutdown_grace_period: Duration,
}

/// What makes containers, to be told when the agent stops.
struct Stopped(Arc<dyn Backend>);

/// Ends of containers, as the containerizer tells them.
type Ends = mpsc::UnboundedReceiver<(ContainerId, ContainerEvent)>;

impl std::fmt::Debug for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("Stopped")
    }
}

// === impl Running ===

impl Running {
    /// Where its HTTP server listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the agent has to end: the coordinator refuses it, or asked it to shut down.
    pub async fn ended(&self) -> End {
        let mut ended = self.ended.clone();
        let end = ended.wait_for(Option::is_some).await;
        let end = end.ok().and_then(|end| end.clone());
        end.unwrap_or_else(|| End::Asked("the agent was stopped".to_owned()))
    }

    /// Stops the agent. Its containers go on; the next agent with this work directory takes them over.
    pub async fn stop(self) {
        self.handle.tell(Event::Stop);
        self.shell.ended().await;
        self.link.abort();
        self.sweeper.abort();
        self.image_gc.iter().for_each(JoinHandle::abort);
        self.backend.0.stop().await;
        self.server.stop().await;
    }

    /// Ends all containers, forgets the agent's id and stops.
    pub async fn stop_and_clean_up(self) {
        self.handle.tell(Event::ShutDown);
        let limit = self.shutdown_grace_period + MARGIN;
        if tokio::time::timeout(limit, self.ended()).await.is_err() {
            tracing::warn!("not all containers ended in time");
        }
        self.handle.tell(Event::Stop);
        let _ = tokio::time::timeout(FAREWELL, self.link_closed.notified()).await;
        self.stop().await;
    }
}

/// Starts an agent over whatever makes containers.
async fn start_over(
    mut settings: Settings,
    backend: Arc<dyn Backend>,
    ends: Ends,
    workers: Workers,
) -> Result<Running, StartError> {
    let clock = Clock::start();
    let began = Instant::now();
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let master: Master = settings.master.parse()?;
    settings.work_dir = make_work_dir(&settings.work_dir)?;
    settings.runtime_dir = Some(settings.runtime_dir());

    let listener = listen(&settings).await?;
    let bound = local_address(&listener, &settings)?;
    let address = identity::advertised(&settings, bound);
    let config = config(&settings, address)?;

    let (handle, events) = Handle::new();
    let confirm = handle.clone();
    let (store, state) = Store::open(&settings.work_dir, settings.strict, move |ticket| {
        confirm.tell(Event::Stored(ticket));
    })?;
    let recovery_errors = state.errors;

    let files = Arc::new(Files::default());
    let sandboxes = Arc::new(Gc::new(settings.work_dir.clone()));
    let fetcher = fetcher(&settings)?;
    let by_calls = ByCalls::new(
        Arc::clone(&backend),
        fetcher.clone(),
        &settings.runtime_dir(),
        settings.work_dir.clone(),
        settings.switch_user,
        workers.handle(),
    );
    let containers = Containers::new(
        Arc::clone(&backend),
        fetcher.clone(),
        by_calls.clone(),
        Arc::clone(&files),
        Arc::clone(&sandboxes),
        handle.clone(),
        workers.handle(),
    );
    let mut core = Core::new(config, seed());
    let mut first = Vec::new();
    recovery::recover(
        &mut core,
        state,
        &settings,
        &backend,
        &containers,
        &by_calls,
        &workers,
        clock,
        &mut first,
    )
    .await?;
    if let Some(id) = &core.snapshot().agent.id {
        attach_all(&files, &settings.work_dir, id);
    }

    let reconnect = Arc::new(Notify::new());
    let (shell, ended) =
        Shell::new(core, store, containers, events, Arc::clone(&reconnect), clock, handle.clone());
    let shell = Thread::start("agent-core", shell.run(first)).map_err(StartError::Threads)?;
    tokio::spawn(forward(ends, handle.clone(), by_calls.clone()));
    let link_closed = Arc::new(Notify::new());
    let link = match settings.recover {
        Recover::Reconnect => tokio::spawn(link::run(
            master,
            settings.zk_session_timeout.0,
            settings.registration_backoff_factor.0,
            reconnect,
            tell_link(handle.clone(), Arc::clone(&link_closed)),
        )),
        // It is not to be heard of any more.
        Recover::Cleanup => tokio::spawn(std::future::ready(())),
    };
    let sweeper = tokio::spawn(sweeper::sweep(
        settings.clone(),
        handle.clone(),
        Arc::clone(&files),
        Arc::clone(&sandboxes),
    ));
    let image_gc = settings.image_gc_config.clone();
    let image_gc =
        image_gc.map(|gc| tokio::spawn(image_gc::watch(gc, settings.clone(), Arc::clone(&backend))));
    let shutdown_grace_period = settings.executor_shutdown_grace_period.0;
    let context = Context {
        handle: handle.clone(),
        backend: Arc::clone(&backend),
        by_calls,
        files,
        settings,
        pid: format!("slave(1)@{address}"),
        started,
        recovery: began.elapsed(),
        recovery_errors,
        sandboxes,
        fetcher,
        containers: Default::default(),
        sessions: Default::default(),
        workers: workers.handle(),
    };
    let server = Server::start(listener, Arc::new(context));
    tracing::info!(%address, "the agent is up");
    Ok(Running {
        address: SocketAddr::V4(bound),
        handle,
        shell,
        backend: Stopped(backend),
        _workers: workers,
        server,
        link,
        link_closed,
        sweeper,
        image_gc,
        ended,
        shutdown_grace_period,
    })
}

fn fetcher(settings: &Settings) -> Result<Fetcher, StartError> {
    let path = settings.fetcher_cache_dir();
    let made = Fetcher::new(fetcher::Settings {
        cache_dir: path.clone(),
        cache_size: settings.fetcher.fetcher_cache_size.0,
        stall_timeout: settings.fetcher.fetcher_stall_timeout.0,
        home: settings.fetcher.frameworks_home.clone(),
    });
    made.map_err(|source| StartError::FetcherCache { path, source })
}

/// The work directory, without links in its path.
fn make_work_dir(path: &Path) -> Result<PathBuf, StartError> {
    let made = std::fs::create_dir_all(path).and_then(|()| path.canonicalize());
    made.map_err(|source| StartError::WorkDir { path: path.to_owned(), source })
}

async fn listen(settings: &Settings) -> Result<TcpListener, StartError> {
    let address = SocketAddr::from((settings.ip, settings.port));
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })
}

fn local_address(listener: &TcpListener, settings: &Settings) -> Result<SocketAddrV4, StartError> {
    match listener.local_addr() {
        Ok(SocketAddr::V4(address)) => Ok(address),
        Ok(SocketAddr::V6(address)) => Ok(SocketAddrV4::new(settings.ip, address.port())),
        Err(source) => {
            Err(StartError::Listen { address: SocketAddr::from((settings.ip, settings.port)), source })
        }
    }
}

fn config(settings: &Settings, address: SocketAddr) -> Result<Config, StartError> {
    let role = &settings.default_role;
    let gpus = Gpus::of(settings);
    let resources = resources::detect(settings.resources.as_deref(), role, &settings.work_dir, gpus)?;
    let attributes = resources::attributes(settings.attributes.as_deref())?;
    let variables = settings.executor_environment_variables.iter();
    Ok(Config {
        agent: identity::agent_info(settings, address, resources, attributes),
        version: identity::API_VERSION.to_owned(),
        instance: uuid::Uuid::from_bytes(rand::random()).to_string(),
        address,
        work_dir: settings.work_dir.clone(),
        switch_user: settings.switch_user,
        shutdown_grace_period: settings.executor_shutdown_grace_period.0,
        executor_registration_timeout: settings.executor_registration_timeout.0,
        sandbox_directory: settings.sandbox_directory.clone(),
        recovery_timeout: settings.recovery_timeout.0,
        executor_reregistration_timeout: settings.executor_reregistration_timeout.0,
        environment: variables.flat_map(|variables| variables.0.clone()).collect(),
        max_completed: settings.max_completed_executors_per_framework,
    })
}

fn seed() -> [u8; 32] {
    rand::random()
}

async fn forward(mut ends: Ends, handle: Handle, by_calls: ByCalls) {
    while let Some((id, event)) = ends.recv().await {
        by_calls.heard(&id, &event);
        handle.tell(Event::Container(id, event));
    }
}

fn tell_link(handle: Handle, closed: Arc<Notify>) -> impl Fn(LinkEvent) + Send + 'static {
    move |event| {
        if matches!(event, LinkEvent::Closed) {
            closed.notify_one();
        }
        handle.tell(Event::Link(event));
    }
}
