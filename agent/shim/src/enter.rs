//! The peer's side of running a program in a container: [`enter`].

use std::io::{self, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::handover;
use crate::inside::Exec;
use crate::protocol::{Event, ProtocolError, Request, connect, decode_line, encode_line};

/// How long a shim may take to start a program. It answers in milliseconds unless the machine is in trouble.
const PATIENCE: Duration = Duration::from_secs(30);

/// A program that was started in a container.
#[derive(Debug)]
pub struct Entered {
    /// The connection. [`Event::ExecEnded`] comes by it; closing it ends the program.
    pub connection: UnixStream,
    /// What has come by it and was not looked at.
    pub unread: Vec<u8>,
    /// The parent of its first process, as the host sees it.
    pub pid: i32,
    /// The other end of its terminal, if it has one.
    pub terminal: Option<OwnedFd>,
}

/// Why a program was not started.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// There is no shim, or it is gone.
    #[error("the container does not run, or ends ({0})")]
    Gone(#[source] io::Error),
    /// The shim said something else than was expected.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The shim does not want to.
    #[error("{0}")]
    Refused(String),
}

/// Has a program run in the container with this runtime directory. `files` are input, output and errors for [`crate::ExecStdio::Passed`], else none.
/// Blocks until it is started.
///
/// # Errors
/// When the container does not run, or the program cannot be started in it. One that cannot be executed is started, says so on its standard
/// error, and ends with status 1.
pub fn enter(dir: &Path, exec: &Exec, files: &[BorrowedFd<'_>]) -> Result<Entered, EnterError> {
    let mut asked = Asked::new(dir, &Request::Exec(exec.clone()), files)?;
    loop {
        if let Event::ExecStarted { pid } = asked.event()? {
            let Asked { connection, unread, file } = asked;
            return Ok(Entered { connection, unread, pid, terminal: file });
        }
    }
}

/// The other end of the terminal that the program of the container with this runtime directory has: for typing and resizing. Blocks for a moment.
///
/// # Errors
/// When the container does not run, or has no terminal.
pub fn terminal_of(dir: &Path) -> Result<OwnedFd, EnterError> {
    let mut asked = Asked::new(dir, &Request::Terminal, &[])?;
    loop {
        if asked.event()? == Event::Terminal {
            return asked.file.ok_or_else(|| EnterError::Refused("no terminal came along".to_owned()));
        }
    }
}

/// A connection on which something was asked for.
struct Asked {
    connection: UnixStream,
    unread: Vec<u8>,
    /// What came along.
    file: Option<OwnedFd>,
}

impl Asked {
    fn new(dir: &Path, request: &Request, files: &[BorrowedFd<'_>]) -> Result<Self, EnterError> {
        let mut connection = connect(dir).map_err(EnterError::Gone)?;
        connection.set_read_timeout(Some(PATIENCE)).map_err(EnterError::Gone)?;
        connection.set_write_timeout(Some(PATIENCE)).map_err(EnterError::Gone)?;
        let line = encode_line(request)?;
        let sent = handover::send(&connection, &line, files).map_err(EnterError::Gone)?;
        connection.write_all(&line[sent..]).map_err(EnterError::Gone)?;
        Ok(Self { connection, unread: Vec::new(), file: None })
    }

    /// What the shim says next, unless that is a refusal.
    fn event(&mut self) -> Result<Event, EnterError> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                match decode_line(&line)? {
                    Event::Refused { message } => return Err(EnterError::Refused(message)),
                    event => return Ok(event),
                }
            }
            let (bytes, files) = handover::receive(&self.connection).map_err(EnterError::Gone)?;
            if bytes.is_empty() {
                return Err(EnterError::Gone(io::ErrorKind::UnexpectedEof.into()));
            }
            self.unread.extend(bytes);
            self.file = self.file.take().or(files.into_iter().next());
        }
    }
}
