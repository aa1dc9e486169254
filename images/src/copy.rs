//! Copies what an image shows into a directory, for where layers cannot be stacked.
//!
//! All layers are walked at once, and merged as overlayfs merges them: the topmost layer that has a name decides, directories merge,
//! whiteouts and opaque directories hide what is below. So nothing is copied that is hidden, and nothing that was copied has to be removed
//! again; and whiteouts are followed in the one form that the store keeps them in.
//!
//! Each directory is opened anew from its layer's root, and from that of the copy, by `openat2` with
//! `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`; the last component is only ever handed to calls that do not follow symbolic links. So no layer
//! leads outside, and a tree of any depth takes no more open files than there are layers.
//!
//! Kept are kinds, contents, owners, modes, extended attributes, times, and hard links of one layer. A directory gets its own when all is
//! made in it, as that would change its time, and its default access list that of its members.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstat, fstatat, futimens,
    mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat, linkat, symlinkat};
use xattr::FileExt as _;

use crate::rootfs::RootFs;
use crate::unpack::{is_wanted_xattr, open_beneath, tolerate};
use crate::view::is_opaque;

/// Bytes that are copied before somebody may say that they are not wanted any more: a fraction of a second on a slow disk.
const PIECE: u64 = 4 << 20;

/// Why an image could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// Whoever wanted it wants it no more.
    #[error("it was given up")]
    GivenUp,
    /// A file system refused, as one that is full does.
    #[error("cannot {action} '{name}': {source}")]
    Io {
        /// What was to be done.
        action: &'static str,
        /// To what, as the image names it.
        name: String,
        /// Why it failed.
        source: io::Error,
    },
}

/// What was copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// Files, directories and all else.
    pub entries: u64,
    /// Bytes of files.
    pub bytes: u64,
}

/// Copies what these layers show, stacked, into a directory that is there and empty, and that keeps its own owner and mode. Ends soon once
/// `stop` says so. Blocks on the disk.
///
/// # Errors
/// When a layer cannot be read, or the disk refuses. What was copied before stays, and must be thrown away.
pub fn copy_layers(layers: &RootFs, target: &Path, stop: &dyn Fn() -> bool) -> Result<Copied, CopyError> {
    let root = |path: &Path| {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        open(path, flags, Mode::empty()).map_err(failed("open", path.as_os_str().as_bytes()))
    };
    let mut copy = Copy {
        // The layer's own path may be one of the store's links.
        layers: layers.lower().iter().map(|path| root(path)).collect::<Result<_, _>>()?,
        target: root(target)?,
        stop,
        links: HashMap::new(),
        copied: Copied::default(),
    };
    let mut todo = vec![Directory { path: Vec::new(), layers: (0..copy.layers.len()).collect() }];
    while let Some(directory) = todo.pop() {
        copy.fill(&directory, &mut todo)?;
    }
    Ok(copy.copied)
}

struct Copy<'a> {
    /// Topmost first.
    layers: Vec<OwnedFd>,
    target: OwnedFd,
    stop: &'a dyn Fn() -> bool,
    /// Where a file that has several names was copied to first, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
    copied: Copied,
}

/// A directory that is made and still to be filled.
struct Directory {
    /// From the root, without a slash at either end.
    path: Vec<u8>,
    /// The layers that it is made of, topmost first.
    layers: Vec<usize>,
}

/// A layer's part of a directory.
struct Part {
    layer: usize,
    directory: File,
}

/// What a merged directory has under a name.
enum Shown {
    /// A whiteout hides it.
    Nothing,
    Directory {
        /// The layers that it is made of, topmost first.
        layers: Vec<usize>,
        /// Whether nothing of the layers below shows through.
        closed: bool,
    },
    /// Anything else.
    File {
        /// The part that it is in.
        part: usize,
        stat: FileStat,
    },
}

/// Where something is copied to.
struct Place<'a> {
    parent: &'a File,
    name: &'a OsStr,
    /// The whole name.
    full: &'a [u8],
}

// === impl Copy ===

