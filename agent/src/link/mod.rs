//! The link to the coordinator, from the agent's side.
//!
//! [`run`] keeps one stream open for as long as the agent lives: it finds the coordinator ([`master`], [`finder`]), connects
//! ([`connection`]), tells the shell that there is a stream and gives it the sending end, hands on what comes
//! in, and begins again when the stream is gone, after a while ([`backoff`]). What is said on the stream is the core's
//! affair.

mod backoff;
mod connection;
mod finder;
mod master;

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use tepui_api::link::{agent_frame, coordinator_frame};
use tokio::sync::{Notify, mpsc};

pub use connection::LinkError;
pub use master::{Master, MasterError};

use backoff::Backoff;
use connection::Connection;
use finder::Finder;

/// What happens to the link.
#[derive(Debug)]
pub enum LinkEvent {
    /// There is a stream; what is put into the queue is sent over it.
    Opened(mpsc::UnboundedSender<agent_frame::Body>),
    /// The coordinator said something.
    Frame(Box<coordinator_frame::Body>),
    /// The stream is gone.
    Closed,
}

/// How many redirects are followed without a pause.
const MAX_REDIRECTS: usize = 3;

/// Why a stream is not served any more.
enum End {
    /// It broke, or could not be opened.
    Failed(LinkError),
    /// Another one is wanted.
    Reconnect,
    /// Another coordinator leads.
    Moved,
}

/// Keeps a stream to the coordinator until the future is dropped. `reconnect` closes the present stream and
/// opens another; so does another leader, to whom the next one goes without a pause.
pub async fn run(
    master: Master,
    session_timeout: Duration,
    backoff_limit: Duration,
    reconnect: Arc<Notify>,
    on_event: impl Fn(LinkEvent) + Send,
) {
    let mut finder = Finder::new(master, session_timeout);
    let mut backoff = Backoff::new(backoff_limit);
    let mut leader: Option<String> = None;
    let mut redirects = 0;
    loop {
        let found = match leader.take() {
            Some(leader) => Ok(leader),
            None => finder.find().await,
        };
        let end = match found {
            Ok(authority) => {
                tokio::select! {
                    error = serve(&authority, &mut backoff, &on_event) => End::Failed(error),
                    () = reconnect.notified() => End::Reconnect,
                    () = finder.moved() => End::Moved,
                }
            }
            Err(error) => {
                tracing::warn!(%error, "there is no coordinator to connect to");
                wait(&mut backoff, &reconnect, &mut finder).await;
                continue;
            }
        };
        on_event(LinkEvent::Closed);
        match end {
            End::Reconnect => backoff.reset(),
            End::Moved => {
                tracing::info!("another coordinator leads; going over to it");
                redirects = 0;
                backoff.reset();
            }
            End::Failed(LinkError::Redirect { leader: there, .. }) if redirects < MAX_REDIRECTS => {
                tracing::info!(leader = there, "following to the coordinator that leads");
                leader = Some(there);
                redirects += 1;
            }
            End::Failed(error) => {
                tracing::warn!(%error, "no link to the coordinator");
                redirects = 0;
                wait(&mut backoff, &reconnect, &mut finder).await;
            }
        }
    }
}

/// Waits before the next attempt, but not when there is somebody else to try.
async fn wait(backoff: &mut Backoff, reconnect: &Notify, finder: &mut Finder) {
    let wait = backoff.wait(rand::rng().random());
    tokio::select! {
        () = tokio::time::sleep(wait) => {}
        () = reconnect.notified() => {}
        () = finder.moved() => backoff.reset(),
    }
}

