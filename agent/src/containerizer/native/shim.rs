//! The connection to a container's shim: requests go out by [`Requests`], and a small task, [`Watch`], reads what comes.

use std::collections::VecDeque;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use tepui_isolators::Limitation;
use tepui_shim::{Event, ExitRecord, Outcome, Request, SignalScope, State, decode_line, encode_line};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;

use super::{Container, Exited, Inner, Life, destroy};
use crate::containerizer::error::StartError;

/// A connection to a shim.
pub(super) struct Connection {
    lines: BufReader<OwnedReadHalf>,
    requests: Arc<Requests>,
}

/// The way to a shim, shared by all who want something of it.
pub(super) struct Requests {
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    /// Who waits for an answer; answers come in order.
    waiting: Mutex<VecDeque<oneshot::Sender<Result<(), String>>>>,
}

/// Watches a container through its shim until both are gone.
pub(super) struct Watch {
    inner: Arc<Inner>,
    container: Arc<Container>,
    /// Told how the start went; taken when it was.
    starting: Option<oneshot::Sender<Result<u32, StartError>>>,
    /// Whether it was told to have failed.
    failed: bool,
}

impl Connection {
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let (reader, writer) = tokio::net::UnixStream::from_std(stream)?.into_split();
        let requests = Requests { writer: tokio::sync::Mutex::new(writer), waiting: Mutex::default() };
        // Lines are short; the default buffer would cost 8 KiB a container.
        Ok(Self { lines: BufReader::with_capacity(512, reader), requests: Arc::new(requests) })
    }

    pub fn requests(&self) -> Arc<Requests> {
        Arc::clone(&self.requests)
    }

    /// The next state. `None` when the shim is gone. Answers to requests are passed on.
    pub async fn state(&mut self) -> Option<State> {
        loop {
            let mut line = Vec::new();
            match self.lines.read_until(b'\n', &mut line).await {
                Ok(length) if length > 0 => {}
                _ => return None,
            }
            let answer = match decode_line(&line) {
                Ok(Event::State(state)) => return Some(state),
                Ok(Event::Signalled | Event::Pong) => Ok(()),
                Ok(Event::Refused { message }) => Err(message),
                // Told only to connections that ask for programs: see `inside`.
                Ok(Event::ExecStarted { .. } | Event::ExecEnded { .. } | Event::Terminal) => continue,
                Err(error) => {
                    tracing::warn!(%error, "a shim said something that is not understood");
                    continue;
                }
            };
            self.requests.answer(answer);
        }
    }
}

impl Requests {
    pub async fn signal(&self, number: i32, scope: SignalScope) -> Result<(), String> {
        let (tell, told) = oneshot::channel();
        let gone = || "the container has ended".to_owned();
        {
            // In the order in which requests are written.
            let mut writer = self.writer.lock().await;
            self.waiting().push_back(tell);
            let line = encode_line(&Request::Signal { number, scope }).map_err(|error| error.to_string())?;
            writer.write_all(&line).await.map_err(|_| gone())?;
        }
        told.await.unwrap_or_else(|_| Err(gone()))
    }

    async fn start(&self) -> io::Result<()> {
        let line = encode_line(&Request::Start).map_err(io::Error::other)?;
        self.writer.lock().await.write_all(&line).await
    }

    async fn close(&self) {
        let _ = self.writer.lock().await.shutdown().await;
    }

