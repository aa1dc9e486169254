//! RecordIO: each record is its length in decimal digits, a newline, and that many bytes.
//!
//! Mesos' streaming format, used for event streams and for attaching to containers. [`Decoder`] takes
//! chunks of any size as they come off a socket and gives back whole records.

use bytes::{Buf, Bytes, BytesMut};

/// A record longer than this is refused, so that a wrong length cannot exhaust memory. Larger than
/// the whole state of the largest cluster that is promised.
pub const MAX_RECORD: usize = 1 << 30;

/// Digits a length can have: those of [`MAX_RECORD`].
const MAX_DIGITS: usize = 10;

/// Why a stream is not RecordIO. The stream cannot be read further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Something other than digits before the newline.
    #[error("a record must begin with its length in decimal digits and a newline, but there was {0:?}")]
    Length(String),
    /// Longer than is allowed.
    #[error("a record of {0} bytes is longer than the {MAX_RECORD} that are allowed")]
    TooLong(u64),
}

/// Writes one record.
#[must_use]
pub fn encode(record: &[u8]) -> Bytes {
    let length = record.len().to_string();
    let mut out = BytesMut::with_capacity(length.len() + 1 + record.len());
    out.extend_from_slice(length.as_bytes());
    out.extend_from_slice(b"\n");
    out.extend_from_slice(record);
    out.freeze()
}

/// Cuts a stream of bytes into records.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
    /// How long the record is whose length has been read.
    expected: Option<usize>,
}

// === impl Decoder ===

impl Decoder {
    /// A decoder at the beginning of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes wait to become a record.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next whole record, or `None` until more bytes came.
    ///
    /// # Errors
    /// When the stream is not RecordIO; every later call then fails alike.
    pub fn next_record(&mut self) -> Result<Option<Bytes>, RecordError> {
        let length = match self.expected {
            Some(length) => length,
            None => match self.read_length()? {
                Some(length) => length,
                None => return Ok(None),
            },
        };
        if self.buffer.len() < length {
            self.expected = Some(length);
            return Ok(None);
        }
        self.expected = None;
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// Whether the stream may end here: no record has been begun.
    #[must_use]
    pub fn is_between_records(&self) -> bool {
        self.buffer.is_empty() && self.expected.is_none()
    }

    fn read_length(&mut self) -> Result<Option<usize>, RecordError> {
        let head = &self.buffer[..self.buffer.len().min(MAX_DIGITS + 1)];
        let Some(end) = head.iter().position(|b| *b == b'\n') else {
            let whole = head.len() > MAX_DIGITS || head.iter().any(|b| !b.is_ascii_digit());
            return if whole { Err(bad_length(head)) } else { Ok(None) };
        };
        let digits = &head[..end];
        if digits.is_empty() || digits.iter().any(|b| !b.is_ascii_digit()) {
            return Err(bad_length(digits));
        }
        // At most ten digits, so it fits.
        let length = digits.iter().fold(0u64, |n, b| n * 10 + u64::from(b - b'0'));
        let Some(fits) = usize::try_from(length).ok().filter(|n| *n <= MAX_RECORD) else {
            return Err(RecordError::TooLong(length));
        };
        self.buffer.advance(end + 1);
        Ok(Some(fits))
    }
}

fn bad_length(head: &[u8]) -> RecordError {
    RecordError::Length(String::from_utf8_lossy(head).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_length_must_be_digits() {
        for bad in ["x\n", "-1\n", "\n", " 5\nhello", "12345678901\n"] {
            let mut decoder = Decoder::new();
            decoder.push(bad.as_bytes());
            assert!(matches!(decoder.next_record(), Err(RecordError::Length(_))), "{bad:?}");
        }
        let mut decoder = Decoder::new();
        decoder.push(b"9999999999\n");
        assert_eq!(decoder.next_record(), Err(RecordError::TooLong(9_999_999_999)));
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_records_back(
            records in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20),
            cuts in proptest::collection::vec(1usize..40, 1..60),
        ) {
            let stream: Vec<u8> = records.iter().flat_map(|r| encode(r).to_vec()).collect();
            let mut decoder = Decoder::new();
            let mut got = Vec::new();
            let (mut at, mut cut) = (0, 0);
            while at < stream.len() {
                let end = (at + cuts[cut % cuts.len()]).min(stream.len());
                decoder.push(&stream[at..end]);
                while let Some(record) = decoder.next_record().unwrap() {
                    got.push(record.to_vec());
                }
                at = end;
                cut += 1;
            }
            prop_assert_eq!(got, records);
            prop_assert!(decoder.is_between_records());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::new();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next_record() {}
        }
    }
}
