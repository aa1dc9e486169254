//! Why something could not be fetched, in words for who asked for it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tepui_images::{HttpError, UnpackError};

/// A URI that was not fetched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FetchError {
    /// One of them makes no sense: nothing was fetched.
    #[error("Could not fetch '{uri}': {reason}")]
    Invalid {
        /// Which, without a password.
        uri: String,
        /// What is wrong with it.
        reason: UriError,
    },
    /// The user does not exist, or the system does not tell.
    #[error("Could not fetch as the user '{user}': {reason}")]
    User {
        /// Who.
        user: String,
        /// Why.
        reason: String,
    },
    /// The sandbox is gone.
    #[error("Could not fetch into the sandbox {path}: {reason}")]
    Sandbox {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// One of them could not be had.
    #[error("Failed to fetch '{uri}': {reason}")]
    Failed {
        /// Which, without a password.
        uri: String,
        /// Why.
        reason: String,
    },
    /// The container was destroyed meanwhile.
    #[error("the container was destroyed while its URIs were fetched")]
    Stopped,
}

/// What is wrong with a URI, before anything is fetched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UriError {
    /// As Mesos: these would confuse a shell.
    #[error("it has a backslash, a single quote or a zero byte in it")]
    Characters,
    /// `http://host`.
    #[error("it names no file: a path must follow the host")]
    NoPath,
    /// `http://host/directory/`.
    #[error("its last part names no file: give the file a name by 'output_file'")]
    NoName,
    /// Longer than a file's name can be.
    #[error(
        "its last part is longer than the 255 bytes of a file's name: give the file another by 'output_file'"
    )]
    LongName,
    /// `ftp` and whatever Hadoop knows.
    #[error("the scheme '{0}' is not supported: use http, https or file, or a path")]
    Scheme(String),
    /// `file://x`.
    #[error("a file URI must have an absolute path")]
    RelativeFile,
    /// Relative to what nobody has said.
    #[error("it is a relative path, and this agent has no --frameworks_home that it could be relative to")]
    NoHome,
    /// `output_file` is empty.
    #[error("'output_file' is empty")]
    EmptyOutput,
    /// `output_file` leads out.
    #[error("'output_file' must be a path within the sandbox: relative, without '..'")]
    Output,
    /// `output_file`, or the last part, is where output goes.
    #[error("'{0}' is where the task's own output goes: give the file another name by 'output_file'")]
    Reserved(String),
}

/// What went wrong with one URI.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("cannot open {path}: {source}")]
    Open { path: PathBuf, source: io::Error },
    #[error("{0} is no file")]
    NoFile(PathBuf),
    #[error("cannot write '{name}' in the sandbox: {source}")]
    Write { name: String, source: io::Error },
    #[error("it cannot be read: {0}")]
    Read(#[source] io::Error),
    #[error("it cannot be unpacked: {0}")]
    Unpack(#[from] UnpackError),
    #[error("it has more than {0} bytes unpacked")]
    TooLarge(u64),
    #[error("the agent's fetcher failed: {0}")]
    Worker(String),
    /// The same for all who wanted it.
    #[error("{0}")]
    Shared(Arc<Failure>),
    #[error("it was given up")]
    Stopped,
}

// === impl Failure ===

impl Failure {
    pub(super) fn open(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Open { path, source }
    }

    pub(super) fn write(name: &Path) -> impl FnOnce(io::Error) -> Self {
        let name = name.display().to_string();
        move |source| Self::Write { name, source }
    }
}
