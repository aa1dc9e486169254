//! `cgroups/mem`: memory up to a limit, beyond which the kernel kills and the container ends.
//!
//! | | v1 (`memory`) | v2 (`memory`) | file |
//! | --- | --- | --- | --- |
//! | soft limit: what pressure takes last | `memory.soft_limit_in_bytes` | `memory.low` | `limits` |
//! | hard limit | `memory.limit_in_bytes` | `memory.max` | `limits` |
//! | with swap (`--cgroups_limit_swap`) | `memory.memsw.limit_in_bytes` | `memory.swap.max` = 0 | `limits` |
//! | used | `memory.usage_in_bytes`, `memory.stat` | `memory.current`, `memory.stat` | `figures` |
//! | pressure | `cgroup.event_control` + eventfd | none that counts | `pressure` |
//! | out of memory | `memory.oom_control` + eventfd | `memory.events` | `oom`, `watch` |
//!
//! A container whose limit is above its request uses memory that nobody promised it. So that the kernel picks it first when the host runs
//! out, its `oom_score_adj` is 1000 less the share of the host's memory that it did request, in thousandths: with use above the request, the
//! kernel's score (use in thousandths + adjustment) reaches 1000.
//!
//! Rules: the kernel's `admin-guide/cgroup-v1/memory.rst`, `admin-guide/cgroup-v2.rst` ("Memory"), `filesystems/proc.rst`
//! (`oom_score_adj`); Mesos' `src/slave/containerizer/mesos/isolators/cgroups/subsystems/memory.cpp`.

mod figures;
mod limits;
mod oom;
mod pressure;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;

use tepui_api::resources::Resources;
use tepui_api::v1::ResourceStatistics;

use super::amounts::{Hard, Memory, host_memory};
use super::table::Table;
use crate::catalogue::Parts;
use crate::cgroups::{CgroupError, Cgroups, Controller, Version};
use crate::compose::MakeError;
use crate::isolator::{
    Answer, ContainerContext, ContainerId, Contribution, Isolator, IsolatorError, Limitation, Limits,
    Recovered, done,
};

use pressure::Pressure;
use watch::{OomWatch, Watched};

/// One container's memory cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    dir: PathBuf,
    version: Version,
}

/// What is known of a container.
struct Info {
    place: Place,
    memory: Memory,
    pressure: Pressure,
    /// Ends when dropped.
    _watched: Option<Watched>,
}

struct CgroupsMem {
    cgroups: Arc<Cgroups>,
    containers: Table<Info>,
    watch: OomWatch,
    /// `--cgroups_limit_swap`.
    limit_swap: bool,
}

pub(crate) fn make(parts: &Parts) -> Result<Arc<dyn Isolator>, MakeError> {
    let cgroups = parts.cgroups()?;
    let limit_swap = parts.settings.cgroups_limit_swap;
    if limit_swap {
        let (dir, version) = cgroups.root(Controller::Memory)?;
        let file = dir.join(limits::swap_file(version));
        std::fs::metadata(&file).map_err(|source| CgroupError::io("limit swap by", file, source))?;
    }
    let watch = OomWatch::new(parts.limitations.clone());
    Ok(Arc::new(CgroupsMem { cgroups, containers: Table::default(), watch, limit_swap }))
}

// === impl CgroupsMem ===

impl CgroupsMem {
    fn place(&self, id: &ContainerId) -> Result<Place, CgroupError> {
        let (dir, version) = self.cgroups.dir(id, Controller::Memory)?;
        Ok(Place { dir, version })
    }

    fn prepare(
        &self,
        context: &ContainerContext,
        contribution: &mut Contribution,
    ) -> Result<(), IsolatorError> {
        let id = &context.container_id;
        let memory = Memory::new(&context.requests, &context.limits);
        let place = self.place(id)?;
        limits::set_first(&place, &memory, self.limit_swap)?;
        let watched = self.watch.begin(id, &place)?;
        let pressure = Pressure::listen(&place);
        self.containers.insert(id, Info { place, memory, pressure, _watched: Some(watched) });

        let nested_or_task = context.task.is_some() || id.parent.is_some();
        if nested_or_task && let Some(adjustment) = oom_score_adj(&memory) {
            contribution.oom_score_adj = Some(adjustment);
        }
        Ok(())
    }

