//! An agent's status updates: each is kept and sent again until it is acknowledged, in order.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tepui_api::v1::{TaskState, TaskStatus};

use super::{Key, is_terminal};

/// How long the first copy of an update waits for its acknowledgement; shorter than a real agent's, so
/// that a short simulation sees many.
const RETRY_MIN: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_secs(40);

/// All that has not been acknowledged.
#[derive(Debug, Default)]
pub struct Updates {
    streams: BTreeMap<Key, Stream>,
}

#[derive(Debug, Default)]
struct Stream {
    pending: VecDeque<TaskStatus>,
    /// When the head is sent again, and how long it waits after that. `None` when it is not under way.
    under_way: Option<(Duration, Duration)>,
}

/// An update that goes out.
#[derive(Debug)]
pub struct Sending {
    pub key: Key,
    pub status: TaskStatus,
    pub latest: TaskState,
}

// === impl Updates ===

impl Updates {
    /// Takes a new update; it goes out at once when nothing before it waits.
    pub fn push(&mut self, key: &Key, status: TaskStatus, connected: bool, now: Duration) -> Option<Sending> {
        self.streams.entry(key.clone()).or_default().pending.push_back(status);
        if connected { self.send_head(key, now) } else { None }
    }

    /// Whether something of this task is not acknowledged.
    pub fn contains(&self, key: &Key) -> bool {
        self.streams.contains_key(key)
    }

    /// All tasks of which something is not acknowledged.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.streams.keys()
    }

    /// Forgets a task's updates.
    pub fn remove(&mut self, key: &Key) {
        self.streams.remove(key);
    }

    /// Takes out the head if it is under way and has this uuid; true when that was the task's last.
    pub fn acknowledge(&mut self, key: &Key, uuid: &[u8]) -> Option<bool> {
        let stream = self.streams.get_mut(key)?;
        let head = stream.pending.front()?;
        if stream.under_way.is_none() || head.uuid.as_deref() != Some(uuid) {
            return None;
        }
        let done = stream.pending.pop_front()?;
        stream.under_way = None;
        let last = is_terminal(done.state());
        if last || stream.pending.is_empty() {
            self.streams.remove(key);
        }
        Some(last)
    }

    /// Sends the head, unless it is under way.
    pub fn send_head(&mut self, key: &Key, now: Duration) -> Option<Sending> {
        let stream = self.streams.get_mut(key)?;
        if stream.under_way.is_some() {
            return None;
        }
        stream.under_way = Some((now + RETRY_MIN, RETRY_MIN));
        stream.sending(key)
    }

    /// A coordinator took the agent in: all heads go out.
    pub fn connect(&mut self, now: Duration) -> Vec<Sending> {
        self.disconnect();
        let keys: Vec<Key> = self.streams.keys().cloned().collect();
        keys.iter().filter_map(|key| self.send_head(key, now)).collect()
    }

    /// Nothing is under way any more.
    pub fn disconnect(&mut self) {
        for stream in self.streams.values_mut() {
            stream.under_way = None;
        }
    }

    /// The heads whose acknowledgement is overdue.
    pub fn overdue(&mut self, now: Duration) -> Vec<Sending> {
        let mut again = Vec::new();
        for (key, stream) in &mut self.streams {
            if let Some((at, wait)) = stream.under_way
                && at <= now
            {
                let wait = (wait * 2).min(RETRY_MAX);
                stream.under_way = Some((now + wait, wait));
                again.extend(stream.sending(key));
            }
        }
        again
    }

    /// When [`Updates::overdue`] has something next.
    pub fn deadline(&self) -> Option<Duration> {
        self.streams.values().filter_map(|stream| stream.under_way).map(|(at, _)| at).min()
    }
}

impl Stream {
    fn sending(&self, key: &Key) -> Option<Sending> {
        let (head, last) = (self.pending.front()?, self.pending.back()?);
        Some(Sending { key: key.clone(), status: head.clone(), latest: last.state() })
    }
}
