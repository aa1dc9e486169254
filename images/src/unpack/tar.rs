//! A reader of tar streams that trusts nothing in them.
//!
//! Ustar, GNU and PAX archives as layers and `docker save` use them. Names, links and values are
//! bytes; extension records are read into memory only up to a limit; a size is believed only as far
//! as bytes follow. Written by hand because the common reader takes extension records of any size
//! into memory, and splits binary PAX values (such as file capabilities) at newlines.

use std::io::{self, Read};
use std::ops::Range;

use super::UnpackError;

const BLOCK: usize = 512;

// A header block's fields, by POSIX' pax specification.
const NAME: Range<usize> = 0..100;
const MODE: Range<usize> = 100..108;
const UID: Range<usize> = 108..116;
const GID: Range<usize> = 116..124;
const SIZE: Range<usize> = 124..136;
const MTIME: Range<usize> = 136..148;
const CHECKSUM: Range<usize> = 148..156;
const TYPE: usize = 156;
const LINK: Range<usize> = 157..257;
const MAGIC: Range<usize> = 257..263;
const MAJOR: Range<usize> = 329..337;
const MINOR: Range<usize> = 337..345;
const PREFIX: Range<usize> = 345..500;

/// The most that one member's extension records (PAX headers, GNU long names) may hold together, in bytes; Go's
/// limit for each.
const MAX_EXTENSION: u64 = 1 << 20;

/// One member of an archive, extensions applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The name as it is in the archive.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) modified: Time,
    /// Extended attributes, by name.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What a member is, with what only such a member has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    File { size: u64 },
    Directory,
    Symlink { target: Vec<u8> },
    HardLink { target: Vec<u8> },
    Fifo,
    CharDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
}

/// Seconds and nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanos: u32,
}

/// Reads members one after another.
pub(crate) struct TarReader<R> {
    input: R,
    /// Bytes of the current member's content that were not read yet.
    content_left: u64,
    /// Bytes that fill the current member's last block.
    padding: u64,
    /// Bytes consumed of the stream.
    position: u64,
    finished: bool,
}

/// One header block.
struct Header {
    block: [u8; BLOCK],
}

/// What extension headers say about the member after them.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    modified: Option<Time>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

// === impl TarReader ===

