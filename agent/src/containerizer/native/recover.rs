//! Finding the containers of an earlier run of the agent.
//!
//! A container's runtime directory tells all: `exit.json` how it ended; a held lock that a shim lives, which answers at its socket; neither,
//! but a process id, that its shim died and took it along. A shim that does not answer in time is ended. Whatever is there and not known is
//! ended and removed. Many containers are looked at at once, so that one that makes the agent wait makes no other wait.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tepui_api::v1::ContainerId;
use tepui_isolators::{Limitation, Recovered};
use tepui_shim::{ExitRecord, Liveness, Outcome, SignalScope, State, connect, files};

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::layout::Listed;
use super::shim::{Connection, Watch};
use super::{Container, Inner, Life, NativeContainerizer, destroy, is_of_cgroups};
use crate::containerizer::config::ContainerConfig;
use crate::containerizer::error::{Leftover, RecoverError};

/// How long the end of a container that nobody knows is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);
/// How often a shim that does not answer is ended before it is left to the container's removal.
const ATTEMPTS: usize = 2;
/// How many containers are looked at at once. Each holds a connection open that it needs in any case.
const AT_ONCE: usize = 64;

/// What was found of a container.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// It runs.
    Running {
        /// Its first process.
        pid: u32,
    },
    /// It ran and has ended.
    Exited {
        /// As wait(2) gives it; `None` when nobody knows.
        status: Option<i32>,
        /// The limit for which it was ended.
        limitation: Option<Limitation>,
    },
    /// It was never started, or nothing is known of it.
    Nothing,
    /// Its shim lived, but did not answer, and was ended.
    Unanswered,
}

/// What a runtime directory says.
enum Trace {
    Running { pid: u32, connection: Connection },
    Exited { status: Option<i32> },
    Nothing,
    Unanswered,
}

impl NativeContainerizer {
    /// Finds the containers that an earlier run of the agent made, and removes those that are not `known`. All of `known` can be destroyed afterwards, and
    /// those that run are watched. To be called once, before anything else.
    ///
    /// # Errors
    /// When the runtime directory cannot be read, or an isolator does not take over.
    pub async fn recover(
        &self,
        known: Vec<ContainerConfig>,
    ) -> Result<HashMap<ContainerId, Found>, RecoverError> {
        let containers = self.inner.containers_of(known);
        let patience = self.inner.settings.shim_patience;
        let looks = containers.into_iter().map(|container| async move {
            let trace = trace(&container.dirs.runtime, patience).await?;
            container.recall();
            Ok::<_, RecoverError>((container, trace))
        });
        let traces: Vec<_> = stream::iter(looks).buffer_unordered(AT_ONCE).try_collect().await?;
        let orphans = self.inner.end_orphans(&traces).await?;
        self.inner.recover_isolators(&traces, &orphans).await?;
        let deepest = orphans.iter().map(|orphan| depth(orphan.id())).max().unwrap_or_default();
        for level in (0..=deepest).rev() {
            let level = orphans.iter().filter(|orphan| depth(orphan.id()) == level);
            let removals = stream::iter(level).for_each_concurrent(AT_ONCE, |orphan| async move {
                let mut left = Vec::new();
                self.inner.clean_up(orphan, &mut left).await;
                left.iter().for_each(|error| report(orphan, error));
            });
            removals.await;
        }
        let mut found = HashMap::new();
        for (container, trace) in traces {
            let id = container.id().clone();
            self.inner.containers().insert(id.clone(), Arc::clone(&container));
            let what = self.inner.take_over(Arc::clone(&container), trace).await;
            if matches!(what, Found::Running { .. }) && container.is_unsettled() {
                self.inner.settle(&container).await;
            }
            found.insert(id, what);
        }
        Ok(found)
    }
}

fn report(orphan: &Container, error: &Leftover) {
    tracing::error!(container = %orphan.id(), %error, "not all of an unknown container could be removed");
}

/// How many containers are above one.
fn depth(id: &ContainerId) -> usize {
    std::iter::successors(id.parent.as_deref(), |id| id.parent.as_deref()).count()
}

impl Inner {
    /// The containers of these, each after its parent. One whose parent is not known is not known either.
    fn containers_of(&self, mut known: Vec<ContainerConfig>) -> Vec<Arc<Container>> {
        known.sort_by_key(|config| depth(&config.container_id));
        let mut made: HashMap<ContainerId, Arc<Container>> = HashMap::with_capacity(known.len());
        let mut all = Vec::with_capacity(known.len());
        for config in known {
            let id = config.container_id.clone();
            // An id without directories was refused at its preparation.
            let Some(dirs) = self.layout.of(&id) else { continue };
            let parent = match &id.parent {
                None => None,
                Some(parent) => match made.get(&**parent) {
                    Some(parent) => Some(Arc::clone(parent)),
                    None => continue,
                },
            };
            let container = Arc::new(Container::new(config, parent, dirs));
            made.insert(id, Arc::clone(&container));
            all.push(container);
        }
        all
    }

