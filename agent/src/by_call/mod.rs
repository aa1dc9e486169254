//! Containers that were asked for by a call to the agent (`LAUNCH_CONTAINER` and the like), rather than for a task or an executor.
//!
//! [`ByCalls`] knows each from its launch until it is removed, or until the container that it is nested in is gone. The agent's core has no
//! part in them. What is known is written down beside the runtime directories of containers ([`records`]), and as these, it is lost with the
//! machine's memory: an agent that starts anew finds its containers again, and what became of those that ended meanwhile.
//!
//! ```text
//!   launch ─► Launching ──started──► Running ──its program ends──► Ended ──REMOVE_CONTAINER, or its root is gone──► forgotten
//!                 └── cannot be made: forgotten at once
//! ```
//!
//! Of the tasks of a pod, which are the core's, it is known here how they ended, for as long as their pod is there: as in Mesos, one can wait
//! for them late.

mod records;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tepui_api::v1::value::Scalar;
use tepui_api::v1::{CommandInfo, ContainerId, ContainerInfo, Resource, TaskInfo};
use tokio::sync::watch;

use crate::core::{ByCall, ContainerEvent, Found, Launch, Limitation, Workload};
use crate::fetcher::{Fetcher, Job, Stop};
use crate::sandbox::{self, paths};
use crate::shell::backend::Backend;
use records::{Record, Records};

/// The containers that were asked for by calls.
#[derive(Clone)]
pub(crate) struct ByCalls {
    inner: Arc<Inner>,
}

struct Inner {
    backend: Arc<dyn Backend>,
    fetcher: Fetcher,
    records: Records,
    work_dir: PathBuf,
    /// `--switch_user`.
    switch_user: bool,
    /// Where commands to containers are carried out.
    workers: tokio::runtime::Handle,
    entries: Mutex<HashMap<ContainerId, Arc<Entry>>>,
    /// Those who wait for the end of a container that is not here.
    others: Mutex<HashMap<ContainerId, watch::Sender<Option<Ended>>>>,
}

/// A container that is known here.
#[derive(Default)]
struct Entry {
    /// The sandbox that goes when it is removed; none of a container that was not asked for by a call.
    sandbox: Option<PathBuf>,
    /// What is written down of it; nothing of a container that was not asked for by a call.
    record: Mutex<Option<Record>>,
    /// Set to true when it is killed before the backend knows it.
    stopped: watch::Sender<bool>,
    ended: watch::Sender<Option<Ended>>,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Ended {
    /// As wait(2) gives it; `None` when nobody knows.
    pub(crate) status: Option<i32>,
    /// The limit for which it was ended.
    pub(crate) limitation: Option<Limitation>,
}

/// A container that is asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    /// Its id, with those that it is nested in.
    pub(crate) id: ContainerId,
    /// What runs in it.
    pub(crate) command: CommandInfo,
    /// Its image and the like.
    pub(crate) container: Option<ContainerInfo>,
    /// What it is certain to get.
    pub(crate) resources: Vec<Resource>,
    /// Hard limits by resource name.
    pub(crate) limits: HashMap<String, Scalar>,
}

/// What came of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Launched {
    /// It runs.
    Now,
    /// There is one with this id already.
    Before,
}

/// Why a container is not removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RemoveError {
    /// It has processes.
    #[error("the container {0} has not ended yet: kill it first, and wait for it")]
    Runs(ContainerId),
    /// Neither it nor its root is known.
    #[error("the container {0} is not known")]
    Unknown(ContainerId),
    /// The disk refuses.
    #[error("the container {0} cannot be removed: {1}")]
    Failed(ContainerId, String),
}

// === impl ByCalls ===

