//! Commands to containers, each as a task of its own. The core gives a command for a container only when the last one
//! is done, but for `Probe`, and for `Destroy`, which may come at any time and cancels what is under way.

use std::collections::HashMap;
use std::future::poll_fn;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use tepui_api::v1::ContainerId;
use tepui_api::v1::task_status::Reason;
use tokio::task::AbortHandle;

use super::backend::Backend;
use super::under_way::{Beginning, UnderWay};
use super::{Event, Handle};
use crate::by_call::ByCalls;
use crate::checks::{self, Kind};
use crate::core::{ContainerCommand, ContainerEvent, Launch};
use crate::fetcher::{FetchError, Fetcher, Job};
use crate::sandbox::files::Files;
use crate::sandbox::gc::Gc;
use crate::sandbox::{self, SandboxError};

/// Does what the core wants done with containers.
#[derive(Clone)]
pub(crate) struct Containers {
    backend: Arc<dyn Backend>,
    fetcher: Fetcher,
    under_way: UnderWay,
    /// Those that may be nested in one that is destroyed.
    by_calls: ByCalls,
    files: Arc<Files>,
    sandboxes: Arc<Gc>,
    handle: Handle,
    /// Where commands are carried out.
    workers: tokio::runtime::Handle,
    /// The sandboxes of containers that are not destroyed.
    directories: Arc<Mutex<HashMap<ContainerId, PathBuf>>>,
    /// The last probe of each check of containers that are not destroyed.
    probes: Arc<Mutex<HashMap<ContainerId, HashMap<Kind, AbortHandle>>>>,
}

// === impl Containers ===

