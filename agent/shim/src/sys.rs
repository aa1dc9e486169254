//! The few system calls that `nix` does not wrap.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::unistd::Pid;

use crate::exit::Usage;

/// A file that becomes readable when the process ends (`pidfd_open(2)`).
pub(crate) fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two integers and has no effect on memory.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    // SAFETY: the kernel has just given us this descriptor, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Waits for a child: its raw status and what it and those it waited for have used.
pub(crate) fn wait4(pid: Pid) -> io::Result<(i32, Usage)> {
    let mut status = 0;
    // SAFETY: rusage is plain integers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live local variables of the right types.
        match Errno::result(unsafe { libc::wait4(pid.as_raw(), &mut status, 0, &mut usage) }) {
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let micros = |time: libc::timeval| time.tv_sec * 1_000_000 + time.tv_usec;
    let usage = Usage {
        user_us: micros(usage.ru_utime),
        system_us: micros(usage.ru_stime),
        max_rss_kib: usage.ru_maxrss,
    };
    Ok((status, usage))
}

/// As `waitpid(2)` that does not wait: the raw status of a child that has ended. One that is no child has ended, nobody knows how.
pub(crate) fn wait_if_ended(pid: Pid) -> Option<i32> {
    let mut status = 0;
    // SAFETY: the pointer is to a live local variable.
    match Errno::result(unsafe { libc::waitpid(pid.as_raw(), &mut status, libc::WNOHANG) }) {
        Ok(0) | Err(Errno::EINTR) => None,
        Ok(_) => Some(status),
        Err(_) => Some(libc::SIGKILL),
    }
}

/// Forks a child whose parent is this process' parent.
///
/// # Safety
/// This process must have one thread.
pub(crate) unsafe fn fork_sibling() -> libc::c_long {
    let flags = libc::c_long::from(libc::CLONE_PARENT | libc::SIGCHLD);
    let none: libc::c_long = 0;
    // SAFETY: neither memory nor a stack is shared, so that the child goes on as after fork; all pointers are absent.
    unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, none) }
}

/// Closes every descriptor from 3 up, except those in `keep`.
///
/// For a process that was just forked and will not touch the objects that owned them.
pub(crate) fn close_all_but(keep: &[RawFd]) {
    let mut keep: Vec<u32> =
        keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).filter(|fd| *fd >= 3).collect();
    keep.sort_unstable();
    let mut first = 3;
    for fd in keep {
        if fd > first {
            close_range(first, fd - 1);
        }
        first = fd + 1;
    }
    close_range(first, u32::MAX);
}

fn close_range(first: u32, last: u32) {
    // SAFETY: takes integers only. The caller promises that no owner of these descriptors is used again in this process.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
}

/// Empties this process' environment.
pub(crate) fn clear_environment() {
    // SAFETY: only called in the container's first process, which has one thread and holds no pointer into the environment.
    unsafe { libc::clearenv() };
}

/// Gives memory that the allocator holds but does not use back to the kernel.
pub(crate) fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes an integer; the allocator keeps its own data consistent.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Makes descriptor `to` refer to what `from` refers to.
pub(crate) fn redirect(from: &impl AsRawFd, to: RawFd) -> io::Result<()> {
    // SAFETY: takes integers; `to` is one of the three standard descriptors, which no Rust object owns.
    Errno::result(unsafe { libc::dup2(from.as_raw_fd(), to) })?;
    Ok(())
}

/// Gives every signal its default disposition. Ignored ones would stay ignored across an exec, and Rust ignores SIGPIPE.
pub(crate) fn default_signals() {
    for number in 1..=libc::SIGRTMAX() {
        // SAFETY: the default disposition runs no code; numbers that cannot be changed are refused without effect.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
}
