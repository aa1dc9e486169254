//! The Docker containerizer: containers that a Docker engine makes.
//!
//! ```text
//!  Launch (a command task with a ContainerInfo of type DOCKER)
//!      │ prepare
//!      ├── [spec]       what the container is created as
//!      ├── [engine]     the image is pulled, if it is not there or shall be anew; the container is created
//!      │ start
//!      ├── [engine]     the container is started
//!      ├── [watch]      waits for its end, across restarts of the engine
//!      └── [logs]       copies its output into the sandbox
//!      │ destroy
//!      └── [sweep]      ended containers are removed after a while, and those that nobody knows
//! ```
//!
//! Containers bear their ids in their names and this agent's mark among their labels: an agent that starts anew finds them
//! again ([recover]), and what it knows nothing of is removed. The engine may hang, go and come back: each call has a deadline, a container's end
//! is told once whoever was away meanwhile, and nothing but the task that asked waits.

mod engine;
mod inside;
mod logs;
mod recover;
mod spec;
mod sweep;
mod usage;
mod watch;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bollard::auth::DockerCredentials;
use bollard::models::ContainerInspectResponse;
use tepui_api::resources::Resources;
use tepui_api::v1::network_info::IpAddress;
use tepui_api::v1::task_status::Reason;
use tepui_api::v1::{CommandInfo, ContainerId, ContainerStatus, NetworkInfo, Resource, ResourceStatistics};
use tepui_images::{Credentials, Durations, Login};
use tepui_isolators::cgroups::Pressure;
use tepui_isolators::{ContainerDns, Limits};
use tepui_shim::{Rotation, WindowSize};
use tokio::sync::{mpsc, watch as channel};
use tokio::task::JoinHandle;

use super::logger::{self, LoggerError};
use super::pulls::Pulls;
use crate::core::{ContainerEvent, Description, Found, Launch, Workload};
use crate::shell::backend::{Backend, BoxFuture, Inside, LaunchError};
use crate::shell::guest::{Guest, Input};
use engine::{Engine, EngineError};

/// Before the id in a container's name, as in Mesos.
const PREFIX: &str = "mesos-";
/// The label that says whose container it is: the agent's work directory.
const OWNER: &str = "tepui.agent.work_dir";
/// The label with the container's id.
const ID: &str = "tepui.container_id";
const KILL: i32 = 9;

/// What the Docker containerizer is told of the agent.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `--docker_socket`.
    pub socket: PathBuf,
    /// `--work_dir`: by it an agent knows its containers.
    pub work_dir: PathBuf,
    /// `--runtime_dir`: where it is noted how far the output is copied.
    pub runtime_dir: PathBuf,
    /// `--sandbox_directory`: where a container finds its sandbox.
    pub sandbox_directory: String,
    /// `--cgroups_enable_cfs`.
    pub enable_cfs: bool,
    /// `--default_container_dns`.
    pub dns: ContainerDns,
    /// `--docker_kill_orphans`.
    pub kill_orphans: bool,
    /// `--docker_remove_delay`.
    pub remove_delay: Duration,
    /// `--docker_config`.
    pub credentials: Arc<Credentials>,
    /// `--container_logger`: how the copies of containers' output are rotated, if they are.
    pub rotation: Option<Rotation>,
}

/// Makes containers by a Docker engine. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct DockerContainerizer {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    engine: Arc<Engine>,
    pulls: Pulls,
    /// How long it took until there was an image: to look for it, and to pull it if need be, as Mesos counts it.
    image_pulls: Durations,
    containers: Mutex<HashMap<ContainerId, Arc<Container>>>,
    ends: mpsc::UnboundedSender<(ContainerId, ContainerEvent)>,
}

