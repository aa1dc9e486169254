//! Making and removing directories in one tree, and finding those that nobody knows.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::delegation::{Delegation, SHIMS};
use super::{CgroupError, Cgroups, Hierarchies, Hierarchy, LEAF, NESTED, Tree, Version, files, relative};
use crate::isolator::ContainerId;

/// The cgroup in which Mesos can put its own agent (`--agent_subsystems`), and ours: not containers.
const NOT_CONTAINERS: [&str; 3] = ["slave", "agent", SHIMS];
/// Between two attempts to remove a cgroup that is busy: the kernel takes a moment to let go of the last process.
const RETRY: Duration = Duration::from_millis(2);

impl Tree {
    pub(super) fn new(tree: &Hierarchy, root: &Path) -> Self {
        Tree {
            dir: tree.mount.join(root),
            mount: tree.mount.clone(),
            version: tree.version,
            enable: BTreeSet::new(),
            has_v1_cpuset: tree.version == Version::V1 && tree.controllers.contains("cpuset"),
            delegation: Delegation::detect(tree, root),
        }
    }

    /// Makes `<mount>/<root>`, and enables the controllers on the way to it and for its children.
    pub(super) fn make_root(&self, root: &Path) -> Result<(), CgroupError> {
        let mut dir = self.mount.clone();
        self.enable_in(&dir)?;
        for part in root.components() {
            dir.push(part);
            self.make_cgroup(&dir)?;
            self.enable_in(&dir)?;
        }
        // Kernels before 5.11 count a v1 child's memory with its parent's only when told to; later ones always do.
        let hierarchical = dir.join("memory.use_hierarchy");
        if self.version == Version::V1 && files::read_number_if_there::<u8>(&hierarchical)? == Some(0) {
            files::write(&hierarchical, 1)?;
        }
        Ok(())
    }

    /// Makes the container's directory, at `path` below the root.
    pub(super) fn make(&self, id: &ContainerId, path: &Path) -> Result<(), CgroupError> {
        let dir = self.dir.join(path);
        if id.parent.is_some()
            && let Some(between) = dir.parent()
        {
            if let Some(parent) = between.parent() {
                self.enable_in(parent)?;
            }
            self.make_cgroup(between)?;
            self.enable_in(between)?;
        }
        self.make_cgroup(&dir)?;
        match self.has_leaves() {
            true => make_dir(&dir.join(LEAF)),
            false => Ok(()),
        }
    }

    /// Makes one cgroup that can take processes.
    ///
    /// A new cgroup of v1's cpuset has neither CPUs nor memory nodes, and takes nobody until it has; so it gets its parent's
    /// (`admin-guide/cgroup-v1/cpusets.rst`).
    fn make_cgroup(&self, dir: &Path) -> Result<(), CgroupError> {
        make_dir(dir)?;
        let Some(parent) = dir.parent().filter(|_| self.has_v1_cpuset) else { return Ok(()) };
        for name in ["cpuset.cpus", "cpuset.mems"] {
            let file = dir.join(name);
            if files::read(&file)?.trim().is_empty() {
                files::write(&file, files::read(&parent.join(name))?.trim())?;
            }
        }
        Ok(())
    }

    /// Where the processes of the container at `path` are.
    pub(super) fn processes_dir(&self, path: &Path) -> PathBuf {
        let dir = self.dir.join(path);
        if self.has_leaves() { dir.join(LEAF) } else { dir }
    }

    /// Only where controllers are enabled must inner cgroups be free of processes.
    fn has_leaves(&self) -> bool {
        self.version == Version::V2 && !self.enable.is_empty()
    }

    fn enable_in(&self, dir: &Path) -> Result<(), CgroupError> {
        if self.enable.is_empty() {
            return Ok(());
        }
        let file = dir.join("cgroup.subtree_control");
        let enabled = files::read(&file)?;
        let missing: Vec<&str> = self
            .enable
            .iter()
            .copied()
            .filter(|name| !enabled.split_whitespace().any(|has| has == *name))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        self.delegation.check(dir, &missing)?;
        if self.delegation.is_top(dir) {
            // A cgroup with controllers for its children has no processes itself, and systemd may have started this agent in it.
            self.delegation.make_room(dir)?;
        }
        let words: Vec<String> = missing.iter().map(|name| format!("+{name}")).collect();
        files::write(&file, words.join(" "))
    }
}

