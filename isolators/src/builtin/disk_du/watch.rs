//! The thread that walks each sandbox in turn, and what it last found.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tepui_api::resources::Resources;
use tepui_api::units::Bytes;
use tepui_api::v1::task_status::Reason;

use crate::builtin::walk::disk_usage;
use crate::isolator::{ContainerId, IsolatorError, Limitation, LimitationSender};

/// A container's sandbox.
pub struct Sandbox {
    path: PathBuf,
    /// What the container writes elsewhere, if it is there: counts too.
    beside: PathBuf,
    /// Directories that do not count, relative to the sandbox.
    excluded: Arc<HashSet<PathBuf>>,
    /// Empty: not measured.
    quota: Resources,
    used: u64,
    due: Instant,
    /// Which walk is under way knows by this whether the container is still the one it began with.
    generation: u64,
    reported: Option<Limitation>,
}

/// Measures sandboxes.
pub struct Watch(Arc<Shared>);

struct Shared {
    interval: Duration,
    /// Absent when nobody is to be ended.
    enforce: Option<LimitationSender>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    sandboxes: HashMap<ContainerId, Sandbox>,
    generation: u64,
    running: bool,
    stop: bool,
}

/// One walk to be made.
struct Job {
    id: ContainerId,
    generation: u64,
    path: PathBuf,
    beside: PathBuf,
    excluded: Arc<HashSet<PathBuf>>,
}

// === impl Sandbox ===

impl Sandbox {
    /// At an absolute path; with another of what the container writes elsewhere.
    pub fn new(path: PathBuf, beside: PathBuf, excluded: HashSet<PathBuf>, quota: Resources) -> Self {
        Sandbox {
            path,
            beside,
            excluded: Arc::new(excluded),
            quota,
            used: 0,
            due: Instant::now(),
            generation: 0,
            reported: None,
        }
    }

    fn limit(&self) -> Option<u64> {
        (!self.quota.is_empty()).then(|| self.quota.disk().map_or(0, |disk| disk.bytes()))
    }
}

// === impl Job ===

impl Job {
    fn usage(&self) -> io::Result<u64> {
        let beside = match disk_usage(&self.beside, &HashSet::new()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            found => found?,
        };
        Ok(disk_usage(&self.path, &self.excluded)?.saturating_add(beside))
    }
}

// === impl Watch ===

impl Watch {
    /// The thread begins with the first sandbox.
    pub fn new(interval: Duration, enforce: Option<LimitationSender>) -> Self {
        let (state, changed) = (Mutex::default(), Condvar::new());
        Watch(Arc::new(Shared { interval, enforce, state, changed }))
    }

    /// Measures a sandbox from now on, the first time after one interval: most are empty until then.
    pub fn begin(&self, id: &ContainerId, mut sandbox: Sandbox) -> Result<(), IsolatorError> {
        let mut state = self.0.lock();
        if !state.running {
            let shared = Arc::clone(&self.0);
            let thread = thread::Builder::new().name("disk-du".to_owned());
            thread
                .spawn(move || shared.run())
                .map_err(|error| IsolatorError::Failed(format!("cannot measure disks: {error}")))?;
            state.running = true;
        }
        state.generation += 1;
        sandbox.generation = state.generation;
        sandbox.due = Instant::now() + self.0.interval;
        state.sandboxes.insert(id.clone(), sandbox);
        drop(state);
        self.0.changed.notify_one();
        Ok(())
    }

    /// Another quota. Unknown containers are nested ones.
    pub fn change(&self, id: &ContainerId, quota: Resources) {
        if let Some(sandbox) = self.0.lock().sandboxes.get_mut(id) {
            sandbox.quota = quota;
        }
        self.0.changed.notify_one();
    }

    /// Forgets a sandbox.
    pub fn end(&self, id: &ContainerId) {
        self.0.lock().sandboxes.remove(id);
    }

    /// Bytes that it may use, and that it used when last measured.
    pub fn figures(&self, id: &ContainerId) -> Option<(u64, u64)> {
        let state = self.0.lock();
        let sandbox = state.sandboxes.get(id)?;
        Some((sandbox.limit()?, sandbox.used))
    }

    /// What was reported of it.
    pub fn reported(&self, id: &ContainerId) -> Option<Limitation> {
        self.0.lock().sandboxes.get(id)?.reported.clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.lock().stop = true;
        self.0.changed.notify_one();
    }
}

// === impl Shared ===

