//! Which containers a plugin was told of, and has not cleaned up.
//!
//! A file for each, named after the container, with its id in it: written before the plugin is told, removed once it has cleaned up. So an agent
//! that was killed at any instant still knows whom it owes a `Cleanup`. Neither is synced: the files are to outlive the agent; after a crash of
//! the machine, no container is left of which something could be held.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::isolator::{ContainerContext, ContainerId, Recovered};

/// A plugin's containers.
pub(super) struct Ledger {
    dir: PathBuf,
    entries: Mutex<HashMap<ContainerId, Entry>>,
}

/// What is known of a container.
enum Entry {
    /// It is there.
    Live(Box<Recovered>),
    /// It is gone, and the plugin must clean up.
    Owed,
    /// It is doing so.
    Cleaning,
}

// === impl Ledger ===

impl Ledger {
    /// Reads what an earlier run of the agent left: all of it is owed, until the agent says which containers are there.
    ///
    /// # Errors
    /// When the directory can be neither read nor made.
    pub fn open(dir: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        let mut entries = HashMap::new();
        for file in fs::read_dir(&dir)? {
            let path = file?.path();
            // Half written: the plugin was never told.
            if path.extension().is_some_and(|extension| extension == "new") {
                fs::remove_file(&path)?;
                continue;
            }
            match serde_json::from_slice(&fs::read(&path)?) {
                Ok(id) => drop(entries.insert(id, Entry::Owed)),
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "A file of what plugins must clean up cannot be understood; it is passed over.");
                }
            }
        }
        Ok(Self { dir, entries: Mutex::new(entries) })
    }

    /// These are there. What else is known is owed.
    ///
    /// # Errors
    /// When it cannot be noted of one.
    pub fn recover(&self, known: &[Recovered]) -> io::Result<()> {
        known.iter().try_for_each(|one| self.insert(one.clone()))
    }

    /// The plugin is about to be told of a container.
    ///
    /// # Errors
    /// When that cannot be noted.
    pub fn begin(&self, context: &ContainerContext) -> io::Result<()> {
        self.insert(Recovered { context: context.clone(), pid: None })
    }

    fn insert(&self, one: Recovered) -> io::Result<()> {
        let id = one.context.container_id.clone();
        let path = self.path(&id)?;
        if !path.exists() {
            let new = path.with_added_extension("new");
            fs::write(&new, serde_json::to_vec(&id)?)?;
            fs::rename(&new, &path)?;
        }
        self.entries().insert(id, Entry::Live(Box::new(one)));
        Ok(())
    }

    /// Changes what is known of a container that is there.
    pub fn change(&self, id: &ContainerId, change: impl FnOnce(&mut Recovered)) {
        if let Some(Entry::Live(one)) = self.entries().get_mut(id) {
            change(one);
        }
    }

    /// Whether the container is there.
    pub fn has(&self, id: &ContainerId) -> bool {
        matches!(self.entries().get(id), Some(Entry::Live(_)))
    }

    /// All containers that are there, and those that are owed.
    pub fn all(&self) -> (Vec<Recovered>, Vec<ContainerId>) {
        let (mut live, mut owed) = (Vec::new(), Vec::new());
        for (id, entry) in &*self.entries() {
            match entry {
                Entry::Live(one) => live.push((**one).clone()),
                Entry::Owed | Entry::Cleaning => owed.push(id.clone()),
            }
        }
        (live, owed)
    }

    /// Those that are owed and that nobody cleans up yet.
    pub fn owed(&self) -> Vec<ContainerId> {
        let entries = self.entries();
        let owed = entries.iter().filter(|(_, entry)| matches!(entry, Entry::Owed));
        owed.map(|(id, _)| id.clone()).collect()
    }

    /// The container is gone. Whether the plugin was told of it, and nobody cleans up yet.
    pub fn owe(&self, id: &ContainerId) -> bool {
        match self.entries().get_mut(id) {
            None | Some(Entry::Cleaning) => false,
            Some(entry) => {
                *entry = Entry::Owed;
                true
            }
        }
    }

    /// Takes on the cleaning up of a container that is owed. False if somebody else has.
    pub fn begin_cleaning(&self, id: &ContainerId) -> bool {
        match self.entries().get_mut(id) {
            Some(entry @ Entry::Owed) => {
                *entry = Entry::Cleaning;
                true
            }
            _ => false,
        }
    }

    /// Ends what [`Ledger::begin_cleaning`] began.
    pub fn end_cleaning(&self, id: &ContainerId, cleaned: bool) {
        if !cleaned {
            if let Some(entry @ Entry::Cleaning) = self.entries().get_mut(id) {
                *entry = Entry::Owed;
            }
            return;
        }
        // First from the disk: what is known must not be less than what is there.
        let removed = self.path(id).and_then(fs::remove_file);
        if let Err(error) = removed {
            tracing::warn!(container = %id, %error, "It cannot be noted that a plugin has cleaned up; it will be asked again by the next run of the agent.");
        }
        self.entries().remove(id);
    }

    fn path(&self, id: &ContainerId) -> io::Result<PathBuf> {
        let name = id.to_string();
        let plain = Path::new(&name).file_name().is_some_and(|own| own == name.as_str());
        if plain {
            return Ok(self.dir.join(name));
        }
        Err(io::Error::other(format!("'{name}' cannot be the name of a file")))
    }

    /// No change is made in more than one step, so what a panicking thread left behind is whole.
    fn entries(&self) -> MutexGuard<'_, HashMap<ContainerId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builtin::tests::context;

    fn named(id: &str) -> ContainerContext {
        ContainerContext { container_id: ContainerId::new(id), ..context(None) }
    }

    #[test]
    fn what_is_owed_outlives_the_agent() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Ledger::open(dir.path().join("owed")).unwrap();
        let ledger = open();
        ledger.begin(&named("a")).unwrap();
        ledger.begin(&named("b")).unwrap();
        ledger.begin(&named("c")).unwrap();
        assert!(ledger.owe(&ContainerId::new("c")) && ledger.begin_cleaning(&ContainerId::new("c")));
        ledger.end_cleaning(&ContainerId::new("c"), true);
        fs::write(dir.path().join("owed/d.new"), "half").unwrap();
        fs::write(dir.path().join("owed/e"), "no id").unwrap();

        let ledger = open();
        ledger.recover(&[Recovered { context: named("b"), pid: Some(7) }]).unwrap();
        let (live, owed) = ledger.all();
        assert_eq!((live.len(), live[0].pid), (1, Some(7)));
        assert_eq!(owed, [ContainerId::new("a")]);
        assert!(!dir.path().join("owed/d.new").exists());
    }

    #[test]
    fn a_container_is_cleaned_up_by_one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path().join("owed")).unwrap();
        let id = ContainerId::new("a");
        assert!(!ledger.owe(&id), "nobody was told of it");
        ledger.begin(&named("a")).unwrap();
        assert!(ledger.has(&id) && !ledger.begin_cleaning(&id), "it is there");
        assert!(ledger.owe(&id) && ledger.begin_cleaning(&id) && !ledger.begin_cleaning(&id));
        ledger.end_cleaning(&id, false);
        assert_eq!(ledger.owed(), std::slice::from_ref(&id));
        assert!(ledger.begin_cleaning(&id));
        ledger.end_cleaning(&id, true);
        assert!(ledger.owed().is_empty() && fs::read_dir(dir.path().join("owed")).unwrap().next().is_none());
    }

    #[test]
    fn an_id_that_is_no_file_name_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path().join("owed")).unwrap();
        for id in ["", ".", "..", "a/b", "../x"] {
            assert!(ledger.begin(&named(id)).is_err(), "{id}");
        }
    }
}
