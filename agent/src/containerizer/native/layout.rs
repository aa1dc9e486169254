//! Where a container's directories are, beside its sandbox.
//!
//! - `<runtime_dir>/containers/<id>`: what the shim is told and tells ([`tepui_shim::files`]). Lost with the machine's
//!   memory, as are the containers.
//! - `<work_dir>/containers/<id>`: what the container writes outside its sandbox. `tmp` is its private `/tmp` on the host's root
//!   file system, `upper` and `work` are for the overlay on an image, `volumes/<n>` the same for a volume that is one.
//! - `<work_dir>/provisioner/<id>`: copies of images, where layers are not stacked: `rootfs`, and `volumes/<n>`. Apart, since an image's size is not
//!   what a container asks for as `disk`; and closed to all others, since images have programs that run as root for everybody.
//!
//! Those of a container with a parent are in `containers/<id>` of its parent's, so that whoever finds the parent finds all of its tree.
//!
//! Mounts exist only in the namespace of a shim. All these directories are removed from the host's namespace, after the shim has ended,
//! by [`tepui_shim::remove_tree`].

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tepui_api::v1::ContainerId;
use tepui_shim::{RemoveTreeError, files, remove_tree};

use crate::sandbox::paths::is_component;

/// Where, in a container's directories, those of its nested containers are.
const NESTED: &str = "containers";

/// Where all containers' directories are.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    runtime: PathBuf,
    scratch: PathBuf,
    copies: PathBuf,
}

/// One container's directories.
#[derive(Debug, Clone)]
pub(super) struct Dirs {
    /// For the shim.
    pub runtime: PathBuf,
    /// For what the container writes.
    pub scratch: PathBuf,
    /// For copies of images.
    pub copies: PathBuf,
}

type At = (PathBuf, io::Error);

fn at(path: &Path) -> impl FnOnce(io::Error) -> At {
    let path = path.to_owned();
    move |source| (path, source)
}

/// What containers write outside their sandboxes is below it, in one directory each, named by their ids.
pub fn scratch_dir(work_dir: &Path) -> PathBuf {
    work_dir.join("containers")
}

impl Layout {
    pub fn make(runtime_dir: &Path, work_dir: &Path) -> Result<Self, At> {
        let made = |path: PathBuf, mode| {
            std::fs::DirBuilder::new().recursive(true).mode(mode).create(&path).map_err(at(&path))?;
            path.canonicalize().map_err(at(&path))
        };
        Ok(Self {
            runtime: made(runtime_dir.join("containers"), 0o700)?,
            // Passed by programs on their way to their sandbox, which may be beneath their own /tmp.
            scratch: made(scratch_dir(work_dir), 0o711)?,
            copies: made(work_dir.join("provisioner"), 0o700)?,
        })
    }

    /// The directories of a container; `None` if its id, or that of one above it, is no name for one.
    pub fn of(&self, id: &ContainerId) -> Option<Dirs> {
        let name = &id.value;
        if !is_component(name) {
            return None;
        }
        let Dirs { runtime, scratch, copies } = match &id.parent {
            None => Dirs {
                runtime: self.runtime.clone(),
                scratch: self.scratch.clone(),
                copies: self.copies.clone(),
            },
            Some(parent) => self.of(parent)?.map(|dir| dir.join(NESTED)),
        };
        Some(Dirs { runtime, scratch, copies }.map(|dir| dir.join(name)))
    }

    /// Where the agent tries, before there are containers, what overlays can do. In the list of all containers if it was killed meanwhile.
    pub fn trial(&self) -> PathBuf {
        self.scratch.join(".trial")
    }

    /// All containers that have a directory, parents before the containers nested in them.
    pub fn list(&self) -> Result<BTreeSet<Listed>, At> {
        let mut found = BTreeSet::new();
        for dir in [&self.runtime, &self.scratch, &self.copies] {
            list(dir, &[], &mut found)?;
        }
        Ok(found)
    }
}

/// A container that has a directory, by its names from the outermost to its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Listed(Vec<String>);

impl Listed {
    /// Its id.
    pub fn id(self) -> ContainerId {
        let nested =
            |parent: Option<ContainerId>, value| Some(ContainerId { value, parent: parent.map(Box::new) });
        self.0.into_iter().fold(None, nested).unwrap_or_default()
    }
}

fn list(dir: &Path, above: &[String], into: &mut BTreeSet<Listed>) -> Result<(), At> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(at(dir)(error)),
    };
    for entry in entries {
        let Ok(name) = entry.map_err(at(dir))?.file_name().into_string() else { continue };
        let mut names = above.to_vec();
        let below = dir.join(&name).join(NESTED);
        names.push(name);
        list(&below, &names, into)?;
        into.insert(Listed(names));
    }
    Ok(())
}

impl Dirs {
    /// Makes the container's runtime directory.
    pub fn make(&self) -> Result<(), At> {
        make_parent(&self.runtime, 0o700)?;
        make(&self.runtime, 0o700)?;
        make(&self.runtime.join(files::ROOTFS), 0o700)
    }

    /// What the shim has to say of its own.
    pub fn log(&self) -> PathBuf {
        self.runtime.join(files::LOG)
    }

