//! How often a container was short of memory: v1's three levels of pressure, counted since the agent began to listen.
//!
//! An eventfd for each level is registered by writing `<eventfd> <memory.pressure_level> <level>` to `cgroup.event_control`; the kernel
//! adds 1 at each event, and reading gives the sum and sets it to 0. v2 has stall times instead of events, so there the
//! figures are left out. Rules: `admin-guide/cgroup-v1/memory.rst`, "Memory Pressure".

use std::fs::File;
use std::os::fd::AsRawFd;

use nix::sys::eventfd::{EfdFlags, EventFd};
use tepui_api::v1::ResourceStatistics;

use super::Place;
use crate::cgroups::Version;
use crate::cgroups::{CgroupError, files};

const LEVELS: [&str; 3] = ["low", "medium", "critical"];

/// The counters of a container.
#[derive(Debug, Default)]
pub struct Pressure(Option<[Counter; 3]>);

#[derive(Debug)]
struct Counter {
    events: EventFd,
    sum: u64,
}

impl Pressure {
    /// Begins to count. Where that is impossible, the figures are left out.
    pub fn listen(place: &Place) -> Self {
        if place.version == Version::V2 {
            return Pressure(None);
        }
        let counters = LEVELS.map(|level| listen(place, level));
        match counters {
            [Ok(low), Ok(medium), Ok(critical)] => Pressure(Some([low, medium, critical])),
            [Err(error), ..] | [_, Err(error), _] | [.., Err(error)] => {
                tracing::debug!(%error, "Memory pressure is not counted.");
                Pressure(None)
            }
        }
    }

    /// Adds the figures.
    pub fn fill(&mut self, statistics: &mut ResourceStatistics) {
        let Some([low, medium, critical]) = &mut self.0 else { return };
        statistics.mem_low_pressure_counter = Some(low.read());
        statistics.mem_medium_pressure_counter = Some(medium.read());
        statistics.mem_critical_pressure_counter = Some(critical.read());
    }
}

impl Counter {
    fn read(&mut self) -> u64 {
        // Nothing new reads as an error, as the descriptor does not block.
        self.sum = self.sum.saturating_add(self.events.read().unwrap_or(0));
        self.sum
    }
}

fn listen(place: &Place, level: &str) -> Result<Counter, CgroupError> {
    let events = register(place, "memory.pressure_level", level)?;
    Ok(Counter { events, sum: 0 })
}

/// A new eventfd that the kernel adds to at each event of a v1 file.
pub fn register(place: &Place, file: &str, arguments: &str) -> Result<EventFd, CgroupError> {
    let path = place.dir.join(file);
    let events = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
        .map_err(|error| CgroupError::io("listen to", &path, error.into()))?;
    // The kernel needs the file only during the call.
    let source = File::open(&path).map_err(|source| CgroupError::io("listen to", &path, source))?;
    let request = format!("{} {} {arguments}", events.as_raw_fd(), source.as_raw_fd());
    files::write(&place.dir.join("cgroup.event_control"), request.trim_end())?;
    Ok(events)
}
