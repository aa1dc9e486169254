//! Commands in containers whose input and output are somebody's: what a [`Backend`](super::backend::Backend) gives to who asked for one.

use bytes::Bytes;
use tepui_shim::WindowSize;
use tokio::io::AsyncWrite;
use tokio::sync::{mpsc, oneshot};

use super::backend::BoxFuture;

/// A command that runs in a container. It is ended, with all that it has left, when this is dropped.
pub struct Guest {
    /// What it reads.
    pub input: Input,
    /// What it writes, until it and all that it has left have closed their output. Who does not read makes it wait.
    pub output: mpsc::Receiver<Piece>,
    /// Takes signals for it. SIGKILL ends what it has left, too.
    pub signals: mpsc::UnboundedSender<i32>,
    /// How it ends, as wait(2) tells it.
    pub end: oneshot::Receiver<Result<i32, String>>,
}

/// A part of what a command has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// To its standard output, or its terminal.
    Out(Bytes),
    /// To its standard error.
    Error(Bytes),
}

/// The way to a command's standard input.
pub struct Input {
    /// Closed by shutdown or drop, unless it is a terminal.
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// Changes the terminal's size; absent where there is no terminal.
    pub resize: Option<Resize>,
}

/// Changes a terminal's size.
pub type Resize = Box<dyn Fn(WindowSize) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;
