//! One connection to a plugin. It is never made anew behind anybody's back: a plugin that comes back must be told of the containers first.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tonic::body::Body;
use tonic::codegen::Service;

use super::proto::Call;
use super::proto::isolator_client::IsolatorClient;
use crate::isolator::BoxFuture;

/// What calls are made through.
pub(super) type Client = IsolatorClient<Channel>;

/// A connection over which hands were shaken.
#[derive(Clone)]
pub(super) struct Session {
    pub client: Client,
    /// The calls that the plugin wants.
    pub calls: Arc<BTreeSet<Call>>,
}

/// Sends requests over one HTTP/2 connection.
#[derive(Clone)]
pub(super) struct Channel(SendRequest<Body>);

/// The other end of it. Ends when the connection does; dropped, it closes it.
pub(super) struct Connection(JoinHandle<Result<(), hyper::Error>>);

/// Why there is no connection.
pub(super) enum ConnectError {
    /// Nobody listens.
    Unreachable(io::Error),
    /// Somebody does, and closes the connection at once.
    Broken(hyper::Error),
}

/// Connects to a socket.
///
/// # Errors
/// When nobody listens there, or nobody who takes connections.
pub(super) async fn connect(socket: &Path) -> Result<(Client, Connection), ConnectError> {
    let stream = UnixStream::connect(socket).await.map_err(ConnectError::Unreachable)?;
    let handshake = Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(ConnectError::Broken)?;
    let connection = Connection(tokio::spawn(connection));
    // HTTP/2 wants one; servers of gRPC do not mind which.
    let client = Client::with_origin(Channel(sender), Uri::from_static("http://localhost"));
    Ok((client, connection))
}

// === impl Session ===

impl Session {
    pub fn wants(&self, call: Call) -> bool {
        self.calls.contains(&call)
    }
}

// === impl Connection ===

impl Connection {
    /// Waits until it has ended; why.
    pub async fn ended(&mut self) -> String {
        match (&mut self.0).await {
            Ok(Ok(())) => "it closed the connection".to_owned(),
            Ok(Err(error)) => format!("the connection broke: {}", with_causes(&error)),
            Err(error) => format!("the connection broke: {error}"),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

// === impl Channel ===

impl Service<http::Request<Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Self::Response, hyper::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// An error with what caused it, in one line.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
