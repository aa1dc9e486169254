//! Whose a cgroup is, where systemd rules the v2 tree.
//!
//! Each cgroup has one writer (systemd's `CGROUP_DELEGATION`): systemd, except below a unit with `Delegate=yes`, whose cgroup
//! systemd marks with the extended attribute `trusted.delegate` (newer ones also `user.delegate`). So:
//!
//! | `--cgroups_root` | the agent runs in | who may enable controllers |
//! | --- | --- | --- |
//! | in a delegated cgroup | anywhere | we, from the delegated cgroup downwards |
//! | elsewhere | a delegated cgroup | we, in `--cgroups_root` only |
//! | elsewhere | elsewhere | we, everywhere: nobody has delegated anything |
//!
//! The last row is a host without systemd, or an agent that was started by hand.
//!
//! In the second, containers are none of the unit's, and neither must be what looks after them: [`Cgroups::take_out_of_unit`].

use std::fs;
use std::path::{Path, PathBuf};

use super::{CgroupError, Cgroups, Hierarchy, Version, files, tree};

/// The attributes by which systemd marks a delegated cgroup.
const MARKS: [&str; 2] = ["trusted.delegate", "user.delegate"];
/// Where the processes of a delegated cgroup go, so that it can have controllers for its children. Not a container's name in
/// `--cgroups_root` (`tree::NOT_CONTAINERS`).
const SUBGROUP: &str = "agent";
/// Where what looks after containers goes when their cgroups are not the unit's. Not a container's name either.
pub(super) const SHIMS: &str = "shims";
/// How often new processes are looked for while they are moved.
const ROUNDS: usize = 20;

/// Which cgroups of a tree are ours.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Delegation {
    /// Those at and below this one. `None`: all.
    ours: Option<PathBuf>,
    /// Whether `ours` is a unit's, and not `--cgroups_root` itself.
    of_unit: bool,
    /// The unit's cgroup in which the agent runs.
    unit: Option<PathBuf>,
}

impl Delegation {
    /// For `<mount>/<root>` in a tree.
    pub fn detect(tree: &Hierarchy, root: &Path) -> Self {
        if tree.version == Version::V1 {
            return Delegation::default();
        }
        let dir = tree.mount.join(root);
        if let Some(unit) = delegated(&dir, &tree.mount) {
            return Delegation { ours: Some(unit.clone()), of_unit: true, unit: Some(unit) };
        }
        let own = own_path().map(|path| tree.mount.join(path.trim_start_matches('/')));
        match own.and_then(|own| delegated(&own, &tree.mount)) {
            Some(unit) => Delegation { ours: Some(dir), of_unit: false, unit: Some(unit) },
            None => Delegation::default(),
        }
    }

    /// Refuses to enable controllers in a cgroup that is not ours.
    pub fn check(&self, dir: &Path, missing: &[&str]) -> Result<(), CgroupError> {
        let Some(ours) = self.ours.as_ref().filter(|ours| !dir.starts_with(ours)) else { return Ok(()) };
        let controller = missing.first().copied().unwrap_or_default().to_owned();
        let remedy = match (self.of_unit, &self.unit) {
            (false, Some(unit)) => {
                format!("Put --cgroups_root below the agent's own unit, {}.", unit.display())
            }
            _ => format!("Have systemd delegate it (Delegate=yes in the unit of {}).", ours.display()),
        };
        Err(CgroupError::NotDelegated { controller, dir: dir.to_owned(), remedy })
    }

    /// Whether `dir` is the delegated cgroup itself, in which systemd starts the unit's processes.
    pub fn is_top(&self, dir: &Path) -> bool {
        self.of_unit && self.ours.as_deref() == Some(dir)
    }

    /// Whether the agent runs in a unit, and its containers' cgroups are elsewhere.
    fn is_outside(&self) -> bool {
        !self.of_unit && self.unit.is_some()
    }

    /// Moves the processes of the delegated cgroup, all of which are the unit's, into a child of it.
    ///
    /// To be done before controllers are enabled: the kernel would take some of them even so, and make the cgroup one for
    /// threads (`cgroup-v2.rst`, "Threads"), in which containers cannot be.
    pub fn make_room(&self, dir: &Path) -> Result<(), CgroupError> {
        if files::read(&dir.join("cgroup.procs"))?.trim().is_empty() {
            return Ok(());
        }
        let child = dir.join(SUBGROUP);
        match fs::create_dir(&child) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(CgroupError::io("make", child, error));
            }
            _ => {}
        }
        for _ in 0..ROUNDS {
            let processes = files::read(&dir.join("cgroup.procs"))?;
            if processes.trim().is_empty() {
                return Ok(());
            }
            for pid in processes.lines() {
                match files::write(&child.join("cgroup.procs"), pid) {
                    // It has ended meanwhile.
                    Err(CgroupError::Write { source, .. }) if source.raw_os_error() == Some(libc::ESRCH) => {}
                    moved => moved?,
                }
            }
        }
        Ok(())
    }
}

impl Cgroups {
    /// Takes a process out of the unit in which the agent runs, and so all that it will fork, when containers' cgroups are outside too. systemd
    /// would warn of each shim that it finds left in the unit, count it among the unit's tasks, and could not start the unit anew should
    /// its cgroup come to have controllers for its children.
    ///
    /// # Errors
    /// When the cgroup cannot be made, or does not take the process.
    pub fn take_out_of_unit(&self, pid: u32) -> Result<(), CgroupError> {
        self.all_trees().filter(|tree| tree.delegation.is_outside()).try_for_each(|one| {
            let dir = one.dir.join(SHIMS);
            tree::make_dir(&dir)?;
            files::write(&dir.join("cgroup.procs"), pid)
        })
    }
}

/// The deepest delegated cgroup at or above `dir`, below the mount.
fn delegated(dir: &Path, mount: &Path) -> Option<PathBuf> {
    dir.ancestors().take_while(|dir| *dir != mount).find(|dir| is_marked(dir)).map(Path::to_owned)
}

fn is_marked(dir: &Path) -> bool {
    MARKS.iter().any(|mark| matches!(xattr::get(dir, mark), Ok(Some(value)) if value == b"1"))
}

/// The v2 cgroup of this process, from the top of the tree.
fn own_path() -> Option<String> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}
