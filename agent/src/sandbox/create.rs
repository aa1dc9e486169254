//! Making a sandbox.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, fchmod, mkdirat};
use nix::unistd::{Gid, Uid, fchown};

use super::{paths, tree};

/// Only the user and the group of a task see its sandbox, as in Mesos.
const MODE: u32 = 0o750;
/// Parents of sandboxes can be passed by all.
const PARENT_MODE: u32 = 0o755;

/// Why a sandbox cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// There is no such user.
    #[error("the user '{0}' does not exist on this agent")]
    NoUser(String),
    /// The system cannot say whether there is such a user.
    #[error("cannot look up the user '{user}': {source}")]
    Lookup {
        /// Who.
        user: String,
        /// Why.
        source: io::Error,
    },
    /// A directory, file or link of it cannot be made.
    #[error("cannot make the sandbox {path}: {source}")]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Makes a container's sandbox, with empty `stdout` and `stderr`, owned by its user, and has `latest` beside it
/// lead to it. Blocks on the disk.
///
/// # Errors
/// When the user does not exist, or the disk refuses. Nothing is left of the sandbox then.
pub fn create(directory: &Path, user: Option<&str>) -> Result<(), SandboxError> {
    let latest = directory.parent().unwrap_or(directory).join(paths::LATEST);
    make(directory, user)?;
    link(directory, &latest).map_err(|source| {
        let _ = tepui_shim::remove_tree(directory);
        SandboxError::Io { path: latest, source }
    })
}

/// As [`create`], for a container that is no run of an executor: nothing leads to it.
///
/// # Errors
/// As there.
pub fn create_alone(directory: &Path, user: Option<&str>) -> Result<(), SandboxError> {
    make(directory, user)
}

fn make(directory: &Path, user: Option<&str>) -> Result<(), SandboxError> {
    let owner = user.map(owner).transpose()?;
    let made = fill(directory, owner);
    if made.is_err() {
        let _ = tepui_shim::remove_tree(directory);
    }
    made.map_err(|(path, source)| SandboxError::Io { path, source })
}

/// Makes the sandbox of a container that is nested in another: `<the other's sandbox>/containers/<name>`, with empty `stdout` and `stderr`,
/// owned by its user. No link is followed, as the other's user may have put one there. Blocks on the disk.
///
/// # Errors
/// When the user does not exist, there is one already, or the disk refuses. Nothing is left of the sandbox then.
pub fn create_nested(directory: &Path, user: Option<&str>) -> Result<(), SandboxError> {
    let owner = user.map(owner).transpose()?;
    let made = fill_nested(directory, owner);
    made.map_err(|errno| SandboxError::Io { path: directory.to_owned(), source: errno.into() })
}

fn fill_nested(directory: &Path, owner: Option<(Uid, Gid)>) -> Result<(), Errno> {
    let (Some(name), Some(between)) = (directory.file_name(), directory.parent()) else {
        return Err(Errno::EINVAL);
    };
    let (Some(parent), Some(step)) = (between.parent(), between.file_name()) else {
        return Err(Errno::EINVAL);
    };
    let how = OpenHow::new()
        .flags(OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    let parent = openat2(AT_FDCWD, parent, how)?;
    let made = mkdirat(&parent, step, Mode::from_bits_truncate(PARENT_MODE));
    let between = openat2(&parent, step, how)?;
    match made {
        // Not by the mode of mkdir, which the umask changes.
        Ok(()) => fchmod(&between, Mode::from_bits_truncate(PARENT_MODE))?,
        Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno),
    }
    mkdirat(&between, name, Mode::from_bits_truncate(MODE))?;
    let filled = openat2(&between, name, how).and_then(|sandbox| {
        fchmod(&sandbox, Mode::from_bits_truncate(MODE))?;
        for name in ["stdout", "stderr"] {
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
            let file = openat(&sandbox, name, flags, Mode::from_bits_truncate(0o644))?;
            if let Some((uid, gid)) = owner {
                fchown(&file, Some(uid), Some(gid))?;
            }
        }
        match owner {
            Some((uid, gid)) => fchown(&sandbox, Some(uid), Some(gid)),
            None => Ok(()),
        }
    });
    if filled.is_err() {
        let _ = tepui_shim::remove_tree_strictly(directory);
    }
    filled
}

