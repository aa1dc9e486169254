//! Status updates on their way to the frameworks: one [`Stream`] a task, pure of clock and disk.
//!
//! An update is pushed, goes to the store, and is confirmed by [`Streams::stored`]; only then may it
//! be sent. Of each stream only the head is under way. It is sent anew with exponential back-off, and at once when
//! a connection to the coordinator comes up, until it is acknowledged with its own uuid; then the next one is the
//! head, and goes out when the acknowledgement is on disk ([`Streams::settled`]): an agent that forgot it would repeat
//! the older update after the newer one. Whatever else is acknowledged (twice, too late, never sent) is ignored.
//!
//! A task's terminal update is pushed *held*: it is stored as soon as the container has ended, and sent when
//! nothing of the container is left, so that a framework that reads it can count on that. An agent that restarted holds
//! again what it had sent before; when that is acknowledged meanwhile it is not sent once more.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tepui_api::v1::{FrameworkId, TaskState, TaskStatus};

use super::status::is_terminal;
use super::task::TaskKey;

/// How long the first copy of an update waits for its acknowledgement. Mesos' figure.
pub const RETRY_MIN: Duration = Duration::from_secs(10);
/// The back-off doubles up to this. Mesos' figure.
pub const RETRY_MAX: Duration = Duration::from_secs(600);

/// All updates that have not been acknowledged.
#[derive(Debug, Default)]
pub struct Streams {
    streams: BTreeMap<TaskKey, Stream>,
    /// When heads under way are sent anew; one entry for each stream whose head is under way.
    due: BTreeSet<(Duration, TaskKey)>,
    /// Whether there is a coordinator to send to.
    connected: bool,
}

/// An update to send now.
#[derive(Debug, Clone, PartialEq)]
pub struct Sending {
    /// The task it tells of.
    pub key: TaskKey,
    /// The update.
    pub status: Arc<TaskStatus>,
    /// The state the task has by now, as far as it may be known.
    pub latest: TaskState,
}

/// What an acknowledgement did.
#[derive(Debug, Clone, PartialEq)]
pub enum Acknowledged {
    /// Nothing yet: there is no such stream, its head is another update, or is held ([`Streams::release`]).
    Ignored,
    /// The head is done.
    Head {
        /// Its number in its stream.
        sequence: u64,
        /// It was terminal: the stream is no more.
        last: bool,
    },
}

/// What became of an update that was held.
#[derive(Debug, Clone, PartialEq)]
pub enum Released {
    /// Nothing: there is none, or it is not its turn.
    Nothing,
    /// It is to be sent.
    Send(Sending),
    /// It had been acknowledged already: the task can be forgotten.
    Acknowledged,
}

/// Whether an update is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It is not.
    No,
    /// It is on its way to the disk.
    Pending,
    /// It is on disk, or was, until it was acknowledged.
    Stored,
}

#[derive(Debug, Default)]
struct Stream {
    /// The number that the next update gets.
    next: u64,
    /// The uuids of what an executor told. One that does not know that it was heard says the same again.
    uuids: HashSet<Vec<u8>>,
    pending: VecDeque<Pending>,
    /// The last acknowledgement is not on disk yet.
    settling: bool,
    /// When the head is sent anew, and the back-off after that. `None` when it is not under way.
    under_way: Option<UnderWay>,
}

#[derive(Debug)]
struct Pending {
    sequence: u64,
    status: Arc<TaskStatus>,
    /// It is on disk.
    stored: bool,
    /// It waits for its container's remains to go.
    held: bool,
    /// It was acknowledged while it was held: an earlier process of the agent had sent it.
    acknowledged: bool,
}

#[derive(Debug, Clone, Copy)]
struct UnderWay {
    again_at: Duration,
    backoff: Duration,
}

// === impl Streams ===

impl Streams {
    /// Takes a new update; gives its number. It is sent after [`Streams::stored`] with that number.
    pub fn push(&mut self, key: &TaskKey, status: Arc<TaskStatus>, held: bool) -> u64 {
        let stream = self.streams.entry(key.clone()).or_default();
        let sequence = stream.next;
        stream.next += 1;
        stream.pending.push_back(Pending { sequence, status, stored: false, held, acknowledged: false });
        sequence
    }

