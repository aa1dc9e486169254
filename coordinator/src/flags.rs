//! What a coordinator can be told: [`Settings`], the flags of `tepui coordinator` as data.
//!
//! Names, defaults and text forms are those of `mesos-master`. [`Settings::table`] writes them back as
//! text for `GET_FLAGS`, `/flags` and `/state`. Flags that Mesos has and Tepui has not are in
//! [`NOT_IMPLEMENTED`], so that they can be refused with the reason.

mod rates;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgAction, Args};
use tepui_api::resources::ResourceQuantities;
use tepui_api::units::Duration;
use tepui_zookeeper::UrlText;

pub use rates::{AgentRate, Percentage};

/// Where the list of admitted and unreachable agents is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RegistryKind {
    /// Where it survives this process, by Mesos' name `replicated_log`: in ZooKeeper with `--zk`, where the next
    /// leader finds it, and otherwise in a file.
    #[default]
    Durable,
    /// In `<work_dir>/registry.redb`, on disk before anything is answered.
    File,
    /// In ZooKeeper, below the path of `--zk`.
    ZooKeeper,
    /// Nowhere: forgotten when the process ends. For tests and `tepui run`.
    InMemory,
}

/// Amounts that make an offer worth sending: one of the sets must be there, each with all of its amounts.
#[derive(Debug, Clone, PartialEq)]
pub struct MinAllocatable(pub Vec<ResourceQuantities>);

/// Roles and the weight of each.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Weights(pub Vec<(String, f64)>);

