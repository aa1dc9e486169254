//! How a client speaks and wants to be answered: one message, or a stream of records.

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, StatusCode};
use tepui_api::MediaType;
use tepui_api::http::{MESSAGE_ACCEPT, MESSAGE_CONTENT_TYPE, RECORDIO, Refusal, accepts, media_type};

/// The form of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Form {
    /// One message; of an answer that is a stream, records all the same, as Mesos gives them to clients that ask for no stream.
    Plain(MediaType),
    /// RecordIO with records of this type.
    Records(MediaType),
}

impl Form {
    /// The type of its messages.
    pub(in crate::http) fn message(self) -> MediaType {
        match self {
            Self::Plain(media) | Self::Records(media) => media,
        }
    }
}

/// The form of a request.
///
/// # Errors
/// As Mesos': 400 without the headers, 415 when they name something else.
pub(in crate::http) fn content(headers: &HeaderMap) -> Result<Form, Refusal> {
    let unsupported = |message: &str| Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message);
    if !is_recordio(headers) {
        let media = match headers.get(CONTENT_TYPE).map(|value| media_type(value.as_bytes())) {
            None => return Err(Refusal::bad_request("Expecting 'Content-Type' to be present")),
            Some(None) => {
                return Err(unsupported(
                    "Expecting 'Content-Type' of application/json or application/x-protobuf or application/recordio",
                ));
            }
            Some(Some(media)) => media,
        };
        if headers.contains_key(MESSAGE_CONTENT_TYPE) {
            return Err(unsupported(
                "Expecting 'Message-Content-Type' to be not set for non-streaming requests",
            ));
        }
        return Ok(Form::Plain(media));
    }
    let Some(named) = headers.get(MESSAGE_CONTENT_TYPE) else {
        return Err(Refusal::bad_request(
            "Expecting 'Message-Content-Type' to be set for streaming requests",
        ));
    };
    media_type(named.as_bytes()).map(Form::Records).ok_or_else(|| {
        unsupported("Expecting 'Message-Content-Type' of application/json or application/x-protobuf")
    })
}

fn is_recordio(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case(RECORDIO))
}

/// The form of the answer: JSON, protobuf or a stream, whichever of them comes first in this order, as Mesos chooses.
///
/// # Errors
/// 406 when the client takes none of them.
pub(in crate::http) fn accept(headers: &HeaderMap) -> Result<Form, Refusal> {
    let refused = |message: &str| Refusal::new(StatusCode::NOT_ACCEPTABLE, message);
    let first = |name: &HeaderName| {
        [MediaType::Json, MediaType::Protobuf]
            .into_iter()
            .find(|media| accepts(headers, name, media.as_str()))
    };
    if let Some(media) = first(&ACCEPT) {
        if headers.contains_key(MESSAGE_ACCEPT) {
            return Err(refused("Expecting 'Message-Accept' to be not set for non-streaming responses"));
        }
        return Ok(Form::Plain(media));
    }
    if !accepts(headers, &ACCEPT, RECORDIO) {
        return Err(refused(
            "Expecting 'Accept' to allow application/json or application/x-protobuf or application/recordio",
        ));
    }
    first(&MESSAGE_ACCEPT).map(Form::Records).ok_or_else(|| {
        refused("Expecting 'Message-Accept' to allow application/json or application/x-protobuf")
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(all: &[(HeaderName, &'static str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn streams_name_the_type_of_their_records() {
        let form = |all: &[(HeaderName, &'static str)]| content(&headers(all)).map_err(|r| r.status.as_u16());
        let json = "application/json";
        assert_eq!(
            form(&[(CONTENT_TYPE, RECORDIO), (MESSAGE_CONTENT_TYPE, json)]),
            Ok(Form::Records(MediaType::Json))
        );
        assert_eq!(form(&[(CONTENT_TYPE, json)]), Ok(Form::Plain(MediaType::Json)));
        assert_eq!(form(&[]), Err(400));
        assert_eq!(form(&[(CONTENT_TYPE, RECORDIO)]), Err(400));
        assert_eq!(form(&[(CONTENT_TYPE, RECORDIO), (MESSAGE_CONTENT_TYPE, "text/plain")]), Err(415));
        assert_eq!(form(&[(CONTENT_TYPE, json), (MESSAGE_CONTENT_TYPE, json)]), Err(415));
        assert_eq!(form(&[(CONTENT_TYPE, "text/plain")]), Err(415));
    }

    #[test]
    fn an_answer_is_a_stream_where_nothing_else_is_taken() {
        let form = |all: &[(HeaderName, &'static str)]| accept(&headers(all)).map_err(|r| r.status.as_u16());
        assert_eq!(form(&[]), Ok(Form::Plain(MediaType::Json)));
        assert_eq!(form(&[(ACCEPT, RECORDIO)]), Ok(Form::Records(MediaType::Json)));
        let protobuf = (MESSAGE_ACCEPT, "application/x-protobuf");
        assert_eq!(form(&[(ACCEPT, RECORDIO), protobuf.clone()]), Ok(Form::Records(MediaType::Protobuf)));
        assert_eq!(form(&[(ACCEPT, "application/json"), protobuf]), Err(406));
        assert_eq!(form(&[(ACCEPT, RECORDIO), (MESSAGE_ACCEPT, "text/plain")]), Err(406));
        assert_eq!(form(&[(ACCEPT, "text/html")]), Err(406));
    }
}