impl<R: Read> TarReader<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, content_left: 0, padding: 0, position: 0, finished: false }
    }

    /// The next member, or `None` at the archive's end. Content not read before is passed over.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, UnpackError> {
        self.skip_content()?;
        let mut extensions = Extensions::default();
        let mut extension_bytes = 0;
        while let Some(header) = self.next_header()? {
            let kind = header.kind();
            if !matches!(kind, b'x' | b'g' | b'L' | b'K') {
                return self.member(&header, extensions).map(Some);
            }
            let size = header
                .number(SIZE)
                .and_then(|size| u64::try_from(size).ok())
                .ok_or_else(|| malformed("a header has no valid size"))?;
            extension_bytes += size.min(MAX_EXTENSION + 1);
            if extension_bytes > MAX_EXTENSION {
                return Err(malformed("a member's extension headers are larger than 1 MiB"));
            }
            let content = self.read_extension(size)?;
            match kind {
                b'x' => extensions.apply_pax(&content)?,
                b'L' => extensions.path = Some(until_nul(&content).to_vec()),
                b'K' => extensions.link = Some(until_nul(&content).to_vec()),
                // Global headers (git archive writes one) say nothing that a layer needs; Docker ignores them too.
                _ => {}
            }
        }
        Ok(None)
    }

    /// Where the current member's content begins in the stream, in bytes.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The stream below, to read what follows the archive's end.
    pub(crate) fn into_inner(self) -> R {
        self.input
    }

    fn member(&mut self, header: &Header, extensions: Extensions) -> Result<Entry, UnpackError> {
        let path = extensions.path.unwrap_or_else(|| header.path());
        let wrong = |what: &str| malformed_name(&format!("has no valid {what}"), &path);
        let unsigned = |extended: Option<u64>, field, what| {
            extended
                .or_else(|| header.number(field).and_then(|number| u64::try_from(number).ok()))
                .ok_or_else(|| wrong(what))
        };
        let narrow = |extended, field, what| {
            unsigned(extended, field, what).and_then(|number| u32::try_from(number).map_err(|_| wrong(what)))
        };
        let link =
            |extended: Option<Vec<u8>>| extended.unwrap_or_else(|| until_nul(header.field(LINK)).to_vec());
        let kind = match header.kind() {
            // Before POSIX a directory was a file whose name ends in a slash.
            b'0' | 0 | b'7' if path.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' => Kind::File { size: unsigned(extensions.size, SIZE, "size")? },
            b'1' => Kind::HardLink { target: link(extensions.link) },
            b'2' => Kind::Symlink { target: link(extensions.link) },
            b'3' => Kind::CharDevice {
                major: narrow(None, MAJOR, "device number")?,
                minor: narrow(None, MINOR, "device number")?,
            },
            b'4' => Kind::BlockDevice {
                major: narrow(None, MAJOR, "device number")?,
                minor: narrow(None, MINOR, "device number")?,
            },
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'S' => return Err(malformed_name("is stored as a sparse file, which is not supported", &path)),
            other => {
                return Err(malformed_name(
                    &format!("is of the unknown type {:?}", char::from(other)),
                    &path,
                ));
            }
        };
        // Only files have content, but some writers give other members a size (a hard link that of its file) without content.
        self.begin_content(match kind {
            Kind::File { size } => size,
            _ => 0,
        });
        let seconds = || header.number(MTIME).ok_or_else(|| wrong("time"));
        let modified = match extensions.modified {
            Some(time) => time,
            None => Time { seconds: seconds()?, nanos: 0 },
        };
        let owner = |extended, field| {
            narrow(extended, field, "owner")
                .and_then(|id| if id == u32::MAX { Err(wrong("owner")) } else { Ok(id) })
        };
        let (uid, gid) = (owner(extensions.uid, UID)?, owner(extensions.gid, GID)?);
        Ok(Entry {
            kind,
            mode: narrow(None, MODE, "mode")? & 0o7777,
            uid,
            gid,
            modified,
            xattrs: extensions.xattrs,
            path,
        })
    }

    /// The next header block, or `None` at the end: two blocks of zeros by the book, one or none in practice.
    fn next_header(&mut self) -> Result<Option<Header>, UnpackError> {
        if self.finished {
            return Ok(None);
        }
        let mut block = [0; BLOCK];
        let filled = self.fill(&mut block)?;
        if filled == 0 || block.iter().all(|byte| *byte == 0) {
            self.finished = true;
            return Ok(None);
        }
        if filled < BLOCK {
            return Err(malformed("it ends within a header"));
        }
        let header = Header { block };
        if !header.has_right_checksum() {
            return Err(malformed("a header's checksum is wrong"));
        }
        Ok(Some(header))
    }

    fn read_extension(&mut self, size: u64) -> Result<Vec<u8>, UnpackError> {
        self.begin_content(size);
        let mut content = Vec::new();
        self.by_ref().take(size).read_to_end(&mut content).map_err(UnpackError::Stream)?;
        self.skip_content()?;
        Ok(content)
    }

    fn begin_content(&mut self, size: u64) {
        self.content_left = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    /// Goes to the next header. The stream may end within padding, as it does for Go's reader: umoci's layers end with
    /// their last byte of content.
    fn skip_content(&mut self) -> Result<(), UnpackError> {
        let content = std::mem::take(&mut self.content_left);
        if self.skip(content)? < content {
            return Err(malformed("it ends within a member"));
        }
        let padding = std::mem::take(&mut self.padding);
        self.skip(padding)?;
        Ok(())
    }

    /// Passes over so many bytes, or as many as there are, and says how many.
    fn skip(&mut self, bytes: u64) -> Result<u64, UnpackError> {
        let mut left = bytes;
        let mut scratch = [0; 8192];
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(scratch.len());
            let filled = self.fill(&mut scratch[..want])?;
            left -= filled as u64;
            if filled < want {
                break;
            }
        }
        Ok(bytes - left)
    }

    /// Reads until the buffer is full or the stream ends.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, UnpackError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.input.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(UnpackError::Stream(error)),
            }
        }
        self.position += filled as u64;
        Ok(filled)
    }
}

/// Reads the current member's content.
impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.content_left).unwrap_or(usize::MAX).min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        let read = self.input.read(&mut buffer[..want])?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends within a member"));
        }
        self.content_left -= read as u64;
        self.position += read as u64;
        Ok(read)
    }
}

