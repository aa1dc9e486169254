//! The container's root file system, made in the shim's own mount namespace.
//!
//! Everything is mounted beneath `rootfs` in the runtime directory, in a namespace that only the shim and the container's
//! processes are in: when the last of them has ended, the kernel takes the mounts away. The host's own mount table never
//! shows them, and nothing has to be unmounted after a crash. The namespace is a slave of the host's, so that what the host
//! unmounts later is not kept busy here.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{Pid, UnlinkatFlags, unlinkat};

use crate::overlay::{self, OverlayError};
use crate::plan::{BindMount, RootFs};

/// A root file system cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootFsError {
    #[error("no mount namespace of its own for the shim: {0}")]
    Namespace(#[source] Errno),
    #[error("{target} cannot be mounted on: {source}")]
    Mount { target: PathBuf, source: io::Error },
    #[error("{0} is not a plain absolute path")]
    Path(PathBuf),
    #[error(transparent)]
    Overlay(#[from] OverlayError),
}

/// Gives this process a mount namespace of its own, which hears of the host's mounts and says nothing of its own.
pub(crate) fn enter_namespace() -> Result<(), RootFsError> {
    enter(MsFlags::MS_SLAVE)
}

/// Gives this process a mount namespace of its own that has nothing to do with the host's any more.
pub(crate) fn enter_private_namespace() -> Result<(), RootFsError> {
    enter(MsFlags::MS_PRIVATE)
}

fn enter(propagation: MsFlags) -> Result<(), RootFsError> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(RootFsError::Namespace)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | propagation, None::<&str>)
        .map_err(RootFsError::Namespace)
}

/// Shows the host's root file system with all its mounts at `target`, so that nothing can be written or removed through it, with an empty `/dev`.
pub(crate) fn show_host_read_only(target: &Path) -> Result<(), RootFsError> {
    let failed = |source: Errno| RootFsError::Mount { target: target.to_owned(), source: source.into() };
    mount(Some("/"), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .map_err(failed)?;
    let path =
        CString::new(target.as_os_str().as_bytes()).map_err(|_| RootFsError::Path(target.to_owned()))?;
    let attributes =
        libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the path is a C string and the attributes a structure of the size given; both live through the call.
    let made = Errno::result(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
            &attributes,
            size_of::<libc::mount_attr>(),
        )
    });
    if let Err(errno) = made {
        // Not to be left there writable.
        let _ = umount2(target, MntFlags::MNT_DETACH);
        return Err(failed(errno));
    }
    cover_devices(target)
}

/// Mounts the root file system on `target`, an existing directory, and `binds` in it.
pub(crate) fn build(rootfs: &RootFs, target: &Path, binds: &[BindMount]) -> Result<(), RootFsError> {
    let failed = |source: Errno| RootFsError::Mount { target: target.to_owned(), source: source.into() };
    match rootfs {
        RootFs::Host => {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some("/"), target, None::<&str>, flags, None::<&str>).map_err(failed)?;
            cover_devices(target)?;
        }
        RootFs::Overlay { lowers, upper, work } => overlay::stack(lowers, Some((upper, work)), target)?,
        RootFs::Copy { path, .. } => {
            mount(Some(path), target, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(failed)?;
            // Nobody mounts anything in it from elsewhere.
            mount(None::<&str>, target, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>).map_err(failed)?;
        }
    }
    let own = *rootfs != RootFs::Host;
    binds.iter().try_for_each(|bind| bind_into(target, bind, own))
}

/// Lays an empty file system over the root file system's `/dev`.
///
/// `libcontainer` fills `/dev` with nodes and links of its own and removes `/dev/ptmx`. On a root file system that is the host's, that would be done to the host.
/// What it makes lands on this cover, which [`uncover_devices`] takes away before the program starts.
fn cover_devices(target: &Path) -> Result<(), RootFsError> {
    let dev = target.join("dev");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), &dev, Some("tmpfs"), flags, Some("mode=755,size=64k"))
        .map_err(|source| RootFsError::Mount { target: dev.clone(), source: source.into() })
}

