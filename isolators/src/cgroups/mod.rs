//! A container's cgroups: found, made, filled, emptied and removed in one place.
//!
//! [`Hierarchies`] tells what the host has. [`Cgroups`] picks, for the controllers that the chosen isolators need, the fewest
//! trees (each costs time at every start), and one more to kill by. In each of them a container has the directory
//! `<mount>/<root>/<container id>`, and a nested one `<that of its parent>/mesos/<its id>`, as in Mesos.
//!
//! In v2 a cgroup with controllers enabled for its children must have no processes itself ("no internal processes",
//! `cgroup-v2.rst`). So that a container may have nested ones, its own processes are in the child `leaf`, as in Mesos.
//!
//! All calls block, for microseconds as a rule; [`Cgroups::kill_all`] and [`Cgroups::destroy`] up to their deadline.

mod delegation;
pub mod devices;
mod dynmods;
pub mod files;
mod hierarchy;
mod join;
mod kill;
mod pressure;
mod settings;
mod tree;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use crate::isolator::ContainerId;

use delegation::Delegation;
pub use dynmods::favor_dynmods;
pub use hierarchy::{Controller, Hierarchies, Hierarchy, InV2, Version};
pub use join::Joined;
pub use pressure::{Pressure, Share, Stall};
pub use settings::{
    AllowedDevice, AllowedDeviceError, CgroupsSettings, EventError, HandleError, HandleRange, PerfEvent,
    PerfEvents, PrimaryHandle,
};
pub(crate) use tree::children;
pub use tree::remove_empty_root;

/// The child of a v2 cgroup that holds a container's processes.
const LEAF: &str = "leaf";
/// Between a container's cgroup and those of its nested containers.
const NESTED: &str = "mesos";

/// The cgroups of an agent's containers.
#[derive(Debug)]
pub struct Cgroups {
    /// In which every container has a cgroup.
    used: Vec<Tree>,
    /// The others of the host, where an agent with other isolators may have left something.
    unused: Vec<Tree>,
    /// Which cgroup a controller is in.
    hierarchies: Hierarchies,
    /// `--cgroups_root`, below every mount.
    root: PathBuf,
    killer: Killer,
}

/// One tree below `--cgroups_root`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tree {
    /// `<mount>/<root>`.
    dir: PathBuf,
    mount: PathBuf,
    version: Version,
    /// The v2 controllers to be enabled for children.
    enable: BTreeSet<&'static str>,
    /// Whether new cgroups must be told their CPUs.
    has_v1_cpuset: bool,
    /// Whose the cgroups on the way to `dir` are.
    delegation: Delegation,
}

/// How all processes of a cgroup are ended at once.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Killer {
    /// v2's `cgroup.kill` (Linux 5.14), in the tree at this directory: kills even what forks meanwhile.
    Kill(PathBuf),
    /// v1's freezer, in the tree at this directory: what is frozen cannot fork while it is killed.
    Freezer(PathBuf),
    /// Signals, until nobody is left.
    Signals,
}

/// A cgroup could not be made, read, written or removed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A file or directory could not be used.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// A verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel did not take a value.
    #[error("cannot write '{value}' to {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The value.
        value: String,
        /// Why.
        source: io::Error,
    },
    /// The kernel's answer was not understood.
    #[error("{} says '{}', which is not a number", path.display(), text.trim())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Its text.
        text: String,
    },
    /// No tree has the controller.
    #[error(
        "the cgroup controller '{0}' is neither mounted as cgroup v1 nor in cgroup.controllers of a cgroup v2 mount: \
         mount it, or take the isolator that needs it out of --isolation"
    )]
    NoController(&'static str),
    /// An id that would not be a directory of its own.
    #[error("'{0}' cannot be the name of a cgroup: it must not be empty, begin with a dot or contain '/'")]
    BadId(String),
    /// A v2 controller is off on the way to the agent's cgroups, where systemd alone may turn it on.
    #[error(
        "the cgroup controller '{controller}' is not delegated to this agent: it is not enabled in \
         {}/cgroup.subtree_control, which is systemd's to write. {remedy}", dir.display()
    )]
    NotDelegated {
        /// Its name in v2.
        controller: String,
        /// Where it would have to be enabled.
        dir: PathBuf,
        /// What to do.
        remedy: String,
    },
    /// The host cannot do what an isolator needs; the text says what, and what would help.
    #[error("{0}")]
    Unable(String),
    /// Processes that SIGKILL did not end in time.
    #[error("{count} processes of container {id} are alive after SIGKILL, the first is {first}")]
    Alive {
        /// The container.
        id: ContainerId,
        /// How many.
        count: usize,
        /// One of them.
        first: i32,
    },
    /// The kernel cannot favour attaching.
    #[error("the kernel does not know the cgroup option 'favordynmods' (it needs Linux 6.0): {0}")]
    NoFavorDynmods(io::Error),
}

