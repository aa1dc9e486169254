//! Writes an archive's members beneath one directory, and nowhere else.
//!
//! Each member is made in a parent directory that is open as a file descriptor, reached from the archive's
//! root by `openat2` with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`; the last component is only ever handed to calls
//! that do not follow symbolic links. So no order of members, however hostile, leads outside.
//!
//! In layers of images, whiteouts become what overlayfs knows: `.wh.name` a character device 0:0 called `name`, and
//! `.wh..wh..opq` the attribute `trusted.overlay.opaque=y` of its directory.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstatat, futimens, makedev,
    mkdirat, mknodat, utimensat,
};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat};

use super::metadata::{mode_of, set_opaque, set_open_metadata, time_spec, tolerate, wanted_xattrs};
use super::tar::{Entry, Kind, Time};
use super::{DeviceNodes, UnpackError};

/// null, zero, full, random, urandom and tty, by their numbers.
const HARMLESS: [(u32, u32); 6] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0)];

/// Copied per read: large enough that calls cost nothing beside hashing.
const COPY_BUFFER: usize = 128 << 10;

const WHITEOUT: &[u8] = b".wh.";
/// Names that AUFS kept for itself; `.wh..wh..opq` is the only one with a meaning in images.
const WHITEOUT_META: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What an archive is unpacked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// A layer of an image: owners, attributes and whiteouts count.
    Layer(DeviceNodes),
    /// Files for the user as whom the thread acts. Nothing may take the place of these names.
    Files { reserved: &'static [&'static str] },
}

/// A directory while it is being filled.
pub(super) struct Tree {
    root: OwnedFd,
    purpose: Purpose,
    /// The parent of the last member: members of a directory follow one another.
    last_parent: Option<(Vec<u8>, OwnedFd)>,
    /// Times of directories, set at the end since making members changes them; and modes that would be in the way of members.
    directories: BTreeMap<Vec<u8>, (Time, Option<Mode>)>,
    buffer: Vec<u8>,
}

/// A member's place: the open parent and the last component.
struct Place<'a> {
    parent: &'a OwnedFd,
    name: &'a OsStr,
    /// The whole name, for errors.
    full: &'a [u8],
    purpose: Purpose,
}

// === impl Purpose ===

impl Purpose {
    /// Whether members belong to whom the archive says, rather than to who unpacks it.
    pub(super) fn keeps_owners(self) -> bool {
        matches!(self, Self::Layer(_))
    }
}

// === impl Tree ===

