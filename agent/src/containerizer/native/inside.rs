//! Commands that run in a container beside its own: the containerizer's part of `exec`.
//!
//! Each has a connection of its own to the container's shim. The shim ends it, with all that it has left, when the connection closes: so
//! nothing outlives an agent that is killed, or a call that nobody waits for any more.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tepui_api::v1::{CommandInfo, ContainerId};
use tepui_shim::{
    Entered, Event, Exec, ExecPlan, ExecStdio, ExecUser, FirstProcess, LaunchPlan, Request, RootFs,
    decode_line, encode_line, enter,
};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::{Container, NativeContainerizer, user};
use crate::containerizer::config::own_variables;

/// A command that runs in a container. Dropping both halves ends it.
pub(super) struct Entry {
    /// The other end of its terminal.
    pub terminal: Option<OwnedFd>,
    pub end: EntryEnd,
    pub signals: EntrySignals,
}

/// Tells how a command ended.
pub(super) struct EntryEnd {
    lines: BufReader<tokio::io::Chain<std::io::Cursor<Vec<u8>>, OwnedReadHalf>>,
}

/// Sends signals to a command.
pub(super) struct EntrySignals(OwnedWriteHalf);

impl NativeContainerizer {
    /// Runs a command in a container to its end. Gives its status as wait(2) does. Its output goes where the container's goes.
    ///
    /// # Errors
    /// When the container does not run or ends meanwhile, and when the time is up: the command has been ended then, with all that it has left.
    pub async fn run_inside(
        &self,
        id: &ContainerId,
        command: &CommandInfo,
        timeout: Option<Duration>,
    ) -> Result<i32, String> {
        let mut entry = self.enter(id, command, ExecStdio::Container, Vec::new()).await?;
        let Some(timeout) = timeout else { return entry.end.status().await };
        if let Ok(ended) = tokio::time::timeout(timeout, entry.end.status()).await {
            return ended;
        }
        entry.signals.send(libc::SIGKILL).await?;
        let _ = entry.end.status().await;
        Err(format!("the command did not end within {timeout:?} and was killed"))
    }

    /// Begins to run a command in a container. `files` are its input, output and errors for [`ExecStdio::Passed`].
    pub(super) async fn enter(
        &self,
        id: &ContainerId,
        command: &CommandInfo,
        stdio: ExecStdio,
        files: Vec<OwnedFd>,
    ) -> Result<Entry, String> {
        let container = self.inner.get(id).ok_or_else(|| format!("there is no container {id}"))?;
        let command = command.clone();
        let entering = move || {
            let exec = exec(&container, &command, stdio)?;
            let files: Vec<_> = files.iter().map(OwnedFd::as_fd).collect();
            enter(&container.dirs.runtime, &exec, &files).map_err(|error| error.to_string())
        };
        let entered = tokio::task::spawn_blocking(entering).await.map_err(|error| error.to_string())??;
        Entry::new(entered).map_err(|error| error.to_string())
    }
}

/// What the shim is asked for. Blocks on the system's user database.
fn exec(container: &Arc<Container>, command: &CommandInfo, stdio: ExecStdio) -> Result<Exec, String> {
    let value = command.value.clone().unwrap_or_default();
    if value.is_empty() {
        return Err("there is no command: its value is empty".to_owned());
    }
    let program = if command.shell() {
        let argv = ["sh", "-c", &value].map(str::to_owned).to_vec();
        ExecPlan { path: "/bin/sh".to_owned(), argv }
    } else {
        ExecPlan { path: value, argv: command.arguments.clone() }
    };
    let plan = LaunchPlan::load(&container.dirs.runtime).map_err(|error| error.to_string())?;
    if plan.first_process == FirstProcess::Holder {
        // It has no root file system of its own: what is mounted there is the agent's.
        return Err("the container runs no program of its own: enter that of one of its tasks".to_owned());
    }
    let passable =
        |name: &str, value: &str| !name.is_empty() && !name.contains(['\0', '=']) && !value.contains('\0');
    let variables = own_variables(command).filter(|(name, value)| passable(name, value));
    Ok(Exec {
        program,
        environment: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        user: command.user.as_deref().map(|name| find_user(container, name)).transpose()?,
        directory: None,
        stdio,
    })
}

fn find_user(container: &Container, name: &str) -> Result<ExecUser, String> {
    let plan = LaunchPlan::load(&container.dirs.runtime).map_err(|error| error.to_string())?;
    let image = match plan.rootfs {
        RootFs::Host => None,
        RootFs::Overlay { lowers, .. } | RootFs::Copy { lowers, .. } => {
            tepui_images::RootFs::of_directories(lowers)
        }
    };
    let user = user::find(Some(name), image.as_ref()).map_err(|error| error.to_string())?;
    Ok(ExecUser { uid: user.uid, gid: user.gid, groups: user.groups })
}

impl Entry {
    fn new(entered: Entered) -> std::io::Result<Self> {
        entered.connection.set_nonblocking(true)?;
        let (reader, writer) = tokio::net::UnixStream::from_std(entered.connection)?.into_split();
        let lines = std::io::Cursor::new(entered.unread).chain(reader);
        Ok(Self {
            terminal: entered.terminal,
            end: EntryEnd { lines: BufReader::with_capacity(512, lines) },
            signals: EntrySignals(writer),
        })
    }
}

impl EntryEnd {
    /// Waits for the end.
    ///
    /// # Errors
    /// When the container ended first.
    pub async fn status(&mut self) -> Result<i32, String> {
        loop {
            let mut line = Vec::new();
            match self.lines.read_until(b'\n', &mut line).await {
                Ok(length) if length > 0 => {}
                _ => return Err("the container ended before the command".to_owned()),
            }
            match decode_line(&line) {
                Ok(Event::ExecEnded { status }) => return Ok(status),
                Ok(Event::Refused { message }) => {
                    tracing::debug!(message, "a signal did not reach a command in a container");
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "a shim said something that is not understood"),
            }
        }
    }
}

impl EntrySignals {
    /// Sends a signal. SIGKILL ends what the command has left, too.
    pub async fn send(&mut self, number: i32) -> Result<(), String> {
        let line = encode_line(&Request::SignalExec { number }).map_err(|error| error.to_string())?;
        self.0.write_all(&line).await.map_err(|_| "the container has ended".to_owned())
    }
}
