//! Making a sandbox.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid};

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
    let owner = user.map(owner).transpose()?;
    let made = fill(directory, owner);
    if made.is_err() {
        let _ = tepui_shim::remove_tree(directory);
    }
    made.map_err(|(path, source)| SandboxError::Io { path, source })
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
    link(directory, &runs.join(paths::LATEST)).map_err(at(&runs.join(paths::LATEST)))
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
    fn without_the_user_there_is_no_sandbox() {
        let dir = tempfile::tempdir().unwrap();
        let sandbox = dir.path().join("runs/c");
        assert!(matches!(create(&sandbox, Some("no-such-user-here")), Err(SandboxError::NoUser(_))));
        assert!(!sandbox.exists());
    }
}