    /// Takes back what was on disk: an update that was not acknowledged.
    pub fn restore(&mut self, key: &TaskKey, sequence: u64, status: Arc<TaskStatus>, held: bool) {
        let stream = self.streams.entry(key.clone()).or_default();
        stream.next = stream.next.max(sequence + 1);
        stream.pending.push_back(Pending { sequence, status, stored: true, held, acknowledged: false });
    }

    /// Continues a stream's numbers after those that were used before a restart.
    pub fn continue_after(&mut self, key: &TaskKey, sequence: u64) {
        let stream = self.streams.entry(key.clone()).or_default();
        stream.next = stream.next.max(sequence + 1);
    }

    /// Remembers what an executor told by its uuid, so that it is not taken twice.
    pub fn remember(&mut self, key: &TaskKey, uuid: Option<&[u8]>) {
        if let (Some(stream), Some(uuid)) = (self.streams.get_mut(key), uuid) {
            stream.uuids.insert(uuid.to_vec());
        }
    }

    /// Whether nothing of this stream waits for an acknowledgement.
    #[must_use]
    pub fn is_settled(&self, key: &TaskKey) -> bool {
        self.streams.get(key).is_none_or(|stream| stream.pending.is_empty())
    }

    /// Whether what an executor told with this uuid was taken before.
    #[must_use]
    pub fn knows(&self, key: &TaskKey, uuid: &[u8]) -> Known {
        let Some(stream) = self.streams.get(key).filter(|stream| stream.uuids.contains(uuid)) else {
            return Known::No;
        };
        let pending = stream.pending.iter().find(|pending| pending.status.uuid.as_deref() == Some(uuid));
        if pending.is_some_and(|pending| !pending.stored) { Known::Pending } else { Known::Stored }
    }

    /// The update with this number is on disk.
    pub fn stored(&mut self, now: Duration, key: &TaskKey, sequence: u64) -> Option<Sending> {
        let stream = self.streams.get_mut(key)?;
        let pending = stream.pending.iter_mut().find(|p| p.sequence == sequence)?;
        pending.stored = true;
        self.send_head(now, key)
    }

    /// Nothing of the task's container is left: what was held may go, unless it was acknowledged meanwhile.
    pub fn release(&mut self, now: Duration, key: &TaskKey) -> Released {
        let Some(stream) = self.streams.get_mut(key) else { return Released::Nothing };
        for pending in &mut stream.pending {
            pending.held = false;
        }
        if stream.pending.front().is_some_and(|head| head.acknowledged) {
            return Released::Acknowledged;
        }
        self.send_head(now, key).map_or(Released::Nothing, Released::Send)
    }

    /// The framework acknowledged an update.
    pub fn acknowledge(&mut self, key: &TaskKey, uuid: &[u8]) -> Acknowledged {
        let Some(stream) = self.streams.get_mut(key) else { return Acknowledged::Ignored };
        if let Some(head) = stream.pending.front_mut()
            && head.held
            && head.status.uuid.as_deref() == Some(uuid)
        {
            // The task cannot be forgotten before its container is gone, or a restart would leave that behind.
            head.acknowledged = true;
            return Acknowledged::Ignored;
        }
        let is_head = stream.pending.front().is_some_and(|p| p.status.uuid.as_deref() == Some(uuid));
        let (true, Some(under_way)) = (is_head, stream.under_way) else { return Acknowledged::Ignored };
        let Some(done) = stream.pending.pop_front() else { return Acknowledged::Ignored };
        stream.under_way = None;
        self.due.remove(&(under_way.again_at, key.clone()));
        stream.settling = true;
        let last = is_terminal(done.status.state());
        if last {
            self.remove(key);
        }
        Acknowledged::Head { sequence: done.sequence, last }
    }

    /// The last acknowledgement is on disk: the next head may go.
    pub fn settled(&mut self, now: Duration, key: &TaskKey) -> Option<Sending> {
        self.streams.get_mut(key)?.settling = false;
        self.send_head(now, key)
    }

