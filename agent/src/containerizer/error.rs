//! What can go wrong with a container, one sentence each.

use std::io;
use std::path::PathBuf;

use tepui_api::v1::task_status::Reason;
use tepui_images::{
    CommandError, CopyError, CredentialsError, ReferenceError, RootFsError, SharedError, UserError,
};
use tepui_isolators::{BuildError, IsolatorError};
use tepui_shim::{LivenessError, OverlayError, PlanError, RemoveTreeError, ZygoteError};

use super::logger::LoggerError;

/// Something that a task may ask for and that this agent cannot give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the container asks for {0}, which is not implemented")]
pub struct Unsupported(pub &'static str);

/// The containerizer cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// `--isolation` is wrong.
    #[error(transparent)]
    Isolation(#[from] BuildError),
    /// The store of images cannot be opened.
    #[error("the store of images cannot be opened: {0}")]
    Images(#[from] tepui_images::Error),
    /// `--image_provisioner_backend=overlay` cannot be had.
    #[error(
        "images cannot be mounted as overlays ({0}): use --image_provisioner_backend=copy, or a work directory on another file system"
    )]
    Overlay(#[from] OverlayError),
    /// A directory cannot be made.
    #[error("{path} cannot be made: {source}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A container cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// It asks for something that is not implemented.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// Its id cannot be the name of a directory.
    #[error("'{0}' cannot be the name of a container's directory")]
    Id(String),
    /// There is one with this id.
    #[error("there is a container with the id {0} already")]
    Exists(String),
    /// The container that it is to be nested in is not there.
    #[error("the parent container {0} does not exist")]
    NoParent(String),
    /// The container that it is to be nested in is going away.
    #[error("the parent container {0} is being destroyed")]
    ParentEnding(String),
    /// Its image's name is wrong.
    #[error("the image's name cannot be used: {0}")]
    ImageName(#[from] ReferenceError),
    /// The secret with the logins for its image's registry cannot be had.
    #[error("the image's registry cannot be logged in to: {0}")]
    ImageSecret(#[from] IsolatorError),
    /// The logins for its image's registry are not what they should be.
    #[error("the secret of the image's 'config' cannot be used: {0}")]
    ImageConfig(#[from] CredentialsError),
    /// Its image cannot be had.
    #[error("the image cannot be provisioned: {0}")]
    Image(#[from] SharedError),
    /// Its image's layers cannot be stacked.
    #[error("the image cannot be provisioned: {0}")]
    Layers(#[from] RootFsError),
    /// Its image cannot be copied, as when the disk is full.
    #[error("the image cannot be copied to {target}: {source}")]
    Copy {
        /// Where to.
        target: PathBuf,
        /// Why.
        source: CopyError,
    },
    /// An isolator failed.
    #[error("isolator '{name}' failed: {source}")]
    Isolator {
        /// Which.
        name: String,
        /// Why.
        source: IsolatorError,
    },
    /// Nobody knows its user.
    #[error("the user '{0}' exists neither on this agent nor in the image")]
    NoUser(String),
    /// The image's users cannot be used.
    #[error(transparent)]
    ImageUser(#[from] UserError),
    /// The system does not tell about users.
    #[error("cannot look up the user '{user}': {source}")]
    Lookup {
        /// Who.
        user: String,
        /// Why.
        source: io::Error,
    },
    /// It names nothing to execute.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A file or directory of it cannot be made.
    #[error("{path} cannot be made: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its launch plan cannot be written.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Its OCI runtime spec cannot be composed or written.
    #[error("the container's runtime spec cannot be made: {0}")]
    Spec(String),
    /// The filter of its system calls cannot be made.
    #[error("the container's seccomp rules cannot be used: {0}")]
    Seccomp(#[from] tepui_isolators::seccomp::SeccompError),
    /// What it says of its output makes no sense.
    #[error("the container's output cannot be kept as it asks: {0}")]
    Logger(#[from] LoggerError),
    /// It was destroyed meanwhile.
    #[error("the container was destroyed while it was prepared")]
    Cancelled,
}

/// A container that was prepared cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It was not prepared, or was destroyed.
    #[error("the container {0} has not been prepared")]
    Unknown(String),
    /// No shim can be asked for.
    #[error(transparent)]
    Zygote(#[from] ZygoteError),
    /// The shim's connection cannot be used.
    #[error("the connection to the container's shim cannot be used: {0}")]
    Connection(#[source] io::Error),
    /// The shim could not make or start it.
    #[error("the container could not be started (at step '{stage}'): {message}")]
    Failed {
        /// The shim's name for the step.
        stage: String,
        /// Why.
        message: String,
    },
    /// An isolator failed.
    #[error("isolator '{name}' failed: {source}")]
    Isolator {
        /// Which.
        name: String,
        /// Why.
        source: IsolatorError,
    },
    /// The shim ended without a word.
    #[error("the container's shim died before it had started the container; its log is in {0}")]
    ShimDied(PathBuf),
    /// It takes too long.
    #[error("the container did not start within {0:?}")]
    TimedOut(std::time::Duration),
    /// The container that it is nested in has no processes, so that there are no namespaces to share.
    #[error("the parent container {0} does not run")]
    ParentDead(String),
    /// It cannot be brought into its parent's namespaces.
    #[error("the namespaces of the parent container cannot be entered: {0}")]
    Join(#[source] io::Error),
    /// It was destroyed meanwhile.
    #[error("the container was destroyed while it was started")]
    Cancelled,
}

/// A container's resources could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// There is none with this id, or it is being destroyed.
    #[error("there is no container {0}")]
    Unknown(String),
    /// What the container has cannot be written down.
    #[error("the container's resources cannot be written down in its runtime directory: {0}")]
    Record(#[source] io::Error),
    /// An isolator failed.
    #[error("isolator '{name}' failed: {source}; {}", in_force(.stuck))]
    Isolator {
        /// Which.
        name: String,
        /// Why.
        source: IsolatorError,
        /// Isolators that could not go back to the former resources.
        stuck: Vec<String>,
    },
    /// The agent ends.
    #[error("the change did not come to its end: {0}")]
    Interrupted(String),
}

fn in_force(stuck: &[String]) -> String {
    match stuck {
        [] => "the former resources are in force".to_owned(),
        stuck => format!(
            "the former resources are in force, except for those of which it is unknown what is: '{}'",
            stuck.join("', '")
        ),
    }
}

/// Something of a container is left.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct DestroyError(pub Vec<Leftover>);

/// What is left of a container.
#[derive(Debug, thiserror::Error)]
pub enum Leftover {
    /// Processes that do not end.
    #[error("the container's processes do not end")]
    Processes,
    /// What an isolator made.
    #[error("isolator '{name}' could not clean up: {source}")]
    Isolator {
        /// Which.
        name: String,
        /// Why.
        source: IsolatorError,
    },
    /// A directory.
    #[error(transparent)]
    Directory(#[from] RemoveTreeError),
}

/// Containers of an earlier run cannot be found again.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The runtime directory cannot be read.
    #[error("the containers of an earlier run cannot be looked for in {path}: {source}")]
    Io {
        /// Which directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An isolator failed.
    #[error("isolator '{name}' could not take over the containers of an earlier run: {source}")]
    Isolator {
        /// Which.
        name: String,
        /// Why.
        source: IsolatorError,
    },
    /// It cannot be told whether a container has a shim.
    #[error(transparent)]
    Liveness(#[from] LivenessError),
}

impl PrepareError {
    /// What Mesos' agent says of such a task.
    #[must_use]
    pub fn reason(&self) -> Reason {
        Reason::ContainerLaunchFailed
    }
}

impl StartError {
    /// What Mesos' agent says of such a task.
    #[must_use]
    pub fn reason(&self) -> Reason {
        Reason::ContainerLaunchFailed
    }
}
