//! Which cgroup hierarchies this host has: read from `/proc/self/mountinfo`.
//!
//! Three kinds of host: v1 (each controller mounted somewhere, often `cpu,cpuacct` together), v2 (one mount with all), and hybrid (v1
//! mounts, and a v2 mount beside them that has the remaining controllers, or none). A controller is at one place at a time, so
//! looking first for a v1 mount and then for the v2 one is right on all three.
//! Rules: the kernel's `admin-guide/cgroup-v1/cgroups.rst`, `admin-guide/cgroup-v2.rst`; `proc_pid_mountinfo(5)`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::CgroupError;

/// What a hierarchy can count or limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Controller {
    /// Shares and quotas of CPU time.
    Cpu,
    /// CPU time used. Part of every v2 cgroup.
    Cpuacct,
    /// Memory.
    Memory,
    /// Which CPUs and memory nodes.
    Cpuset,
    /// Block devices; `io` in v2.
    Blkio,
    /// Device files. Not a file interface in v2.
    Devices,
    /// The number of processes.
    Pids,
    /// Huge pages.
    Hugetlb,
    /// A mark on packets. v1 only.
    NetCls,
    /// The priority of packets. v1 only.
    NetPrio,
    /// Performance counters. Part of every v2 cgroup.
    PerfEvent,
    /// Stopping all processes. Part of every v2 cgroup.
    Freezer,
}

/// The two kernel interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// One tree per controller or group of them.
    V1,
    /// One tree for all.
    V2,
}

/// One mounted tree of cgroups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Its interface.
    pub version: Version,
    /// The kernel's names of the controllers it has. Empty for a named v1 hierarchy.
    pub controllers: BTreeSet<String>,
    /// The mount options of the file system.
    pub options: Vec<String>,
}

/// All mounted trees of a host, each once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hierarchies(pub Vec<Hierarchy>);

// === impl Controller ===

impl Controller {
    /// All.
    pub const ALL: [Controller; 12] = [
        Self::Cpu,
        Self::Cpuacct,
        Self::Memory,
        Self::Cpuset,
        Self::Blkio,
        Self::Devices,
        Self::Pids,
        Self::Hugetlb,
        Self::NetCls,
        Self::NetPrio,
        Self::PerfEvent,
        Self::Freezer,
    ];

    /// The name as a v1 mount option.
    #[must_use]
    pub const fn v1_name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Memory => "memory",
            Self::Cpuset => "cpuset",
            Self::Blkio => "blkio",
            Self::Devices => "devices",
            Self::Pids => "pids",
            Self::Hugetlb => "hugetlb",
            Self::NetCls => "net_cls",
            Self::NetPrio => "net_prio",
            Self::PerfEvent => "perf_event",
            Self::Freezer => "freezer",
        }
    }

    /// How v2 has it.
    #[must_use]
    pub const fn v2(self) -> InV2 {
        match self {
            Self::Cpu => InV2::Controller("cpu"),
            Self::Memory => InV2::Controller("memory"),
            Self::Cpuset => InV2::Controller("cpuset"),
            Self::Blkio => InV2::Controller("io"),
            Self::Pids => InV2::Controller("pids"),
            Self::Hugetlb => InV2::Controller("hugetlb"),
            Self::Cpuacct | Self::PerfEvent | Self::Freezer | Self::Devices => InV2::Always,
            Self::NetCls | Self::NetPrio => InV2::Never,
        }
    }
}

/// How v2 has a controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InV2 {
    /// To be enabled in `cgroup.subtree_control` under this name.
    Controller(&'static str),
    /// In every cgroup.
    Always,
    /// Not at all.
    Never,
}

// === impl Hierarchies ===

impl Hierarchies {
    /// Those mounted in this process' mount namespace.
    ///
    /// # Errors
    /// When `/proc/self/mountinfo` cannot be read.
    pub fn detect() -> Result<Self, CgroupError> {
        let path = Path::new("/proc/self/mountinfo");
        let text = fs::read_to_string(path).map_err(|source| CgroupError::io("read", path, source))?;
        Ok(Self::parse(&text, |mount| {
            fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default()
        }))
    }

