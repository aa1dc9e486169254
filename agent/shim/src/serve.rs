//! The shim's sockets: answers its peers until the container's first process has ended.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use crate::processes::Processes;
use crate::protocol::{Event, Request, State, decode_line, encode_line};
use crate::sys;

/// A request longer than this is not one.
const LONGEST_LINE: usize = 64 * 1024;

/// The peers of a shim, and what they are told.
pub(crate) struct Server {
    listener: UnixListener,
    peers: Vec<Peer>,
    state: State,
    /// Somebody asked for the start.
    start: bool,
}

/// What became of a container that was held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    /// It is to be started.
    Started,
    /// All peers have gone away.
    Abandoned,
}

struct Peer {
    stream: UnixStream,
    unread: Vec<u8>,
    gone: bool,
}

impl Server {
    pub(crate) fn new(listener: UnixListener, control: UnixStream) -> Self {
        let _ = listener.set_nonblocking(true);
        let mut server = Self { listener, peers: Vec::new(), state: State::Creating, start: false };
        server.welcome(control, false);
        server
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

    /// Serves until somebody asks for the start, or nobody is left to do so.
    pub(crate) fn hold(&mut self, init: Pid) -> io::Result<Held> {
        let ended = sys::pidfd_open(init)?;
        while !self.start {
            if self.peers.is_empty() {
                return Ok(Held::Abandoned);
            }
            if self.serve(ended.as_fd(), None)? {
                return Err(io::Error::other("the container's first process ended before it was started"));
            }
        }
        Ok(Held::Started)
    }

    /// Serves until the process has ended. It is left to be reaped.
    pub(crate) fn run_until_exit(&mut self, init: Pid, processes: &Processes) -> io::Result<()> {
        let ended = sys::pidfd_open(init)?;
        while !self.serve(ended.as_fd(), Some(processes))? {}
        Ok(())
    }

    /// Waits, and answers who has something to say. Tells whether the process has ended.
    fn serve(&mut self, ended: BorrowedFd<'_>, processes: Option<&Processes>) -> io::Result<bool> {
        let ready = self.wait(ended)?;
        if ready.first() == Some(&true) {
            return Ok(true);
        }
        for (index, _) in ready.iter().skip(2).enumerate().filter(|(_, ready)| **ready) {
            self.hear(index, processes);
        }
        if ready.get(1) == Some(&true) {
            self.accept();
        }
        self.peers.retain(|peer| !peer.gone);
        Ok(false)
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

    fn hear(&mut self, index: usize, processes: Option<&Processes>) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        for line in peer.receive() {
            let answer = match decode_line::<Request>(&line) {
                Ok(Request::Ping) => Event::Pong,
                // Answered by the next state.
                Ok(Request::Start) => {
                    self.start = true;
                    continue;
                }
                Ok(Request::Signal { number, scope }) => match processes.map(|all| all.signal(number, scope))
                {
                    Some(Ok(())) => Event::Signalled,
                    Some(Err(error)) => {
                        Event::Refused { message: format!("signal {number} cannot be sent: {error}") }
                    }
                    None => Event::Refused { message: "the container has not been started".to_owned() },
                },
                Err(error) => Event::Refused { message: error.to_string() },
            };
            peer.send(&answer);
        }
    }
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
