//! Finds the coordinator again and again: at the address that was named, or whichever leads.

use std::sync::Arc;
use std::time::Duration;

use tepui_api::v1::MasterInfo;
use tepui_zookeeper::{Detector, nodes};
use tokio::sync::watch;

use super::master::{Master, MasterError};

/// Nobody leading for so long is worth a word.
const TELL: Duration = Duration::from_secs(1);

/// Where to connect, and when that changes.
#[derive(Debug)]
pub(super) enum Finder {
    /// Always the same, or what a file says at the moment.
    Named(Master),
    /// Who leads, by ZooKeeper.
    Detected {
        /// Keeps `leader` up to date.
        _detector: Detector,
        leader: watch::Receiver<Option<Arc<MasterInfo>>>,
        /// The id of the leader that was found last.
        found: Option<String>,
    },
}

// === impl Finder ===

impl Finder {
    /// Begins to follow who leads, if that is the way.
    pub(super) fn new(master: Master, session_timeout: Duration) -> Self {
        match master {
            Master::ZooKeeper(url) => {
                let detector = Detector::start(url, session_timeout);
                Self::Detected { leader: detector.leader(), _detector: detector, found: None }
            }
            named => Self::Named(named),
        }
    }

    /// The `host:port` to connect to. Waits until somebody leads.
    ///
    /// # Errors
    /// When the address stands in a file that cannot be read, or holds something else.
    pub(super) async fn find(&mut self) -> Result<String, MasterError> {
        match self {
            Self::Named(master) => master.resolve(),
            Self::Detected { leader, found, .. } => {
                if tokio::time::timeout(TELL, leader.wait_for(Option::is_some)).await.is_err() {
                    tracing::info!("no coordinator leads; waiting for one");
                }
                let Ok(leader) = leader.wait_for(Option::is_some).await.map(|leader| leader.clone()) else {
                    return std::future::pending().await;
                };
                let leader = leader.unwrap_or_default();
                *found = Some(leader.id.clone());
                Ok(nodes::authority(&leader))
            }
        }
    }

    /// Waits until another coordinator leads than the one that was found last. That nobody leads for a while is no
    /// reason to give up a link that works: who leads no longer closes it.
    pub(super) async fn moved(&mut self) {
        let Self::Detected { leader, found, .. } = self else { return std::future::pending().await };
        let other = |leader: &Option<Arc<MasterInfo>>| {
            leader.as_ref().is_some_and(|leader| found.as_ref() != Some(&leader.id))
        };
        if leader.wait_for(other).await.is_err() {
            std::future::pending().await
        }
    }
}
