//! What can go wrong between a name and an image, one sentence each.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::digest::Digest;
use crate::unpack::UnpackError;

/// An error that several callers of one pull share.
pub type SharedError = Arc<Error>;

/// Why an image could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The registry does not have it.
    #[error("{what} is not in the registry {registry}: check the name and tag")]
    NotFound {
        /// The image or blob.
        what: String,
        /// The registry's URL.
        registry: String,
    },
    /// The registry wants credentials, or refuses those given.
    #[error(
        "the registry {registry} does not give {what} to this agent ({reason}): the image does not exist, or credentials are needed"
    )]
    Unauthorized {
        /// The image or blob.
        what: String,
        /// The registry's URL.
        registry: String,
        /// What the registry said.
        reason: String,
    },
    /// The registry answered with an error.
    #[error("the registry answered {status} for {url}: {message}")]
    Status {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The beginning of the body.
        message: String,
        /// How long the registry wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// The registry could not be reached, or the connection broke.
    #[error("the registry cannot be reached for {url}: {reason}")]
    Connection {
        /// What was asked for.
        url: String,
        /// What happened, from the outermost to the innermost cause.
        reason: String,
    },
    /// A blob ended before its size.
    #[error("{what} broke off after {got} of {expected} bytes")]
    BrokenOff {
        /// The blob.
        what: String,
        /// Bytes received.
        got: u64,
        /// Bytes the manifest says it has.
        expected: u64,
    },
    /// Everything was tried.
    #[error("gave up after {attempts} attempts: {last}")]
    GaveUp {
        /// How often it was tried.
        attempts: u32,
        /// What the last one said.
        last: Box<Error>,
    },
    /// The HTTP client cannot be made, as when no certificate authorities are installed.
    #[error("no HTTPS client can be set up: {reason}; is the package ca-certificates installed?")]
    Tls {
        /// What the TLS library said.
        reason: String,
    },
    /// An image in the format Docker gave up in 2017.
    #[error(
        "{what} has a manifest of schema version 1, which is not supported: push it again with Docker 1.10 or newer, or with 'skopeo copy --format v2s2'"
    )]
    SchemaOne {
        /// The image.
        what: String,
    },
    /// A manifest, index or config that breaks its format.
    #[error("{what} is not usable: {reason}")]
    Malformed {
        /// The document.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The image is not made for this kind of machine.
    #[error("{what} has no variant for {wanted}; it has {found}")]
    NoPlatform {
        /// The index.
        what: String,
        /// This machine.
        wanted: String,
        /// The platforms on offer.
        found: String,
    },
    /// Some content is not what its name says.
    #[error("{what} has the digest {actual} where {expected} was promised: it is damaged or forged")]
    WrongDigest {
        /// The content.
        what: String,
        /// As promised.
        expected: Digest,
        /// As computed.
        actual: Digest,
    },
    /// Some content is larger or smaller than promised.
    #[error("{what} has {actual} bytes where {expected} were promised")]
    WrongSize {
        /// The content.
        what: String,
        /// As promised.
        expected: u64,
        /// As found; at least so many when it is too large.
        actual: u64,
    },
    /// A layer cannot be unpacked.
    #[error("the layer {layer} cannot be unpacked: {source}")]
    Layer {
        /// The layer's diff id.
        layer: Digest,
        /// What is wrong with it.
        source: UnpackError,
    },
    /// An archive or layout that cannot be read as an image.
    #[error("{} holds no usable image: {reason}", path.display())]
    Archive {
        /// The archive or layout.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No archive where `--docker_registry` or the task said.
    #[error("no archive or OCI layout of the image {name} was found; looked for {looked_for}")]
    NoArchive {
        /// The image.
        name: String,
        /// The paths tried.
        looked_for: String,
    },
    /// The store's directory gives trouble.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was to be done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A worker thread died; only a defect in this program does that.
    #[error("a worker of the image store failed: {reason}")]
    Worker {
        /// What the runtime said.
        reason: String,
    },
}

impl Error {
    /// Wraps an I/O error with what was being done to which path.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// Whether another attempt may go better.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connection { .. } | Self::BrokenOff { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500..=599),
            _ => false,
        }
    }

    /// How long the other side wants to be left alone.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
