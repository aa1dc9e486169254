//! `cgroups/cpu`: CPU time by weight, and never more than a limit.
//!
//! | | v1 (`cpu`, `cpuacct`) | v2 (`cpu`) |
//! | --- | --- | --- |
//! | weight | `cpu.shares` = 1024 a CPU, at least 2 | `cpu.weight` = 100 a CPU, 1 to 10000 |
//! | revocable | 10 a CPU | 1 a CPU |
//! | limit | `cpu.cfs_period_us`, `cpu.cfs_quota_us` | `cpu.max` |
//! | time used | `cpuacct.stat`, in clock ticks | `cpu.stat`, in microseconds |
//!
//! 1024 and 100 are the kernel's own defaults of one cgroup, so that a container of one CPU weighs what a service
//! outside weighs, and the ratio of revocable to other CPUs is the same in both. 2 is the least that v1 takes.
//! The period of 100 ms is the kernel's default, and the quota (CPUs × period) at least 1 ms, the least that it takes.
//!
//! Rules: the kernel's `scheduler/sched-design-CFS.rst`, `scheduler/sched-bwc.rst`, `admin-guide/cgroup-v1/cpuacct.rst`,
//! `admin-guide/cgroup-v2.rst` ("CPU"); Mesos' `docs/isolators/cgroups-cpu.md`.

use std::path::Path;
use std::sync::Arc;

use nix::unistd::{SysconfVar, sysconf};
use tepui_api::resources::Resources;
use tepui_api::v1::ResourceStatistics;

use super::amounts::{Cpus, Hard};
use super::table::Table;
use crate::catalogue::Parts;
use crate::cgroups::files::{read_keyed, write};
use crate::cgroups::{CgroupError, Cgroups, Controller, Version};
use crate::compose::MakeError;
use crate::isolator::{
    Answer, ContainerContext, ContainerId, Contribution, Isolator, IsolatorError, Limits, Recovered, done,
};

const SHARES_PER_CPU: f64 = 1024.0;
const SHARES_PER_REVOCABLE_CPU: f64 = 10.0;
const MIN_SHARES: u64 = 2;
const WEIGHT_PER_CPU: f64 = 100.0;
const WEIGHT_PER_REVOCABLE_CPU: f64 = 1.0;
const WEIGHTS: (u64, u64) = (1, 10_000);
const PERIOD_US: f64 = 100_000.0;
const MIN_QUOTA_US: u64 = 1_000;

struct CgroupsCpu {
    cgroups: Arc<Cgroups>,
    containers: Table<Cpus>,
    /// `--cgroups_enable_cfs`.
    limit_by_request: bool,
    /// `--revocable_cpu_low_priority`.
    revocable_low: bool,
    /// `--cgroups_cpu_enable_pids_and_tids_count`.
    count: bool,
}

pub(crate) fn make(parts: &Parts) -> Result<Arc<dyn Isolator>, MakeError> {
    let cgroups = parts.cgroups()?;
    if parts.settings.cgroups_enable_cfs {
        let (dir, version) = cgroups.root(Controller::Cpu)?;
        let file = dir.join(if version == Version::V1 { "cpu.cfs_quota_us" } else { "cpu.max" });
        std::fs::metadata(&file).map_err(|source| CgroupError::io("limit CPU time by", file, source))?;
    }
    Ok(Arc::new(CgroupsCpu {
        cgroups,
        containers: Table::default(),
        limit_by_request: parts.settings.cgroups_enable_cfs,
        revocable_low: parts.settings.revocable_cpu_low_priority,
        count: parts.settings.cgroups_cpu_enable_pids_and_tids_count,
    }))
}

/// v1's weight.
fn shares(cpus: &Cpus, revocable_low: bool) -> u64 {
    let per_cpu = if cpus.revocable && revocable_low { SHARES_PER_REVOCABLE_CPU } else { SHARES_PER_CPU };
    // A cast cuts, as in Mesos.
    ((per_cpu * cpus.request) as u64).max(MIN_SHARES)
}

/// v2's weight.
fn weight(cpus: &Cpus, revocable_low: bool) -> u64 {
    let per_cpu = if cpus.revocable && revocable_low { WEIGHT_PER_REVOCABLE_CPU } else { WEIGHT_PER_CPU };
    ((per_cpu * cpus.request) as u64).clamp(WEIGHTS.0, WEIGHTS.1)
}

/// Microseconds of CPU time in a period; `None` for all there is.
fn quota(cpus: &Cpus) -> Option<u64> {
    match cpus.limit {
        Some(Hard::At(limit)) => Some(((PERIOD_US * limit) as u64).max(MIN_QUOTA_US)),
        Some(Hard::Infinite) | None => None,
    }
}

