//! What waits to be read by one client: records, until [`LIMIT`] bytes of them.
//!
//! The [`Writer`] never waits. A client that reads slower than it is written to fills the outbox; at
//! the limit all of it is dropped and the stream ends, so that one stuck reader costs at most that
//! much memory and nobody's time.
//!
//! A stream is also a leader's act: from the moment the lease is over, nothing that waits is read any more.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::Stream;
use tepui_zookeeper::Lease;
use tokio::sync::oneshot;

/// Bytes that may wait for one client: minutes of what the busiest framework is sent.
pub(crate) const LIMIT: usize = 64 << 20;

/// The end that is written to.
#[derive(Debug)]
pub(crate) struct Writer {
    shared: Arc<Mutex<Queue>>,
    /// Ends when the reader is dropped; `None` once that was seen.
    gone: Option<oneshot::Receiver<()>>,
    limit: usize,
}

/// The end that is read, as the body of an answer.
#[derive(Debug)]
pub(crate) struct Reader {
    shared: Arc<Mutex<Queue>>,
    lease: Lease,
    _alive: oneshot::Sender<()>,
}

/// The client was too slow; its stream has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client has left more than {limit} bytes unread")]
pub(crate) struct Overrun {
    /// What may wait.
    pub(crate) limit: usize,
}

#[derive(Debug, Default)]
struct Queue {
    records: VecDeque<Bytes>,
    bytes: usize,
    ended: bool,
    reader: Option<Waker>,
}

/// An outbox that takes [`LIMIT`] bytes, to be read while the lease holds. One record may be larger when nothing else
/// waits.
pub(crate) fn outbox(lease: Lease) -> (Writer, Reader) {
    with_limit(LIMIT, lease)
}

fn with_limit(limit: usize, lease: Lease) -> (Writer, Reader) {
    let shared = Arc::default();
    let (alive, gone) = oneshot::channel();
    (Writer { shared: Arc::clone(&shared), gone: Some(gone), limit }, Reader { shared, lease, _alive: alive })
}

// === impl Writer ===

impl Writer {
    /// Puts a record at the end.
    ///
    /// # Errors
    /// When the client is hopelessly behind. The stream has then ended.
    pub(crate) fn push(&self, record: Bytes) -> Result<(), Overrun> {
        let mut queue = lock(&self.shared);
        if queue.bytes > 0 && queue.bytes + record.len() > self.limit {
            queue.records = VecDeque::new();
            queue.bytes = 0;
            queue.end();
            return Err(Overrun { limit: self.limit });
        }
        queue.bytes += record.len();
        queue.records.push_back(record);
        queue.wake();
        Ok(())
    }

    /// Lets this many bytes more wait, for a stream that begins with much.
    pub(crate) fn allow(&mut self, bytes: usize) {
        self.limit = self.limit.saturating_add(bytes);
    }

    /// Waits until nobody reads any more.
    pub(crate) async fn gone(&mut self) {
        if let Some(gone) = &mut self.gone {
            let _ = gone.await;
            self.gone = None;
        }
    }
}

/// The stream ends once what is in it has been read.
impl Drop for Writer {
    fn drop(&mut self) {
        lock(&self.shared).end();
    }
}

// === impl Reader ===

impl Stream for Reader {
    type Item = Bytes;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut queue = lock(&self.shared);
        if !self.lease.holds() {
            return Poll::Ready(None);
        }
        if let Some(record) = queue.records.pop_front() {
            queue.bytes -= record.len();
            return Poll::Ready(Some(record));
        }
        if queue.ended {
            return Poll::Ready(None);
        }
        queue.reader = Some(context.waker().clone());
        Poll::Pending
    }
}

// === impl Queue ===

impl Queue {
    fn end(&mut self) {
        self.ended = true;
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// No code panics while it holds the lock, and the queue would be whole if it did.
fn lock(shared: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    fn record(length: usize) -> Bytes {
        Bytes::from(vec![b'x'; length])
    }

    #[tokio::test]
    async fn what_is_written_is_read_in_order_to_the_end() {
        let (writer, reader) = outbox(Lease::endless());
        writer.push(Bytes::from_static(b"one")).unwrap();
        writer.push(Bytes::from_static(b"two")).unwrap();
        drop(writer);
        let all: Vec<Bytes> = reader.collect().await;
        assert_eq!(all, ["one", "two"]);
    }

    #[tokio::test]
    async fn a_reader_that_waits_is_woken() {
        let (writer, mut reader) = outbox(Lease::endless());
        let reading = tokio::spawn(async move { (reader.next().await, reader.next().await) });
        tokio::task::yield_now().await;
        writer.push(record(3)).unwrap();
        tokio::task::yield_now().await;
        drop(writer);
        assert_eq!(reading.await.unwrap(), (Some(record(3)), None));
    }

    #[tokio::test]
    async fn a_reader_that_is_hopelessly_behind_loses_all() {
        let (writer, mut reader) = with_limit(100, Lease::endless());
        writer.push(record(60)).unwrap();
        writer.push(record(40)).unwrap();
        assert_eq!(writer.push(record(1)), Err(Overrun { limit: 100 }));
        assert_eq!(reader.next().await, None);
    }

    #[tokio::test]
    async fn one_large_record_gets_through() {
        let (writer, mut reader) = with_limit(100, Lease::endless());
        writer.push(record(1000)).unwrap();
        assert!(writer.push(record(1)).is_err());
        let (writer, mut second) = with_limit(100, Lease::endless());
        writer.push(record(1000)).unwrap();
        assert_eq!(second.next().await, Some(record(1000)));
        writer.push(record(1)).unwrap();
        assert_eq!(reader.next().await, None);
    }

    #[tokio::test]
    async fn nothing_is_read_after_the_lease() {
        let lease = Lease::endless();
        let (writer, mut reader) = outbox(lease.clone());
        writer.push(record(1)).unwrap();
        writer.push(record(2)).unwrap();
        assert_eq!(reader.next().await, Some(record(1)));
        lease.end();
        assert_eq!(reader.next().await, None);
    }

    #[tokio::test]
    async fn the_writer_learns_that_the_reader_is_gone() {
        let (mut writer, reader) = outbox(Lease::endless());
        drop(reader);
        writer.gone().await;
        writer.gone().await;
    }
}