impl Cgroups {
    /// Removes the container's cgroups and all below them, in every tree of the host. What is not there is fine. While one is
    /// busy, tries again for as long as `patience`.
    ///
    /// # Errors
    /// When a cgroup still has processes at the end, or the kernel refuses.
    pub fn destroy(&self, id: &ContainerId, patience: Duration) -> Result<(), CgroupError> {
        let path = relative(id)?;
        let deadline = Instant::now() + patience;
        self.all_trees().try_for_each(|tree| remove(&tree.dir.join(&path), deadline))
    }

    /// Containers that have a cgroup in some tree but are not in `known`, nested ones before their parents.
    ///
    /// # Errors
    /// When a directory cannot be listed.
    pub fn orphans(&self, known: &BTreeSet<ContainerId>) -> Result<Vec<ContainerId>, CgroupError> {
        let mut found = BTreeSet::new();
        for tree in self.all_trees() {
            collect(&tree.dir, None, &mut found)?;
        }
        let mut orphans: Vec<_> = found.into_iter().filter(|id| !known.contains(id)).collect();
        orphans.sort_by_key(|id| std::cmp::Reverse(depth(id)));
        Ok(orphans)
    }
}

fn depth(id: &ContainerId) -> usize {
    std::iter::successors(id.parent.as_deref(), |id| id.parent.as_deref()).count()
}

fn collect(
    dir: &Path,
    parent: Option<&ContainerId>,
    into: &mut BTreeSet<ContainerId>,
) -> Result<(), CgroupError> {
    for child in children(dir)? {
        let Some(name) = child.file_name().and_then(|name| name.to_str()) else { continue };
        if parent.is_none() && NOT_CONTAINERS.contains(&name) {
            continue;
        }
        let id = ContainerId { value: name.to_owned(), parent: parent.cloned().map(Box::new) };
        collect(&child.join(NESTED), Some(&id), into)?;
        into.insert(id);
    }
    Ok(())
}

/// The cgroups directly in a cgroup; none if it is not there.
pub(crate) fn children(dir: &Path) -> Result<Vec<PathBuf>, CgroupError> {
    let failed = |source| CgroupError::io("list", dir, source);
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if files::is_gone(&error) => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        match entry.and_then(|entry| Ok((entry.file_type()?.is_dir(), entry.path()))) {
            Ok((true, path)) => found.push(path),
            Ok((false, _)) => {}
            Err(error) if files::is_gone(&error) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(found)
}

pub(super) fn make_dir(dir: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(CgroupError::io("make", dir, error))
        }
        _ => Ok(()),
    }
}

/// Removes cgroups from the leaves up. Only ever `rmdir`: a cgroup's files go with it.
fn remove(dir: &Path, deadline: Instant) -> Result<(), CgroupError> {
    loop {
        // Most have no children, so that the listing is spared.
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(error) if files::is_gone(&error) => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                for child in children(dir)? {
                    remove(&child, deadline)?;
                }
                match fs::remove_dir(dir) {
                    Ok(()) => return Ok(()),
                    Err(error) if files::is_gone(&error) => return Ok(()),
                    Err(error) if Instant::now() >= deadline => {
                        return Err(CgroupError::io("remove", dir, error));
                    }
                    Err(_) => std::thread::sleep(RETRY),
                }
            }
            Err(error) => return Err(CgroupError::io("remove", dir, error)),
        }
    }
}
/// Removes `--cgroups_root` from every tree where nothing is left in it; for an agent that will not come back.
///
/// # Errors
/// When the host's trees cannot be read.
pub fn remove_empty_root(root: &Path) -> Result<(), CgroupError> {
    let root = root.strip_prefix("/").unwrap_or(root);
    for tree in Hierarchies::detect()?.0 {
        let dir = tree.mount.join(root);
        // One that is not there, or not empty, stays as it is.
        let _ = std::fs::remove_dir(dir.join(SHIMS));
        let _ = std::fs::remove_dir(dir);
    }
    Ok(())
}
