//! The life of a coordinator that is one of several: candidate, leader, candidate again.
//!
//! A candidacy has a session, a node and an id of its own, and ends with them: whoever loses the lease steps down at
//! once and stands anew, under another id, so that no id of a framework, agent or offer comes twice
//! (docs/decisions/0012-stepping-down.md). A detector, with a session of its own, tells meanwhile who leads.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tepui_api::v1::MasterInfo;
use tepui_zookeeper::{Candidate, ContendError, Detector, Incumbency, Lost, Url};
use tokio::sync::watch;
use uuid::Uuid;

use super::Leadership;
use crate::http::Site;
use crate::registry::RegistryError;
use crate::running::{Failure, Stop};
use crate::term::{Process, Store, Term};

/// Between two candidacies, so that a coordinator with trouble lets others try first.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a core that has lost the lease and its registry may take to end. They do nothing any more.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// The id of no candidacy.
const NOBODY: &str = "";

/// What a coordinator needs to stand for election for ever.
pub(crate) struct Campaign {
    process: Process,
    url: Url,
    session_timeout: Duration,
    store: Store,
    site: Arc<Site>,
    leadership: watch::Sender<Leadership>,
    detector: Detector,
}

/// How a candidacy ended.
enum End {
    /// As the coordinator was told to.
    Stopped(Result<(), Failure>),
    /// With nothing to be gained by another.
    Failed(Failure),
    /// By losing it; another follows.
    Again(Reason),
}

/// Why a candidacy is over.
#[derive(Debug, thiserror::Error)]
enum Reason {
    #[error(transparent)]
    Contend(#[from] ContendError),
    #[error(transparent)]
    Lost(#[from] Lost),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("a thread cannot be started: {0}")]
    Thread(#[from] std::io::Error),
    #[error("the lease is over")]
    Lease,
}

// === impl Campaign ===

impl Campaign {
    /// Begins to follow who leads.
    pub(crate) fn new(
        process: Process,
        (url, session_timeout): (Url, Duration),
        store: Store,
        site: Arc<Site>,
        leadership: watch::Sender<Leadership>,
    ) -> Self {
        let detector = Detector::start(url.clone(), session_timeout);
        Self { process, url, session_timeout, store, site, leadership, detector }
    }

    /// Stands for election until told to stop.
    pub(crate) async fn run(self, mut stop: Stop) -> Result<(), Failure> {
        loop {
            let id = Uuid::new_v4().to_string();
            let info = Arc::new(MasterInfo { id, ..(*self.process.info).clone() });
            match self.candidacy(info, &mut stop).await {
                End::Stopped(how) => return how,
                End::Failed(failure) => return Err(failure),
                End::Again(reason) => {
                    tracing::warn!(%reason, "a candidacy ended; standing for election again")
                }
            }
            tokio::select! {
                () = self.following(NOBODY, tokio::time::sleep(PAUSE)) => {}
                () = stop.asked() => return Ok(()),
            }
        }
    }

    async fn candidacy(&self, info: Arc<MasterInfo>, stop: &mut Stop) -> End {
        let stood = tokio::select! {
            stood = self.following(&info.id, Candidate::stand(&self.url, self.session_timeout, &info)) => stood,
            () = stop.asked() => return End::Stopped(Ok(())),
        };
        let candidate = match stood {
            Ok(candidate) => candidate,
            Err(ContendError::Session(error)) if error.is_final() => {
                return End::Failed(Failure::ZooKeeper(error));
            }
            Err(error) => return End::Again(error.into()),
        };
        tracing::info!(id = info.id, node = candidate.node(), "standing for election");
        let lowest = tokio::select! {
            lowest = self.following(&info.id, candidate.lowest()) => lowest,
            () = stop.asked() => {
                candidate.withdraw().await;
                return End::Stopped(Ok(()));
            }
        };
        if let Err(error) = lowest {
            return End::Again(error.into());
        }
        // Others see it as well, and may call before it is confirmed.
        self.publish(Leadership::Recovering);
        match candidate.lead().await {
            Ok(incumbency) => self.term(info, incumbency, stop).await,
            Err(lost) => End::Again(lost.into()),
        }
    }

    /// Reads the registry, leads, and has stepped down when it returns.
    async fn term(&self, info: Arc<MasterInfo>, mut incumbency: Incumbency, stop: &mut Stop) -> End {
        tracing::info!(id = info.id, "elected; reading the registry");
        let node = incumbency.node().to_owned();
        let opened = tokio::select! {
            opened = self.store.open(&info.id, Some(&node)) => opened,
            lost = incumbency.lost() => return End::Again(lost.into()),
            () = stop.asked() => {
                incumbency.resign().await;
                return End::Stopped(Ok(()));
            }
        };
        let begun: Result<Term, Reason> = opened.map_err(Reason::from).and_then(|(registry, recovered)| {
            Ok(Term::start(&self.process, info, incumbency.lease(), registry, recovered)?)
        });
        let mut term = match begun {
            Ok(term) => term,
            Err(reason) => {
                incumbency.resign().await;
                return End::Again(reason);
            }
        };
        self.site.enter(term.context());
        self.publish(Leadership::Own);
        let end = self.lead(&mut term, &mut incumbency, stop).await;
        self.publish(Leadership::Vacant);
        self.site.leave();
        term.stop();
        match end {
            End::Stopped(_) => {
                let how = term.ended().await;
                incumbency.resign().await;
                End::Stopped(how)
            }
            End::Failed(failure) => {
                incumbency.resign().await;
                End::Failed(failure)
            }
            End::Again(reason) => {
                tracing::warn!(%reason, "stepping down");
                // What was begun ends by itself: it sees that the lease is over.
                incumbency.lease().end();
                let _ = self.following(NOBODY, tokio::time::timeout(LAST_WORDS, term.ended())).await;
                incumbency.resign().await;
                End::Again(reason)
            }
        }
    }

    /// Waits until leading is over.
    async fn lead(&self, term: &mut Term, incumbency: &mut Incumbency, stop: &mut Stop) -> End {
        tokio::select! {
            lost = incumbency.lost() => End::Again(lost.into()),
            ended = term.ended() => match ended {
                // The core is the first to see it after a long stop of the process.
                Ok(()) => End::Again(Reason::Lease),
                Err(Failure::Registry(error)) => End::Again(error.into()),
                Err(failure) => End::Failed(failure),
            },
            () = stop.asked() => End::Stopped(Ok(())),
        }
    }

    /// Tells who leads, by the detector, while something is waited for in the candidacy of this id.
    async fn following<T>(&self, id: &str, waiting: impl Future<Output = T>) -> T {
        let mut leader = self.detector.leader();
        let mut waiting = pin!(waiting);
        loop {
            let seen = self.seen(id, leader.borrow_and_update().as_ref());
            self.publish(seen);
            tokio::select! {
                done = &mut waiting => return done,
                changed = leader.changed() => if changed.is_err() { return waiting.await },
            }
        }
    }

    /// What the detector saw, which may be earlier than the candidate itself. An own node of another id is one of an
    /// earlier candidacy, or of an earlier process at this address: nobody leads.
    fn seen(&self, id: &str, leader: Option<&Arc<MasterInfo>>) -> Leadership {
        match leader {
            Some(leader) if leader.id == id => Leadership::Recovering,
            Some(leader) if leader.pid() != self.process.info.pid() => Leadership::Other(Arc::clone(leader)),
            _ => Leadership::Vacant,
        }
    }

    fn publish(&self, leadership: Leadership) {
        self.leadership.send_if_modified(|present| {
            let changed = *present != leadership;
            *present = leadership;
            changed
        });
    }
}
