//! What the shell needs of whatever makes containers.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tepui_api::v1::task_status::Reason;
use tepui_api::v1::{
    CommandInfo, ContainerId, ContainerStatus, Image, NetworkInfo, Resource, ResourceStatistics,
};
use tepui_images::Durations;
use tepui_isolators::cgroups::Pressure;
use tepui_shim::WindowSize;

use super::guest::{Guest, Input};
use crate::core::{Description, Found, Launch};

/// A future that a trait object can return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Makes containers.
pub trait Backend: Send + Sync + 'static {
    /// Makes all of a container but its processes; gives the networks that it shall have of its own, without addresses yet.
    ///
    /// Once the future has been polled, [`Backend::destroy`] knows the container and cancels this.
    fn prepare(
        &self,
        id: ContainerId,
        launch: Arc<Launch>,
    ) -> BoxFuture<'_, Result<Vec<NetworkInfo>, LaunchError>>;

    /// Runs it; gives its first process' id, and the networks that it has of its own.
    fn start(&self, id: ContainerId) -> BoxFuture<'_, Result<(u32, Vec<NetworkInfo>), LaunchError>>;

    /// Runs a command in it, beside its own program: in its namespaces, on its root file system, in its cgroups, with its environment (which that of the
    /// command comes on top of), and as its user unless the command names another. The output goes where the container's own goes. Gives the
    /// status as wait(2) does. When the time is up, the command is ended with all processes that it has left.
    fn run_inside(&self, id: ContainerId, inside: Inside) -> BoxFuture<'_, Result<i32, String>>;

    /// Begins to run a command in it as [`Backend::run_inside`] does, on pipes or a terminal of its own.
    fn enter(
        &self,
        id: ContainerId,
        command: CommandInfo,
        terminal: Option<WindowSize>,
    ) -> BoxFuture<'_, Result<Guest, String>>;

    /// The way to the terminal of its own program; `None` if that has none.
    fn terminal(&self, id: ContainerId) -> BoxFuture<'_, Result<Option<Input>, String>>;

    /// What frameworks are told of it when it runs. Asked once it was started.
    fn describe(&self, _id: &ContainerId) -> Option<Description> {
        None
    }

    /// Sends a signal to its processes.
    fn signal(&self, id: ContainerId, signal: i32) -> BoxFuture<'_, Result<(), String>>;

    /// Sends a signal to its program alone, rather than to all its processes.
    fn signal_program(&self, id: ContainerId, signal: i32) -> BoxFuture<'_, Result<(), String>> {
        self.signal(id, signal)
    }

    /// The sandbox of a container that there is, and who it runs as. `None` where nothing can be nested in it.
    fn place(&self, _id: &ContainerId) -> Option<(PathBuf, Option<String>)> {
        None
    }

    /// The containers that are nested in others and run.
    fn nested(&self) -> Vec<ContainerId> {
        Vec::new()
    }

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

    /// Metrics of how long things took, by name.
    fn durations(&self) -> Vec<(&'static str, Durations)> {
        Vec::new()
    }

    /// The images that are being pulled, as `GET /tepui/v1/pulls` answers them.
    fn pulls(&self) -> serde_json::Value {
        serde_json::Value::Array(Vec::new())
    }
}

/// A command to be run in a container beside its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Inside {
    /// What to run. Of its variables the secrets are left out, as in Mesos.
    pub command: CommandInfo,
    /// How long it may take.
    pub timeout: Option<Duration>,
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