    fn answer(&self, answer: Result<(), String>) {
        if let Some(tell) = self.waiting().pop_front() {
            let _ = tell.send(answer);
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, VecDeque<oneshot::Sender<Result<(), String>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    /// Of a container that is being started.
    pub fn of_new(
        inner: Arc<Inner>,
        container: Arc<Container>,
        starting: oneshot::Sender<Result<u32, StartError>>,
    ) -> Self {
        Self { inner, container, starting: Some(starting), failed: false }
    }

    /// Of one that runs.
    pub fn of_running(inner: Arc<Inner>, container: Arc<Container>) -> Self {
        Self { inner, container, starting: None, failed: false }
    }

    /// Until the container and its shim are gone.
    pub async fn run(mut self, mut connection: Connection) {
        let mut ended = false;
        while let Some(state) = connection.state().await {
            match state {
                State::Creating => {}
                State::Created { pid } => self.created(pid, &connection).await,
                State::Started { pid } => self.started(pid, &connection),
                State::Ended(record) => {
                    ended = true;
                    self.ended(Some(record)).await;
                }
            }
        }
        self.container.connect(None);
        connection.requests.waiting().clear();
        drop(connection);
        if !ended {
            self.lost().await;
        }
        self.container.life.send_replace(Life::Over);
    }

    async fn created(&mut self, pid: i32, connection: &Connection) {
        if *self.container.doomed.borrow() {
            self.tell(Err(StartError::Cancelled));
            connection.requests.close().await;
            return;
        }
        // Its namespaces were found by a process id, which tells of the parent only as long as that lives.
        let orphaned = self.container.parent.as_ref().filter(|parent| parent.pid().is_none());
        if let Some(parent) = orphaned {
            self.tell(Err(StartError::ParentDead(parent.id().to_string())));
            connection.requests.close().await;
            return;
        }
        if let Err(error) = self.isolate(pid.unsigned_abs()).await {
            self.tell(Err(error));
            // The shim ends the container when its last peer is gone.
            connection.requests.close().await;
            return;
        }
        if connection.requests.start().await.is_err() {
            tracing::debug!(container = %self.container.id(), "the shim was gone before the start");
        }
    }

    async fn isolate(&self, pid: u32) -> Result<(), StartError> {
        let _turn = self.container.calls.lock().await;
        for isolator in self.inner.isolators(&self.container) {
            let isolated = isolator.isolate(self.container.id(), pid).await;
            isolated.map_err(|source| StartError::Isolator { name: isolator.name().to_owned(), source })?;
        }
        Ok(())
    }

    fn started(&mut self, pid: i32, connection: &Connection) {
        let pid = pid.unsigned_abs();
        self.container.life.send_replace(Life::Shimmed { pid: Some(pid) });
        self.tell(Ok(pid));
        // One that was reported before there was anybody to signal.
        if self.container.limitation().is_some() {
            let requests = Arc::clone(&connection.requests);
            tokio::spawn(async move { requests.signal(libc::SIGKILL, SignalScope::All).await });
        }
    }

    /// The container has ended; nobody knows how without a record.
    async fn ended(&mut self, record: Option<ExitRecord>) {
        if self.failed {
            // Whoever heard of that hears no more: an end that came first would be taken for that of a program.
            return;
        }
        let id = self.container.id();
        let status = match record.map(|record| record.outcome) {
            Some(Outcome::Exited { status }) => Some(status),
            Some(Outcome::Failed { stage, message }) => {
                if self.starting.is_some() {
                    return self.tell(Err(StartError::Failed { stage, message }));
                }
                tracing::error!(container = %id, stage, message, "a shim lost its container");
                None
            }
            None => None,
        };
        // Its start is told by its end, if that was not done yet.
        if self.starting.is_some() && status.is_none() {
            return self.tell(Err(StartError::ShimDied(self.container.dirs.log())));
        }
        let limitation = self.limitation(status).await;
        tracing::debug!(container = %id, status, "a container has ended");
        // Nobody hears it only when the agent ends.
        let _ = self.inner.exits.send(Exited { container_id: id.clone(), status, limitation });
    }

    /// The shim is gone without a word about the container's end.
    async fn lost(&mut self) {
        let dirs = &self.container.dirs;
        let record = ExitRecord::load(&dirs.runtime).ok().flatten();
        if record.is_none() {
            tracing::warn!(container = %self.container.id(), "a shim died, and its container with it");
            destroy::end_leftovers(&dirs.runtime).await;
            let life = *self.container.life.borrow();
            if let Life::Shimmed { pid: Some(pid) } = life {
                destroy::process_end(pid).await;
            }
        }
        self.ended(record).await;
    }

    async fn limitation(&self, status: Option<i32>) -> Option<Limitation> {
        let found = self.inner.exited(&self.container, status).await;
        found.or_else(|| self.container.limitation().take())
    }

    fn tell(&mut self, started: Result<u32, StartError>) {
        if let Some(starting) = self.starting.take() {
            self.failed = started.is_err();
            // Nobody hears it when the container is being destroyed; the start has failed then, too.
            self.failed |= starting.send(started).is_err();
        }
    }
}

impl Inner {
    /// Asks the isolators whether a container ended for a limit of theirs. Without a status, as though it was killed.
    pub(super) async fn exited(&self, container: &Container, status: Option<i32>) -> Option<Limitation> {
        let status = status.unwrap_or(libc::SIGKILL);
        let mut found = None;
        let _turn = container.calls.lock().await;
        for isolator in self.isolators(container) {
            match isolator.exited(container.id(), status).await {
                Ok(limitation) => found = found.or(limitation),
                Err(error) => {
                    tracing::warn!(container = %container.id(), isolator = isolator.name(), %error, "an isolator does not take note of an end");
                }
            }
        }
        found
    }
}
