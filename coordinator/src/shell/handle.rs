//! How the rest of the coordinator speaks to the core's thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use tepui_api::link::{agent_frame, coordinator_frame};
use tepui_api::v1::{master, scheduler};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use crate::core::{LinkId, OperatorCall, Reply, Snapshot, StreamHeader, StreamId, Ticket};

/// What the core's thread is asked.
#[derive(Debug)]
pub(crate) enum Request {
    /// A scheduler subscribes; its events go into `events`.
    Subscribe {
        stream: StreamId,
        call: scheduler::Call,
        events: UnboundedSender<Arc<scheduler::Event>>,
        reply: oneshot::Sender<Reply>,
    },
    /// The scheduler's connection ended.
    StreamClosed(StreamId),
    /// Any other call of a scheduler.
    Scheduler { stream: StreamHeader, call: scheduler::Call, reply: oneshot::Sender<Reply> },
    /// A call of an operator that changes something.
    Operator { call: OperatorCall, reply: oneshot::Sender<Reply> },
    /// An agent has connected; its frames go into `frames`.
    LinkOpened { link: LinkId, frames: UnboundedSender<coordinator_frame::Body> },
    /// A frame of an agent.
    Agent { link: LinkId, frame: agent_frame::Body },
    /// The agent's connection ended.
    LinkClosed(LinkId),
    /// A change is on disk.
    Persisted(Ticket),
    /// Somebody wants to read the state.
    Read(oneshot::Sender<Snapshot>),
    /// An operator subscribes: the state as it is, and every event from then on.
    Observe { events: UnboundedSender<Arc<master::Event>>, state: oneshot::Sender<Snapshot> },
    /// End the thread, and with it all streams and links.
    Stop,
}

/// The core's thread has ended: the coordinator is stopping or has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the coordinator is stopping")]
pub(crate) struct CoreGone;

/// Sends requests to the core's thread.
#[derive(Debug, Clone)]
pub(crate) struct CoreHandle {
    requests: mpsc::Sender<Request>,
    links: Arc<AtomicU64>,
}

/// Tells the core, when dropped, that a scheduler's connection has ended.
#[derive(Debug)]
pub(crate) struct StreamGuard {
    core: CoreHandle,
    stream: StreamId,
}

/// Tells the core, when dropped, that an agent's connection has ended.
#[derive(Debug)]
pub(crate) struct LinkGuard {
    core: CoreHandle,
    link: LinkId,
}

// === impl CoreHandle ===

impl CoreHandle {
    /// A handle, and the end that the thread takes its requests from.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Request>) {
        let (requests, incoming) = mpsc::channel();
        (Self { requests, links: Arc::default() }, incoming)
    }

    /// Sends a request that is not answered.
    pub(crate) fn send(&self, request: Request) -> Result<(), CoreGone> {
        self.requests.send(request).map_err(|_| CoreGone)
    }

    /// The state after all that was sent before.
    pub(crate) async fn read(&self) -> Result<Snapshot, CoreGone> {
        let (state, answer) = oneshot::channel();
        self.send(Request::Read(state))?;
        answer.await.map_err(|_| CoreGone)
    }

    /// A call of a subscribed scheduler.
    pub(crate) async fn scheduler(
        &self,
        stream: StreamHeader,
        call: scheduler::Call,
    ) -> Result<Reply, CoreGone> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Scheduler { stream, call, reply })?;
        answer.await.map_err(|_| CoreGone)
    }

    /// Subscribes a scheduler. The queue is to be read only after [`Reply::Subscribed`].
    pub(crate) async fn subscribe(
        &self,
        stream: StreamId,
        call: scheduler::Call,
    ) -> Result<(Reply, StreamGuard, UnboundedReceiver<Arc<scheduler::Event>>), CoreGone> {
        let (reply, answer) = oneshot::channel();
        let (events, queue) = unbounded_channel();
        // The client may go away while the core is asked.
        let guard = StreamGuard { core: self.clone(), stream };
        self.send(Request::Subscribe { stream, call, events, reply })?;
        let reply = answer.await.map_err(|_| CoreGone)?;
        Ok((reply, guard, queue))
    }

    /// An operator's call that changes something.
    pub(crate) async fn operator(&self, call: OperatorCall) -> Result<Reply, CoreGone> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Operator { call, reply })?;
        answer.await.map_err(|_| CoreGone)
    }

    /// Opens a link to an agent.
    pub(crate) fn open_link(
        &self,
    ) -> Result<(LinkGuard, UnboundedReceiver<coordinator_frame::Body>), CoreGone> {
        let link = LinkId(self.links.fetch_add(1, Ordering::Relaxed));
        let (frames, queue) = unbounded_channel();
        self.send(Request::LinkOpened { link, frames })?;
        Ok((LinkGuard { core: self.clone(), link }, queue))
    }

    /// The state, and the events from then on.
    pub(crate) async fn observe(
        &self,
    ) -> Result<(Snapshot, UnboundedReceiver<Arc<master::Event>>), CoreGone> {
        let (state, answer) = oneshot::channel();
        let (events, queue) = unbounded_channel();
        self.send(Request::Observe { events, state })?;
        Ok((answer.await.map_err(|_| CoreGone)?, queue))
    }
}

// === impl LinkGuard ===

impl LinkGuard {
    /// Hands a frame of the agent to the core.
    pub(crate) fn frame(&self, frame: agent_frame::Body) -> Result<(), CoreGone> {
        self.core.send(Request::Agent { link: self.link, frame })
    }

    /// Which link it is, for the log.
    pub(crate) fn id(&self) -> LinkId {
        self.link
    }
}

impl Drop for LinkGuard {
    fn drop(&mut self) {
        // A core that is gone needs no word.
        let _ = self.core.send(Request::LinkClosed(self.link));
    }
}

// === impl StreamGuard ===

impl Drop for StreamGuard {
    fn drop(&mut self) {
        let _ = self.core.send(Request::StreamClosed(self.stream));
    }
}