/// A container that was prepared or found.
struct Container {
    id: ContainerId,
    launch: Arc<Launch>,
    /// True once it is to be destroyed.
    doomed: channel::Sender<bool>,
    /// Held through prepare, start and destroy.
    turn: tokio::sync::Mutex<()>,
    seen: Mutex<Seen>,
    /// What it may use.
    amounts: Mutex<(Vec<Resource>, Limits)>,
    watcher: Mutex<Option<JoinHandle<()>>>,
}

/// What the engine last said of a container that runs.
#[derive(Debug, Default, Clone)]
struct Seen {
    pid: u32,
    networks: Vec<NetworkInfo>,
    /// What `docker inspect` says, as JSON.
    inspected: Vec<u8>,
    /// The address that `docker inspect` shows first.
    address: Option<String>,
    /// The signal by which the image wants to be stopped.
    stop_signal: Option<String>,
}

/// Why a container does not run.
#[derive(Debug, thiserror::Error)]
enum DockerError {
    #[error(transparent)]
    Spec(#[from] spec::SpecError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("there is a container with the id {0} already")]
    Exists(ContainerId),
    #[error("there is no container {0}")]
    Unknown(ContainerId),
    #[error("the container's output cannot be kept as it asks: {0}")]
    Logger(#[from] LoggerError),
    #[error("the container was destroyed before it ran")]
    Doomed,
}

impl From<DockerError> for LaunchError {
    fn from(error: DockerError) -> Self {
        Self { reason: Reason::ContainerLaunchFailed, message: error.to_string() }
    }
}

impl DockerContainerizer {
    /// Sets the containerizer up. The ends of containers come out of the channel. To be called within a tokio runtime. The
    /// engine need not be there.
    #[must_use]
    pub fn new(settings: Settings) -> (Self, mpsc::UnboundedReceiver<(ContainerId, ContainerEvent)>) {
        let (ends, told) = mpsc::unbounded_channel();
        let engine = Arc::new(Engine::new(&settings.socket));
        let inner = Inner {
            settings,
            engine,
            pulls: Pulls::default(),
            image_pulls: Durations::default(),
            containers: Mutex::default(),
            ends,
        };
        (Self { inner: Arc::new(inner) }, told)
    }

    async fn prepare(&self, id: &ContainerId, launch: Arc<Launch>) -> Result<Vec<NetworkInfo>, DockerError> {
        let inner = &self.inner;
        let container = Arc::new(Container::new(id.clone(), launch));
        {
            let mut containers = inner.containers();
            if containers.contains_key(id) {
                return Err(DockerError::Exists(id.clone()));
            }
            containers.insert(id.clone(), Arc::clone(&container));
        }
        let _turn = container.turn.lock().await;
        tokio::select! {
            biased;
            () = container.doom() => Err(DockerError::Doomed),
            created = inner.create(&container) => created.map(|()| Vec::new()),
        }
    }

    async fn start(&self, id: &ContainerId) -> Result<(u32, Vec<NetworkInfo>), DockerError> {
        let inner = &self.inner;
        let container = inner.get(id).ok_or_else(|| DockerError::Unknown(id.clone()))?;
        let _turn = container.turn.lock().await;
        let name = container.name();
        let started = async {
            inner.engine.start(&name).await?;
            inner.engine.inspect(&name).await
        };
        let inspected = tokio::select! {
            biased;
            () = container.doom() => return Err(DockerError::Doomed),
            inspected = started => inspected?,
        };
        let seen = inspected.as_ref().map(seen).unwrap_or_default();
        container.see(seen.clone());
        inner.watch(&container);
        Ok((seen.pid, seen.networks))
    }

    async fn signal(&self, id: &ContainerId, signal: i32) -> Result<(), String> {
        let container = self.inner.get(id).ok_or_else(|| format!("there is no container {id}"))?;
        let seen = container.seen();
        // An image can name another signal to be stopped by than SIGTERM, as `docker stop` heeds it.
        let name = match (signal, seen.stop_signal) {
            (libc::SIGTERM, Some(own)) => own,
            _ => signal.to_string(),
        };
        let asked = self.inner.engine.kill(&container.name(), &name).await;
        match asked {
            Err(error) if signal == KILL && usage::kill_process(seen.pid, id) => {
                tracing::warn!(container = %id, %error, "the engine did not kill the container; its process was killed instead");
                Ok(())
            }
            other => other.map_err(|error| error.to_string()),
        }
    }

    async fn destroy(&self, id: &ContainerId) -> Result<(), String> {
        let Some(container) = self.inner.get(id) else { return Ok(()) };
        container.doomed.send_replace(true);
        let _turn = container.turn.lock().await;
        let removed = self.inner.remove(&container).await;
        // What could not be removed now is unknown from here on, and found by the sweep.
        if let Some(watcher) = container.watcher().take() {
            watcher.abort();
        }
        let _ = std::fs::remove_file(self.inner.mark(id));
        self.inner.containers().remove(id);
        removed.map_err(|error| error.to_string())
    }

    async fn update(&self, id: &ContainerId, resources: Vec<Resource>, limits: Limits) -> Result<(), String> {
        let container = self.inner.get(id).ok_or_else(|| format!("there is no container {id}"))?;
        let amounts = Resources::from_wire_lossy(&resources);
        let body = spec::update_body(&amounts, &limits, self.inner.settings.enable_cfs);
        self.inner.engine.update(&container.name(), body).await.map_err(|error| error.to_string())?;
        *container.amounts() = (resources, limits);
        Ok(())
    }

    async fn status(&self, id: &ContainerId) -> Result<ContainerStatus, String> {
        let container = self.inner.get(id).ok_or_else(|| format!("there is no container {id}"))?;
        let seen = container.seen();
        Ok(ContainerStatus {
            container_id: Some(id.clone()),
            executor_pid: Some(seen.pid).filter(|pid| *pid > 0),
            network_infos: seen.networks,
            ..ContainerStatus::default()
        })
    }
}

impl Inner {
    fn containers(&self) -> MutexGuard<'_, HashMap<ContainerId, Arc<Container>>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, id: &ContainerId) -> Option<Arc<Container>> {
        self.containers().get(id).cloned()
    }

    /// Where it is noted how far a container's output is copied.
    fn mark(&self, id: &ContainerId) -> PathBuf {
        self.settings.runtime_dir.join("docker").join(format!("{id}.output"))
    }

    fn owner(&self) -> String {
        self.settings.work_dir.display().to_string()
    }

    /// How the copies of a container's output are rotated.
    fn rotation(&self, container: &Container) -> Result<Option<Rotation>, LoggerError> {
        let command = container.launch.command().cloned().unwrap_or_default();
        self.settings.rotation.as_ref().map(|agent| logger::of_command(agent, &command)).transpose()
    }

    async fn create(&self, container: &Container) -> Result<(), DockerError> {
        // Before anything is made of a container whose output could not be kept.
        self.rotation(container)?;
        let launch = &*container.launch;
        let (info, command) =
            (launch.container().cloned().unwrap_or_default(), launch.command().cloned().unwrap_or_default());
        let name = container.name();
        let (framework, kind, program) = match &launch.workload {
            Workload::Task(key, _) => (key.framework.as_str(), "tepui.task_id", key.task.to_string()),
            Workload::Executor(key, _) => {
                (key.framework.as_str(), "tepui.executor_id", key.executor.to_string())
            }
            // Refused before: see `composing`.
            Workload::Call(_) => ("", "tepui.container_id", container.id.to_string()),
        };
        // The search path is the image's.
        let mut environment = launch.environment.clone();
        environment.retain(|(name, _)| launch.task().is_none() && name != "PATH");
        let labels = HashMap::from([
            (OWNER.to_owned(), self.owner()),
            (ID.to_owned(), container.id.to_string()),
            ("tepui.framework_id".to_owned(), framework.to_string()),
            (kind.to_owned(), program),
        ]);
        let request = spec::Request {
            name: &name,
            container: &info,
            command: &command,
            environment: &environment,
            resources: &Resources::from_wire_lossy(&launch.resources),
            limits: &launch.limits,
            sandbox: &launch.directory,
            sandbox_directory: &self.settings.sandbox_directory,
            enable_cfs: self.settings.enable_cfs,
            dns: &self.settings.dns,
            labels: &labels,
        };
        let body = spec::create_body(&request)?;
        let docker = spec::docker_info(&info)?;
        let timed = self.image_pulls.begin();
        if docker.force_pull_image() || !self.engine.has_image(&docker.image).await? {
            tracing::info!(container = %container.id, image = docker.image, "the engine pulls an image");
            let listed = self.pulls.begin(&docker.image);
            let login = self.login(&docker.image);
            self.engine.pull(&docker.image, login, |info| listed.hear_engine(&info)).await?;
        }
        drop(timed);
        Ok(self.engine.create(&name, body).await?)
    }

    /// Whom the engine is to be for the registry of an image.
    fn login(&self, image: &str) -> Option<DockerCredentials> {
        let first = image.split('/').next().unwrap_or_default();
        let named = image.contains('/') && (first.contains(['.', ':']) || first == "localhost");
        let host = if named { first } else { "docker.io" };
        let given =
            DockerCredentials { serveraddress: Some(host.to_owned()), ..DockerCredentials::default() };
        Some(match self.settings.credentials.of_host(host)? {
            Login::Password { user, password } => {
                DockerCredentials { username: Some(user.clone()), password: Some(password.clone()), ..given }
            }
            Login::IdentityToken(token) => DockerCredentials { identitytoken: Some(token.clone()), ..given },
        })
    }

    /// Ends a container. One that has run stays for a while.
    async fn remove(&self, container: &Container) -> Result<(), EngineError> {
        let name = container.name();
        let Some(inspected) = self.engine.inspect(&name).await? else { return Ok(()) };
        let state = inspected.state.unwrap_or_default();
        let has_ended = matches!(state.status, Some(bollard::models::ContainerStateStatusEnum::EXITED));
        if has_ended && !self.settings.remove_delay.is_zero() {
            return Ok(());
        }
        self.engine.remove(&name).await
    }
}

impl Container {
    fn new(id: ContainerId, launch: Arc<Launch>) -> Self {
        Self {
            id,
            amounts: Mutex::new((launch.resources.clone(), launch.limits.clone())),
            launch,
            doomed: channel::Sender::new(false),
            turn: tokio::sync::Mutex::default(),
            seen: Mutex::default(),
            watcher: Mutex::default(),
        }
    }

