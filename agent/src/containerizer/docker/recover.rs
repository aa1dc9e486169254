//! Finding the containers of an earlier run of the agent.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::ContainerStateStatusEnum;
use futures_util::StreamExt as _;
use futures_util::stream;
use tepui_api::v1::ContainerId;

use super::{Container, DockerContainerizer, Inner, seen, watch};
use crate::core::{Found, Launch};

/// How many containers are asked for at once.
const AT_ONCE: usize = 16;
/// How long an agent that starts waits for an engine. It goes on without: containers are taken to run until the engine says otherwise.
const PATIENCE: Duration = Duration::from_secs(10);

impl DockerContainerizer {
    /// Finds the containers of these launches; all can be destroyed afterwards, and those that run are watched. To be called once, before anything
    /// else. What is not known is removed by and by.
    pub(super) async fn recover(
        &self,
        known: Vec<(ContainerId, Arc<Launch>)>,
    ) -> HashMap<ContainerId, Found> {
        let owner = self.inner.owner();
        let ended = tokio::task::spawn_blocking(move || super::inside::end_those_of(&owner));
        let containers = known.into_iter().map(|(id, launch)| Arc::new(Container::new(id, launch)));
        let looks = containers.map(|container| async move {
            self.inner.containers().insert(container.id.clone(), Arc::clone(&container));
            let found = self.inner.find(&container).await;
            (container.id.clone(), found)
        });
        let found = stream::iter(looks).buffer_unordered(AT_ONCE).collect().await;
        if let Err(error) = ended.await {
            tracing::warn!(%error, "commands that an earlier agent ran in containers may be left");
        }
        self.inner.sweep_from_now_on();
        found
    }
}

impl Inner {
    async fn find(self: &Arc<Self>, container: &Arc<Container>) -> Found {
        let name = container.name();
        let Ok(Ok(inspected)) = tokio::time::timeout(PATIENCE, self.engine.inspect(&name)).await else {
            tracing::warn!(container = %container.id, "the Docker engine does not say how the container is: it is taken to run");
            self.watch(container);
            return Found::Running { pid: 0, networks: Vec::new() };
        };
        let Some(inspected) = inspected else { return Found::Nothing };
        if let Some(end) = watch::end_of(&inspected) {
            // Its last words may not be copied yet; an engine that hangs meanwhile does not keep the agent.
            let end = tokio::time::timeout(2 * PATIENCE, self.follow(container)).await.unwrap_or(end);
            return Found::Exited { status: end.status, limitation: end.limitation };
        }
        let status = inspected.state.as_ref().and_then(|state| state.status);
        if matches!(status, Some(ContainerStateStatusEnum::CREATED)) {
            return Found::Nothing;
        }
        let seen = seen(&inspected);
        container.see(seen.clone());
        self.watch(container);
        Found::Running { pid: seen.pid, networks: seen.networks }
    }
}
