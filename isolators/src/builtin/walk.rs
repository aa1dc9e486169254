//! A walk through a directory and all below it, and how much disk it takes, as `du` counts: blocks in use, each file once however many
//! names it has.
//!
//! The files belong to somebody who may change them meanwhile and wishes us ill. So the walk goes from directory to directory by descriptor, never
//! through a symbolic link, never onto another mount (`openat2(2)`, RESOLVE_NO_SYMLINKS and RESOLVE_NO_XDEV), holds one
//! descriptor however deep the tree, and on its way up makes sure that it comes out where it went in.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};

/// The unit of `st_blocks`, whatever the file system's blocks are (`stat(3type)`).
const BLOCK: u64 = 512;

/// A file on a host.
type FileId = (u64, u64);

/// What is done on a walk.
pub trait Visit {
    /// A directory, open: first the top, then each below it.
    fn directory(&mut self, dir: &OwnedFd, stat: &FileStat) -> io::Result<()>;

    /// Whatever else is in a directory.
    fn file(&mut self, dir: &OwnedFd, name: &OsStr, stat: &FileStat) -> io::Result<()>;
}

/// Bytes of disk in use at and below `top`, without the directories `excluded` and what is below them, which are given relative to `top`.
///
/// # Errors
/// When `top` cannot be read, or a directory was moved away while the walk was in it.
pub fn disk_usage(top: &Path, excluded: &HashSet<PathBuf>) -> io::Result<u64> {
    let mut count = Count::default();
    walk(top, excluded, &mut count)?;
    Ok(count.bytes)
}

/// Visits `top` and all below it that is on the same mount, but for the directories `excluded`, which are given relative to `top`.
///
/// # Errors
/// When `top` cannot be read, a directory was moved away while the walk was in it, or the visitor fails.
pub fn walk(top: &Path, excluded: &HashSet<PathBuf>, visitor: &mut impl Visit) -> io::Result<()> {
    // Only the top itself may be behind a symbolic link: the caller chose it.
    let mut here = open(top, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let stat = fstat(&here)?;
    let mut walk = Walk { device: stat.st_dev, excluded, place: PathBuf::new(), visitor };
    let mut levels = vec![walk.enter(&here, &stat)?];
    while let Some(level) = levels.last_mut() {
        match level.left.pop() {
            Some(name) => {
                let Some(dir) = open_below(&here, &name)? else { continue };
                let stat = fstat(&dir)?;
                walk.place.push(&name);
                levels.push(walk.enter(&dir, &stat)?);
                here = dir;
            }
            None => {
                levels.pop();
                walk.place.pop();
                if let Some(parent) = levels.last() {
                    here = open_parent(&here, parent.dir)?;
                }
            }
        }
    }
    Ok(())
}

/// One directory on the way from the top to where the walk is.
struct Level {
    dir: FileId,
    /// Its directories that are still to be visited.
    left: Vec<OsString>,
}

struct Walk<'a, V> {
    device: u64,
    excluded: &'a HashSet<PathBuf>,
    /// Where the walk is, relative to the top.
    place: PathBuf,
    visitor: &'a mut V,
}

impl<V: Visit> Walk<'_, V> {
    /// Visits a directory and what is in it, and notes the directories in it.
    fn enter(&mut self, dir: &OwnedFd, stat: &FileStat) -> io::Result<Level> {
        self.visitor.directory(dir, stat)?;
        let mut left = Vec::new();
        for entry in fs::read_dir(format!("/proc/self/fd/{}", dir.as_raw_fd()))? {
            let name = entry?.file_name();
            let stat = match fstatat(dir, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                // Removed since the directory was listed.
                Err(Errno::ENOENT) => continue,
                Err(error) => return Err(error.into()),
            };
            if stat.st_dev != self.device {
                continue;
            }
            if kind(&stat) != SFlag::S_IFDIR {
                self.visitor.file(dir, &name, &stat)?;
            } else if !self.is_excluded(&name) {
                left.push(name);
            }
        }
        Ok(Level { dir: (stat.st_dev, stat.st_ino), left })
    }

    fn is_excluded(&self, name: &OsString) -> bool {
        !self.excluded.is_empty() && self.excluded.contains(&self.place.join(name))
    }
}

/// What kind of file it is.
pub fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// Adds up blocks.
#[derive(Default)]
struct Count {
    bytes: u64,
    /// Files with several names that were counted.
    seen: HashSet<FileId>,
}

