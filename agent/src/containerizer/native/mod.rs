//! The native containerizer: containers by shims, isolators and image layers.
//!
//! [`NativeContainerizer`] keeps a [`Container`] for each that was prepared or found. The phases of a container's life (prepare, start,
//! destroy) take turns; calls of isolators take turns among themselves, so that a container's usage can be asked for while it
//! is being destroyed, and its end can be noticed at any time.

mod backend;
mod command;
mod destroy;
mod guest;
mod image;
mod inside;
mod layout;
mod prepare;
mod privileges;
mod recover;
mod shim;
mod spec;
mod start;
mod update;
mod user;
mod volumes;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tepui_api::resources::Resources;
use tepui_api::v1::{ContainerId, ContainerStatus, ResourceStatistics};
use tepui_images::{ImageStore, StoreOptions};
use tepui_isolators::cgroups::Pressure;
use tepui_isolators::{Composition, Custom, Isolator, Limitation, Places};
use tepui_shim::{Rotation, Secrets, SignalScope, Zygote};
use tokio::sync::{Semaphore, mpsc, watch};

use super::config::ContainerConfig;
use super::error::SetupError;
use super::pulls::Pulls;
use crate::flags::ImageBackend;
pub use layout::scratch_dir;
use layout::{Dirs, Layout};
pub use recover::Found;
use update::Amounts;

/// What the native containerizer is told of the agent.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `--runtime_dir`: what must survive the agent, but not the machine.
    pub runtime_dir: PathBuf,
    /// `--work_dir`: holds what containers write beside their sandboxes.
    pub work_dir: PathBuf,
    /// `--isolation`, taken apart.
    pub isolation: Vec<String>,
    /// The flags that concern isolators.
    pub isolators: tepui_isolators::Settings,
    /// `--docker_store_dir`.
    pub image_store_dir: PathBuf,
    /// Where images come from.
    pub image_options: StoreOptions,
    /// `--image_provisioner_backend`: how images become root file systems; without, the better one of those that work.
    pub image_backend: Option<ImageBackend>,
    /// `--docker_ignore_runtime`: what an image says of its program does not count.
    pub ignore_image_runtime: bool,
    /// `--sandbox_directory`: where a container with an image finds its sandbox.
    pub sandbox_directory: String,
    /// How long a shim may take to answer an agent that starts anew, until it is ended.
    pub shim_patience: Duration,
    /// `--container_logger`: how containers' output is rotated, if it is.
    pub rotation: Option<Rotation>,
}

/// The end of a container's processes. Told once for each container that was started.
#[derive(Debug, Clone, PartialEq)]
pub struct Exited {
    /// Which container.
    pub container_id: ContainerId,
    /// As wait(2) gives it; `None` when nobody knows.
    pub status: Option<i32>,
    /// The limit for which it was ended.
    pub limitation: Option<Limitation>,
}

/// Makes containers. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct NativeContainerizer {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    zygote: Zygote,
    composition: Composition,
    images: ImageStore,
    backend: ImageBackend,
    /// Turns to copy an image.
    copying: Arc<Semaphore>,
    pulls: Pulls,
    layout: Layout,
    containers: Mutex<HashMap<ContainerId, Arc<Container>>>,
    exits: mpsc::UnboundedSender<Exited>,
}

/// A container that was prepared or found.
struct Container {
    /// As it was asked for.
    config: ContainerConfig,
    /// The container that it is nested in.
    parent: Option<Arc<Container>>,
    /// Its resources as last updated.
    amounts: Mutex<Amounts>,
    dirs: Dirs,
    /// Held through prepare, start and destroy.
    turn: tokio::sync::Mutex<()>,
    /// Held through each call of isolators.
    calls: tokio::sync::Mutex<()>,
    /// Held by the thread that copies an image for it, which may outlive the call that began it.
    copying: Arc<tokio::sync::Mutex<()>>,
    /// True once it is to be destroyed.
    doomed: watch::Sender<bool>,
    life: watch::Sender<Life>,
    /// The connection to its shim, while there is one.
    shim: Mutex<Option<Arc<shim::Requests>>>,
    /// What an isolator has reported.
    limitation: Mutex<Option<Limitation>>,
    /// What only its shim is told, from its preparation to its start.
    secrets: Mutex<Secrets>,
}

/// Where a container's processes are in their life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    /// There are none, and the container cannot be started yet.
    Unborn,
    /// There are none, and everything is there to make them.
    Prepared,
    /// A shim makes them, or has.
    Shimmed {
        /// The first one.
        pid: Option<u32>,
    },
    /// There is none any more, nor a shim.
    Over,
}

impl NativeContainerizer {
    /// Sets the containerizer up. The ends of containers come out of the channel. To be called within a tokio runtime; blocks
    /// for as long as the store of images needs to open.
    ///
    /// # Errors
    /// When `--isolation` is wrong, or a directory cannot be made.
    pub fn new(
        settings: Settings,
        zygote: Zygote,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Exited>), SetupError> {
        Self::with_isolators(settings, zygote, Vec::new())
    }

