//! The shim's sockets: answers its peers until the container's first process has ended.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use crate::inside::{Exec, Grounds, Running};
use crate::logger::Logger;
use crate::processes::Processes;
use crate::protocol::{Event, Request, SignalScope, State, decode_line, encode_line};
use crate::terminal::Screen;
use crate::{handover, sys};

/// A request longer than this is not one. What a program is given (`Exec`) may be long.
const LONGEST_LINE: usize = 1024 * 1024;
/// Between two looks at what a program that has ended has left, in milliseconds. There is nothing to wait on: those are not our children.
const PAUSE: u8 = 3;

/// The peers of a shim, and what they are told.
pub(crate) struct Server {
    listener: UnixListener,
    peers: Vec<Peer>,
    state: State,
    /// Programs that are being ended, and whose peers are gone.
    orphans: Vec<Running>,
    /// Writes the container's output, if that is rotated.
    logger: Option<Logger>,
    /// Somebody asked for the start.
    start: bool,
    /// The terminal of the container's program.
    pub(crate) screen: Option<Screen>,
}

/// A container that was started.
struct Lively<'a> {
    grounds: &'a Grounds<'a>,
    processes: &'a Processes,
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
    /// What came along.
    files: Vec<OwnedFd>,
    /// The program that it has asked for.
    exec: Option<Running>,
    gone: bool,
}

impl Server {
    pub(crate) fn new(listener: UnixListener, control: UnixStream) -> Self {
        let _ = listener.set_nonblocking(true);
        let mut server = Self {
            listener,
            peers: Vec::new(),
            state: State::Creating,
            orphans: Vec::new(),
            logger: None,
            start: false,
            screen: None,
        };
        server.welcome(control, false);
        server
    }

    /// Has the container's output written as well.
    pub(crate) fn keep_output(&mut self, logger: Option<Logger>) {
        self.logger = logger;
    }

    /// Writes the last of the container's output, of which no process is left.
    pub(crate) fn finish_output(&mut self) {
        if let Some(logger) = self.logger.take() {
            logger.finish();
        }
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
    pub(crate) fn run_until_exit(&mut self, grounds: &Grounds<'_>, processes: &Processes) -> io::Result<()> {
        let ended = sys::pidfd_open(grounds.init)?;
        let lively = Lively { grounds, processes };
        while !self.serve(ended.as_fd(), Some(&lively))? {}
        Ok(())
    }

    /// Waits, and answers who has something to say. Tells whether the process has ended.
    fn serve(&mut self, ended: BorrowedFd<'_>, lively: Option<&Lively<'_>>) -> io::Result<bool> {
        let ready = self.wait(ended)?;
        if ready.screen
            && let Some(screen) = &mut self.screen
        {
            screen.read();
        }
        if ready.ended {
            return Ok(true);
        }
        for index in ready.peers {
            self.hear(index, lively);
        }
        for index in ready.execs {
            if let Some(exec) = self.peers.get_mut(index).and_then(|peer| peer.exec.as_mut()) {
                exec.take_status();
            }
        }
        if ready.listener {
            self.accept();
        }
        if ready.output
            && let Some(logger) = &mut self.logger
        {
            logger.go_on();
        }
        self.go_on();
        Ok(false)
    }

    fn wait(&self, ended: BorrowedFd<'_>) -> io::Result<Ready> {
        let of = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds = vec![of(ended), of(self.listener.as_fd())];
        fds.extend(self.peers.iter().map(|peer| of(peer.stream.as_fd())));
        let running = |(index, peer): (usize, &Peer)| peer.exec.as_ref()?.ended().map(|_| index);
        let execs: Vec<usize> = self.peers.iter().enumerate().filter_map(running).collect();
        fds.extend(self.peers.iter().filter_map(|peer| peer.exec.as_ref()?.ended()).map(of));
        let first_output = fds.len();
        fds.extend(self.logger.iter().flat_map(Logger::waiting).map(of));
        let screen = self.screen.as_ref().and_then(Screen::ready);
        let screen_at = screen.map(|_| fds.len());
        fds.extend(screen.map(of));
        let is_ending = |peer: &Peer| peer.exec.as_ref().is_some_and(Running::is_ending);
        let ending = !self.orphans.is_empty() || self.peers.iter().any(is_ending);
        let time = if ending { PollTimeout::from(PAUSE) } else { PollTimeout::NONE };
        match poll(&mut fds, time) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_ready = |index: usize| fds.get(index).is_some_and(|fd| fd.any().unwrap_or(false));
        let (peers, first_exec) = (self.peers.len(), 2 + self.peers.len());
        Ok(Ready {
            ended: is_ready(0),
            listener: is_ready(1),
            output: (first_output..fds.len()).any(is_ready),
            screen: screen_at.is_some_and(is_ready),
            peers: (0..peers).filter(|index| is_ready(2 + index)).collect(),
            execs: execs
                .into_iter()
                .zip(first_exec..)
                .filter(|(_, at)| is_ready(*at))
                .map(|(i, _)| i)
                .collect(),
        })
    }

    /// Goes on with the ends of programs, and forgets peers that are gone.
    fn go_on(&mut self) {
        for peer in &mut self.peers {
            let Some(exec) = &mut peer.exec else { continue };
            if peer.gone {
                exec.end(None);
            }
            if let Some(status) = exec.go_on() {
                peer.exec = None;
                peer.send(&Event::ExecEnded { status });
            }
        }
        let (gone, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.peers).into_iter().partition(|peer| peer.gone);
        self.peers = left;
        self.orphans.extend(gone.into_iter().filter_map(|peer| peer.exec));
        self.orphans.retain_mut(|exec| exec.go_on().is_none());
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
        let mut peer = Peer { stream, unread: Vec::new(), files: Vec::new(), exec: None, gone: false };
        if greet {
            peer.send(&Event::State(self.state.clone()));
        }
        self.peers.push(peer);
    }

    fn hear(&mut self, index: usize, lively: Option<&Lively<'_>>) {
        let keepers = self.keepers();
        let Some(peer) = self.peers.get_mut(index) else { return };
        for line in peer.receive() {
            let request = match decode_line::<Request>(&line) {
                Ok(request) => request,
                Err(error) => {
                    peer.send(&Event::Refused { message: error.to_string() });
                    continue;
                }
            };
            let answer = match request {
                Request::Ping => Ok(Event::Pong),
                // Answered by the next state.
                Request::Start => {
                    self.start = true;
                    continue;
                }
                Request::Signal { number, scope } => signal(lively, number, scope, &keepers),
                Request::Terminal => match self.screen.as_ref().map(Screen::master) {
                    Some(Ok(master)) => {
                        peer.send_with(&Event::Terminal, Some(master));
                        continue;
                    }
                    Some(Err(error)) => Err(format!("the terminal cannot be shared: {error}")),
                    None => Err("the container's program has no terminal".to_owned()),
                },
                Request::SignalExec { number } => peer.signal_exec(number),
                Request::Exec(exec) => match peer.begin(&exec, lively, self.logger.as_mut()) {
                    Ok(()) => continue,
                    Err(message) => Err(message),
                },
            };
            peer.send(&answer.unwrap_or_else(|message| Event::Refused { message }));
        }
    }

    /// The processes that look after programs beside the container's own. They pass on what they get.
    fn keepers(&self) -> Vec<Pid> {
        let of_peers = self.peers.iter().filter_map(|peer| peer.exec.as_ref());
        of_peers.chain(&self.orphans).map(|exec| exec.keeper).collect()
    }
}

/// Who has something to say.
struct Ready {
    /// The container's first process: its end.
    ended: bool,
    listener: bool,
    /// The container's output.
    output: bool,
    /// The program has written to its terminal.
    screen: bool,
    peers: Vec<usize>,
    /// The peers whose programs have.
    execs: Vec<usize>,
}

const NOT_STARTED: &str = "the container has not been started";

fn signal(
    lively: Option<&Lively<'_>>,
    number: i32,
    scope: SignalScope,
    except: &[Pid],
) -> Result<Event, String> {
    let Lively { processes, .. } = lively.ok_or_else(|| NOT_STARTED.to_owned())?;
    match processes.signal(number, scope, except) {
        Ok(()) => Ok(Event::Signalled),
        Err(error) => Err(format!("signal {number} cannot be sent: {error}")),
    }
}

impl Peer {
    /// Sends without ever waiting: a peer that does not read is given up; it can connect again.
    fn send(&mut self, event: &Event) {
        self.send_with(event, None);
    }

