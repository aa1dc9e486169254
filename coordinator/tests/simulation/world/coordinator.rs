//! The coordinator's process: the core, its registry's disk, and what a step's outputs become.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use tepui_api::link::coordinator_frame::Body as Order;
use tepui_api::v1::MasterInfo;
use tepui_coordinator::core::{
    Core, Input, Now, Output, Recovered, Reply, RequestId, Settings, StreamHeader, StreamId,
};
use tepui_coordinator::registry::{MemoryRegistry, Registry};

use super::{Arrival, Event, Host, Traced, World};
use crate::ledger::Ledger;
use crate::rng::Rng;

/// When a core says that it is due again and again, it hangs.
const MOST_IDLE_TICKS: u32 = 100;

impl Host {
    pub(super) fn new(rng: &mut Rng) -> Self {
        let defaults = Settings::new(MasterInfo::default());
        let settings = Settings {
            agent_ping_timeout: rng.millis(2000..=15_000),
            max_agent_ping_timeouts: 2 + rng.below(4) as u32,
            agent_reregister_timeout: rng.millis(5000..=90_000),
            offer_timeout: rng.chance(400).then(|| rng.millis(1000..=30_000)),
            // All are remembered, so that whoever comes back after its end is known.
            max_completed_frameworks: 100_000,
            max_completed_tasks_per_framework: rng.below(30),
            max_unreachable_tasks_per_framework: 1000,
            registry_max_agent_count: 1 + rng.below(20),
            registry_max_agent_age: rng.millis(60_000..=3_600_000),
            weights: if rng.chance(300) { vec![("eng".to_owned(), 3.0)] } else { Vec::new() },
            ..defaults
        };
        Self {
            core: None,
            ledger: None,
            settings,
            registry: MemoryRegistry::default(),
            unwritten: std::collections::VecDeque::new(),
            last_write: Duration::ZERO,
            incarnation: 0,
            next_request: 0,
            wall_offset: Duration::from_secs(1_700_000_000),
            idle_ticks: 0,
        }
    }
}

impl World {
    /// A process of the coordinator starts, with what is on disk.
    pub(super) fn start(&mut self) {
        if self.host.core.is_some() {
            return;
        }
        self.host.incarnation += 1;
        let id = self.rng.uuid().to_string();
        self.host.settings.master =
            MasterInfo { id, hostname: Some("coordinator".to_owned()), port: 5050, ..MasterInfo::default() };
        self.host.settings.seed = self.rng.number();
        let recovered: Recovered = self.host.registry.recover().unwrap();
        let core = Core::new(self.host.settings.clone(), recovered, self.clocks());
        let ledger = match self.host.ledger.take() {
            Some(before) => before.after_restart(&core),
            None => Ledger::new(&core),
        };
        self.host.ledger = Some(ledger);
        self.host.core = Some(core);
    }

    /// The process dies. Of what it had asked to be written, some may be on disk.
    pub(super) fn kill_coordinator(&mut self, down: Duration) {
        if self.host.core.take().is_none() {
            return;
        }
        self.tally.restarts += 1;
        let written = self.rng.below(self.host.unwritten.len() + 1);
        let changes: Vec<_> = self.host.unwritten.drain(..).take(written).map(|(_, change)| change).collect();
        self.host.registry.write(&changes).unwrap();
        self.host.incarnation += 1;
        self.break_all();
        // The clock that people read may be set meanwhile.
        self.host.wall_offset =
            self.host.wall_offset + self.rng.millis(0..=7_200_000) - Duration::from_secs(3600);
        let at = self.now + down;
        self.at(at, Event::Start);
    }

    fn clocks(&self) -> Now {
        Now { uptime: self.now, wall: self.now + self.host.wall_offset }
    }

    pub(super) fn tick_due(&self) -> Option<Duration> {
        self.host.core.as_ref().and_then(Core::next_deadline)
    }

    pub(super) fn tick(&mut self) -> Result<(), String> {
        let before = self.tick_due();
        let outputs = self.step(Input::Tick)?;
        let stuck = outputs == 0 && self.tick_due().is_some_and(|due| due <= self.now && Some(due) <= before);
        self.host.idle_ticks = if stuck { self.host.idle_ticks + 1 } else { 0 };
        if self.host.idle_ticks > MOST_IDLE_TICKS {
            return Err(format!("the core is due at {before:?} and stays so, whatever the time"));
        }
        Ok(())
    }

