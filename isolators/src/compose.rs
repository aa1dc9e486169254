//! From the user's `--isolation` list to the isolators in the order in which they are called.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tepui_api::v1;

use crate::builtin::disk_xfs::DiskXfsSettings;
use crate::builtin::gpu_nvidia::GpuSettings;
use crate::builtin::labels;
use crate::builtin::linux_capabilities::CapabilitiesSettings;
use crate::builtin::linux_seccomp::SeccompSettings;
use crate::builtin::network_cni::NetworkSettings;
use crate::builtin::network_ports::NetworkPortsSettings;
use crate::cgroups::{CgroupError, Cgroups, CgroupsSettings};
use crate::custom::{Custom, CustomError, Host, Places};
use crate::isolator::{Isolator, LimitationSender};
use crate::volume::VolumeSettings;

/// What isolators are told of the agent: the flags that concern them, by Mesos' names.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `--cgroups_root`: below every hierarchy's mount.
    pub cgroups_root: PathBuf,
    /// `--cgroups_enable_cfs`: a container without a limit of its own gets no more CPU time than it asked for.
    pub cgroups_enable_cfs: bool,
    /// `--cgroups_limit_swap`: memory and swap together are limited, rather than memory alone.
    pub cgroups_limit_swap: bool,
    /// `--cgroups_cpu_enable_pids_and_tids_count`: usage has the numbers of processes and threads.
    pub cgroups_cpu_enable_pids_and_tids_count: bool,
    /// `--revocable_cpu_low_priority`: revocable CPUs weigh a hundredth.
    pub revocable_cpu_low_priority: bool,
    /// Has a directory for each container, named by its id, with what it writes beside its sandbox: its own `/tmp`, or the upper
    /// layer of its image. On the file system of `--work_dir`.
    pub scratch_dir: PathBuf,
    /// `--container_disk_watch_interval`: between two looks at a sandbox's size.
    pub container_disk_watch_interval: Duration,
    /// `--enforce_container_disk_quota`: a container that is over its disk is ended.
    pub enforce_container_disk_quota: bool,
    /// `--disallow_sharing_agent_pid_namespace`.
    pub disallow_sharing_agent_pid_namespace: bool,
    /// `--disallow_sharing_agent_ipc_namespace`.
    pub disallow_sharing_agent_ipc_namespace: bool,
    /// `--default_container_shm_size`: bytes of `/dev/shm`; absent: half of the memory, as is the kernel's default.
    pub default_container_shm_size: Option<u64>,
    /// The flags of `disk/xfs`.
    pub disk_xfs: DiskXfsSettings,
    /// The flags of `network/ports`.
    pub network_ports: NetworkPortsSettings,
    /// The flags of `linux/capabilities`.
    pub capabilities: CapabilitiesSettings,
    /// The flags of `linux/seccomp`.
    pub seccomp: SeccompSettings,
    /// The flags of `gpu/nvidia`.
    pub gpu: GpuSettings,
    /// The other flags of the isolators that drive cgroups.
    pub cgroups: CgroupsSettings,
    /// The flags of volumes.
    pub volumes: VolumeSettings,
    /// The flags of `network/cni`.
    pub network: NetworkSettings,
}

/// Mesos' defaults.
impl Default for Settings {
    fn default() -> Self {
        Settings {
            cgroups_root: PathBuf::from("mesos"),
            cgroups_enable_cfs: false,
            cgroups_limit_swap: false,
            cgroups_cpu_enable_pids_and_tids_count: false,
            revocable_cpu_low_priority: true,
            scratch_dir: PathBuf::from("/nonexistent"),
            container_disk_watch_interval: Duration::from_secs(15),
            enforce_container_disk_quota: false,
            disallow_sharing_agent_pid_namespace: false,
            disallow_sharing_agent_ipc_namespace: false,
            default_container_shm_size: None,
            disk_xfs: DiskXfsSettings::default(),
            network_ports: NetworkPortsSettings::default(),
            capabilities: CapabilitiesSettings::default(),
            seccomp: SeccompSettings::default(),
            gpu: GpuSettings::default(),
            cgroups: CgroupsSettings::default(),
            volumes: VolumeSettings::default(),
            network: NetworkSettings::default(),
        }
    }
}

/// The isolators of an agent.
pub struct Composition {
    /// In the order of `prepare`; `cleanup` goes the other way round.
    pub isolators: Vec<Arc<dyn Isolator>>,
    /// Where the containers' cgroups are. Absent when the host has none that are needed.
    pub cgroups: Option<Arc<Cgroups>>,
    names: BTreeSet<String>,
}

