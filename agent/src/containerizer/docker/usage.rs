//! What a container uses, in the engine's figures, and its first process.

use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tepui_api::resources::Resources;
use tepui_api::v1::{ContainerId, ResourceStatistics};

use super::DockerContainerizer;

impl DockerContainerizer {
    pub(super) async fn usage(&self, id: &ContainerId) -> Result<ResourceStatistics, String> {
        let container = self.inner.get(id).ok_or_else(|| format!("there is no container {id}"))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut statistics =
            ResourceStatistics { timestamp: now.as_secs_f64(), ..ResourceStatistics::default() };
        match self.inner.engine.stats(&container.name()).await {
            Ok(stats) => fill(&stats, &mut statistics),
            Err(error) => tracing::debug!(container = %id, %error, "no usage is known"),
        }
        let (resources, limits) = container.amounts().clone();
        let requests = Resources::from_wire_lossy(&resources);
        tepui_isolators::fill_limits(&requests, &limits, self.inner.settings.enable_cfs, &mut statistics);
        Ok(statistics)
    }
}

#[expect(clippy::cast_precision_loss, reason = "times of one machine")]
fn fill(stats: &bollard::models::ContainerStatsResponse, to: &mut ResourceStatistics) {
    let seconds = |nanoseconds: u64| nanoseconds as f64 / 1e9;
    if let Some(cpu) = &stats.cpu_stats {
        if let Some(usage) = &cpu.cpu_usage {
            to.cpus_user_time_secs = usage.usage_in_usermode.map(seconds);
            to.cpus_system_time_secs = usage.usage_in_kernelmode.map(seconds);
        }
        if let Some(throttling) = &cpu.throttling_data {
            to.cpus_nr_periods = throttling.periods.and_then(|count| u32::try_from(count).ok());
            to.cpus_nr_throttled = throttling.throttled_periods.and_then(|count| u32::try_from(count).ok());
            to.cpus_throttled_time_secs = throttling.throttled_time.map(seconds);
        }
    }
    if let Some(memory) = &stats.memory_stats {
        // cgroup v1 and v2 have other names for the same.
        let of = |names: [&str; 2]| {
            memory.stats.as_ref().and_then(|all| names.iter().find_map(|name| all.get(*name)))
        };
        to.mem_total_bytes = memory.usage;
        to.mem_rss_bytes = of(["total_rss", "anon"]).copied();
        to.mem_cache_bytes = of(["total_cache", "file"]).copied();
        to.mem_mapped_file_bytes = of(["total_mapped_file", "file_mapped"]).copied();
    }
    for network in stats.networks.iter().flat_map(|networks| networks.values()) {
        let add = |sum: &mut Option<u64>, more: Option<u64>| {
            if let Some(more) = more {
                *sum = Some(sum.unwrap_or(0) + more);
            }
        };
        add(&mut to.net_rx_bytes, network.rx_bytes);
        add(&mut to.net_rx_packets, network.rx_packets);
        add(&mut to.net_tx_bytes, network.tx_bytes);
        add(&mut to.net_tx_packets, network.tx_packets);
    }
}

/// Whether this is a process of that container's: its environment, which the engine set, names it.
pub(super) fn is_process_of(pid: u32, id: &ContainerId) -> bool {
    let wanted = format!("MESOS_CONTAINER_NAME={}{id}", super::PREFIX).into_bytes();
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    pid > 0 && environment.split(|byte| *byte == 0).any(|variable| variable == wanted)
}

/// Kills a container's first process, and with it all others of its PID namespace, where the engine does not.
pub(super) fn kill_process(pid: u32, id: &ContainerId) -> bool {
    let target = i32::try_from(pid).ok().filter(|pid| *pid > 1 && is_process_of(*pid as u32, id));
    target.is_some_and(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok())
}
