//! Ending a container and removing all of it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tepui_api::v1::ContainerId;
use tepui_shim::{Liveness, SignalScope, holders};
use tokio::sync::watch;

use super::{Container, Inner, Life, NativeContainerizer};
use crate::containerizer::error::{DestroyError, Leftover};

/// How long processes may take to end after SIGKILL, until harsher means are tried, and after those.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at whether a shim is gone that was not told of by its connection.
const PAUSE: Duration = Duration::from_millis(5);

impl NativeContainerizer {
    /// Ends a container's processes, if there are any, and removes all of it but its sandbox. Ends a preparation or start
    /// that is under way. The containers nested in it go first. For a container that is not known there is nothing to do.
    ///
    /// # Errors
    /// When something of it is left. Nobody knows it any more, even so, until the agent starts anew.
    pub async fn destroy(&self, id: &ContainerId) -> Result<(), DestroyError> {
        let Some(container) = self.inner.get(id) else { return Ok(()) };
        // From here on none can be nested in it: see `prepare`.
        container.doomed.send_replace(true);
        let nested = self.inner.children(id);
        let ends = nested.iter().map(|child| Box::pin(self.destroy(child)));
        let mut left = Vec::new();
        for ended in futures_util::future::join_all(ends).await {
            left.extend(ended.err().map(|DestroyError(left)| left).into_iter().flatten());
        }
        let _turn = container.turn.lock().await;
        let known = self.inner.get(id).is_some_and(|known| Arc::ptr_eq(&known, &container));
        if !known {
            // Somebody else destroyed it meanwhile.
            return if left.is_empty() { Ok(()) } else { Err(DestroyError(left)) };
        }
        if !end_processes(&container).await {
            left.push(Leftover::Processes);
        }
        self.inner.clean_up(&container, &mut left).await;
        self.inner.containers().remove(id);
        if left.is_empty() { Ok(()) } else { Err(DestroyError(left)) }
    }
}

impl Inner {
    /// What isolators made, and directories.
    pub(super) async fn clean_up(&self, container: &Arc<Container>, left: &mut Vec<Leftover>) {
        {
            let _turn = container.calls.lock().await;
            for isolator in self.composition.isolators.iter().rev() {
                if let Err(source) = isolator.cleanup(container.id()).await {
                    left.push(Leftover::Isolator { name: isolator.name().to_owned(), source });
                }
            }
        }
        let dirs = container.dirs.clone();
        // Nobody may put anything into them any more.
        let _quiet = container.copying.lock().await;
        // One whose configuration nobody knows may have an image, too.
        let images = Some(self.images.clone())
            .filter(|_| container.config.container.is_some() || container.config.task.is_none());
        let removal = move || {
            if let Some(Err(error)) = images.map(|images| images.release(&dirs.runtime)) {
                tracing::warn!(%error, "the image store does not learn that an image is not used any more");
            }
            dirs.remove()
        };
        match tokio::task::spawn_blocking(removal).await {
            Ok(errors) => left.extend(errors.into_iter().map(Leftover::from)),
            Err(error) => {
                tracing::error!(%error, "removing a container's directories did not come to its end")
            }
        }
    }
}

/// Ends a container's processes and waits until its shim is gone. Tells whether that came about.
async fn end_processes(container: &Container) -> bool {
    let mut life = container.life.subscribe();
    let begun = matches!(*life.borrow_and_update(), Life::Shimmed { .. });
    if !begun {
        container.life.send_replace(Life::Over);
        return true;
    }
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        // Refused before the program was started; one that is doomed will not be, or is asked again.
        let killed = tokio::time::timeout(PATIENCE, container.signal(libc::SIGKILL, SignalScope::All)).await;
        let patience = if matches!(killed, Ok(Ok(()))) { PATIENCE } else { PAUSE };
        if is_over(&mut life, patience).await {
            return true;
        }
    }
    end_leftovers(&container.dirs.runtime).await;
    is_over(&mut life, PATIENCE).await
}

async fn is_over(life: &mut watch::Receiver<Life>, patience: Duration) -> bool {
    matches!(tokio::time::timeout(patience, life.wait_for(|life| *life == Life::Over)).await, Ok(Ok(_)))
}

/// Waits until a process that is being killed has ended, though perhaps its new parent has not waited for it yet.
pub(super) async fn process_end(pid: u32) {
    let deadline = Instant::now() + PATIENCE;
    let lives = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name may have anything in it, but what follows begins with the state.
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    };
    while lives() && Instant::now() < deadline {
        tokio::time::sleep(PAUSE).await;
    }
}

/// Kills whoever still holds a container's lock: its shim, or a first process that lost its shim before it could ask to die with it.
/// Waits until nobody does.
pub(super) async fn end_leftovers(runtime: &Path) {
    let deadline = Instant::now() + PATIENCE;
    let mut grace = 10;
    while matches!(Liveness::is_held(runtime), Ok(true)) && Instant::now() < deadline {
        if grace > 0 {
            // It may be on its way out.
            grace -= 1;
        } else {
            let runtime = runtime.to_owned();
            let found = tokio::task::spawn_blocking(move || holders(&runtime)).await;
            for pid in found.ok().and_then(Result::ok).unwrap_or_default() {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
