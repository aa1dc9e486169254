//! A coordinator that wants to lead.

use std::time::Duration;

use tepui_api::v1::MasterInfo;
use zookeeper_client::{CreateMode, Error, OneshotWatcher};

use crate::{Incumbency, Lost, Session, SessionError, Url, nodes};

/// Before a question that failed is asked again.
const RETRY: Duration = Duration::from_millis(100);
/// How long giving up a node may take.
const WITHDRAW: Duration = Duration::from_secs(1);

/// Has a node in the ensemble, and waits for it to be the lowest. Dropping it ends its session and removes the node.
#[derive(Debug)]
pub struct Candidate {
    session: Session,
    node: String,
}

/// Why a coordinator cannot stand for election.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ContendError {
    /// No session, or no right to make the node.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The node is gone again.
    #[error(transparent)]
    Lost(#[from] Lost),
}

// === impl Candidate ===

impl Candidate {
    /// Opens a session of its own and makes a node in it, and the path to it. When it is not certain whether the
    /// node was made, this fails, and the session's end removes it.
    ///
    /// # Errors
    /// When there is no session, or the node cannot be made.
    pub async fn stand(url: &Url, timeout: Duration, info: &MasterInfo) -> Result<Self, ContendError> {
        let session = Session::open(url, timeout).await?;
        session.make_path(url.path()).await?;
        let prefix = format!("{}/{}", url.path(), nodes::LABEL);
        let options = CreateMode::EphemeralSequential.with_acls(session.acls());
        let made = session.client().create(&prefix, &nodes::encode(info), &options).await;
        // Without credentials that fit, it is the path above that refuses.
        let (_, sequence) = made.map_err(|error| session.error(url.path(), error))?;
        Ok(Self { node: format!("{prefix}{sequence}"), session })
    }

    /// The path of its node.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Waits until its node is the lowest.
    ///
    /// # Errors
    /// When the session or the node is lost.
    pub async fn lowest(&self) -> Result<(), ContendError> {
        let url = self.session.url().clone();
        tokio::select! {
            () = self.session.lost() => Err(SessionError::Ended { url, error: Error::SessionExpired }.into()),
            waited = self.wait() => waited,
        }
    }

    /// Leads from now on, once its node is the lowest.
    ///
    /// # Errors
    /// When the ensemble does not confirm that the node is still there.
    pub async fn lead(self) -> Result<Incumbency, Lost> {
        Incumbency::begin(self.session, self.node).await
    }

    /// Removes the node, without waiting for the session's end.
    pub async fn withdraw(self) {
        let _ = tokio::time::timeout(WITHDRAW, self.session.client().delete(&self.node, None)).await;
    }

    async fn wait(&self) -> Result<(), ContendError> {
        loop {
            let (names, watch) = match self.look().await {
                Ok(found) => found,
                Err(SessionError::Failed { error, .. }) => {
                    tracing::warn!(%error, "ZooKeeper could not be asked who stands for election; asking again");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let own = |name: &str| self.node.ends_with(name);
            if nodes::lowest(&names).is_some_and(own) {
                return Ok(());
            }
            if !names.iter().any(|name| own(name)) {
                let url = self.session.url().clone();
                return Err(Lost::NodeGone { url, node: self.node.clone() }.into());
            }
            watch.changed().await;
        }
    }

    /// The nodes in the path, and what tells that they change.
    async fn look(&self) -> Result<(Vec<String>, OneshotWatcher), SessionError> {
        let path = self.session.url().path();
        let found = self.session.client().list_and_watch_children(path).await;
        found.map_err(|error| self.session.error(path, error))
    }
}