    /// A coordinator took the agent in: every head that may be sent, with the back-off begun afresh.
    pub fn connect(&mut self, now: Duration) -> Vec<Sending> {
        self.disconnect();
        self.connected = true;
        let keys: Vec<TaskKey> = self.streams.keys().cloned().collect();
        keys.iter().filter_map(|key| self.send_head(now, key)).collect()
    }

    /// The connection is gone: nothing is under way.
    pub fn disconnect(&mut self) {
        self.connected = false;
        self.due.clear();
        for stream in self.streams.values_mut() {
            stream.under_way = None;
        }
    }

    /// The heads whose acknowledgement is overdue; each waits twice as long as before from now on.
    pub fn overdue(&mut self, now: Duration) -> Vec<Sending> {
        let mut again = Vec::new();
        while let Some((at, key)) = self.due.first().cloned() {
            if at > now {
                break;
            }
            self.due.remove(&(at, key.clone()));
            let Some(stream) = self.streams.get_mut(&key) else { continue };
            let Some(before) = stream.under_way else { continue };
            let backoff = (before.backoff * 2).min(RETRY_MAX);
            stream.under_way = Some(UnderWay { again_at: now + backoff, backoff });
            let sending = stream.head(&key);
            self.due.insert((now + backoff, key));
            again.extend(sending);
        }
        again
    }

    /// When [`Streams::overdue`] has something next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Forgets a task's updates.
    pub fn remove(&mut self, key: &TaskKey) {
        if let Some(stream) = self.streams.remove(key)
            && let Some(under_way) = stream.under_way
        {
            self.due.remove(&(under_way.again_at, key.clone()));
        }
    }

    /// Whether something of this task is not acknowledged yet, or may still come.
    #[must_use]
    pub fn contains(&self, key: &TaskKey) -> bool {
        self.streams.contains_key(key)
    }

    /// The tasks of a framework that have a stream.
    pub fn of_framework<'a>(&'a self, framework: &'a FrameworkId) -> impl Iterator<Item = &'a TaskKey> {
        self.streams.keys().filter(move |key| key.framework == *framework)
    }

    /// Sends the head unless it is under way or has to wait.
    fn send_head(&mut self, now: Duration, key: &TaskKey) -> Option<Sending> {
        let stream = self.streams.get_mut(key)?;
        let head = stream.pending.front()?;
        if !self.connected || stream.settling || stream.under_way.is_some() || !head.stored || head.held {
            return None;
        }
        let again_at = now + RETRY_MIN;
        stream.under_way = Some(UnderWay { again_at, backoff: RETRY_MIN });
        self.due.insert((again_at, key.clone()));
        stream.head(key)
    }
}

// === impl Stream ===

