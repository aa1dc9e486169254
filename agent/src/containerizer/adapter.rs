//! The native containerizer as the agent's shell wants it.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use tepui_api::v1::{
    CommandInfo, ContainerId, ContainerStatus, Image, NetworkInfo, Resource, ResourceStatistics,
};
use tepui_images::Durations;
use tepui_isolators::cgroups::Pressure;
use tepui_shim::{SignalScope, WindowSize};
use tokio::sync::mpsc;

use super::{ContainerConfig, Exited, Found, NativeContainerizer, PrepareError, StartError};
use crate::core::{self, ContainerEvent, Launch};
use crate::shell::backend::{Backend, BoxFuture, Inside, LaunchError};
use crate::shell::guest::{Guest, Input};

impl Backend for NativeContainerizer {
    fn prepare(
        &self,
        id: ContainerId,
        launch: Arc<Launch>,
    ) -> BoxFuture<'_, Result<Vec<NetworkInfo>, LaunchError>> {
        Box::pin(async move {
            NativeContainerizer::prepare(self, ContainerConfig::of_launch(&id, &launch)).await?;
            Ok(self.networks(&id).await)
        })
    }

    fn start(&self, id: ContainerId) -> BoxFuture<'_, Result<(u32, Vec<NetworkInfo>), LaunchError>> {
        Box::pin(async move {
            let pid = NativeContainerizer::start(self, &id).await?;
            Ok((pid, self.networks(&id).await))
        })
    }

    fn run_inside(&self, id: ContainerId, inside: Inside) -> BoxFuture<'_, Result<i32, String>> {
        Box::pin(
            async move { NativeContainerizer::run_inside(self, &id, &inside.command, inside.timeout).await },
        )
    }

    fn enter(
        &self,
        id: ContainerId,
        command: CommandInfo,
        terminal: Option<WindowSize>,
    ) -> BoxFuture<'_, Result<Guest, String>> {
        Box::pin(async move { self.guest(&id, &command, terminal).await })
    }

    fn terminal(&self, id: ContainerId) -> BoxFuture<'_, Result<Option<Input>, String>> {
        Box::pin(async move { NativeContainerizer::terminal(self, &id).await })
    }

    fn signal(&self, id: ContainerId, signal: i32) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move { NativeContainerizer::signal(self, &id, signal, SignalScope::All).await })
    }

    fn signal_program(&self, id: ContainerId, signal: i32) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move { NativeContainerizer::signal(self, &id, signal, SignalScope::Program).await })
    }

    fn place(&self, id: &ContainerId) -> Option<(PathBuf, Option<String>)> {
        NativeContainerizer::place(self, id)
    }

    fn nested(&self) -> Vec<ContainerId> {
        NativeContainerizer::nested(self)
    }

    fn destroy(&self, id: ContainerId) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(
            async move { NativeContainerizer::destroy(self, &id).await.map_err(|error| error.to_string()) },
        )
    }

    fn update(
        &self,
        id: ContainerId,
        resources: Vec<Resource>,
        limits: BTreeMap<String, f64>,
    ) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let updated = NativeContainerizer::update(self, &id, &resources, &limits).await;
            updated.map_err(|error| error.to_string())
        })
    }

    fn usage(&self, id: ContainerId) -> BoxFuture<'_, Result<ResourceStatistics, String>> {
        Box::pin(async move { NativeContainerizer::usage(self, &id).await })
    }

    fn pressure(&self, id: ContainerId) -> BoxFuture<'_, Result<Option<Pressure>, String>> {
        Box::pin(std::future::ready(NativeContainerizer::pressure(self, &id)))
    }

    fn status(&self, id: ContainerId) -> BoxFuture<'_, Result<ContainerStatus, String>> {
        Box::pin(async move { NativeContainerizer::status(self, &id).await })
    }

    fn recover(
        &self,
        known: Vec<(ContainerId, Arc<Launch>)>,
    ) -> BoxFuture<'_, Result<HashMap<ContainerId, core::Found>, String>> {
        Box::pin(async move {
            let known = known.iter().map(|(id, launch)| ContainerConfig::of_launch(id, launch)).collect();
            let found = NativeContainerizer::recover(self, known).await.map_err(|error| error.to_string())?;
            let mut all = HashMap::new();
            for (id, found) in found {
                let mut found = core::Found::from(found);
                if let core::Found::Running { networks, .. } = &mut found {
                    *networks = self.networks(&id).await;
                }
                all.insert(id, found);
            }
            Ok(all)
        })
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(NativeContainerizer::stop(self))
    }

    fn prune_images(&self, keep: Vec<Image>) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move { NativeContainerizer::prune_images(self, &keep).await })
    }

    fn durations(&self) -> Vec<(&'static str, Durations)> {
        vec![("containerizer/mesos/provisioner/docker_store/image_pull_ms", self.image_pulls())]
    }

    fn pulls(&self) -> serde_json::Value {
        NativeContainerizer::pulls(self).to_json()
    }
}

impl NativeContainerizer {
    /// The networks that a container has of its own; none for one that shares the host's.
    async fn networks(&self, id: &ContainerId) -> Vec<NetworkInfo> {
        self.status(id).await.map(|status| status.network_infos).unwrap_or_default()
    }
}

impl From<PrepareError> for LaunchError {
    fn from(error: PrepareError) -> Self {
        Self { reason: error.reason(), message: error.to_string() }
    }
}

impl From<StartError> for LaunchError {
    fn from(error: StartError) -> Self {
        Self { reason: error.reason(), message: error.to_string() }
    }
}

impl From<Found> for core::Found {
    fn from(found: Found) -> Self {
        match found {
            Found::Running { pid } => Self::Running { pid, networks: Vec::new() },
            Found::Exited { status, limitation } => {
                Self::Exited { status, limitation: limitation.map(limit) }
            }
            Found::Nothing => Self::Nothing,
            Found::Unanswered => Self::Unanswered,
        }
    }
}

fn limit(limitation: tepui_isolators::Limitation) -> core::Limitation {
    core::Limitation {
        reason: limitation.reason,
        message: limitation.message,
        resources: limitation.resources,
    }
}

/// The ends of containers, in the shell's words.
pub(crate) fn forward(
    mut exits: mpsc::UnboundedReceiver<Exited>,
) -> mpsc::UnboundedReceiver<(ContainerId, ContainerEvent)> {
    let (sender, ends) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Exited { container_id, status, limitation }) = exits.recv().await {
            let event = ContainerEvent::Exited { status, limitation: limitation.map(limit) };
            if sender.send((container_id, event)).is_err() {
                break;
            }
        }
    });
    ends
}

/// The ends of the containers of two containerizers.
pub(crate) fn merged(
    one: mpsc::UnboundedReceiver<(ContainerId, ContainerEvent)>,
    other: mpsc::UnboundedReceiver<(ContainerId, ContainerEvent)>,
) -> mpsc::UnboundedReceiver<(ContainerId, ContainerEvent)> {
    let (sender, ends) = mpsc::unbounded_channel();
    for mut from in [one, other] {
        let sender = sender.clone();
        tokio::spawn(async move {
            while let Some(end) = from.recv().await {
                if sender.send(end).is_err() {
                    break;
                }
            }
        });
    }
    ends
}
