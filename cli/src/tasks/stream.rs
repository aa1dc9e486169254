//! Input and output of a container, passed between an agent and this process.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use tepui_api::client::{Client, ClientError, EventStream};
use tepui_api::v1::agent::call::{AttachContainerInput, attach_container_input};
use tepui_api::v1::agent::{Call, ProcessIo, call, process_io};
use tepui_api::v1::{ContainerId, DurationInfo, TtyInfo};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::terminal;

/// A connection on which nothing is typed is kept alive so.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// Ctrl-P Ctrl-Q leaves, as it does for `docker attach`.
const LEAVE: [u8; 2] = [0x10, 0x11];

/// What is sent to a container as its input.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Typed {
    /// Nothing: its input is closed at once.
    Nothing,
    /// What this process reads.
    Stdin,
    /// The same, to a terminal.
    Terminal,
}

/// Why no more is shown.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// The container has written all.
    Ended,
    /// The user has left.
    Left,
}

/// Shows what comes until its end.
pub(super) async fn show(mut output: EventStream<ProcessIo>) -> Result<Over, ClientError> {
    loop {
        let record = match output.next().await {
            Ok(record) => record,
            Err(ClientError::Ended(_)) => return Ok(Over::Ended),
            Err(error) => return Err(error),
        };
        let Some(process_io::Data { r#type, data: Some(bytes) }) = record.data else { continue };
        // Whoever reads us may have gone; the container goes on.
        if r#type == Some(process_io::data::Type::Stderr as i32) {
            let _ = std::io::stderr().lock().write_all(&bytes);
        } else {
            let mut out = std::io::stdout().lock();
            let _ = out.write_all(&bytes).and_then(|()| out.flush());
        }
    }
}

/// Sends what is typed, until the container ends or the user leaves.
pub(super) async fn send(
    client: &Client,
    id: &ContainerId,
    what: Typed,
    may_leave: bool,
) -> Result<Over, ClientError> {
    let (calls, to_send) = mpsc::channel(8);
    let first = AttachContainerInput {
        r#type: Some(attach_container_input::Type::ContainerId as i32),
        container_id: Some(id.clone()),
        process_io: None,
    };
    let stream = futures_util::stream::unfold(
        (Some(first), to_send),
        |(first, mut rest): (_, mpsc::Receiver<_>)| async move {
            let next = match first {
                Some(first) => first,
                None => AttachContainerInput {
                    r#type: Some(attach_container_input::Type::ProcessIo as i32),
                    container_id: None,
                    process_io: Some(rest.recv().await?),
                },
            };
            let call = Call {
                r#type: Some(call::Type::AttachContainerInput as i32),
                attach_container_input: Some(next),
                ..Call::default()
            };
            Some((call, (None, rest)))
        },
    );
    let posted = client.pour("/api/v1", stream);
    tokio::select! {
        answered = posted => answered.map(|()| Over::Ended),
        over = typing(calls, what, may_leave) => Ok(over),
    }
}

/// Comes back only when the user leaves.
async fn typing(calls: mpsc::Sender<ProcessIo>, what: Typed, may_leave: bool) -> Over {
    let mut keys = (what != Typed::Nothing).then(read_stdin);
    if what == Typed::Nothing {
        let _ = calls.send(data(Vec::new())).await;
    }
    let mut resized = signal(SignalKind::window_change()).ok().filter(|_| what == Typed::Terminal);
    if what == Typed::Terminal
        && let Some(info) = terminal::size()
    {
        let _ = calls.send(resize(info)).await;
    }
    let mut heartbeats = tokio::time::interval(HEARTBEAT);
    let mut last = None;
    loop {
        let next = tokio::select! {
            typed = next_key(&mut keys) => match typed {
                Some(bytes) => {
                    if may_leave && leaves(&bytes, &mut last) {
                        return Over::Left;
                    }
                    data(bytes)
                }
                None => {
                    keys = None;
                    // A terminal is told of the end by the character that means it.
                    data(if what == Typed::Terminal { vec![4] } else { Vec::new() })
                }
            },
            () = changed(&mut resized) => match terminal::size() {
                Some(info) => resize(info),
                None => continue,
            },
            _ = heartbeats.tick() => heartbeat(),
        };
        if calls.send(next).await.is_err() {
            // The answer tells why.
            return std::future::pending().await;
        }
    }
}

/// Whether these keys, after the last ones, are those that leave.
fn leaves(bytes: &[u8], last: &mut Option<u8>) -> bool {
    for byte in bytes {
        if [last.unwrap_or_default(), *byte] == LEAVE {
            return true;
        }
        *last = Some(*byte);
    }
    false
}

async fn next_key(keys: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match keys {
        Some(keys) => keys.recv().await,
        None => std::future::pending().await,
    }
}

async fn changed(signal: &mut Option<tokio::signal::unix::Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// By a thread, which may wait for the next key for ever without keeping anybody from ending.
fn read_stdin() -> mpsc::Receiver<Vec<u8>> {
    let (to, keys) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            match std::io::stdin().lock().read(&mut buffer) {
                Ok(length) if length > 0 => {
                    if to.blocking_send(buffer[..length].to_vec()).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                _ => return,
            }
        }
    });
    keys
}

fn data(bytes: Vec<u8>) -> ProcessIo {
    let data = process_io::Data { r#type: Some(process_io::data::Type::Stdin as i32), data: Some(bytes) };
    ProcessIo { r#type: Some(process_io::Type::Data as i32), data: Some(data), control: None }
}

fn control(control: process_io::Control) -> ProcessIo {
    ProcessIo { r#type: Some(process_io::Type::Control as i32), data: None, control: Some(control) }
}

fn resize(info: TtyInfo) -> ProcessIo {
    control(process_io::Control {
        r#type: Some(process_io::control::Type::TtyInfo as i32),
        tty_info: Some(info),
        heartbeat: None,
    })
}

fn heartbeat() -> ProcessIo {
    let nanoseconds = i64::try_from(HEARTBEAT.as_nanos()).unwrap_or(i64::MAX);
    control(process_io::Control {
        r#type: Some(process_io::control::Type::Heartbeat as i32),
        tty_info: None,
        heartbeat: Some(process_io::control::Heartbeat { interval: Some(DurationInfo { nanoseconds }) }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_keys_leave_together_or_one_after_the_other() {
        let mut last = None;
        assert!(!leaves(b"ls\x10", &mut last));
        assert!(leaves(b"\x11", &mut last));
        let mut last = None;
        assert!(!leaves(b"\x11\x10x\x11", &mut last));
        assert!(leaves(b"\x10\x11", &mut last));
    }
}
