//! What an agent can be told: [`Settings`], the flags of `tepui agent` as data.
//!
//! Names, defaults and text forms are those of `mesos-agent`; where a default differs, its help says so.
//! [`Settings::table`] writes them back as text for `GET_FLAGS`, `/flags` and `/state`. Flags that Mesos has and Tepui has not
//! are in [`NOT_IMPLEMENTED`], so that they can be refused with the reason.

mod absent;
mod cgroups;
pub mod disk;
mod docker;
mod fetcher;
mod images;
mod logger;
mod network;
mod plugins;
pub mod ports;
mod provisioner;
mod security;
mod values;
mod volumes;

use std::net::Ipv4Addr;
use std::path::PathBuf;

use clap::{ArgAction, Args};
use tepui_api::units::{Bytes, Duration};
use tepui_zookeeper::UrlText;

pub use absent::NOT_IMPLEMENTED;
pub use cgroups::{CgroupFlags, Devices};
pub use docker::{ContainerizerFlags, Containerizers};
pub use fetcher::FetcherFlags;
pub use images::{DockerConfig, ImageGc, RegistryFlags};
pub use logger::{ContainerLogger, LoggerFlags, Modules};
pub use network::NetworkFlags;
pub use plugins::IsolatorPlugins;
pub use provisioner::{ImageBackend, ProvisionerFlags};
pub use security::{CapabilityList, GpuList, SecurityFlags};
pub use values::{FlagError, Headroom, Launcher, ReconfigurationPolicy, Recover, Variables};
pub use volumes::VolumeFlags;

/// The flags of an agent.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(next_help_heading = None)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own, named by Mesos")]
pub struct Settings {
    /// The coordinator: HOST:PORT; or zk://[USER:PASSWORD@]HOST1:PORT1,HOST2:PORT2,.../PATH, where ZooKeeper tells which
    /// one leads; or file:///PATH of a file that holds one of them
    #[arg(long, alias = "coordinator", value_name = "HOST:PORT|URL")]
    pub master: String,

