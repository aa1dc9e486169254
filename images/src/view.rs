//! Reads single files as the mounted image would show them, without mounting it.
//!
//! A path is walked component by component through all layers at once: the topmost layer that has a name decides,
//! directories merge, whiteouts and opaque directories hide what is below, and symbolic links are followed within the
//! image only. No layer is ever opened through a link.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::PathBuf;

use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat, openat2, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstatat};

use crate::rootfs::RootFs;

/// As many links as Linux follows.
const MAX_LINKS: usize = 40;

/// The layers of one image, open.
pub(crate) struct View {
    /// Topmost first.
    layers: Vec<OwnedFd>,
}

/// A name as the image shows it.
enum Found {
    Nothing,
    Link(String),
    /// A file, in the layer with this index, at this path.
    File(usize, String),
    /// A directory, made of those of these layers, topmost first.
    Directory(Vec<usize>),
}

// === impl View ===

impl View {
    pub(crate) fn open(root: &RootFs) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        // The layer's own path may be one of the store's links.
        let layers =
            root.lower().iter().map(|path| open(path, flags, Mode::empty())).collect::<Result<_, _>>()?;
        Ok(Self { layers })
    }

    /// The content of a regular file, of at most `limit` bytes; `None` if the image shows no such file.
    pub(crate) fn read(&self, path: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let Some((layer, path)) = self.resolve(path)? else { return Ok(None) };
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        let file = File::from(openat2(&self.layers[layer], path.as_str(), how)?);
        if !file.metadata()?.is_file() {
            return Ok(None);
        }
        let mut content = Vec::new();
        file.take(limit.saturating_add(1)).read_to_end(&mut content)?;
        if content.len() as u64 > limit {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("the image's /{path} is larger than {limit} bytes"),
            ));
        }
        Ok(Some(content))
    }

    /// The layer and the path in it that `path` leads to, if that is a file.
    fn resolve(&self, path: &str) -> io::Result<Option<(usize, String)>> {
        let all: Vec<usize> = (0..self.layers.len()).collect();
        let mut todo: VecDeque<String> = path.split('/').map(str::to_owned).collect();
        // The directories from the root to where the walk is.
        let mut trail: Vec<(String, Vec<usize>)> = vec![(String::new(), all)];
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            match name.as_str() {
                "" | "." => continue,
                ".." => {
                    if trail.len() > 1 {
                        trail.pop();
                    }
                    continue;
                }
                _ => {}
            }
            let Some((directory, layers)) = trail.last() else { return Ok(None) };
            let here = if directory.is_empty() { name } else { format!("{directory}/{name}") };
            match self.look_up(&here, layers)? {
                Found::Nothing => return Ok(None),
                Found::Directory(layers) => trail.push((here, layers)),
                Found::File(layer, path) => {
                    return Ok(todo.iter().all(String::is_empty).then_some((layer, path)));
                }
                Found::Link(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::ELOOP.into());
                    }
                    if target.starts_with('/') {
                        trail.truncate(1);
                    }
                    for component in target.split('/').rev() {
                        todo.push_front(component.to_owned());
                    }
                }
            }
        }
        Ok(None)
    }

    fn look_up(&self, path: &str, layers: &[usize]) -> io::Result<Found> {
        let mut directories = Vec::new();
        for layer in layers.iter().copied() {
            let Some((parent, name)) = self.parent(layer, path)? else { continue };
            let stat = match fstatat(&parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::ENOENT) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
            match kind {
                SFlag::S_IFDIR => {
                    directories.push(layer);
                    if is_opaque(&parent, name)? {
                        break;
                    }
                }
                // A whiteout, or something else that hides what is below.
                _ if !directories.is_empty() => break,
                SFlag::S_IFCHR if stat.st_rdev == 0 => return Ok(Found::Nothing),
                SFlag::S_IFLNK => {
                    return Ok(readlinkat(&parent, name)?.into_string().map_or(Found::Nothing, Found::Link));
                }
                _ => return Ok(Found::File(layer, path.to_owned())),
            }
        }
        Ok(if directories.is_empty() { Found::Nothing } else { Found::Directory(directories) })
    }

    /// The open parent of `path` in a layer, if the layer has it.
    fn parent<'a>(&self, layer: usize, path: &'a str) -> io::Result<Option<(OwnedFd, &'a str)>> {
        let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        match openat2(&self.layers[layer], parent, how) {
            Ok(parent) => Ok(Some((parent, name))),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Whether a directory of a layer hides what layers below have in it.
pub(crate) fn is_opaque<P: AsFd, N: ?Sized + NixPath>(parent: P, name: &N) -> io::Result<bool> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let directory = openat(parent, name, flags, Mode::empty())?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    Ok(xattr::get_deref(path, "trusted.overlay.opaque")?.is_some_and(|value| value == b"y"))
}