/// `fresh`: the cgroup is new, and so without a limit.
fn apply(
    (dir, version): (&Path, Version),
    cpus: &Cpus,
    revocable_low: bool,
    fresh: bool,
) -> Result<(), CgroupError> {
    let quota = quota(cpus);
    let limit = quota.is_some() || !fresh;
    match version {
        Version::V1 => {
            write(&dir.join("cpu.shares"), shares(cpus, revocable_low))?;
            if limit {
                write(&dir.join("cpu.cfs_period_us"), PERIOD_US)?;
                let quota = quota.map_or("-1".to_owned(), |quota| quota.to_string());
                write(&dir.join("cpu.cfs_quota_us"), quota)?;
            }
        }
        Version::V2 => {
            write(&dir.join("cpu.weight"), weight(cpus, revocable_low))?;
            if limit {
                let quota = quota.map_or("max".to_owned(), |quota| quota.to_string());
                write(&dir.join("cpu.max"), format!("{quota} {PERIOD_US}"))?;
            }
        }
    }
    Ok(())
}

/// CPU time from `cpuacct.stat` (v1) or `cpu.stat` (v2).
fn fill_times(
    (dir, version): (&Path, Version),
    statistics: &mut ResourceStatistics,
) -> Result<(), CgroupError> {
    match version {
        Version::V1 => {
            let stat = read_keyed(&dir.join("cpuacct.stat"))?;
            let seconds = |key| stat.get(key).map(|ticks| ticks as f64 / ticks_per_second());
            statistics.cpus_user_time_secs = seconds("user");
            statistics.cpus_system_time_secs = seconds("system");
        }
        Version::V2 => {
            let stat = read_keyed(&dir.join("cpu.stat"))?;
            let seconds = |key| stat.get(key).map(|micros| micros as f64 / 1e6);
            statistics.cpus_user_time_secs = seconds("user_usec");
            statistics.cpus_system_time_secs = seconds("system_usec");
        }
    }
    Ok(())
}

/// How often the limit held the container back.
fn fill_throttling(
    (dir, version): (&Path, Version),
    statistics: &mut ResourceStatistics,
) -> Result<(), CgroupError> {
    let stat = read_keyed(&dir.join("cpu.stat"))?;
    let narrow = |key| stat.get(key).map(|count| u32::try_from(count).unwrap_or(u32::MAX));
    statistics.cpus_nr_periods = narrow("nr_periods");
    statistics.cpus_nr_throttled = narrow("nr_throttled");
    statistics.cpus_throttled_time_secs = match version {
        Version::V1 => stat.get("throttled_time").map(|nanos| nanos as f64 / 1e9),
        Version::V2 => stat.get("throttled_usec").map(|micros| micros as f64 / 1e6),
    };
    Ok(())
}

/// The unit of `cpuacct.stat` and `/proc/<pid>/stat`; 100 on every Linux in use.
pub(super) fn ticks_per_second() -> f64 {
    sysconf(SysconfVar::CLK_TCK).ok().flatten().filter(|ticks| *ticks > 0).unwrap_or(100) as f64
}

// === impl CgroupsCpu ===

impl CgroupsCpu {
    fn set(
        &self,
        id: &ContainerId,
        requests: &Resources,
        limits: &Limits,
        fresh: bool,
    ) -> Result<(), IsolatorError> {
        let cpus = Cpus::new(requests, limits, self.limit_by_request);
        let (dir, version) = self.cgroups.dir(id, Controller::Cpu)?;
        apply((&dir, version), &cpus, self.revocable_low, fresh)?;
        self.containers.insert(id, cpus);
        Ok(())
    }

    fn fill(&self, id: &ContainerId, statistics: &mut ResourceStatistics) -> Result<(), IsolatorError> {
        let cpus = self.containers.with(id, |cpus| *cpus)?;
        cpus.fill(statistics);
        let (dir, version) = self.cgroups.dir(id, Controller::Cpuacct)?;
        fill_times((&dir, version), statistics)?;
        if cpus.limit.is_some() {
            let (dir, version) = self.cgroups.dir(id, Controller::Cpu)?;
            fill_throttling((&dir, version), statistics)?;
        }
        if self.count {
            let narrow = |count| u32::try_from(count).unwrap_or(u32::MAX);
            let (processes, threads) = self.cgroups.counts(id, Controller::Cpuacct)?;
            (statistics.processes, statistics.threads) = (Some(narrow(processes)), Some(narrow(threads)));
        }
        Ok(())
    }
}

