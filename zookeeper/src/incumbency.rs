//! Leading, for as long as the ensemble confirms it.
//!
//! The ensemble takes a leader's node away when it has heard nothing of his session for the session time-out `T`, and the
//! next candidate leads. By then the old leader must have stopped, also when he hears nothing from the
//! ensemble. What the client library tells is not enough: it reports a broken connection only once it has noticed, and
//! an end of the session only when it has a connection again, or after 7/5 of `T`.
//!
//! So the leader asks again and again, every `T/16`, for a transaction that changes nothing: it checks that his node is
//! there. Being a write, it is confirmed only by a majority, never by a server that was cut off from the others. When it is
//! confirmed, the [`Lease`] is extended to 9/16 of `T` after the moment *before it was sent*:
//!
//! - The session's end is decided by the ensemble's leader, `T` or more after he last heard of it. A server tells him of the
//!   sessions it heard of when he pings it, every half tick, on the same connection as it forwards transactions: when the
//!   transaction is confirmed, he knows what the server heard up to half a tick before. A session lasts two ticks or
//!   more, so half a tick is at most `T/4` (as long as `minSessionTimeout` is not set lower, and all servers of the ensemble
//!   have the same limits).
//! - The client is never silent for longer than 3/20 of `T`: after that it pings.
//!
//! Should that server die the moment it has passed the confirmation on, the node stays for `T - T/4 - 3T/20` = `0.6 T` after the
//! transaction was sent, which is later than the lease's end. In all other cases, and when the ensemble elects a new
//! leader of its own (who gives every session its whole time again), the node stays longer.
//!
//! The price: a loss of the ensemble's majority is survived for a half of `T` rather than for all of it.

use std::time::Duration;

use tokio::task::JoinHandle;
use zookeeper_client::{Error, MultiWriteError};

use crate::lease::BootTime;
use crate::{Lease, Session, SessionError, Url};

/// After the connection was lost, before the next attempt.
const RETRY: Duration = Duration::from_millis(20);
/// How long giving up a node may take.
const RESIGN: Duration = Duration::from_secs(1);

/// One's own node leads. Ends the lease when it is dropped, and then the session.
#[derive(Debug)]
pub struct Incumbency {
    session: Session,
    node: String,
    lease: Lease,
    renewal: JoinHandle<Lost>,
    lost: Option<Lost>,
}

/// Why the leader leads no longer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Lost {
    /// In time.
    #[error("{url} has not confirmed in time that the session lives; another may lead soon")]
    Unconfirmed {
        /// Where.
        url: Url,
    },
    /// Somebody removed the node.
    #[error("the node {node} in {url} is gone")]
    NodeGone {
        /// Where.
        url: Url,
        /// Its path.
        node: String,
    },
    /// The session has ended.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// Given up.
    #[error("the candidacy was withdrawn")]
    Withdrawn,
}

// === impl Incumbency ===

impl Incumbency {
    /// Begins when the node is the lowest.
    ///
    /// # Errors
    /// When the ensemble does not confirm it.
    pub(crate) async fn begin(session: Session, node: String) -> Result<Self, Lost> {
        let sent = BootTime::now();
        let lease = Lease::until(sent.after(lasting(session.timeout())));
        let confirmed = tokio::time::timeout(lease.remaining(), confirm(&session, &node));
        confirmed.await.map_err(|_| Lost::Unconfirmed { url: session.url().clone() })??;
        let renewal = tokio::spawn(renew(session.clone(), node.clone(), lease.clone()));
        Ok(Self { session, node, lease, renewal, lost: None })
    }

    /// The right to act.
    #[must_use]
    pub fn lease(&self) -> Lease {
        self.lease.clone()
    }

    /// The path of the node by which it was elected.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Waits until leadership is lost. The lease is over by then.
    pub async fn lost(&mut self) -> Lost {
        if let Some(lost) = &self.lost {
            return lost.clone();
        }
        let lost = (&mut self.renewal).await.unwrap_or(Lost::Withdrawn);
        self.lease.end();
        self.lost.insert(lost).clone()
    }

    /// Gives leadership up, so that another leads at once. All acting must have ended before.
    pub async fn resign(self) {
        self.lease.end();
        // Whether it works or not: the session ends as well, if only after its time.
        let _ = tokio::time::timeout(RESIGN, self.session.client().delete(&self.node, None)).await;
    }
}

impl Drop for Incumbency {
    fn drop(&mut self) {
        self.lease.end();
        self.renewal.abort();
    }
}

/// From the moment before a confirmed transaction was sent; see the module.
fn lasting(session_timeout: Duration) -> Duration {
    session_timeout * 9 / 16
}

/// Between two transactions.
fn interval(session_timeout: Duration) -> Duration {
    session_timeout / 16
}

/// Extends the lease until that fails.
async fn renew(session: Session, node: String, lease: Lease) -> Lost {
    let unconfirmed = || Lost::Unconfirmed { url: session.url().clone() };
    loop {
        tokio::time::sleep(interval(session.timeout()).min(lease.remaining())).await;
        let confirmed = loop {
            let sent = BootTime::now();
            match tokio::time::timeout(lease.remaining(), confirm(&session, &node)).await {
                Err(_) => return unconfirmed(),
                Ok(Ok(())) => break sent,
                Ok(Err(Lost::Session(SessionError::Failed { error, .. }))) => {
                    tracing::debug!(%error, "ZooKeeper did not confirm the leader's node; asking again");
                    tokio::time::sleep(RETRY.min(lease.remaining())).await;
                }
                Ok(Err(lost)) => return lost,
            }
        };
        if !lease.extend(confirmed.after(lasting(session.timeout()))) {
            return unconfirmed();
        }
    }
}

/// Has a majority confirm that the session lives and that its node is there.
async fn confirm(session: &Session, node: &str) -> Result<(), Lost> {
    let gone = || Lost::NodeGone { url: session.url().clone(), node: node.to_owned() };
    let mut transaction = session.client().new_multi_writer();
    // The node is never written again.
    transaction.add_check_version(node, 0).map_err(|error| session.error(node, error))?;
    match transaction.commit().await {
        Ok(_) => Ok(()),
        Err(MultiWriteError::OperationFailed { source: Error::NoNode | Error::BadVersion, .. }) => {
            Err(gone())
        }
        Err(error) => Err(session.error(node, error.into()).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lease_ends_before_the_node_can_vanish() {
        for session_timeout in [Duration::from_secs(1), Duration::from_secs(4), Duration::from_secs(600)] {
            let stays = session_timeout - session_timeout / 4 - session_timeout * 3 / 20;
            assert!(lasting(session_timeout) < stays);
            // One renewal may fail to come, and a reconnection take its 2/5 of the time.
            assert!(lasting(session_timeout) > session_timeout * 2 / 5 + interval(session_timeout));
        }
    }
}