    /// How long ZooKeeper waits for word of the agent before it forgets what the agent watches
    #[arg(long = "zk_session_timeout", value_name = "DURATION", default_value = "10secs",
          value_parser = values::session_timeout, help_heading = "Network")]
    pub zk_session_timeout: Duration,

    /// Directory of sandboxes and of the agent's state. Must survive restarts of the agent
    #[arg(long = "work_dir", value_name = "DIR")]
    pub work_dir: PathBuf,

    /// Directory of what need not survive a restart of the machine. By default one below /run/tepui that belongs to
    /// the work directory, so that several agents on one machine do not meet (Mesos: /var/run/mesos)
    #[arg(long = "runtime_dir", value_name = "DIR")]
    pub runtime_dir: Option<PathBuf>,

    /// IP address to listen on
    #[arg(long, value_name = "IP", default_value = "0.0.0.0", help_heading = "Network")]
    pub ip: Ipv4Addr,

    /// Port to listen on; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 5051, help_heading = "Network")]
    pub port: u16,

    /// IP address under which others reach this agent, if not the one it listens on
    #[arg(long = "advertise_ip", value_name = "IP", help_heading = "Network")]
    pub advertise_ip: Option<Ipv4Addr>,

    /// Port under which others reach this agent, if not the one it listens on
    #[arg(long = "advertise_port", value_name = "PORT", help_heading = "Network")]
    pub advertise_port: Option<u16>,

    /// Hostname to show in offers. By default the name that belongs to the advertised IP address
    #[arg(long, value_name = "NAME", help_heading = "Network")]
    pub hostname: Option<String>,

    /// Look up the hostname of the IP address when --hostname is not given; if false, the address is shown
    #[arg(long = "hostname_lookup", value_name = "BOOL", default_value_t = true, action = ArgAction::Set,
          help_heading = "Network")]
    pub hostname_lookup: bool,

    /// How long to wait at most between two attempts to reach the coordinator
    #[arg(long = "registration_backoff_factor", value_name = "DURATION", default_value = "1secs",
          value_parser = values::backoff_factor, help_heading = "Network")]
    pub registration_backoff_factor: Duration,

    /// What to offer: name(role):value;… or a JSON list. What of cpus, mem, disk and ports is not named is detected
    #[arg(long, value_name = "RESOURCES", help_heading = "Resources")]
    pub resources: Option<String>,

    /// The role of resources that name none; "*" is everybody's
    #[arg(long = "default_role", value_name = "ROLE", default_value = "*", help_heading = "Resources")]
    pub default_role: String,

    /// What is special about this machine, for frameworks to read: name:value;name:value
    #[arg(long, value_name = "ATTRIBUTES", help_heading = "Resources")]
    pub attributes: Option<String>,

    /// How containers are kept apart, by isolators' names, split by commas (Mesos: posix/cpu,posix/mem)
    #[arg(long, value_name = "NAMES", default_value = ISOLATION, help_heading = "Containers")]
    pub isolation: String,

    /// How processes are made: "linux", the only one
    #[arg(long, value_name = "NAME", default_value = "linux", help_heading = "Containers")]
    pub launcher: Launcher,

    /// Run tasks as the user that they, or their frameworks, name; if false, as the agent's user
    #[arg(long = "switch_user", value_name = "BOOL", default_value_t = true, action = ArgAction::Set,
          help_heading = "Containers")]
    pub switch_user: bool,

    /// Where a container with an image finds its sandbox
    #[arg(
        long = "sandbox_directory",
        value_name = "PATH",
        default_value = "/mnt/mesos/sandbox",
        help_heading = "Containers"
    )]
    pub sandbox_directory: String,

    /// Variables for all tasks: a JSON object of strings
    #[arg(long = "executor_environment_variables", value_name = "JSON", help_heading = "Containers")]
    pub executor_environment_variables: Option<Variables>,

    /// How long a task has between SIGTERM and SIGKILL when its framework is removed
    #[arg(
        long = "executor_shutdown_grace_period",
        value_name = "DURATION",
        default_value = "5secs",
        help_heading = "Containers"
    )]
    pub executor_shutdown_grace_period: Duration,

    /// How long an executor may take to subscribe once it runs; then it is killed
    #[arg(
        long = "executor_registration_timeout",
        value_name = "DURATION",
        default_value = "1mins",
        help_heading = "Containers"
    )]
    pub executor_registration_timeout: Duration,

    /// How long an executor may take to subscribe to an agent that starts anew, and a container's shim to answer it, if longer than 10secs; told to
    /// tasks and executors whose framework checkpoints as MESOS_SUBSCRIPTION_BACKOFF_MAX
    #[arg(long = "executor_reregistration_timeout", value_name = "DURATION", default_value = "2secs",
          value_parser = values::reregistration_timeout, help_heading = "Containers")]
    pub executor_reregistration_timeout: Duration,

    /// Kinds of images that containers may have: "docker", or nothing (Mesos: nothing)
    #[arg(long = "image_providers", value_name = "NAMES", default_value = "docker", help_heading = "Images")]
    pub image_providers: String,

    /// Where images are pulled from when their name does not say: a registry's URL, or an absolute path of a
    /// directory with archives
    #[arg(
        long = "docker_registry",
        value_name = "URL",
        default_value = "https://registry-1.docker.io",
        help_heading = "Images"
    )]
    pub docker_registry: String,

    /// When images that no container uses are removed: JSON, or the path of a file with it. By default never
    #[arg(long = "image_gc_config", value_name = "JSON|PATH", help_heading = "Images")]
    pub image_gc_config: Option<ImageGc>,

    /// Directory of unpacked images
    #[arg(
        long = "docker_store_dir",
        value_name = "DIR",
        default_value = "/tmp/mesos/store/docker",
        help_heading = "Images"
    )]
    pub docker_store_dir: PathBuf,

    /// Name of the cgroup above those of the containers
    #[arg(long = "cgroups_root", value_name = "NAME", default_value = "mesos", help_heading = "Cgroups")]
    pub cgroups_root: String,

    /// Limit CPU time to what a task has, even when the machine is idle
    #[arg(long = "cgroups_enable_cfs", value_name = "BOOL", default_value_t = false, action = ArgAction::Set,
          help_heading = "Cgroups")]
    pub cgroups_enable_cfs: bool,

    /// Have the kernel favour attaching processes to cgroups (its option `favordynmods`, Linux 6.0): a container
    /// starts some 10 ms faster, and forks on this host cost some nanoseconds more. Concerns the whole host. Not a
    /// flag of Mesos
    #[arg(long = "cgroups_favor_dynmods", value_name = "BOOL", default_value_t = true, action = ArgAction::Set,
          help_heading = "Cgroups")]
    pub cgroups_favor_dynmods: bool,

    /// Limit memory and swap together, not memory alone
    #[arg(long = "cgroups_limit_swap", value_name = "BOOL", default_value_t = false, action = ArgAction::Set,
          help_heading = "Cgroups")]
    pub cgroups_limit_swap: bool,

    /// Count processes and threads of containers
    #[arg(long = "cgroups_cpu_enable_pids_and_tids_count", value_name = "BOOL", default_value_t = false,
          action = ArgAction::Set, help_heading = "Cgroups")]
    pub cgroups_cpu_enable_pids_and_tids_count: bool,

    /// Give containers with revocable cpus a lower priority
    #[arg(long = "revocable_cpu_low_priority", value_name = "BOOL", default_value_t = true,
          action = ArgAction::Set, help_heading = "Cgroups")]
    pub revocable_cpu_low_priority: bool,

    /// Give each container a PID namespace of its own even without namespaces/pid
    #[arg(long = "disallow_sharing_agent_pid_namespace", value_name = "BOOL", default_value_t = false,
          action = ArgAction::Set, help_heading = "Containers")]
    pub disallow_sharing_agent_pid_namespace: bool,

    /// Give each container an IPC namespace of its own even if it asks for the agent's
    #[arg(long = "disallow_sharing_agent_ipc_namespace", value_name = "BOOL", default_value_t = false,
          action = ArgAction::Set, help_heading = "Containers")]
    pub disallow_sharing_agent_ipc_namespace: bool,

    /// Size of /dev/shm in containers that name none; half of the memory by default
    #[arg(long = "default_container_shm_size", value_name = "BYTES", help_heading = "Containers")]
    pub default_container_shm_size: Option<Bytes>,

    /// Time between two looks at the size of a sandbox
    #[arg(
        long = "container_disk_watch_interval",
        value_name = "DURATION",
        default_value = "15secs",
        help_heading = "Disk"
    )]
    pub container_disk_watch_interval: Duration,

    /// End containers whose sandbox is larger than their disk
    #[arg(long = "enforce_container_disk_quota", value_name = "BOOL", default_value_t = false,
          action = ArgAction::Set, help_heading = "Disk")]
    pub enforce_container_disk_quota: bool,

    /// Quotas of the file system
    #[command(flatten)]
    pub disk: disk::DiskFlags,

    /// Ports that containers listen on
    #[command(flatten)]
    pub ports: ports::PortFlags,

    /// How long sandboxes are kept after their tasks; shorter when the disk fills
    #[arg(long = "gc_delay", value_name = "DURATION", default_value = "1weeks", help_heading = "Disk")]
    pub gc_delay: Duration,

    /// Share of the disk to keep free, from 0 to 1
    #[arg(long = "gc_disk_headroom", value_name = "SHARE", default_value = "0.1", help_heading = "Disk")]
    pub gc_disk_headroom: Headroom,

    /// Time between two looks for sandboxes to remove
    #[arg(
        long = "disk_watch_interval",
        value_name = "DURATION",
        default_value = "1mins",
        help_heading = "Disk"
    )]
    pub disk_watch_interval: Duration,

    /// What to do with containers of an earlier run: "reconnect" to have them go on, or "cleanup" to end them all and
    /// then end the agent, which keeps its id; its tasks become lost
    #[arg(long, value_name = "HOW", default_value = "reconnect", help_heading = "Recovery")]
    pub recover: Recover,

    /// Which changes of its resources, attributes, hostname and domain a restarted agent may bring: "equal" (none),
    /// "additive" (what only adds), or "any" (not a value of Mesos')
    #[arg(
        long = "reconfiguration_policy",
        value_name = "POLICY",
        default_value = "equal",
        help_heading = "Recovery"
    )]
    pub reconfiguration_policy: ReconfigurationPolicy,

    /// Stop at anything in the agent's state that cannot be read; if false, go on without it, and count it in the
    /// metric slave/recovery_errors
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set,
          help_heading = "Recovery")]
    pub strict: bool,

    /// Told to tasks whose framework checkpoints, as MESOS_RECOVERY_TIMEOUT
    #[arg(
        long = "recovery_timeout",
        value_name = "DURATION",
        default_value = "15mins",
        help_heading = "Recovery"
    )]
    pub recovery_timeout: Duration,

    /// How many ended tasks of a framework are remembered
    #[arg(
        long = "max_completed_executors_per_framework",
        value_name = "N",
        default_value_t = 150,
        help_heading = "Recovery"
    )]
    pub max_completed_executors_per_framework: usize,

    /// What containers may do.
    #[command(flatten)]
    pub security: SecurityFlags,

    /// Isolators that are programs of their own.
    #[command(flatten)]
    pub isolator_plugins: IsolatorPlugins,

    /// Those of the isolators that drive cgroups.
    #[command(flatten)]
    pub cgroups: CgroupFlags,
    /// What makes containers, and how a Docker engine is used.
    #[command(flatten)]
    pub containerizer: ContainerizerFlags,
    /// Registries of images.
    #[command(flatten)]
    pub registries: RegistryFlags,
    /// How images become root file systems.
    #[command(flatten)]
    pub provisioner: ProvisionerFlags,
    /// Volumes, and what images say of their containers
    #[command(flatten)]
    pub volumes: VolumeFlags,
    /// Those that concern networks of containers.
    #[command(flatten)]
    pub network: NetworkFlags,
    /// What is fetched into sandboxes.
    #[command(flatten)]
    pub fetcher: FetcherFlags,
    /// What becomes of containers' output.
    #[command(flatten)]
    pub logger: LoggerFlags,
}