impl Containers {
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        fetcher: Fetcher,
        by_calls: ByCalls,
        files: Arc<Files>,
        sandboxes: Arc<Gc>,
        handle: Handle,
        workers: tokio::runtime::Handle,
    ) -> Self {
        Self {
            backend,
            fetcher,
            under_way: UnderWay::default(),
            by_calls,
            files,
            sandboxes,
            handle,
            workers,
            directories: Arc::default(),
            probes: Arc::default(),
        }
    }

    /// A container that an earlier process made.
    pub(crate) fn adopt(&self, id: ContainerId, sandbox: PathBuf) {
        // One that is nested goes with its parent's.
        if id.parent.is_none() {
            self.sandboxes.hold(&sandbox);
        }
        self.directories().insert(id, sandbox);
    }

    fn directories(&self) -> MutexGuard<'_, HashMap<ContainerId, PathBuf>> {
        self.directories.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn probes(&self) -> MutexGuard<'_, HashMap<ContainerId, HashMap<Kind, AbortHandle>>> {
        self.probes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to carry out a command; what comes of it is an event.
    pub(crate) fn perform(&self, id: ContainerId, command: ContainerCommand) {
        let this = self.clone();
        let probe = match &command {
            ContainerCommand::Probe(probe) => Some(probe.kind),
            _ => None,
        };
        if matches!(command, ContainerCommand::Destroy) {
            // One that may take as long as it likes would never end.
            let probes = self.probes().remove(&id);
            probes.into_iter().flatten().for_each(|(_, probe)| probe.abort());
        }
        // A command to destroy it can follow at once.
        let beginning = matches!(command, ContainerCommand::Prepare(_)).then(|| self.under_way.begin(&id));
        let named = id.clone();
        let task = self.workers.spawn(async move {
            let event = match command {
                ContainerCommand::Prepare(launch) => this.prepare(&id, launch, beginning).await,
                ContainerCommand::Start => Some(this.start(&id).await),
                ContainerCommand::Signal(signal) => {
                    this.signal(&id, signal).await;
                    None
                }
                ContainerCommand::Update(resources, limits) => {
                    Some(match this.backend.update(id.clone(), resources, limits).await {
                        Ok(()) => ContainerEvent::Updated,
                        Err(error) => ContainerEvent::NotUpdated(error),
                    })
                }
                ContainerCommand::Probe(probe) => {
                    let outcome = checks::probe(&*this.backend, &id, &probe).await;
                    Some(ContainerEvent::Probed(probe.kind, outcome))
                }
                ContainerCommand::Destroy => Some(this.destroy(&id).await),
            };
            if let Some(event) = event {
                this.handle.tell(Event::Container(id, event));
            }
        });
        if let Some(kind) = probe {
            self.probes().entry(named).or_default().insert(kind, task.abort_handle());
        }
    }

    /// None when the container was destroyed before its backend knew it.
    async fn prepare(
        &self,
        id: &ContainerId,
        launch: Arc<Launch>,
        beginning: Option<Beginning>,
    ) -> Option<ContainerEvent> {
        let beginning = beginning?;
        if id.parent.is_none() {
            self.sandboxes.hold(&launch.directory);
        }
        self.directories().insert(id.clone(), launch.directory.clone());
        if let Err(event) = self.make_sandbox(id, &launch).await {
            return Some(event);
        }
        let uris = launch.command().map_or(&[][..], |command| &command.uris);
        let job = Job { container: id, uris, sandbox: &launch.directory, user: launch.user.as_deref() };
        match self.fetcher.fetch(job, beginning.stop()).await {
            Ok(()) if beginning.stop().is_said() => return None,
            Ok(()) => {}
            Err(FetchError::Stopped) => return None,
            Err(error) => {
                let (reason, message) = (Reason::ContainerLaunchFailed, error.to_string());
                return Some(ContainerEvent::Failed { reason, message });
            }
        }
        let mut preparing = self.backend.prepare(id.clone(), launch);
        let first = poll_fn(|context| Poll::Ready(preparing.as_mut().poll(context))).await;
        // From here on the backend cancels it.
        drop(beginning);
        let prepared = match first {
            Poll::Ready(prepared) => prepared,
            Poll::Pending => preparing.await,
        };
        Some(match prepared {
            Ok(networks) => ContainerEvent::Prepared { networks },
            Err(error) => ContainerEvent::Failed { reason: error.reason, message: error.message },
        })
    }

    async fn make_sandbox(&self, id: &ContainerId, launch: &Launch) -> Result<(), ContainerEvent> {
        let (directory, user, files) =
            (launch.directory.clone(), launch.user.clone(), Arc::clone(&self.files));
        let nested = id.parent.is_some();
        let task = launch.task().map(|task| task.task_id.value.clone());
        let made = tokio::task::spawn_blocking(move || {
            match nested {
                true => {
                    sandbox::create_nested(&directory, user.as_deref())?;
                    if let Some(task) = task
                        && let Err(error) = sandbox::link_task(&directory, &task)
                    {
                        tracing::warn!(%error, task, "no link leads to the sandbox of a task in a pod");
                    }
                }
                false => {
                    sandbox::create(&directory, user.as_deref())?;
                    // One that is nested is found beneath this.
                    sandbox::attach(&files, &directory, true);
                }
            }
            Ok::<_, SandboxError>(())
        });
        match made.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(ContainerEvent::NoSandbox(error.to_string())),
            Err(error) => Err(ContainerEvent::NoSandbox(format!("the sandbox was not made: {error}"))),
        }
    }

    async fn start(&self, id: &ContainerId) -> ContainerEvent {
        match self.backend.start(id.clone()).await {
            Ok((pid, networks)) => {
                if let Some(description) = self.backend.describe(id) {
                    self.handle.tell(Event::Container(id.clone(), ContainerEvent::Described(description)));
                }
                ContainerEvent::Started { pid, networks }
            }
            Err(error) => ContainerEvent::Failed { reason: error.reason, message: error.message },
        }
    }

    async fn signal(&self, id: &ContainerId, signal: i32) {
        if let Err(error) = self.backend.signal(id.clone(), signal).await {
            tracing::warn!(container = %id, signal, error, "a signal did not reach the container");
        }
    }

    async fn destroy(&self, id: &ContainerId) -> ContainerEvent {
        self.under_way.stop(id).await;
        let destroyed = self.backend.destroy(id.clone()).await;
        let directory = self.directories().remove(id);
        // One that is nested goes with its parent's.
        if let Some(directory) = directory.filter(|_| id.parent.is_none()) {
            self.sandboxes.begin(&directory);
        }
        self.by_calls.destroyed(id);
        match destroyed {
            Ok(()) => ContainerEvent::Destroyed,
            Err(error) => ContainerEvent::NotDestroyed(error),
        }
    }
}
