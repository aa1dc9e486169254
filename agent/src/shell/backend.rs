//! What the shell needs of whatever makes containers.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tepui_api::v1::task_status::Reason;
use tepui_api::v1::{ContainerId, ContainerStatus, Image, NetworkInfo, Resource, ResourceStatistics};
use tepui_isolators::cgroups::Pressure;

use crate::core::{Found, Launch};

/// A future that a trait object can return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Makes containers.
pub trait Backend: Send + Sync + 'static {
    /// Makes all of a container but its processes; gives the networks that it shall have of its own, without addresses yet.
    fn prepare(
        &self,
        id: ContainerId,
        launch: Arc<Launch>,
    ) -> BoxFuture<'_, Result<Vec<NetworkInfo>, LaunchError>>;

    /// Runs it; gives its first process' id, and the networks that it has of its own.
    fn start(&self, id: ContainerId) -> BoxFuture<'_, Result<(u32, Vec<NetworkInfo>), LaunchError>>;

    /// Sends a signal to its processes.
    fn signal(&self, id: ContainerId, signal: i32) -> BoxFuture<'_, Result<(), String>>;

    /// Ends it, and removes what is left of it. Cancels a preparation or start under way.
    fn destroy(&self, id: ContainerId) -> BoxFuture<'_, Result<(), String>>;

    /// Gives it other resources and hard limits while it runs.
    fn update(
        &self,
        id: ContainerId,
        resources: Vec<Resource>,
        limits: BTreeMap<String, f64>,
    ) -> BoxFuture<'_, Result<(), String>>;

    /// What it uses.
    fn usage(&self, id: ContainerId) -> BoxFuture<'_, Result<ResourceStatistics, String>>;

    /// What it has to wait for. `None` where the kernel does not tell.
    fn pressure(&self, id: ContainerId) -> BoxFuture<'_, Result<Option<Pressure>, String>>;

    /// How it is.
    fn status(&self, id: ContainerId) -> BoxFuture<'_, Result<ContainerStatus, String>>;

    /// Finds the containers that an earlier process made, and removes those that are not known.
    fn recover(
        &self,
        known: Vec<(ContainerId, Arc<Launch>)>,
    ) -> BoxFuture<'_, Result<HashMap<ContainerId, Found>, String>>;

    /// The agent stops. Containers go on.
    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Removes all images that it keeps and no container uses, but for those in the list.
    fn prune_images(&self, _keep: Vec<Image>) -> BoxFuture<'_, Result<(), String>> {
        // It keeps none itself.
        Box::pin(std::future::ready(Ok(())))
    }

    /// The images that are being pulled, as `GET /tepui/v1/pulls` answers them.
    fn pulls(&self) -> serde_json::Value {
        serde_json::Value::Array(Vec::new())
    }
}

/// Why a container does not run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct LaunchError {
    /// For machines.
    pub reason: Reason,
    /// For people.
    pub message: String,
}
