//! One stream to a coordinator: `POST /tepui/v1/link` over HTTP/2, RecordIO both ways.

use bytes::Bytes;
use futures_util::stream;
use http::{Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use std::convert::Infallible;
use std::time::Duration;
use tepui_api::link::{AgentFrame, CoordinatorFrame, agent_frame, coordinator_frame};
use tepui_api::recordio::{self, Decoder};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// How long a coordinator may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// What may be under way without the receiver's consent. A registration with thousands of tasks is some megabytes.
const WINDOW: u32 = 4 << 20;

/// Why there is no stream, or no more.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No connection.
    #[error("cannot connect to the coordinator at {authority}: {source}")]
    Connect {
        /// host:port
        authority: String,
        /// Why.
        source: std::io::Error,
    },
    /// The connection is not HTTP/2, or broke.
    #[error("the link to the coordinator at {authority} broke: {source}")]
    Http {
        /// host:port
        authority: String,
        /// Why.
        source: hyper::Error,
    },
    /// It is not the coordinator that leads.
    #[error("the coordinator at {authority} says that {leader} leads")]
    Redirect {
        /// host:port
        authority: String,
        /// Where the leader is.
        leader: String,
    },
    /// It does not want a link.
    #[error("the coordinator at {authority} answered {status}: {message}")]
    Status {
        /// host:port
        authority: String,
        /// What it answered.
        status: StatusCode,
        /// Its words.
        message: String,
    },
    /// It ended the stream.
    #[error("the coordinator at {0} ended the link")]
    Ended(String),
    /// What it sent is not the protocol's.
    #[error("the coordinator at {authority} sent something that is no frame: {message}")]
    Frame {
        /// host:port
        authority: String,
        /// What is wrong.
        message: String,
    },
    /// The address cannot stand in a request.
    #[error("'{authority}' is no address of a coordinator: {source}")]
    Address {
        /// host:port
        authority: String,
        /// Why.
        source: http::Error,
    },
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A connection over which a stream can be opened.
#[derive(Debug)]
pub struct Connection {
    authority: String,
    sender: hyper::client::conn::http2::SendRequest<Body>,
}

/// Frames that come in.
#[derive(Debug)]
pub struct Frames {
    authority: String,
    body: Incoming,
    decoder: Decoder,
}

// === impl Connection ===

impl Connection {
    /// Connects to a coordinator.
    ///
    /// # Errors
    /// When nothing there accepts it.
    pub async fn open(authority: &str) -> Result<Self, LinkError> {
        let refused = |source| LinkError::Connect { authority: authority.to_owned(), source };
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(authority));
        let socket =
            connecting.await.map_err(|_| refused(std::io::ErrorKind::TimedOut.into()))?.map_err(refused)?;
        socket.set_nodelay(true).map_err(refused)?;
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .handshake(TokioIo::new(socket))
            .await
            .map_err(|source| LinkError::Http { authority: authority.to_owned(), source })?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to the coordinator ended");
            }
        });
        Ok(Self { authority: authority.to_owned(), sender })
    }

    /// Opens the stream. What comes out of the queue is sent; when its other end is dropped, the agent's half ends.
    ///
    /// # Errors
    /// When the coordinator does not lead, or does not want the agent.
    pub async fn stream(
        mut self,
        frames: mpsc::UnboundedReceiver<agent_frame::Body>,
    ) -> Result<Frames, LinkError> {
        let authority = self.authority;
        let outgoing = stream::unfold(frames, |mut frames| async move {
            let body = frames.recv().await?;
            let record = AgentFrame { body: Some(body) }.encode_to_vec();
            Some((Ok::<_, Infallible>(Frame::data(recordio::encode(&record))), frames))
        });
        let request = Request::post(format!("http://{authority}/tepui/v1/link"))
            .header(http::header::CONTENT_TYPE, "application/x-tepui-link")
            .body(StreamBody::new(outgoing).boxed_unsync())
            .map_err(|source| LinkError::Address { authority: authority.clone(), source })?;
        let broken = |source| LinkError::Http { authority: authority.clone(), source };
        let answer = self.sender.send_request(request).await.map_err(broken)?;
        let status = answer.status();
        if status.is_success() {
            return Ok(Frames { authority, body: answer.into_body(), decoder: Decoder::new() });
        }
        if status.is_redirection()
            && let Some(leader) = answer.headers().get(http::header::LOCATION).and_then(leader_of)
        {
            return Err(LinkError::Redirect { authority, leader });
        }
        let text = answer.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let message = String::from_utf8_lossy(&text).trim().to_owned();
        Err(LinkError::Status { authority, status, message })
    }
}

// === impl Frames ===

impl Frames {
    /// The next frame; a frame that this version does not know is passed over.
    ///
    /// # Errors
    /// When the stream ends or breaks.
    pub async fn next(&mut self) -> Result<coordinator_frame::Body, LinkError> {
        loop {
            let no_frame = |message| LinkError::Frame { authority: self.authority.clone(), message };
            if let Some(record) = self.decoder.next_record().map_err(|e| no_frame(e.to_string()))? {
                let frame = CoordinatorFrame::decode(record).map_err(|error| no_frame(error.to_string()))?;
                match frame.body {
                    Some(body) => return Ok(body),
                    None => continue,
                }
            }
            match self.body.frame().await {
                None => return Err(LinkError::Ended(self.authority.clone())),
                Some(Err(source)) => {
                    return Err(LinkError::Http { authority: self.authority.clone(), source });
                }
                Some(Ok(frame)) => {
                    if let Some(chunk) = frame.data_ref() {
                        self.decoder.push(chunk);
                    }
                }
            }
        }
    }
}

/// The host:port in a `Location`, which Mesos writes as `//host:port/path`.
fn leader_of(location: &http::HeaderValue) -> Option<String> {
    let text = location.to_str().ok()?;
    let rest = text.split_once("//").map_or(text, |(_, rest)| rest);
    let authority = rest.split('/').next().filter(|authority| !authority.is_empty())?;
    Some(authority.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn the_leader_is_read_from_any_form_of_location() {
        for location in ["//h:1/x", "http://h:1/x", "h:1"] {
            assert_eq!(leader_of(&HeaderValue::from_static(location)).as_deref(), Some("h:1"));
        }
        assert_eq!(leader_of(&HeaderValue::from_static("/x")), None);
    }
}
