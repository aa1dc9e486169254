//! What the HTTP servers of coordinator and agent share: media types, bodies, answers and streams.
//!
//! A handler asks [`content_type`] and [`accept`] how the client speaks, reads the body with
//! [`read_body`], and answers with [`message`], [`error`] or a [`stream`]. Errors are `text/plain`
//! with a sentence, as Mesos answers them.

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::Stream;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use std::convert::Infallible;

use crate::codec::{MediaType, Wire, encode};

/// The body of every answer.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Names a subscription; every later call of the framework carries it.
pub const STREAM_ID: HeaderName = HeaderName::from_static("mesos-stream-id");
/// In a RecordIO stream, the media type of its records.
pub const MESSAGE_CONTENT_TYPE: HeaderName = HeaderName::from_static("message-content-type");
/// Like [`MESSAGE_CONTENT_TYPE`], for the records of the answer.
pub const MESSAGE_ACCEPT: HeaderName = HeaderName::from_static("message-accept");
/// The media type of a RecordIO stream whose records have one of their own.
pub const RECORDIO: &str = "application/recordio";

/// Bodies larger than this are refused.
pub const MAX_BODY: usize = 256 << 20;

/// A request that cannot be served, as its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub status: StatusCode,
    /// What was wrong and what would be right.
    pub message: String,
}

// === impl Refusal ===

impl Refusal {
    /// A refusal with this status.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
    /// `400 Bad Request`
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
    /// `501 Not Implemented`, for what Mesos has and Tepui has not.
    pub fn not_implemented(what: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, format!("{what} is not implemented"))
    }
}

impl From<Refusal> for Response<Body> {
    fn from(refusal: Refusal) -> Self {
        error(refusal.status, &refusal.message)
    }
}

/// The media type of the request's body.
///
/// # Errors
/// `400` without the header, `415` when it is neither JSON nor protobuf.
pub fn content_type(headers: &HeaderMap) -> Result<MediaType, Refusal> {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return Err(Refusal::bad_request("Expecting 'Content-Type' to be present"));
    };
    media_type(value.as_bytes()).ok_or_else(|| {
        Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Expecting 'Content-Type' of application/json or application/x-protobuf",
        )
    })
}

/// The media type that the client takes, JSON first when it takes both, as Mesos chooses.
///
/// # Errors
/// `406` when it takes neither.
pub fn accept(headers: &HeaderMap) -> Result<MediaType, Refusal> {
    [MediaType::Json, MediaType::Protobuf]
        .into_iter()
        .find(|media| accepts(headers, &ACCEPT, media.as_str()))
        .ok_or_else(|| {
            Refusal::new(
                StatusCode::NOT_ACCEPTABLE,
                "Expecting 'Accept' to allow application/json or application/x-protobuf",
            )
        })
}

/// Whether the header allows this media type. Absent, it allows all (RFC 9110, 12.5.1).
#[must_use]
pub fn accepts(headers: &HeaderMap, name: &HeaderName, media: &str) -> bool {
    let mut values = headers.get_all(name).iter().peekable();
    if values.peek().is_none() {
        return true;
    }
    let family = media.split('/').next().unwrap_or_default();
    values.filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let refused =
            parts.any(|p| matches!(p.strip_prefix("q=").map(str::parse::<f64>), Some(Ok(q)) if q == 0.0));
        let matches = name.eq_ignore_ascii_case(media)
            || name == "*/*"
            || name.strip_suffix("/*").is_some_and(|f| f.eq_ignore_ascii_case(family));
        matches && !refused
    })
}

/// A media type by its name; parameters such as a charset are passed over.
#[must_use]
pub fn media_type(value: &[u8]) -> Option<MediaType> {
    let name = value.split(|b| *b == b';').next()?.trim_ascii();
    [MediaType::Json, MediaType::Protobuf]
        .into_iter()
        .find(|m| name.eq_ignore_ascii_case(m.as_str().as_bytes()))
}

