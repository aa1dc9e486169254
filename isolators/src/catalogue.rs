//! Every isolator that Mesos 1.11 has, in the order in which they act, and how ours are made.
//!
//! The order is that of Mesos (`src/slave/containerizer/mesos/containerizer.cpp`): file system, resources, namespaces, volumes, disk,
//! devices, network; it does not depend on the order of `--isolation`. The cgroups themselves come before all, and so go last.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use crate::builtin;
use crate::cgroups::{CgroupError, Cgroups, Controller, Hierarchies};
use crate::compose::{BuildError, Composition, MakeError, Settings};
use crate::isolator::{Isolator, LimitationSender};

/// What a built-in isolator is made from.
pub(crate) struct Parts<'a> {
    pub settings: &'a Settings,
    pub limitations: &'a LimitationSender,
    /// Present for those whose entry names controllers.
    pub cgroups: Option<Arc<Cgroups>>,
}

impl Parts<'_> {
    /// The cgroups, for an isolator that drives a controller.
    pub fn cgroups(&self) -> Result<Arc<Cgroups>, CgroupError> {
        self.cgroups.clone().ok_or(CgroupError::NoController("any"))
    }
}

type Make = fn(&Parts) -> Result<Arc<dyn Isolator>, MakeError>;

/// What stands behind a name.
enum Entry {
    /// Built here.
    Here {
        make: Make,
        /// The cgroup controllers it drives.
        controllers: &'static [Controller],
        /// Another isolator that must be named with it.
        needs: Option<&'static str>,
    },
    /// Mesos has it.
    MesosOnly,
}

const fn here(make: Make) -> Entry {
    Entry::Here { make, controllers: &[], needs: None }
}

const fn here_with(make: Make, needs: &'static str) -> Entry {
    Entry::Here { make, controllers: &[], needs: Some(needs) }
}

const fn cgroup(make: Make, controllers: &'static [Controller]) -> Entry {
    Entry::Here { make, controllers, needs: None }
}

/// All isolators of Mesos 1.11, in the order of `prepare`.
const CATALOGUE: &[(&str, Entry)] = &[
    ("filesystem/windows", Entry::MesosOnly),
    ("filesystem/posix", here(builtin::filesystem_posix::make)),
    ("filesystem/linux", here(builtin::filesystem_linux::make)),
    ("filesystem/shared", Entry::MesosOnly),
    ("posix/cpu", here(builtin::posix_cpu::make)),
    ("posix/mem", here(builtin::posix_mem::make)),
    ("posix/rlimits", here(builtin::posix_rlimits::make)),
    ("windows/cpu", Entry::MesosOnly),
    ("windows/mem", Entry::MesosOnly),
    ("cgroups/blkio", cgroup(builtin::cgroups_blkio::make, &[Controller::Blkio])),
    ("cgroups/cpu", cgroup(builtin::cgroups_cpu::make, &[Controller::Cpu, Controller::Cpuacct])),
    ("cgroups/cpuset", cgroup(builtin::cgroups_cpuset::make, &[Controller::Cpuset])),
    ("cgroups/devices", cgroup(builtin::cgroups_devices::make, &[Controller::Devices])),
    ("cgroups/hugetlb", cgroup(builtin::cgroups_hugetlb::make, &[Controller::Hugetlb])),
    ("cgroups/mem", cgroup(builtin::cgroups_mem::make, &[Controller::Memory])),
    ("cgroups/net_cls", cgroup(builtin::cgroups_net_cls::make, &[Controller::NetCls])),
    ("cgroups/net_prio", cgroup(builtin::cgroups_net_prio::make, &[Controller::NetPrio])),
    ("cgroups/perf_event", cgroup(builtin::cgroups_perf_event::make, &[Controller::PerfEvent])),
    ("cgroups/pids", cgroup(builtin::cgroups_pids::make, &[Controller::Pids])),
    ("appc/runtime", Entry::MesosOnly),
    ("docker/runtime", here_with(builtin::docker_runtime::make, "filesystem/linux")),
    ("linux/devices", here_with(builtin::linux_devices::make, "filesystem/linux")),
    ("linux/capabilities", here(builtin::linux_capabilities::make)),
    ("linux/nnp", here(builtin::linux_nnp::make)),
    ("namespaces/ipc", here_with(builtin::namespaces_ipc::make, "filesystem/linux")),
    ("namespaces/pid", here_with(builtin::namespaces_pid::make, "filesystem/linux")),
    ("volume/sandbox_path", here(builtin::volume_sandbox_path::make)),
    ("docker/volume", here_with(builtin::docker_volume::make, "filesystem/linux")),
    ("volume/host_path", here_with(builtin::volume_host_path::make, "filesystem/linux")),
    ("volume/image", here_with(builtin::volume_image::make, "filesystem/linux")),
    ("volume/secret", here_with(builtin::volume_secret::make, "filesystem/linux")),
    ("volume/csi", Entry::MesosOnly),
    ("disk/du", here(builtin::disk_du::make)),
    ("disk/xfs", here(builtin::disk_xfs::make)),
    ("linux/seccomp", here(builtin::linux_seccomp::make)),
    (
        "gpu/nvidia",
        Entry::Here {
            make: builtin::gpu_nvidia::make,
            controllers: &[Controller::Devices],
            needs: Some("cgroups/devices"),
        },
    ),
    ("network/cni", here(builtin::network_cni::make)),
    ("network/port_mapping", Entry::MesosOnly),
    ("network/ports", here(builtin::network_ports::make)),
    ("environment_secret", here(builtin::environment_secret::make)),
];

