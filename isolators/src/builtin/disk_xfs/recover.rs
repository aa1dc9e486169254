//! What an earlier run of the agent left: the projects that directories carry, and limits that none carries any more.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::keeper::{Container, Shared};
use super::quota::{ProjectId, project_at};
use super::{cannot_move, label, sandbox_disk};
use crate::isolator::{IsolatorError, Recovered};

/// Finds out which projects are in use, gives one to containers that run without (they were started without this isolator), and
/// limits those that run as they are to be limited now.
pub fn recover(shared: &Shared, known: &[Recovered]) -> Result<(), IsolatorError> {
    let failed = |error: io::Error| {
        IsolatorError::Failed(format!("cannot find the projects of an earlier run: {error}"))
    };
    // A project that the whole work directory is in, somebody else's, is born into sandboxes too.
    let inherited = project_at(&shared.settings.work_dir).map_err(failed)?;
    let found = carried(shared, inherited).map_err(failed)?;
    {
        let mut state = shared.lock();
        for (directory, project) in &found {
            state.projects.note(*project, Some(directory));
        }
    }
    note_strays(shared).map_err(failed)?;
    for one in known.iter().filter(|one| one.context.container_id.parent.is_none()) {
        take_over(shared, one, &found)?;
    }
    Ok(())
}

fn take_over(
    shared: &Shared,
    one: &Recovered,
    found: &HashMap<PathBuf, ProjectId>,
) -> Result<(), IsolatorError> {
    let context = &one.context;
    let scratch = shared.scratch_dir.join(&context.container_id.value);
    let project = match found.get(&context.sandbox) {
        Some(project) => *project,
        None => {
            let project = shared.take(&context.sandbox)?;
            label(&context.sandbox, project)
                .map_err(|error| cannot_move(&context.sandbox, project, &error))?;
            project
        }
    };
    if scratch.exists() && found.get(&scratch) != Some(&project) {
        shared.lock().projects.note(project, Some(&scratch));
        label(&scratch, project).map_err(|error| cannot_move(&scratch, project, &error))?;
    }
    let disk = sandbox_disk(&context.requests);
    shared.set_limit(project, disk)?;
    shared.lock().containers.insert(context.container_id.clone(), Container::new(project, disk));
    Ok(())
}

/// The projects of all sandboxes and of what containers write beside them.
fn carried(shared: &Shared, inherited: ProjectId) -> io::Result<HashMap<PathBuf, ProjectId>> {
    let mut found = HashMap::new();
    let mut directories = children(&shared.scratch_dir)?;
    // <work_dir>/slaves/<agent>/frameworks/<framework>/executors/<executor>/runs/<container>
    for agent in children(&shared.settings.work_dir.join("slaves"))? {
        for framework in children(&agent.join("frameworks"))? {
            for executor in children(&framework.join("executors"))? {
                directories.extend(children(&executor.join("runs"))?);
            }
        }
    }
    for directory in directories {
        let project = match project_at(&directory) {
            Ok(project) => project,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if project != 0 && project != inherited {
            found.insert(directory, project);
        }
    }
    Ok(found)
}

/// Lifts limits of projects that no directory carries, and has those stay in use of which there are files all the same.
fn note_strays(shared: &Shared) -> io::Result<()> {
    let mut state = shared.lock();
    let ranges = shared.settings.project_range.clone();
    for range in ranges.as_slice() {
        let mut at = range.begin();
        while let Ok(from) = ProjectId::try_from(at)
            && let Some((project, quota)) = shared.file_system.next(from)?
            && range.contains(project.into())
        {
            at = u64::from(project) + 1;
            if state.projects.is_used(project) {
                continue;
            }
            if quota.hard_limit != 0 {
                shared.file_system.limit(project, 0, 0)?;
            }
            if quota.files != 0 || quota.used != 0 {
                tracing::warn!(
                    project,
                    files = quota.files,
                    "A project of --xfs_project_range has files that are in no sandbox: it is not given while they are there."
                );
                state.projects.note(project, None);
            }
        }
    }
    Ok(())
}

/// The directories in a directory, but for links; none if there is none.
fn children(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}
