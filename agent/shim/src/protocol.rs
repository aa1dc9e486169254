//! What a shim and its peers say to each other, and how a peer finds a shim.
//!
//! Both directions carry one JSON object a line. A peer is told the current [`Event::State`] when it connects; later events
//! go to every peer. Unknown requests are answered with [`Event::Refused`], so that the protocol can grow.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::exit::ExitRecord;
use crate::inside::Exec;
use crate::plan::files;

/// What a peer may ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Sends a signal; answered by [`Event::Signalled`] or [`Event::Refused`].
    Signal {
        /// The signal's number.
        number: i32,
        /// Who receives it.
        scope: SignalScope,
    },
    /// Starts the container that was created and is held ([`crate::LaunchPlan::hold`]).
    Start,
    /// Runs a program in the container; answered by [`Event::ExecStarted`] or [`Event::Refused`], and [`Event::ExecEnded`] later.
    /// One a connection; when that closes, the program ends with all that it has left.
    Exec(Exec),
    /// Sends a signal to the program that this connection has asked for; SIGKILL ends all that it has left, too. Answered by [`Event::Signalled`] or
    /// [`Event::Refused`].
    SignalExec {
        /// The signal's number.
        number: i32,
    },
    /// Asks for the other end of the terminal that the container's own program has; answered by [`Event::Terminal`] or [`Event::Refused`].
    Terminal,
    /// Asks for a sign of life; answered by [`Event::Pong`].
    Ping,
}

/// Who receives a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignalScope {
    /// The container's program (or, SIGKILL only, its first process, which ends the whole PID namespace).
    Program,
    /// Every process in the container, but not a minimal init (unless the signal is SIGKILL).
    All,
}

/// What a shim tells its peers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The present state: the first line for a peer that connects at the socket, and sent again at each change.
    State(State),
    /// A signal was sent.
    Signalled,
    /// A request could not be fulfilled.
    Refused {
        /// Why.
        message: String,
    },
    /// A program runs in the container. The other end of its terminal comes along, if it has one. Told only to the peer that asked for it.
    ExecStarted {
        /// The parent of its first process, as the host sees it.
        pid: i32,
    },
    /// It has ended, and with it all that it has left.
    ExecEnded {
        /// The status as `wait(2)` encodes it.
        status: i32,
    },
    /// The other end of the program's terminal comes along. It is for typing and resizing; what the program writes is read by the shim.
    Terminal,
    /// The shim is alive.
    Pong,
}

/// Where a container is in its life, as its shim knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// It is being made.
    Creating,
    /// It is there, and held until somebody says [`Request::Start`].
    Created {
        /// The first process' id, as the host sees it.
        pid: i32,
    },
    /// It has been started.
    Started {
        /// The first process' id, as the host sees it.
        pid: i32,
    },
    /// It has ended, or never began; `exit.json` says the same.
    Ended(ExitRecord),
}

/// A line that is not what was expected.
#[derive(Debug, thiserror::Error)]
#[error("a line of the shim's protocol cannot be understood: {0}")]
pub struct ProtocolError(#[from] serde_json::Error);

/// One message as a line, its end included.
pub fn encode_line<T: Serialize>(message: &T) -> Result<Vec<u8>, ProtocolError> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

/// A message from a line, with or without its end.
pub fn decode_line<T: DeserializeOwned>(line: &[u8]) -> Result<T, ProtocolError> {
    Ok(serde_json::from_slice(line)?)
}

/// Connects to the shim that serves a container's runtime directory.
///
/// The address goes through `/proc/self/fd`, since a socket's path may not exceed 107 bytes and a runtime directory's may.
pub fn connect(dir: &Path) -> io::Result<UnixStream> {
    let handle = std::fs::File::open(dir)?;
    UnixStream::connect(format!("/proc/self/fd/{}/{}", handle.as_raw_fd(), files::SOCKET))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::{Outcome, Usage};

    #[test]
    fn messages_survive_a_round_trip() {
        let events = [
            Event::State(State::Creating),
            Event::State(State::Created { pid: 42 }),
            Event::State(State::Started { pid: 42 }),
            Event::State(State::Ended(ExitRecord {
                outcome: Outcome::Exited { status: 7 << 8 },
                usage: Usage::default(),
            })),
            Event::State(State::Ended(ExitRecord {
                outcome: Outcome::Failed { stage: "rootfs".into(), message: "line one\nline two".into() },
                usage: Usage::default(),
            })),
            Event::Signalled,
            Event::Refused { message: "no".into() },
            Event::Pong,
        ];
        for event in events {
            let line = encode_line(&event).unwrap();
            assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1, "a message is one line");
            assert_eq!(decode_line::<Event>(&line).unwrap(), event);
        }
        for request in
            [Request::Ping, Request::Start, Request::Signal { number: 15, scope: SignalScope::All }]
        {
            let line = encode_line(&request).unwrap();
            assert_eq!(decode_line::<Request>(&line).unwrap(), request);
        }
    }

    #[test]
    fn an_unknown_request_is_an_error() {
        assert!(decode_line::<Request>(b"{\"request\":\"teleport\"}\n").is_err());
    }
}
