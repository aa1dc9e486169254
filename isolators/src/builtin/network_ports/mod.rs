//! `network/ports`: finds containers that listen on TCP ports that they were not given, and ends them with `--enforce_container_ports`.
//!
//! Drives nothing in the kernel. One thread for all looks every `--container_ports_watch_interval` (30 s): the kernel lists the listening
//! sockets of the agent's network namespace (`sock_diag(7)`), and whose they are is found by their inodes among the open files of
//! the processes in each container's cgroups (`sockets`, `watch`). Between two looks a task can listen on any port. A
//! container with a network of its own has its own ports and is left alone. Nested containers count with the container they are in, which
//! is the one that has the resources.
//!
//! Rules: Mesos' `docs/isolators/network-ports.md`, `src/slave/containerizer/mesos/isolators/network/ports.cpp`.

mod sockets;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use tepui_api::resources::{Ranges, Resources};

use crate::catalogue::Parts;
use crate::compose::MakeError;
use crate::isolator::{
    Answer, ContainerContext, ContainerId, Contribution, Isolator, IsolatorError, Limitation, Limits,
    Recovered, done,
};

use watch::Watch;

/// The flags of `network/ports`.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkPortsSettings {
    /// `--container_ports_watch_interval`: between two looks.
    pub watch_interval: Duration,
    /// `--enforce_container_ports`: a container that listens where it must not is ended. Else it is only spoken of in the log.
    pub enforce: bool,
    /// `--check_agent_port_range_only`: only the ports that the agent offers are looked at.
    pub agent_range_only: bool,
    /// `--container_ports_isolated_range`: only these ports are looked at.
    pub isolated_range: Option<Ranges>,
    /// The ports that the agent offers.
    pub agent_ports: Ranges,
}

/// Mesos' defaults.
impl Default for NetworkPortsSettings {
    fn default() -> Self {
        NetworkPortsSettings {
            watch_interval: Duration::from_secs(30),
            enforce: false,
            agent_range_only: false,
            isolated_range: None,
            agent_ports: Ranges::default(),
        }
    }
}

struct NetworkPorts {
    watch: Watch,
}

pub(crate) fn make(parts: &Parts) -> Result<Arc<dyn Isolator>, MakeError> {
    let settings = &parts.settings.network_ports;
    let range = isolated(settings)?;
    let cgroups = parts.cgroups.clone().filter(|cgroups| cgroups.have_processes());
    let cgroups = cgroups.ok_or_else(|| {
        MakeError::Host(
            "it finds a container's processes by their cgroup, and there is none: mount cgroup v2 or the v1 freezer".to_owned(),
        )
    })?;
    sockets::listening().map_err(|error| {
        MakeError::Host(format!(
            "the kernel does not list listening sockets (it needs CONFIG_INET_DIAG and CONFIG_INET_TCP_DIAG): {error}"
        ))
    })?;
    if let Some(range) = &range {
        tracing::info!(%range, "Only these ports are looked at by network/ports.");
    }
    let enforce = settings.enforce.then(|| parts.limitations.clone());
    Ok(Arc::new(NetworkPorts { watch: Watch::new(settings.watch_interval, range, enforce, cgroups) }))
}

/// The ports that are looked at; `None`: all.
fn isolated(settings: &NetworkPortsSettings) -> Result<Option<Ranges>, MakeError> {
    match (settings.agent_range_only, &settings.isolated_range) {
        (true, Some(_)) => Err(MakeError::Setting(
            "--check_agent_port_range_only and --container_ports_isolated_range exclude each other: give one of them".to_owned(),
        )),
        (true, None) => Ok(Some(settings.agent_ports.clone())),
        (false, range) => Ok(range.clone()),
    }
}

impl NetworkPorts {
    fn begin(&self, context: &ContainerContext) -> Result<(), IsolatorError> {
        if context.container_id.parent.is_some() || has_network(context) {
            return Ok(());
        }
        self.watch.begin(&context.container_id, ports(&context.requests))
    }
}

/// Whether it joins a network by name, and so has addresses and ports of its own.
fn has_network(context: &ContainerContext) -> bool {
    let networks = context.container.iter().flat_map(|container| &container.network_infos);
    networks.into_iter().any(|network| network.name.is_some())
}

fn ports(requests: &Resources) -> Ranges {
    requests.ports().unwrap_or_default()
}

impl Isolator for NetworkPorts {
    fn name(&self) -> &str {
        "network/ports"
    }

    fn recover<'a>(&'a self, known: &'a [Recovered], _: &'a [ContainerId]) -> Answer<'a> {
        done(known.iter().try_for_each(|one| self.begin(&one.context)))
    }

    fn prepare<'a>(&'a self, context: &'a ContainerContext, _: &'a mut Contribution) -> Answer<'a> {
        done(self.begin(context))
    }

    fn update<'a>(&'a self, id: &'a ContainerId, requests: &'a Resources, _: &'a Limits) -> Answer<'a> {
        self.watch.change(id, ports(requests));
        done(Ok(()))
    }

    fn exited<'a>(&'a self, id: &'a ContainerId, _: i32) -> Answer<'a, Option<Limitation>> {
        done(Ok(self.watch.reported(id)))
    }

    fn cleanup<'a>(&'a self, id: &'a ContainerId) -> Answer<'a> {
        self.watch.end(id);
        done(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tepui_api::resources::Range;

    use super::*;

    #[test]
    fn the_two_ways_to_name_ports_exclude_each_other() {
        let all = NetworkPortsSettings::default();
        assert_eq!(isolated(&all).unwrap(), None);
        let range: Ranges = Range::new(5, 9).into_iter().collect();
        let only = NetworkPortsSettings { isolated_range: Some(range.clone()), ..all.clone() };
        assert_eq!(isolated(&only).unwrap(), Some(range.clone()));
        let agent = NetworkPortsSettings { agent_range_only: true, agent_ports: range.clone(), ..all };
        assert_eq!(isolated(&agent).unwrap(), Some(range));
        let both = NetworkPortsSettings { agent_range_only: true, ..only };
        let error = isolated(&both).unwrap_err().to_string();
        assert!(error.contains("exclude each other"), "{error}");
    }
}
