//! The books as they ought to be, kept from what goes into a core and what comes out of it.
//!
//! After every step the ledger takes in the input and the outputs: offers made, taken back, used; tasks
//! launched, updated, acknowledged. It works out by Mesos' rules what is used and offered on each agent, and
//! compares that with the core's own figures. That an agent or framework has come or gone it learns from the
//! core's snapshot, and asks whether there was a reason; all amounts it reckons itself.

mod arrivals;
mod books;
mod calls;
mod compare;
mod outputs;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use tepui_api::link::Register;
use tepui_api::link::agent_frame::Body as Frame;
use tepui_api::link::coordinator_frame::Body as Order;
use tepui_api::v1::scheduler::Event;
use tepui_api::v1::{AgentId, FrameworkId, OfferId};
use tepui_coordinator::core::{
    Core, Input, LinkId, Now, Output, RegistryChange, Reply, RequestId, Snapshot, StreamId, Ticket,
};

pub use books::{AgentBook, Counts, FrameworkBook, OfferBook, TaskBook};

use crate::model::Key;

/// What a check says: nothing, or what does not hold.
pub type Checked = Result<(), String>;

/// The ledger of one core. What it knows of times before comes with [`Ledger::after_restart`].
#[derive(Debug)]
pub struct Ledger {
    agents: BTreeMap<AgentId, AgentBook>,
    frameworks: BTreeMap<FrameworkId, FrameworkBook>,
    offers: HashMap<OfferId, OfferBook>,
    /// Every offer there has been, of cores before this one too.
    offers_ever: HashSet<OfferId>,
    streams: HashSet<StreamId>,
    links: HashSet<LinkId>,
    /// Registrations by the tag that each carries as its version.
    registers: HashMap<String, Register>,
    /// The tag of the registration that came over each link.
    tags: HashMap<LinkId, String>,
    /// What the registry was asked to write and has not confirmed.
    pending: BTreeMap<Ticket, RegistryChange>,
    /// Calls of operators that wait for the registry.
    operators: BTreeSet<RequestId>,
    /// Frameworks that were torn down.
    torn_down: BTreeSet<FrameworkId>,
    /// The core's state after the step before.
    before: Snapshot,
    steps: u64,
    counts: Counts,
}

/// One step, as the parts of the ledger look at it.
struct Step<'a> {
    now: Now,
    input: &'a Input,
    outputs: &'a [Output],
    after: &'a Snapshot,
    /// Tasks that were taken out of the books without word from their agent: their frameworks must be told.
    given_up: Vec<Key>,
    /// What was in the offers that an ACCEPT used, while its launches are looked at.
    basket: Option<calls::Basket>,
}

// === impl Ledger ===

impl Ledger {
    /// The ledger of a core that starts.
    pub fn new(core: &Core) -> Self {
        Self {
            agents: BTreeMap::new(),
            frameworks: BTreeMap::new(),
            offers: HashMap::new(),
            offers_ever: HashSet::new(),
            streams: HashSet::new(),
            links: HashSet::new(),
            registers: HashMap::new(),
            tags: HashMap::new(),
            pending: BTreeMap::new(),
            operators: BTreeSet::new(),
            torn_down: BTreeSet::new(),
            before: core.snapshot(),
            steps: 0,
            counts: Counts::default(),
        }
    }

    /// The ledger of the core that follows.
    pub fn after_restart(self, core: &Core) -> Self {
        Self { offers_ever: self.offers_ever, counts: self.counts, steps: self.steps, ..Self::new(core) }
    }

    /// What has happened so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The core's state after the last step.
    pub fn snapshot(&self) -> &Snapshot {
        &self.before
    }

    /// Takes in a step and checks all that must hold after it.
    pub fn check(&mut self, core: &Core, now: Now, input: &Input, outputs: &[Output]) -> Checked {
        self.steps += 1;
        let after = core.snapshot();
        self.check_addressees(input, outputs)?;
        let mut step = Step { now, input, outputs, after: &after, given_up: Vec::new(), basket: None };
        self.take_input(&mut step)?;
        self.take_rescinds(&step)?;
        self.take_changes(&mut step)?;
        self.take_outputs(&mut step)?;
        self.compare(core, &step)?;
        drop(step);
        self.before = after;
        Ok(())
    }

    /// Each output is for a connection that is open, each request has one answer, each ticket is new.
    fn check_addressees(&mut self, input: &Input, outputs: &[Output]) -> Checked {
        let mut waiting: Option<RequestId> = None;
        let mut opening: Option<StreamId> = None;
        match input {
            Input::Subscribe { request, stream, .. } => {
                (waiting, opening) = (Some(*request), Some(*stream));
                self.streams.insert(*stream);
            }
            Input::Scheduler { request, .. } => waiting = Some(*request),
            Input::Operator { request, .. } => _ = self.operators.insert(*request),
            Input::StreamClosed { stream } => _ = self.streams.remove(stream),
            Input::Agent { link, frame } => {
                self.links.insert(*link);
                if let Frame::Register(register) = frame {
                    self.registers.insert(register.version.clone(), register.clone());
                    self.tags.insert(*link, register.version.clone());
                }
            }
            Input::LinkClosed { link } => _ = self.links.remove(link),
            Input::Persisted { .. } | Input::Tick => {}
        }
        for output in outputs {
            match output {
                Output::Event { stream, event } if !self.streams.contains(stream) => {
                    return Err(format!("an event for the unknown stream {stream:?}: {event:?}"));
                }
                Output::Frame { link, frame } if !self.links.contains(link) => {
                    return Err(format!("a frame for the unknown link {link:?}: {frame:?}"));
                }
                Output::CloseStream { stream } if !self.streams.remove(stream) => {
                    return Err(format!("the unknown stream {stream:?} was closed"));
                }
                Output::CloseLink { link } if !self.links.remove(link) => {
                    return Err(format!("the unknown link {link:?} was closed"));
                }
                Output::Reply { request, reply } => {
                    if !self.operators.remove(request) && waiting.take() != Some(*request) {
                        return Err(format!("an answer that no request waits for: {request:?}, {reply:?}"));
                    }
                    if let Some(stream) = opening.take()
                        && *reply != Reply::Subscribed
                    {
                        self.streams.remove(&stream);
                    }
                }
                Output::Persist { ticket, change }
                    if self.pending.last_key_value().is_some_and(|(last, _)| last >= ticket)
                        || self.pending.insert(*ticket, change.clone()).is_some() =>
                {
                    return Err(format!("the ticket {ticket:?} comes out of order"));
                }
                _ => {}
            }
        }
        match waiting {
            Some(request) => Err(format!("the request {request:?} has no answer")),
            None => Ok(()),
        }
    }
}

// === impl Step ===

impl<'a> Step<'a> {
    /// The events of this step on one stream.
    fn events(&self, stream: StreamId) -> impl Iterator<Item = &'a Arc<Event>> {
        self.outputs.iter().filter_map(move |output| match output {
            Output::Event { stream: to, event } if *to == stream => Some(event),
            _ => None,
        })
    }

    /// The frames of this step over one link.
    fn frames(&self, link: LinkId) -> impl Iterator<Item = &'a Order> {
        self.outputs.iter().filter_map(move |output| match output {
            Output::Frame { link: to, frame } if *to == link => Some(frame),
            _ => None,
        })
    }

    /// How the request of this step was answered.
    fn reply(&self) -> Option<&'a Reply> {
        self.outputs.iter().find_map(|output| match output {
            Output::Reply { reply, .. } => Some(reply),
            _ => None,
        })
    }
}