    /// As the engine knows it.
    fn name(&self) -> String {
        format!("{PREFIX}{}", self.id)
    }

    fn see(&self, seen: Seen) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }

    fn amounts(&self) -> MutexGuard<'_, (Vec<Resource>, Limits)> {
        self.amounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn watcher(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.watcher.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until somebody wants it destroyed.
    async fn doom(&self) {
        // The sender is in `self`.
        let _ = self.doomed.subscribe().wait_for(|doomed| *doomed).await;
    }
}

/// What there is to know of a container that runs. One in the host's network has no address of its own.
fn seen(inspected: &ContainerInspectResponse) -> Seen {
    let pid = inspected.state.as_ref().and_then(|state| state.pid).unwrap_or(0);
    let networks = inspected.network_settings.iter().flat_map(|settings| &settings.networks).flatten();
    let mut networks: Vec<NetworkInfo> = networks
        .filter_map(|(name, endpoint)| {
            let addresses = [&endpoint.ip_address, &endpoint.global_ipv6_address];
            let given = addresses.into_iter().flatten().filter(|address| !address.is_empty());
            let ip_addresses: Vec<IpAddress> = given
                .map(|address| IpAddress { ip_address: Some(address.clone()), ..IpAddress::default() })
                .collect();
            (!ip_addresses.is_empty()).then(|| NetworkInfo {
                name: Some(name.clone()),
                ip_addresses,
                ..NetworkInfo::default()
            })
        })
        .collect();
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    Seen {
        // A list, as the command prints it.
        inspected: serde_json::to_vec(&[inspected]).unwrap_or_default(),
        address: networks
            .iter()
            .flat_map(|network| &network.ip_addresses)
            .find_map(|ip| ip.ip_address.clone()),
        pid: u32::try_from(pid).unwrap_or(0),
        networks,
        stop_signal: inspected.config.as_ref().and_then(|config| config.stop_signal.clone()),
    }
}

impl Backend for DockerContainerizer {
    fn prepare(
        &self,
        id: ContainerId,
        launch: Arc<Launch>,
    ) -> BoxFuture<'_, Result<Vec<NetworkInfo>, LaunchError>> {
        Box::pin(async move { Ok(DockerContainerizer::prepare(self, &id, launch).await?) })
    }

