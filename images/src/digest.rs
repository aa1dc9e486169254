//! Content digests, `sha256:<hex>` and `sha512:<hex>`, and readers that compute them on the way.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha512};

/// The digest of some content, in the text form of the OCI image specification.
///
/// Only registered algorithms (`sha256`, `sha512`) in lower-case hexadecimal of the right length
/// are digests, so the text is safe as a file name and in a URL.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest {
    text: String,
}

/// Why a text is not a digest.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{text}' is not a digest; one looks like sha256: and 64 hexadecimal digits, or sha512: and 128")]
pub struct DigestError {
    text: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Sha256,
    Sha512,
}

// === impl Digest ===

impl Digest {
    /// The SHA-256 digest of `content`.
    pub fn of(content: &[u8]) -> Self {
        let mut hasher = Hasher::sha256();
        hasher.update(content);
        hasher.finish()
    }

    /// The whole text, `sha256:…`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The hexadecimal part.
    pub fn hex(&self) -> &str {
        self.text.split_once(':').map_or("", |(_, hex)| hex)
    }

    /// The algorithm's name, `sha256` or `sha512`.
    pub fn algorithm(&self) -> &str {
        self.text.split_once(':').map_or("", |(name, _)| name)
    }

    /// A hasher of the same algorithm.
    pub(crate) fn hasher(&self) -> Hasher {
        match self.kind() {
            Algorithm::Sha256 => Hasher::sha256(),
            Algorithm::Sha512 => Hasher::Sha512(Sha512::new()),
        }
    }

    /// Whether `content` has this digest.
    pub(crate) fn matches(&self, content: &[u8]) -> bool {
        let mut hasher = self.hasher();
        hasher.update(content);
        hasher.finish() == *self
    }

    fn kind(&self) -> Algorithm {
        if self.text.starts_with("sha512:") { Algorithm::Sha512 } else { Algorithm::Sha256 }
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let refused = || DigestError { text: text.chars().take(160).collect() };
        let (algorithm, hex) = text.split_once(':').ok_or_else(refused)?;
        let length = match algorithm {
            "sha256" => 64,
            "sha512" => 128,
            _ => return Err(refused()),
        };
        let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if hex.len() != length || !hex.bytes().all(lower_hex) {
            return Err(refused());
        }
        Ok(Self { text: text.to_owned() })
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.text
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A digest in the making.
#[derive(Clone)]
pub(crate) enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    pub(crate) fn sha256() -> Self {
        Self::Sha256(Sha256::new())
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    pub(crate) fn finish(self) -> Digest {
        let (name, bytes) = match self {
            Self::Sha256(hasher) => ("sha256", hasher.finalize().to_vec()),
            Self::Sha512(hasher) => ("sha512", hasher.finalize().to_vec()),
        };
        let mut text = String::with_capacity(name.len() + 1 + 2 * bytes.len());
        text.push_str(name);
        text.push(':');
        for byte in bytes {
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }));
            }
        }
        Digest { text }
    }
}

/// Hashes and counts all that is read through it.
pub(crate) struct HashingReader<R> {
    inner: R,
    hasher: Hasher,
    count: u64,
}

impl<R: Read> HashingReader<R> {
    pub(crate) fn new(inner: R, hasher: Hasher) -> Self {
        Self { inner, hasher, count: 0 }
    }

    /// The digest and number of the bytes read so far.
    pub(crate) fn finish(self) -> (Digest, u64) {
        (self.hasher.finish(), self.count)
    }

    /// The reader below, and the digest and number of the bytes read so far.
    pub(crate) fn into_parts(self) -> (R, Digest, u64) {
        (self.inner, self.hasher.finish(), self.count)
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.count += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_empty_content_has_its_well_known_digest() {
        let digest = Digest::of(b"");
        assert_eq!(
            digest.as_str(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(digest.algorithm(), "sha256");
        assert_eq!(digest.hex().len(), 64);
    }

    #[test]
    fn only_registered_algorithms_in_lower_case_are_digests() {
        let upper = Digest::of(b"x").as_str().to_uppercase();
        for text in [
            "",
            "sha256:",
            "sha256:ab",
            "md5:d41d8cd98f00b204e9800998ecf8427e",
            "sha256:../../etc/passwd",
            upper.as_str(),
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
        let long = format!("sha512:{}", "0".repeat(128)).parse::<Digest>().unwrap();
        assert!(!long.matches(b"something"));
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_prints_what_it_read(text in ".{0,200}") {
            if let Ok(digest) = text.parse::<Digest>() {
                prop_assert_eq!(digest.to_string(), text);
            }
        }

        #[test]
        fn a_reader_hashes_what_passes_through_it(content in proptest::collection::vec(any::<u8>(), 0..4096)) {
            let mut reader = HashingReader::new(content.as_slice(), Hasher::sha256());
            let mut copy = Vec::new();
            reader.read_to_end(&mut copy).unwrap();
            let (digest, count) = reader.finish();
            prop_assert!(digest.matches(&content));
            prop_assert_eq!(count, content.len() as u64);
            prop_assert_eq!(copy, content);
        }
    }
}