/// The isolators that containers have unless others are named.
const ISOLATION: &str = "cgroups/cpu,cgroups/mem,disk/du,filesystem/linux,docker/runtime,namespaces/pid";

// === impl Settings ===

impl Settings {
    /// Each flag that has a value, with that value as text, sorted by name.
    #[must_use]
    pub fn table(&self) -> Vec<(&'static str, String)> {
        let text = |value: &dyn ToString| Some(value.to_string());
        let path = |value: &PathBuf| Some(value.display().to_string());
        let all = [
            ("advertise_ip", self.advertise_ip.map(|v| v.to_string())),
            ("advertise_port", self.advertise_port.map(|v| v.to_string())),
            ("attributes", self.attributes.clone()),
            ("cgroups_cpu_enable_pids_and_tids_count", text(&self.cgroups_cpu_enable_pids_and_tids_count)),
            ("cgroups_enable_cfs", text(&self.cgroups_enable_cfs)),
            ("cgroups_favor_dynmods", text(&self.cgroups_favor_dynmods)),
            ("cgroups_limit_swap", text(&self.cgroups_limit_swap)),
            ("cgroups_root", text(&self.cgroups_root)),
            ("container_disk_watch_interval", text(&self.container_disk_watch_interval)),
            ("default_container_shm_size", self.default_container_shm_size.map(|v| v.to_string())),
            ("default_role", text(&self.default_role)),
            ("disallow_sharing_agent_ipc_namespace", text(&self.disallow_sharing_agent_ipc_namespace)),
            ("disallow_sharing_agent_pid_namespace", text(&self.disallow_sharing_agent_pid_namespace)),
            ("disk_watch_interval", text(&self.disk_watch_interval)),
            ("docker_registry", text(&self.docker_registry)),
            ("docker_store_dir", path(&self.docker_store_dir)),
            ("enforce_container_disk_quota", text(&self.enforce_container_disk_quota)),
            (
                "executor_environment_variables",
                self.executor_environment_variables.as_ref().map(ToString::to_string),
            ),
            ("executor_registration_timeout", text(&self.executor_registration_timeout)),
            ("executor_reregistration_timeout", text(&self.executor_reregistration_timeout)),
            ("executor_shutdown_grace_period", text(&self.executor_shutdown_grace_period)),
            ("gc_delay", text(&self.gc_delay)),
            ("gc_disk_headroom", text(&self.gc_disk_headroom)),
            ("hostname", self.hostname.clone()),
            ("hostname_lookup", text(&self.hostname_lookup)),
            ("image_providers", text(&self.image_providers)),
            ("ip", text(&self.ip)),
            ("isolation", text(&self.isolation)),
            ("image_gc_config", self.image_gc_config.as_ref().map(ToString::to_string)),
            ("launcher", text(&self.launcher)),
            ("master", Some(self.shown_master())),
            ("max_completed_executors_per_framework", text(&self.max_completed_executors_per_framework)),
            ("port", text(&self.port)),
            ("reconfiguration_policy", text(&self.reconfiguration_policy)),
            ("recover", text(&self.recover)),
            ("recovery_timeout", text(&self.recovery_timeout)),
            ("registration_backoff_factor", text(&self.registration_backoff_factor)),
            ("resources", self.resources.clone()),
            ("revocable_cpu_low_priority", text(&self.revocable_cpu_low_priority)),
            ("runtime_dir", self.runtime_dir.as_ref().and_then(path)),
            ("sandbox_directory", text(&self.sandbox_directory)),
            ("strict", text(&self.strict)),
            ("switch_user", text(&self.switch_user)),
            ("work_dir", path(&self.work_dir)),
            ("zk_session_timeout", text(&self.zk_session_timeout)),
        ];
        let all = all.into_iter().chain(self.cgroups.table()).chain(self.disk.table());
        let all = all.chain(self.ports.table());
        let all = all.chain(self.security.table()).chain(self.isolator_plugins.table());
        let all = all.chain(self.volumes.table()).chain(self.containerizer.table());
        let all = all.chain(self.registries.table()).chain(self.fetcher.table());
        let all = all.chain(self.logger.table()).chain(self.provisioner.table());
        let mut table: Vec<_> = all.filter_map(|(name, value)| Some((name, value?))).collect();
        table.extend(self.network.table());
        table.sort_unstable();
        table
    }

