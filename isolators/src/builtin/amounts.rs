//! What a container may use of CPU and memory: from its requests and limits, as Mesos reads them.
//!
//! The request is what the container is certain to get (the soft limit), the limit what it may get at most (the hard
//! limit). `TaskInfo.limits` sets hard limits; an infinite one lifts them. Without one, the hard limit of memory is the
//! request, and that of CPU is the request when `--cgroups_enable_cfs` says so, and none otherwise.
//! Rules: Mesos' `docs/nested-container-and-task-group.md` and `MesosContainerizerProcess::_usage`.

use std::fs;
use std::num::NonZero;
use std::thread;

use tepui_api::resources::Resources;
use tepui_api::v1::ResourceStatistics;

use crate::isolator::Limits;

/// A hard limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Hard<T> {
    /// At most this.
    At(T),
    /// Whatever the host has.
    Infinite,
}

/// CPUs that a container may use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cpus {
    /// In whole CPUs.
    pub request: f64,
    /// `None` when nobody asked for a limit.
    pub limit: Option<Hard<f64>>,
    /// Whether some of the request is revocable.
    pub revocable: bool,
}

/// Memory that a container may use, in bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Memory {
    /// What it asked for.
    pub request: u64,
    /// The most it may use.
    pub limit: Hard<u64>,
}

impl Cpus {
    /// `by_request` limits a container without a limit to its request.
    pub fn new(requests: &Resources, limits: &Limits, by_request: bool) -> Self {
        let request = requests.cpus().map_or(0.0, |cpus| cpus.as_f64());
        let limit = match limits.get("cpus") {
            Some(limit) if limit.is_infinite() => Some(Hard::Infinite),
            Some(limit) => Some(Hard::At(*limit)),
            None if by_request => Some(Hard::At(request)),
            None => None,
        };
        Cpus { request, limit, revocable: requests.revocable().cpus().is_some() }
    }

    /// The figures about limits.
    pub fn fill(&self, statistics: &mut ResourceStatistics) {
        statistics.cpus_soft_limit = Some(self.request);
        statistics.cpus_limit = self.limit.map(|limit| match limit {
            Hard::At(cpus) => cpus,
            Hard::Infinite => host_cpus(),
        });
    }
}

/// Fills in what a container may use by its requests and limits, whichever isolators there are: as Mesos' containerizer does it, a
/// container that asked for nothing of a resource has no such figure. `limit_by_request` as in `--cgroups_enable_cfs`.
pub fn fill_limits(
    requests: &Resources,
    limits: &Limits,
    limit_by_request: bool,
    statistics: &mut ResourceStatistics,
) {
    let (cpus, mem) = (requests.cpus().is_some(), requests.mem().is_some());
    if cpus || limits.contains_key("cpus") {
        Cpus::new(requests, limits, limit_by_request).fill(statistics);
    }
    if mem || limits.contains_key("mem") {
        Memory::new(requests, limits).fill(statistics);
    }
    if !cpus {
        statistics.cpus_soft_limit = None;
    }
    if !mem {
        statistics.mem_soft_limit_bytes = None;
    }
}

impl Memory {
    /// From requests and limits; megabytes of a limit are cut to whole ones, as in Mesos.
    pub fn new(requests: &Resources, limits: &Limits) -> Self {
        let request = requests.mem().map_or(0, |mem| mem.bytes());
        let limit = match limits.get("mem") {
            Some(limit) if limit.is_infinite() => Hard::Infinite,
            // A cast of a negative number gives 0, of one too large the largest.
            Some(limit) => Hard::At((*limit as u64).saturating_mul(1 << 20)),
            None => Hard::At(request),
        };
        Memory { request, limit }
    }

    /// The figures about limits.
    pub fn fill(&self, statistics: &mut ResourceStatistics) {
        statistics.mem_soft_limit_bytes = Some(self.request);
        statistics.mem_limit_bytes = match self.limit {
            Hard::At(bytes) => Some(bytes),
            Hard::Infinite => host_memory(),
        };
    }
}

fn host_cpus() -> f64 {
    thread::available_parallelism().map_or(1, NonZero::get) as f64
}

/// Bytes of the host's memory, from `/proc/meminfo`.
pub fn host_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(text: &str) -> Resources {
        Resources::parse(text, "*").unwrap()
    }

    #[test]
    fn a_limit_wins_over_the_request() {
        let requests = resources("cpus:0.5;mem:64");
        let limits = Limits::from([("cpus".to_owned(), 2.5), ("mem".to_owned(), 128.9)]);
        let cpus = Cpus::new(&requests, &limits, false);
        assert_eq!((cpus.request, cpus.limit), (0.5, Some(Hard::At(2.5))));
        let memory = Memory::new(&requests, &limits);
        assert_eq!((memory.request, memory.limit), (64 << 20, Hard::At(128 << 20)));
    }

    #[test]
    fn without_a_limit_memory_is_limited_and_cpus_only_when_told() {
        let requests = resources("cpus:0.5;mem:64");
        assert_eq!(Cpus::new(&requests, &Limits::new(), false).limit, None);
        assert_eq!(Cpus::new(&requests, &Limits::new(), true).limit, Some(Hard::At(0.5)));
        assert_eq!(Memory::new(&requests, &Limits::new()).limit, Hard::At(64 << 20));
    }

    #[test]
    fn an_infinite_limit_is_the_host_in_the_figures() {
        let limits = Limits::from([("cpus".to_owned(), f64::INFINITY), ("mem".to_owned(), f64::INFINITY)]);
        let mut statistics = ResourceStatistics::default();
        Cpus::new(&resources("cpus:1"), &limits, true).fill(&mut statistics);
        Memory::new(&resources("mem:32"), &limits).fill(&mut statistics);
        assert_eq!(statistics.cpus_limit, Some(host_cpus()));
        assert_eq!(statistics.cpus_soft_limit, Some(1.0));
        assert_eq!(statistics.mem_limit_bytes, host_memory());
        assert!(host_memory().unwrap() > 1 << 20);
    }

    #[test]
    fn what_nobody_asked_for_has_no_figure() {
        let mut statistics = ResourceStatistics::default();
        fill_limits(&resources("disk:1"), &Limits::new(), true, &mut statistics);
        assert_eq!(statistics, ResourceStatistics::default());
        fill_limits(&resources("cpus:0.5;mem:64"), &Limits::new(), true, &mut statistics);
        let limits = ResourceStatistics {
            cpus_limit: Some(0.5),
            cpus_soft_limit: Some(0.5),
            mem_limit_bytes: Some(64 << 20),
            mem_soft_limit_bytes: Some(64 << 20),
            ..ResourceStatistics::default()
        };
        assert_eq!(statistics, limits);
        let mut statistics = ResourceStatistics::default();
        fill_limits(&resources("cpus:0.5"), &Limits::new(), false, &mut statistics);
        assert_eq!((statistics.cpus_soft_limit, statistics.cpus_limit), (Some(0.5), None));
    }
}