impl Tree {
    pub(super) fn open(root: &Path, purpose: Purpose) -> Result<Self, UnpackError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = open(root, flags, Mode::empty()).map_err(failed("open", root.as_os_str().as_bytes()))?;
        Ok(Self {
            root,
            purpose,
            last_parent: None,
            directories: BTreeMap::new(),
            buffer: vec![0; COPY_BUFFER],
        })
    }

    /// Makes one member; `content` is read when it is a file.
    pub(super) fn add(&mut self, entry: &Entry, content: &mut impl Read) -> Result<(), UnpackError> {
        let plain;
        let entry = match self.purpose {
            Purpose::Layer(_) => entry,
            Purpose::Files { .. } => {
                plain = plain_entry(entry);
                &plain
            }
        };
        let path = clean(&entry.path)?;
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&path[..0], &path[..]),
        };
        if name.is_empty() {
            return self.set_root(entry);
        }
        match self.purpose {
            Purpose::Layer(_) if name.starts_with(WHITEOUT) => {
                return self.add_whiteout(parent, name, &path);
            }
            Purpose::Files { reserved } if reserved.iter().any(|name| name.as_bytes() == path) => {
                return Err(UnpackError::Reserved { name: lossy(&path) });
            }
            Purpose::Layer(_) | Purpose::Files { .. } => {}
        }
        self.make_room(parent, name, &path, matches!(entry.kind, Kind::Directory))?;
        if let Kind::HardLink { target } = &entry.kind {
            return self.add_hard_link(target, parent, name, &path);
        }
        self.enter(parent, &path)?;
        let buffer = &mut self.buffer;
        let place = place(&self.root, &self.last_parent, name, &path, self.purpose);
        match &entry.kind {
            Kind::File { size } => place.make_file(entry, *size, content, buffer)?,
            Kind::Directory => place.make_directory(entry)?,
            Kind::Symlink { target } => place.make_symlink(entry, target)?,
            Kind::Fifo => place.make_node(entry, SFlag::S_IFIFO, 0)?,
            Kind::CharDevice { major, minor } => place.make_device(entry, SFlag::S_IFCHR, *major, *minor)?,
            Kind::BlockDevice { major, minor } => place.make_device(entry, SFlag::S_IFBLK, *major, *minor)?,
            Kind::HardLink { .. } => {}
        }
        if matches!(entry.kind, Kind::Directory) {
            let mode = Some(mode_of(entry)).filter(|_| !self.purpose.keeps_owners());
            self.directories.insert(path, (entry.modified, mode));
        }
        Ok(())
    }

    /// Sets what could not be set before: the times of directories, and modes that would have been in the way.
    pub(super) fn finish(self) -> Result<(), UnpackError> {
        // What is in a directory comes before it, as it may be closed afterwards.
        for (path, (time, mode)) in self.directories.iter().rev() {
            let spec = time_spec(*time);
            // A member that came later may have taken a directory's place.
            match open_beneath(&self.root, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY) {
                Ok(directory) => {
                    futimens(&directory, &spec, &spec).map_err(failed("set the time of", path))?;
                    if let Some(mode) = mode {
                        fchmod(&directory, *mode).map_err(failed("set the mode of", path))?;
                    }
                }
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {}
                Err(error) => return Err(failed("open", path)(error)),
            }
        }
        Ok(())
    }

    /// The archive's own root, `./` or `/`. For files, that is a directory which was there before.
    fn set_root(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        if !matches!(entry.kind, Kind::Directory) {
            return Err(UnpackError::RootKind { name: lossy(&entry.path) });
        }
        if self.purpose.keeps_owners() {
            set_open_metadata(&self.root, entry, self.purpose)?;
            self.directories.insert(Vec::new(), (entry.modified, None));
        }
        Ok(())
    }

    fn add_whiteout(&mut self, parent: &[u8], name: &[u8], path: &[u8]) -> Result<(), UnpackError> {
        if name == OPAQUE {
            self.enter(parent, path)?;
            let directory = self.last_parent.as_ref().map_or(&self.root, |(_, directory)| directory);
            return set_opaque(directory, parent);
        }
        if name.starts_with(WHITEOUT_META) {
            return Ok(());
        }
        let hidden = &name[WHITEOUT.len()..];
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return Err(UnpackError::Whiteout { name: lossy(path) });
        }
        self.enter(parent, path)?;
        let place = place(&self.root, &self.last_parent, hidden, path, self.purpose);
        match place.stat()? {
            None => place.make_whiteout(),
            // A whiteout hides what lower layers have, and never what its own layer has.
            Some(stat) if is_directory(&stat) => {
                let directory = place.open_directory()?;
                set_opaque(&directory, path)
            }
            Some(_) => Ok(()),
        }
    }

    fn add_hard_link(
        &mut self,
        target: &[u8],
        parent: &[u8],
        name: &[u8],
        path: &[u8],
    ) -> Result<(), UnpackError> {
        let wrong = || UnpackError::LinkTarget { name: lossy(path), target: lossy(target) };
        let target_path = clean(target)?;
        let (target_parent, target_name) = match target_path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&target_path[..slash], &target_path[slash + 1..]),
            None => (&target_path[..0], &target_path[..]),
        };
        if target_name.is_empty() {
            return Err(wrong());
        }
        let target_directory = open_beneath(&self.root, target_parent, OFlag::O_PATH | OFlag::O_DIRECTORY)
            .map_err(|_| wrong())?;
        self.enter(parent, path)?;
        let place = place(&self.root, &self.last_parent, name, path, self.purpose);
        match linkat(
            &target_directory,
            OsStr::from_bytes(target_name),
            place.parent,
            place.name,
            AtFlags::empty(),
        ) {
            Ok(()) => Ok(()),
            Err(Errno::ENOENT | Errno::EPERM) => Err(wrong()),
            Err(error) => Err(failed("link", path)(error)),
        }
    }

    /// Removes what is in the way of a new member: a later one takes an earlier one's place, except that directories are merged.
    fn make_room(
        &mut self,
        parent: &[u8],
        name: &[u8],
        path: &[u8],
        new_is_directory: bool,
    ) -> Result<(), UnpackError> {
        self.enter(parent, path)?;
        let place = place(&self.root, &self.last_parent, name, path, self.purpose);
        let Some(stat) = place.stat()? else { return Ok(()) };
        if is_directory(&stat) {
            if new_is_directory {
                return Ok(());
            }
            let below = PathBuf::from(format!("/proc/self/fd/{}", place.parent.as_raw_fd())).join(place.name);
            std::fs::remove_dir_all(below).map_err(|source| UnpackError::Write {
                action: "replace",
                name: lossy(path),
                source,
            })?;
            // The open parent may have been inside.
            self.last_parent = None;
            return Ok(());
        }
        unlinkat(place.parent, place.name, UnlinkatFlags::NoRemoveDir).map_err(failed("replace", path))?;
        if is_whiteout(&stat) && new_is_directory {
            // Whiteout and directory of one name: the directory is new, and nothing of the lower one shows through.
            place.make_plain_directory()?;
            set_opaque(&place.open_directory()?, path)?;
        }
        Ok(())
    }

    /// Makes `last_parent` the directory `parent`, creating what is missing of it.
    fn enter(&mut self, parent: &[u8], path: &[u8]) -> Result<(), UnpackError> {
        if self.last_parent.as_ref().is_some_and(|(open, _)| open == parent) {
            return Ok(());
        }
        self.last_parent = None;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let directory = match open_beneath(&self.root, parent, flags) {
            Ok(directory) => directory,
            Err(Errno::ENOENT | Errno::ENOTDIR) => self.create_parents(parent, path)?,
            Err(Errno::ELOOP | Errno::EXDEV) => {
                return Err(UnpackError::NotThroughDirectories { name: lossy(path) });
            }
            Err(error) => return Err(failed("open the parent of", path)(error)),
        };
        self.last_parent = Some((parent.to_vec(), directory));
        Ok(())
    }

    /// Parents without members of their own get mode 0755 and belong to root, as with Docker.
    fn create_parents(&self, parent: &[u8], path: &[u8]) -> Result<OwnedFd, UnpackError> {
        let mut directory = self.root.try_clone().map_err(|source| UnpackError::Write {
            action: "open",
            name: lossy(path),
            source,
        })?;
        for component in parent.split(|byte| *byte == b'/') {
            let next = {
                let name = OsStr::from_bytes(component);
                let place = Place { parent: &directory, name, full: path, purpose: self.purpose };
                match place.stat()? {
                    None => place.make_plain_directory()?,
                    Some(stat) if is_directory(&stat) => {}
                    Some(stat) if is_whiteout(&stat) => {
                        unlinkat(place.parent, place.name, UnlinkatFlags::NoRemoveDir)
                            .map_err(failed("replace", path))?;
                        place.make_plain_directory()?;
                        set_opaque(&place.open_directory()?, path)?;
                    }
                    Some(_) => return Err(UnpackError::NotThroughDirectories { name: lossy(path) }),
                }
                place.open_directory()?
            };
            directory = next;
        }
        Ok(directory)
    }
}

