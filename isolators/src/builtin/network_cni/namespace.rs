//! The network namespace of a container: held by a bind mount, so that it outlives the container's processes until all is detached.
//!
//! The mount is made in the agent's mount namespace. Shims that begin while it is there have it too; removing the file beneath it takes it
//! from all of them (the kernel detaches the mounts on a file that is removed in another namespace).

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, statfs};

/// Mounts the network namespace of a process at `handle`; one that is mounted there already stays.
pub(super) fn hold(pid: u32, handle: &Path) -> io::Result<()> {
    if is_held(handle) {
        return Ok(());
    }
    File::options().create(true).append(true).open(handle)?;
    let source = format!("/proc/{pid}/ns/net");
    mount(Some(source.as_str()), handle, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Ok(())
}

/// Whether a namespace is mounted there.
pub(super) fn is_held(handle: &Path) -> bool {
    statfs(handle).is_ok_and(|found| found.filesystem_type() == NSFS_MAGIC)
}

/// Unmounts it, and removes the file. That there is none is fine.
pub(super) fn release(handle: &Path) -> io::Result<()> {
    while is_held(handle) {
        match umount2(handle, MntFlags::MNT_DETACH) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => break,
            Err(error) => return Err(error.into()),
        }
    }
    match fs::remove_file(handle) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Does something in a network namespace, on a thread that ends with it, so that no other work ever finds itself there.
pub(super) fn within<T: Send>(handle: &Path, act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let namespace = File::open(handle)?;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, || {
            setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
            act()
        })?;
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread in the network namespace panicked")))
    })
}