impl Count {
    fn add(&mut self, stat: &FileStat) {
        let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
        self.bytes = self.bytes.saturating_add(blocks.saturating_mul(BLOCK));
    }
}

impl Visit for Count {
    fn directory(&mut self, _: &OwnedFd, stat: &FileStat) -> io::Result<()> {
        self.add(stat);
        Ok(())
    }

    fn file(&mut self, _: &OwnedFd, _: &OsStr, stat: &FileStat) -> io::Result<()> {
        if stat.st_nlink == 1 || self.seen.insert((stat.st_dev, stat.st_ino)) {
            self.add(stat);
        }
        Ok(())
    }
}

/// `None` when it is no directory of this mount any more.
fn open_below(dir: &OwnedFd, name: &OsString) -> io::Result<Option<OwnedFd>> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW)
        .resolve(ResolveFlag::RESOLVE_NO_XDEV | ResolveFlag::RESOLVE_NO_SYMLINKS);
    match openat2(dir, name.as_os_str(), how) {
        Ok(dir) => Ok(Some(dir)),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EXDEV) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn open_parent(dir: &OwnedFd, expected: FileId) -> io::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_XDEV);
    let parent = openat2(dir, "..", how)?;
    let stat = fstat(&parent)?;
    match (stat.st_dev, stat.st_ino) == expected {
        true => Ok(parent),
        false => Err(io::Error::other("a directory was moved while its size was taken")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    fn usage(dir: &Path) -> u64 {
        disk_usage(dir, &HashSet::new()).unwrap()
    }

    fn blocks(path: &Path) -> u64 {
        fs::symlink_metadata(path).unwrap().blocks() * BLOCK
    }

    #[test]
    fn a_file_with_two_names_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        let empty = usage(dir.path());
        fs::write(dir.path().join("a"), vec![1; 300_000]).unwrap();
        let one = usage(dir.path());
        assert!(one >= empty + 300_000, "{empty} {one}");
        fs::create_dir(dir.path().join("d")).unwrap();
        let with_dir = usage(dir.path());
        fs::hard_link(dir.path().join("a"), dir.path().join("d/b")).unwrap();
        assert_eq!(usage(dir.path()), with_dir);
        fs::copy(dir.path().join("a"), dir.path().join("c")).unwrap();
        assert!(usage(dir.path()) >= with_dir + 300_000);
    }

    #[test]
    fn symbolic_links_are_not_followed_and_holes_not_counted() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("large"), vec![1; 1 << 20]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        symlink(outside.path(), dir.path().join("dir")).unwrap();
        symlink(outside.path().join("large"), dir.path().join("file")).unwrap();
        fs::File::create(dir.path().join("hole")).unwrap().set_len(1 << 30).unwrap();
        assert!(usage(dir.path()) < 1 << 16, "{}", usage(dir.path()));
    }

    #[test]
    fn volumes_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("x/volume")).unwrap();
        let before = usage(dir.path());
        fs::write(dir.path().join("x/volume/data"), vec![1; 1 << 20]).unwrap();
        assert!(usage(dir.path()) > before);
        let excluded = HashSet::from([PathBuf::from("x/volume")]);
        let without = disk_usage(dir.path(), &excluded).unwrap();
        assert_eq!(without, before - blocks(&dir.path().join("x/volume")));
    }

    #[test]
    fn other_mounts_are_left_out() {
        // /proc/sys/fs is an automount or nothing, /proc another file system than /; neither is entered from a directory of this one.
        let root = fs::metadata("/").unwrap().dev();
        assert_ne!(root, fs::metadata("/proc").unwrap().dev());
        let top = open("/", OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        assert!(open_below(&top, &OsString::from("proc")).unwrap().is_none());
    }

    #[test]
    fn a_tree_deeper_than_any_path_is_walked() {
        let dir = tempfile::tempdir().unwrap();
        let name = "n".repeat(200);
        let mut here = open(dir.path(), OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..100 {
            nix::sys::stat::mkdirat(&here, name.as_str(), Mode::S_IRWXU).unwrap();
            here = open_below(&here, &OsString::from(&name)).unwrap().unwrap();
        }
        let bytes = fs::symlink_metadata(dir.path().join(&name)).unwrap().blocks() * BLOCK;
        assert_eq!(usage(dir.path()), blocks(dir.path()) + 100 * bytes);
    }
}