// === impl Header ===

impl Header {
    fn field(&self, range: Range<usize>) -> &[u8] {
        &self.block[range]
    }

    fn kind(&self) -> u8 {
        self.block[TYPE]
    }

    fn path(&self) -> Vec<u8> {
        let name = until_nul(self.field(NAME));
        let prefix = until_nul(self.field(PREFIX));
        // GNU's magic ends in a space, and uses the prefix's bytes for other things.
        if self.field(MAGIC) != b"ustar\0" || prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    /// Octal digits between blanks; or, when the first bit is set, a big-endian two's complement number (GNU).
    fn number(&self, range: Range<usize>) -> Option<i64> {
        let field = self.field(range);
        if field[0] & 0x80 != 0 {
            let first =
                if field[0] & 0x40 != 0 { i64::from(field[0]) - 0x100 } else { i64::from(field[0] & 0x7f) };
            return field[1..]
                .iter()
                .try_fold(first, |number, byte| number.checked_mul(256)?.checked_add(i64::from(*byte)));
        }
        let digits = std::str::from_utf8(until_nul(field)).ok()?.trim_matches(' ');
        if digits.is_empty() {
            Some(0)
        } else {
            i64::from_str_radix(digits, 8).ok().filter(|number| *number >= 0)
        }
    }

    /// The sum of all bytes with the checksum's own taken as blanks; old writers added signed bytes.
    fn has_right_checksum(&self) -> bool {
        let bytes = || {
            self.block
                .iter()
                .enumerate()
                .map(|(index, byte)| if CHECKSUM.contains(&index) { b' ' } else { *byte })
        };
        let unsigned: i64 = bytes().map(i64::from).sum();
        let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
        self.number(CHECKSUM).is_some_and(|sum| sum == unsigned || sum == signed)
    }
}

// === impl Extensions ===

impl Extensions {
    /// Applies PAX records: `LENGTH KEY=VALUE\n`, where the length counts itself and a value may hold any byte.
    fn apply_pax(&mut self, mut records: &[u8]) -> Result<(), UnpackError> {
        while !records.is_empty() {
            let (record, rest) =
                split_record(records).ok_or_else(|| malformed("a PAX record's length is wrong"))?;
            records = rest;
            let (key, value) =
                split_once(record, b'=').ok_or_else(|| malformed("a PAX record has no '='"))?;
            self.apply_record(key, value)?;
        }
        Ok(())
    }

    fn apply_record(&mut self, key: &[u8], value: &[u8]) -> Result<(), UnpackError> {
        let number = || {
            std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse::<u64>().ok())
                .ok_or_else(|| malformed("a PAX record's number is wrong"))
        };
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(number()?),
            b"uid" => self.uid = Some(number()?),
            b"gid" => self.gid = Some(number()?),
            b"mtime" => {
                self.modified =
                    Some(parse_time(value).ok_or_else(|| malformed("a PAX record's time is wrong"))?)
            }
            _ if key.starts_with(b"GNU.sparse.") => {
                return Err(malformed("it holds sparse files, which are not supported"));
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.")
                    && !name.is_empty()
                {
                    self.xattrs.retain(|(known, _)| known != name);
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

fn split_record(records: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = records.iter().take(20).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
    if length > records.len() || length < space + 2 || records[length - 1] != b'\n' {
        return None;
    }
    Some((&records[space + 1..length - 1], &records[length..]))
}

fn split_once(bytes: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|byte| *byte == separator)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

/// Decimal seconds with an optional fraction, possibly before 1970.
fn parse_time(value: &[u8]) -> Option<Time> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let nanos: u32 = format!("{:0<9.9}", fraction).parse().ok()?;
    if whole.starts_with('-') && nanos > 0 {
        return Some(Time { seconds: seconds.checked_sub(1)?, nanos: 1_000_000_000 - nanos });
    }
    Some(Time { seconds, nanos })
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn malformed(reason: &str) -> UnpackError {
    UnpackError::Malformed { reason: reason.to_owned() }
}

fn malformed_name(reason: &str, path: &[u8]) -> UnpackError {
    UnpackError::Malformed { reason: format!("'{}' {reason}", String::from_utf8_lossy(path)) }
}

#[cfg(test)]
#[path = "tar_tests.rs"]
mod tests;
