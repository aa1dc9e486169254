//! The world around the core: it brings in what happens, and does what the core wants done.
//!
//! ```text
//!   link ──frames──►┐                         ┌──► store ──Stored──┐
//!   containers ────►│ events ─► Core::step ─► │ outputs            ├──► events
//!   store ─────────►│     (one thread)        ├──► containers ─────┘
//!   timer, readers ►┘                         └──► link
//! ```
//!
//! [`Shell::run`] owns the core and has a thread for itself. Nothing in it waits for anything but the next event: commands to
//! containers run as tasks on other threads ([`containers`]), the store has a thread, and frames go into a queue.

pub mod backend;
mod containers;
pub mod guest;
mod under_way;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tepui_api::link::agent_frame;
use tepui_api::v1::{ContainerId, executor};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::core::{
    ContainerEvent, Core, End, ExecutorAnswer, Input, Now, Output, Snapshot, StreamId, Ticket,
};
use crate::link::LinkEvent;
use crate::store::Store;
pub(crate) use containers::Containers;

/// What happens, for the task that owns the core.
#[derive(Debug)]
pub(crate) enum Event {
    /// On the link.
    Link(LinkEvent),
    /// To a container.
    Container(ContainerId, ContainerEvent),
    /// In the store.
    Stored(Ticket),
    /// An executor calls.
    Executor(ExecutorRequest),
    /// A reader wants to know what there is.
    Snapshot(oneshot::Sender<Snapshot>),
    /// Nobody listens any more to what an executor subscribed to.
    ExecutorGone(StreamId),
    /// An executor did not read what it subscribed to, and was cut off.
    ExecutorStalled(StreamId),
    /// The agent is to end with all that runs on it.
    ShutDown,
    /// The agent is to stop, and what runs on it to go on.
    Stop,
}

/// A call of an executor.
#[derive(Debug)]
pub(crate) struct ExecutorRequest {
    pub(crate) id: StreamId,
    pub(crate) call: Box<executor::Call>,
    /// Where events go, if it is to subscribe.
    pub(crate) events: Option<mpsc::Sender<Box<executor::Event>>>,
    pub(crate) answer: oneshot::Sender<ExecutorAnswer>,
}

/// What an executor has subscribed to. Dropped, it is not connected any more.
#[derive(Debug)]
pub(crate) struct Listening {
    id: StreamId,
    events: mpsc::Receiver<Box<executor::Event>>,
    handle: Handle,
}

/// Puts events before the core.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    events: mpsc::UnboundedSender<Event>,
    /// The number of the next call of an executor.
    next_call: Arc<AtomicU64>,
}

/// The agent stops: nobody answers any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the agent is stopping")]
pub struct Stopping;

/// The task that owns the core.
pub(crate) struct Shell {
    core: Core,
    store: Store,
    containers: Containers,
    events: mpsc::UnboundedReceiver<Event>,
    /// The present link's sending end.
    link: Option<mpsc::UnboundedSender<agent_frame::Body>>,
    reconnect: Arc<Notify>,
    ended: watch::Sender<Option<End>>,
    clock: Clock,
    /// Calls that the core has not answered yet.
    asking: HashMap<StreamId, oneshot::Sender<ExecutorAnswer>>,
    /// Where subscribed executors are told events.
    listeners: HashMap<StreamId, mpsc::Sender<Box<executor::Event>>>,
    handle: Handle,
}

/// The time since the process began, and since 1970.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    began: Instant,
}

/// How many events are taken in before the timer is looked at.
const BATCH: usize = 64;
/// How many events an executor may leave unread before its stream is closed.
const UNREAD: usize = 1 << 16;

// === impl Handle ===

impl Handle {
    /// A handle, and the queue that it fills.
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (events, queue) = mpsc::unbounded_channel();
        (Self { events, next_call: Arc::default() }, queue)
    }

    /// Tells the core. Events after the agent's end are lost, which nobody misses.
    pub(crate) fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }

    /// Hands a call of an executor to the core; gives its answer, and the events that follow if it was to subscribe.
    ///
    /// # Errors
    /// When the agent stops.
    pub(crate) async fn executor(
        &self,
        call: executor::Call,
    ) -> Result<(ExecutorAnswer, Listening), Stopping> {
        let (events, listener) = mpsc::channel(UNREAD);
        let (answer, answered) = oneshot::channel();
        let subscribes = call.r#type() == executor::call::Type::Subscribe;
        let events = subscribes.then_some(events);
        let id = StreamId(self.next_call.fetch_add(1, Ordering::Relaxed));
        let listening = Listening { id, events: listener, handle: self.clone() };
        self.tell(Event::Executor(ExecutorRequest { id, call: Box::new(call), events, answer }));
        Ok((answered.await.map_err(|_| Stopping)?, listening))
    }

    /// What there is.
    ///
    /// # Errors
    /// When the agent stops.
    pub(crate) async fn snapshot(&self) -> Result<Snapshot, Stopping> {
        let (sender, answer) = oneshot::channel();
        self.tell(Event::Snapshot(sender));
        answer.await.map_err(|_| Stopping)
    }
}