    fn start(&self, id: ContainerId) -> BoxFuture<'_, Result<(u32, Vec<NetworkInfo>), LaunchError>> {
        Box::pin(async move { Ok(DockerContainerizer::start(self, &id).await?) })
    }

    fn run_inside(&self, id: ContainerId, inside: Inside) -> BoxFuture<'_, Result<i32, String>> {
        Box::pin(async move { DockerContainerizer::run_inside(self, &id, inside).await })
    }

    fn enter(
        &self,
        id: ContainerId,
        command: CommandInfo,
        terminal: Option<WindowSize>,
    ) -> BoxFuture<'_, Result<Guest, String>> {
        Box::pin(async move { self.guest(&id, &command, terminal).await })
    }

    fn terminal(&self, _: ContainerId) -> BoxFuture<'_, Result<Option<Input>, String>> {
        // A task's terminal is refused (see `spec`).
        Box::pin(std::future::ready(Ok(None)))
    }

    /// As Mesos' executor of Docker containers tells it: all that the engine says, and the address as a label too.
    fn describe(&self, id: &ContainerId) -> Option<Description> {
        let seen = self.inner.get(id)?.seen();
        let label = seen.address.map(|address| ("Docker.NetworkSettings.IPAddress".to_owned(), address));
        Some(Description { data: seen.inspected, labels: label.into_iter().collect() })
    }

    fn signal(&self, id: ContainerId, signal: i32) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move { DockerContainerizer::signal(self, &id, signal).await })
    }

    fn destroy(&self, id: ContainerId) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move { DockerContainerizer::destroy(self, &id).await })
    }

    fn update(
        &self,
        id: ContainerId,
        resources: Vec<Resource>,
        limits: Limits,
    ) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move { DockerContainerizer::update(self, &id, resources, limits).await })
    }

    fn usage(&self, id: ContainerId) -> BoxFuture<'_, Result<ResourceStatistics, String>> {
        Box::pin(async move { DockerContainerizer::usage(self, &id).await })
    }

    fn pressure(&self, _: ContainerId) -> BoxFuture<'_, Result<Option<Pressure>, String>> {
        // The engine does not tell, and its cgroups are not ours.
        Box::pin(std::future::ready(Ok(None)))
    }

    fn status(&self, id: ContainerId) -> BoxFuture<'_, Result<ContainerStatus, String>> {
        Box::pin(async move { DockerContainerizer::status(self, &id).await })
    }

    fn recover(
        &self,
        known: Vec<(ContainerId, Arc<Launch>)>,
    ) -> BoxFuture<'_, Result<HashMap<ContainerId, Found>, String>> {
        Box::pin(async move { Ok(DockerContainerizer::recover(self, known).await) })
    }

    fn durations(&self) -> Vec<(&'static str, Durations)> {
        vec![("containerizer/docker/image_pull_ms", self.inner.image_pulls.clone())]
    }

    fn pulls(&self) -> serde_json::Value {
        self.inner.pulls.to_json()
    }
}
