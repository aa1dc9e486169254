//! Accepts connections and serves them until told to stop.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Site, route};

/// How long answers under way may take when the coordinator stops.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// After the system had no file left for a connection.
const PAUSE: Duration = Duration::from_millis(100);
/// Links and calls on one HTTP/2 connection. Thousands of simulated agents share one.
const STREAMS: u32 = 1 << 20;

/// The running server.
#[derive(Debug)]
pub(crate) struct Server {
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

// === impl Server ===

impl Server {
    /// Serves connections to this listener.
    pub(crate) fn start(listener: TcpListener, site: Arc<Site>) -> Self {
        let (stop, stopped) = watch::channel(false);
        Self { stop, accepting: tokio::spawn(accept(listener, site, stopped)) }
    }

    /// Takes no more connections, and returns when those there are have ended or [`LAST_ANSWERS`] are
    /// over. Streams must be ended before, or they are cut.
    pub(crate) async fn stop(self) {
        // Without a receiver the server has ended already.
        let _ = self.stop.send(true);
        let _ = self.accepting.await;
    }
}

async fn accept(listener: TcpListener, site: Arc<Site>, mut stopped: watch::Receiver<bool>) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // A time limit would close connections that rest between two calls, which Mesos never does and which
    // its clients do not expect.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).title_case_headers(true);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS).adaptive_window(true);
    let graceful = GracefulShutdown::new();
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            _ = stopped.wait_for(|stopped| *stopped) => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = serve(&builder, stream, &site);
                let connection = graceful.watch(connection.into_owned());
                connections.spawn(async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(%error, "a connection ended early");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    // Dropping `connections` afterwards cuts what is left.
    let _ = tokio::time::timeout(LAST_ANSWERS, graceful.shutdown()).await;
}

fn serve(
    builder: &auto::Builder<TokioExecutor>,
    stream: TcpStream,
    site: &Arc<Site>,
) -> auto::Connection<
    'static,
    TokioIo<TcpStream>,
    impl hyper::service::Service<
        http::Request<hyper::body::Incoming>,
        Response = http::Response<tepui_api::http::Body>,
        Error = Infallible,
        Future: Send,
    > + use<>,
    TokioExecutor,
> {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection's delay cannot be turned off");
    }
    let site = Arc::clone(site);
    let service = service_fn(move |request| {
        let site = Arc::clone(&site);
        async move { Ok::<_, Infallible>(route(&site, request).await) }
    });
    builder.serve_connection(TokioIo::new(stream), service).into_owned()
}