/// The flags of a coordinator.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct Settings {
    /// IP address to listen on
    #[arg(long, value_name = "IP", default_value = "0.0.0.0", help_heading = "Network")]
    pub ip: Ipv4Addr,

    /// Port to listen on; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 5050, help_heading = "Network")]
    pub port: u16,

    /// IP address under which others reach this coordinator, if not the one it listens on
    #[arg(long = "advertise_ip", value_name = "IP", help_heading = "Network")]
    pub advertise_ip: Option<Ipv4Addr>,

    /// Port under which others reach this coordinator, if not the one it listens on
    #[arg(long = "advertise_port", value_name = "PORT", help_heading = "Network")]
    pub advertise_port: Option<u16>,

    /// Hostname to show to clients. By default the name that belongs to the advertised IP address
    #[arg(long, value_name = "NAME", help_heading = "Network")]
    pub hostname: Option<String>,

    /// Look up the hostname of the IP address when --hostname is not given; if false, the address is shown
    #[arg(long = "hostname_lookup", value_name = "BOOL", default_value_t = true, action = ArgAction::Set,
          help_heading = "Network")]
    pub hostname_lookup: bool,

    /// Name of the cluster, for people to read
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,

    /// ZooKeeper, for several coordinators of which one leads: zk://[USER:PASSWORD@]HOST1:PORT1,HOST2:PORT2,.../PATH,
    /// or file:///PATH of a file that holds it
    #[arg(long, value_name = "URL", help_heading = "High availability")]
    pub zk: Option<UrlText>,

    /// How long ZooKeeper waits for word of a coordinator before another may lead
    #[arg(long = "zk_session_timeout", value_name = "DURATION", default_value = "10secs",
          value_parser = session_timeout, help_heading = "High availability")]
    pub zk_session_timeout: Duration,

    /// Directory of the registry, which must survive restarts. Needed when the registry is a file
    #[arg(long = "work_dir", value_name = "DIR", help_heading = "Registry")]
    pub work_dir: Option<PathBuf>,

    /// Where admitted agents are remembered: "replicated_log" (in ZooKeeper with --zk, otherwise in a file in the work
    /// directory), "zookeeper", "file", or "in_memory" (for tests)
    #[arg(long, value_name = "KIND", default_value = "replicated_log", help_heading = "Registry")]
    pub registry: RegistryKind,

    /// How long the registry remembers agents that are not connected
    #[arg(
        long = "registry_max_agent_age",
        value_name = "DURATION",
        default_value = "2weeks",
        help_heading = "Registry"
    )]
    pub registry_max_agent_age: Duration,

    /// How many agents that are not connected the registry remembers
    #[arg(long = "registry_max_agent_count", value_name = "N", default_value_t = 100 * 1024,
          help_heading = "Registry")]
    pub registry_max_agent_count: usize,

    /// How long an agent may take to answer a ping, from 1secs to 15mins
    #[arg(long = "agent_ping_timeout", alias = "slave_ping_timeout", value_name = "DURATION",
          default_value = "15secs", value_parser = ping_timeout, help_heading = "Agents")]
    pub agent_ping_timeout: Duration,

    /// How many pings in a row an agent may miss before it is unreachable
    #[arg(long = "max_agent_ping_timeouts", alias = "max_slave_ping_timeouts", value_name = "N",
          default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..), help_heading = "Agents")]
    pub max_agent_ping_timeouts: u32,

    /// How long known agents may take to come back after a restart of the coordinator before they are
    /// unreachable; at least 10mins
    #[arg(long = "agent_reregister_timeout", alias = "slave_reregister_timeout", value_name = "DURATION",
          default_value = "10mins", value_parser = reregister_timeout, help_heading = "Agents")]
    pub agent_reregister_timeout: Duration,

    /// How many of the known agents, from 0% to 100%, may fail to come back in that time; when more do, the
    /// coordinator ends rather than giving them up
    #[arg(
        long = "recovery_agent_removal_limit",
        alias = "recovery_slave_removal_limit",
        value_name = "PERCENT",
        default_value = "100%",
        help_heading = "Agents"
    )]
    pub recovery_agent_removal_limit: Percentage,

    /// How fast silent agents become unreachable, as in 1/10mins or 2/3hrs; as they fall silent, by default
    #[arg(
        long = "agent_removal_rate_limit",
        alias = "slave_removal_rate_limit",
        value_name = "N/DURATION",
        help_heading = "Agents"
    )]
    pub agent_removal_rate_limit: Option<AgentRate>,

    /// Time between two rounds of offers that nothing else gave rise to
    #[arg(
        long = "allocation_interval",
        value_name = "DURATION",
        default_value = "1secs",
        help_heading = "Offers"
    )]
    pub allocation_interval: Duration,

    /// Rescind offers that a framework has not answered in this time; never by default
    #[arg(long = "offer_timeout", value_name = "DURATION", help_heading = "Offers")]
    pub offer_timeout: Option<Duration>,

    /// Least amounts that are offered: sets split by "|", amounts in a set by ";"
    #[arg(
        long = "min_allocatable_resources",
        value_name = "SETS",
        default_value = "cpus:0.01|mem:32",
        help_heading = "Offers"
    )]
    pub min_allocatable_resources: MinAllocatable,

    /// Offer agents with GPUs only to frameworks that have the capability GPU_RESOURCES
    #[arg(long = "filter_gpu_resources", value_name = "BOOL", default_value_t = true,
          action = ArgAction::Set, help_heading = "Offers")]
    pub filter_gpu_resources: bool,

    /// Roles that frameworks may have, split by commas; all by default
    #[arg(long, value_name = "ROLES", help_heading = "Offers")]
    pub roles: Option<String>,

    /// Weights of roles: role=weight,role=weight; 1 for a role that is not named
    #[arg(long, value_name = "WEIGHTS", help_heading = "Offers")]
    pub weights: Option<Weights>,

    /// How many frameworks that ended are remembered
    #[arg(
        long = "max_completed_frameworks",
        value_name = "N",
        default_value_t = 50,
        help_heading = "History"
    )]
    pub max_completed_frameworks: usize,

    /// How many ended tasks of a framework are remembered
    #[arg(
        long = "max_completed_tasks_per_framework",
        value_name = "N",
        default_value_t = 1000,
        help_heading = "History"
    )]
    pub max_completed_tasks_per_framework: usize,

    /// How many tasks of a framework on unreachable agents are remembered
    #[arg(
        long = "max_unreachable_tasks_per_framework",
        value_name = "N",
        default_value_t = 1000,
        help_heading = "History"
    )]
    pub max_unreachable_tasks_per_framework: usize,

    /// How many clients may listen to the operator API's events; the oldest is closed for one more
    #[arg(long = "max_operator_event_stream_subscribers", value_name = "N", default_value_t = 1000)]
    pub max_operator_event_stream_subscribers: usize,
}

