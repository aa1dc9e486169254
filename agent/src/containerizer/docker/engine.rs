//! The engine's API, with a deadline for each call and a sentence for each way to fail.

use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::errors::Error as ApiError;
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerStatsResponse, ContainerSummary,
    ContainerUpdateBody, CreateImageInfo,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, InspectContainerOptions,
    KillContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
    StartContainerOptions, StatsOptionsBuilder,
};
use futures_util::StreamExt as _;
use tokio::sync::OnceCell;

/// Longest wait for an answer. Starting a container is the slowest call, and takes a second on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);
/// Longest wait for the beginning of an answer that comes in parts.
const STREAM_DEADLINE: Duration = Duration::from_secs(120);
/// Longest silence while an image is pulled.
const PULL_SILENCE: Duration = Duration::from_secs(300);

/// A Docker engine, which may come and go.
pub(super) struct Engine {
    socket: PathBuf,
    /// Made when the engine is first there, as the version that both speak is settled then.
    api: OnceCell<Docker>,
}

/// Why the engine has not done what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum EngineError {
    /// Nobody is there.
    #[error("the Docker engine at {socket} cannot be reached ({reason}): is it running?")]
    Gone {
        /// Where.
        socket: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Somebody is there and says nothing.
    #[error("the Docker engine at {socket} did not {what} within {seconds} s: it hangs, or is too busy")]
    Silent {
        /// Where.
        socket: PathBuf,
        /// What was asked for.
        what: &'static str,
        /// For so long.
        seconds: u64,
    },
    /// It does not know what was asked for.
    #[error("the Docker engine did not {what}: {message}")]
    NotFound {
        /// What was asked for.
        what: &'static str,
        /// Its words.
        message: String,
    },
    /// It does not want to, or failed.
    #[error("the Docker engine did not {what}: {message}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// Its words.
        message: String,
    },
}