    fn recover_one(&self, context: &ContainerContext) -> Result<(), IsolatorError> {
        let id = &context.container_id;
        let memory = Memory::new(&context.requests, &context.limits);
        let place = self.place(id)?;
        let (watched, pressure) = if place.dir.is_dir() {
            (Some(self.watch.begin(id, &place)?), Pressure::listen(&place))
        } else {
            // Made by an agent without this isolator.
            tracing::warn!(container = %id, cgroup = %place.dir.display(), "The memory of this container is not limited: it has no such cgroup.");
            (None, Pressure::default())
        };
        self.containers.insert(id, Info { place, memory, pressure, _watched: watched });
        Ok(())
    }

    fn change(&self, id: &ContainerId, requests: &Resources, limits: &Limits) -> Result<(), IsolatorError> {
        let memory = Memory::new(requests, limits);
        let place = self.containers.with(id, |info| info.place.clone())?;
        limits::set_again(&place, &memory, self.limit_swap)?;
        self.containers.with(id, |info| info.memory = memory)
    }

    fn fill(&self, id: &ContainerId, statistics: &mut ResourceStatistics) -> Result<(), IsolatorError> {
        let place = self.containers.with(id, |info| {
            info.memory.fill(statistics);
            info.pressure.fill(statistics);
            info.place.clone()
        })?;
        figures::fill(&place, self.limit_swap, statistics)?;
        Ok(())
    }

    fn limitation(&self, id: &ContainerId) -> Result<Option<Limitation>, IsolatorError> {
        let Ok(place) = self.containers.with(id, |info| info.place.clone()) else { return Ok(None) };
        match oom::happened(&place)? {
            true => Ok(Some(oom::limitation(id, &place))),
            false => Ok(None),
        }
    }
}

/// See the top of this file. `None` for a container that cannot use more than it requested.
fn oom_score_adj(memory: &Memory) -> Option<i32> {
    let soft = memory.request.max(limits::MIN_MEMORY);
    let beyond = match memory.limit {
        Hard::At(limit) => limit > soft,
        Hard::Infinite => true,
    };
    if beyond { score_of(soft) } else { None }
}

/// The adjustment of the kernel's score for a container that has requested so many bytes and may use more, as Mesos computes it. `None` where the
/// kernel does not say how much memory there is.
#[must_use]
pub fn score_of(request: u64) -> Option<i32> {
    let total = host_memory().filter(|total| *total > 0)?;
    // At most 1000, since a request above the host's memory is cut.
    let share = u128::from(request.min(total)) * 1000 / u128::from(total);
    i32::try_from(1000 - share.min(1000)).ok()
}

impl Isolator for CgroupsMem {
    fn name(&self) -> &str {
        "cgroups/mem"
    }

    fn recover<'a>(&'a self, known: &'a [Recovered], _: &'a [ContainerId]) -> Answer<'a> {
        done(known.iter().try_for_each(|one| self.recover_one(&one.context)))
    }

    fn prepare<'a>(
        &'a self,
        context: &'a ContainerContext,
        contribution: &'a mut Contribution,
    ) -> Answer<'a> {
        done(CgroupsMem::prepare(self, context, contribution))
    }

    fn update<'a>(&'a self, id: &'a ContainerId, requests: &'a Resources, limits: &'a Limits) -> Answer<'a> {
        done(self.change(id, requests, limits))
    }

    fn usage<'a>(&'a self, id: &'a ContainerId, statistics: &'a mut ResourceStatistics) -> Answer<'a> {
        done(self.fill(id, statistics))
    }

    fn exited<'a>(&'a self, id: &'a ContainerId, _: i32) -> Answer<'a, Option<Limitation>> {
        done(self.limitation(id))
    }

    fn cleanup<'a>(&'a self, id: &'a ContainerId) -> Answer<'a> {
        self.containers.remove(id);
        done(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_containers_that_may_use_more_than_they_requested_are_killed_first() {
        let total = host_memory().unwrap();
        let adjustment = |request, limit| oom_score_adj(&Memory { request, limit });
        assert_eq!(adjustment(64 << 20, Hard::At(64 << 20)), None);
        assert_eq!(adjustment(1 << 20, Hard::At(32 << 20)), None, "the least soft limit is 32 MB");
        assert_eq!(
            adjustment(total / 4, Hard::Infinite),
            Some(1000 - i32::try_from((total / 4) * 1000 / total).unwrap())
        );
        assert_eq!(adjustment(total, Hard::At(total + 1)), Some(0));
    }
}
