//! A session with the ensemble, opened with a URL's credentials.

use std::time::Duration;

use zookeeper_client::{Acl, Acls, Client, CreateMode, Error, Permission, SessionState};

use crate::Url;

/// Everybody reads, and who made a node does what he wants with it: Mesos' `EVERYONE_READ_CREATOR_ALL`.
const CREATOR_ALL: &[Acl] =
    &[Acl::new_const(Permission::READ, "world", "anyone"), Acl::new_const(Permission::ALL, "auth", "")];
/// Everybody does what he wants.
const OPEN: &[Acl] = &[Acl::new_const(Permission::ALL, "world", "anyone")];

/// A session that lives until it is dropped, expires, or the ensemble refuses it. Clones are one session.
#[derive(Debug, Clone)]
pub struct Session {
    client: Client,
    url: Url,
}

/// Why there is no session, or why something could not be done in it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SessionError {
    /// Nobody answers.
    #[error(
        "no server of {url} gave a session within {timeout:?}: check that ZooKeeper runs there and has a quorum"
    )]
    Unreachable {
        /// Where.
        url: Url,
        /// How long was tried.
        timeout: Duration,
    },
    /// Wrong credentials.
    #[error(
        "{url} does not let these credentials write to {path}: give the user and password with which it was made, as in zk://user:password@host/path, or another path"
    )]
    NotAllowed {
        /// Where, and as whom.
        url: Url,
        /// The node.
        path: String,
    },
    /// The session is over.
    #[error("the session with {url} has ended: {error}")]
    Ended {
        /// Where.
        url: Url,
        /// How.
        error: Error,
    },
    /// Anything else; another attempt may help.
    #[error("{url} could not be asked about {path}: {error}")]
    Failed {
        /// Where.
        url: Url,
        /// The node.
        path: String,
        /// Why not.
        error: Error,
    },
}

// === impl Session ===

impl Session {
    /// Opens a session that the ensemble ends when it hears nothing for `timeout`. The ensemble may set another
    /// time, see [`Session::timeout`]. Tries all servers for about `timeout`.
    ///
    /// Must be called in a tokio runtime, which then serves the session.
    ///
    /// # Errors
    /// When no server gives one.
    pub async fn open(url: &Url, timeout: Duration) -> Result<Self, SessionError> {
        let mut connector = Client::connector().with_session_timeout(timeout);
        if let Some(credentials) = url.credentials() {
            connector = connector.with_auth("digest", credentials.as_bytes());
        }
        match connector.connect(&url.servers()).await {
            Ok(client) => Ok(Self { client, url: url.clone() }),
            Err(Error::Timeout | Error::NoHosts | Error::ConnectionLoss) => {
                Err(SessionError::Unreachable { url: url.clone(), timeout })
            }
            Err(error) => Err(SessionError::Ended { url: url.clone(), error }),
        }
    }

    /// The client, to read and write with. Paths are whole: below [`Url::path`] by one's own care.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Where the session is.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// After how long without a word the ensemble ends the session, as it has set it.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.client.session_timeout()
    }

    /// Who may do what with a node that is made: as in Mesos, with credentials everybody reads and only the same
    /// credentials write; without credentials everybody does both.
    #[must_use]
    pub fn acls(&self) -> Acls<'static> {
        Acls::new(if self.url.credentials().is_some() { CREATOR_ALL } else { OPEN })
    }

    /// Makes a lasting node, and those above it, where they are not there yet.
    ///
    /// # Errors
    /// When one of them cannot be made.
    pub async fn make_path(&self, path: &str) -> Result<(), SessionError> {
        let options = CreateMode::Persistent.with_acls(self.acls());
        self.client.mkdir(path, &options).await.map_err(|error| self.error(path, error))
    }

    /// What an error of the client means, in words, for a node that was read or written.
    #[must_use]
    pub fn error(&self, path: &str, error: Error) -> SessionError {
        let (url, path) = (self.url.clone(), path.to_owned());
        match error {
            Error::NoAuth => SessionError::NotAllowed { url, path },
            Error::SessionExpired
            | Error::SessionMoved
            | Error::AuthFailed
            | Error::ClientClosed
            | Error::NoHosts
            | Error::Timeout => SessionError::Ended { url, error },
            error => SessionError::Failed { url, path, error },
        }
    }

    /// Waits until the session is lost: it has ended, or there was no connection for as long as makes the ensemble
    /// end it (which it tells only once there is a connection again).
    pub async fn lost(&self) {
        let mut states = self.client.state_watcher();
        let mut state = states.state();
        while !state.is_terminated() {
            state = if state == SessionState::Disconnected {
                match tokio::time::timeout(self.timeout(), states.changed()).await {
                    Ok(state) => state,
                    Err(_) => return,
                }
            } else {
                states.changed().await
            };
        }
    }
}

// === impl SessionError ===

impl SessionError {
    /// Whether nothing but another configuration helps.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::NotAllowed { .. })
    }
}