impl Isolator for CgroupsCpu {
    fn name(&self) -> &str {
        "cgroups/cpu"
    }

    fn recover<'a>(&'a self, known: &'a [Recovered], _: &'a [ContainerId]) -> Answer<'a> {
        for Recovered { context, .. } in known {
            let cpus = Cpus::new(&context.requests, &context.limits, self.limit_by_request);
            self.containers.insert(&context.container_id, cpus);
        }
        done(Ok(()))
    }

    fn prepare<'a>(&'a self, context: &'a ContainerContext, _: &'a mut Contribution) -> Answer<'a> {
        done(self.set(&context.container_id, &context.requests, &context.limits, true))
    }

    fn update<'a>(&'a self, id: &'a ContainerId, requests: &'a Resources, limits: &'a Limits) -> Answer<'a> {
        let known = self.containers.with(id, |_| ());
        done(known.and_then(|()| self.set(id, requests, limits, false)))
    }

    fn usage<'a>(&'a self, id: &'a ContainerId, statistics: &'a mut ResourceStatistics) -> Answer<'a> {
        done(self.fill(id, statistics))
    }

    fn cleanup<'a>(&'a self, id: &'a ContainerId) -> Answer<'a> {
        self.containers.remove(id);
        done(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn cpus(request: f64, limit: Option<Hard<f64>>, revocable: bool) -> Cpus {
        Cpus { request, limit, revocable }
    }

    #[test]
    fn shares_and_weights_follow_the_table() {
        for (request, revocable, v1, v2) in [
            (1.0, false, 1024, 100),
            (0.1, false, 102, 10),
            (0.001, false, 2, 1),
            (0.0, false, 2, 1),
            (2.5, false, 2560, 250),
            (1000.0, false, 1_024_000, 10_000),
            (4.0, true, 40, 4),
            (0.1, true, 2, 1),
        ] {
            let cpus = cpus(request, None, revocable);
            assert_eq!((shares(&cpus, true), weight(&cpus, true)), (v1, v2), "{request} {revocable}");
        }
        assert_eq!(shares(&cpus(4.0, None, true), false), 4096);
    }

    #[test]
    fn quotas_are_a_share_of_the_period_and_at_least_a_millisecond() {
        for (limit, expected) in [
            (Some(Hard::At(0.25)), Some(25_000)),
            (Some(Hard::At(3.0)), Some(300_000)),
            (Some(Hard::At(0.001)), Some(1_000)),
            (Some(Hard::At(0.0)), Some(1_000)),
            (Some(Hard::Infinite), None),
            (None, None),
        ] {
            assert_eq!(quota(&cpus(1.0, limit, false)), expected, "{limit:?}");
        }
    }

    #[test]
    fn v2_takes_weight_and_maximum_and_gives_microseconds() {
        let dir = tempfile::tempdir().unwrap();
        let at = (dir.path(), Version::V2);
        for file in ["cpu.weight", "cpu.max"] {
            fs::write(dir.path().join(file), "").unwrap();
        }
        let text = |file: &str| {
            let text = fs::read_to_string(dir.path().join(file)).unwrap();
            fs::write(dir.path().join(file), "").unwrap();
            text
        };
        apply(at, &cpus(0.5, None, false), true, true).unwrap();
        assert_eq!((text("cpu.weight").as_str(), text("cpu.max").as_str()), ("50", ""));
        apply(at, &cpus(0.5, Some(Hard::At(0.75)), false), true, true).unwrap();
        assert_eq!(text("cpu.max"), "75000 100000");
        apply(at, &cpus(0.5, Some(Hard::Infinite), false), true, false).unwrap();
        assert_eq!(text("cpu.max"), "max 100000");

        let stat = "usage_usec 3500000\nuser_usec 2500000\nsystem_usec 1000000\nnr_periods 7\nnr_throttled 3\nthrottled_usec 1500\n";
        fs::write(dir.path().join("cpu.stat"), stat).unwrap();
        let mut statistics = ResourceStatistics::default();
        fill_times(at, &mut statistics).unwrap();
        fill_throttling(at, &mut statistics).unwrap();
        assert_eq!(statistics.cpus_user_time_secs, Some(2.5));
        assert_eq!(statistics.cpus_system_time_secs, Some(1.0));
        assert_eq!((statistics.cpus_nr_periods, statistics.cpus_nr_throttled), (Some(7), Some(3)));
        assert_eq!(statistics.cpus_throttled_time_secs, Some(0.0015));
    }
}
