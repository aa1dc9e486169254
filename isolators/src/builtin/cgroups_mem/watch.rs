//! One thread that hears of every container that runs out of memory.
//!
//! A container gives one descriptor to the thread's epoll: an eventfd registered for `memory.oom_control` (v1), or its open
//! `memory.events` (v2), which becomes readable with priority at each change and is armed again by reading it.
//! v1 tells of it before it kills, and also when a parent is out of memory. So the counters decide (`oom::happened`): they are looked at at once, and again
//! for a while if they say no yet. The thread begins with the first container and ends with the isolator.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::pressure::register;
use super::{Place, oom};
use crate::cgroups::{CgroupError, Version};
use crate::isolator::{ContainerId, IsolatorError, Limitation, LimitationSender};

/// How long after an event a kill is waited for.
const DOUBT: Duration = Duration::from_secs(5);
/// Between two looks meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// The token of the eventfd that ends the thread.
const STOP: u64 = 0;

/// Hears of containers that run out of memory.
pub struct OomWatch {
    limitations: LimitationSender,
    thread: Mutex<Option<Arc<Shared>>>,
}

/// A container being watched, until this is dropped.
pub struct Watched {
    shared: Arc<Shared>,
    token: u64,
}

struct Shared {
    epoll: Epoll,
    stop: EventFd,
    entries: Mutex<Entries>,
    limitations: LimitationSender,
}

#[derive(Default)]
struct Entries {
    last: u64,
    by_token: HashMap<u64, Entry>,
}

struct Entry {
    id: ContainerId,
    place: Place,
    source: Source,
}

enum Source {
    V1(EventFd),
    V2(File),
}

// === impl OomWatch ===

impl OomWatch {
    /// Reports into `limitations`.
    pub fn new(limitations: LimitationSender) -> Self {
        OomWatch { limitations, thread: Mutex::new(None) }
    }

    /// Watches a container's cgroup, which must exist.
    pub fn begin(&self, id: &ContainerId, place: &Place) -> Result<Watched, IsolatorError> {
        let shared = self.running()?;
        let source = Source::open(place)?;
        let token = shared.add(Entry { id: id.clone(), place: place.clone(), source })?;
        Ok(Watched { shared, token })
    }

    fn running(&self) -> Result<Arc<Shared>, IsolatorError> {
        let mut thread = lock(&self.thread);
        if let Some(shared) = &*thread {
            return Ok(Arc::clone(shared));
        }
        let shared = Shared::start(self.limitations.clone())
            .map_err(|error| IsolatorError::Failed(format!("cannot listen for OOM events: {error}")))?;
        *thread = Some(Arc::clone(&shared));
        Ok(shared)
    }
}

impl Drop for OomWatch {
    fn drop(&mut self) {
        if let Some(shared) = lock(&self.thread).take()
            && let Err(error) = shared.stop.write(1)
        {
            tracing::warn!(%error, "The thread that listens for OOM events cannot be ended.");
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // Closing the descriptor takes it out of the epoll.
        lock(&self.shared.entries).by_token.remove(&self.token);
    }
}

impl Source {
    fn open(place: &Place) -> Result<Self, CgroupError> {
        match place.version {
            Version::V1 => Ok(Source::V1(register(place, "memory.oom_control", "")?)),
            Version::V2 => {
                let path = place.dir.join("memory.events");
                let file = File::open(&path).map_err(|source| CgroupError::io("listen to", path, source))?;
                let source = Source::V2(file);
                source.arm();
                Ok(source)
            }
        }
    }

    /// Takes the event, so that the next one is told again.
    fn arm(&self) {
        let done = match self {
            Source::V1(events) => events.read().map(drop).or_else(ignore_again),
            Source::V2(file) => file.read_at(&mut [0; 512], 0).map(drop).map_err(|_| Errno::EIO),
        };
        if let Err(error) = done {
            tracing::debug!(%error, "An OOM event cannot be read; its cgroup is gone.");
        }
    }

    fn interest(&self) -> EpollFlags {
        match self {
            Source::V1(_) => EpollFlags::EPOLLIN,
            Source::V2(_) => EpollFlags::EPOLLPRI,
        }
    }
}

fn ignore_again(error: Errno) -> Result<(), Errno> {
    if error == Errno::EAGAIN { Ok(()) } else { Err(error) }
}

// === impl Shared ===

impl Shared {
    fn start(limitations: LimitationSender) -> std::io::Result<Arc<Self>> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        epoll.add(&stop, EpollEvent::new(EpollFlags::EPOLLIN, STOP))?;
        let shared = Arc::new(Shared { epoll, stop, entries: Mutex::default(), limitations });
        let of_thread = Arc::clone(&shared);
        thread::Builder::new().name("oom-watch".to_owned()).spawn(move || of_thread.run())?;
        Ok(shared)
    }

