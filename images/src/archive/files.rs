//! The files of an archive, whether it is a tar, a compressed tar or a directory.
//!
//! A tar is read once to learn where each file is; from then on files are read from their places, by several
//! threads at once if need be. A compressed tar is first written out plain to a nameless file.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::error::Error;
use crate::unpack::compression::Inflated;
use crate::unpack::tar::{Kind, TarReader};

/// No image needs more: a layer has three files at most, and there are 500 layers at most.
const MAX_FILES: usize = 100_000;

/// Links from file to file, as old `docker save` made them for repeated layers.
const MAX_LINKS: usize = 8;

/// The files of one archive.
pub(super) enum Files {
    Tar { file: Arc<File>, index: HashMap<String, Indexed> },
    Directory(PathBuf),
}

pub(super) enum Indexed {
    At { offset: u64, size: u64 },
    LinkTo(String),
}

/// One file that was found.
#[derive(Debug, Clone)]
pub(super) enum Member {
    Range { offset: u64, size: u64 },
    Path { path: PathBuf, size: u64 },
}

// === impl Files ===

impl Files {
    pub(super) fn open(path: &Path, scratch: &Path, max_bytes: u64) -> Result<Self, Error> {
        let metadata = std::fs::metadata(path).map_err(Error::io("look at", path))?;
        if metadata.is_dir() {
            return Ok(Self::Directory(path.to_owned()));
        }
        let refuse = |reason: String| Error::Archive { path: path.to_owned(), reason };
        let file = File::open(path).map_err(Error::io("open", path))?;
        let inflated = Inflated::new(&file).map_err(|error| refuse(error.to_string()))?;
        let plain = if inflated.is_compressed() {
            spool(inflated, scratch, max_bytes)
                .map_err(|error| refuse(format!("it cannot be inflated: {error}")))?
        } else {
            drop(inflated);
            file
        };
        let index = index(&plain).map_err(refuse)?;
        Ok(Self::Tar { file: Arc::new(plain), index })
    }

    /// The file of this name, through links inside the archive.
    pub(super) fn find(&self, name: &str) -> Option<Member> {
        let mut name = normal(Path::new(name))?;
        match self {
            Self::Directory(directory) => {
                let path = directory.join(&name);
                let metadata = std::fs::metadata(&path).ok().filter(std::fs::Metadata::is_file)?;
                Some(Member::Path { path, size: metadata.len() })
            }
            Self::Tar { index, .. } => {
                for _ in 0..MAX_LINKS {
                    match index.get(&name)? {
                        Indexed::At { offset, size } => {
                            return Some(Member::Range { offset: *offset, size: *size });
                        }
                        Indexed::LinkTo(target) => name.clone_from(target),
                    }
                }
                None
            }
        }
    }

    pub(super) fn open_member(&self, member: &Member) -> io::Result<Box<dyn Read + Send>> {
        match (self, member) {
            (_, Member::Path { path, .. }) => Ok(Box::new(File::open(path)?)),
            (Self::Tar { file, .. }, Member::Range { offset, size }) => {
                Ok(Box::new(RangeReader { file: file.clone(), offset: *offset, left: *size }))
            }
            (Self::Directory(_), Member::Range { .. }) => Err(io::Error::other("a range of a directory")),
        }
    }
}

// === impl Member ===

impl Member {
    /// In bytes.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Range { size, .. } | Self::Path { size, .. } => *size,
        }
    }
}

/// Writes the plain form into a file without a name, which goes away with its last user.
fn spool(inflated: impl Read, scratch: &Path, max_bytes: u64) -> io::Result<File> {
    let mut file = tempfile::tempfile_in(scratch)?;
    let copied = io::copy(&mut inflated.take(max_bytes.saturating_add(1)), &mut file)?;
    if copied > max_bytes {
        return Err(io::Error::other(format!("it has more than {max_bytes} bytes unpacked")));
    }
    file.flush()?;
    Ok(file)
}

fn index(mut file: &File) -> Result<HashMap<String, Indexed>, String> {
    file.rewind().map_err(|error| error.to_string())?;
    let mut reader = TarReader::new(BufReader::with_capacity(256 << 10, file));
    let mut index = HashMap::new();
    while let Some(entry) = reader.next_entry().map_err(|error| error.to_string())? {
        let path = PathBuf::from(String::from_utf8_lossy(&entry.path).into_owned());
        let Some(name) = normal(&path) else { continue };
        let indexed = match entry.kind {
            Kind::File { size } => Indexed::At { offset: reader.position(), size },
            Kind::Symlink { target } => match path
                .parent()
                .and_then(|parent| normal(&parent.join(&*String::from_utf8_lossy(&target))))
            {
                Some(target) => Indexed::LinkTo(target),
                None => continue,
            },
            Kind::HardLink { target } => match normal(Path::new(&*String::from_utf8_lossy(&target))) {
                Some(target) => Indexed::LinkTo(target),
                None => continue,
            },
            _ => continue,
        };
        // Two readers could take two files of one name for the image.
        if let Some(before) = index.insert(name.clone(), indexed)
            && (matches!(before, Indexed::At { .. }) && matches!(index[&name], Indexed::At { .. }))
        {
            return Err(format!("it has two files of the name '{name}'"));
        }
        if index.len() > MAX_FILES {
            return Err(format!("it has more than {MAX_FILES} files"));
        }
    }
    Ok(index)
}

/// The path without `.` and `..`, or `None` if it leads out of the archive or nowhere.
fn normal(path: &Path) -> Option<String> {
    let mut components: Vec<&str> = Vec::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(name) => components.push(name.to_str()?),
            Component::ParentDir => {
                components.pop()?;
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    (!components.is_empty()).then(|| components.join("/"))
}

/// Reads part of a file without moving its position, which others use too.
struct RangeReader {
    file: Arc<File>,
    offset: u64,
    left: u64,
}

impl Read for RangeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        let read = self.file.read_at(&mut buffer[..want], self.offset)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}
