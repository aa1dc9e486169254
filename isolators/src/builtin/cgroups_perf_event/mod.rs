//! `cgroups/perf_event`: performance counters of a container, sampled now and then.
//!
//! Every `--perf_interval` the events of `--perf_events` are counted for `--perf_duration` in each container, on all CPUs, by
//! perf_event_open(2) with the container's cgroup (`counter`), on one thread of its own (`sampler`). What is told is the last sample, as
//! Mesos tells it; without `--perf_events` nothing is counted. No program is needed for it: Mesos runs perf(1).
//!
//! The cgroup is that of v1's `perf_event` where that is mounted, else the v2 one: every v2 cgroup has it. An event that the machine
//! cannot count (hardware events in most virtual machines) is said once, at the start, and its figure left out.
//!
//! Rules: perf_event_open(2); Mesos' `src/slave/containerizer/mesos/isolators/cgroups/subsystems/perf_event.cpp`, `src/linux/perf.cpp`.

mod counter;
mod events;
mod sampler;

use std::sync::Arc;

use tepui_api::v1::{PerfStatistics, ResourceStatistics};

use crate::catalogue::Parts;
use crate::cgroups::{Cgroups, Controller};
use crate::compose::MakeError;
use crate::isolator::{
    Answer, ContainerContext, ContainerId, Contribution, Isolator, IsolatorError, Recovered, done,
};

pub use events::{EventError, PerfEvent, PerfEvents};
use sampler::Sampler;

struct CgroupsPerfEvent {
    cgroups: Arc<Cgroups>,
    sampler: Sampler,
}

pub(crate) fn make(parts: &Parts) -> Result<Arc<dyn Isolator>, MakeError> {
    let settings = &parts.settings.cgroups;
    if settings.perf_duration > settings.perf_interval {
        return Err(MakeError::Setting(format!(
            "a sample of --perf_duration={:?} is longer than --perf_interval={:?}: make the one shorter or the other longer",
            settings.perf_duration, settings.perf_interval
        )));
    }
    if settings.perf_duration.is_zero() {
        return Err(MakeError::Setting(
            "a sample of --perf_duration=0 counts nothing: make it longer".to_owned(),
        ));
    }
    let events = settings.perf_events.as_ref().map(|events| events.0.clone()).unwrap_or_default();
    let sampler = Sampler::start(counted(events)?, settings.perf_interval, settings.perf_duration)?;
    Ok(Arc::new(CgroupsPerfEvent { cgroups: parts.cgroups()?, sampler }))
}

/// Those that this machine can count.
fn counted(events: Vec<PerfEvent>) -> Result<Vec<PerfEvent>, MakeError> {
    let mut counted = Vec::new();
    for event in events {
        match counter::probe(event.code()) {
            Ok(()) => counted.push(event),
            Err(error) if counter::is_permission(&error) => {
                return Err(MakeError::Host(format!(
                    "the kernel lets this agent count no events (it needs CAP_PERFMON or CAP_SYS_ADMIN): {error}"
                )));
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                return Err(MakeError::Host(
                    "the kernel counts no events (it needs CONFIG_PERF_EVENTS)".to_owned(),
                ));
            }
            Err(error) => {
                tracing::warn!(event = event.name(), %error, "This machine cannot count an event of --perf_events.");
            }
        }
    }
    Ok(counted)
}

impl CgroupsPerfEvent {
    fn begin(&self, id: &ContainerId) -> Result<(), IsolatorError> {
        let (dir, _) = self.cgroups.dir(id, Controller::PerfEvent)?;
        self.sampler.add(id, dir);
        Ok(())
    }

    fn fill(&self, id: &ContainerId, statistics: &mut ResourceStatistics) -> Result<(), IsolatorError> {
        let last: PerfStatistics = self.sampler.last(id).ok_or_else(|| IsolatorError::Unknown(id.clone()))?;
        statistics.perf = Some(last);
        Ok(())
    }
}

impl Isolator for CgroupsPerfEvent {
    fn name(&self) -> &str {
        "cgroups/perf_event"
    }

    fn recover<'a>(&'a self, known: &'a [Recovered], _: &'a [ContainerId]) -> Answer<'a> {
        done(known.iter().try_for_each(|one| self.begin(&one.context.container_id)))
    }

    fn prepare<'a>(&'a self, context: &'a ContainerContext, _: &'a mut Contribution) -> Answer<'a> {
        done(self.begin(&context.container_id))
    }

    fn usage<'a>(&'a self, id: &'a ContainerId, statistics: &'a mut ResourceStatistics) -> Answer<'a> {
        done(self.fill(id, statistics))
    }

    fn cleanup<'a>(&'a self, id: &'a ContainerId) -> Answer<'a> {
        self.sampler.remove(id);
        done(Ok(()))
    }
}
