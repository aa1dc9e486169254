//! The first process of a container without a program: it holds the namespaces that the containers nested in it share, adopts what they
//! leave in a process namespace that they share, and waits.
//!
//! It is forked from the shim, with the namespaces that the OCI runtime spec asks for but for mounts, in a fraction of the time that a
//! whole container takes. It never executes anything and has no file open, so it can keep the shim's view of the file system.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use libcontainer::oci_spec::runtime::{LinuxNamespaceType, Spec};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::{set_dumpable, set_name, set_pdeathsig};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, setsid};

use crate::sys;

/// Forks a holder with the namespaces of this spec.
pub(crate) fn start(spec: &Spec) -> io::Result<Pid> {
    let linux = spec.linux().as_ref();
    let all = linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    let (mut new, mut shared) = (CloneFlags::empty(), Vec::new());
    for namespace in all {
        let flag = flag(namespace.typ());
        match namespace.path() {
            // Those of its parent. That of processes is entered by children only, and so before the fork.
            Some(path) if flag == CloneFlags::CLONE_NEWPID => setns(File::open(path)?.as_fd(), flag)?,
            Some(path) => shared.push((flag, File::open(path)?)),
            None => new |= flag,
        }
    }
    let shim = sys::pidfd_open(Pid::this())?;
    let flags = libc::c_long::from(new.bits() | libc::SIGCHLD);
    // SAFETY: without CLONE_VM this is a fork, of a process that has one thread; all arguments but the flags are unused.
    let forked = Errno::result(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })?;
    if forked != 0 {
        return Ok(Pid::from_raw(i32::try_from(forked).map_err(io::Error::other)?));
    }
    let code = match be(
        &shim,
        &shared,
        spec.hostname().as_deref().filter(|_| new.contains(CloneFlags::CLONE_NEWUTS)),
    ) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("a container without a program cannot be held: {error}");
            1
        }
    };
    // SAFETY: ends this forked process at once; the exit handlers are the agent's.
    unsafe { libc::_exit(code) }
}

fn flag(kind: LinuxNamespaceType) -> CloneFlags {
    match kind {
        LinuxNamespaceType::Ipc => CloneFlags::CLONE_NEWIPC,
        LinuxNamespaceType::Uts => CloneFlags::CLONE_NEWUTS,
        LinuxNamespaceType::Network => CloneFlags::CLONE_NEWNET,
        LinuxNamespaceType::Pid => CloneFlags::CLONE_NEWPID,
        // It mounts nothing, and its user is the host's.
        _ => CloneFlags::empty(),
    }
}

/// Holds until SIGTERM.
fn be(shim: &OwnedFd, shared: &[(CloneFlags, File)], hostname: Option<&str>) -> io::Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    if has_ended(shim)? {
        // Before the kernel knew of the wish to end with it.
        return Ok(());
    }
    let signals = SigSet::all();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&signals), None)?;
    let _ = set_name(c"tepui-holder");
    // What shares its process namespace is not to look through it at the host's files.
    set_dumpable(false)?;
    let _ = setsid();
    for (flag, namespace) in shared {
        setns(namespace.as_fd(), *flag)?;
    }
    if let Some(name) = hostname {
        nix::unistd::sethostname(name)?;
    }
    let null = File::options().read(true).write(true).open("/dev/null")?;
    for fd in 0..3 {
        sys::redirect(&null, fd)?;
    }
    std::env::set_current_dir("/")?;
    debug_assert!(null.as_raw_fd() > 2, "it is closed with all others");
    std::mem::forget(null);
    sys::close_all_but(&[]);
    sys::trim_heap();
    loop {
        match signals.wait() {
            Ok(Signal::SIGTERM) => return Ok(()),
            Ok(Signal::SIGCHLD) => reap(),
            // Others say nothing to it.
            Ok(_) | Err(_) => {}
        }
    }
}

fn has_ended(process: &OwnedFd) -> io::Result<bool> {
    let mut ended = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut ended, PollTimeout::ZERO)? > 0)
}

fn reap() {
    while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive)
    {
    }
}
