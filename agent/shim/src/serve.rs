//! The shim's sockets: answers its peers until the container's first process has ended.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use crate::protocol::{Event, Request, SignalScope, State, decode_line, encode_line};
use crate::sys;

/// A request longer than this is not one.
const LONGEST_LINE: usize = 64 * 1024;

/// The peers of a shim, and what they are told.
pub(crate) struct Server {
    listener: UnixListener,
    peers: Vec<Peer>,
    state: State,
    program: Option<Program>,
}

struct Program {
    init: Pid,
    cgroup_procs: Option<PathBuf>,
}

struct Peer {
    stream: UnixStream,
    unread: Vec<u8>,
    gone: bool,
}

impl Server {
    pub(crate) fn new(listener: UnixListener, control: UnixStream) -> Self {
        let _ = listener.set_nonblocking(true);
        let mut server = Self { listener, peers: Vec::new(), state: State::Creating, program: None };
        server.welcome(control, false);
        server
    }

    /// From here on signals can be sent.
    pub(crate) fn program(&mut self, init: Pid, cgroup_procs: Option<PathBuf>) {
        self.program = Some(Program { init, cgroup_procs });
    }

    /// Tells every peer, those included that have connected but were not looked at yet.
    pub(crate) fn announce(&mut self, state: State) {
        self.state = state;
        let event = Event::State(self.state.clone());
        for peer in &mut self.peers {
            peer.send(&event);
        }
        self.accept();
        self.peers.retain(|peer| !peer.gone);
    }

    /// Serves until the process has ended. It is left to be reaped.
    pub(crate) fn run_until_exit(&mut self, init: Pid) -> io::Result<()> {
        let ended = sys::pidfd_open(init)?;
        loop {
            let ready = self.wait(ended.as_fd())?;
            if ready.first() == Some(&true) {
                return Ok(());
            }
            for (index, _) in ready.iter().skip(2).enumerate().filter(|(_, ready)| **ready) {
                self.hear(index);
            }
            if ready.get(1) == Some(&true) {
                self.accept();
            }
            self.peers.retain(|peer| !peer.gone);
        }
    }

    /// Which of these have something to say: the process, the listener, each peer in order.
    fn wait(&self, ended: BorrowedFd<'_>) -> io::Result<Vec<bool>> {
        let mut fds = vec![
            PollFd::new(ended, PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
        ];
        fds.extend(self.peers.iter().map(|peer| PollFd::new(peer.stream.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(fds.iter().map(|fd| fd.any().unwrap_or(false)).collect()),
            Err(error) => Err(error.into()),
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            self.welcome(stream, true);
        }
    }

    fn welcome(&mut self, stream: UnixStream, greet: bool) {
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        let mut peer = Peer { stream, unread: Vec::new(), gone: false };
        if greet {
            peer.send(&Event::State(self.state.clone()));
        }
        self.peers.push(peer);
    }

    fn hear(&mut self, index: usize) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        for line in peer.receive() {
            let answer = match decode_line::<Request>(&line) {
                Ok(Request::Ping) => Event::Pong,
                Ok(Request::Signal { number, scope }) => match self.program.as_ref() {
                    Some(program) => program.signal(number, scope),
                    None => Event::Refused { message: "the container has not been started".to_owned() },
                },
                Err(error) => Event::Refused { message: error.to_string() },
            };
            peer.send(&answer);
        }
    }
}

impl Program {
    fn signal(&self, number: i32, scope: SignalScope) -> Event {
        let sent = match scope {
            SignalScope::Program => send(self.init, number),
            SignalScope::All => self.signal_all(number),
        };
        match sent {
            Ok(()) => Event::Signalled,
            Err(error) => Event::Refused { message: format!("signal {number} cannot be sent: {error}") },
        }
    }

    fn signal_all(&self, number: i32) -> io::Result<()> {
        let Some(path) = &self.cgroup_procs else { return send(self.init, number) };
        let list = std::fs::read_to_string(path)?;
        for pid in list.lines().filter_map(|line| line.parse().ok()) {
            // The minimal init would pass it on to the program, which is in the list itself.
            if pid == self.init.as_raw() && number != libc::SIGKILL && list.lines().count() > 1 {
                continue;
            }
            match send(Pid::from_raw(pid), number) {
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                other => other?,
            }
        }
        Ok(())
    }
}

fn send(pid: Pid, number: i32) -> io::Result<()> {
    // SAFETY: takes integers only. Not `nix`'s, which has no real-time signals. The process is our unreaped child, or in a cgroup just read.
    Errno::result(unsafe { libc::kill(pid.as_raw(), number) })?;
    Ok(())
}

impl Peer {
    /// Sends without ever waiting: a peer that does not read is given up; it can connect again.
    fn send(&mut self, event: &Event) {
        let sent = encode_line(event).map_err(io::Error::other).and_then(|line| self.stream.write_all(&line));
        self.gone |= sent.is_err();
    }

    fn receive(&mut self) -> Vec<Vec<u8>> {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.gone = true,
                Ok(length) => {
                    self.unread.extend_from_slice(&buffer[..length]);
                    if self.unread.len() <= LONGEST_LINE {
                        continue;
                    }
                    self.gone = true;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => self.gone = true,
            }
            break;
        }
        let mut lines = Vec::new();
        while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
            lines.push(self.unread.drain(..=end).collect());
        }
        lines
    }
}