fn place<'a>(
    root: &'a OwnedFd,
    last_parent: &'a Option<(Vec<u8>, OwnedFd)>,
    name: &'a [u8],
    full: &'a [u8],
    purpose: Purpose,
) -> Place<'a> {
    Place {
        parent: last_parent.as_ref().map_or(root, |(_, directory)| directory),
        name: OsStr::from_bytes(name),
        full,
        purpose,
    }
}

// === impl Place ===

impl Place<'_> {
    fn stat(&self) -> Result<Option<FileStat>, UnpackError> {
        match fstatat(self.parent, self.name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(failed("look at", self.full)(error)),
        }
    }

    fn make_file(
        &self,
        entry: &Entry,
        size: u64,
        content: &mut impl Read,
        buffer: &mut [u8],
    ) -> Result<(), UnpackError> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(self.parent, self.name, flags, Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(failed("create", self.full))?;
        let mut file = File::from(file);
        let mut left = size;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let read = content.read(&mut buffer[..want]).map_err(UnpackError::Stream)?;
            io::Write::write_all(&mut file, &buffer[..read]).map_err(|source| UnpackError::Write {
                action: "write",
                name: lossy(self.full),
                source,
            })?;
            left -= read as u64;
        }
        let file = OwnedFd::from(file);
        set_open_metadata(&file, entry, self.purpose)?;
        let time = time_spec(entry.modified);
        futimens(file, &time, &time).map_err(failed("set the time of", self.full))
    }

    fn make_directory(&self, entry: &Entry) -> Result<(), UnpackError> {
        match mkdirat(self.parent, self.name, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(failed("create", self.full)(error)),
        }
        if self.purpose.keeps_owners() {
            return set_open_metadata(&self.open_directory()?, entry, self.purpose);
        }
        // Until all members are made in it.
        fchmod(self.open_directory()?, mode_of(entry) | Mode::S_IRWXU)
            .map_err(failed("set the mode of", self.full))
    }

    fn make_plain_directory(&self) -> Result<(), UnpackError> {
        mkdirat(self.parent, self.name, Mode::S_IRWXU).map_err(failed("create", self.full))?;
        // Beside the umask's wishes.
        fchmod(self.open_directory()?, Mode::from_bits_truncate(0o755))
            .map_err(failed("set the mode of", self.full))
    }

    fn open_directory(&self) -> Result<OwnedFd, UnpackError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(self.parent, self.name, flags, Mode::empty()).map_err(failed("open", self.full))
    }

    fn make_symlink(&self, entry: &Entry, target: &[u8]) -> Result<(), UnpackError> {
        symlinkat(OsStr::from_bytes(target), self.parent, self.name).map_err(failed("create", self.full))?;
        self.set_owner(entry)?;
        self.set_xattrs(entry)?;
        self.set_time(entry)
    }

    fn make_device(&self, entry: &Entry, kind: SFlag, major: u32, minor: u32) -> Result<(), UnpackError> {
        let allowed = match self.purpose {
            Purpose::Files { .. } => return Err(UnpackError::NoDevices { name: lossy(self.full) }),
            Purpose::Layer(DeviceNodes::Create) => true,
            Purpose::Layer(DeviceNodes::Harmless) => {
                self.full.starts_with(b"dev/") || kind == SFlag::S_IFCHR && HARMLESS.contains(&(major, minor))
            }
            Purpose::Layer(DeviceNodes::Refuse) => false,
        };
        if !allowed {
            return Err(UnpackError::Device { name: lossy(self.full) });
        }
        self.make_node(entry, kind, makedev(u64::from(major), u64::from(minor)))
    }

    fn make_node(&self, entry: &Entry, kind: SFlag, device: u64) -> Result<(), UnpackError> {
        mknodat(self.parent, self.name, kind, Mode::S_IRUSR, device).map_err(failed("create", self.full))?;
        self.set_owner(entry)?;
        // Just made, and no symbolic link: following is harmless, and not following is not supported before Linux 6.6.
        fchmodat(self.parent, self.name, mode_of(entry), FchmodatFlags::FollowSymlink)
            .map_err(failed("set the mode of", self.full))?;
        self.set_xattrs(entry)?;
        self.set_time(entry)
    }

    fn make_whiteout(&self) -> Result<(), UnpackError> {
        mknodat(self.parent, self.name, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0))
            .map_err(failed("make the whiteout", self.full))
    }

    fn set_owner(&self, entry: &Entry) -> Result<(), UnpackError> {
        if !self.purpose.keeps_owners() {
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        fchownat(self.parent, self.name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(failed("set the owner of", self.full))
    }

    fn set_xattrs(&self, entry: &Entry) -> Result<(), UnpackError> {
        // Symbolic links and devices cannot be opened; the parent can, and the call does not follow the last component.
        let path = PathBuf::from(format!("/proc/self/fd/{}", self.parent.as_raw_fd())).join(self.name);
        for (name, value) in wanted_xattrs(entry) {
            xattr::set(&path, OsStr::from_bytes(name), value).or_else(tolerate(name)).map_err(|source| {
                UnpackError::Write { action: "set an attribute of", name: lossy(self.full), source }
            })?;
        }
        Ok(())
    }

    fn set_time(&self, entry: &Entry) -> Result<(), UnpackError> {
        let time = time_spec(entry.modified);
        utimensat(self.parent, self.name, &time, &time, UtimensatFlags::NoFollowSymlink)
            .map_err(failed("set the time of", self.full))
    }
}

// === helpers ===

/// The name's components joined by single slashes; empty for the root itself. A leading slash stands for the layer's
/// root, as with Docker and containerd: umoci calls the root `/`.
fn clean(name: &[u8]) -> Result<Vec<u8>, UnpackError> {
    let outside = || UnpackError::Outside { name: lossy(name) };
    if name.is_empty() || name.contains(&0) {
        return Err(outside());
    }
    let mut path = Vec::with_capacity(name.len());
    for component in name.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => return Err(outside()),
            component => {
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(component);
            }
        }
    }
    Ok(path)
}

/// A member as a user may have it: no setuid bits, nor attributes, and written to by nobody else.
fn plain_entry(entry: &Entry) -> Entry {
    Entry { mode: entry.mode & 0o755, xattrs: Vec::new(), ..entry.clone() }
}

/// Opens what is at a path beneath an open directory, or that directory itself, through no link.
pub(crate) fn open_beneath(root: &OwnedFd, path: &[u8], flags: OFlag) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(root, OsStr::from_bytes(path), how)
}

fn is_directory(stat: &FileStat) -> bool {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR
}

fn is_whiteout(stat: &FileStat) -> bool {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFCHR && stat.st_rdev == 0
}

pub(super) fn lossy(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

pub(super) fn failed<'a>(action: &'static str, name: &'a [u8]) -> impl FnOnce(Errno) -> UnpackError + 'a {
    move |errno| UnpackError::Write { action, name: lossy(name), source: errno.into() }
}