/// Takes the cover away from a root file system in this namespace and lays a new, empty one.
pub(crate) fn renew_device_cover(target: &Path) -> Result<(), RootFsError> {
    let dev = target.join("dev");
    umount2(&dev, MntFlags::MNT_DETACH)
        .map_err(|source| RootFsError::Mount { target: dev, source: source.into() })?;
    cover_devices(target)
}

/// Takes the cover of the host's `/dev` away in the mount namespace of a container that was created and not yet started. What is
/// mounted on the cover at `kept`, paths beneath `/dev` that the host has too, is mounted there instead.
pub(crate) fn uncover_devices(init: Pid, kept: &[PathBuf]) -> Result<(), RootFsError> {
    in_namespace_of(init, || uncover(kept))
        .map_err(|source| RootFsError::Mount { target: PathBuf::from("/dev"), source })?
}

/// Does something in the mount namespace of a container that was created and not yet started, with its root for `/`. The container's `/proc` knows
/// nothing of this process, so that `/proc/self` leads nowhere meanwhile.
pub(crate) fn in_namespace_of<T>(init: Pid, work: impl FnOnce() -> T) -> io::Result<T> {
    let ours = File::open("/proc/self/ns/mnt")?;
    let theirs = File::open(format!("/proc/{init}/ns/mnt"))?;
    let here = File::open(".")?;
    setns(theirs.as_fd(), CloneFlags::CLONE_NEWNS)?;
    let done = work();
    setns(ours.as_fd(), CloneFlags::CLONE_NEWNS)?;
    nix::unistd::fchdir(&here)?;
    Ok(done)
}

fn uncover(kept: &[PathBuf]) -> Result<(), RootFsError> {
    let failed = |target: &Path| {
        let target = target.to_owned();
        move |source: io::Error| RootFsError::Mount { target, source }
    };
    let mut mounts = Vec::new();
    for target in kept {
        mounts.push((target, clone_mount(target).map_err(failed(target))?));
    }
    let dev = Path::new("/dev");
    umount2(dev, MntFlags::MNT_DETACH).map_err(|errno| failed(dev)(errno.into()))?;
    mounts.iter().try_for_each(|(target, mount)| attach(mount, target).map_err(failed(target)))
}

/// A copy of the mounts at and beneath a path, which is nowhere yet.
fn clone_mount(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_RECURSIVE as libc::c_uint;
    // SAFETY: the path is a C string that lives through the call.
    own(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })
}

const MOVE_MOUNT_F_EMPTY_PATH: u32 = 4;

/// Mounts what is nowhere yet.
pub(crate) fn attach(mount: &OwnedFd, target: &Path) -> io::Result<()> {
    let target = CString::new(target.as_os_str().as_bytes())?;
    // SAFETY: both paths are C strings that live through the call.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    })?;
    Ok(())
}

pub(crate) fn own(fd: libc::c_long) -> io::Result<OwnedFd> {
    let fd = Errno::result(fd)?;
    // SAFETY: the kernel has just given us this descriptor, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Binds one path of the host onto the root file system, without ever following a link out of it. If the root file system is the container's `own`,
/// a link that leads nowhere makes way (an image's `/etc/resolv.conf` often is one).
fn bind_into(root: &Path, bind: &BindMount, own: bool) -> Result<(), RootFsError> {
    let shown = root.join(bind.target.strip_prefix("/").unwrap_or(&bind.target));
    let failed = |source: io::Error| RootFsError::Mount { target: shown.clone(), source };
    let directory = fs::metadata(&bind.source).map_err(failed)?.is_dir();
    let target = open_beneath(root, &bind.target, directory, own)?;
    // The kernel's own name for the file that is open, so that nobody can move a link in between.
    let target = PathBuf::from(format!("/proc/self/fd/{}", target.as_raw_fd()));
    let recursive = if bind.recursive { MsFlags::MS_REC } else { MsFlags::empty() };
    mount(Some(&bind.source), &target, None::<&str>, MsFlags::MS_BIND | recursive, None::<&str>)
        .map_err(|error| failed(error.into()))?;
    if bind.read_only {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        let again = open_beneath(root, &bind.target, directory, false)?;
        let again = PathBuf::from(format!("/proc/self/fd/{}", again.as_raw_fd()));
        mount(None::<&str>, &again, None::<&str>, flags, None::<&str>)
            .map_err(|error| failed(error.into()))?;
    }
    Ok(())
}

/// Makes a directory of the root file system, and those above, unless they are there.
pub(crate) fn make_directory(root: &Path, path: &Path) -> Result<(), RootFsError> {
    open_beneath(root, path, true, false).map(drop)
}

/// Opens `path` as if `root` were `/`; makes it, and the directories above, if absent.
fn open_beneath(root: &Path, path: &Path, directory: bool, replace_links: bool) -> Result<File, RootFsError> {
    let relative = path.strip_prefix("/").map_err(|_| RootFsError::Path(path.to_owned()))?;
    let failed = |source: io::Error| RootFsError::Mount { target: root.join(relative), source };
    let top = open_path(root).map_err(failed)?;
    let missing = Missing { directory, replace_links };
    make_beneath(&top, relative, missing, ResolveFlag::RESOLVE_IN_ROOT).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidInput => RootFsError::Path(path.to_owned()),
        _ => failed(error),
    })
}

