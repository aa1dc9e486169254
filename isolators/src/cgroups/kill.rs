//! Ending every process of a container, also those that fork while they are being killed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::tree::children;
use super::{CgroupError, Cgroups, Controller, Hierarchies, Killer, Version, files, relative};
use crate::isolator::ContainerId;

/// The longest pause between two looks at who is left.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

impl Killer {
    pub(super) fn pick(hierarchies: &Hierarchies, root: &Path) -> Result<Self, CgroupError> {
        if let Some(unified) = hierarchies.unified() {
            // The file is in every cgroup but that at the top of the tree, so one has to be made to see it.
            let dir = unified.mount.join(root);
            super::Tree::new(unified, root).make_root(root)?;
            if dir.join("cgroup.kill").exists() {
                return Ok(Killer::Kill(dir));
            }
        }
        match hierarchies.with(Controller::Freezer).filter(|tree| tree.version == Version::V1) {
            Some(freezer) => Ok(Killer::Freezer(freezer.mount.join(root))),
            None => Ok(Killer::Signals),
        }
    }

    /// The mount that the way of killing needs a container's cgroup in.
    pub(super) fn mount(&self, root: &Path) -> Option<PathBuf> {
        match self {
            Killer::Kill(dir) | Killer::Freezer(dir) => {
                dir.ancestors().nth(root.components().count()).map(Path::to_owned)
            }
            Killer::Signals => None,
        }
    }
}

impl Cgroups {
    /// The processes in any cgroup of the container, and of those nested in it. Empty if there is no cgroup.
    ///
    /// # Errors
    /// When a cgroup cannot be read.
    pub fn processes(&self, id: &ContainerId) -> Result<BTreeSet<i32>, CgroupError> {
        let path = relative(id)?;
        let mut found = BTreeSet::new();
        for tree in self.all_trees() {
            collect(&tree.dir.join(&path), "cgroup.procs", &mut found)?;
        }
        Ok(found)
    }

    /// How many processes and threads are in the container's cgroup of one controller, with those in nested ones. A process may be in others
    /// only for as long as it is on its way in, so that one tree tells as much as all.
    ///
    /// # Errors
    /// When the cgroup cannot be read, or no tree has the controller.
    pub fn counts(&self, id: &ContainerId, controller: Controller) -> Result<(usize, usize), CgroupError> {
        let (dir, version) = self.dir(id, controller)?;
        let threads_file = match version {
            Version::V1 => "tasks",
            Version::V2 => "cgroup.threads",
        };
        let (mut processes, mut threads) = (BTreeSet::new(), BTreeSet::new());
        collect(&dir, "cgroup.procs", &mut processes)?;
        collect(&dir, threads_file, &mut threads)?;
        Ok((processes.len(), threads.len()))
    }

    /// Kills every process of the container and of those nested in it, and waits until none is left, for as long as `patience`.
    ///
    /// # Errors
    /// When some are alive at the end (one in an uninterruptible wait cannot be killed), or a cgroup cannot be used.
    pub fn kill_all(&self, id: &ContainerId, patience: Duration) -> Result<(), CgroupError> {
        let deadline = Instant::now() + patience;
        let path = relative(id)?;
        let mut pause = Duration::from_micros(500);
        loop {
            self.strike(&path)?;
            // Also by signals: a process on its way in may be in some of the cgroups only.
            let left = self.processes(id)?;
            let Some(&first) = left.first() else { return Ok(()) };
            for &pid in &left {
                match kill(Pid::from_raw(pid), Signal::SIGKILL) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(error) => return Err(CgroupError::io("kill the processes in", path, error.into())),
                }
            }
            self.release(&path)?;
            if Instant::now() >= deadline {
                return Err(CgroupError::Alive { id: id.clone(), count: left.len(), first });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn strike(&self, path: &Path) -> Result<(), CgroupError> {
        match &self.killer {
            Killer::Kill(dir) => unless_gone(files::write(&dir.join(path).join("cgroup.kill"), 1)),
            Killer::Freezer(dir) => {
                unless_gone(files::write(&dir.join(path).join("freezer.state"), "FROZEN"))
            }
            Killer::Signals => Ok(()),
        }
    }

    /// A signal takes effect when the process is thawed.
    fn release(&self, path: &Path) -> Result<(), CgroupError> {
        match &self.killer {
            Killer::Freezer(dir) => {
                unless_gone(files::write(&dir.join(path).join("freezer.state"), "THAWED"))
            }
            Killer::Kill(_) | Killer::Signals => Ok(()),
        }
    }
}

fn unless_gone(written: Result<(), CgroupError>) -> Result<(), CgroupError> {
    match written {
        Err(CgroupError::Write { source, .. }) if files::is_gone(&source) => Ok(()),
        other => other,
    }
}

fn collect(dir: &Path, file: &str, into: &mut BTreeSet<i32>) -> Result<(), CgroupError> {
    let Some(text) = files::read_if_there(&dir.join(file))? else { return Ok(()) };
    // A process of another PID namespace reads as 0, and signalling 0 would hit the agent's own group.
    into.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
    children(dir)?.iter().try_for_each(|child| collect(child, file, into))
}
