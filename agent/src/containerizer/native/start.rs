//! Starting a container that was prepared.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use oci_spec::runtime::Spec;
use tepui_api::v1::ContainerId;
use tepui_shim::{files, shim_lives};
use tokio::sync::oneshot;

use super::destroy::end_leftovers;
use super::shim::{Connection, Watch};
use super::{Container, Inner, Life, NativeContainerizer, spec};
use crate::containerizer::error::StartError;

/// No container takes that long unless something is broken.
const LONGEST: Duration = Duration::from_secs(60);
/// After so long it is worth to look whether there is still a shim.
const STRANGELY_LONG: Duration = Duration::from_secs(2);

impl NativeContainerizer {
    /// Starts a container that was prepared. Gives its first process, as the host sees it.
    ///
    /// From then on its end is told by one [`super::Exited`]; after an error there is none.
    ///
    /// # Errors
    /// When it was not prepared, cannot be started, or is destroyed meanwhile.
    pub async fn start(&self, id: &ContainerId) -> Result<u32, StartError> {
        let unknown = || StartError::Unknown(id.to_string());
        let container = self.inner.get(id).ok_or_else(unknown)?;
        let _turn = container.turn.lock().await;
        if *container.doomed.borrow() {
            return Err(StartError::Cancelled);
        }
        if *container.life.borrow() != Life::Prepared {
            return Err(unknown());
        }
        self.inner.start(&container).await
    }
}

impl Inner {
    async fn start(self: &Arc<Self>, container: &Arc<Container>) -> Result<u32, StartError> {
        if let Some(parent) = &container.parent {
            let dead = || StartError::ParentDead(parent.id().to_string());
            let (pid, runtime) = (parent.pid().ok_or_else(dead)?, container.dirs.runtime.clone());
            let joined = tokio::task::spawn_blocking(move || join(&runtime, pid)).await;
            joined.map_err(io::Error::other).flatten().map_err(StartError::Join)?;
        }
        let secrets = std::mem::take(&mut *container.secrets());
        let stream = self.zygote.launch_with(&container.dirs.runtime, &secrets)?;
        drop(secrets);
        container.life.send_replace(Life::Shimmed { pid: None });
        let (tell, told) = oneshot::channel();
        let connection = match Connection::new(stream) {
            Ok(connection) => connection,
            Err(error) => {
                // Closed by now, so that the shim gives up by itself.
                container.life.send_replace(Life::Over);
                return Err(StartError::Connection(error));
            }
        };
        container.connect(Some(connection.requests()));
        let watch = Watch::of_new(Arc::clone(self), Arc::clone(container), tell);
        tokio::spawn(watch.run(connection));
        let orphaned = end_what_lost_its_shim(&container.dirs.runtime);
        tokio::select! {
            started = told => started.unwrap_or_else(|_| Err(StartError::ShimDied(container.dirs.log()))),
            () = orphaned => Err(StartError::ShimDied(container.dirs.log())),
            () = container.doom() => Err(StartError::Cancelled),
            () = tokio::time::sleep(LONGEST) => Err(StartError::TimedOut(LONGEST)),
        }
    }
}

/// Writes into a container's runtime spec which namespaces it shares with the parent that has this first process.
fn join(runtime: &Path, parent: u32) -> io::Result<()> {
    let path = runtime.join(files::CONFIG);
    let mut written: Spec = serde_json::from_slice(&std::fs::read(&path)?)?;
    spec::join(&mut written, parent)?;
    std::fs::write(&path, serde_json::to_vec(&written)?)
}

/// Waits until a launch is without a shim, and ends what that left.
///
/// A shim that dies closes its connection, unless what it had forked by then has a copy of it.
async fn end_what_lost_its_shim(runtime: &Path) {
    loop {
        tokio::time::sleep(STRANGELY_LONG).await;
        let dir = runtime.to_owned();
        let lives = tokio::task::spawn_blocking(move || shim_lives(&dir)).await;
        if matches!(lives, Ok(Ok(false))) {
            return end_leftovers(runtime).await;
        }
    }
}