/// What to do about a path that does not exist.
#[derive(Clone, Copy)]
pub(crate) struct Missing {
    /// Make a directory, rather than an empty file.
    pub directory: bool,
    /// Remove links that lead nowhere, and make what is asked for in their place.
    pub replace_links: bool,
}

/// Opens a path relative to `top`; makes it, and the directories above, if absent. `InvalidInput` means that the path is not a plain one.
pub(crate) fn make_beneath(
    top: &File,
    path: &Path,
    missing: Missing,
    flags: ResolveFlag,
) -> io::Result<File> {
    let parts = path.components().map(|part| match part {
        Component::Normal(name) => Ok(name),
        _ => Err(io::Error::from(io::ErrorKind::InvalidInput)),
    });
    let names = parts.collect::<io::Result<Vec<_>>>()?;
    let mut so_far = PathBuf::new();
    for (index, name) in names.iter().enumerate() {
        let parent = resolve(top, &so_far, flags)?;
        so_far.push(name);
        match resolve(top, &so_far, flags) {
            Ok(_) => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if missing.replace_links && nix::fcntl::readlinkat(&parent, *name).is_ok() {
            unlinkat(&parent, *name, UnlinkatFlags::NoRemoveDir)?;
        }
        if index + 1 < names.len() || missing.directory {
            mkdirat(&parent, *name, Mode::from_bits_truncate(0o755))?;
        } else {
            let new = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
            openat(&parent, *name, new, Mode::from_bits_truncate(0o644))?;
        }
    }
    resolve(top, &so_far, flags)
}

pub(crate) fn open_path(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(path)
}

/// Opens a path beneath `top`. With RESOLVE_IN_ROOT, links are followed as by a process whose root is `top`.
pub(crate) fn resolve(top: &File, path: &Path, flags: ResolveFlag) -> io::Result<File> {
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(flags);
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    Ok(File::from(openat2(top, path, how)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_do_not_lead_out_of_the_root() {
        let outside = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("link")).unwrap();
        fs::create_dir_all(root.path().join(outside.path().strip_prefix("/").unwrap())).unwrap();
        open_beneath(root.path(), Path::new("/link/made"), true, false).unwrap();
        assert!(!outside.path().join("made").exists());
        assert!(root.path().join(outside.path().strip_prefix("/").unwrap()).join("made").is_dir());
    }

    #[test]
    fn a_link_to_nowhere_makes_way_only_where_it_may() {
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/run/nowhere", root.path().join("link")).unwrap();
        assert!(open_beneath(root.path(), Path::new("/link"), false, false).is_err());
        open_beneath(root.path(), Path::new("/link"), false, true).unwrap();
        assert!(fs::symlink_metadata(root.path().join("link")).unwrap().is_file());
    }

    #[test]
    fn targets_are_made() {
        let root = tempfile::tempdir().unwrap();
        open_beneath(root.path(), Path::new("/a/b/file"), false, false).unwrap();
        assert!(root.path().join("a/b/file").is_file());
        assert!(matches!(
            open_beneath(root.path(), Path::new("/a/../b"), true, false),
            Err(RootFsError::Path(_))
        ));
    }
}