    /// As [`NativeContainerizer::new`], with isolators beyond those of `--isolation`, which act after them.
    ///
    /// # Errors
    /// As there.
    pub fn with_isolators(
        settings: Settings,
        zygote: Zygote,
        customs: Vec<Custom>,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Exited>), SetupError> {
        let (limitations, reported) = mpsc::unbounded_channel();
        let names: Vec<&str> = settings.isolation.iter().map(String::as_str).collect();
        let images = ImageStore::open(&settings.image_store_dir, settings.image_options.clone())?;
        let layout = Layout::make(&settings.runtime_dir, &settings.work_dir)
            .map_err(|(path, source)| SetupError::Directory { path, source })?;
        let backend = backend::choose(settings.image_backend, &layout, &images)?;
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let places = Places {
            runtime_dir: settings.runtime_dir.clone(),
            work_dir: settings.work_dir.clone(),
            sandbox_directory: settings.sandbox_directory.clone().into(),
        };
        let composition =
            tepui_isolators::build_with(&names, customs, &settings.isolators, &places, &limitations)?;
        if let Some(cgroups) = &composition.cgroups
            && let Err(error) = cgroups.take_out_of_unit(zygote.pid())
        {
            tracing::warn!(%error, "what looks after containers stays in the agent's unit: systemd will warn of it");
        }
        let (exits, ends) = mpsc::unbounded_channel();
        let inner = Inner {
            settings,
            zygote,
            composition,
            images,
            backend,
            copying: Arc::new(Semaphore::new(processors)),
            pulls: Pulls::default(),
            layout,
            containers: Mutex::default(),
            exits,
        };
        let this = Self { inner: Arc::new(inner) };
        tokio::spawn(heed(Arc::downgrade(&this.inner), reported));
        Ok((this, ends))
    }

    /// How far the pulls of images are.
    #[must_use]
    pub fn pulls(&self) -> Pulls {
        self.inner.pulls.clone()
    }

    /// The agent stops: isolators let go of what is theirs alone. Containers go on.
    pub async fn stop(&self) {
        for isolator in self.inner.composition.isolators.iter().rev() {
            isolator.stop().await;
        }
    }

    /// Sends a signal to a container's processes.
    ///
    /// # Errors
    /// When the container does not run, or the shim refuses.
    pub async fn signal(&self, id: &ContainerId, number: i32, scope: SignalScope) -> Result<(), String> {
        let container = self.inner.get(id).ok_or_else(|| format!("there is no container {id}"))?;
        container.signal(number, scope).await
    }

    /// The sandbox of a container, and who it runs as. `None` for one that is not there.
    #[must_use]
    pub fn place(&self, id: &ContainerId) -> Option<(PathBuf, Option<String>)> {
        let container = self.inner.get(id)?;
        Some((container.config.sandbox.clone(), container.config.user.clone()))
    }

    /// The containers that are nested in others and run.
    #[must_use]
    pub fn nested(&self) -> Vec<ContainerId> {
        let all = self.inner.containers();
        let running = all.values().filter(|one| one.parent.is_some() && one.pid().is_some());
        running.map(|one| one.id().clone()).collect()
    }

    /// What a container uses, as far as its isolators know.
    ///
    /// # Errors
    /// When there is no such container.
    pub async fn usage(&self, id: &ContainerId) -> Result<ResourceStatistics, String> {
        let container = self.inner.get(id).ok_or_else(|| format!("there is no container {id}"))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut statistics =
            ResourceStatistics { timestamp: now.as_secs_f64(), ..ResourceStatistics::default() };
        // Before, there is nothing to ask for, and an isolator may be busy for long with its preparation.
        let turn = if container.is_unborn() { None } else { Some(container.calls.lock().await) };
        for isolator in turn.iter().flat_map(|_| self.inner.isolators(&container)) {
            if let Err(error) = isolator.usage(id, &mut statistics).await {
                tracing::debug!(container = %id, isolator = isolator.name(), %error, "no usage is known");
            }
        }
        let Amounts { resources, limits } = container.amounts();
        let by_request = self.inner.settings.isolators.cgroups_enable_cfs;
        let requests = Resources::from_wire_lossy(&resources);
        tepui_isolators::fill_limits(&requests, &limits, by_request, &mut statistics);
        Ok(statistics)
    }

    /// What a container has to wait for. `None` where the kernel does not tell.
    ///
    /// # Errors
    /// When there is no such container, or its cgroup cannot be read.
    pub fn pressure(&self, id: &ContainerId) -> Result<Option<Pressure>, String> {
        self.inner.get(id).ok_or_else(|| format!("there is no container {id}"))?;
        let Some(cgroups) = &self.inner.composition.cgroups else { return Ok(None) };
        cgroups.pressure(id).map_err(|error| error.to_string())
    }

