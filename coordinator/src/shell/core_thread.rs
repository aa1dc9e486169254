//! The one thread that owns the core.
//!
//! It looks at the lease before each step, and again before what the step gave is carried out: a process that was
//! stopped for long may wake anywhere. When the lease is over the thread ends, and with it all queues.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tepui_api::link::coordinator_frame;
use tepui_api::v1::{master, scheduler};
use tepui_zookeeper::Lease;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use crate::core::{
    Core, Input, LinkId, Now, Output, Recovered, RegistryChange, Reply, RequestId, Settings, StreamId, Ticket,
};

use super::handle::Request;

/// The running thread. It ends on [`Request::Stop`], when every sender of requests is dropped, or when it would act
/// and the lease is over.
#[derive(Debug)]
pub(crate) struct CoreThread {
    /// Ends with the thread; with a sentence when the core ended the coordinator.
    pub(crate) thread: JoinHandle<Result<(), String>>,
}

/// What the thread owns.
struct Turn {
    core: Core,
    lease: Lease,
    clock: Instant,
    requests: u64,
    waiting: HashMap<RequestId, oneshot::Sender<Reply>>,
    streams: HashMap<StreamId, UnboundedSender<Arc<scheduler::Event>>>,
    links: HashMap<LinkId, UnboundedSender<coordinator_frame::Body>>,
    observers: Observers<Arc<master::Event>>,
    changes: mpsc::Sender<(Ticket, RegistryChange)>,
    /// Why the core wants the coordinator to end.
    failed: Option<String>,
}

/// Subscribers of the operator stream, oldest first; one too many closes the oldest.
#[derive(Debug)]
pub(crate) struct Observers<E> {
    queues: VecDeque<UnboundedSender<E>>,
    most: usize,
}

// === impl CoreThread ===

impl CoreThread {
    /// Makes a core and starts its thread.
    ///
    /// # Errors
    /// When the system has no room for a thread.
    pub(crate) fn start(
        settings: Settings,
        recovered: Recovered,
        most_observers: usize,
        lease: Lease,
        incoming: mpsc::Receiver<Request>,
        changes: mpsc::Sender<(Ticket, RegistryChange)>,
    ) -> std::io::Result<Self> {
        let thread = std::thread::Builder::new().name("core".to_owned()).spawn(move || {
            let clock = Instant::now();
            let mut turn = Turn {
                core: Core::new(settings, recovered, now(clock)),
                lease,
                clock,
                requests: 0,
                waiting: HashMap::new(),
                streams: HashMap::new(),
                links: HashMap::new(),
                observers: Observers::new(most_observers),
                changes,
                failed: None,
            };
            turn.run(&incoming)
        })?;
        Ok(Self { thread })
    }
}

// === impl Turn ===

impl Turn {
    fn run(&mut self, incoming: &mpsc::Receiver<Request>) -> Result<(), String> {
        while self.lease.holds() {
            if let Some(why) = self.failed.take() {
                return Err(why);
            }
            let wait = self.core.next_deadline().map(|at| at.saturating_sub(self.clock.elapsed()));
            let request = match wait {
                Some(Duration::ZERO) => {
                    self.step(Input::Tick);
                    // Ticks must not keep requests out, nor requests ticks.
                    match incoming.try_recv() {
                        Ok(request) => request,
                        Err(mpsc::TryRecvError::Empty) => continue,
                        Err(mpsc::TryRecvError::Disconnected) => return Ok(()),
                    }
                }
                Some(wait) => match incoming.recv_timeout(wait) {
                    Ok(request) => request,
                    Err(RecvTimeoutError::Timeout) => continue,
                    Err(RecvTimeoutError::Disconnected) => return Ok(()),
                },
                None => match incoming.recv() {
                    Ok(request) => request,
                    Err(mpsc::RecvError) => return Ok(()),
                },
            };
            if matches!(request, Request::Stop) || !self.lease.holds() {
                return Ok(());
            }
            self.take(request);
        }
        Ok(())
    }