    async fn take_over(self: &Arc<Self>, container: Arc<Container>, trace: Trace) -> Found {
        match trace {
            Trace::Running { pid, connection } => {
                container.life.send_replace(Life::Shimmed { pid: Some(pid) });
                container.connect(Some(connection.requests()));
                tokio::spawn(Watch::of_running(Arc::clone(self), container).run(connection));
                Found::Running { pid }
            }
            Trace::Exited { status } => {
                container.life.send_replace(Life::Over);
                Found::Exited { status, limitation: self.exited(&container, status).await }
            }
            Trace::Nothing => {
                container.life.send_replace(Life::Over);
                Found::Nothing
            }
            Trace::Unanswered => {
                container.life.send_replace(Life::Over);
                Found::Unanswered
            }
        }
    }

    /// Ends the containers that have a directory and are not known.
    async fn end_orphans(
        &self,
        known: &[(Arc<Container>, Trace)],
    ) -> Result<Vec<Arc<Container>>, RecoverError> {
        let names = self.layout.list().map_err(|(path, source)| RecoverError::Io { path, source })?;
        let known: HashSet<&ContainerId> = known.iter().map(|(container, _)| container.id()).collect();
        let unknown = names.into_iter().map(Listed::id).filter(|id| !known.contains(id));
        let ends = unknown.filter_map(|id| Some((self.layout.of(&id)?, id))).map(|(dirs, id)| async move {
            tracing::info!(container = %id, "removing a container that nobody knows");
            self.end_orphan(&dirs.runtime).await?;
            Ok(Arc::new(Container::new(ContainerConfig::of_orphan(id), None, dirs)))
        });
        stream::iter(ends).buffer_unordered(AT_ONCE).try_collect().await
    }

    async fn end_orphan(&self, runtime: &Path) -> Result<(), RecoverError> {
        if let Trace::Running { mut connection, .. } = trace(runtime, self.settings.shim_patience).await? {
            let requests = connection.requests();
            // The answer is passed on by reading.
            let kill = tokio::spawn(async move { requests.signal(libc::SIGKILL, SignalScope::All).await });
            let end = async { while connection.state().await.is_some() {} };
            let _ = tokio::time::timeout(PATIENCE, end).await;
            kill.abort();
        }
        if runtime.exists() {
            destroy::end_leftovers(runtime).await;
        }
        Ok(())
    }

    async fn recover_isolators(
        &self,
        known: &[(Arc<Container>, Trace)],
        orphans: &[Arc<Container>],
    ) -> Result<(), RecoverError> {
        let recovered: Vec<Recovered> = known
            .iter()
            .filter_map(|(container, trace)| match trace {
                Trace::Running { pid, .. } => Some((container, Some(*pid))),
                Trace::Exited { .. } | Trace::Unanswered => Some((container, None)),
                Trace::Nothing => None,
            })
            .map(|(container, pid)| Recovered { context: container.context(), pid })
            .collect();
        let shared: HashSet<&ContainerId> =
            known.iter().filter(|(one, _)| one.config.shares_cgroups()).map(|(one, _)| one.id()).collect();
        let orphans: Vec<ContainerId> = orphans.iter().map(|orphan| orphan.id().clone()).collect();
        let with_cgroups: Vec<Recovered> =
            recovered.iter().filter(|one| !shared.contains(&one.context.container_id)).cloned().collect();
        for isolator in &self.composition.isolators {
            let recovered = if is_of_cgroups(&**isolator) { &with_cgroups } else { &recovered };
            isolator
                .recover(recovered, &orphans)
                .await
                .map_err(|source| RecoverError::Isolator { name: isolator.name().to_owned(), source })?;
        }
        Ok(())
    }
}

/// Reads a runtime directory, and waits for a shim that is about to decide.
async fn trace(runtime: &Path, patience: Duration) -> Result<Trace, RecoverError> {
    if !runtime.exists() {
        return Ok(Trace::Nothing);
    }
    let deadline = Instant::now() + patience;
    let mut attempts = 0;
    loop {
        // In this order: a shim writes its record before it lets go of the lock.
        let held = Liveness::is_held(runtime)?;
        if let Some(record) = ExitRecord::load(runtime).ok().flatten() {
            return Ok(match record.outcome {
                Outcome::Exited { status } => Trace::Exited { status: Some(status) },
                // Created but not started, or not even that.
                Outcome::Failed { .. } => Trace::Nothing,
            });
        }
        if attempts == ATTEMPTS || (attempts > 0 && !held) {
            return Ok(Trace::Unanswered);
        }
        if !held {
            let was_there = runtime.join(files::PID).exists();
            return Ok(if was_there { Trace::Exited { status: None } } else { Trace::Nothing });
        }
        if let Some(running) = ask(runtime, deadline).await {
            return Ok(running);
        }
        if Instant::now() > deadline {
            tracing::warn!(runtime = %runtime.display(), ?patience, "a shim does not answer: it is ended, and its container with it");
            destroy::end_leftovers(runtime).await;
            attempts += 1;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Asks the shim for a container that runs. `None` if it has none, or is gone.
async fn ask(runtime: &Path, deadline: Instant) -> Option<Trace> {
    let mut connection = Connection::new(connect(runtime).ok()?).ok()?;
    loop {
        match tokio::time::timeout_at(deadline.into(), connection.state()).await.ok()?? {
            State::Creating => {}
            State::Started { pid } => return Some(Trace::Running { pid: pid.unsigned_abs(), connection }),
            // Nobody will start it: it ends when this connection closes.
            State::Created { .. } | State::Ended(_) => return None,
        }
    }
}
