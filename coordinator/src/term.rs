//! One term: from an open registry to the end of the core that leads.
//!
//! A coordinator that is alone has one term, those of a replicated set have one each time they are elected. A term has
//! an id, a core, and threads of its own, and shares nothing with the one before it but the process and its sockets.
//! Whatever acts in it first looks whether its lease holds.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tepui_api::v1::MasterInfo;
use tepui_zookeeper::{Lease, Url};
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use crate::core::{self, Recovered};
use crate::election::Leadership;
use crate::flags::Settings;
use crate::http::Context;
use crate::identity::capabilities;
use crate::registry::{self, FileRegistry, MemoryRegistry, Registry, RegistryError, ZooKeeperRegistry};
use crate::running::Failure;
use crate::shell::{CoreHandle, CoreThread, RegistryThread, Request};

/// What stays the same in all terms of a process.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    /// What it was told.
    pub(crate) settings: Arc<Settings>,
    /// How it shows itself; the id is the first term's.
    pub(crate) info: Arc<MasterInfo>,
    /// Who leads.
    pub(crate) leadership: watch::Receiver<Leadership>,
    /// When it started to be a coordinator, since 1970.
    pub(crate) started: Duration,
}

/// Where the registry is.
#[derive(Debug, Clone)]
pub(crate) enum Store {
    /// Nowhere.
    Memory,
    /// In this directory.
    File(PathBuf),
    /// In ZooKeeper.
    ZooKeeper {
        /// Where.
        url: Url,
        /// Of its session.
        session_timeout: Duration,
    },
}

/// A term. Dropping it ends its threads; [`Term::ended`] waits for them.
#[derive(Debug)]
pub(crate) struct Term {
    context: Arc<Context>,
    core: StopOnDrop,
    /// Comes when the core's thread and the registry's have ended; `None` once that was seen.
    ended: Option<oneshot::Receiver<Result<(), Failure>>>,
}

/// Ends the core's thread when it is dropped, and with it all others.
#[derive(Debug)]
struct StopOnDrop(CoreHandle);

// === impl Store ===

impl Store {
    /// Opens the registry for a term and reads it, on a thread that may wait. One that is shared then refuses what
    /// earlier terms still write, and is not opened when the node `elected_by` is gone.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) async fn open(
        &self,
        term: &str,
        elected_by: Option<&str>,
    ) -> Result<(Box<dyn Registry>, Recovered), RegistryError> {
        let (store, term) = (self.clone(), term.to_owned());
        let elected_by = elected_by.map(str::to_owned);
        let runtime = tokio::runtime::Handle::current();
        let opened =
            tokio::task::spawn_blocking(move || -> Result<(Box<dyn Registry>, Recovered), RegistryError> {
                let mut registry: Box<dyn Registry> = match store {
                    Self::Memory => Box::new(MemoryRegistry::default()),
                    Self::File(work_dir) => Box::new(FileRegistry::open(&work_dir)?),
                    Self::ZooKeeper { url, session_timeout } => {
                        let term = registry::Term { id: &term, elected_by: elected_by.as_deref() };
                        Box::new(ZooKeeperRegistry::open(&url, session_timeout, term, runtime)?)
                    }
                };
                let recovered = registry.recover()?;
                let missing = recovered.missing_capabilities(&capabilities());
                if !missing.is_empty() {
                    return Err(RegistryError::Capabilities(missing.join(", ")));
                }
                Ok((registry, recovered))
            });
        match opened.await {
            Ok(opened) => opened,
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is going down, and with it whoever waits here.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

// === impl Process ===

impl Process {
    /// What requests are answered with while this process does not lead.
    pub(crate) fn idle(&self) -> Context {
        let lease = Lease::lasting(Duration::ZERO);
        self.context(CoreHandle::new().0, Arc::clone(&self.info), lease, Duration::ZERO, Arc::default())
    }

    fn context(
        &self,
        core: CoreHandle,
        info: Arc<MasterInfo>,
        lease: Lease,
        elected: Duration,
        registry: Arc<crate::shell::RegistryStats>,
    ) -> Context {
        Context {
            core,
            settings: Arc::clone(&self.settings),
            info,
            leadership: self.leadership.clone(),
            lease,
            started: self.started,
            elected,
            operator_streams: 0.into(),
            registry,
        }
    }
}

// === impl Term ===

impl Term {
    /// Starts the threads of a term.
    ///
    /// # Errors
    /// When the system has no room for a thread.
    pub(crate) fn start(
        process: &Process,
        info: Arc<MasterInfo>,
        lease: Lease,
        registry: Box<dyn Registry>,
        recovered: Recovered,
    ) -> std::io::Result<Self> {
        tracing::info!(
            id = info.id,
            agents = recovered.admitted.len(),
            unreachable = recovered.unreachable.len(),
            "the coordinator leads, with the agents of its registry",
        );
        let (handle, incoming) = CoreHandle::new();
        let RegistryThread { changes, thread: registry, stats } =
            RegistryThread::start(registry, handle.clone(), lease.clone())?;
        let observers = process.settings.max_operator_event_stream_subscribers;
        let settings = core_settings(&process.settings, &info);
        let CoreThread { thread: core } =
            CoreThread::start(settings, recovered, observers, lease.clone(), incoming, changes)?;
        let ended = watch_over(core, registry)?;
        let elected = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let context = process.context(handle.clone(), info, lease, elected, stats);
        Ok(Self { context: Arc::new(context), core: StopOnDrop(handle), ended: Some(ended) })
    }

    /// What requests are answered with in this term.
    pub(crate) fn context(&self) -> Arc<Context> {
        Arc::clone(&self.context)
    }

    /// Ends all streams and links, and then the threads.
    pub(crate) fn stop(&self) {
        self.core.stop();
    }

    /// Waits for the threads. A failure is told once.
    pub(crate) async fn ended(&mut self) -> Result<(), Failure> {
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
    core: JoinHandle<Result<(), String>>,
    registry: JoinHandle<Result<(), RegistryError>>,
) -> std::io::Result<oneshot::Receiver<Result<(), Failure>>> {
    let (tell, ended) = oneshot::channel();
    std::thread::Builder::new().name("coordinator-end".to_owned()).spawn(move || {
        let core = core.join();
        let how = match registry.join() {
            Ok(Err(error)) => Err(error.into()),
            Ok(Ok(())) => match core {
                Ok(ended) => ended.map_err(Failure::Unsafe),
                Err(_) => Err(Failure::Core),
            },
            Err(_) => Err(Failure::Core),
        };
        // Nobody may want to know any more.
        let _ = tell.send(how);
    })?;
    Ok(ended)
}

fn core_settings(settings: &Settings, info: &MasterInfo) -> core::Settings {
    let mut core = core::Settings::new(info.clone());
    core.seed = Uuid::new_v4().as_u64_pair().0;
    core.agent_ping_timeout = settings.agent_ping_timeout.into();
    core.max_agent_ping_timeouts = settings.max_agent_ping_timeouts;
    core.agent_reregister_timeout = settings.agent_reregister_timeout.into();
    core.recovery_agent_removal_limit = settings.recovery_agent_removal_limit.share();
    core.agent_removal_rate_limit = settings.agent_removal_rate_limit.as_ref().map(|rate| rate.rate());
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
