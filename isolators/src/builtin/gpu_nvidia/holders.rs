//! Which container has which GPU.
//!
//! Each container that has any has a file, named by its id, with the minor numbers of its GPUs. It is written before the kernel is told and removed
//! when the container is gone, so that an agent that starts anew gives no GPU out twice.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::isolator::{ContainerId, IsolatorError};

/// Who has which GPUs, by minor number.
#[derive(Debug)]
pub(super) struct Holders {
    directory: PathBuf,
    /// In the order in which they are given out.
    all: Vec<u32>,
    /// By the name of the container's file.
    held: BTreeMap<String, Vec<u32>>,
}

/// The directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}, where it is kept who has which GPU, cannot be used: {source}")]
pub(super) struct HoldersError {
    path: PathBuf,
    source: io::Error,
}

impl From<HoldersError> for IsolatorError {
    fn from(error: HoldersError) -> Self {
        IsolatorError::Failed(error.to_string())
    }
}

impl Holders {
    /// Reads what an agent before has left. All of it counts until [`recover`](Self::recover).
    pub(super) fn open(directory: &Path, all: Vec<u32>) -> Result<Self, HoldersError> {
        let at = |source| HoldersError { path: directory.to_owned(), source };
        fs::create_dir_all(directory).map_err(at)?;
        let mut held = BTreeMap::new();
        for entry in fs::read_dir(directory).map_err(at)? {
            let entry = entry.map_err(at)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(NEW) {
                // Never in force.
                fs::remove_file(entry.path()).map_err(at)?;
                continue;
            }
            let text = fs::read_to_string(entry.path()).map_err(at)?;
            let minors = text.split_whitespace().map(str::parse).collect::<Result<_, _>>();
            let minors = minors.map_err(|_| {
                let reason = format!("'{name}' has '{}' rather than numbers", text.trim());
                at(io::Error::new(io::ErrorKind::InvalidData, reason))
            })?;
            held.insert(name, minors);
        }
        Ok(Self { directory: directory.to_owned(), all, held })
    }

    /// Forgets all containers but these.
    pub(super) fn recover(
        &mut self,
        known: &[ContainerId],
        orphans: &[ContainerId],
    ) -> Result<(), IsolatorError> {
        let stay: Vec<_> = known.iter().chain(orphans).map(name).collect();
        let gone: Vec<_> = self.held.keys().filter(|name| !stay.contains(name)).cloned().collect();
        gone.iter().try_for_each(|name| self.forget(name))
    }

    /// What a container has.
    pub(super) fn held(&self, id: &ContainerId) -> Vec<u32> {
        self.held.get(&name(id)).cloned().unwrap_or_default()
    }

    /// Gives a container more or takes some from it, so that it has this many; those that it has.
    pub(super) fn set(&mut self, id: &ContainerId, number: usize) -> Result<Vec<u32>, IsolatorError> {
        let mut held = self.held(id);
        if number == held.len() {
            return Ok(held);
        }
        held.truncate(number);
        let missing = number - held.len();
        let free: Vec<u32> = self.all.iter().filter(|gpu| self.is_free(**gpu)).copied().collect();
        if free.len() < missing {
            return Err(IsolatorError::Refused(format!(
                "{missing} more GPUs are asked for, and {} of {} are free",
                free.len(),
                self.all.len()
            )));
        }
        held.extend(free.into_iter().take(missing));
        self.write(&name(id), &held)?;
        self.held.insert(name(id), held.clone());
        Ok(held)
    }

    /// A container is gone.
    pub(super) fn release(&mut self, id: &ContainerId) -> Result<(), IsolatorError> {
        let name = name(id);
        if self.held.contains_key(&name) { self.forget(&name) } else { Ok(()) }
    }

    fn is_free(&self, gpu: u32) -> bool {
        self.held.values().all(|held| !held.contains(&gpu))
    }

    fn forget(&mut self, name: &str) -> Result<(), IsolatorError> {
        let path = self.directory.join(name);
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(HoldersError { path, source }.into()),
        }
        self.held.remove(name);
        Ok(())
    }

    fn write(&self, name: &str, held: &[u32]) -> Result<(), HoldersError> {
        let path = self.directory.join(name);
        let new = self.directory.join(format!("{name}{NEW}"));
        let text = held.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
        let write = || {
            let mut file = fs::File::create(&new)?;
            file.write_all(text.as_bytes())?;
            fs::rename(&new, &path)
        };
        write().map_err(|source| HoldersError { path: path.clone(), source })
    }
}

/// What no container's name ends with.
const NEW: &str = "~";

/// Only containers without a parent have GPUs of their own.
fn name(id: &ContainerId) -> String {
    id.value.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> ContainerId {
        ContainerId::new(name)
    }

    #[test]
    fn nobody_gets_another_s() {
        let dir = tempfile::tempdir().unwrap();
        let mut holders = Holders::open(dir.path(), vec![4, 2, 7]).unwrap();
        assert_eq!(holders.set(&id("a"), 2).unwrap(), [4, 2]);
        assert_eq!(holders.set(&id("b"), 0).unwrap(), [0_u32; 0]);
        let error = holders.set(&id("b"), 2).unwrap_err().to_string();
        assert!(error.contains("1 of 3 are free"), "{error}");
        assert_eq!(holders.set(&id("b"), 1).unwrap(), [7]);
        assert_eq!(holders.set(&id("a"), 1).unwrap(), [4], "one is taken back");
        assert_eq!(holders.set(&id("c"), 1).unwrap(), [2]);
        holders.release(&id("a")).unwrap();
        holders.release(&id("unknown")).unwrap();
        assert_eq!(holders.set(&id("d"), 1).unwrap(), [4]);
    }

    #[test]
    fn an_agent_that_starts_anew_knows_who_has_what() {
        let dir = tempfile::tempdir().unwrap();
        let mut before = Holders::open(dir.path(), vec![0, 1, 2]).unwrap();
        for name in ["running", "orphan", "gone"] {
            before.set(&id(name), 1).unwrap();
        }
        fs::write(dir.path().join("half~"), "2").unwrap();
        let mut after = Holders::open(dir.path(), vec![0, 1, 2]).unwrap();
        assert!(after.set(&id("new"), 1).is_err(), "nothing is given out before it is known who is there");
        after.recover(&[id("running")], &[id("orphan")]).unwrap();
        assert_eq!((after.held(&id("running")), after.held(&id("orphan"))), (vec![0], vec![1]));
        assert_eq!(after.set(&id("new"), 1).unwrap(), [2]);
        after.release(&id("orphan")).unwrap();
        let mut left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["new", "running"]);
    }

    #[test]
    fn a_file_that_is_not_ours_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("x"), "zero").unwrap();
        let error = Holders::open(dir.path(), vec![0]).unwrap_err().to_string();
        assert!(error.contains("'x' has 'zero'"), "{error}");
    }
}
