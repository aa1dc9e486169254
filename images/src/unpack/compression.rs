//! Inflates a stream by what its first bytes say, whatever its name or media type says, as Docker does.

use std::io::{self, BufReader, Cursor, Read};

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;

/// Bytes buffered before a decoder.
const BUFFER: usize = 64 << 10;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const BZIP2: &[u8] = b"BZh";
const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];

/// The most memory that xz may take, in KiB: what `xz -9` needs, four times. A header can ask for 4 GiB.
const XZ_MEMORY: u32 = 256 << 10;

type Peeked<R> = BufReader<io::Chain<Cursor<Vec<u8>>, R>>;

/// A stream that is plain, whatever it was before.
pub(crate) enum Inflated<R: Read> {
    Plain(Peeked<R>),
    Gzip(Box<MultiGzDecoder<Peeked<R>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, Peeked<R>>>),
    Bzip2(Box<MultiBzDecoder<Peeked<R>>>),
    Xz(Box<XzReader<Peeked<R>>>),
}

impl<R: Read> Inflated<R> {
    /// Looks at the beginning of an image's `input` and chooses a decoder.
    ///
    /// # Errors
    /// When reading fails, and for bzip2 and xz, which image formats do not allow.
    pub(crate) fn new(input: R) -> io::Result<Self> {
        let inflated = Self::of_any_kind(input)?;
        match inflated {
            Self::Bzip2(_) | Self::Xz(_) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "it is compressed by bzip2 or xz; gzip, zstd or no compression is expected",
            )),
            allowed => Ok(allowed),
        }
    }

    /// The same with bzip2 and xz.
    ///
    /// # Errors
    /// When reading fails.
    pub(crate) fn of_any_kind(mut input: R) -> io::Result<Self> {
        let mut start = Vec::with_capacity(8);
        input.by_ref().take(6).read_to_end(&mut start)?;
        let is = |magic: &[u8]| start.starts_with(magic);
        let (gzip, zstd, bzip2, xz) = (is(GZIP), is(ZSTD), is(BZIP2), is(XZ));
        let peeked = BufReader::with_capacity(BUFFER, Cursor::new(start).chain(input));
        Ok(if gzip {
            Self::Gzip(Box::new(MultiGzDecoder::new(peeked)))
        } else if zstd {
            Self::Zstd(Box::new(zstd::stream::read::Decoder::with_buffer(peeked)?))
        } else if bzip2 {
            Self::Bzip2(Box::new(MultiBzDecoder::new(peeked)))
        } else if xz {
            Self::Xz(Box::new(XzReader::new_mem_limit(peeked, true, XZ_MEMORY)))
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
            Self::Bzip2(decoder) => decoder.into_inner(),
            Self::Xz(decoder) => decoder.into_inner(),
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
            Self::Bzip2(reader) => reader.read(buffer),
            Self::Xz(reader) => reader.read(buffer),
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