impl Copy<'_> {
    /// Makes all that is in a directory, and notes those of its own for later.
    fn fill(&mut self, at: &Directory, todo: &mut Vec<Directory>) -> Result<(), CopyError> {
        let open = |root| {
            let opened = open_beneath(root, &at.path, OFlag::O_RDONLY | OFlag::O_DIRECTORY);
            opened.map(File::from).map_err(failed("open", &at.path))
        };
        let into = open(&self.target)?;
        let parts =
            at.layers.iter().map(|layer| Ok(Part { layer: *layer, directory: open(&self.layers[*layer])? }));
        let parts = parts.collect::<Result<Vec<_>, CopyError>>()?;
        for (name, shown) in merge(&parts, &at.path)? {
            if (self.stop)() {
                return Err(CopyError::GivenUp);
            }
            let full = join(&at.path, &name);
            let place = Place { parent: &into, name: OsStr::from_bytes(&name), full: &full };
            match shown {
                Shown::Nothing => continue,
                Shown::Directory { layers, .. } => {
                    mkdirat(place.parent, place.name, Mode::S_IRWXU).map_err(failed("create", &full))?;
                    todo.push(Directory { path: full, layers });
                }
                Shown::File { part, stat } => self.add(&parts[part].directory, &stat, &place)?,
            }
            self.copied.entries += 1;
        }
        match parts.first() {
            Some(top) if !at.path.is_empty() => {
                let stat = fstat(&top.directory).map_err(failed("look at", &at.path))?;
                set_metadata(&top.directory, &into, &stat, &at.path)
            }
            // The root's is the caller's affair, as an upper directory's is.
            _ => Ok(()),
        }
    }

    /// Copies anything but a directory.
    fn add(&mut self, from: &File, stat: &FileStat, to: &Place<'_>) -> Result<(), CopyError> {
        if stat.st_nlink > 1 {
            let inode = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&inode)
                && self.link(first, to)?
            {
                return Ok(());
            }
            self.links.insert(inode, to.full.to_vec());
        }
        match kind(stat) {
            SFlag::S_IFREG => self.add_file(from, stat, to),
            SFlag::S_IFLNK => {
                let target = readlinkat(from, to.name).map_err(failed("read the link", to.full))?;
                symlinkat(target.as_os_str(), to.parent, to.name).map_err(failed("create", to.full))?;
                to.set_metadata(from, stat)
            }
            kind => {
                mknodat(to.parent, to.name, kind, Mode::S_IRUSR, stat.st_rdev)
                    .map_err(failed("create", to.full))?;
                to.set_metadata(from, stat)
            }
        }
    }

    /// Makes another name for what was copied before, unless it has as many as the file system allows.
    fn link(&self, first: &[u8], to: &Place<'_>) -> Result<bool, CopyError> {
        let slash = first.iter().rposition(|byte| *byte == b'/');
        let (parent, name) = slash.map_or((&first[..0], first), |at| (&first[..at], &first[at + 1..]));
        let parent = open_beneath(&self.target, parent, OFlag::O_PATH | OFlag::O_DIRECTORY)
            .map_err(failed("open the parent of", first))?;
        match linkat(&parent, OsStr::from_bytes(name), to.parent, to.name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::EMLINK) => Ok(false),
            Err(errno) => Err(failed("link", to.full)(errno)),
        }
    }

    fn add_file(&mut self, from: &File, stat: &FileStat, to: &Place<'_>) -> Result<(), CopyError> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let mut source =
            openat(from, to.name, flags, Mode::empty()).map(File::from).map_err(failed("open", to.full))?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut target = openat(to.parent, to.name, flags, Mode::S_IRUSR | Mode::S_IWUSR)
            .map(File::from)
            .map_err(failed("create", to.full))?;
        self.copy_content(&mut source, &mut target, to.full)?;
        // After the content: writing takes setuid bits and capabilities away.
        set_metadata(&source, &target, stat, to.full)
    }

    /// Has the kernel copy, as the standard library does with files where it can: it shares the blocks where the file system can (as XFS and btrfs can).
    fn copy_content(&mut self, from: &mut File, into: &mut File, name: &[u8]) -> Result<(), CopyError> {
        loop {
            if (self.stop)() {
                return Err(CopyError::GivenUp);
            }
            match io::copy(&mut from.by_ref().take(PIECE), into).map_err(refused("copy", name))? {
                0 => return Ok(()),
                bytes => self.copied.bytes += bytes,
            }
        }
    }
}

/// What all parts of a directory show together. Topmost first.
fn merge(parts: &[Part], path: &[u8]) -> Result<BTreeMap<Vec<u8>, Shown>, CopyError> {
    let mut all: BTreeMap<Vec<u8>, Shown> = BTreeMap::new();
    for (number, Part { layer, directory }) in parts.iter().enumerate() {
        for name in list(directory).map_err(failed("list", path))? {
            let found = all.get_mut(&name);
            if found.as_deref().is_some_and(Shown::is_decided) {
                continue;
            }
            let (component, full) = (OsStr::from_bytes(&name), join(path, &name));
            let stat = fstatat(directory, component, AtFlags::AT_SYMLINK_NOFOLLOW)
                .map_err(failed("look at", &full))?;
            let is_directory = kind(&stat) == SFlag::S_IFDIR;
            // Nothing is below the lowest one.
            let closes = !is_directory
                || number + 1 == parts.len()
                || is_opaque(directory, component).map_err(refused("look at", &full))?;
            match found {
                Some(Shown::Directory { layers, closed }) => {
                    *closed = closes;
                    // A whiteout, or a file, is hidden itself, and hides what is below.
                    if is_directory {
                        layers.push(*layer);
                    }
                }
                _ if is_directory => {
                    all.insert(name, Shown::Directory { layers: vec![*layer], closed: closes });
                }
                _ if kind(&stat) == SFlag::S_IFCHR && stat.st_rdev == 0 => {
                    all.insert(name, Shown::Nothing);
                }
                _ => {
                    all.insert(name, Shown::File { part: number, stat });
                }
            }
        }
    }
    Ok(all)
}