/// Older names, and what they stand for.
const ALIASES: &[(&str, &[&str])] = &[
    ("process", &["posix/cpu", "posix/mem"]),
    ("cgroups", &["cgroups/cpu", "cgroups/mem"]),
    ("posix/disk", &["disk/du"]),
];

/// Isolators that are there whenever `filesystem/linux` is, as in Mesos.
const WITH_FILESYSTEM_LINUX: [&str; 3] = ["volume/host_path", "volume/image", "volume/sandbox_path"];
/// One that is always there, as in Mesos.
const ALWAYS: &str = "environment_secret";

/// All cgroup isolators that are built here and that the host has the controllers for. Mesos' own meaning is "all that both
/// it and the kernel have", so that a list with this name works on any host.
const ALL_CGROUPS: &str = "cgroups/all";

/// The names of all isolators of Mesos 1.11, each with whether it is built here.
pub fn known() -> impl Iterator<Item = (&'static str, bool)> {
    CATALOGUE.iter().map(|(name, entry)| (*name, matches!(entry, Entry::Here { .. })))
}

/// Whether a name has a meaning already.
pub(crate) fn is_taken(name: &str) -> bool {
    name == ALL_CGROUPS
        || CATALOGUE.iter().any(|(known, _)| *known == name)
        || ALIASES.iter().any(|(alias, _)| *alias == name)
}

/// See [`crate::build`].
pub(crate) fn compose(
    names: &[&str],
    settings: &Settings,
    limitations: &LimitationSender,
) -> Result<Composition, BuildError> {
    let hierarchies =
        Hierarchies::detect().map_err(|error| BuildError::Host("cgroups".to_owned(), error.into()))?;
    let Names { mut names, if_possible } = resolve(names, &hierarchies)?;
    check(&names)?;
    let cgroups = cgroups(&names, hierarchies, &settings.cgroups_root)?;
    let parts = Parts { settings, limitations, cgroups };

    let mut isolators: Vec<Arc<dyn Isolator>> = Vec::new();
    if let Some(cgroups) = &parts.cgroups {
        isolators.push(Arc::new(builtin::cgroups_base::CgroupsBase::new(Arc::clone(cgroups))));
    }
    for (name, entry) in CATALOGUE {
        if let Entry::Here { make, .. } = entry
            && names.contains(*name)
        {
            match make(&parts) {
                Ok(isolator) => isolators.push(isolator),
                Err(error) if if_possible.contains(*name) && !matches!(error, MakeError::Setting(_)) => {
                    tracing::warn!(isolator = name, %error, "cgroups/all leaves out what this host cannot do");
                    names.remove(*name);
                }
                Err(error) => return Err(error.of(name)),
            }
        }
    }
    Ok(Composition::new(isolators, parts.cgroups, names))
}

/// What was asked for.
struct Names {
    names: BTreeSet<String>,
    /// Those that only `cgroups/all` stands for: left out where they cannot be.
    if_possible: BTreeSet<String>,
}