/// Serves one stream until it is gone.
async fn serve(authority: &str, backoff: &mut Backoff, on_event: &impl Fn(LinkEvent)) -> LinkError {
    let connection = match Connection::open(authority).await {
        Ok(connection) => connection,
        Err(error) => return error,
    };
    let (sender, queue) = mpsc::unbounded_channel();
    on_event(LinkEvent::Opened(sender));
    let mut frames = match connection.stream(queue).await {
        Ok(frames) => frames,
        Err(error) => return error,
    };
    loop {
        match frames.next().await {
            Ok(frame) => {
                backoff.reset();
                on_event(LinkEvent::Frame(Box::new(frame)));
            }
            Err(error) => return error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http_body_util::BodyExt as _;
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use prost::Message as _;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tepui_api::link::{AgentFrame, CoordinatorFrame, Register};
    use tepui_api::recordio::{self, Decoder};
    use tokio::net::TcpListener;

    /// Of no matter without ZooKeeper.
    const SESSION: Duration = Duration::from_secs(10);

    fn ping(number: u64) -> Bytes {
        let frame = CoordinatorFrame { body: Some(coordinator_frame::Body::Ping(number)) };
        recordio::encode(&frame.encode_to_vec())
    }

    /// A coordinator that waits for a frame, sends a ping, and ends the stream; the first
    /// `refusals` times it answers 503.
    async fn coordinator(refusals: usize) -> (String, mpsc::UnboundedReceiver<AgentFrame>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let (seen, frames) = mpsc::unbounded_channel();
        let count = Arc::new(AtomicUsize::new(0));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (seen, count) = (seen.clone(), count.clone());
                let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let (seen, count) = (seen.clone(), count.clone());
                    async move {
                        if count.fetch_add(1, Ordering::SeqCst) < refusals {
                            let text = "no leader";
                            return Ok(tepui_api::http::error(http::StatusCode::SERVICE_UNAVAILABLE, text));
                        }
                        let mut body = request.into_body();
                        let mut decoder = Decoder::new();
                        let record = loop {
                            if let Some(record) = decoder.next_record().unwrap() {
                                break record;
                            }
                            decoder.push(body.frame().await.unwrap().unwrap().data_ref().unwrap());
                        };
                        seen.send(AgentFrame::decode(record).unwrap()).unwrap();
                        let pings = futures_util::stream::iter([ping(1), ping(2)]);
                        Ok::<_, std::convert::Infallible>(tepui_api::http::stream(
                            "application/recordio",
                            pings,
                        ))
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(socket), service),
                );
            }
        });
        (authority, frames)
    }

    async fn next(events: &mut mpsc::UnboundedReceiver<LinkEvent>) -> LinkEvent {
        tokio::time::timeout(Duration::from_secs(60), events.recv()).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_stream_is_opened_used_and_opened_again() {
        let (authority, mut seen) = coordinator(2).await;
        let (sender, mut events) = mpsc::unbounded_channel();
        let master: Master = authority.parse().unwrap();
        let link =
            tokio::spawn(run(master, SESSION, Duration::from_millis(20), Arc::default(), move |event| {
                let _ = sender.send(event);
            }));
        for _refusal in 0..2 {
            assert!(matches!(next(&mut events).await, LinkEvent::Opened(_)));
            assert!(matches!(next(&mut events).await, LinkEvent::Closed));
        }
        for _stream in 0..2 {
            let LinkEvent::Opened(frames) = next(&mut events).await else { panic!() };
            let register =
                agent_frame::Body::Register(Register { version: "x".into(), ..Register::default() });
            frames.send(register.clone()).unwrap();
            for number in [1, 2] {
                let LinkEvent::Frame(frame) = next(&mut events).await else { panic!() };
                assert_eq!(*frame, coordinator_frame::Body::Ping(number));
            }
            assert_eq!(seen.recv().await.unwrap().body, Some(register));
            assert!(matches!(next(&mut events).await, LinkEvent::Closed));
        }
        link.abort();
    }

    #[tokio::test]
    async fn a_redirect_is_followed() {
        let (leader, mut seen) = coordinator(0).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let follower = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let location = format!("//{leader}/tepui/v1/link");
                let service = service_fn(move |_| {
                    let location = location.clone();
                    async move {
                        let mut answer = tepui_api::http::empty(http::StatusCode::TEMPORARY_REDIRECT);
                        answer.headers_mut().insert("location", location.parse().unwrap());
                        Ok::<_, std::convert::Infallible>(answer)
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(socket), service),
                );
            }
        });
        let link = tokio::spawn(run(
            follower.parse().unwrap(),
            SESSION,
            Duration::from_secs(1),
            Arc::default(),
            |event| {
                if let LinkEvent::Opened(frames) = event {
                    let _ = frames.send(agent_frame::Body::Pong(9));
                }
            },
        ));
        let frame = tokio::time::timeout(Duration::from_secs(60), seen.recv()).await.unwrap().unwrap();
        assert_eq!(frame.body, Some(agent_frame::Body::Pong(9)));
        link.abort();
    }
}