// === impl Shown ===

impl Shown {
    /// Whether what layers below have makes no difference.
    fn is_decided(&self) -> bool {
        !matches!(self, Self::Directory { closed: false, .. })
    }
}

// === impl Place ===

impl Place<'_> {
    /// Owner, mode, attributes and times of what cannot be opened, in the order in which none undoes another.
    fn set_metadata(&self, from: &File, stat: &FileStat) -> Result<(), CopyError> {
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        fchownat(self.parent, self.name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(failed("set the owner of", self.full))?;
        if kind(stat) != SFlag::S_IFLNK {
            // Just made, and no symbolic link: following is harmless, and not following is not supported before Linux 6.6.
            let mode = Mode::from_bits_truncate(stat.st_mode);
            fchmodat(self.parent, self.name, mode, FchmodatFlags::FollowSymlink)
                .map_err(failed("set the mode of", self.full))?;
        }
        // The parents can be opened, and these calls do not follow the last component.
        let [source, target] = [from, self.parent]
            .map(|parent| PathBuf::from(format!("/proc/self/fd/{}", parent.as_raw_fd())).join(self.name));
        let names = none_if_unsupported(xattr::list(&source));
        for name in names.map_err(refused("list the attributes of", self.full))?.into_iter().flatten() {
            if !is_wanted_xattr(name.as_bytes()) {
                continue;
            }
            let value = xattr::get(&source, &name).map_err(refused("read an attribute of", self.full))?;
            xattr::set(&target, &name, &value.unwrap_or_default())
                .or_else(tolerate(name.as_bytes()))
                .map_err(refused("set an attribute of", self.full))?;
        }
        let (accessed, modified) = times(stat);
        utimensat(self.parent, self.name, &accessed, &modified, UtimensatFlags::NoFollowSymlink)
            .map_err(failed("set the time of", self.full))
    }
}

// === helpers ===

/// The same of a file or directory, both open.
fn set_metadata(from: &File, into: &File, stat: &FileStat, name: &[u8]) -> Result<(), CopyError> {
    fchown(into, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
        .map_err(failed("set the owner of", name))?;
    fchmod(into, Mode::from_bits_truncate(stat.st_mode)).map_err(failed("set the mode of", name))?;
    let attributes = none_if_unsupported(from.list_xattr());
    for attribute in attributes.map_err(refused("list the attributes of", name))?.into_iter().flatten() {
        if !is_wanted_xattr(attribute.as_bytes()) {
            continue;
        }
        let value = from.get_xattr(&attribute).map_err(refused("read an attribute of", name))?;
        into.set_xattr(&attribute, &value.unwrap_or_default())
            .or_else(tolerate(attribute.as_bytes()))
            .map_err(refused("set an attribute of", name))?;
    }
    let (accessed, modified) = times(stat);
    futimens(into, &accessed, &modified).map_err(failed("set the time of", name))
}

/// A file system without attributes has none to copy.
fn none_if_unsupported<T>(listed: io::Result<T>) -> io::Result<Option<T>> {
    match listed {
        Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => Ok(None),
        listed => listed.map(Some),
    }
}

/// When it was last read, and last written.
fn times(stat: &FileStat) -> (TimeSpec, TimeSpec) {
    (TimeSpec::new(stat.st_atime, stat.st_atime_nsec), TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec))
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

fn list(directory: &File) -> Result<Vec<Vec<u8>>, Errno> {
    // A descriptor of its own, since the position in the listing belongs to the open file.
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut again = Dir::from_fd(openat(directory, ".", flags, Mode::empty())?)?;
    let names = again.iter().map(|entry| Ok(entry?.file_name().to_bytes().to_vec()));
    names.filter(|name| !matches!(name.as_deref(), Ok(b"." | b".."))).collect()
}

fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    match path {
        [] => name.to_vec(),
        path => [path, b"/", name].concat(),
    }
}

fn failed<'a>(action: &'static str, name: &'a [u8]) -> impl FnOnce(Errno) -> CopyError + 'a {
    move |errno| refused(action, name)(errno.into())
}

fn refused<'a>(action: &'static str, name: &'a [u8]) -> impl FnOnce(io::Error) -> CopyError + 'a {
    move |source| CopyError::Io { action, name: String::from_utf8_lossy(name).into_owned(), source }
}

#[cfg(test)]
#[path = "copy_tests.rs"]
mod tests;