impl Stream {
    fn head(&self, key: &TaskKey) -> Option<Sending> {
        let head = self.pending.front()?;
        let latest = self.pending.iter().rev().find(|p| !p.held).unwrap_or(head);
        Some(Sending { key: key.clone(), status: head.status.clone(), latest: latest.status.state() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> TaskKey {
        TaskKey::new("f", "t")
    }

    fn update(n: u8, state: TaskState) -> Arc<TaskStatus> {
        Arc::new(TaskStatus {
            task_id: "t".into(),
            state: state as i32,
            uuid: Some(vec![n; 16]),
            ..TaskStatus::default()
        })
    }

    const ZERO: Duration = Duration::ZERO;

    #[test]
    fn nothing_is_sent_before_it_is_stored_or_while_there_is_no_coordinator() {
        let mut streams = Streams::default();
        let first = streams.push(&key(), update(1, TaskState::TaskStarting), false);
        assert_eq!(streams.connect(ZERO), []);
        assert!(streams.stored(ZERO, &key(), first).is_some());
        let second = streams.push(&key(), update(2, TaskState::TaskRunning), false);
        assert_eq!(streams.stored(ZERO, &key(), second), None, "the head is another");
        streams.disconnect();
        assert_eq!(streams.next_deadline(), None);
        let sent = streams.connect(ZERO);
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].status.uuid.as_deref(), Some(&[1; 16][..]));
        assert_eq!(sent[0].latest, TaskState::TaskRunning);
    }

    #[test]
    fn a_held_update_goes_when_it_is_released_and_does_not_show_before() {
        let mut streams = Streams::default();
        streams.connect(ZERO);
        let running = streams.push(&key(), update(1, TaskState::TaskRunning), false);
        streams.stored(ZERO, &key(), running).unwrap();
        let last = streams.push(&key(), update(2, TaskState::TaskFinished), true);
        assert_eq!(streams.stored(ZERO, &key(), last), None);
        assert_eq!(streams.overdue(RETRY_MIN)[0].latest, TaskState::TaskRunning);
        let Acknowledged::Head { .. } = streams.acknowledge(&key(), &[1; 16]) else { panic!() };
        assert_eq!(streams.settled(ZERO, &key()), None);
        assert!(matches!(streams.release(ZERO, &key()), Released::Send(_)));
        let Acknowledged::Head { last, .. } = streams.acknowledge(&key(), &[2; 16]) else { panic!() };
        assert!(last);
        assert!(!streams.contains(&key()));
        assert_eq!(streams.next_deadline(), None);
    }

    #[test]
    fn a_held_update_that_is_acknowledged_is_not_sent_again() {
        let mut streams = Streams::default();
        streams.restore(&key(), 0, update(1, TaskState::TaskFinished), true);
        assert_eq!(streams.connect(ZERO), []);
        assert_eq!(streams.acknowledge(&key(), &[2; 16]), Acknowledged::Ignored);
        assert_eq!(streams.acknowledge(&key(), &[1; 16]), Acknowledged::Ignored);
        assert!(streams.contains(&key()));
        assert_eq!(streams.release(ZERO, &key()), Released::Acknowledged);
    }

    #[test]
    fn the_back_off_doubles_up_to_ten_minutes() {
        let mut streams = Streams::default();
        streams.connect(ZERO);
        let n = streams.push(&key(), update(1, TaskState::TaskRunning), false);
        streams.stored(ZERO, &key(), n).unwrap();
        let mut waits = Vec::new();
        let mut now = ZERO;
        for _ in 0..9 {
            let at = streams.next_deadline().unwrap();
            assert_eq!(streams.overdue(at - Duration::from_nanos(1)), []);
            waits.push((at - now).as_secs());
            now = at;
            assert_eq!(streams.overdue(now).len(), 1);
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 600, 600, 600]);
    }

    #[test]
    fn only_the_head_that_was_sent_can_be_acknowledged() {
        let mut streams = Streams::default();
        let first = streams.push(&key(), update(1, TaskState::TaskStarting), false);
        let second = streams.push(&key(), update(2, TaskState::TaskRunning), false);
        streams.stored(ZERO, &key(), first);
        streams.stored(ZERO, &key(), second);
        assert_eq!(streams.acknowledge(&key(), &[1; 16]), Acknowledged::Ignored, "never sent");
        streams.connect(ZERO);
        assert_eq!(streams.acknowledge(&key(), &[2; 16]), Acknowledged::Ignored);
        assert_eq!(streams.acknowledge(&key(), b"?"), Acknowledged::Ignored);
        assert_eq!(
            streams.acknowledge(&key(), &[1; 16]),
            Acknowledged::Head { sequence: first, last: false }
        );
        assert_eq!(streams.acknowledge(&key(), &[1; 16]), Acknowledged::Ignored, "a second time");
    }

    #[test]
    fn the_next_update_waits_until_the_acknowledgement_is_on_disk() {
        let mut streams = Streams::default();
        streams.connect(ZERO);
        for n in [1, 2] {
            let number = streams.push(&key(), update(n, TaskState::TaskRunning), false);
            streams.stored(ZERO, &key(), number);
        }
        streams.acknowledge(&key(), &[1; 16]);
        assert_eq!(
            streams.connect(ZERO),
            [],
            "an agent that forgets the first would send it after the second"
        );
        assert_eq!(streams.settled(ZERO, &key()).unwrap().status.uuid.as_deref(), Some(&[2; 16][..]));
    }

