//! The option `favordynmods`: attaching a process costs microseconds instead of an RCU grace period.
//!
//! Writing to `cgroup.procs` takes a system-wide lock whose readers, fork and exit, were made free of cost; the writer
//! pays for it by waiting for an RCU grace period, 7 to 16 ms. `favordynmods` (Linux 6.0; `cgroup-v2.rst`, "Mounting") turns that
//! round: fork and exit pay some nanoseconds, the writer does not wait. It is an option of a tree, but the lock is one for all
//! trees, so that setting it on the v2 tree is enough, also for v1 trees, and also where v2 is not mounted at all:
//! the tree exists all the same, and `fsopen` reaches it without a mount.
//!
//! Newer kernels (6.18) use finer locks from the first time it was set until the next boot, whatever is set later.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use super::{CgroupError, Hierarchies};

const OPTION: &CStr = c"favordynmods";
/// `enum fsconfig_command` of `linux/mount.h`.
const FSCONFIG_SET_FLAG: libc::c_long = 0;
const FSCONFIG_CMD_CREATE: libc::c_long = 6;
const FSOPEN_CLOEXEC: libc::c_long = 1;

/// Makes attaching processes to cgroups fast on this host, or, when `on` is false, fork and exit.
///
/// The other options of the tree stay as they are. Concerns all cgroups of the host, and outlives this process.
///
/// # Errors
/// When the kernel is older than 6.0, or the process may not change the tree (it needs `CAP_SYS_ADMIN`).
pub fn favor_dynmods(on: bool) -> Result<(), CgroupError> {
    let hierarchies = Hierarchies::detect()?;
    // The options replace the old ones as a whole, so those that stay are said again.
    let options = hierarchies.unified().map(|tree| tree.options.clone()).unwrap_or_default();
    let stay =
        options.into_iter().filter(|option| !matches!(option.as_str(), "rw" | "ro" | "favordynmods" | ""));
    let failed = |source| CgroupError::io("change the options of the tree of", "cgroup2", source);
    let context = open_context().map_err(failed)?;
    for option in stay {
        let option = CString::new(option).map_err(|error| failed(error.into()))?;
        configure(&context, FSCONFIG_SET_FLAG, option.as_ptr()).map_err(failed)?;
    }
    if on {
        configure(&context, FSCONFIG_SET_FLAG, OPTION.as_ptr()).map_err(CgroupError::NoFavorDynmods)?;
    }
    configure(&context, FSCONFIG_CMD_CREATE, ptr::null()).map_err(failed)
}

fn open_context() -> io::Result<OwnedFd> {
    // SAFETY: fsopen takes a NUL-terminated name and a flag, and answers a descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_fsopen, c"cgroup2".as_ptr(), FSOPEN_CLOEXEC) };
    match RawFd::try_from(fd) {
        // SAFETY: the descriptor is new, and nobody else knows it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

fn configure(context: &OwnedFd, command: libc::c_long, key: *const libc::c_char) -> io::Result<()> {
    let none = ptr::null::<libc::c_void>();
    // SAFETY: `key` is null or points to a NUL-terminated text that outlives the call; these commands take no value.
    match unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, key, none, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
