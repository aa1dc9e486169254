//! Volumes: mounts that a container has for its user, beyond its root file system.
//!
//! Each is first opened as a mount that is attached nowhere (`open_tree(2)`), made read-only or a slave as a whole, with all mounts
//! beneath it (`mount_setattr(2)`), and only then, when the container was created, moved to its place in the container's own namespace
//! (`move_mount(2)`), with the container's root for `/`. So there is no moment at which a read-only volume could be written to, no link in
//! an image leads a mount out of the container, and nothing that `libcontainer` mounts covers a volume.
//!
//! What is on the host is opened in the host's namespace, before the shim has one of its own: only a copy of a mount from there is a
//! peer of it, and hears of later mounts or tells of them. What is made (stacked layers, the memory that holds secrets) is made
//! at a staging place in the shim's namespace, from which it is taken away again at once.
//!
//! Rules: `mount_namespaces(7)`, `open_tree(2)`, `mount_setattr(2)`; Linux 5.12.

use std::ffi::CStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::ResolveFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::Pid;

use crate::overlay::{self, OverlayError};
use crate::plan::{LaunchPlan, RootFs, Secrets, VolumePlan, VolumeSource, files};
use crate::rootfs::{self, Missing};

const OPEN_TREE_CLONE: libc::c_uint = 1;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x04;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;

/// A volume cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error("the volume's source {path} cannot be opened: {source}")]
    Source { path: PathBuf, source: io::Error },
    #[error("the volume at {target} cannot be made read-only or private (this takes Linux 5.12): {source}")]
    Attributes { target: PathBuf, source: io::Error },
    #[error("the volume at {target} cannot be made of its image: {source}")]
    Layers { target: PathBuf, source: OverlayError },
    #[error("the memory for a container's secrets cannot be had: {0}")]
    Memory(#[source] io::Error),
    #[error("the secret for {0} did not come with the launch")]
    NoSecret(PathBuf),
    #[error("the volume's place {target} in the container cannot be mounted on: {source}")]
    Target { target: PathBuf, source: io::Error },
    #[error(
        "the volume's place {0} in the container is a directory, and the volume is a file, or the other way round"
    )]
    Kind(PathBuf),
    #[error("the container's mount namespace cannot be entered: {0}")]
    Namespace(#[source] io::Error),
    #[error("the container's working directory {path} cannot be made: {source}")]
    Directory { path: PathBuf, source: io::Error },
}

/// The volumes of a container, attached nowhere.
pub(crate) struct Detached(Vec<Option<OwnedFd>>);

/// Opens what is on the host. To be called in the host's mount namespace.
pub(crate) fn open_on_host(plan: &LaunchPlan) -> Result<Detached, VolumeError> {
    let open = |volume: &VolumePlan| {
        let (path, opened) = match &volume.source {
            VolumeSource::Path { path } => (path.clone(), File::open_path(path)),
            VolumeSource::Beneath { top, path } => (top.join(path), open_beneath(top, path)),
            VolumeSource::Layers { .. } | VolumeSource::Secret { .. } => return Ok(None),
        };
        let failed = |source| VolumeError::Source { path: path.clone(), source };
        detach(&opened.map_err(failed)?).map_err(failed).map(Some)
    };
    plan.volumes.iter().map(open).collect::<Result<_, _>>().map(Detached)
}

impl Detached {
    /// Makes what is not on the host, and gives all their attributes. To be called in the shim's own mount namespace and in the
    /// runtime directory.
    pub(crate) fn complete(&mut self, plan: &LaunchPlan, secrets: &Secrets) -> Result<(), VolumeError> {
        self.make_secrets(plan, secrets)?;
        for (volume, mount) in plan.volumes.iter().zip(&mut self.0) {
            if let VolumeSource::Layers { lowers, writable } = &volume.source {
                let writable = writable.as_ref().map(|(upper, work)| (upper.as_path(), work.as_path()));
                *mount = Some(stack(lowers, writable, &volume.target)?);
            }
            if let Some(mount) = mount {
                set_attributes(mount, volume)?;
            }
        }
        Ok(())
    }