impl CgroupError {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        CgroupError::Io { action, path: path.into(), source }
    }
}

// === impl Cgroups ===

impl Cgroups {
    /// Picks the trees for `controllers`, and makes `root` (as `--cgroups_root`, relative to each mount) in them.
    ///
    /// # Errors
    /// When no tree has one of the controllers, or `root` cannot be made.
    pub fn new(
        hierarchies: Hierarchies,
        root: &Path,
        controllers: &[Controller],
    ) -> Result<Self, CgroupError> {
        let root: PathBuf =
            root.components().filter(|part| matches!(part, std::path::Component::Normal(_))).collect();
        let mut trees: Vec<Tree> =
            hierarchies.0.iter().filter(|tree| !is_named(tree)).map(|tree| Tree::new(tree, &root)).collect();
        let mut needed = BTreeSet::new();
        for &controller in controllers {
            let tree = hierarchies.with(controller).ok_or(CgroupError::NoController(controller.v1_name()))?;
            needed.insert(tree.mount.clone());
            if let (Version::V2, InV2::Controller(name)) = (tree.version, controller.v2())
                && let Some(tree) = trees.iter_mut().find(|other| other.mount == tree.mount)
            {
                tree.enable.insert(name);
            }
        }
        let killer = Killer::pick(&hierarchies, &root)?;
        needed.extend(killer.mount(&root));
        let (used, unused): (Vec<_>, Vec<_>) =
            trees.into_iter().partition(|tree| needed.contains(&tree.mount));
        for tree in &used {
            tree.make_root(&root)?;
        }
        Ok(Cgroups { used, unused, hierarchies, root, killer })
    }

    /// Makes the container's cgroups; those that exist are fine.
    ///
    /// # Errors
    /// When the id is no name for a directory, or the kernel refuses.
    pub fn create(&self, id: &ContainerId) -> Result<(), CgroupError> {
        let path = relative(id)?;
        self.used.iter().try_for_each(|tree| tree.make(id, &path))
    }

    /// Whether every container has a cgroup, so that its processes can be found.
    #[must_use]
    pub fn have_processes(&self) -> bool {
        !self.used.is_empty()
    }

    /// The container's cgroup in the tree of a controller.
    ///
    /// # Errors
    /// When the id is no name for a directory, or no tree has the controller.
    pub fn dir(&self, id: &ContainerId, controller: Controller) -> Result<(PathBuf, Version), CgroupError> {
        let (root, version) = self.root(controller)?;
        Ok((root.join(relative(id)?), version))
    }

    /// `--cgroups_root` in the tree of a controller.
    ///
    /// # Errors
    /// When no tree has the controller.
    pub fn root(&self, controller: Controller) -> Result<(PathBuf, Version), CgroupError> {
        let tree =
            self.hierarchies.with(controller).ok_or(CgroupError::NoController(controller.v1_name()))?;
        Ok((tree.mount.join(&self.root), tree.version))
    }

    /// The `cgroup.procs` files into which a process is written to be in all cgroups of the container.
    ///
    /// # Errors
    /// When the id is no name for a directory.
    pub fn attach_files(&self, id: &ContainerId) -> Result<Vec<PathBuf>, CgroupError> {
        let path = relative(id)?;
        Ok(self.used.iter().map(|tree| tree.processes_dir(&path).join("cgroup.procs")).collect())
    }

    /// Puts a process into all cgroups of the container.
    ///
    /// # Errors
    /// When there is no such process or cgroup.
    pub fn attach(&self, id: &ContainerId, pid: u32) -> Result<(), CgroupError> {
        self.attach_files(id)?.iter().try_for_each(|file| files::write(file, pid))
    }

    fn all_trees(&self) -> impl Iterator<Item = &Tree> {
        self.used.iter().chain(&self.unused)
    }
}

/// Trees like systemd's, which have a name instead of controllers.
fn is_named(tree: &Hierarchy) -> bool {
    tree.version == Version::V1 && tree.controllers.is_empty()
}

/// The container's directory below `--cgroups_root`.
fn relative(id: &ContainerId) -> Result<PathBuf, CgroupError> {
    let name = &id.value;
    if name.is_empty() || name.starts_with('.') || name.contains('/') || name.contains('\0') {
        return Err(CgroupError::BadId(name.clone()));
    }
    match &id.parent {
        Some(parent) => Ok(relative(parent)?.join(NESTED).join(name)),
        None => Ok(PathBuf::from(name)),
    }
}
