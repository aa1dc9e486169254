//! The thread that takes samples, and what it has last seen of each container.
//!
//! A sample holds one descriptor for each event, CPU and container. So that they never take the agent's other files away, at most a
//! quarter of those that it may have open are used at once: more containers than that are sampled one part after the other.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::resource::{Resource, getrlimit};
use tepui_api::v1::PerfStatistics;

use super::counter::Counter;
use super::events::PerfEvent;
use crate::builtin::cpu_list::CpuList;
use crate::cgroups::{CgroupError, files};
use crate::isolator::ContainerId;

const ONLINE: &str = "/sys/devices/system/cpu/online";

/// Samples for as long as it is not dropped.
pub struct Sampler(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Told when `stop` is set.
    stopped: Condvar,
}

#[derive(Default)]
struct State {
    stop: bool,
    containers: HashMap<ContainerId, Sampled>,
}

struct Sampled {
    dir: PathBuf,
    last: PerfStatistics,
}

/// What is counted, and how often.
struct Plan {
    events: Vec<PerfEvent>,
    interval: Duration,
    duration: Duration,
}

/// The counters of one container, with the event of each.
type Counters = Vec<(PerfEvent, Counter)>;

impl Sampler {
    /// Without events there is no thread.
    pub fn start(
        events: Vec<PerfEvent>,
        interval: Duration,
        duration: Duration,
    ) -> Result<Self, CgroupError> {
        let shared = Arc::new(Shared { state: Mutex::default(), stopped: Condvar::new() });
        if !events.is_empty() {
            let of_thread = Arc::clone(&shared);
            let plan = Plan { events, interval, duration };
            let thread = thread::Builder::new().name("perf-sampler".to_owned());
            thread.spawn(move || of_thread.run(&plan)).map_err(|error| {
                CgroupError::Unable(format!("the thread that counts events cannot be started: {error}"))
            })?;
        }
        Ok(Sampler(shared))
    }

    /// From the next sample on. Until then, a sample of no time.
    pub fn add(&self, id: &ContainerId, dir: PathBuf) {
        let last = PerfStatistics { timestamp: now(), duration: 0.0, ..PerfStatistics::default() };
        self.0.lock().containers.insert(id.clone(), Sampled { dir, last });
    }

    /// The last sample of a container.
    pub fn last(&self, id: &ContainerId) -> Option<PerfStatistics> {
        self.0.lock().containers.get(id).map(|sampled| sampled.last)
    }

    /// Forgets a container.
    pub fn remove(&self, id: &ContainerId) {
        self.0.lock().containers.remove(id);
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.0.lock().stop = true;
        self.0.stopped.notify_all();
    }
}

impl Shared {
    /// Nothing is left half done by a panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, plan: &Plan) {
        loop {
            let begin = Instant::now();
            if !self.sample_all(plan) || !self.pause(plan.interval.saturating_sub(begin.elapsed())) {
                return;
            }
        }
    }

    /// `false` when the sampler has been dropped.
    fn pause(&self, time: Duration) -> bool {
        let waited = self.stopped.wait_timeout_while(self.lock(), time, |state| !state.stop);
        !waited.unwrap_or_else(PoisonError::into_inner).0.stop
    }

    /// `false` as in `pause`.
    fn sample_all(&self, plan: &Plan) -> bool {
        let cpus = match online() {
            Ok(cpus) => cpus,
            Err(error) => {
                tracing::warn!(%error, "Events are not counted, as nobody knows the CPUs.");
                return true;
            }
        };
        let containers: Vec<(ContainerId, PathBuf)> =
            self.lock().containers.iter().map(|(id, sampled)| (id.clone(), sampled.dir.clone())).collect();
        let at_once = (may_open() / 4 / (plan.events.len() * cpus.len()).max(1)).max(1);
        containers.chunks(at_once).all(|part| self.sample(plan, &cpus, part))
    }

    fn sample(&self, plan: &Plan, cpus: &[u32], containers: &[(ContainerId, PathBuf)]) -> bool {
        let (timestamp, begin) = (now(), Instant::now());
        let counters: Vec<(&ContainerId, Counters)> = containers
            .iter()
            .filter_map(|(id, dir)| match count(&plan.events, dir, cpus) {
                Ok(counters) => Some((id, counters)),
                Err(error) if files::is_gone(&error) => None,
                Err(error) => {
                    tracing::warn!(container = %id, %error, "The events of a container cannot be counted.");
                    None
                }
            })
            .collect();
        if !self.pause(plan.duration) {
            return false;
        }
        let duration = begin.elapsed().as_secs_f64();
        for (id, counters) in counters {
            let sample = sums(&counters, timestamp, duration);
            if let Some(sampled) = self.lock().containers.get_mut(id) {
                sampled.last = sample;
            }
        }
        true
    }
}

/// An event that cannot be counted on some CPU is left out, so that no figure is half of one.
fn count(events: &[PerfEvent], dir: &Path, cpus: &[u32]) -> io::Result<Counters> {
    let cgroup = File::open(dir)?;
    let mut counters = Vec::with_capacity(events.len() * cpus.len());
    for &event in events {
        let of_event: io::Result<Vec<Counter>> =
            cpus.iter().map(|&cpu| Counter::of_cgroup(event.code(), &cgroup, cpu)).collect();
        match of_event {
            Ok(of_event) => counters.extend(of_event.into_iter().map(|counter| (event, counter))),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                return Err(error);
            }
            Err(error) => tracing::debug!(event = event.name(), %error, "An event is not counted."),
        }
    }
    Ok(counters)
}

fn sums(counters: &Counters, timestamp: f64, duration: f64) -> PerfStatistics {
    let mut sums: Vec<(PerfEvent, f64)> = Vec::new();
    for (event, counter) in counters {
        let Ok(value) = counter.read() else { continue };
        match sums.iter_mut().find(|(other, _)| other == event) {
            Some((_, sum)) => *sum += value,
            None => sums.push((*event, value)),
        }
    }
    let mut statistics = PerfStatistics { timestamp, duration, ..PerfStatistics::default() };
    sums.into_iter().for_each(|(event, sum)| event.fill(&mut statistics, sum));
    statistics
}

fn online() -> Result<Vec<u32>, CgroupError> {
    let path = Path::new(ONLINE);
    let text = files::read(path)?;
    let list: CpuList =
        text.parse().map_err(|_| CgroupError::Parse { path: path.to_owned(), text: text.clone() })?;
    Ok(list.iter().collect())
}

fn may_open() -> usize {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| usize::try_from(soft).unwrap_or(usize::MAX))
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
