//! Several containerizers as one: a container's type says which of them makes it.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tepui_api::v1::task_status::Reason;
use tepui_api::v1::{
    CommandInfo, ContainerId, ContainerStatus, Image, NetworkInfo, Resource, ResourceStatistics,
    container_info,
};
use tepui_images::Durations;
use tepui_isolators::cgroups::Pressure;
use tepui_shim::WindowSize;

use super::NativeContainerizer;
use super::docker::DockerContainerizer;
use crate::core::{Description, Found, Launch, Workload};
use crate::flags::Containerizers;
use crate::shell::backend::{Backend, BoxFuture, Inside, LaunchError};
use crate::shell::guest::{Guest, Input};

/// The containerizers of an agent.
pub(crate) struct Composing {
    enabled: Containerizers,
    native: NativeContainerizer,
    /// Where `--containerizers` names it.
    docker: Option<DockerContainerizer>,
    /// The containers that the Docker containerizer makes; all others are the native one's.
    by_docker: Mutex<std::collections::HashSet<ContainerId>>,
}

impl Composing {
    pub(crate) fn new(
        enabled: Containerizers,
        native: NativeContainerizer,
        docker: Option<DockerContainerizer>,
    ) -> Self {
        Self { enabled, native, docker, by_docker: Mutex::default() }
    }

    fn by_docker(&self) -> MutexGuard<'_, std::collections::HashSet<ContainerId>> {
        self.by_docker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose a container is.
    fn of(&self, id: &ContainerId) -> &dyn Backend {
        match &self.docker {
            Some(docker) if self.by_docker().contains(id) => docker,
            _ => &self.native,
        }
    }

    /// Who is to make it.
    fn route(&self, id: &ContainerId, launch: &Launch) -> Result<&dyn Backend, LaunchError> {
        let refused = |message: &str| LaunchError {
            reason: Reason::ContainerLaunchFailed,
            message: message.to_owned(),
        };
        if id.parent.as_deref().is_some_and(|parent| self.by_docker().contains(parent)) {
            return Err(refused("no container can be nested in one of type DOCKER"));
        }
        if !wants_docker(launch) {
            return match self.enabled.mesos {
                true => Ok(&self.native),
                false => Err(refused(
                    "this agent makes Docker containers only (--containerizers=docker): give the task a container of type DOCKER",
                )),
            };
        }
        if id.parent.is_some() || matches!(launch.workload, Workload::Call(_)) {
            return Err(refused(
                "a container of type DOCKER can neither be nested nor launched by a call to the agent: use type MESOS, with a Docker image if need be",
            ));
        }
        let Some(docker) = &self.docker else {
            return Err(refused(
                "this agent makes no Docker containers (--containerizers=mesos): use a container of type MESOS with a Docker image, or start the agent with --containerizers=docker,mesos",
            ));
        };
        self.by_docker().insert(id.clone());
        Ok(docker)
    }
}

fn wants_docker(launch: &Launch) -> bool {
    launch.container().is_some_and(|container| container.r#type() == container_info::Type::Docker)
}

impl Backend for Composing {
    fn prepare(
        &self,
        id: ContainerId,
        launch: Arc<Launch>,
    ) -> BoxFuture<'_, Result<Vec<NetworkInfo>, LaunchError>> {
        match self.route(&id, &launch) {
            Ok(backend) => backend.prepare(id, launch),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    fn start(&self, id: ContainerId) -> BoxFuture<'_, Result<(u32, Vec<NetworkInfo>), LaunchError>> {
        self.of(&id).start(id)
    }

    fn run_inside(&self, id: ContainerId, inside: Inside) -> BoxFuture<'_, Result<i32, String>> {
        self.of(&id).run_inside(id, inside)
    }

    fn enter(
        &self,
        id: ContainerId,
        command: CommandInfo,
        terminal: Option<WindowSize>,
    ) -> BoxFuture<'_, Result<Guest, String>> {
        self.of(&id).enter(id, command, terminal)
    }

    fn terminal(&self, id: ContainerId) -> BoxFuture<'_, Result<Option<Input>, String>> {
        self.of(&id).terminal(id)
    }

    fn describe(&self, id: &ContainerId) -> Option<Description> {
        self.of(id).describe(id)
    }

    fn signal(&self, id: ContainerId, signal: i32) -> BoxFuture<'_, Result<(), String>> {
        self.of(&id).signal(id, signal)
    }

    fn signal_program(&self, id: ContainerId, signal: i32) -> BoxFuture<'_, Result<(), String>> {
        self.of(&id).signal_program(id, signal)
    }

    fn place(&self, id: &ContainerId) -> Option<(PathBuf, Option<String>)> {
        self.of(id).place(id)
    }

    fn nested(&self) -> Vec<ContainerId> {
        Backend::nested(&self.native)
    }

    fn destroy(&self, id: ContainerId) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let destroyed = self.of(&id).destroy(id.clone()).await;
            self.by_docker().remove(&id);
            destroyed
        })
    }

    fn update(
        &self,
        id: ContainerId,
        resources: Vec<Resource>,
        limits: BTreeMap<String, f64>,
    ) -> BoxFuture<'_, Result<(), String>> {
        self.of(&id).update(id, resources, limits)
    }

    fn usage(&self, id: ContainerId) -> BoxFuture<'_, Result<ResourceStatistics, String>> {
        self.of(&id).usage(id)
    }

    fn pressure(&self, id: ContainerId) -> BoxFuture<'_, Result<Option<Pressure>, String>> {
        self.of(&id).pressure(id)
    }

    fn status(&self, id: ContainerId) -> BoxFuture<'_, Result<ContainerStatus, String>> {
        self.of(&id).status(id)
    }

    fn recover(
        &self,
        known: Vec<(ContainerId, Arc<Launch>)>,
    ) -> BoxFuture<'_, Result<HashMap<ContainerId, Found>, String>> {
        Box::pin(async move {
            let (docker, native): (Vec<_>, Vec<_>) =
                known.into_iter().partition(|(_, launch)| wants_docker(launch));
            let mut found = Backend::recover(&self.native, native).await?;
            match &self.docker {
                Some(backend) => {
                    self.by_docker().extend(docker.iter().map(|(id, _)| id.clone()));
                    found.extend(Backend::recover(backend, docker).await?);
                }
                None => {
                    for (id, _) in docker {
                        tracing::warn!(container = %id, "a Docker container of an earlier run is left alone, as --containerizers names docker no more");
                        found.insert(id, Found::Nothing);
                    }
                }
            }
            Ok(found)
        })
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Backend::stop(&self.native)
    }

    fn prune_images(&self, keep: Vec<Image>) -> BoxFuture<'_, Result<(), String>> {
        // Those of a Docker engine are its own.
        Backend::prune_images(&self.native, keep)
    }

    fn durations(&self) -> Vec<(&'static str, Durations)> {
        let mut all = Backend::durations(&self.native);
        all.extend(self.docker.iter().flat_map(Backend::durations));
        all
    }

    fn pulls(&self) -> serde_json::Value {
        let mut all = self.native.pulls().to_json();
        if let (Some(docker), Some(list)) = (&self.docker, all.as_array_mut()) {
            list.extend(Backend::pulls(docker).as_array().into_iter().flatten().cloned());
        }
        all
    }
}