    /// From the text of a mountinfo file. `v2_controllers` reads `cgroup.controllers` of a v2 mount.
    pub fn parse(mountinfo: &str, v2_controllers: impl Fn(&Path) -> String) -> Self {
        let mut found: Vec<Hierarchy> = Vec::new();
        for line in mountinfo.lines() {
            let Some((place, kind)) = line.split_once(" - ") else { continue };
            let (Some(mount), mut kind) = (place.split(' ').nth(4), kind.split(' ')) else { continue };
            let (fstype, options) = (kind.next(), kind.nth(1).unwrap_or_default());
            let mount = PathBuf::from(unescape(mount));
            let options: Vec<String> = options.split(',').map(str::to_owned).collect();
            let (version, controllers) = match fstype {
                Some("cgroup") => (Version::V1, v1_controllers(&options)),
                Some("cgroup2") => {
                    let names = v2_controllers(&mount);
                    (Version::V2, names.split_whitespace().map(str::to_owned).collect())
                }
                _ => continue,
            };
            // The same tree may be mounted twice; the first mount is the usual place.
            let twice = found.iter().any(|other| match version {
                Version::V2 => other.version == Version::V2,
                Version::V1 => other.version == Version::V1 && other.options == options,
            });
            if !twice {
                found.push(Hierarchy { mount, version, controllers, options });
            }
        }
        Hierarchies(found)
    }

    /// The tree that has a controller.
    #[must_use]
    pub fn with(&self, controller: Controller) -> Option<&Hierarchy> {
        let v1 = self
            .0
            .iter()
            .find(|tree| tree.version == Version::V1 && tree.controllers.contains(controller.v1_name()));
        v1.or_else(|| {
            self.unified().filter(|tree| match controller.v2() {
                InV2::Controller(name) => tree.controllers.contains(name),
                InV2::Always => true,
                InV2::Never => false,
            })
        })
    }

    /// The v2 tree.
    #[must_use]
    pub fn unified(&self) -> Option<&Hierarchy> {
        self.0.iter().find(|tree| tree.version == Version::V2)
    }
}

fn v1_controllers(options: &[String]) -> BTreeSet<String> {
    let known = |option: &&String| Controller::ALL.iter().any(|c| c.v1_name() == option.as_str());
    options.iter().filter(known).cloned().collect()
}

/// Undoes mountinfo's octal escapes (`\040` is a space).
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                plain.push(char::from(code));
                rest = &rest[at + 4..];
            }
            None => {
                plain.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
42 31 0:32 / /a\\040b rw,relatime - cgroup cgroup rw,memory
";

    #[test]
    fn hybrid_hosts_have_each_controller_at_its_mount() {
        let found = Hierarchies::parse(HYBRID, |_| "hugetlb\n".to_owned());
        let at = |controller| found.with(controller).map(|tree| tree.mount.to_str().unwrap_or_default());
        assert_eq!(at(Controller::Cpu), Some("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(at(Controller::Cpuacct), Some("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(at(Controller::Memory), Some("/sys/fs/cgroup/memory"));
        assert_eq!(at(Controller::Hugetlb), Some("/sys/fs/cgroup/unified"));
        assert_eq!(at(Controller::Pids), None);
        assert_eq!(at(Controller::NetCls), None);
        assert_eq!(found.0.len(), 4, "the second mount of the memory tree is left out: {found:?}");
    }

    #[test]
    fn unified_hosts_have_all_at_one_mount() {
        let line = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n";
        let found = Hierarchies::parse(line, |_| "cpuset cpu io memory pids".to_owned());
        for controller in [Controller::Cpu, Controller::Cpuacct, Controller::Memory, Controller::Blkio] {
            assert_eq!(
                found.with(controller).map(|tree| tree.mount.as_path()),
                Some(Path::new("/sys/fs/cgroup"))
            );
        }
        assert_eq!(found.with(Controller::Hugetlb), None);
    }

    #[test]
    fn escapes_of_mountinfo_are_undone() {
        assert_eq!(unescape("/a\\040b\\134"), "/a b\\");
        assert_eq!(unescape("/a\\9"), "/a\\9");
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_strange(text in "\\PC*( - cgroup2? \\PC*)?(\n\\PC* - cgroup x \\PC*)*") {
            Hierarchies::parse(&text, |_| text.clone());
        }

        #[test]
        fn escaped_paths_come_back(path in "[a-c \\\\\t]{0,12}") {
            let escaped = path.replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011");
            proptest::prop_assert_eq!(unescape(&escaped), path);
        }
    }
}