    fn make_secrets(&mut self, plan: &LaunchPlan, secrets: &Secrets) -> Result<(), VolumeError> {
        let is_secret = |volume: &VolumePlan| matches!(volume.source, VolumeSource::Secret { .. });
        if !plan.volumes.iter().any(is_secret) {
            return Ok(());
        }
        let staging = staging().map_err(VolumeError::Memory)?;
        mount_memory(&staging, secrets.files.iter().map(Vec::len).sum()).map_err(VolumeError::Memory)?;
        for (volume, mount) in plan.volumes.iter().zip(&mut self.0) {
            let VolumeSource::Secret { number } = volume.source else { continue };
            let content =
                secrets.files.get(number).ok_or_else(|| VolumeError::NoSecret(volume.target.clone()))?;
            let made = write_secret(&staging.join(number.to_string()), content, plan.stdio_owner);
            *mount = Some(made.map_err(VolumeError::Memory)?);
        }
        unstage(&staging).map_err(VolumeError::Memory)
    }

    /// Moves all to their places in a container that was created and not yet started, and makes the directory it starts in.
    pub(crate) fn attach(self, plan: &LaunchPlan, init: Pid) -> Result<(), VolumeError> {
        if self.0.is_empty() {
            return Ok(());
        }
        rootfs::in_namespace_of(init, || {
            let root = rootfs::open_path(Path::new("/")).map_err(VolumeError::Namespace)?;
            for (volume, mount) in plan.volumes.iter().zip(&self.0) {
                if let Some(mount) = mount {
                    put(&root, volume, mount, plan.rootfs != RootFs::Host)?;
                }
            }
            // It may be in a volume.
            match &plan.directory {
                Some(path) if plan.rootfs != RootFs::Host => make_directory(&root, path),
                _ => Ok(()),
            }
        })
        .map_err(VolumeError::Namespace)?
    }
}

/// Opening a file or directory only to say which one is meant.
trait OpenPath: Sized {
    fn open_path(path: &Path) -> io::Result<Self>;
}

impl OpenPath for File {
    fn open_path(path: &Path) -> io::Result<Self> {
        OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path)
    }
}

fn open_beneath(top: &Path, path: &Path) -> io::Result<File> {
    rootfs::resolve(&rootfs::open_path(top)?, path, ResolveFlag::RESOLVE_BENEATH)
}

/// A copy of the mount that a file is on, from that file on, with all mounts beneath; attached nowhere.
fn detach(file: &File) -> io::Result<OwnedFd> {
    let flags = OPEN_TREE_CLONE
        | libc::O_CLOEXEC.cast_unsigned()
        | libc::AT_EMPTY_PATH.cast_unsigned()
        | libc::AT_RECURSIVE.cast_unsigned();
    // SAFETY: takes integers and a C string that lives through the call.
    rootfs::own(unsafe { libc::syscall(libc::SYS_open_tree, file.as_raw_fd(), c"".as_ptr(), flags) })
}

fn set_attributes(mount: &OwnedFd, volume: &VolumePlan) -> Result<(), VolumeError> {
    let attributes = libc::mount_attr {
        attr_set: if volume.read_only { libc::MOUNT_ATTR_RDONLY } else { 0 },
        attr_clr: 0,
        propagation: if volume.shared { 0 } else { libc::MS_SLAVE },
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    // SAFETY: the path is a C string and the attributes a structure of the size given; both live through the call.
    let made = Errno::result(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &attributes,
            size_of::<libc::mount_attr>(),
        )
    });
    made.map(drop)
        .map_err(|errno| VolumeError::Attributes { target: volume.target.clone(), source: errno.into() })
}

fn stack(
    lowers: &[PathBuf],
    writable: Option<(&Path, &Path)>,
    target: &Path,
) -> Result<OwnedFd, VolumeError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| VolumeError::Source { path, source }
    };
    // One directory by itself is no stack to the kernel.
    if let ([only], None) = (lowers, writable) {
        return File::open_path(only).and_then(|layer| detach(&layer)).map_err(failed(only));
    }
    let staging = staging().map_err(failed(target))?;
    overlay::stack(lowers, writable, &staging)
        .map_err(|source| VolumeError::Layers { target: target.to_owned(), source })?;
    let stacked = File::open_path(&staging).and_then(|stack| detach(&stack)).map_err(failed(target))?;
    unstage(&staging).map_err(failed(target))?;
    Ok(stacked)
}