/// The list of isolators cannot be composed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Not a name of Mesos, nor of ours.
    #[error("'{0}' in --isolation is unknown: the isolators of this agent are {1}")]
    Unknown(String, String),
    /// Mesos has it, Tepui has not.
    #[error(
        "'{0}' in --isolation is an isolator of Mesos that is not implemented here: the isolators of this agent are {1}"
    )]
    NotImplemented(String, String),
    /// Named twice.
    #[error("'{0}' is in --isolation twice")]
    Duplicate(String),
    /// At most one of a kind.
    #[error("'{0}' and '{1}' in --isolation exclude each other: name one of them")]
    Exclusive(String, String),
    /// One needs another.
    #[error("'{0}' in --isolation needs '{1}': add it")]
    Needs(String, &'static str),
    /// The host lacks what one needs.
    #[error("isolator '{0}' cannot work on this host: {1}")]
    Host(String, MakeError),
    /// A flag of one is wrong, or goes ill with another.
    #[error("isolator '{0}' cannot be set up: {1}")]
    Setting(String, String),
    /// A custom isolator has the name of another.
    #[error("there is another isolator with the name '{0}': give the custom one a name of its own")]
    Clash(String),
    /// The name of a custom isolator would be mistaken.
    #[error(
        "'{0}' cannot be the name of a custom isolator: use letters, digits, '-', '_' and '.', at most 64, a letter or digit first"
    )]
    BadName(String),
    /// A custom isolator cannot be made.
    #[error("isolator '{0}' cannot be set up: {1}")]
    Custom(String, CustomError),
}

/// Why one isolator cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// The host's cgroups cannot be used.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The host lacks something else; the text says what, and how it is had.
    #[error("{0}")]
    Host(String),
    /// A flag is wrong; the text names it and says what would be right.
    #[error("{0}")]
    Setting(String),
}

impl MakeError {
    /// The same of the isolator with this name.
    pub(crate) fn of(self, name: &str) -> BuildError {
        match self {
            MakeError::Setting(text) => BuildError::Setting(name.to_owned(), text),
            lacking => BuildError::Host(name.to_owned(), lacking),
        }
    }
}

impl Composition {
    pub(crate) fn new(
        isolators: Vec<Arc<dyn Isolator>>,
        cgroups: Option<Arc<Cgroups>>,
        names: BTreeSet<String>,
    ) -> Self {
        Composition { isolators, cgroups, names }
    }

    /// Adds an isolator of somebody else's making, to act after all others.
    fn add(&mut self, name: String, isolator: Arc<dyn Isolator>) {
        self.names.insert(name);
        self.isolators.push(isolator);
    }

    /// Whether an isolator was asked for, by its name in Mesos (never an alias).
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// A label by which a container asks for something that none of these isolators sees to, in words.
    #[must_use]
    pub fn unheeded(&self, labels: &v1::Labels) -> Option<&'static str> {
        labels::unheeded(labels, |isolator| self.has(isolator))
    }

    /// The names in force, aliases resolved and defaults added.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }
}

/// Composes isolators by name, whatever the order of the names. `limitations` is where they report.
///
/// # Errors
/// When a name is unknown, not implemented, named twice or excluded by another, or the host lacks what one needs.
pub fn build(
    names: &[&str],
    settings: &Settings,
    limitations: &LimitationSender,
) -> Result<Composition, BuildError> {
    crate::catalogue::compose(names, settings, limitations)
}

/// As [`build`], with custom isolators to act after the others, in the order given. Those that are not on in any case are switched on by
/// their name among `names`.
///
/// # Errors
/// As there; and when a custom isolator has the name of another, or cannot be made.
pub fn build_with(
    names: &[&str],
    customs: Vec<Custom>,
    settings: &Settings,
    places: &Places,
    limitations: &LimitationSender,
) -> Result<Composition, BuildError> {
    let mut own = BTreeSet::new();
    for custom in &customs {
        custom.check_name()?;
        if crate::catalogue::is_taken(&custom.name) || !own.insert(custom.name.as_str()) {
            return Err(BuildError::Clash(custom.name.clone()));
        }
    }
    let (named, built_in): (Vec<&str>, Vec<&str>) =
        names.iter().map(|name| name.trim()).partition(|name| own.contains(name));
    let mut asked = BTreeSet::new();
    if let Some(twice) = named.iter().find(|name| !asked.insert(**name)) {
        return Err(BuildError::Duplicate((*twice).to_owned()));
    }
    let mut composition = build(&built_in, settings, limitations).map_err(|error| with_names(error, &own))?;
    for custom in customs {
        if !custom.always && !named.contains(&custom.name.as_str()) {
            continue;
        }
        let host = Host {
            limitations: limitations.clone(),
            cgroups: composition.cgroups.clone(),
            places: places.clone(),
            name: custom.name.clone(),
        };
        let made = (custom.make)(&host).map_err(|error| BuildError::Custom(custom.name.clone(), error))?;
        composition.add(custom.name, made);
    }
    Ok(composition)
}

