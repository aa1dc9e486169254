//! `posix/cpu`: no isolation, only the CPU time that a container's processes use.
//!
//! Reads `/proc` (`proc_tree`). Rules: Mesos' `src/slave/containerizer/mesos/isolators/posix.hpp`.

use std::sync::Arc;

use tepui_api::resources::Resources;
use tepui_api::v1::ResourceStatistics;

use super::amounts::Cpus;
use super::proc_tree;
use super::table::Table;
use crate::catalogue::Parts;
use crate::compose::MakeError;
use crate::isolator::{
    Answer, ContainerContext, ContainerId, Contribution, Isolator, IsolatorError, Limits, Recovered, done,
};

struct PosixCpu {
    containers: Table<(Cpus, Option<u32>)>,
    /// `--cgroups_enable_cfs`: only for the figure of the limit.
    limit_by_request: bool,
}

pub(crate) fn make(parts: &Parts) -> Result<Arc<dyn Isolator>, MakeError> {
    let limit_by_request = parts.settings.cgroups_enable_cfs;
    Ok(Arc::new(PosixCpu { containers: Table::default(), limit_by_request }))
}

impl PosixCpu {
    fn begin(&self, context: &ContainerContext, pid: Option<u32>) {
        let cpus = Cpus::new(&context.requests, &context.limits, self.limit_by_request);
        self.containers.insert(&context.container_id, (cpus, pid));
    }

    fn fill(&self, id: &ContainerId, statistics: &mut ResourceStatistics) -> Result<(), IsolatorError> {
        let (cpus, pid) = self.containers.with(id, |known| *known)?;
        cpus.fill(statistics);
        let Some(pid) = pid else { return Ok(()) };
        let used = proc_tree::usage(pid)
            .map_err(|error| IsolatorError::Failed(format!("cannot read /proc: {error}")))?;
        statistics.cpus_user_time_secs = Some(used.user_secs);
        statistics.cpus_system_time_secs = Some(used.system_secs);
        Ok(())
    }
}

impl Isolator for PosixCpu {
    fn name(&self) -> &str {
        "posix/cpu"
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
        let cpus = Cpus::new(requests, limits, self.limit_by_request);
        done(self.containers.with(id, |known| known.0 = cpus))
    }

    fn usage<'a>(&'a self, id: &'a ContainerId, statistics: &'a mut ResourceStatistics) -> Answer<'a> {
        done(self.fill(id, statistics))
    }

    fn cleanup<'a>(&'a self, id: &'a ContainerId) -> Answer<'a> {
        self.containers.remove(id);
        done(Ok(()))
    }
}