/// A directory to mount on for a moment.
fn staging() -> io::Result<PathBuf> {
    let path = PathBuf::from(files::STAGING);
    match fs::create_dir(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => path.canonicalize(),
    }
}

fn unstage(staging: &Path) -> io::Result<()> {
    Ok(umount2(staging, MntFlags::MNT_DETACH)?)
}

/// Mounts memory that is never written to a swap device: a tmpfs that is told so (Linux 6.4), else a ramfs, which never is.
fn mount_memory(target: &Path, bytes: usize) -> io::Result<()> {
    const ROOM: usize = 1 << 20;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let size = bytes.saturating_mul(2).saturating_add(ROOM);
    let tmpfs = format!("mode=0700,size={size},noswap");
    match mount(Some("tmpfs"), target, Some("tmpfs"), flags, Some(tmpfs.as_str())) {
        Err(Errno::EINVAL) => Ok(mount(Some("ramfs"), target, Some("ramfs"), flags, Some("mode=0700"))?),
        mounted => Ok(mounted?),
    }
}

fn write_secret(path: &Path, content: &[u8], (uid, gid): (u32, u32)) -> io::Result<OwnedFd> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    fchown(&file, Some(uid), Some(gid))?;
    detach(&File::open_path(path)?)
}

/// Mounts a volume at its place. If the root file system is the container's `own`, a link in its way that leads nowhere makes way.
fn put(root: &File, volume: &VolumePlan, mount: &OwnedFd, own: bool) -> Result<(), VolumeError> {
    let shown = match &volume.base {
        Some(base) => base.join(&volume.target),
        None => volume.target.clone(),
    };
    let failed = |source: io::Error| VolumeError::Target { target: shown.clone(), source };
    let directory = is_directory(mount).map_err(failed)?;
    let missing = Missing { directory, replace_links: own && volume.base.is_none() };
    let target = open_target(root, volume, missing).map_err(failed)?;
    if is_directory(&target).map_err(failed)? != directory {
        return Err(VolumeError::Kind(shown));
    }
    move_mount(mount, &target).map_err(failed)
}

fn open_target(root: &File, volume: &VolumePlan, missing: Missing) -> io::Result<File> {
    let as_root = ResolveFlag::RESOLVE_IN_ROOT;
    let beneath = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
    let base = volume.base.as_ref().map(|base| rootfs::resolve(root, base, as_root)).transpose()?;
    let (top, flags) = match &base {
        Some(base) => (base, beneath),
        None => (root, as_root),
    };
    let path = volume.target.strip_prefix("/").unwrap_or(&volume.target);
    if volume.create {
        return rootfs::make_beneath(top, path, missing, flags);
    }
    rootfs::resolve(top, path, flags)
}

fn make_directory(root: &File, path: &Path) -> Result<(), VolumeError> {
    let missing = Missing { directory: true, replace_links: false };
    let plain = path.strip_prefix("/").unwrap_or(path);
    rootfs::make_beneath(root, plain, missing, ResolveFlag::RESOLVE_IN_ROOT)
        .map(drop)
        .map_err(|source| VolumeError::Directory { path: path.to_owned(), source })
}

fn is_directory(file: &impl std::os::fd::AsFd) -> io::Result<bool> {
    let mode = nix::sys::stat::fstat(file)?.st_mode;
    Ok(mode & libc::S_IFMT == libc::S_IFDIR)
}

fn move_mount(mount: &OwnedFd, target: &File) -> io::Result<()> {
    let nothing: &CStr = c"";
    // SAFETY: takes integers and two C strings that live through the call.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            nothing.as_ptr(),
            target.as_raw_fd(),
            nothing.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
        )
    })?;
    Ok(())
}
