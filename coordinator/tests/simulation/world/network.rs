//! Connections: what is sent arrives late but in order, and when one breaks, each end learns of it in its own time
//! and what was under way is lost.

use std::time::Duration;

use tepui_api::link::agent_frame::Body as Frame;
use tepui_api::link::coordinator_frame::Body as Order;
use tepui_api::v1::scheduler::{Call, Event as Told};
use tepui_coordinator::core::{LinkId, StreamHeader, StreamId};

use super::{Arrival, Event, World};
use std::sync::Arc;

/// One connection between the coordinator and an agent or framework.
#[derive(Debug)]
pub struct Wire {
    /// Whose.
    pub owner: usize,
    /// The coordinator has not closed it, nor learned that it is closed.
    pub near_open: bool,
    /// The other end has not closed it, nor learned that it is closed.
    pub far_open: bool,
    /// Of a stream: its SUBSCRIBE has arrived, so that the coordinator knows it.
    pub subscribed: bool,
    /// What would arrive at the coordinator after this is lost.
    up_until: Option<Duration>,
    /// What would arrive at the other end after this is lost.
    down_until: Option<Duration>,
    last_up: Duration,
    last_down: Duration,
}

impl Wire {
    pub fn new(owner: usize) -> Self {
        Self {
            owner,
            near_open: true,
            far_open: true,
            subscribed: false,
            up_until: None,
            down_until: None,
            last_up: Duration::ZERO,
            last_down: Duration::ZERO,
        }
    }

    /// When something sent now arrives at the coordinator; `None` when it is lost.
    fn up(&mut self, now: Duration, delay: Duration) -> Option<Duration> {
        self.last_up = (now + delay).max(self.last_up);
        self.up_until.is_none_or(|until| self.last_up <= until).then_some(self.last_up)
    }

    fn down(&mut self, now: Duration, delay: Duration) -> Option<Duration> {
        self.last_down = (now + delay).max(self.last_down);
        self.down_until.is_none_or(|until| self.last_down <= until).then_some(self.last_down)
    }

    /// Breaks it; some of what is under way may still arrive.
    fn cut(&mut self, up: Duration, down: Duration) {
        self.up_until = Some(self.up_until.map_or(up, |until| until.min(up)));
        self.down_until = Some(self.down_until.map_or(down, |until| until.min(down)));
    }

    /// Whether what comes to the coordinator now arrives.
    pub fn arrives_up(&self, now: Duration) -> bool {
        self.near_open && self.up_until.is_none_or(|until| now <= until)
    }

    /// Whether what comes to the other end now arrives.
    pub fn arrives_down(&self, now: Duration) -> bool {
        self.far_open && self.down_until.is_none_or(|until| now <= until)
    }
}

impl World {
    /// How long a message takes.
    pub(super) fn delay(&mut self) -> Duration {
        if self.calm {
            return self.rng.millis(1..=5);
        }
        match self.rng.weighted(&[85, 13, 2]) {
            0 => self.rng.millis(1..=20),
            1 => self.rng.millis(20..=400),
            _ => self.rng.millis(400..=4000),
        }
    }

    /// How long an end takes to see that its connection broke.
    fn notice(&mut self) -> Duration {
        match self.rng.weighted(&[70, 25, 5]) {
            0 => self.rng.millis(1..=200),
            1 => self.rng.millis(200..=10_000),
            _ => self.rng.millis(10_000..=40_000),
        }
    }

    fn tell_core(&mut self, at: Duration, what: Arrival) {
        let incarnation = self.host.incarnation;
        self.at(at, Event::ToCore { incarnation, what });
    }

    // --- links

    pub(super) fn connect_agent(&mut self, index: usize) {
        if self.host.core.is_none() {
            let retry_at = self.now + self.rng.millis(200..=3000);
            self.agents[index].model.disconnected(retry_at);
            return;
        }
        let link = LinkId(self.sequence);
        self.sequence += 1;
        self.links.insert(link, Wire::new(index));
        self.agents[index].link = Some(link);
        let tag = format!("1.11.0+{}", link.0);
        let frame = self.agents[index].model.register(self.now, &tag);
        let again = !self.calm && self.rng.chance(30);
        if again {
            // A peer that repeats itself.
            self.send_frame(link, frame.clone());
        }
        self.send_frame(link, frame);
        if !self.calm && self.rng.chance(40) {
            // It dies before the answer: its successor's registration may arrive before its own.
            self.restart_agent(index);
        }
    }

