//! A coordinator from its start to its end.

use std::net::{SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tepui_api::v1::MasterInfo;
use tepui_zookeeper::{Lease, SessionError, Url, UrlError};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::election::Leadership;
use crate::election::zookeeper::Campaign;
use crate::flags::{RegistryKind, Settings};
use crate::http::{Server, Site};
use crate::identity::master_info;
use crate::registry::RegistryError;
use crate::term::{Process, Store, Term};

/// Why a coordinator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The registry needs a place.
    #[error("the coordinator needs --work_dir=DIR for its registry (or --registry=in_memory, which forgets)")]
    NoWorkDir,
    /// The registry needs an ensemble.
    #[error("--registry=zookeeper needs --zk=zk://HOST:PORT/PATH")]
    NoEnsemble,
    /// A registry that others cannot read.
    #[error(
        "--registry=file is this machine's own, but with --zk the next leader must find the registry: leave --registry out, and it is kept in ZooKeeper"
    )]
    NotShared,
    /// No URL of an ensemble.
    #[error("--zk: {0}")]
    Url(#[from] UrlError),
    /// The registry cannot be used.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The port cannot be had.
    #[error("cannot listen on {address}: {error}; choose another with --ip and --port")]
    Listen {
        /// What was asked for.
        address: SocketAddrV4,
        /// Why not.
        error: std::io::Error,
    },
    /// The system refused a thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// Why a coordinator ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// What must survive cannot be written any more.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// ZooKeeper will not let it stand for election, whatever it does.
    #[error("this coordinator cannot stand for election: {0}")]
    ZooKeeper(SessionError),
    /// Going on would have done harm that only a person can judge.
    #[error("{0}")]
    Unsafe(String),
    /// A defect: its core ended.
    #[error("the coordinator's core ended unexpectedly; its last words are in the log")]
    Core,
}

/// A coordinator that is running. Dropping it ends its threads; [`Running::stop`] also waits for them.
#[derive(Debug)]
pub struct Running {
    address: SocketAddrV4,
    info: Arc<MasterInfo>,
    work_dir: Option<PathBuf>,
    server: Server,
    /// True asks it to stop; dropping it does so, too.
    stop: watch::Sender<bool>,
    /// How it ended; `None` once that was seen.
    life: Option<JoinHandle<Result<(), Failure>>>,
}

/// Comes when the coordinator is to end.
#[derive(Debug, Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

/// Starts a coordinator. One that is alone reads its registry, listens, and leads. One of several listens, stands for
/// election, and shows the way to the leader until it leads.
///
/// # Errors
/// When the flags contradict each other, the registry cannot be read, or the address cannot be listened on.
pub async fn start(settings: Settings) -> Result<Running, StartError> {
    let ensemble = settings.zk.as_ref().map(tepui_zookeeper::UrlText::url).transpose()?;
    let store = store(&settings, ensemble.as_ref())?;
    let alone = match ensemble {
        None => Some(store.open("", None).await?),
        Some(_) => None,
    };
    let asked = SocketAddrV4::new(settings.ip, settings.port);
    let listen = |error| StartError::Listen { address: asked, error };
    let listener = TcpListener::bind(asked).await.map_err(listen)?;
    let address = match listener.local_addr().map_err(listen)? {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(_) => asked,
    };
    let info = Arc::new(master_info(&settings, address));
    tracing::info!(%address, id = info.id, "the coordinator starts");

    let (leadership, leads) = watch::channel(Leadership::Vacant);
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let session_timeout = settings.zk_session_timeout.into();
    let work_dir = settings.work_dir.clone();
    let process =
        Process { settings: Arc::new(settings), info: Arc::clone(&info), leadership: leads, started };
    let site = Arc::new(Site::new(process.idle()));
    let (stop, asked) = watch::channel(false);
    let stopped = Stop(asked);
    let life = match (ensemble, alone) {
        (Some(url), _) => {
            let campaign =
                Campaign::new(process, (url, session_timeout), store, Arc::clone(&site), leadership);
            tokio::spawn(campaign.run(stopped))
        }
        (None, Some((registry, recovered))) => {
            let term = Term::start(&process, Arc::clone(&info), Lease::endless(), registry, recovered)
                .map_err(StartError::Thread)?;
            site.enter(term.context());
            leadership.send_replace(Leadership::Own);
            tokio::spawn(alone_until(term, leadership, stopped))
        }
        (None, None) => return Err(StartError::NoWorkDir),
    };
    let server = Server::start(listener, site);
    Ok(Running { address, info, work_dir, server, stop, life: Some(life) })
}

// === impl Running ===

impl Running {
    /// What it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// How it shows itself. In a replicated set each candidacy has another id.
    #[must_use]
    pub fn master_info(&self) -> &MasterInfo {
        &self.info
    }

    /// Where its registry is, when it is on disk.
    #[must_use]
    pub fn work_dir(&self) -> Option<&std::path::Path> {
        self.work_dir.as_deref()
    }

    /// Waits until it ends by itself, which only a failure makes it do. Nothing is served from then on;
    /// the process should end. May be dropped and called again.
    pub async fn failed(&mut self) -> Failure {
        self.end().await.err().unwrap_or(Failure::Core)
    }

    /// Ends all streams and links, finishes answers under way, writes what is to be written, and lets another lead.
    ///
    /// # Errors
    /// When the registry could not be written.
    pub async fn stop(mut self) -> Result<(), Failure> {
        // Without a receiver it has ended already.
        let _ = self.stop.send(true);
        let ended = self.end().await;
        self.server.stop().await;
        ended
    }

    /// Waits for the end. A failure is told once.
    async fn end(&mut self) -> Result<(), Failure> {
        let Some(life) = &mut self.life else { return Ok(()) };
        let how = life.await.unwrap_or(Err(Failure::Core));
        self.life = None;
        how
    }
}

// === impl Stop ===

impl Stop {
    /// Waits for it.
    pub(crate) async fn asked(&mut self) {
        // Nobody who could ask is left: that asks, too.
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}

/// Leads until the end. Holds the sender for as long as anybody may ask who leads.
async fn alone_until(
    mut term: Term,
    leadership: watch::Sender<Leadership>,
    mut stop: Stop,
) -> Result<(), Failure> {
    let ended = tokio::select! {
        ended = term.ended() => ended,
        () = stop.asked() => {
            term.stop();
            term.ended().await
        }
    };
    drop(leadership);
    ended
}

fn store(settings: &Settings, ensemble: Option<&Url>) -> Result<Store, StartError> {
    let in_file = || settings.work_dir.clone().map(Store::File).ok_or(StartError::NoWorkDir);
    let in_ensemble = |url: &Url| Store::ZooKeeper {
        url: url.clone(),
        session_timeout: settings.zk_session_timeout.into(),
    };
    match (settings.registry, ensemble) {
        (RegistryKind::InMemory, _) => Ok(Store::Memory),
        (RegistryKind::Durable | RegistryKind::ZooKeeper, Some(url)) => Ok(in_ensemble(url)),
        (RegistryKind::ZooKeeper, None) => Err(StartError::NoEnsemble),
        (RegistryKind::File, Some(_)) => Err(StartError::NotShared),
        (RegistryKind::Durable | RegistryKind::File, None) => in_file(),
    }
}