/// Flags of `mesos-master` that Tepui does not have, and what to do instead. Those of other names
/// ([`Settings`]'s aliases) are not here.
pub const NOT_IMPLEMENTED: &[(&str, &str)] = &[
    ("acls", "there is no authorization yet: let only trusted hosts reach the port"),
    ("allocator", "the hierarchical allocator is built in and modules cannot be loaded"),
    ("allocator_agent_recovery_factor", "offers start as soon as agents are back"),
    ("allocator_recovery_timeout", "offers start as soon as agents are back"),
    ("authenticate", AUTHENTICATION),
    ("authenticate_agents", AUTHENTICATION),
    ("authenticate_frameworks", AUTHENTICATION),
    ("authenticate_http", AUTHENTICATION),
    ("authenticate_http_frameworks", AUTHENTICATION),
    ("authenticate_http_readonly", AUTHENTICATION),
    ("authenticate_http_readwrite", AUTHENTICATION),
    ("authenticate_slaves", AUTHENTICATION),
    ("authentication_v0_timeout", AUTHENTICATION),
    ("authenticators", AUTHENTICATION),
    ("authorizers", "there is no authorization yet: let only trusted hosts reach the port"),
    ("credentials", AUTHENTICATION),
    ("domain", "fault domains are not built yet"),
    ("external_log_file", LOGS),
    ("fair_sharing_excluded_resource_names", "all resources count for fair sharing"),
    ("firewall_rules", "endpoints cannot be disabled; let only trusted hosts reach the port"),
    ("framework_sorter", "frameworks are sorted by dominant-resource fairness (drf)"),
    ("hooks", MODULES),
    ("http_authenticators", AUTHENTICATION),
    ("http_framework_authenticators", AUTHENTICATION),
    ("initialize_driver_logging", LOGS),
    ("ip_discovery_command", "give the address with --ip or --advertise_ip"),
    ("log_auto_initialize", "the file registry needs no initialization"),
    ("log_dir", LOGS),
    ("logbufsecs", LOGS),
    ("master_contender", MODULES),
    ("master_detector", MODULES),
    ("max_executors_per_agent", "network isolation by port mapping is not built"),
    ("max_executors_per_slave", "network isolation by port mapping is not built"),
    ("memory_profiling", "there is no memory profiler; use heaptrack or perf"),
    ("modules", MODULES),
    ("modules_dir", MODULES),
    ("offer_constraints_re2_max_mem", "the limits of offer constraints are fixed"),
    ("offer_constraints_re2_max_program_size", "the limits of offer constraints are fixed"),
    ("publish_per_framework_metrics", "there are no metrics per framework yet"),
    ("quorum", "the registry is in ZooKeeper, whose own majority counts: leave it out"),
    ("rate_limits", "frameworks are not limited in their calls yet"),
    ("registry_fetch_timeout", "the file registry is read once, at the start"),
    ("registry_gc_interval", "the registry is trimmed whenever it grows over its limits"),
    ("registry_store_timeout", "a registry that cannot be written ends the coordinator at once"),
    ("registry_strict", "Mesos disabled it as well"),
    ("require_agent_domain", "fault domains are not built yet"),
    ("role_sorter", "roles are sorted by dominant-resource fairness (drf)"),
    ("root_submissions", "frameworks of root are always accepted"),
    ("user_sorter", "roles are sorted by dominant-resource fairness (drf)"),
    ("webui_dir", "there is no web page yet"),
    ("whitelist", "all agents are offered"),
];

const AUTHENTICATION: &str = "there is no authentication yet: let only trusted hosts reach the port";
const LOGS: &str = "logs go to stderr, line by line; --logging_level chooses how much";
const MODULES: &str = "Mesos' modules are bound to its C++ ABI and cannot be loaded";

/// Why a flag's text is not a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// No kind of registry.
    #[error("'{0}' is no registry: use replicated_log, zookeeper, file or in_memory")]
    Registry(String),
    /// Not a set of amounts.
    #[error("'{set}' is no set of amounts: {error}; write name:amount;name:amount, as in cpus:0.01|mem:32")]
    Amounts {
        /// What was given.
        set: String,
        /// What is wrong with it.
        error: String,
    },
    /// Not a share of a hundred.
    #[error("'{0}' is no share: write a number from 0 to 100 and %, as in 20%")]
    Percentage(String),
    /// Not so many in so long.
    #[error("'{0}' is no rate: write how many in how long, both above 0, as in 1/10mins")]
    Rate(String),
    /// Not a list of weights.
    #[error("'{0}' is no weight: write role=weight, with a weight above 0")]
    Weight(String),
    /// Out of Mesos' range.
    #[error("{value} is not {range}")]
    Range {
        /// What was given.
        value: Duration,
        /// What may be given.
        range: &'static str,
    },
    /// No duration.
    #[error(transparent)]
    Unit(#[from] tepui_api::units::UnitError),
}

// === impl Settings ===