    /// Sends what the agent has to say.
    pub(super) fn flush_agent(&mut self, index: usize) {
        let frames = std::mem::take(&mut self.agents[index].model.out);
        let Some(link) = self.agents[index].link else { return };
        for frame in frames {
            let again =
                !self.calm && matches!(frame, Frame::Update(_) | Frame::Pong(_)) && self.rng.chance(20);
            if again {
                self.send_frame(link, frame.clone());
            }
            self.send_frame(link, frame);
        }
    }

    fn send_frame(&mut self, link: LinkId, frame: Frame) {
        let delay = self.delay();
        let at = self.links.get_mut(&link).and_then(|wire| wire.up(self.now, delay));
        if let Some(at) = at {
            self.tell_core(at, Arrival::Frame(link, frame));
        }
    }

    pub(super) fn send_order(&mut self, link: LinkId, order: Order) {
        let delay = self.delay();
        let Some(wire) = self.links.get_mut(&link) else { return };
        let agent = wire.owner;
        if let Some(at) = wire.down(self.now, delay) {
            self.at(at, Event::ToAgent { agent, link, what: Some(order) });
        }
    }

    /// The agent's end is closed; the coordinator learns of it.
    pub(super) fn agent_hangs_up(&mut self, index: usize) {
        let retry_at = self.now + self.rng.millis(20..=2000);
        self.drop_agent_link(index);
        self.agents[index].model.disconnected(retry_at);
    }

    /// As when its process dies: what it has sent may still arrive.
    pub(super) fn drop_agent_link(&mut self, index: usize) {
        let Some(link) = self.agents[index].link.take() else { return };
        let late = if self.rng.chance(500) { self.rng.millis(0..=5000) } else { Duration::ZERO };
        let notice = self.notice();
        let now = self.now;
        if let Some(wire) = self.links.get_mut(&link) {
            wire.far_open = false;
            wire.cut(now + late, now);
            let at = (now + notice).max(wire.last_up) + Duration::from_nanos(1);
            self.tell_core(at, Arrival::LinkClosed(link));
        }
    }

    /// The network breaks a link; both ends learn of it.
    pub(super) fn cut_link(&mut self, link: LinkId) {
        let (up, down) = (self.rng.millis(0..=300), self.rng.millis(0..=300));
        let (near, far) = (self.notice(), self.notice());
        let now = self.now;
        let Some(wire) = self.links.get_mut(&link) else { return };
        wire.cut(now + up, now + down);
        let agent = wire.owner;
        let near_at = (now + near).max(wire.last_up) + Duration::from_nanos(1);
        let far_at = (now + far).max(wire.last_down) + Duration::from_nanos(1);
        self.tell_core(near_at, Arrival::LinkClosed(link));
        self.at(far_at, Event::ToAgent { agent, link, what: None });
    }

    /// The coordinator closes a link: what it sent before still arrives.
    pub(super) fn close_link(&mut self, link: LinkId) {
        let delay = self.delay();
        let Some(wire) = self.links.get_mut(&link) else { return };
        wire.near_open = false;
        let agent = wire.owner;
        let at = (self.now + delay).max(wire.last_down) + Duration::from_nanos(1);
        self.at(at, Event::ToAgent { agent, link, what: None });
    }

    // --- streams

    pub(super) fn connect_framework(&mut self, index: usize) {
        if self.host.core.is_none() {
            let retry_at = self.now + self.rng.millis(200..=3000);
            self.frameworks[index].model.disconnected(retry_at);
            return;
        }
        let stream = StreamId(self.rng.uuid());
        let call = self.frameworks[index].model.subscribe(self.now, stream);
        let again = !self.calm && self.rng.chance(20);
        if again {
            // Sent twice, as by a client that gave up too early: two streams for one framework.
            let other = StreamId(self.rng.uuid());
            self.send_subscription(index, other, call.clone());
        }
        self.send_subscription(index, stream, call);
    }

    fn send_subscription(&mut self, index: usize, stream: StreamId, call: Call) {
        let delay = self.delay();
        let mut wire = Wire::new(index);
        let at = wire.up(self.now, delay);
        self.streams.insert(stream, wire);
        if let Some(at) = at {
            self.tell_core(at, Arrival::Subscribe { stream, call });
        }
    }