/// Adds the custom isolators to what an unknown name could have been.
fn with_names(error: BuildError, customs: &BTreeSet<&str>) -> BuildError {
    let add = |mut known: String| {
        customs.iter().for_each(|name| {
            known.push_str(", ");
            known.push_str(name);
        });
        known
    };
    match error {
        BuildError::Unknown(name, known) => BuildError::Unknown(name, add(known)),
        BuildError::NotImplemented(name, known) => BuildError::NotImplemented(name, add(known)),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Named(&'static str);

    impl Isolator for Named {
        fn name(&self) -> &str {
            self.0
        }
    }

    fn custom(name: &'static str, always: bool) -> Custom {
        let make = move |_: &Host| Ok(Arc::new(Named(name)) as Arc<dyn Isolator>);
        if always { Custom::always(name, make) } else { Custom::named(name, make) }
    }

    /// The names of what is composed beside the cgroups, in order.
    fn composed(names: &[&str], customs: Vec<Custom>) -> Result<Vec<String>, BuildError> {
        let (limitations, _reported) = tokio::sync::mpsc::unbounded_channel();
        let places =
            Places { runtime_dir: "/r".into(), work_dir: "/w".into(), sandbox_directory: "/s".into() };
        // Nothing in it needs a cgroup.
        let settings = Settings { cgroups_root: "tepui-compose-test".into(), ..Settings::default() };
        let composition = build_with(names, customs, &settings, &places, &limitations)?;
        let _ = crate::cgroups::remove_empty_root(std::path::Path::new("tepui-compose-test"));
        let names = composition.isolators.iter().map(|one| one.name().to_owned());
        Ok(names.filter(|name| name != "cgroups").collect())
    }

    #[test]
    fn custom_isolators_act_after_the_others_and_are_switched_on_by_name() {
        let two = || vec![custom("mine", false), custom("yours", true)];
        assert_eq!(
            composed(&["posix/mem"], two()).unwrap(),
            ["filesystem/posix", "posix/mem", "environment_secret", "yours"]
        );
        let on = ["filesystem/posix", "posix/mem", "environment_secret", "mine", "yours"];
        assert_eq!(composed(&["mine", "posix/mem"], two()).unwrap(), on);
        assert_eq!(composed(&["yours", "mine", "posix/mem"], two()).unwrap(), on);
    }

    #[test]
    fn names_must_be_of_ones_own() {
        for name in ["cgroups/cpu", "a/b", "../x", ".x", "", "a b", "a=b"] {
            assert!(matches!(composed(&[], vec![custom(name, true)]), Err(BuildError::BadName(_))), "{name}");
        }
        for name in ["environment_secret", "process", "cgroups"] {
            assert!(matches!(composed(&[], vec![custom(name, true)]), Err(BuildError::Clash(_))), "{name}");
        }
        let twice = composed(&[], vec![custom("mine", true), custom("mine", false)]);
        assert!(matches!(twice, Err(BuildError::Clash(_))));
        let twice = composed(&["mine", "mine"], vec![custom("mine", false)]);
        assert!(matches!(twice, Err(BuildError::Duplicate(_))));
    }

    #[test]
    fn an_unknown_name_is_told_with_those_that_are_known() {
        let error = composed(&["mien"], vec![custom("mine", false)]).unwrap_err().to_string();
        assert!(
            error.contains("'mien'") && error.contains("cgroups/cpu") && error.contains(", mine"),
            "{error}"
        );
    }

    #[test]
    fn one_that_cannot_be_made_says_why() {
        let make = |_: &Host| Err("no such device".into());
        let error = composed(&[], vec![Custom::always("mine", make)]).unwrap_err().to_string();
        assert_eq!(error, "isolator 'mine' cannot be set up: no such device");
    }
}
