//! Who leads, for everybody who wants to know.
//!
//! A [`Detector`] has a session of its own. While that lives, what was last known counts, also when no server answers. When
//! the session is lost, nobody is known to lead, as in Mesos, until there is a new one.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use tepui_api::v1::MasterInfo;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use zookeeper_client::{Error, OneshotWatcher};

use crate::{Session, SessionError, Url, nodes};

/// Before a question that failed is asked again in the same session.
const RETRY: Duration = Duration::from_millis(100);
/// The longest pause between two attempts to have a session.
const PAUSE: Duration = Duration::from_secs(2);

/// Follows who leads, for ever, until it is dropped.
#[derive(Debug)]
pub struct Detector {
    leader: watch::Receiver<Option<Arc<MasterInfo>>>,
    task: JoinHandle<()>,
}

/// Who leads, and what tells that it may have changed.
type Found = (Option<Arc<MasterInfo>>, OneshotWatcher);

// === impl Detector ===

impl Detector {
    /// Starts to follow, with sessions of this time-out. Must be called in a tokio runtime.
    #[must_use]
    pub fn start(url: Url, timeout: Duration) -> Self {
        let (tell, leader) = watch::channel(None);
        Self { leader, task: tokio::spawn(run(url, timeout, tell)) }
    }

    /// Always holds who leads, as far as is known.
    #[must_use]
    pub fn leader(&self) -> watch::Receiver<Option<Arc<MasterInfo>>> {
        self.leader.clone()
    }
}

impl Drop for Detector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(url: Url, timeout: Duration, tell: watch::Sender<Option<Arc<MasterInfo>>>) {
    let mut pause = RETRY;
    loop {
        let error = match Session::open(&url, timeout).await {
            Ok(session) => {
                pause = RETRY;
                let error = tokio::select! {
                    () = session.lost() => SessionError::Ended { url: url.clone(), error: Error::SessionExpired },
                    error = follow(&session, &tell) => error,
                };
                known(&tell, None);
                error
            }
            Err(error) => error,
        };
        tracing::warn!(%error, "ZooKeeper cannot tell who leads; trying again");
        let chance: f64 = rand::rng().random_range(0.5..1.0);
        tokio::time::sleep(pause.mul_f64(chance)).await;
        pause = (pause * 2).min(PAUSE);
    }
}

/// Tells of every leader until the session has ended.
async fn follow(session: &Session, tell: &watch::Sender<Option<Arc<MasterInfo>>>) -> SessionError {
    loop {
        match look(session).await {
            Ok(Some((leader, watch))) => {
                known(tell, leader);
                watch.changed().await;
            }
            // It changed while it was looked at.
            Ok(None) => {}
            Err(SessionError::Failed { error, .. }) => {
                tracing::warn!(%error, "ZooKeeper could not be asked who leads; asking again");
                tokio::time::sleep(RETRY).await;
            }
            Err(error) => return error,
        }
    }
}

/// Who leads now; `None` when that changed meanwhile.
async fn look(session: &Session) -> Result<Option<Found>, SessionError> {
    let path = session.url().path();
    let client = session.client();
    let (names, watch) = match client.list_and_watch_children(path).await {
        Ok(found) => found,
        Err(Error::NoNode) => {
            // No coordinator has ever stood for election.
            let (node, watch) =
                client.check_and_watch_stat(path).await.map_err(|error| session.error(path, error))?;
            return Ok(node.is_none().then_some((None, watch)));
        }
        Err(error) => return Err(session.error(path, error)),
    };
    let Some(lowest) = nodes::lowest(&names) else { return Ok(Some((None, watch))) };
    let node = format!("{path}/{lowest}");
    let data = match client.get_data(&node).await {
        Ok((data, _)) => data,
        Err(Error::NoNode) => return Ok(None),
        Err(error) => return Err(session.error(&node, error)),
    };
    let leader = match nodes::decode(&node, &data) {
        Ok(info) => Some(Arc::new(info)),
        Err(error) => {
            tracing::error!(%error, "who leads cannot be read, so nobody is known to lead");
            None
        }
    };
    Ok(Some((leader, watch)))
}

fn known(tell: &watch::Sender<Option<Arc<MasterInfo>>>, leader: Option<Arc<MasterInfo>>) {
    tell.send_if_modified(|present| {
        if *present == leader {
            return false;
        }
        match &leader {
            Some(leader) => tracing::info!(leader = leader.pid(), id = leader.id, "a coordinator leads"),
            None => tracing::info!("no coordinator leads, as far as is known"),
        }
        *present = leader;
        true
    });
}