    /// Without the password of an ensemble.
    fn shown_master(&self) -> String {
        let Ok(url) = self.master.parse::<UrlText>();
        if self.master.trim().starts_with("zk://") { url.to_string() } else { self.master.clone() }
    }

    /// The runtime directory: the one that is named, or the one that belongs to the work directory.
    #[must_use]
    pub fn runtime_dir(&self) -> PathBuf {
        match &self.runtime_dir {
            Some(directory) => directory.clone(),
            None => PathBuf::from("/run/tepui").join(self.work_dir_name()),
        }
    }

    /// The directory of the fetcher's cache, which is this agent's alone.
    #[must_use]
    pub fn fetcher_cache_dir(&self) -> PathBuf {
        match &self.fetcher.fetcher_cache_dir {
            Some(directory) => directory.join(self.work_dir_name()),
            None => self.work_dir.join("fetch"),
        }
    }

    /// The work directory as a name, for what several agents on one machine have beside each other.
    fn work_dir_name(&self) -> String {
        let text = self.work_dir.to_string_lossy();
        let name: String = text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        name.trim_matches('_').to_owned()
    }

    /// All flags at their defaults.
    ///
    /// # Panics
    /// Never: every flag but the two given here has a default, which a test parses.
    #[expect(clippy::expect_used, reason = "every flag but the two has a default; a test parses them")]
    pub fn new(master: impl Into<String>, work_dir: impl Into<PathBuf>) -> Self {
        let command = Self::augment_args(clap::Command::new("agent").no_binary_name(true));
        let matches = command
            .try_get_matches_from(["--master=localhost:5050", "--work_dir=/"])
            .expect("all others have defaults");
        let settings =
            <Self as clap::FromArgMatches>::from_arg_matches(&matches).expect("all defaults are values");
        Self { master: master.into(), work_dir: work_dir.into(), ..settings }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(given: &[&str]) -> Result<Settings, String> {
        let command = Settings::augment_args(clap::Command::new("agent").no_binary_name(true));
        let base = ["--work_dir=/w", "--coordinator=h:1"];
        let matches =
            command.try_get_matches_from(base.iter().chain(given)).map_err(|error| error.to_string())?;
        <Settings as clap::FromArgMatches>::from_arg_matches(&matches).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_those_of_mesos() {
        let table = Settings::new("h:1", "/w").table();
        for (name, value) in [
            ("cgroups_enable_cfs", "false"),
            ("cgroups_root", "mesos"),
            ("container_disk_watch_interval", "15secs"),
            ("default_role", "*"),
            ("disk_watch_interval", "1mins"),
            ("executor_registration_timeout", "1mins"),
            ("executor_shutdown_grace_period", "5secs"),
            ("fetcher_cache_size", "2GB"),
            ("fetcher_stall_timeout", "1mins"),
            ("gc_delay", "1weeks"),
            ("gc_disk_headroom", "0.1"),
            ("master", "h:1"),
            ("perf_duration", "10secs"),
            ("perf_interval", "1mins"),
            ("port", "5051"),
            ("recovery_timeout", "15mins"),
            ("registration_backoff_factor", "1secs"),
            ("reconfiguration_policy", "equal"),
            ("recover", "reconnect"),
            ("sandbox_directory", "/mnt/mesos/sandbox"),
            ("strict", "true"),
            ("switch_user", "true"),
            ("work_dir", "/w"),
            ("zk_session_timeout", "10secs"),
        ] {
            assert!(table.contains(&(name, value.to_owned())), "{name}={value} in {table:?}");
        }
        assert!(table.is_sorted());
        let table = Settings::new("zk://user:secret@h:1/x", "/w").table();
        assert!(table.contains(&("master", "zk://user:***@h:1/x".to_owned())), "{table:?}");
    }

    #[test]
    fn values_that_cannot_be_are_refused_with_words() {
        for (flag, words) in [
            ("--recover=restart", "use reconnect or cleanup"),
            ("--reconfiguration_policy=all", "use equal, additive or any"),
            ("--containerizers=docker,lxc", "mesos, docker, or both"),
            ("--launcher=posix", "linux"),
            ("--image_provisioner_backend=aufs", "'aufs' is not implemented yet: use overlay or copy"),
            ("--image_provisioner_backend=bind", "'bind' is not implemented yet: use overlay or copy"),
            ("--image_provisioner_backend=zfs", "use overlay or copy"),
            ("--container_logger=journald", "use sandbox, or logrotate"),
            ("--modules={\"libraries\":[{\"modules\":[{\"name\":\"x\"}]}]}", "C++ ABI"),
            ("--gc_disk_headroom=2", "between 0 and 1"),
            ("--registration_backoff_factor=2mins", "at most 1mins"),
            ("--zk_session_timeout=100ms", "between 1secs and 10mins"),
            ("--executor_reregistration_timeout=1mins", "at most 15secs"),
            ("--executor_environment_variables={\"A\":1}", "strings"),
            ("--xfs_project_range=[0-5]", "without 0"),
            ("--container_ports_isolated_range=31000-32000", "a list of ports such as"),
            ("--bounding_capabilities=CHOWN", "it must be JSON such as"),
            ("--cgroups_net_cls_primary_handle=0", "16 bits"),
            ("--cgroups_net_cls_secondary_handles=1,2", "--cgroups_net_cls_primary_handle"),
            ("--perf_events=cycles,joules", "'joules' is not an event"),
            (
                "--allowed_devices={\"allowed_devices\":[{\"device\":{\"path\":\"/dev/no\"},\"access\":{\"read\":true}}]}",
                "/dev/no",
            ),
            ("--allowed_devices=file:///no/such/file", "cannot be read"),
        ] {
            let error = parse(&[flag]).unwrap_err();
            assert!(error.contains(words), "{flag}: {error}");
        }
    }

    #[test]
    fn every_flag_is_in_the_table_and_none_is_both_there_and_absent() {
        let given = [
            "--allowed_devices={\"allowed_devices\":[]}",
            "--cgroups_net_cls_primary_handle=0x10",
            "--cgroups_net_cls_secondary_handles=0x1,0x2",
            "--perf_events=task-clock",
            "--advertise_ip=10.0.0.1",
            "--advertise_port=1",
            "--attributes=a:b",
            "--container_ports_isolated_range=[1-2]",
            "--bounding_capabilities={\"capabilities\":[\"CHOWN\"]}",
            "--default_container_dns={\"mesos\":[]}",
            "--default_container_shm_size=64MB",
            "--egress_rate_limit_per_container=1MB",
            "--ingress_rate_limit_per_container=1MB",
            "--network_cni_config_dir=/c",
            "--network_cni_plugins_dir=/p:/q",
            "--executor_environment_variables={\"A\":\"b\"}",
            "--effective_capabilities={\"capabilities\":[]}",
            "--fetcher_cache_dir=/f",
            "--frameworks_home=/h",
            "--containerizers=docker,mesos",
            "--docker_certs_dir=/c",
            "--docker_config={}",
            "--docker_insecure_registries=a:1,b",
            "--docker_kill_orphans=false",
            "--docker_registry_mirrors=http://m:1,https://n",
            "--docker_remove_delay=1mins",
            "--docker_socket=/s",
            "--docker_volume_checkpoint_dir=/d",
            "--image_gc_config={}",
            "--image_provisioner_backend=copy",
            "--host_path_volume_force_creation=/d",
            "--hostname=h",
            "--isolator_plugin=a=/b",
            "--modules={}",
            "--nvidia_gpu_devices=0",
            "--resources=cpus:1",
            "--runtime_dir=/r",
            "--seccomp_config_dir=/s",
            "--seccomp_profile_name=p.json",
        ];
        let table = parse(&given).unwrap().table();
        let command = Settings::augment_args(clap::Command::new("agent"));
        let flags: Vec<&str> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
        for flag in &flags {
            assert!(table.iter().any(|(name, _)| name == flag), "{flag} is not in the table");
            assert!(NOT_IMPLEMENTED.iter().all(|(name, _)| name != flag), "{flag} is said to be absent");
        }
        assert_eq!(flags.len(), table.len());
        assert!(NOT_IMPLEMENTED.is_sorted_by_key(|(name, _)| *name));
    }

    #[test]
    fn agents_with_different_work_directories_do_not_share_a_runtime_directory() {
        let runtime = |work_dir: &str| Settings::new("h:1", work_dir).runtime_dir();
        assert_eq!(runtime("/var/lib/tepui/a"), PathBuf::from("/run/tepui/var_lib_tepui_a"));
        assert_ne!(runtime("/a"), runtime("/b"));
    }
}
