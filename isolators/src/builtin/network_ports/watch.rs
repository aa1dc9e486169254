//! The thread that looks who listens where, and what it found.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tepui_api::resources::{Range, Ranges, Resource};
use tepui_api::v1::task_status::Reason;

use super::sockets::{self, Inode};
use crate::cgroups::Cgroups;
use crate::isolator::{ContainerId, IsolatorError, Limitation, LimitationSender};

/// Looks after the ports of containers.
pub struct Watch(Arc<Shared>);

struct Shared {
    interval: Duration,
    /// The ports that are looked at; absent: all.
    range: Option<Ranges>,
    /// Absent when nobody is to be ended.
    enforce: Option<LimitationSender>,
    cgroups: Arc<Cgroups>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    containers: HashMap<ContainerId, Container>,
    running: bool,
    stop: bool,
}

#[derive(Default)]
struct Container {
    /// The ports that it was given.
    given: Ranges,
    /// The others that it was last found to listen on: what does not change is not told again.
    foreign: Ranges,
    reported: Option<Limitation>,
}

// === impl Watch ===

impl Watch {
    /// The thread begins with the first container.
    pub fn new(
        interval: Duration,
        range: Option<Ranges>,
        enforce: Option<LimitationSender>,
        cgroups: Arc<Cgroups>,
    ) -> Self {
        let (state, changed) = (Mutex::default(), Condvar::new());
        Watch(Arc::new(Shared { interval, range, enforce, cgroups, state, changed }))
    }

    /// Looks after a container that may listen on these ports.
    pub fn begin(&self, id: &ContainerId, given: Ranges) -> Result<(), IsolatorError> {
        let mut state = self.0.lock();
        if !state.running {
            let shared = Arc::clone(&self.0);
            let thread = thread::Builder::new().name("network-ports".to_owned());
            thread
                .spawn(move || shared.run())
                .map_err(|error| IsolatorError::Failed(format!("cannot look at ports: {error}")))?;
            state.running = true;
        }
        state.containers.insert(id.clone(), Container { given, ..Container::default() });
        Ok(())
    }

    /// It may listen on other ports from now on. Unknown containers are those that are left alone.
    pub fn change(&self, id: &ContainerId, given: Ranges) {
        if let Some(container) = self.0.lock().containers.get_mut(id) {
            container.given = given;
        }
    }

    /// Forgets a container.
    pub fn end(&self, id: &ContainerId) {
        self.0.lock().containers.remove(id);
    }

    /// What was reported of it.
    pub fn reported(&self, id: &ContainerId) -> Option<Limitation> {
        self.0.lock().containers.get(id)?.reported.clone()
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
        while let Some(ids) = self.wait() {
            if ids.is_empty() {
                continue;
            }
            match sockets::listening() {
                Ok(all) => self.look(&ids, &self.looked_at(all)),
                Err(error) => tracing::warn!(%error, "The ports of containers cannot be looked at."),
            }
        }
    }

    /// One interval; then the containers of which there are. `None` at the end of all.
    fn wait(&self) -> Option<Vec<ContainerId>> {
        let due = Instant::now() + self.interval;
        let mut state = self.lock();
        loop {
            if state.stop {
                return None;
            }
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Some(state.containers.keys().cloned().collect());
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn looked_at(&self, all: HashMap<Inode, u16>) -> HashMap<Inode, u16> {
        let within = |port: u16| self.range.as_ref().is_none_or(|range| range.has(port.into()));
        all.into_iter().filter(|(_, port)| within(*port)).collect()
    }

    fn look(&self, ids: &[ContainerId], listening: &HashMap<Inode, u16>) {
        for id in ids {
            match self.ports(id, listening) {
                Ok(ports) => self.record(id, ports),
                Err(error) => {
                    tracing::warn!(container = %id, %error, "The ports of a container cannot be looked at.");
                }
            }
        }
    }

    /// The ports that a container's processes listen on.
    fn ports(
        &self,
        id: &ContainerId,
        listening: &HashMap<Inode, u16>,
    ) -> Result<BTreeSet<u16>, crate::cgroups::CgroupError> {
        if listening.is_empty() {
            return Ok(BTreeSet::new());
        }
        let mut ports = BTreeSet::new();
        for pid in self.cgroups.processes(id)? {
            // It may have ended meanwhile.
            let open = sockets::of_process(pid).unwrap_or_default();
            ports.extend(open.iter().filter_map(|inode| listening.get(inode)));
        }
        Ok(ports)
    }

    fn record(&self, id: &ContainerId, ports: BTreeSet<u16>) {
        let mut state = self.lock();
        let Some(container) = state.containers.get_mut(id) else { return };
        let ports: Ranges =
            ports.into_iter().filter_map(|port| Range::new(port.into(), port.into())).collect();
        let foreign = ports.difference(&container.given);
        if foreign == container.foreign {
            return;
        }
        container.foreign = foreign;
        if container.foreign.is_empty() || container.reported.is_some() {
            return;
        }
        let limitation = limitation(id, container);
        let enforced = self.enforce.is_some();
        tracing::info!(container = %id, message = %limitation.message, enforced, "A container listens on ports that it was not given.");
        let Some(sender) = &self.enforce else { return };
        container.reported = Some(limitation.clone());
        if sender.send(limitation).is_err() {
            tracing::debug!("Nobody hears of limitations any more.");
        }
    }
}

fn limitation(id: &ContainerId, container: &Container) -> Limitation {
    let foreign = container.foreign.as_slice().iter().copied();
    Limitation {
        container_id: id.clone(),
        resources: vec![Resource::ranges("ports", foreign).to_wire()],
        message: format!(
            "Container {id} is listening on port(s) {} that it was not given: its own are {}",
            container.foreign, container.given
        ),
        reason: Reason::ContainerLimitation,
    }
}