/// Has `tasks/<name>` in the sandbox of a pod lead to the sandbox of one of its tasks, as Mesos' default executor does. Blocks on the disk.
///
/// # Errors
/// When there is one already, or the disk refuses.
pub fn link_task(directory: &Path, name: &str) -> io::Result<()> {
    let (Some(value), Some(pod)) = (directory.file_name(), directory.parent().and_then(Path::parent)) else {
        return Err(Errno::EINVAL.into());
    };
    let how = OpenHow::new()
        .flags(OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    let pod = openat2(AT_FDCWD, pod, how)?;
    match mkdirat(&pod, "tasks", Mode::from_bits_truncate(PARENT_MODE)) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    let tasks = openat2(&pod, "tasks", how)?;
    Ok(nix::unistd::symlinkat(&Path::new("../containers").join(value), &tasks, name)?)
}

/// User and group of a name.
///
/// # Errors
/// When there is none.
fn owner(name: &str) -> Result<(Uid, Gid), SandboxError> {
    match nix::unistd::User::from_name(name) {
        Ok(Some(user)) => Ok((user.uid, user.gid)),
        Ok(None) => Err(SandboxError::NoUser(name.to_owned())),
        Err(errno) => Err(SandboxError::Lookup { user: name.to_owned(), source: errno.into() }),
    }
}

fn fill(directory: &Path, owner: Option<(Uid, Gid)>) -> Result<(), (PathBuf, io::Error)> {
    let runs = directory.parent().unwrap_or(directory);
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| (path, source)
    };
    {
        let _tree = tree();
        std::fs::DirBuilder::new().recursive(true).mode(PARENT_MODE).create(runs).map_err(at(runs))?;
        std::fs::create_dir(directory).map_err(at(directory))?;
    }
    // Not by the mode of mkdir, which the umask changes.
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(MODE)).map_err(at(directory))?;
    for name in ["stdout", "stderr"] {
        let file = directory.join(name);
        let made = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o644).open(&file);
        let made = made.map_err(at(&file))?;
        if let Some((uid, gid)) = owner {
            std::os::unix::fs::fchown(&made, Some(uid.as_raw()), Some(gid.as_raw())).map_err(at(&file))?;
        }
    }
    if let Some((uid, gid)) = owner {
        std::os::unix::fs::chown(directory, Some(uid.as_raw()), Some(gid.as_raw())).map_err(at(directory))?;
    }
    Ok(())
}

/// Has the link lead to the directory, at once: whoever reads it finds the old or the new one.
fn link(directory: &Path, latest: &Path) -> io::Result<()> {
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    let fresh = latest.with_file_name(format!(".{name}.latest"));
    std::os::unix::fs::symlink(directory, &fresh)?;
    std::fs::rename(&fresh, latest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn a_sandbox_belongs_to_its_user_and_latest_leads_to_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let runs = dir.path().join("executors/e/runs");
        create(&runs.join("one"), None).unwrap();
        create(&runs.join("two"), Some("nobody")).unwrap();
        let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
        let sandbox = runs.join("two").metadata().unwrap();
        assert_eq!((sandbox.uid(), sandbox.gid()), (nobody.uid.as_raw(), nobody.gid.as_raw()));
        assert_eq!(sandbox.mode() & 0o7777, MODE);
        let stdout = runs.join("two/stdout").metadata().unwrap();
        assert_eq!((stdout.uid(), stdout.len()), (nobody.uid.as_raw(), 0));
        assert_eq!(std::fs::read_link(runs.join("latest")).unwrap(), runs.join("two"));
        let mut names: Vec<_> = std::fs::read_dir(&runs)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["latest", "one", "two"]);
    }

    #[test]
    fn a_nested_sandbox_is_in_its_parents_and_no_link_leads_out() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap().join("runs/top");
        create(&top, None).unwrap();
        let nested = top.join("containers/a");
        create_nested(&nested, Some("nobody")).unwrap();
        let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
        let sandbox = nested.metadata().unwrap();
        assert_eq!((sandbox.uid(), sandbox.mode() & 0o7777), (nobody.uid.as_raw(), MODE));
        assert_eq!(nested.join("stderr").metadata().unwrap().uid(), nobody.uid.as_raw());
        assert_eq!(top.join("containers").metadata().unwrap().mode() & 0o7777, PARENT_MODE);
        create_nested(&nested.join("containers/b"), None).unwrap();
        assert!(create_nested(&nested, None).is_err(), "there is one already");
        assert!(nested.join("stdout").exists());

        let elsewhere = dir.path().canonicalize().unwrap().join("elsewhere");
        std::fs::create_dir(&elsewhere).unwrap();
        let other = top.with_file_name("other");
        create(&other, None).unwrap();
        std::os::unix::fs::symlink(&elsewhere, other.join("containers")).unwrap();
        assert!(create_nested(&other.join("containers/a"), None).is_err());
        assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
    }

    #[test]
    fn without_the_user_there_is_no_sandbox() {
        let dir = tempfile::tempdir().unwrap();
        let sandbox = dir.path().join("runs/c");
        assert!(matches!(create(&sandbox, Some("no-such-user-here")), Err(SandboxError::NoUser(_))));
        assert!(!sandbox.exists());
    }
}