    fn take(&mut self, request: Request) {
        match request {
            Request::Subscribe { stream, call, events, reply } => {
                self.streams.insert(stream, events);
                let request = self.wait_for(reply);
                self.step(Input::Subscribe { request, stream, call });
            }
            Request::StreamClosed(stream) => {
                if self.streams.remove(&stream).is_some() {
                    self.step(Input::StreamClosed { stream });
                }
            }
            Request::Scheduler { stream, call, reply } => {
                let request = self.wait_for(reply);
                self.step(Input::Scheduler { request, stream, call });
            }
            Request::Operator { call, reply } => {
                let request = self.wait_for(reply);
                self.step(Input::Operator { request, call });
            }
            Request::LinkOpened { link, frames } => {
                self.links.insert(link, frames);
            }
            Request::Agent { link, frame } => {
                // What was under way when the core closed the link is of no more interest.
                if self.links.contains_key(&link) {
                    self.step(Input::Agent { link, frame });
                }
            }
            Request::LinkClosed(link) => {
                if self.links.remove(&link).is_some() {
                    self.step(Input::LinkClosed { link });
                }
            }
            Request::Persisted(ticket) => self.step(Input::Persisted { ticket }),
            Request::Read(state) => {
                // A reader that has gone away meanwhile is no concern.
                let _ = state.send(self.core.snapshot());
            }
            Request::Observe { events, state } => {
                self.observers.add(events);
                self.core.observe(true);
                let _ = state.send(self.core.snapshot());
            }
            Request::Stop => {}
        }
    }

    fn wait_for(&mut self, reply: oneshot::Sender<Reply>) -> RequestId {
        self.requests += 1;
        let request = RequestId(self.requests);
        self.waiting.insert(request, reply);
        request
    }

    fn step(&mut self, input: Input) {
        let outputs = self.core.step(now(self.clock), input);
        for output in outputs {
            if !self.lease.holds() {
                return;
            }
            self.carry_out(output);
        }
    }

    /// Nothing here waits. Whoever is gone learns of it elsewhere, so a failed send is no error.
    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Event { stream, event } => {
                if let Some(events) = self.streams.get(&stream) {
                    let _ = events.send(event);
                }
            }
            Output::CloseStream { stream } => {
                self.streams.remove(&stream);
            }
            Output::Frame { link, frame } => {
                if let Some(frames) = self.links.get(&link) {
                    let _ = frames.send(frame);
                }
            }
            Output::CloseLink { link } => {
                self.links.remove(&link);
            }
            Output::Reply { request, reply } => {
                if let Some(waiting) = self.waiting.remove(&request) {
                    let _ = waiting.send(reply);
                }
            }
            Output::Persist { ticket, change } => {
                // The registry's thread is gone only when it has failed, and has then asked to stop.
                let _ = self.changes.send((ticket, change));
            }
            Output::Fail(why) => self.failed = Some(why),
            Output::Notify(event) => {
                if !self.observers.send(&event) {
                    self.core.observe(false);
                }
            }
        }
    }
}

// === impl Observers ===

impl<E: Clone> Observers<E> {
    /// None yet, and at most this many later.
    pub(crate) fn new(most: usize) -> Self {
        Self { queues: VecDeque::new(), most }
    }

    /// Adds one, closing the oldest when there are too many.
    pub(crate) fn add(&mut self, events: UnboundedSender<E>) {
        self.queues.retain(|queue| !queue.is_closed());
        self.queues.push_back(events);
        while self.queues.len() > self.most {
            self.queues.pop_front();
        }
    }

    /// Tells all, forgetting those that are gone. False when nobody is left.
    pub(crate) fn send(&mut self, event: &E) -> bool {
        self.queues.retain(|queue| queue.send(event.clone()).is_ok());
        !self.queues.is_empty()
    }
}

fn now(clock: Instant) -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { uptime: clock.elapsed(), wall }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    #[test]
    fn one_observer_too_many_closes_the_oldest() {
        let mut observers = Observers::new(2);
        let mut ends: Vec<_> = (0..3)
            .map(|_| {
                let (events, end) = unbounded_channel();
                observers.add(events);
                end
            })
            .collect();
        assert!(observers.send(&1));
        assert!(ends[0].try_recv().is_err());
        assert!(ends[0].is_closed());
        assert_eq!((ends[1].try_recv(), ends[2].try_recv()), (Ok(1), Ok(1)));
        drop(ends);
        assert!(!observers.send(&2));
    }
}
