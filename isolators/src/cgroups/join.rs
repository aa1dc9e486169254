//! A controller for one container: for isolators of which it is only known while a container is prepared what they need.
//!
//! The controllers of built-in isolators are known when they are composed, and every container has a cgroup in their trees. A cgroup more in
//! each container's start would cost time, so a custom isolator asks for one where it needs it.

use std::path::PathBuf;

use super::{CgroupError, Cgroups, Controller, InV2, Tree, Version, files, relative};
use crate::isolator::{ContainerId, Contribution};

/// A container's cgroup in the tree of one controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// Where the controller's files are.
    pub dir: PathBuf,
    /// Which files.
    pub version: Version,
}

impl Cgroups {
    /// Makes the container's cgroup in the tree of a controller, if it has none there, and sees to it that its first process comes into it. To be called
    /// in `prepare`. It goes away with the container's other cgroups.
    ///
    /// On v1 a new cgroup with the controller `cpuset` has the CPUs and memory nodes of its parent, without which it could have no process.
    ///
    /// # Errors
    /// When no tree has the controller, or the kernel refuses.
    pub fn join(
        &self,
        id: &ContainerId,
        controller: Controller,
        contribution: &mut Contribution,
    ) -> Result<Joined, CgroupError> {
        let missing = || CgroupError::NoController(controller.v1_name());
        let hierarchy = self.hierarchies.with(controller).ok_or_else(missing)?;
        let path = relative(id)?;
        let mut tree = Tree::new(hierarchy, &self.root);
        if let (Version::V2, InV2::Controller(name)) = (tree.version, controller.v2()) {
            tree.enable.insert(name);
        }
        tree.make_root(&self.root)?;
        let used = self.used.iter().find(|used| used.mount == tree.mount);
        let procs = match used {
            // Made already, by the rules of that tree.
            Some(used) => used.processes_dir(&path),
            None => {
                tree.make(id, &path)?;
                tree.processes_dir(&path)
            }
        };
        let dir = tree.dir.join(&path);
        if tree.version == Version::V1 && controller == Controller::Cpuset {
            inherit_cpuset(&tree, &path)?;
        }
        let procs = procs.join("cgroup.procs");
        if !contribution.cgroup_procs.contains(&procs) {
            contribution.cgroup_procs.push(procs);
        }
        Ok(Joined { dir, version: tree.version })
    }

    /// The container's cgroups that are there, with the name of each controller.
    pub fn dirs(&self, id: &ContainerId) -> Vec<(&'static str, PathBuf)> {
        let found = Controller::ALL.into_iter().filter_map(|controller| {
            let (dir, _) = self.dir(id, controller).ok()?;
            dir.is_dir().then(|| (controller.v1_name(), dir))
        });
        found.collect()
    }
}

/// Gives every cgroup from the mount down to the container what its parent has, where it has nothing yet.
fn inherit_cpuset(tree: &Tree, path: &std::path::Path) -> Result<(), CgroupError> {
    let below = tree.dir.join(path);
    let Ok(steps) = below.strip_prefix(&tree.mount) else { return Ok(()) };
    let mut parent = tree.mount.clone();
    for step in steps.components() {
        let child = parent.join(step);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if files::read(&child.join(file))?.trim().is_empty() {
                let value = files::read(&parent.join(file))?;
                files::write(&child.join(file), value.trim())?;
            }
        }
        parent = child;
    }
    Ok(())
}
