//! A small client for the v1 API: calls with one answer, and calls that open a stream of events.
//!
//! Used by `tepui run`, the load generator and the tests; a framework in Rust can stand on it too.
//! One [`Client`] speaks to one server and keeps its connections open for the next call.

use std::marker::PhantomData;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::codec::{DecodeError, MediaType, Wire, decode, encode};
use crate::http::{MESSAGE_CONTENT_TYPE, RECORDIO, STREAM_ID};
use crate::recordio::{Decoder, RecordError};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection, or it broke before the answer.
    #[error("no answer from {authority}: {error}")]
    Connection {
        /// host:port
        authority: String,
        /// What happened.
        error: String,
    },
    /// The server answered with an error.
    #[error("{authority} answered {status}: {message}")]
    Status {
        /// host:port
        authority: String,
        /// The status.
        status: StatusCode,
        /// The server's words.
        message: String,
        /// Where the leader is, when the answer is a redirect.
        location: Option<String>,
    },
    /// The answer is not the message it should be.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The stream is not RecordIO.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The server ended the stream.
    #[error("{0} ended the stream")]
    Ended(String),
}

/// Speaks to one coordinator or agent.
#[derive(Clone, Debug)]
pub struct Client {
    authority: String,
    media: MediaType,
    http: hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>,
}

/// A stream of events that a call has opened.
#[derive(Debug)]
pub struct EventStream<E> {
    /// The `Mesos-Stream-Id` of the answer.
    pub id: Option<String>,
    authority: String,
    media: MediaType,
    body: Incoming,
    decoder: Decoder,
    events: PhantomData<E>,
}

// === impl Client ===

impl Client {
    /// A client of the server at `host:port`, speaking JSON or protobuf. Nothing is sent yet.
    pub fn new(authority: impl Into<String>, media: MediaType) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);
        Self { authority: authority.into(), media, http }
    }

    /// The host:port it speaks to.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Sends a call and reads the one message it answers.
    ///
    /// # Errors
    /// When there is no answer, an error, or another message.
    pub async fn call<C: Wire, A: Wire>(&self, path: &str, call: &C) -> Result<A, ClientError> {
        let answer = self.post(path, call, None).await?;
        let body = self.collect(answer).await?;
        Ok(decode(self.media, &body)?)
    }

    /// Sends a call whose answer has no body, within a subscription where there is one.
    ///
    /// # Errors
    /// When there is no answer, or an error.
    pub async fn send<C: Wire>(&self, path: &str, call: &C, stream: Option<&str>) -> Result<(), ClientError> {
        let answer = self.post(path, call, stream).await?;
        self.collect(answer).await.map(drop)
    }

    /// Sends a call that opens a stream of events.
    ///
    /// # Errors
    /// When there is no answer, or an error.
    pub async fn subscribe<C: Wire, E: Wire>(
        &self,
        path: &str,
        call: &C,
    ) -> Result<EventStream<E>, ClientError> {
        let answer = self.post(path, call, None).await?;
        let id = answer.headers().get(STREAM_ID).and_then(|v| v.to_str().ok()).map(str::to_owned);
        Ok(EventStream {
            id,
            authority: self.authority.clone(),
            media: self.media,
            body: answer.into_body(),
            decoder: Decoder::new(),
            events: PhantomData,
        })
    }

    /// Sends a stream of calls in one request (RecordIO), and reads an answer without a message, which may come before the stream has ended.
    ///
    /// # Errors
    /// When there is no answer, or an error.
    pub async fn pour<C: Wire>(
        &self,
        path: &str,
        calls: impl futures_util::Stream<Item = C> + Send + 'static,
    ) -> Result<(), ClientError> {
        let media = self.media;
        let frames = calls.map(move |call| {
            let record = crate::recordio::encode(&encode(media, &call));
            Ok::<_, std::convert::Infallible>(http_body::Frame::data(record))
        });
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://{}{path}", self.authority))
            .header(CONTENT_TYPE, RECORDIO)
            .header(MESSAGE_CONTENT_TYPE, media.as_str())
            .header(ACCEPT, media.as_str())
            .body(BodyExt::boxed_unsync(http_body_util::StreamBody::new(frames)))
            .map_err(|error| self.broken(error))?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);
        let answer = http.request(request).await.map_err(|error| self.broken(error))?;
        let answer = self.checked(answer).await?;
        self.collect(answer).await.map(drop)
    }

    /// Fetches a path, such as `/state` or `/files/read?…`.
    ///
    /// # Errors
    /// When there is no answer, or an error.
    pub async fn get(&self, path_and_query: &str) -> Result<Bytes, ClientError> {
        let request = Request::builder()
            .method(Method::GET)
            .uri(format!("http://{}{path_and_query}", self.authority))
            .body(Full::new(Bytes::new()))
            .map_err(|error| self.broken(error))?;
        let answer = self.http.request(request).await.map_err(|error| self.broken(error))?;
        let answer = self.checked(answer).await?;
        self.collect(answer).await
    }

    async fn post<C: Wire>(
        &self,
        path: &str,
        call: &C,
        stream: Option<&str>,
    ) -> Result<Response<Incoming>, ClientError> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://{}{path}", self.authority))
            .header(CONTENT_TYPE, self.media.as_str())
            .header(ACCEPT, self.media.as_str())
            .body(Full::new(Bytes::from(encode(self.media, call))))
            .map_err(|error| self.broken(error))?;
        if let Some(id) = stream {
            let value = HeaderValue::from_str(id).map_err(|error| self.broken(error))?;
            request.headers_mut().insert(STREAM_ID, value);
        }
        let answer = self.http.request(request).await.map_err(|error| self.broken(error))?;
        self.checked(answer).await
    }

    async fn checked(&self, answer: Response<Incoming>) -> Result<Response<Incoming>, ClientError> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let location =
            answer.headers().get(http::header::LOCATION).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let body = self.collect(answer).await?;
        let message = String::from_utf8_lossy(&body).into_owned();
        Err(ClientError::Status { authority: self.authority.clone(), status, message, location })
    }

    async fn collect(&self, answer: Response<Incoming>) -> Result<Bytes, ClientError> {
        let body = answer.into_body().collect().await.map_err(|error| self.broken(error))?;
        Ok(body.to_bytes())
    }

    fn broken(&self, error: impl std::error::Error) -> ClientError {
        connection(&self.authority, &error)
    }
}

// === impl EventStream ===

impl<E: Wire> EventStream<E> {
    /// Waits for the next event.
    ///
    /// # Errors
    /// When the stream ends, breaks, or brings something else.
    pub async fn next(&mut self) -> Result<E, ClientError> {
        loop {
            if let Some(record) = self.decoder.next_record()? {
                return Ok(decode(self.media, &record)?);
            }
            match self.body.frame().await {
                None => return Err(ClientError::Ended(self.authority.clone())),
                Some(Err(error)) => return Err(connection(&self.authority, &error)),
                Some(Ok(frame)) => {
                    if let Some(chunk) = frame.data_ref() {
                        self.decoder.push(chunk);
                    }
                }
            }
        }
    }
}

/// The whole chain of causes: hyper's own words are only "client error (Connect)".
fn connection(authority: &str, error: &dyn std::error::Error) -> ClientError {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    ClientError::Connection { authority: authority.to_owned(), error: text }
}
