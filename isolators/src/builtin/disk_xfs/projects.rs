//! Which projects are in use, and by which directories: [`Projects`].
//!
//! No file keeps this: each directory carries its project itself, so that nothing can be lost or contradict it. A project is given
//! back when all its directories are gone, not when its container is, so that files that are left of one never count for another.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use tepui_api::resources::Ranges;

use super::quota::ProjectId;

/// The projects of an agent.
#[derive(Debug)]
pub struct Projects {
    /// Those that may be given.
    range: Ranges,
    /// Those in use, also ones out of the range, with the directories that are known to carry them.
    used: BTreeMap<ProjectId, BTreeSet<PathBuf>>,
}

impl Projects {
    /// None is in use.
    pub fn new(range: Ranges) -> Self {
        Projects { range, used: BTreeMap::new() }
    }

    /// Whether it is in use.
    pub fn is_used(&self, project: ProjectId) -> bool {
        self.used.contains_key(&project)
    }

    /// Takes the lowest that is free, for a directory.
    pub fn take(&mut self, directory: &Path) -> Option<ProjectId> {
        let free = self.lowest_free()?;
        self.note(free, Some(directory));
        Some(free)
    }

    fn lowest_free(&self) -> Option<ProjectId> {
        let mut numbers = self.range.numbers().map_while(|number| ProjectId::try_from(number).ok());
        numbers.find(|project| !self.is_used(*project))
    }

    /// It is in use; by a directory, or by files that nobody knows.
    pub fn note(&mut self, project: ProjectId, directory: Option<&Path>) {
        self.used.entry(project).or_default().extend(directory.map(Path::to_owned));
    }

    /// Those in use of which no directory is there any more.
    pub fn abandoned(&mut self, exists: impl Fn(&Path) -> bool) -> Vec<ProjectId> {
        for directories in self.used.values_mut() {
            directories.retain(|directory| exists(directory));
        }
        let empty = self.used.iter().filter(|(_, directories)| directories.is_empty());
        empty.map(|(project, _)| *project).collect()
    }

    /// It is free again.
    pub fn give_back(&mut self, project: ProjectId) {
        self.used.remove(&project);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use tepui_api::resources::Range;

    use super::*;

    fn projects(begin: u64, end: u64) -> Projects {
        Projects::new(Range::new(begin, end).into_iter().collect())
    }

    #[test]
    fn a_project_is_free_when_all_its_directories_are_gone() {
        let mut all = projects(5, 6);
        let (a, b, c) = (Path::new("/a"), Path::new("/b"), Path::new("/c"));
        assert_eq!(all.take(a), Some(5));
        all.note(5, Some(b));
        // Of a former range.
        all.note(77, Some(c));
        assert_eq!(all.take(c), Some(6));
        assert_eq!(all.take(c), None);
        assert!(all.abandoned(|dir| dir != a).is_empty());
        assert_eq!(all.abandoned(|dir| dir == c), [5]);
        all.give_back(5);
        assert_eq!((all.take(a), all.is_used(77)), (Some(5), true));
    }

    proptest! {
        #[test]
        fn no_project_has_two_owners(steps in prop::collection::vec((any::<bool>(), 0usize..8), 0..60)) {
            let mut all = projects(1, 5);
            let mut owners: HashMap<ProjectId, PathBuf> = HashMap::new();
            for (number, (begins, which)) in steps.into_iter().enumerate() {
                if begins {
                    let directory = PathBuf::from(format!("/{number}"));
                    let taken = all.take(&directory);
                    prop_assert_eq!(taken.is_none(), owners.len() == 5);
                    if let Some(project) = taken {
                        prop_assert_eq!(owners.insert(project, directory), None);
                    }
                } else if let Some(project) = owners.keys().nth(which).copied() {
                    owners.remove(&project);
                    let there = |dir: &Path| owners.values().any(|owned| owned == dir);
                    prop_assert_eq!(all.abandoned(there), vec![project]);
                    all.give_back(project);
                }
            }
        }
    }
}