    /// What may happen to a stream from outside.
    #[derive(Debug, Clone)]
    enum Event {
        Push,
        Store,
        AcknowledgeSent,
        AcknowledgeAny(u8),
        Wait(u64),
        Disconnect,
        Connect,
        /// The agent is killed; what was stored and not acknowledged comes back.
        Restart,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            3 => Just(Event::Push),
            3 => Just(Event::Store),
            3 => Just(Event::AcknowledgeSent),
            1 => any::<u8>().prop_map(Event::AcknowledgeAny),
            1 => (0u64..700).prop_map(Event::Wait),
            1 => Just(Event::Disconnect),
            2 => Just(Event::Connect),
            1 => Just(Event::Restart),
        ]
    }

    proptest! {
        /// Whatever happens, each update that was stored is acknowledged once, in order, and none is lost.
        #[test]
        fn each_update_is_acknowledged_once_and_in_order(events in proptest::collection::vec(event(), 0..200)) {
            let mut streams = Streams::default();
            let mut now = ZERO;
            let mut made = 0u8;
            let mut unstored: VecDeque<(u64, u8)> = VecDeque::new();
            // The disk: what is stored and not acknowledged.
            let mut disk: VecDeque<(u64, Arc<TaskStatus>)> = VecDeque::new();
            let mut sent: Option<u8> = None;
            let mut acknowledged: Vec<u8> = Vec::new();
            let finish = [Event::Connect].into_iter()
                .chain(std::iter::repeat_n(Event::Store, 250))
                .chain(std::iter::repeat_n(Event::AcknowledgeSent, 250));
            for event in events.into_iter().chain(finish) {
                let mut sending = Vec::new();
                match event {
                    Event::Push if made < 200 => {
                        made += 1;
                        let n = streams.push(&key(), update(made, TaskState::TaskRunning), false);
                        unstored.push_back((n, made));
                    }
                    Event::Push => {}
                    Event::Store => if let Some((n, value)) = unstored.pop_front() {
                        disk.push_back((n, update(value, TaskState::TaskRunning)));
                        sending.extend(streams.stored(now, &key(), n));
                    },
                    Event::AcknowledgeSent => if let Some(value) = sent.take() {
                        let Acknowledged::Head { sequence, .. } = streams.acknowledge(&key(), &[value; 16])
                            else { panic!("the head that was sent is acknowledged") };
                        acknowledged.push(value);
                        let (stored, _) = disk.pop_front().unwrap();
                        prop_assert_eq!(stored, sequence);
                        sending.extend(streams.settled(now, &key()));
                    },
                    Event::AcknowledgeAny(value) => {
                        if sent != Some(value) {
                            prop_assert_eq!(
                                streams.acknowledge(&key(), &[value; 16]), Acknowledged::Ignored
                            );
                        }
                    }
                    Event::Wait(seconds) => {
                        now += Duration::from_secs(seconds);
                        let again = streams.overdue(now);
                        for s in &again {
                            prop_assert_eq!(Some(s.status.uuid.as_ref().unwrap()[0]), sent);
                        }
                    }
                    Event::Disconnect => { streams.disconnect(); sent = None; }
                    Event::Connect => { sent = None; sending = streams.connect(now); }
                    Event::Restart => {
                        streams = Streams::default();
                        sent = None;
                        // What was not stored never was: its sender sends it again, here as new ones.
                        made -= u8::try_from(unstored.len()).unwrap();
                        unstored.clear();
                        for (n, status) in &disk {
                            streams.restore(&key(), *n, status.clone(), false);
                        }
                    }
                }
                prop_assert!(sending.len() <= 1);
                if let Some(s) = sending.pop() {
                    prop_assert!(sent.is_none(), "two updates of one stream are under way");
                    let value = s.status.uuid.as_ref().unwrap()[0];
                    prop_assert!(disk.iter().any(|(_, d)| d.uuid == s.status.uuid), "sent before it was stored");
                    prop_assert!(!acknowledged.contains(&value), "sent after it was acknowledged");
                    sent = Some(value);
                }
            }
            prop_assert_eq!(acknowledged, (1..=made).collect::<Vec<_>>());
        }
    }
}