// === impl Listening ===

impl Listening {
    /// The next event; `None` when the agent closes the stream.
    pub(crate) async fn next(&mut self) -> Option<Box<executor::Event>> {
        self.events.recv().await
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.handle.tell(Event::ExecutorGone(self.id));
    }
}

// === impl Clock ===

impl Clock {
    pub(crate) fn start() -> Self {
        Self { began: Instant::now() }
    }

    pub(crate) fn now(self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { monotonic: self.began.elapsed(), unix }
    }

    fn instant(self, at: Duration) -> tokio::time::Instant {
        (self.began + at).into()
    }
}

// === impl Shell ===

impl Shell {
    pub(crate) fn new(
        core: Core,
        store: Store,
        containers: Containers,
        events: mpsc::UnboundedReceiver<Event>,
        reconnect: Arc<Notify>,
        clock: Clock,
        handle: Handle,
    ) -> (Self, watch::Receiver<Option<End>>) {
        let (ended, watch) = watch::channel(None);
        let this = Self {
            core,
            store,
            containers,
            events,
            link: None,
            reconnect,
            ended,
            clock,
            asking: HashMap::new(),
            listeners: HashMap::new(),
            handle,
        };
        (this, watch)
    }

    /// Serves until told to stop. What the core wanted before, such as of its recovery, is done first.
    pub(crate) async fn run(mut self, first: Vec<Output>) {
        self.perform(first);
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let deadline = self.core.next_deadline().map(|at| self.clock.instant(at));
            tokio::select! {
                count = self.events.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        break;
                    }
                }
                () = sleep_until(deadline) => self.step(Input::Tick),
            }
            let mut stop = false;
            for event in batch.drain(..) {
                stop |= self.event(event);
            }
            if stop {
                break;
            }
        }
        // The store writes what it was given before its thread ends.
        drop(self.store);
    }

    /// Takes one event in; whether to stop after it.
    fn event(&mut self, event: Event) -> bool {
        match event {
            Event::Link(LinkEvent::Opened(sender)) => {
                self.link = Some(sender);
                self.step(Input::LinkOpened);
            }
            Event::Link(LinkEvent::Frame(frame)) => self.step(Input::Frame(frame)),
            Event::Link(LinkEvent::Closed) => {
                self.link = None;
                self.step(Input::LinkClosed);
            }
            Event::Container(id, event) => self.step(Input::Container(id, event)),
            Event::Stored(ticket) => self.step(Input::Stored(ticket)),
            Event::Executor(request) => self.executor(request),
            Event::ExecutorGone(stream) => {
                // One that was closed from here is known to be gone.
                if self.listeners.remove(&stream).is_some() {
                    self.step(Input::ExecutorGone(stream));
                }
            }
            Event::ExecutorStalled(stream) => self.step(Input::ExecutorGone(stream)),
            Event::Snapshot(answer) => {
                // A reader that went away needs none.
                let _ = answer.send(self.core.snapshot());
            }
            Event::ShutDown => self.step(Input::ShutDown),
            Event::Stop => return true,
        }
        false
    }

    fn executor(&mut self, request: ExecutorRequest) {
        let id = request.id;
        self.asking.insert(id, request.answer);
        if let Some(events) = request.events {
            self.listeners.insert(id, events);
        }
        self.step(Input::Executor(id, request.call));
    }

    fn step(&mut self, input: Input) {
        let mut out = Vec::new();
        self.core.step(self.clock.now(), input, &mut out);
        self.perform(out);
    }

    fn perform(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Store(ticket, writes) => self.store.submit(ticket, writes),
                Output::Send(body) => {
                    if let Some(link) = &self.link {
                        // A link that is gone is heard of by an event.
                        let _ = link.send(*body);
                    }
                }
                Output::Container(id, command) => self.containers.perform(id, command),
                Output::Answer(id, answer) => {
                    if answer != ExecutorAnswer::Subscribed {
                        self.listeners.remove(&id);
                    }
                    if let Some(asking) = self.asking.remove(&id) {
                        // Who asked may be gone, which is heard of by an event.
                        let _ = asking.send(answer);
                    }
                }
                Output::Event(stream, event) => {
                    if let Some(listener) = self.listeners.get(&stream)
                        && let Err(mpsc::error::TrySendError::Full(_)) = listener.try_send(event)
                    {
                        tracing::warn!(
                            ?stream,
                            UNREAD,
                            "an executor does not read its events: its stream is closed"
                        );
                        self.listeners.remove(&stream);
                        self.handle.tell(Event::ExecutorStalled(stream));
                    }
                }
                Output::CloseEvents(stream) => {
                    self.listeners.remove(&stream);
                }
                Output::Reconnect => {
                    self.link = None;
                    self.reconnect.notify_one();
                }
                Output::End(end) => {
                    self.ended.send_replace(Some(end));
                }
            }
        }
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