impl EngineError {
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

impl Engine {
    /// An engine behind a socket that may not be there yet.
    pub(super) fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), api: OnceCell::new() }
    }

    /// The way to ask for something that takes longer than [`Engine::ask`] waits.
    pub(super) async fn api(&self) -> Result<&Docker, EngineError> {
        const WHAT: &str = "tell its version";
        let connect = || async {
            let path = self.socket.display().to_string();
            let api =
                Docker::connect_with_unix(&path, STREAM_DEADLINE.as_secs(), bollard::API_DEFAULT_VERSION);
            let api = api.map_err(|error| self.error(WHAT, &error))?;
            match tokio::time::timeout(DEADLINE, api.negotiate_version()).await {
                Ok(api) => api.map_err(|error| self.error(WHAT, &error)),
                Err(_) => Err(self.silent(WHAT, DEADLINE)),
            }
        };
        self.api.get_or_try_init(connect).await
    }

    /// Waits for an answer, but not for long.
    pub(super) async fn ask<T>(
        &self,
        what: &'static str,
        call: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, EngineError> {
        match tokio::time::timeout(DEADLINE, call).await {
            Ok(answer) => answer.map_err(|error| self.error(what, &error)),
            Err(_) => Err(self.silent(what, DEADLINE)),
        }
    }

    fn silent(&self, what: &'static str, time: Duration) -> EngineError {
        EngineError::Silent { socket: self.socket.clone(), what, seconds: time.as_secs() }
    }

    pub(super) fn error(&self, what: &'static str, error: &ApiError) -> EngineError {
        match error {
            ApiError::DockerResponseServerError { status_code: 404, message } => {
                EngineError::NotFound { what, message: message.clone() }
            }
            ApiError::DockerResponseServerError { message, .. } => {
                EngineError::Refused { what, message: message.clone() }
            }
            ApiError::DockerStreamError { error } => EngineError::Refused { what, message: error.clone() },
            ApiError::RequestTimeoutError => self.silent(what, STREAM_DEADLINE),
            other => EngineError::Gone { socket: self.socket.clone(), reason: causes(other) },
        }
    }

    // --- what is asked

    pub(super) async fn has_image(&self, image: &str) -> Result<bool, EngineError> {
        match self.ask("look for the image", self.api().await?.inspect_image(image)).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Pulls an image; `hear` is told what the engine tells.
    pub(super) async fn pull(
        &self,
        image: &str,
        login: Option<DockerCredentials>,
        mut hear: impl FnMut(CreateImageInfo),
    ) -> Result<(), EngineError> {
        const WHAT: &str = "pull the image";
        // Without a tag the engine pulls all that there are.
        let name = image.rsplit('/').next().unwrap_or(image);
        let tagged = name.contains(':') || name.contains('@');
        let image = if tagged { image.to_owned() } else { format!("{image}:latest") };
        let options = CreateImageOptionsBuilder::new().from_image(&image).build();
        let mut pull = std::pin::pin!(self.api().await?.create_image(Some(options), None, login));
        loop {
            match tokio::time::timeout(PULL_SILENCE, pull.next()).await {
                Ok(None) => return Ok(()),
                Ok(Some(Ok(info))) => {
                    if let Some(error) = info.error_detail {
                        return Err(EngineError::Refused {
                            what: WHAT,
                            message: error.message.unwrap_or_default(),
                        });
                    }
                    hear(info);
                }
                Ok(Some(Err(error))) => return Err(self.error(WHAT, &error)),
                Err(_) => return Err(self.silent(WHAT, PULL_SILENCE)),
            }
        }
    }

    pub(super) async fn create(&self, name: &str, body: ContainerCreateBody) -> Result<(), EngineError> {
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        self.ask("create the container", self.api().await?.create_container(Some(options), body))
            .await
            .map(drop)
    }

    pub(super) async fn start(&self, name: &str) -> Result<(), EngineError> {
        self.ask(
            "start the container",
            self.api().await?.start_container(name, None::<StartContainerOptions>),
        )
        .await
    }

    /// Gives a container other amounts.
    pub(super) async fn update(&self, name: &str, body: ContainerUpdateBody) -> Result<(), EngineError> {
        self.ask("change the container's resources", self.api().await?.update_container(name, body)).await
    }

    /// `None` when there is no such container.
    pub(super) async fn inspect(&self, name: &str) -> Result<Option<ContainerInspectResponse>, EngineError> {
        let call = self.api().await?.inspect_container(name, None::<InspectContainerOptions>);
        match self.ask("tell how the container is", call).await {
            Ok(container) => Ok(Some(container)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn kill(&self, name: &str, signal: &str) -> Result<(), EngineError> {
        let options = KillContainerOptionsBuilder::new().signal(signal).build();
        self.ask("signal the container", self.api().await?.kill_container(name, Some(options))).await
    }

    /// Removes a container with its nameless volumes, whether it runs or not. One that is not there is removed.
    pub(super) async fn remove(&self, name: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        match self.ask("remove the container", self.api().await?.remove_container(name, Some(options))).await
        {
            Err(error) if error.is_not_found() => Ok(()),
            // Somebody else is at it.
            Err(EngineError::Refused { message, .. }) if message.contains("already in progress") => Ok(()),
            other => other,
        }
    }

    /// All containers with these labels, whether they run or not.
    pub(super) async fn list(&self, labels: Vec<String>) -> Result<Vec<ContainerSummary>, EngineError> {
        let filters = HashMap::from([("label".to_owned(), labels)]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        self.ask("list containers", self.api().await?.list_containers(Some(options))).await
    }

    pub(super) async fn stats(&self, name: &str) -> Result<ContainerStatsResponse, EngineError> {
        let options = StatsOptionsBuilder::new().stream(false).one_shot(true).build();
        let mut stats = std::pin::pin!(self.api().await?.stats(name, Some(options)));
        let first = async {
            let none = || ApiError::IOError { err: std::io::ErrorKind::UnexpectedEof.into() };
            stats.next().await.unwrap_or_else(|| Err(none()))
        };
        self.ask("tell what the container uses", first).await
    }
}

/// All causes of an error, outermost first.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let inner = error.to_string();
        if !text.contains(&inner) {
            text = format!("{text}: {inner}");
        }
        cause = error.source();
    }
    text
}