    fn add(&self, entry: Entry) -> Result<u64, IsolatorError> {
        let mut entries = lock(&self.entries);
        entries.last += 1;
        let token = entries.last;
        let event = EpollEvent::new(entry.source.interest(), token);
        let added = match &entry.source {
            Source::V1(events) => self.epoll.add(events.as_fd(), event),
            Source::V2(file) => self.epoll.add(file.as_fd(), event),
        };
        added.map_err(|error| IsolatorError::Failed(format!("cannot listen for OOM events: {error}")))?;
        entries.by_token.insert(token, entry);
        Ok(token)
    }

    fn run(&self) {
        // Containers with an event whose kill is not seen yet, and until when to look.
        let mut doubted: HashMap<u64, Instant> = HashMap::new();
        let mut events = [EpollEvent::empty(); 32];
        loop {
            let pause = match doubted.is_empty() {
                true => EpollTimeout::NONE,
                false => EpollTimeout::try_from(LOOK_AGAIN).unwrap_or(EpollTimeout::ZERO),
            };
            let heard = match self.epoll.wait(&mut events, pause) {
                Ok(count) => events.get(..count).unwrap_or_default(),
                Err(Errno::EINTR) => &[],
                Err(error) => {
                    tracing::error!(%error, "OOM events are no longer heard.");
                    return;
                }
            };
            for token in heard.iter().map(EpollEvent::data) {
                if token == STOP {
                    return;
                }
                if let Some(entry) = lock(&self.entries).by_token.get(&token) {
                    entry.source.arm();
                    doubted.insert(token, Instant::now() + DOUBT);
                }
            }
            doubted.retain(|&token, until| !self.settled(token) && Instant::now() < *until);
        }
    }

    /// Reports the container if it ran out of memory. `true` when there is nothing more to look for.
    fn settled(&self, token: u64) -> bool {
        let mut entries = lock(&self.entries);
        let Some(entry) = entries.by_token.get(&token) else { return true };
        match oom::happened(&entry.place) {
            Ok(false) => return !entry.place.dir.exists(),
            Ok(true) => {}
            Err(error) => {
                tracing::warn!(container = %entry.id, %error, "Whether a container is out of memory cannot be told.");
                return true;
            }
        }
        // Once is enough: it will be ended.
        let told = entries.by_token.remove(&token).map(|entry| oom::limitation(&entry.id, &entry.place));
        drop(entries);
        if let Some(limitation) = told {
            self.report(limitation);
        }
        true
    }

    fn report(&self, limitation: Limitation) {
        tracing::info!(container = %limitation.container_id, message = %limitation.message.trim_end(), "A container is out of memory.");
        if self.limitations.send(limitation).is_err() {
            tracing::debug!("Nobody hears of limitations any more.");
        }
    }
}

/// Nothing is left half done by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::cgroups::Hierarchies;

    /// v2 tells of changes of `cgroup.events` as it does of `memory.events`, and has it also where memory is in v1. So that file rings here,
    /// and the figures that are looked at then are files of ours.
    #[test]
    fn a_change_of_a_v2_file_is_heard() {
        let Some(unified) = Hierarchies::detect().unwrap().unified().cloned() else { return };
        let cgroup = unified.mount.join(format!("tepui-test-watch-{}", std::process::id()));
        fs::create_dir(&cgroup).unwrap();
        let figures = tempfile::tempdir().unwrap();
        fs::write(figures.path().join("memory.events"), "oom 0\noom_kill 0\n").unwrap();

        let (sender, mut heard) = unbounded_channel();
        let watch = OomWatch::new(sender);
        let source = Source::V2(File::open(cgroup.join("cgroup.events")).unwrap());
        source.arm();
        let place = Place { dir: figures.path().to_owned(), version: Version::V2 };
        let id = ContainerId::new("v2");
        let token = watch.running().unwrap().add(Entry { id: id.clone(), place, source }).unwrap();

        let mut process = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        fs::write(cgroup.join("cgroup.procs"), process.id().to_string()).unwrap();
        thread::sleep(Duration::from_millis(50));
        assert!(heard.try_recv().is_err(), "an event without a kill is no limitation");
        fs::write(figures.path().join("memory.events"), "oom 1\noom_kill 1\n").unwrap();
        process.kill().unwrap();
        process.wait().unwrap();

        let deadline = Instant::now() + Duration::from_secs(10);
        let limitation = loop {
            match heard.try_recv() {
                Ok(limitation) => break limitation,
                Err(_) => assert!(Instant::now() < deadline, "not heard"),
            }
            thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(limitation.container_id, id);
        drop(Watched { shared: watch.running().unwrap(), token });
        fs::remove_dir(&cgroup).unwrap();
    }
}