impl Settings {
    /// Each flag that has a value, with that value as text, sorted by name.
    #[must_use]
    pub fn table(&self) -> Vec<(&'static str, String)> {
        let text = |value: &dyn ToString| Some(value.to_string());
        let all = [
            ("advertise_ip", self.advertise_ip.map(|v| v.to_string())),
            ("advertise_port", self.advertise_port.map(|v| v.to_string())),
            ("agent_ping_timeout", text(&self.agent_ping_timeout)),
            ("agent_removal_rate_limit", self.agent_removal_rate_limit.as_ref().map(ToString::to_string)),
            ("agent_reregister_timeout", text(&self.agent_reregister_timeout)),
            ("allocation_interval", text(&self.allocation_interval)),
            ("cluster", self.cluster.clone()),
            ("filter_gpu_resources", text(&self.filter_gpu_resources)),
            ("hostname", self.hostname.clone()),
            ("hostname_lookup", text(&self.hostname_lookup)),
            ("ip", text(&self.ip)),
            ("max_agent_ping_timeouts", text(&self.max_agent_ping_timeouts)),
            ("max_completed_frameworks", text(&self.max_completed_frameworks)),
            ("max_completed_tasks_per_framework", text(&self.max_completed_tasks_per_framework)),
            ("max_operator_event_stream_subscribers", text(&self.max_operator_event_stream_subscribers)),
            ("max_unreachable_tasks_per_framework", text(&self.max_unreachable_tasks_per_framework)),
            ("min_allocatable_resources", text(&self.min_allocatable_resources)),
            ("offer_timeout", self.offer_timeout.map(|v| v.to_string())),
            ("port", text(&self.port)),
            ("recovery_agent_removal_limit", text(&self.recovery_agent_removal_limit)),
            ("registry", text(&self.registry)),
            ("registry_max_agent_age", text(&self.registry_max_agent_age)),
            ("registry_max_agent_count", text(&self.registry_max_agent_count)),
            ("roles", self.roles.clone()),
            ("weights", self.weights.as_ref().map(ToString::to_string)),
            ("work_dir", self.work_dir.as_ref().map(|v| v.display().to_string())),
            ("zk", self.zk.as_ref().map(ToString::to_string)),
            ("zk_session_timeout", text(&self.zk_session_timeout)),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// Every flag with its default.
impl Default for Settings {
    #[expect(
        clippy::expect_used,
        reason = "no flag is required and every default is valid; a test parses them"
    )]
    fn default() -> Self {
        let command = Self::augment_args(clap::Command::new("coordinator").no_binary_name(true));
        let matches = command.try_get_matches_from(std::iter::empty::<&str>()).expect("no flag is required");
        <Self as clap::FromArgMatches>::from_arg_matches(&matches).expect("every flag has a default")
    }
}

// === impl RegistryKind ===

impl FromStr for RegistryKind {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        match text {
            "replicated_log" => Ok(Self::Durable),
            "file" => Ok(Self::File),
            "zookeeper" => Ok(Self::ZooKeeper),
            "in_memory" => Ok(Self::InMemory),
            _ => Err(FlagError::Registry(text.to_owned())),
        }
    }
}

impl std::fmt::Display for RegistryKind {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            Self::Durable => "replicated_log",
            Self::File => "file",
            Self::ZooKeeper => "zookeeper",
            Self::InMemory => "in_memory",
        })
    }
}

// === impl MinAllocatable ===

impl FromStr for MinAllocatable {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        let set = |set: &str| {
            ResourceQuantities::parse(set)
                .map_err(|error| FlagError::Amounts { set: set.to_owned(), error: error.to_string() })
        };
        Ok(Self(text.split('|').map(set).collect::<Result<Vec<_>, _>>()?))
    }
}

impl std::fmt::Display for MinAllocatable {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let sets: Vec<String> = self.0.iter().map(|set| set.to_string().replace("; ", ";")).collect();
        f.write_str(&sets.join("|"))
    }
}

// === impl Weights ===

impl FromStr for Weights {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        let weight = |text: &str| {
            let wrong = || FlagError::Weight(text.to_owned());
            let (role, weight) = text.trim().split_once('=').ok_or_else(wrong)?;
            let weight = weight.trim().parse::<f64>().ok().filter(|w| w.is_finite() && *w > 0.0);
            Ok((role.trim().to_owned(), weight.ok_or_else(wrong)?))
        };
        Ok(Self(text.split(',').map(weight).collect::<Result<Vec<_>, FlagError>>()?))
    }
}

impl std::fmt::Display for Weights {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let weights = self.0.iter().map(|(role, weight)| format!("{role}={weight}"));
        f.write_str(&weights.collect::<Vec<_>>().join(","))
    }
}

fn ping_timeout(text: &str) -> Result<Duration, FlagError> {
    let value: Duration = text.parse()?;
    if value < Duration::from_secs(1) || value > Duration::from_secs(15 * 60) {
        return Err(FlagError::Range { value, range: "between 1secs and 15mins" });
    }
    Ok(value)
}