    fn send_with(&mut self, event: &Event, file: Option<OwnedFd>) {
        let sent = encode_line(event).map_err(io::Error::other).and_then(|line| {
            let sent = handover::send(&self.stream, &line, file.as_ref().map(AsFd::as_fd).as_slice())?;
            if sent == line.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
        });
        self.gone |= sent.is_err();
    }

    /// Runs a program for it.
    fn begin(
        &mut self,
        exec: &Exec,
        lively: Option<&Lively<'_>>,
        logger: Option<&mut Logger>,
    ) -> Result<(), String> {
        let files = std::mem::take(&mut self.files);
        let Lively { grounds, .. } = lively.ok_or_else(|| NOT_STARTED.to_owned())?;
        if self.exec.is_some() {
            return Err("this connection has a program that runs; use another".to_owned());
        }
        let (running, terminal) = grounds.begin(exec, files, logger).map_err(|error| error.to_string())?;
        let started = Event::ExecStarted { pid: running.keeper.as_raw() };
        self.exec = Some(running);
        self.send_with(&started, terminal);
        Ok(())
    }

    fn signal_exec(&mut self, number: i32) -> Result<Event, String> {
        let exec = self.exec.as_mut().ok_or("this connection has no program that runs")?;
        exec.signal(number).map_err(|error| format!("signal {number} cannot be sent: {error}"))?;
        Ok(Event::Signalled)
    }

    fn receive(&mut self) -> Vec<Vec<u8>> {
        loop {
            match handover::receive(&self.stream) {
                Ok((bytes, _)) if bytes.is_empty() => self.gone = true,
                Ok((bytes, files)) => {
                    self.unread.extend(bytes);
                    self.files.extend(files);
                    // No request has more.
                    self.files.truncate(3);
                    if self.unread.len() <= LONGEST_LINE {
                        continue;
                    }
                    self.gone = true;
                }
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