/// Reads a whole body.
///
/// # Errors
/// `413` beyond [`MAX_BODY`], `400` when the connection breaks.
pub async fn read_body<B>(body: B) -> Result<Bytes, Refusal>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    let mut whole = BytesMut::new();
    let mut stream = std::pin::pin!(body.into_data_stream());
    while let Some(chunk) = stream.next().await {
        let chunk =
            chunk.map_err(|error| Refusal::bad_request(format!("failed to read the body: {error}")))?;
        if whole.len() + chunk.len() > MAX_BODY {
            return Err(Refusal::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("a body may have {MAX_BODY} bytes"),
            ));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.freeze())
}

/// A body of these bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

/// An answer without a body.
#[must_use]
pub fn empty(status: StatusCode) -> Response<Body> {
    with_body(status, None, full(Bytes::new()))
}

/// An answer that explains itself in plain text.
#[must_use]
pub fn error(status: StatusCode, text: &str) -> Response<Body> {
    with_body(status, Some("text/plain; charset=utf-8"), full(text.to_owned()))
}

/// `200 OK` with one message.
#[must_use]
pub fn message<M: Wire>(media: MediaType, message: &M) -> Response<Body> {
    with_body(StatusCode::OK, Some(media.as_str()), full(encode(media, message)))
}

/// `200 OK` with JSON that has been written already.
pub fn json(text: impl Into<Bytes>) -> Response<Body> {
    with_body(StatusCode::OK, Some(MediaType::Json.as_str()), full(text))
}

/// `405 Method Not Allowed`, in Mesos' form, with the `Allow` header.
#[must_use]
pub fn method_not_allowed(expected: &'static str, got: &http::Method) -> Response<Body> {
    let text = format!("405 Method Not Allowed. Expecting one of {{ '{expected}' }}, but received '{got}'.");
    let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, &text);
    answer.headers_mut().insert(http::header::ALLOW, HeaderValue::from_static(expected));
    answer
}

/// `404 Not Found`, in Mesos' form.
#[must_use]
pub fn not_found() -> Response<Body> {
    error(StatusCode::NOT_FOUND, "404 Not Found.")
}

/// `200 OK` with a body that comes chunk by chunk, each chunk as it is (see [`crate::recordio::encode`]).
pub fn stream<S>(content_type: &'static str, chunks: S) -> Response<Body>
where
    S: Stream<Item = Bytes> + Send + 'static,
{
    let frames = chunks.map(|chunk| Ok::<_, Infallible>(Frame::data(chunk)));
    with_body(StatusCode::OK, Some(content_type), StreamBody::new(frames).boxed_unsync())
}

fn with_body(status: StatusCode, content_type: Option<&'static str>, body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    if let Some(content_type) = content_type {
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn accept_prefers_json_and_honours_ranges() {
        assert_eq!(accept(&HeaderMap::new()), Ok(MediaType::Json));
        assert_eq!(accept(&headers(ACCEPT, "*/*")), Ok(MediaType::Json));
        assert_eq!(accept(&headers(ACCEPT, "application/*;q=0.5")), Ok(MediaType::Json));
        assert_eq!(accept(&headers(ACCEPT, "application/x-protobuf")), Ok(MediaType::Protobuf));
        assert_eq!(
            accept(&headers(ACCEPT, "application/json;q=0, application/x-protobuf")),
            Ok(MediaType::Protobuf)
        );
        assert_eq!(
            accept(&headers(ACCEPT, "text/html")).map_err(|r| r.status),
            Err(StatusCode::NOT_ACCEPTABLE)
        );
    }

    #[test]
    fn content_type_is_needed_and_known() {
        assert_eq!(content_type(&HeaderMap::new()).map_err(|r| r.status), Err(StatusCode::BAD_REQUEST));
        assert_eq!(
            content_type(&headers(CONTENT_TYPE, "application/JSON; charset=utf-8")),
            Ok(MediaType::Json)
        );
        let xml = content_type(&headers(CONTENT_TYPE, "text/xml")).map_err(|r| r.status);
        assert_eq!(xml, Err(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
}
