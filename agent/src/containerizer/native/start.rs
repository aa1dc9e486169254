//! Starting a container that was prepared.

use std::sync::Arc;
use std::time::Duration;

use tepui_api::v1::ContainerId;
use tokio::sync::oneshot;

use super::shim::{Connection, Watch};
use super::{Container, Inner, Life, NativeContainerizer};
use crate::containerizer::error::StartError;

/// No container takes that long unless something is broken.
const LONGEST: Duration = Duration::from_secs(60);

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
        tokio::select! {
            started = told => started.unwrap_or_else(|_| Err(StartError::ShimDied(container.dirs.log()))),
            () = container.doom() => Err(StartError::Cancelled),
            () = tokio::time::sleep(LONGEST) => Err(StartError::TimedOut(LONGEST)),
        }
    }
}
