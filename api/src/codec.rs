//! Messages from and to bytes, as JSON or protobuf.

use serde::Serialize;
use serde::de::{DeserializeOwned, Error as _, Unexpected};

use crate::shape;

/// A message of the API. Implemented for all generated types.
pub trait Wire: prost::Message + Default + Serialize + DeserializeOwned {
    /// The full protobuf name.
    const NAME: &'static str;
    /// Its place in the table of shapes.
    #[doc(hidden)]
    const SHAPE: usize;
}

/// The two forms a message takes on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MediaType {
    /// `application/json`
    Json,
    /// `application/x-protobuf`
    Protobuf,
}

/// Why bytes are not the message they should be. All of them are a `400 Bad Request` over HTTP.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The text is not JSON, or a field in it has the wrong form or is missing.
    #[error("failed to read the JSON as {message}: {path}{error}")]
    Json {
        /// The message that was expected.
        message: &'static str,
        /// Where in it, ending in ": ", or empty for the top.
        path: String,
        /// What is wrong there.
        error: serde_json::Error,
    },
    /// The bytes are not protobuf.
    #[error("failed to parse the body as the protobuf message {message}: {error}")]
    Protobuf {
        /// The message that was expected.
        message: &'static str,
        /// What is wrong.
        error: prost::DecodeError,
    },
    /// A required field is missing.
    #[error("failed to parse the body as the protobuf message {message}: {error}")]
    Missing {
        /// The message that was expected.
        message: &'static str,
        /// The path of the field, and what is wrong with it.
        error: String,
    },
}

// === impl MediaType ===

impl MediaType {
    /// As it stands in `Content-Type` and `Accept`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            MediaType::Json => "application/json",
            MediaType::Protobuf => "application/x-protobuf",
        }
    }
}

/// Reads one message.
///
/// # Errors
/// When the bytes are not that message, or a required field is missing; the error says which.
pub fn decode<M: Wire>(media: MediaType, bytes: &[u8]) -> Result<M, DecodeError> {
    match media {
        MediaType::Json => decode_json(bytes),
        MediaType::Protobuf => decode_protobuf(bytes),
    }
}

/// Writes one message.
#[must_use]
pub fn encode<M: Wire>(media: MediaType, message: &M) -> Vec<u8> {
    match media {
        MediaType::Json => encode_json(message),
        MediaType::Protobuf => message.encode_to_vec(),
    }
}

/// Reads one message from JSON.
///
/// # Errors
/// As [`decode`].
pub fn decode_json<M: Wire>(bytes: &[u8]) -> Result<M, DecodeError> {
    // serde would take a list for the fields in their order.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        let error = serde_json::Error::invalid_type(Unexpected::Seq, &"an object");
        return Err(DecodeError::Json { message: M::NAME, path: String::new(), error });
    }
    if let Ok(message) = serde_json::from_slice(bytes) {
        return Ok(message);
    }
    // Only a failure pays for knowing where it was.
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let tracked = serde_path_to_error::deserialize::<_, M>(&mut reader);
    let (path, error) = match tracked {
        Err(error) => (error.path().to_string(), error.into_inner()),
        Ok(message) => match reader.end() {
            Ok(()) => return Ok(message),
            Err(error) => (String::from("."), error),
        },
    };
    let path = if path == "." { String::new() } else { format!("{path}: ") };
    Err(DecodeError::Json { message: M::NAME, path, error })
}

/// Reads one message from protobuf.
///
/// # Errors
/// As [`decode`].
pub fn decode_protobuf<M: Wire>(bytes: &[u8]) -> Result<M, DecodeError> {
    let message = M::decode(bytes).map_err(|error| DecodeError::Protobuf { message: M::NAME, error })?;
    shape::check(M::SHAPE, bytes).map_err(|error| DecodeError::Missing { message: M::NAME, error })?;
    Ok(message)
}

/// Writes one message, or a list or map of them, as JSON.
///
/// # Panics
/// Never: the keys of our maps are strings and no serializer of ours fails.
#[must_use]
#[expect(clippy::expect_used, reason = "writing to memory cannot fail and map keys are strings")]
pub fn encode_json<M: Serialize>(message: &M) -> Vec<u8> {
    serde_json::to_vec(message).expect("generated messages always serialize")
}
