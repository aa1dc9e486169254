//! Commands in containers whose input and output are the caller's: pipes, or a terminal.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use bytes::{Bytes, BytesMut};
use tepui_api::v1::{CommandInfo, ContainerId};
use tepui_shim::{ExecStdio, WindowSize, set_size, terminal_of};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};

use super::NativeContainerizer;
use super::inside::{Entry, EntryEnd, EntrySignals};
use crate::shell::backend::BoxFuture;
use crate::shell::guest::{Guest, Input, Piece};

/// How many pieces wait for who reads them, until the command has to.
const WAITING: usize = 16;
/// The largest piece, in bytes.
const PIECE: usize = 16 * 1024;

impl NativeContainerizer {
    /// Begins to run a command in a container.
    pub(in crate::containerizer) async fn guest(
        &self,
        id: &ContainerId,
        command: &CommandInfo,
        terminal: Option<WindowSize>,
    ) -> Result<Guest, String> {
        let made = match terminal {
            Some(size) => self.on_terminal(id, command, size).await,
            None => self.on_pipes(id, command).await,
        };
        let (entry, input, output) = made?;
        let (signals, asked) = mpsc::unbounded_channel();
        let (tell, end) = oneshot::channel();
        tokio::spawn(attend(entry.end, entry.signals, asked, tell));
        Ok(Guest { input, output, signals, end })
    }

    /// The way to the terminal that the container's own program has; `None` if it has none.
    pub(in crate::containerizer) async fn terminal(&self, id: &ContainerId) -> Result<Option<Input>, String> {
        let container = self.inner.get(id).ok_or_else(|| format!("there is no container {id}"))?;
        let has_one = container.config.container.as_ref().is_some_and(|info| info.tty_info.is_some());
        if !has_one {
            return Ok(None);
        }
        let asking = move || terminal_of(&container.dirs.runtime).map_err(|error| error.to_string());
        let terminal = tokio::task::spawn_blocking(asking).await.map_err(|error| error.to_string())??;
        let (input, _) = halves(terminal).map_err(|error| error.to_string())?;
        Ok(Some(input))
    }

    async fn on_terminal(
        &self,
        id: &ContainerId,
        command: &CommandInfo,
        size: WindowSize,
    ) -> Result<(Entry, Input, mpsc::Receiver<Piece>), String> {
        let mut entry = self.enter(id, command, ExecStdio::Terminal(size), Vec::new()).await?;
        let master = entry.terminal.take().ok_or("the command's terminal did not arrive")?;
        let (input, reader) = halves(master).map_err(|error| error.to_string())?;
        let (pieces, output) = mpsc::channel(WAITING);
        tokio::spawn(read_all(reader, Piece::Out, pieces));
        Ok((entry, input, output))
    }

    async fn on_pipes(
        &self,
        id: &ContainerId,
        command: &CommandInfo,
    ) -> Result<(Entry, Input, mpsc::Receiver<Piece>), String> {
        let make = || -> io::Result<_> {
            let ((input, stdin), (stdout, out), (stderr, error)) =
                (pipe::pipe()?, pipe::pipe()?, pipe::pipe()?);
            let theirs =
                vec![stdin.into_blocking_fd()?, stdout.into_blocking_fd()?, stderr.into_blocking_fd()?];
            Ok((input, out, error, theirs))
        };
        let (input, out, error, theirs) = make().map_err(|error| error.to_string())?;
        let entry = self.enter(id, command, ExecStdio::Passed, theirs).await?;
        let (pieces, output) = mpsc::channel(WAITING);
        tokio::spawn(read_all(out, Piece::Out, pieces.clone()));
        tokio::spawn(read_all(error, Piece::Error, pieces));
        Ok((entry, Input { writer: Box::new(input), resize: None }, output))
    }
}

/// Passes signals on, and tells the end. When nobody is left who could send signals, the command is ended by closing its connection.
async fn attend(
    mut end: EntryEnd,
    mut signals: EntrySignals,
    mut asked: mpsc::UnboundedReceiver<i32>,
    tell: oneshot::Sender<Result<i32, String>>,
) {
    loop {
        tokio::select! {
            status = end.status() => {
                // Nobody may wait for it.
                let _ = tell.send(status);
                return;
            }
            signal = asked.recv() => {
                let Some(signal) = signal else { return };
                if let Err(error) = signals.send(signal).await {
                    tracing::debug!(error, signal, "a signal did not reach a command in a container");
                }
            }
        }
    }
}

async fn read_all(mut from: impl AsyncRead + Unpin, kind: fn(Bytes) -> Piece, to: mpsc::Sender<Piece>) {
    loop {
        let mut buffer = BytesMut::with_capacity(PIECE);
        match from.read_buf(&mut buffer).await {
            Ok(length) if length > 0 => {}
            _ => return,
        }
        if to.send(kind(buffer.freeze())).await.is_err() {
            return;
        }
    }
}

/// Our end of a terminal, for typing and for reading. What is read ends with an error once nobody has the other end open any more.
fn halves(master: OwnedFd) -> io::Result<(Input, pipe::Receiver)> {
    // The shim made it non-blocking. It is no pipe, but is waited on as one is.
    let reader = pipe::Receiver::from_file_unchecked(File::from(master.try_clone()?))?;
    let writer = pipe::Sender::from_file_unchecked(File::from(master.try_clone()?))?;
    let resize = move |size| -> BoxFuture<'static, Result<(), String>> {
        let done = set_size(&master, size).map_err(|error| error.to_string());
        Box::pin(std::future::ready(done))
    };
    Ok((Input { writer: Box::new(writer), resize: Some(Box::new(resize)) }, reader))
}
