//! Flags that concern the networks of containers: [`NetworkFlags`].

use std::path::{Path, PathBuf};

use clap::{ArgAction, Args};
use tepui_api::units::{Bytes, Duration};
use tepui_isolators::{ContainerDns, NetworkSettings};

/// Where what is known of containers' networks is kept, below the runtime or the work directory, as in Mesos.
const ROOT: &str = "isolators/network/cni";

/// The flags of isolator `network/cni`, and those of Mesos' `network/port_mapping` that have a meaning with it.
#[derive(Debug, Clone, PartialEq, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own, named by Mesos")]
pub struct NetworkFlags {
    /// Where CNI plugins are looked for: directories, split by colons
    #[arg(long = "network_cni_plugins_dir", value_name = "DIRS", help_heading = "Networks")]
    pub network_cni_plugins_dir: Option<String>,

    /// Directory of files that describe networks for containers: CNI's .conf, .conflist and .json
    #[arg(long = "network_cni_config_dir", value_name = "DIR", help_heading = "Networks")]
    pub network_cni_config_dir: Option<PathBuf>,

    /// Keep what is known of containers' networks below --work_dir rather than --runtime_dir, so that what a restart of the machine leaves is
    /// removed too
    #[arg(long = "network_cni_root_dir_persist", value_name = "BOOL", default_value_t = false,
          action = ArgAction::Set, help_heading = "Networks")]
    pub network_cni_root_dir_persist: bool,

    /// Show what goes through containers' interfaces in their statistics
    #[arg(long = "network_cni_metrics", value_name = "BOOL", default_value_t = true, action = ArgAction::Set,
          help_heading = "Networks")]
    pub network_cni_metrics: bool,

    /// How long one call of a CNI plugin may take until it is ended (Mesos: for ever)
    #[arg(
        long = "network_cni_plugin_timeout",
        value_name = "DURATION",
        default_value = "20secs",
        help_heading = "Networks"
    )]
    pub network_cni_plugin_timeout: Duration,

    /// Name servers for networks whose plugins tell none: JSON, {"mesos": [{"network_mode": "CNI", "network_name": NAME,
    /// "dns": {"nameservers": [...], "domain": ..., "search": [...], "options": [...]}}]}, or file:///PATH
    #[arg(long = "default_container_dns", value_name = "JSON", help_heading = "Networks")]
    pub default_container_dns: Option<ContainerDns>,

    /// Bytes each second that a container may send through each interface of its own, such as 1250KB; 0B is no limit
    #[arg(long = "egress_rate_limit_per_container", value_name = "BYTES", help_heading = "Networks")]
    pub egress_rate_limit_per_container: Option<Bytes>,

    /// Bytes each second that a container may receive through each interface of its own; 0B is no limit
    #[arg(long = "ingress_rate_limit_per_container", value_name = "BYTES", help_heading = "Networks")]
    pub ingress_rate_limit_per_container: Option<Bytes>,

    /// Show the counters of IP, ICMP, TCP and UDP of containers with networks of their own in their statistics
    #[arg(long = "network_enable_snmp_statistics", value_name = "BOOL", default_value_t = false,
          action = ArgAction::Set, help_heading = "Networks")]
    pub network_enable_snmp_statistics: bool,

    /// Show the numbers of TCP connections of containers with networks of their own in their statistics
    #[arg(long = "network_enable_socket_statistics_summary", value_name = "BOOL", default_value_t = false,
          action = ArgAction::Set, help_heading = "Networks")]
    pub network_enable_socket_statistics_summary: bool,

    /// Show the round trip times of TCP connections of containers with networks of their own in their statistics
    #[arg(long = "network_enable_socket_statistics_details", value_name = "BOOL", default_value_t = false,
          action = ArgAction::Set, help_heading = "Networks")]
    pub network_enable_socket_statistics_details: bool,
}

impl NetworkFlags {
    /// Each flag that has a value, with that value as text.
    pub fn table(&self) -> Vec<(&'static str, String)> {
        let all = [
            ("default_container_dns", self.default_container_dns.as_ref().map(ToString::to_string)),
            (
                "egress_rate_limit_per_container",
                self.egress_rate_limit_per_container.map(|limit| limit.to_string()),
            ),
            (
                "ingress_rate_limit_per_container",
                self.ingress_rate_limit_per_container.map(|limit| limit.to_string()),
            ),
            (
                "network_cni_config_dir",
                self.network_cni_config_dir.as_ref().map(|directory| directory.display().to_string()),
            ),
            ("network_cni_metrics", Some(self.network_cni_metrics.to_string())),
            ("network_cni_plugin_timeout", Some(self.network_cni_plugin_timeout.to_string())),
            ("network_cni_plugins_dir", self.network_cni_plugins_dir.clone()),
            ("network_cni_root_dir_persist", Some(self.network_cni_root_dir_persist.to_string())),
            ("network_enable_snmp_statistics", Some(self.network_enable_snmp_statistics.to_string())),
            (
                "network_enable_socket_statistics_details",
                Some(self.network_enable_socket_statistics_details.to_string()),
            ),
            (
                "network_enable_socket_statistics_summary",
                Some(self.network_enable_socket_statistics_summary.to_string()),
            ),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// In the isolator's words.
    pub(crate) fn settings(&self, runtime_dir: &Path, work_dir: &Path) -> NetworkSettings {
        let persist = self.network_cni_root_dir_persist;
        let directories = self.network_cni_plugins_dir.iter().flat_map(|list| list.split(':'));
        NetworkSettings {
            root_dir: if persist { work_dir } else { runtime_dir }.join(ROOT),
            persist,
            plugins_dirs: directories.filter(|name| !name.is_empty()).map(PathBuf::from).collect(),
            config_dir: self.network_cni_config_dir.clone(),
            plugin_timeout: self.network_cni_plugin_timeout.0,
            metrics: self.network_cni_metrics,
            dns: self.default_container_dns.clone().unwrap_or_default(),
            egress_rate_limit: self.egress_rate_limit_per_container.map(|limit| limit.0),
            ingress_rate_limit: self.ingress_rate_limit_per_container.map(|limit| limit.0),
            snmp_statistics: self.network_enable_snmp_statistics,
            socket_statistics_summary: self.network_enable_socket_statistics_summary,
            socket_statistics_details: self.network_enable_socket_statistics_details,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_are_looked_for_in_each_directory() {
        let flags = |persist| NetworkFlags {
            network_cni_plugins_dir: Some("/a::/b".to_owned()),
            network_cni_config_dir: None,
            network_cni_root_dir_persist: persist,
            network_cni_metrics: true,
            network_cni_plugin_timeout: Duration(std::time::Duration::from_secs(1)),
            default_container_dns: None,
            egress_rate_limit_per_container: None,
            ingress_rate_limit_per_container: None,
            network_enable_snmp_statistics: false,
            network_enable_socket_statistics_summary: false,
            network_enable_socket_statistics_details: false,
        };
        let settings = flags(false).settings(Path::new("/run"), Path::new("/work"));
        assert_eq!(settings.plugins_dirs, [Path::new("/a"), Path::new("/b")]);
        assert_eq!(settings.root_dir, Path::new("/run/isolators/network/cni"));
        let kept = flags(true).settings(Path::new("/run"), Path::new("/work"));
        assert_eq!(kept.root_dir, Path::new("/work/isolators/network/cni"));
    }
}
