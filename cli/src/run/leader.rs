//! The coordinator to run on: the one that was named, or whichever leads.

use std::sync::Arc;
use std::time::Duration;

use tepui_api::v1::MasterInfo;
use tepui_zookeeper::{Detector, Url, UrlError, nodes};
use tokio::sync::watch;

/// Of the session by which the leader is followed; Mesos' default.
const SESSION: Duration = Duration::from_secs(10);

/// Where to find the coordinator.
pub enum Coordinator {
    /// At this `host:port`.
    At(String),
    /// Where ZooKeeper says.
    Elected {
        /// Keeps `leader` up to date.
        _detector: Detector,
        leader: watch::Receiver<Option<Arc<MasterInfo>>>,
        /// The id of the leader that was found last.
        found: Option<String>,
    },
}

// === impl Coordinator ===

impl Coordinator {
    /// Reads what stands for the coordinator on the command line. In a tokio runtime.
    ///
    /// # Errors
    /// When it is a URL of an ensemble that is wrong.
    pub fn new(text: &str) -> Result<Self, UrlError> {
        if !text.starts_with("zk://") {
            return Ok(Self::At(text.to_owned()));
        }
        let detector = Detector::start(text.parse::<Url>()?, SESSION);
        Ok(Self::Elected { leader: detector.leader(), _detector: detector, found: None })
    }

    /// Whether it is elected, so that an attempt that failed may fare better.
    pub fn is_elected(&self) -> bool {
        matches!(self, Self::Elected { .. })
    }

    /// Its `host:port`; `None` when nobody leads for so long.
    pub async fn find(&mut self, patience: Duration) -> Option<String> {
        match self {
            Self::At(authority) => Some(authority.clone()),
            Self::Elected { leader, found, .. } => {
                let waited = tokio::time::timeout(patience, leader.wait_for(Option::is_some)).await;
                let leader = waited.ok()?.ok()?.clone()?;
                *found = Some(leader.id.clone());
                Some(nodes::authority(&leader))
            }
        }
    }

    /// Waits until another one leads than the one that was found last.
    pub async fn moved(&mut self) {
        let Self::Elected { leader, found, .. } = self else { return std::future::pending().await };
        let other = |leader: &Option<Arc<MasterInfo>>| {
            leader.as_ref().is_some_and(|leader| found.as_ref() != Some(&leader.id))
        };
        if leader.wait_for(other).await.is_err() {
            std::future::pending().await
        }
    }
}
