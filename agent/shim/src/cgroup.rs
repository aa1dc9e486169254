//! The container's cgroups: made by the agent's isolators, entered here, and kept out of `libcontainer`'s sight.
//!
//! `libcontainer` cannot be told to leave cgroups alone. Under cgroup v1 it would look each of twelve controllers up in
//! the mount table and move the process into a cgroup of every hierarchy mounted, whether or not anybody asked for it. Moving a process
//! waits for the whole machine (an RCU grace period, some milliseconds, unless the hierarchy favours such moves). So:
//!
//! - In the shim's own mount namespace `/sys/fs/cgroup` is a v2 hierarchy, since for those `libcontainer` does no more than write
//!   a process id to `<cgroup path>/cgroup.procs` if that path exists; and
//! - the path, [`LIBCONTAINER_PATH`], leads to a plain directory of ours, in which `cgroup.procs` is a link to `/dev/null`.
//!
//! The container's own view of `/sys` was bound before, and is not affected. The shim then moves the container's first process into
//! exactly the cgroups of [`crate::LaunchPlan::cgroup_procs`], after its creation: what was allocated on the way is not
//! charged to the container.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::Pid;

use crate::plan::files;

/// What an OCI runtime spec for a shim must have as `linux.cgroupsPath`.
///
/// It is taken relative to `/sys/fs/cgroup`, by a process whose working directory is the container's runtime directory.
pub const LIBCONTAINER_PATH: &str = "../../../proc/self/cwd/no-cgroup";

const CGROUPS: &str = "/sys/fs/cgroup";
const UNIFIED: &str = "/sys/fs/cgroup/unified";

/// Cgroups could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub(crate) struct CgroupError {
    what: String,
    source: io::Error,
}

fn at<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> CgroupError {
    move |error| CgroupError { what: what.into(), source: error.into() }
}

/// The machine's cgroups, out of sight in this process' mount namespace.
pub(crate) struct Hidden {
    covered: bool,
}

/// Hides the machine's cgroups from this process, which must be in a mount namespace of its own and in a container's runtime directory.
pub(crate) fn hide() -> Result<Hidden, CgroupError> {
    debug_assert!(LIBCONTAINER_PATH.ends_with(files::NO_CGROUP));
    let directory = Path::new(files::NO_CGROUP);
    fs::create_dir(directory).map_err(at("the directory in place of a cgroup cannot be made"))?;
    // If the creation fails, `libcontainer` reads the first unless there is the second, which it then writes to.
    for name in ["cgroup.procs", "cgroup.kill"] {
        symlink("/dev/null", directory.join(name))
            .map_err(at("a file in place of a cgroup's cannot be made"))?;
    }
    let is_v2 = |path| statfs(path).is_ok_and(|found| found.filesystem_type() == CGROUP2_SUPER_MAGIC);
    if is_v2(CGROUPS) {
        return Ok(Hidden { covered: false });
    }
    let mounted = if is_v2(UNIFIED) {
        mount(Some(UNIFIED), CGROUPS, None::<&str>, MsFlags::MS_BIND, None::<&str>)
    } else {
        // Nobody has mounted it, so that nobody's options can be changed by this.
        mount(Some("cgroup2"), CGROUPS, Some("cgroup2"), MsFlags::empty(), None::<&str>)
    };
    mounted.map_err(at("cgroups cannot be hidden from libcontainer"))?;
    Ok(Hidden { covered: true })
}

impl Hidden {
    /// Brings them back.
    pub(crate) fn reveal(self) -> Result<(), CgroupError> {
        if self.covered {
            umount2(CGROUPS, MntFlags::MNT_DETACH).map_err(at("cgroups cannot be uncovered"))?;
        }
        Ok(())
    }
}

/// Moves a process into a cgroup.
pub(crate) fn enter(procs: &Path, process: Pid) -> Result<(), CgroupError> {
    let write = || {
        let mut file = fs::File::options().write(true).open(procs)?;
        io::Write::write_all(&mut file, process.to_string().as_bytes())
    };
    write().map_err(at(format!("the container cannot enter the cgroup of {}", procs.display())))
}