    /// How a container is.
    ///
    /// # Errors
    /// When there is no such container.
    pub async fn status(&self, id: &ContainerId) -> Result<ContainerStatus, String> {
        let container = self.inner.get(id).ok_or_else(|| format!("there is no container {id}"))?;
        let mut status = ContainerStatus {
            container_id: Some(id.clone()),
            executor_pid: container.pid(),
            ..ContainerStatus::default()
        };
        if container.is_unborn() {
            return Ok(status);
        }
        let _turn = container.calls.lock().await;
        for isolator in &self.inner.composition.isolators {
            // That of the cgroups is the status of whose they are, as in Mesos.
            let of = if is_of_cgroups(&**isolator) { container.cgroups_of().id() } else { id };
            if let Err(error) = isolator.status(of, &mut status).await {
                tracing::debug!(container = %id, isolator = isolator.name(), %error, "no status is known");
            }
        }
        Ok(status)
    }
}

impl Inner {
    fn containers(&self) -> MutexGuard<'_, HashMap<ContainerId, Arc<Container>>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, id: &ContainerId) -> Option<Arc<Container>> {
        self.containers().get(id).cloned()
    }

    /// The isolators that see to a container: those of cgroups have nothing to do for one that is in its parent's.
    fn isolators(&self, container: &Container) -> impl DoubleEndedIterator<Item = &Arc<dyn Isolator>> {
        let shares = container.config.shares_cgroups();
        self.composition.isolators.iter().filter(move |isolator| !(shares && is_of_cgroups(&***isolator)))
    }

    /// The containers nested directly in one.
    fn children(&self, parent: &ContainerId) -> Vec<ContainerId> {
        let all = self.containers();
        all.keys().filter(|id| id.parent.as_deref() == Some(parent)).cloned().collect()
    }
}

/// Whether an isolator drives cgroups alone, by its name in Mesos.
fn is_of_cgroups(isolator: &dyn Isolator) -> bool {
    isolator.name() == "cgroups" || isolator.name().starts_with("cgroups/")
}

impl Container {
    fn new(config: ContainerConfig, parent: Option<Arc<Container>>, dirs: Dirs) -> Self {
        let amounts = Amounts { resources: config.resources.clone(), limits: config.limits.clone() };
        Self {
            config,
            parent,
            amounts: Mutex::new(amounts),
            dirs,
            turn: tokio::sync::Mutex::default(),
            calls: tokio::sync::Mutex::default(),
            copying: Arc::default(),
            doomed: watch::Sender::new(false),
            life: watch::Sender::new(Life::Unborn),
            shim: Mutex::default(),
            limitation: Mutex::default(),
            secrets: Mutex::default(),
        }
    }

    fn id(&self) -> &ContainerId {
        &self.config.container_id
    }

    /// The container whose cgroups its processes are in: itself, or one above.
    fn cgroups_of(&self) -> &Container {
        match &self.parent {
            Some(parent) if self.config.shares_cgroups() => parent.cgroups_of(),
            _ => self,
        }
    }

    /// Its first process, if it runs.
    fn pid(&self) -> Option<u32> {
        match *self.life.borrow() {
            Life::Shimmed { pid } => pid,
            Life::Unborn | Life::Prepared | Life::Over => None,
        }
    }

    /// Whether it is still being prepared.
    fn is_unborn(&self) -> bool {
        *self.life.borrow() == Life::Unborn
    }

    async fn signal(&self, number: i32, scope: SignalScope) -> Result<(), String> {
        let requests = self.shim.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match requests {
            Some(requests) => requests.signal(number, scope).await,
            None => Err(format!("the container {} does not run", self.id())),
        }
    }

    fn connect(&self, requests: Option<Arc<shim::Requests>>) {
        *self.shim.lock().unwrap_or_else(PoisonError::into_inner) = requests;
    }

    fn secrets(&self) -> MutexGuard<'_, Secrets> {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn limitation(&self) -> MutexGuard<'_, Option<Limitation>> {
        self.limitation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until somebody wants it destroyed.
    async fn doom(&self) {
        // The sender is in `self`.
        let _ = self.doomed.subscribe().wait_for(|doomed| *doomed).await;
    }
}

/// Ends containers that overstep a limit.
async fn heed(inner: std::sync::Weak<Inner>, mut reported: mpsc::UnboundedReceiver<Limitation>) {
    while let Some(limitation) = reported.recv().await {
        let Some(inner) = inner.upgrade() else { return };
        let Some(container) = inner.get(&limitation.container_id) else { continue };
        tracing::info!(
            container = %limitation.container_id, reason = limitation.reason.as_str_name(), message = limitation.message,
            "a container oversteps a limit and is ended"
        );
        container.limitation().get_or_insert(limitation);
        tokio::spawn(async move {
            // One that is over already, or not started, needs no signal: see `shim::watch`.
            let _ = container.signal(libc::SIGKILL, SignalScope::All).await;
        });
    }
}
