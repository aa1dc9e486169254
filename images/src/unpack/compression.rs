//! Inflates a layer by what its first bytes say, whatever its media type says, as Docker does.

use std::io::{self, BufReader, Cursor, Read};

use flate2::bufread::MultiGzDecoder;

/// Bytes buffered before a decoder.
const BUFFER: usize = 64 << 10;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const BZIP2: &[u8] = b"BZh";
const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];

type Peeked<R> = BufReader<io::Chain<Cursor<Vec<u8>>, R>>;

/// A stream that is plain, whatever it was before.
pub(crate) enum Inflated<R: Read> {
    Plain(Peeked<R>),
    Gzip(Box<MultiGzDecoder<Peeked<R>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, Peeked<R>>>),
}

impl<R: Read> Inflated<R> {
    /// Looks at the beginning of `input` and chooses a decoder.
    ///
    /// # Errors
    /// When reading fails, and for bzip2 and xz, which image formats do not allow.
    pub(crate) fn new(mut input: R) -> io::Result<Self> {
        let mut start = Vec::with_capacity(8);
        input.by_ref().take(6).read_to_end(&mut start)?;
        if start.starts_with(BZIP2) || start.starts_with(XZ) {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "it is compressed by bzip2 or xz; gzip, zstd or no compression is expected",
            ));
        }
        let (gzip, zstd) = (start.starts_with(GZIP), start.starts_with(ZSTD));
        let peeked = BufReader::with_capacity(BUFFER, Cursor::new(start).chain(input));
        Ok(if gzip {
            Self::Gzip(Box::new(MultiGzDecoder::new(peeked)))
        } else if zstd {
            Self::Zstd(Box::new(zstd::stream::read::Decoder::with_buffer(peeked)?))
        } else {
            Self::Plain(peeked)
        })
    }

    /// Whether the stream needed inflating.
    pub(crate) fn is_compressed(&self) -> bool {
        !matches!(self, Self::Plain(_))
    }

    /// The compressed stream below.
    pub(crate) fn into_inner(self) -> R {
        let peeked = match self {
            Self::Plain(peeked) => peeked,
            Self::Gzip(decoder) => decoder.into_inner(),
            Self::Zstd(decoder) => decoder.finish(),
        };
        peeked.into_inner().into_inner().1
    }
}

impl<R: Read> Read for Inflated<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(reader) => reader.read(buffer),
            Self::Gzip(reader) => reader.read(buffer),
            Self::Zstd(reader) => reader.read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn inflate(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        Inflated::new(bytes)?.read_to_end(&mut plain)?;
        Ok(plain)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn all_compressions_are_recognised() {
        let plain = b"some plain text, long enough".to_vec();
        assert_eq!(inflate(&plain).unwrap(), plain);
        assert_eq!(inflate(&gzip(&plain)).unwrap(), plain);
        assert_eq!(inflate(&zstd::encode_all(plain.as_slice(), 1).unwrap()).unwrap(), plain);
        // Several gzip members one after another, as pigz and estargz write them.
        assert_eq!(inflate(&[gzip(b"a"), gzip(b"b")].concat()).unwrap(), b"ab");
        assert_eq!(inflate(b"").unwrap(), b"");
        assert_eq!(inflate(b"ab").unwrap(), b"ab");
    }

    #[test]
    fn truncated_and_forbidden_compressions_are_errors() {
        let compressed = gzip(&[1; 10_000]);
        assert!(inflate(&compressed[..compressed.len() - 9]).is_err());
        assert!(inflate(b"BZh91AY").unwrap_err().to_string().contains("gzip"));
    }
}