impl ByCalls {
    /// Reads what an earlier run of the agent wrote down below this runtime directory. Blocks on the disk.
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        fetcher: Fetcher,
        runtime_dir: &std::path::Path,
        work_dir: PathBuf,
        switch_user: bool,
        workers: tokio::runtime::Handle,
    ) -> Self {
        let records = Records::new(runtime_dir);
        let entries =
            records.all().into_iter().map(|record| (record.container.clone(), Arc::new(Entry::of(record))));
        let entries = Mutex::new(entries.collect());
        let inner = Inner {
            backend,
            fetcher,
            records,
            work_dir,
            switch_user,
            workers,
            entries,
            others: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Those that may run, with what they were made from.
    pub(crate) fn launches(&self) -> Vec<(ContainerId, Arc<Launch>)> {
        let entries = self.inner.entries();
        let running = entries.iter().filter(|(_, entry)| entry.ended.borrow().is_none());
        running.filter_map(|(id, entry)| Some((id.clone(), Arc::new(entry.launch()?)))).collect()
    }

    /// Takes in what was found of them, and of the containers that they are nested in.
    pub(crate) fn recovered(&self, found: &HashMap<ContainerId, Found>) {
        let known: Vec<ContainerId> = self.inner.entries().keys().cloned().collect();
        for id in known {
            let root = root(&id);
            // A root that is one of these is there for as long as it is known.
            if id.parent.is_some() && !found.contains_key(root) && !self.inner.entries().contains_key(root) {
                self.forget(root);
                continue;
            }
            let ended = match found.get(&id) {
                Some(Found::Running { .. }) => continue,
                Some(Found::Exited { status, limitation }) => {
                    Ended { status: *status, limitation: limitation.clone() }
                }
                Some(Found::Nothing | Found::Unanswered) | None => Ended::default(),
            };
            self.end(&id, ended);
        }
    }

    /// Makes and starts a container. Goes on when nobody waits for it any more.
    ///
    /// # Errors
    /// With words for whoever asked.
    pub(crate) async fn launch(&self, asked: Asked) -> Result<Launched, String> {
        let this = self.clone();
        let launched = self.inner.workers.spawn(async move { this.launch_here(asked).await });
        launched.await.map_err(|error| error.to_string())?
    }

    async fn launch_here(&self, asked: Asked) -> Result<Launched, String> {
        let inner = &self.inner;
        let id = asked.id.clone();
        let (directory, user) = self.place(&asked)?;
        let mut record = Record::new(asked, &directory, user);
        let launch = Arc::new(record.take_launch());
        let entry;
        {
            let mut entries = inner.entries();
            if let Some(known) = entries.get(&id) {
                return match *known.ended.borrow() {
                    None => Ok(Launched::Before),
                    Some(_) => Err(format!("the container {id} has run already: remove it first")),
                };
            }
            if inner.backend.place(&id).is_some() {
                return Ok(Launched::Before);
            }
            inner
                .records
                .save(&record)
                .map_err(|error| format!("the container cannot be written down: {error}"))?;
            entry = Arc::new(Entry::of(record));
            entries.insert(id.clone(), Arc::clone(&entry));
        }
        tracing::info!(container = %id, "launching a container by call");
        match self.make(&id, &launch, entry.stopped.subscribe()).await {
            Ok(()) => Ok(Launched::Now),
            Err(message) => {
                tracing::warn!(container = %id, message, "a container could not be launched by call");
                if let Err(error) = inner.backend.destroy(id.clone()).await {
                    tracing::error!(container = %id, error, "a container could not be removed wholly");
                }
                if let Err(error) = self.erase(&id).await {
                    tracing::error!(container = %id, %error, "what is left of a container could not be removed");
                }
                // Whoever waits for it already is told that it is over.
                entry.close(Ended::default());
                Err(message)
            }
        }
    }

    /// Where its sandbox is to be, and who it runs as.
    fn place(&self, asked: &Asked) -> Result<(PathBuf, Option<String>), String> {
        let own = asked.command.user.clone().filter(|_| self.inner.switch_user);
        let Some(parent) = &asked.id.parent else {
            return Ok((paths::standalone(&self.inner.work_dir, &asked.id.value), own));
        };
        let of_parent = self.inner.backend.place(parent);
        let (sandbox, user) =
            of_parent.ok_or_else(|| format!("the parent container {parent} does not exist"))?;
        Ok((paths::nested(&sandbox, &asked.id.value), own.or(user)))
    }

    async fn make(
        &self,
        id: &ContainerId,
        launch: &Arc<Launch>,
        stopped: watch::Receiver<bool>,
    ) -> Result<(), String> {
        let stop = Stop::of(stopped);
        let go_on = || match stop.is_said() {
            true => Err("the container was killed before it ran".to_owned()),
            false => Ok(()),
        };
        let (made, nested) = (Arc::clone(launch), id.parent.is_some());
        let sandbox = tokio::task::spawn_blocking(move || match nested {
            true => sandbox::create_nested(&made.directory, made.user.as_deref()),
            false => sandbox::create_alone(&made.directory, made.user.as_deref()),
        });
        sandbox.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        let uris = launch.command().map_or(&[][..], |command| &command.uris);
        let job = Job { container: id, uris, sandbox: &launch.directory, user: launch.user.as_deref() };
        let fetched = self.inner.fetcher.fetch(job, &stop).await;
        go_on()?;
        fetched.map_err(|error| error.to_string())?;
        let backend = &self.inner.backend;
        backend.prepare(id.clone(), Arc::clone(launch)).await.map_err(|error| error.message)?;
        // It may have been killed just before the backend knew it.
        go_on()?;
        backend.start(id.clone()).await.map_err(|error| error.message)?;
        Ok(())
    }

    /// A container's program has ended, whosever it is.
    pub(crate) fn heard(&self, id: &ContainerId, event: &ContainerEvent) {
        if let ContainerEvent::Exited { status, limitation } = event {
            self.end(id, Ended { status: *status, limitation: limitation.clone() });
        }
    }

    fn end(&self, id: &ContainerId, ended: Ended) {
        let inner = &self.inner;
        let entry = inner.entries().get(id).cloned();
        if entry.is_none() {
            self.keep(id, ended.clone());
        }
        // Only now that whoever comes later finds it among the entries.
        if let Some(waited) = inner.others().remove(id) {
            waited.send_replace(Some(ended.clone()));
        }
        let Some(entry) = entry else { return };
        if entry.ended.borrow().is_some() {
            return;
        }
        let (this, id) = (self.clone(), id.clone());
        inner.workers.spawn(async move {
            // Those that are nested in it end with it, as in Mesos.
            if let Err(error) = this.inner.backend.destroy(id.clone()).await {
                tracing::error!(container = %id, error, "a container could not be removed wholly");
            }
            if let Some(record) = &mut *entry.record() {
                record.end(&ended);
                if this.inner.entries().contains_key(&id)
                    && let Err(error) = this.inner.records.save(record)
                {
                    tracing::error!(container = %id, %error, "a container's end cannot be written down");
                }
            }
            entry.close(ended);
        });
    }

    /// Remembers how a container of somebody else's ended, if it is nested in one that is still there.
    fn keep(&self, id: &ContainerId, ended: Ended) {
        let inner = &self.inner;
        let root = root(id);
        if id.parent.is_none() || (inner.backend.place(root).is_none() && !inner.entries().contains_key(root))
        {
            return;
        }
        let record = Record::of_another(id.clone(), &ended);
        let entry = Entry { ended: watch::Sender::new(Some(ended)), ..Entry::default() };
        inner.entries().insert(id.clone(), Arc::new(entry));
        let (this, id) = (self.clone(), id.clone());
        inner.workers.spawn_blocking(move || {
            // Held until it is written, so that nobody removes it meanwhile.
            let entries = this.inner.entries();
            if entries.contains_key(&id)
                && let Err(error) = this.inner.records.save(&record)
            {
                tracing::error!(container = %id, %error, "a container's end cannot be written down");
            }
        });
    }

    /// Waits for a container's end. `None` for one that is not known, or whose root is gone.
    pub(crate) async fn wait(&self, id: &ContainerId) -> Option<Ended> {
        let known = self.inner.entries().get(id).map(|entry| entry.ended.subscribe());
        let mut ended = match known {
            Some(ended) => ended,
            None => {
                let waited = {
                    let mut others = self.inner.others();
                    others.entry(id.clone()).or_insert_with(|| watch::Sender::new(None)).subscribe()
                };
                // Only now that its end is heard of here: else it could be missed.
                let ended = self.inner.entries().get(id).map(|entry| entry.ended.subscribe());
                match ended {
                    Some(ended) => ended,
                    None if self.inner.backend.place(id).is_some() => waited,
                    None => {
                        self.inner.others().remove(id);
                        return None;
                    }
                }
            }
        };
        let known = ended.wait_for(Option::is_some).await.ok()?;
        known.clone()
    }

    /// Sends a signal to a container's program; one that has none yet is ended. Whether there is such a container.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub(crate) async fn kill(&self, id: &ContainerId, signal: i32) -> Result<bool, String> {
        let inner = &self.inner;
        if inner.backend.place(id).is_none() {
            // Of those that end, the backend knows nothing any more; of those that begin, nothing yet.
            let begins = inner.entries().get(id).filter(|entry| entry.ended.borrow().is_none()).cloned();
            return Ok(begins.is_some_and(|entry| entry.stop()));
        }
        let runs = inner.backend.status(id.clone()).await.is_ok_and(|status| status.executor_pid.is_some());
        if runs {
            return inner.backend.signal_program(id.clone(), signal).await.map(|()| true);
        }
        let (backend, id) = (Arc::clone(&inner.backend), id.clone());
        inner.workers.spawn(async move { backend.destroy(id).await });
        Ok(true)
    }

    /// Removes what is left of a container that has ended: its sandbox, and what is known of it.
    ///
    /// # Errors
    /// When it runs, nobody knows it, or the disk refuses.
    pub(crate) async fn remove(&self, id: &ContainerId) -> Result<(), RemoveError> {
        let known = self.inner.entries().get(id).cloned();
        let runs = match &known {
            Some(entry) => entry.ended.borrow().is_none(),
            None => self.inner.backend.place(id).is_some(),
        };
        if runs {
            return Err(RemoveError::Runs(id.clone()));
        }
        let root = root(id);
        let root_known = self.inner.entries().contains_key(root) || self.inner.backend.place(root).is_some();
        if known.is_none() && !(id.parent.is_some() && root_known) {
            return Err(RemoveError::Unknown(id.clone()));
        }
        self.erase(id).await.map_err(|error| RemoveError::Failed(id.clone(), error))
    }

    /// Forgets a container with all that are nested in it, and removes their sandboxes.
    async fn erase(&self, id: &ContainerId) -> Result<(), String> {
        let sandbox = self.inner.entries().get(id).and_then(|entry| entry.sandbox.clone());
        self.forget(id);
        let Some(sandbox) = sandbox else { return Ok(()) };
        let removed = tokio::task::spawn_blocking(move || tepui_shim::remove_tree_strictly(&sandbox)).await;
        removed.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    /// Nothing is left of a container: those that are nested in it are forgotten, and so is it.
    pub(crate) fn forget(&self, id: &ContainerId) {
        let inner = &self.inner;
        let goes = |other: &ContainerId| {
            std::iter::successors(Some(other), |id| id.parent.as_deref()).any(|above| above == id)
        };
        inner.others().retain(|other, _| !goes(other));
        let mut entries = inner.entries();
        let gone: Vec<_> = entries.extract_if(|other, _| goes(other)).collect();
        for (_, entry) in &gone {
            entry.stop();
        }
        if !gone.is_empty()
            && let Err(error) = inner.records.remove(id)
        {
            tracing::error!(container = %id, %error, "what was written down of a container cannot be removed");
        }
    }

    /// The core has destroyed a container of a task or an executor. How one ended that was nested in another is known for as long as that is there.
    pub(crate) fn destroyed(&self, id: &ContainerId) {
        if id.parent.is_none() {
            self.forget(id);
            return;
        }
        let nested: Vec<_> = self
            .inner
            .entries()
            .keys()
            .filter(|other| other.parent.as_deref() == Some(id))
            .cloned()
            .collect();
        nested.iter().for_each(|nested| self.forget(nested));
        // Of one that never ran, nobody hears more.
        self.inner.others().remove(id);
    }

    /// Those without a parent that have not ended.
    pub(crate) fn standalone(&self) -> Vec<ContainerId> {
        let entries = self.inner.entries();
        let running =
            entries.iter().filter(|(id, entry)| id.parent.is_none() && entry.ended.borrow().is_none());
        running.map(|(id, _)| id.clone()).collect()
    }
}

/// The container that all these are nested in.
fn root(id: &ContainerId) -> &ContainerId {
    id.parent.as_deref().map_or(id, root)
}

// === impl Inner ===

impl Inner {
    fn entries(&self) -> MutexGuard<'_, HashMap<ContainerId, Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn others(&self) -> MutexGuard<'_, HashMap<ContainerId, watch::Sender<Option<Ended>>>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Entry ===

impl Entry {
    fn of(record: Record) -> Self {
        let (sandbox, ended) = (record.sandbox(), watch::Sender::new(record.ended()));
        Self { sandbox, record: Mutex::new(Some(record)), ended, ..Self::default() }
    }

    /// Has a launch under way end. False if none was, or it was told before.
    fn stop(&self) -> bool {
        !self.stopped.send_replace(true)
    }

    /// Tells all who wait; the first end counts.
    fn close(&self, ended: Ended) {
        self.ended.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert(ended);
            first
        });
    }

    fn record(&self) -> MutexGuard<'_, Option<Record>> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn launch(&self) -> Option<Launch> {
        self.record().as_ref().map(Record::launch)
    }
}

/// The launch of a container from what was asked for, as a task's description has it.
fn launch(info: &TaskInfo, directory: PathBuf, user: Option<String>, command: CommandInfo) -> Launch {
    let sandbox = directory.to_string_lossy().into_owned();
    Launch {
        workload: Workload::Call(Arc::new(ByCall { command, container: info.container.clone() })),
        framework: Arc::default(),
        resources: info.resources.clone(),
        limits: info.limits.iter().map(|(name, limit)| (name.clone(), limit.value)).collect(),
        directory,
        user,
        environment: vec![
            ("PATH".to_owned(), sandbox::environment::PATH.to_owned()),
            ("MESOS_SANDBOX".to_owned(), sandbox),
        ],
    }
}