fn session_timeout(text: &str) -> Result<Duration, FlagError> {
    let value: Duration = text.parse()?;
    if value < Duration::from_secs(1) || value > Duration::from_secs(10 * 60) {
        return Err(FlagError::Range { value, range: "between 1secs and 10mins" });
    }
    Ok(value)
}

fn reregister_timeout(text: &str) -> Result<Duration, FlagError> {
    let value: Duration = text.parse()?;
    if value < Duration::from_secs(10 * 60) {
        return Err(FlagError::Range { value, range: "at least 10mins" });
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(given: &[&str]) -> Result<Settings, String> {
        let command = Settings::augment_args(clap::Command::new("coordinator").no_binary_name(true));
        let matches = command.try_get_matches_from(given).map_err(|e| e.to_string())?;
        <Settings as clap::FromArgMatches>::from_arg_matches(&matches).map_err(|e| e.to_string())
    }

    #[test]
    fn defaults_are_those_of_mesos() {
        let table = Settings::default().table();
        for (name, value) in [
            ("agent_ping_timeout", "15secs"),
            ("agent_reregister_timeout", "10mins"),
            ("allocation_interval", "1secs"),
            ("filter_gpu_resources", "true"),
            ("hostname_lookup", "true"),
            ("max_agent_ping_timeouts", "5"),
            ("max_completed_frameworks", "50"),
            ("max_completed_tasks_per_framework", "1000"),
            ("max_operator_event_stream_subscribers", "1000"),
            ("min_allocatable_resources", "cpus:0.01|mem:32"),
            ("port", "5050"),
            ("recovery_agent_removal_limit", "100%"),
            ("registry_max_agent_age", "2weeks"),
            ("registry_max_agent_count", "102400"),
            ("registry", "replicated_log"),
            ("zk_session_timeout", "10secs"),
        ] {
            assert!(table.contains(&(name, value.to_owned())), "{name}={value} in {table:?}");
        }
        assert!(table.is_sorted());
        assert!(table.iter().all(|(name, _)| *name != "offer_timeout"), "what is not set is not shown");
    }

    #[test]
    fn every_flag_is_in_the_table_and_no_other() {
        let given = [
            "--advertise_ip=10.0.0.1",
            "--advertise_port=1",
            "--agent_removal_rate_limit=1/10mins",
            "--cluster=c",
            "--hostname=h",
            "--offer_timeout=5mins",
            "--roles=a,b",
            "--weights=a=2,b=0.5",
            "--work_dir=/w",
            "--registry=zookeeper",
            "--zk=zk://user:secret@h:2181/tepui",
        ];
        let table = parse(&given).unwrap().table();
        let names: Vec<&str> = table.iter().map(|(name, _)| *name).collect();
        let command = Settings::augment_args(clap::Command::new("coordinator"));
        let mut flags: Vec<&str> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
        flags.sort_unstable();
        assert_eq!(names, flags);
        assert!(table.contains(&("weights", "a=2,b=0.5".to_owned())));
        assert!(table.contains(&("registry", "zookeeper".to_owned())));
        assert!(table.contains(&("zk", "zk://user:***@h:2181/tepui".to_owned())));
        let known = |name: &&str| NOT_IMPLEMENTED.iter().any(|(absent, _)| absent == name);
        assert_eq!(flags.iter().find(|name| known(name)), None, "a flag is there or it is not");
    }

    #[test]
    fn values_out_of_range_say_what_is_right() {
        for (flag, word) in [
            ("--agent_ping_timeout=100ms", "between 1secs and 15mins"),
            ("--agent_reregister_timeout=1mins", "at least 10mins"),
            ("--max_agent_ping_timeouts=0", "0"),
            ("--registry=etcd", "file or in_memory"),
            ("--zk_session_timeout=100ms", "between 1secs and 10mins"),
            ("--weights=a=0", "above 0"),
            ("--min_allocatable_resources=cpus", "name:amount"),
            ("--allocation_interval=1", "as in 10secs"),
            ("--recovery_agent_removal_limit=20", "as in 20%"),
            ("--recovery_agent_removal_limit=101%", "as in 20%"),
            ("--agent_removal_rate_limit=10mins", "as in 1/10mins"),
            ("--agent_removal_rate_limit=0/10mins", "as in 1/10mins"),
            ("--agent_removal_rate_limit=1/0secs", "as in 1/10mins"),
        ] {
            let error = parse(&[flag]).unwrap_err();
            assert!(error.contains(word), "{flag}: {error}");
        }
    }
}