    /// Something arrives at the coordinator: an input, unless its connection is gone.
    pub(super) fn arrives(&mut self, what: Arrival) -> Result<(), String> {
        let now = self.now;
        let input = match what {
            Arrival::Frame(link, frame) => {
                if !self.links.get(&link).is_some_and(|wire| wire.arrives_up(now)) {
                    return Ok(());
                }
                Input::Agent { link, frame }
            }
            Arrival::LinkClosed(link) => {
                let Some(wire) = self.links.get_mut(&link).filter(|wire| wire.near_open) else {
                    return Ok(());
                };
                wire.near_open = false;
                Input::LinkClosed { link }
            }
            Arrival::StreamClosed(stream) => {
                let Some(wire) = self.streams.get_mut(&stream).filter(|wire| wire.near_open) else {
                    return Ok(());
                };
                wire.near_open = false;
                if !wire.subscribed {
                    return Ok(());
                }
                Input::StreamClosed { stream }
            }
            Arrival::Subscribe { stream, call } => {
                let Some(wire) = self.streams.get_mut(&stream).filter(|wire| wire.arrives_up(now)) else {
                    return Ok(());
                };
                wire.subscribed = true;
                Input::Subscribe { request: self.request(), stream, call }
            }
            Arrival::Call { framework, stream, header, call } => {
                return self.call_arrives(framework, stream, header, call);
            }
            Arrival::Operator(call) => Input::Operator { request: self.request(), call },
            Arrival::Persisted(ticket) => {
                let Some((first, change)) = self.host.unwritten.pop_front() else { return Ok(()) };
                assert_eq!(first, ticket, "the simulation writes in order");
                self.host.registry.write(&[change]).unwrap();
                Input::Persisted { ticket }
            }
        };
        self.step(input).map(|_| ())
    }

    fn call_arrives(
        &mut self,
        framework: usize,
        stream: Option<StreamId>,
        header: StreamHeader,
        call: tepui_api::v1::scheduler::Call,
    ) -> Result<(), String> {
        let request = self.request();
        let outputs = self.step_with(Input::Scheduler { request, stream: header, call })?;
        let reply = outputs.into_iter().find_map(|output| match output {
            Output::Reply { reply, .. } => Some(reply),
            _ => None,
        });
        if let Some(reply @ Reply::Refused { .. }) = reply {
            let at = self.now + self.delay();
            self.at(at, Event::Answer { framework, stream, reply });
        }
        Ok(())
    }

    fn request(&mut self) -> RequestId {
        self.host.next_request += 1;
        RequestId(self.host.next_request)
    }

    fn step(&mut self, input: Input) -> Result<usize, String> {
        self.step_with(input).map(|outputs| outputs.len())
    }

    /// One step: the core takes the input in, the ledger checks, the outputs go on their way.
    fn step_with(&mut self, input: Input) -> Result<Vec<Output>, String> {
        self.steps += 1;
        let now = self.clocks();
        self.trace.push_back(Traced {
            step: self.steps,
            now: self.now,
            input: input.clone(),
            outputs: Vec::new(),
        });
        if self.trace.len() > self.traced {
            self.trace.pop_front();
        }
        let (Some(core), Some(ledger)) = (&mut self.host.core, &mut self.host.ledger) else {
            return Ok(Vec::new());
        };
        let outputs = core.step(now, input.clone());
        if let Some(last) = self.trace.back_mut() {
            last.outputs.clone_from(&outputs);
        }
        ledger.check(core, now, &input, &outputs)?;
        self.note(&outputs);
        for output in &outputs {
            self.carry_out(output);
        }
        if self.steps.is_multiple_of(256) {
            self.sweep();
        }
        Ok(outputs)
    }

    fn carry_out(&mut self, output: &Output) {
        match output {
            Output::Event { stream, event } => self.send_event(*stream, event.clone()),
            Output::CloseStream { stream } => self.close_stream(*stream),
            Output::Frame { link, frame } => {
                // Sent twice: what an order says holds however often it comes.
                let again =
                    !self.calm && matches!(frame, Order::Ping(_) | Order::KillTask(_)) && self.rng.chance(20);
                if again {
                    self.send_order(*link, frame.clone());
                }
                self.send_order(*link, frame.clone());
            }
            Output::CloseLink { link } => self.close_link(*link),
            Output::Persist { ticket, change } => {
                self.host.unwritten.push_back((*ticket, change.clone()));
                let delay =
                    if self.rng.chance(50) { self.rng.millis(200..=5000) } else { self.rng.millis(1..=50) };
                let at = (self.now + delay).max(self.host.last_write) + Duration::from_nanos(1);
                self.host.last_write = at;
                let incarnation = self.host.incarnation;
                self.at(at, Event::ToCore { incarnation, what: Arrival::Persisted(*ticket) });
            }
            Output::Reply { .. } | Output::Notify(_) | Output::Fail(_) => {}
        }
    }

    /// Keeps a figure of all that happened, by which two runs of one seed can be compared.
    fn note(&mut self, outputs: &[Output]) {
        let mut hasher = DefaultHasher::new();
        (self.tally.digest, self.now, self.steps, outputs.len()).hash(&mut hasher);
        for output in outputs {
            match output {
                Output::Event { stream, .. } | Output::CloseStream { stream } => stream.hash(&mut hasher),
                Output::Frame { link, .. } | Output::CloseLink { link } => link.hash(&mut hasher),
                Output::Reply { request, .. } => request.hash(&mut hasher),
                Output::Persist { ticket, .. } => ticket.hash(&mut hasher),
                Output::Notify(_) | Output::Fail(_) => {}
            }
        }
        self.tally.digest = hasher.finish();
    }
}
