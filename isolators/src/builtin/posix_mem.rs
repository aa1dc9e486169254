//! `posix/mem`: no isolation, only the memory that a container's processes use.
//!
//! Reads `/proc` (`proc_tree`). Rules: Mesos' `src/slave/containerizer/mesos/isolators/posix.hpp`.

use std::sync::Arc;

use tepui_api::resources::Resources;
use tepui_api::v1::ResourceStatistics;

use super::amounts::Memory;
use super::proc_tree;
use super::table::Table;
use crate::catalogue::Parts;
use crate::compose::MakeError;
use crate::isolator::{
    Answer, ContainerContext, ContainerId, Contribution, Isolator, IsolatorError, Limits, Recovered, done,
};

struct PosixMem {
    containers: Table<(Memory, Option<u32>)>,
}

pub(crate) fn make(_: &Parts) -> Result<Arc<dyn Isolator>, MakeError> {
    Ok(Arc::new(PosixMem { containers: Table::default() }))
}

impl PosixMem {
    fn begin(&self, context: &ContainerContext, pid: Option<u32>) {
        let memory = Memory::new(&context.requests, &context.limits);
        self.containers.insert(&context.container_id, (memory, pid));
    }

    fn fill(&self, id: &ContainerId, statistics: &mut ResourceStatistics) -> Result<(), IsolatorError> {
        let (memory, pid) = self.containers.with(id, |known| *known)?;
        memory.fill(statistics);
        let Some(pid) = pid else { return Ok(()) };
        let used = proc_tree::usage(pid)
            .map_err(|error| IsolatorError::Failed(format!("cannot read /proc: {error}")))?;
        statistics.mem_rss_bytes = Some(used.rss_bytes);
        Ok(())
    }
}

impl Isolator for PosixMem {
    fn name(&self) -> &str {
        "posix/mem"
    }

    fn recover<'a>(&'a self, known: &'a [Recovered], _: &'a [ContainerId]) -> Answer<'a> {
        known.iter().for_each(|one| self.begin(&one.context, one.pid));
        done(Ok(()))
    }

    fn prepare<'a>(&'a self, context: &'a ContainerContext, _: &'a mut Contribution) -> Answer<'a> {
        self.begin(context, None);
        done(Ok(()))
    }

    fn isolate<'a>(&'a self, id: &'a ContainerId, pid: u32) -> Answer<'a> {
        done(self.containers.with(id, |known| known.1 = Some(pid)))
    }

    fn update<'a>(&'a self, id: &'a ContainerId, requests: &'a Resources, limits: &'a Limits) -> Answer<'a> {
        let memory = Memory::new(requests, limits);
        done(self.containers.with(id, |known| known.0 = memory))
    }

    fn usage<'a>(&'a self, id: &'a ContainerId, statistics: &'a mut ResourceStatistics) -> Answer<'a> {
        done(self.fill(id, statistics))
    }

    fn cleanup<'a>(&'a self, id: &'a ContainerId) -> Answer<'a> {
        self.containers.remove(id);
        done(Ok(()))
    }
}