impl Shared {
    /// Nothing is left half done by a panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        while let Some(job) = self.next() {
            match job.usage() {
                Ok(bytes) => self.record(&job, bytes),
                Err(error) => {
                    tracing::warn!(container = %job.id, sandbox = %job.path.display(), %error, "The size of a sandbox cannot be taken.");
                }
            }
        }
    }

    /// Waits until a sandbox is due. `None` at the end of all.
    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if state.stop {
                return None;
            }
            let first = state
                .sandboxes
                .iter_mut()
                .filter(|(_, one)| !one.quota.is_empty())
                .min_by_key(|(_, one)| one.due);
            let now = Instant::now();
            state = match first {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some((_, sandbox)) if sandbox.due > now => {
                    let pause = sandbox.due - now;
                    self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0
                }
                Some((id, sandbox)) => {
                    sandbox.due = now + self.interval;
                    return Some(Job {
                        id: id.clone(),
                        generation: sandbox.generation,
                        path: sandbox.path.clone(),
                        beside: sandbox.beside.clone(),
                        excluded: Arc::clone(&sandbox.excluded),
                    });
                }
            };
        }
    }

    fn record(&self, job: &Job, bytes: u64) {
        let mut state = self.lock();
        let Some(sandbox) = state.sandboxes.get_mut(&job.id).filter(|one| one.generation == job.generation)
        else {
            return;
        };
        sandbox.used = bytes;
        let (Some(sender), Some(limit)) = (&self.enforce, sandbox.limit()) else { return };
        if bytes <= limit || sandbox.reported.is_some() {
            return;
        }
        let limitation = Limitation {
            container_id: job.id.clone(),
            resources: sandbox.quota.to_wire(),
            message: format!("Disk usage ({}) exceeds quota ({})", Bytes(bytes), Bytes(limit)),
            reason: Reason::ContainerLimitationDisk,
        };
        tracing::info!(container = %job.id, message = %limitation.message, "A container is over its disk.");
        sandbox.reported = Some(limitation.clone());
        if sender.send(limitation).is_err() {
            tracing::debug!("Nobody hears of limitations any more.");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    fn quota(megabytes: u64) -> Resources {
        Resources::parse(&format!("disk:{megabytes}"), "*").unwrap()
    }

    fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(Instant::now() < deadline, "{what}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_sandbox_over_its_quota_is_reported_once() {
        let dir = tempfile::tempdir().unwrap();
        let (sender, mut heard) = unbounded_channel();
        let watch = Watch::new(Duration::from_millis(20), Some(sender));
        let id = ContainerId::new("over");
        watch
            .begin(&id, Sandbox::new(dir.path().to_owned(), "/nowhere".into(), HashSet::new(), quota(1)))
            .unwrap();
        wait_for("a first figure", || watch.figures(&id).filter(|(_, used)| *used > 0));
        assert!(heard.try_recv().is_err());
        fs::write(dir.path().join("large"), vec![1; 2 << 20]).unwrap();
        let limitation = wait_for("a report", || heard.try_recv().ok());
        assert_eq!(limitation.reason, Reason::ContainerLimitationDisk);
        assert!(limitation.message.ends_with("exceeds quota (1MB)"), "{}", limitation.message);
        assert_eq!(limitation.resources, quota(1).to_wire());
        assert_eq!(watch.reported(&id), Some(limitation));
        let (limit, used) = watch.figures(&id).unwrap();
        assert!(limit == 1 << 20 && used > 2 << 20);
        thread::sleep(Duration::from_millis(60));
        assert!(heard.try_recv().is_err(), "reported twice");
        watch.end(&id);
        assert_eq!(watch.figures(&id), None);
    }

    #[test]
    fn what_is_written_beside_the_sandbox_counts_too() {
        let (dir, beside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(beside.path().join("large"), vec![1; 2 << 20]).unwrap();
        let watch = Watch::new(Duration::from_millis(5), None);
        let id = ContainerId::new("beside");
        let both = Sandbox::new(dir.path().to_owned(), beside.path().to_owned(), HashSet::new(), quota(1));
        watch.begin(&id, both).unwrap();
        wait_for("a figure", || watch.figures(&id).filter(|(_, used)| *used > 2 << 20));
        drop(beside);
        wait_for("a lower figure", || watch.figures(&id).filter(|(_, used)| *used < 1 << 20));
    }

    #[test]
    fn without_enforcement_or_quota_nobody_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("large"), vec![1; 2 << 20]).unwrap();
        let watch = Watch::new(Duration::from_millis(5), None);
        let (id, without) = (ContainerId::new("measured"), ContainerId::new("unmeasured"));
        watch
            .begin(&id, Sandbox::new(dir.path().to_owned(), "/nowhere".into(), HashSet::new(), quota(1)))
            .unwrap();
        let unmeasured =
            Sandbox::new(dir.path().to_owned(), "/nowhere".into(), HashSet::new(), Resources::new());
        watch.begin(&without, unmeasured).unwrap();
        wait_for("a figure", || watch.figures(&id).filter(|(_, used)| *used > 2 << 20));
        assert_eq!(watch.reported(&id), None);
        assert_eq!(watch.figures(&without), None);
        watch.change(&without, quota(5));
        wait_for("a figure after the update", || watch.figures(&without).filter(|(_, used)| *used > 0));
    }
}