    /// A call is a request of its own: it may overtake others, be lost, or arrive twice.
    pub(super) fn send_call(&mut self, index: usize, call: Call) {
        let stream = self.frameworks[index].model.stream();
        let right = stream.map_or(StreamHeader::Absent, StreamHeader::Present);
        let header = if self.calm {
            right
        } else {
            match self.rng.weighted(&[970, 10, 10, 10]) {
                0 => right,
                1 => StreamHeader::Absent,
                2 => StreamHeader::Unknown,
                _ => StreamHeader::Present(StreamId(self.rng.uuid())),
            }
        };
        let copies = if self.calm { 1 } else { self.rng.weighted(&[15, 960, 25]) };
        for _ in 0..copies {
            let delay = self.delay();
            let at = self.now + delay;
            // Reports go with the stream they were sent for only when it was named.
            let named = if header == right { stream } else { None };
            self.tell_core(at, Arrival::Call { framework: index, stream: named, header, call: call.clone() });
        }
    }

    pub(super) fn send_event(&mut self, stream: StreamId, event: Arc<Told>) {
        let delay = self.delay();
        let Some(wire) = self.streams.get_mut(&stream) else { return };
        let framework = wire.owner;
        if let Some(at) = wire.down(self.now, delay) {
            self.at(at, Event::ToFramework { framework, stream, what: Some(event) });
        }
    }

    /// The framework's end is closed; the coordinator learns of it.
    pub(super) fn hang_up_stream(&mut self, index: usize) {
        let Some(stream) = self.frameworks[index].model.stream() else { return };
        let notice = self.notice();
        let now = self.now;
        if let Some(wire) = self.streams.get_mut(&stream) {
            wire.far_open = false;
            wire.cut(now + Duration::from_secs(5), now);
            let at = (now + notice).max(wire.last_up) + Duration::from_nanos(1);
            self.tell_core(at, Arrival::StreamClosed(stream));
        }
    }

    /// The network breaks a stream; both ends learn of it.
    pub(super) fn cut_stream(&mut self, stream: StreamId) {
        let down = self.rng.millis(0..=300);
        let (near, far) = (self.notice(), self.notice());
        let now = self.now;
        let Some(wire) = self.streams.get_mut(&stream) else { return };
        wire.cut(now, now + down);
        let framework = wire.owner;
        let near_at = (now + near).max(wire.last_up) + Duration::from_nanos(1);
        let far_at = (now + far).max(wire.last_down) + Duration::from_nanos(1);
        self.tell_core(near_at, Arrival::StreamClosed(stream));
        self.at(far_at, Event::ToFramework { framework, stream, what: None });
    }

    /// The coordinator closes a stream: what it sent before still arrives.
    pub(super) fn close_stream(&mut self, stream: StreamId) {
        let delay = self.delay();
        let Some(wire) = self.streams.get_mut(&stream) else { return };
        wire.near_open = false;
        let framework = wire.owner;
        let at = (self.now + delay).max(wire.last_down) + Duration::from_nanos(1);
        self.at(at, Event::ToFramework { framework, stream, what: None });
    }

    /// The coordinator's process ended, and all its connections with it.
    pub(super) fn break_all(&mut self) {
        let now = self.now;
        let links: Vec<LinkId> =
            self.links.iter().filter(|(_, wire)| wire.near_open).map(|(link, _)| *link).collect();
        for link in links {
            let (late, notice) = (self.rng.millis(0..=50), self.rng.millis(60..=3000));
            let Some(wire) = self.links.get_mut(&link) else { continue };
            wire.near_open = false;
            wire.cut(now, now + late);
            let agent = wire.owner;
            self.at(now + notice, Event::ToAgent { agent, link, what: None });
        }
        let streams: Vec<StreamId> =
            self.streams.iter().filter(|(_, wire)| wire.near_open).map(|(stream, _)| *stream).collect();
        for stream in streams {
            let (late, notice) = (self.rng.millis(0..=50), self.rng.millis(60..=3000));
            let Some(wire) = self.streams.get_mut(&stream) else { continue };
            wire.near_open = false;
            wire.cut(now, now + late);
            let framework = wire.owner;
            self.at(now + notice, Event::ToFramework { framework, stream, what: None });
        }
    }

    /// Forgets connections that both ends have left.
    pub(super) fn sweep(&mut self) {
        self.links.retain(|_, wire| wire.near_open || wire.far_open);
        self.streams.retain(|_, wire| wire.near_open || wire.far_open);
    }
}