    /// Makes its private `/tmp`.
    pub fn make_tmp(&self) -> Result<PathBuf, At> {
        make_parent(&self.scratch, 0o711)?;
        make(&self.scratch, 0o711)?;
        let tmp = self.scratch.join("tmp");
        make(&tmp, 0o1777)?;
        Ok(tmp)
    }

    /// Makes the upper and the work directory of its overlay.
    pub fn make_overlay(&self) -> Result<(PathBuf, PathBuf), At> {
        make_parent(&self.scratch, 0o711)?;
        make(&self.scratch, 0o711)?;
        make_overlay(&self.scratch)
    }

    /// The same for one of its volumes. Its private `/tmp` or its own overlay must have been made.
    pub fn make_volume_overlay(&self, number: usize) -> Result<(PathBuf, PathBuf), At> {
        let all = self.scratch.join("volumes");
        if !all.exists() {
            make(&all, 0o711)?;
        }
        let dir = all.join(number.to_string());
        make(&dir, 0o711)?;
        make_overlay(&dir)
    }

    /// Makes the directory for a copy of its image.
    pub fn make_copy(&self) -> Result<PathBuf, At> {
        self.make_copies(Path::new("rootfs"))
    }

    /// The same for one of its volumes.
    pub fn make_volume_copy(&self, number: usize) -> Result<PathBuf, At> {
        self.make_copies(&Path::new("volumes").join(number.to_string()))
    }

    fn make_copies(&self, path: &Path) -> Result<PathBuf, At> {
        let path = self.copies.join(path);
        make_parent(&path, 0o700)?;
        // As in an upper directory.
        make(&path, 0o755)?;
        Ok(path)
    }

    fn map(self, change: impl Fn(PathBuf) -> PathBuf) -> Self {
        Self { runtime: change(self.runtime), scratch: change(self.scratch), copies: change(self.copies) }
    }

    /// Removes all of it. Blocks on the disk.
    pub fn remove(&self) -> Vec<RemoveTreeError> {
        let all = [&self.copies, &self.scratch, &self.runtime];
        all.into_iter().filter_map(|dir| remove_tree(dir).err()).collect()
    }
}

/// Makes the directory that a nested container's is in, and those above it; a container without a program has none of its own.
fn make_parent(path: &Path, mode: u32) -> Result<(), At> {
    let Some(parent) = path.parent() else { return Ok(()) };
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(parent).map_err(at(parent))
}

fn make_overlay(dir: &Path) -> Result<(PathBuf, PathBuf), At> {
    let (upper, work) = (dir.join("upper"), dir.join("work"));
    // The upper directory is what is seen as the top.
    make(&upper, 0o755)?;
    make(&work, 0o700)?;
    Ok((upper, work))
}

fn make(path: &Path, mode: u32) -> Result<(), At> {
    std::fs::create_dir(path).map_err(at(path))?;
    // Not by the mode of mkdir, which the umask changes.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(at(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn directories_come_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::make(&dir.path().join("run"), &dir.path().join("work")).unwrap();
        let dirs = layout.of(&ContainerId::new("c1")).unwrap();
        dirs.make().unwrap();
        let tmp = dirs.make_tmp().unwrap();
        assert_eq!(tmp.metadata().unwrap().mode() & 0o7777, 0o1777);
        assert!(dirs.make().is_err(), "there is one already");
        let nested = |value, parent: &ContainerId| ContainerId {
            parent: Some(Box::new(parent.clone())),
            ..ContainerId::new(value)
        };
        let (top, child) = (ContainerId::new("c1"), nested("a", &ContainerId::new("c1")));
        let grandchild = nested("b", &child);
        layout.of(&child).unwrap().make().unwrap();
        layout.of(&grandchild).unwrap().make_tmp().unwrap();
        let copied = nested("c", &grandchild);
        let copy = layout.of(&copied).unwrap().make_copy().unwrap();
        assert_eq!(
            copy,
            dir.path()
                .canonicalize()
                .unwrap()
                .join("work/provisioner/c1/containers/a/containers/b/containers/c/rootfs")
        );
        assert_eq!(copy.metadata().unwrap().mode() & 0o7777, 0o755);
        assert_eq!(dir.path().join("work/provisioner").metadata().unwrap().mode() & 0o7777, 0o700);
        layout.of(&copied).unwrap().make_volume_copy(3).unwrap();
        let listed: Vec<_> = layout.list().unwrap().into_iter().map(Listed::id).collect();
        assert_eq!(listed, [top, child, grandchild, copied]);
        assert!(dirs.remove().is_empty());
        assert!(layout.list().unwrap().is_empty());
        assert!(dirs.remove().is_empty(), "again is no error");
    }

    #[test]
    fn ids_that_are_no_names_have_no_directories() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::make(&dir.path().join("run"), &dir.path().join("work")).unwrap();
        for id in ["", ".", "..", "a/b", "../etc"] {
            let parent = Some(Box::new(ContainerId::new(id)));
            assert!(layout.of(&ContainerId::new(id)).is_none(), "{id}");
            assert!(layout.of(&ContainerId { parent, ..ContainerId::new("c") }).is_none(), "{id}");
        }
    }
}