/// Checks each name, replaces aliases, and adds what is always there.
fn resolve(names: &[&str], hierarchies: &Hierarchies) -> Result<Names, BuildError> {
    let mut given = BTreeSet::new();
    let mut resolved = BTreeSet::new();
    let mut if_possible = BTreeSet::new();
    for name in names.iter().map(|name| name.trim()).filter(|name| !name.is_empty()) {
        if !given.insert(name) {
            return Err(BuildError::Duplicate(name.to_owned()));
        }
        if name == ALL_CGROUPS {
            if_possible.extend(all_cgroups(hierarchies));
            continue;
        }
        let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
        let meant = alias.map_or_else(|| vec![name], |(_, names)| names.to_vec());
        for name in meant {
            match CATALOGUE.iter().find(|(known, _)| *known == name) {
                Some((_, Entry::Here { .. })) => resolved.insert(name.to_owned()),
                Some((_, Entry::MesosOnly)) => {
                    return Err(BuildError::NotImplemented(name.to_owned(), built_here()));
                }
                None => return Err(BuildError::Unknown(name.to_owned(), built_here())),
            };
        }
    }
    if !resolved.iter().any(|name| name.starts_with("filesystem/")) {
        resolved.insert("filesystem/posix".to_owned());
    }
    if resolved.contains("filesystem/linux") {
        resolved.extend(WITH_FILESYSTEM_LINUX.map(str::to_owned));
    }
    resolved.insert(ALWAYS.to_owned());
    if_possible.retain(|name| !resolved.contains(name));
    resolved.extend(if_possible.iter().cloned());
    Ok(Names { names: resolved, if_possible })
}

fn all_cgroups(hierarchies: &Hierarchies) -> Vec<String> {
    let mut chosen = Vec::new();
    for (name, entry) in CATALOGUE.iter().filter(|(name, _)| name.starts_with("cgroups/")) {
        match entry {
            Entry::Here { controllers, .. }
                if controllers.iter().all(|one| hierarchies.with(*one).is_some()) =>
            {
                chosen.push((*name).to_owned());
            }
            Entry::Here { .. } => {
                tracing::warn!(isolator = name, "cgroups/all leaves out what this host lacks")
            }
            Entry::MesosOnly => {
                tracing::info!(isolator = name, "cgroups/all leaves out what is not implemented")
            }
        }
    }
    chosen
}

fn built_here() -> String {
    known().filter(|(_, here)| *here).map(|(name, _)| name).collect::<Vec<_>>().join(", ")
}

fn check(names: &BTreeSet<String>) -> Result<(), BuildError> {
    let mut filesystems = names.iter().filter(|name| name.starts_with("filesystem/"));
    if let (Some(one), Some(other)) = (filesystems.next(), filesystems.next()) {
        return Err(BuildError::Exclusive(one.clone(), other.clone()));
    }
    for (name, entry) in CATALOGUE.iter().filter(|(name, _)| names.contains(*name)) {
        if let Entry::Here { needs: Some(needs), .. } = entry
            && !names.contains(*needs)
        {
            return Err(BuildError::Needs((*name).to_owned(), needs));
        }
    }
    Ok(())
}

/// The cgroups for what was chosen. A container is killed by its cgroup where there is a way to, even if no isolator needs one.
fn cgroups(
    names: &BTreeSet<String>,
    hierarchies: Hierarchies,
    root: &Path,
) -> Result<Option<Arc<Cgroups>>, BuildError> {
    let mut needed = Vec::new();
    for (name, entry) in CATALOGUE.iter().filter(|(name, _)| names.contains(*name)) {
        if let Entry::Here { controllers, .. } = entry {
            for &controller in *controllers {
                if hierarchies.with(controller).is_none() {
                    let error = CgroupError::NoController(controller.v1_name());
                    return Err(BuildError::Host((*name).to_owned(), error.into()));
                }
                needed.push(controller);
            }
        }
    }
    if hierarchies.0.is_empty() {
        return Ok(None);
    }
    match Cgroups::new(hierarchies, root, &needed) {
        Ok(cgroups) => Ok(Some(Arc::new(cgroups))),
        Err(error) if needed.is_empty() => {
            tracing::warn!(%error, "Containers have no cgroup to be killed by, as none can be made.");
            Ok(None)
        }
        Err(error) => Err(BuildError::Host("cgroups".to_owned(), error.into())),
    }
}
