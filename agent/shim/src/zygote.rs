//! The zygote: a small process without threads, forked from the agent before the agent starts its own, from which shims are forked.
//!
//! The agent's end is [`Zygote`]. Requests travel over a sequenced-packet socket: the bytes are the path of the
//! container's runtime directory; two open files come with them, the shim's end of the control connection and the lock of
//! [`Liveness`], and a third, in memory, for a container that has [`Secrets`]. There is no answer: if no shim can be forked, the control connection closes without a word. The zygote ends
//! when the agent's end is closed; its shims live on.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::memfd::memfd_create;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    socketpair,
};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, setsid};

use crate::liveness::{Liveness, LivenessError};
use crate::plan::Secrets;
use crate::{shim, sys};

/// The agent's handle on its zygote. Dropping it ends the zygote, not the shims.
#[derive(Debug)]
pub struct Zygote {
    socket: Option<OwnedFd>,
    pid: Pid,
}

/// The zygote cannot be made or asked.
#[derive(Debug, thiserror::Error)]
pub enum ZygoteError {
    /// There is more than one thread already.
    #[error("the zygote must be forked before the first thread is started, but there are {0} threads")]
    Threads(usize),
    /// A system call failed.
    #[error("the zygote cannot be forked: {0}")]
    Fork(#[source] io::Error),
    /// The container's runtime directory cannot be named in a request.
    #[error("{0} is longer than a request to the zygote may be (4096 bytes)")]
    PathTooLong(PathBuf),
    /// The zygote does not take requests.
    #[error("the zygote does not answer ({0}); restart the agent, containers will not be harmed")]
    Gone(#[source] io::Error),
    /// Somebody looks after this container already.
    #[error(transparent)]
    Liveness(#[from] LivenessError),
    /// The container's secrets cannot be handed over.
    #[error("the container's secrets cannot be handed to its shim: {0}")]
    Secrets(#[source] io::Error),
}

const LONGEST_PATH: usize = 4096;

impl Zygote {
    /// Forks the zygote. To be called at the start of `main`, before any thread exists.
    pub fn fork() -> Result<Self, ZygoteError> {
        let threads = std::fs::read_dir("/proc/self/task").map_err(ZygoteError::Fork)?.count();
        if threads != 1 {
            return Err(ZygoteError::Threads(threads));
        }
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .map_err(|error| ZygoteError::Fork(error.into()))?;
        // SAFETY: this process has one thread, as was just checked, so the child may do anything.
        match unsafe { fork() }.map_err(|error| ZygoteError::Fork(error.into()))? {
            ForkResult::Parent { child } => Ok(Self { socket: Some(ours), pid: child }),
            ForkResult::Child => {
                drop(ours);
                let code = std::panic::catch_unwind(|| serve(theirs)).unwrap_or(70);
                // SAFETY: ends the process at once, as is due in a fork: exit handlers belong to the parent.
                unsafe { libc::_exit(code) }
            }
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// Asks for a shim for the container with this runtime directory, and returns the connection to it.
    ///
    /// The connection carries the shim's events (see [`crate::protocol`]). If it closes without one, there was no shim.
    pub fn launch(&self, dir: &Path) -> Result<UnixStream, ZygoteError> {
        self.launch_with(dir, &Secrets::default())
    }

    /// As [`Self::launch`], for a container that has secrets.
    pub fn launch_with(&self, dir: &Path, secrets: &Secrets) -> Result<UnixStream, ZygoteError> {
        let path = dir.as_os_str().as_bytes();
        if path.len() > LONGEST_PATH {
            return Err(ZygoteError::PathTooLong(dir.to_owned()));
        }
        let alive = Liveness::take(dir)?;
        let (ours, theirs) = UnixStream::pair().map_err(ZygoteError::Gone)?;
        let secrets = if secrets.is_empty() { None } else { Some(in_memory(secrets)?) };
        let mut files = vec![theirs.as_raw_fd(), alive.as_fd().as_raw_fd()];
        files.extend(secrets.as_ref().map(AsRawFd::as_raw_fd));
        let socket =
            self.socket.as_ref().ok_or_else(|| ZygoteError::Gone(io::ErrorKind::NotConnected.into()))?;
        loop {
            let sent = sendmsg::<()>(
                socket.as_raw_fd(),
                &[IoSlice::new(path)],
                &[ControlMessage::ScmRights(&files)],
                MsgFlags::MSG_NOSIGNAL,
                None,
            );
            match sent {
                Ok(_) => return Ok(ours),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(ZygoteError::Gone(error.into())),
            }
        }
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        drop(self.socket.take());
        let _ = waitpid(self.pid, None);
    }
}

/// The zygote's life. Returns its exit code.
fn serve(socket: OwnedFd) -> i32 {
    let _ = setsid();
    let _ = nix::sys::prctl::set_name(c"tepui-zygote");
    // SAFETY: the default and ignoring dispositions run no code.
    let _ = unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) };
    if let Ok(null) = File::open("/dev/null") {
        let _ = sys::redirect(&null, 0);
    }
    sys::close_all_but(&[socket.as_raw_fd()]);
    loop {
        let (dir, control, alive, secrets) = match receive(&socket) {
            Ok(Some(request)) => request,
            Ok(None) => return 0,
            Err(Errno::EINTR | Errno::EBADMSG) => continue,
            Err(_) => return 71,
        };
        // SAFETY: the zygote never has a second thread.
        if let Ok(ForkResult::Child) = unsafe { fork() } {
            drop(socket);
            return shim::run(&dir, control, alive, secrets);
        }
    }
}

type Order = (PathBuf, UnixStream, OwnedFd, Option<File>);

/// A file that is on no disk.
fn in_memory(secrets: &Secrets) -> Result<File, ZygoteError> {
    let write = || {
        let mut file = File::from(memfd_create("tepui-secrets", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)?);
        file.write_all(&serde_json::to_vec(secrets)?)?;
        file.rewind()?;
        Ok(file)
    };
    write().map_err(ZygoteError::Secrets)
}

fn receive(socket: &OwnedFd) -> Result<Option<Order>, Errno> {
    let mut path = vec![0; LONGEST_PATH];
    let mut ancillary = nix::cmsg_space!([RawFd; 3]);
    let mut parts = [IoSliceMut::new(&mut path)];
    let message =
        recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut ancillary), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let length = message.bytes;
    let mut files: Vec<OwnedFd> = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = part {
            // SAFETY: the kernel has just installed these descriptors for us; nobody else owns them.
            files.extend(fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    if length == 0 && files.is_empty() {
        return Ok(None);
    }
    path.truncate(length);
    let mut files = files.into_iter();
    let (Some(control), Some(alive)) = (files.next(), files.next()) else { return Err(Errno::EBADMSG) };
    let secrets = files.next().map(File::from);
    Ok(Some((PathBuf::from(OsStr::from_bytes(&path)), UnixStream::from(control), alive, secrets)))
}
