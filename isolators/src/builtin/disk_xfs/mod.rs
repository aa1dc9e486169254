//! `disk/xfs`: a quota of the file system's own for each container, on XFS and, unlike in Mesos, on ext4 too.
//!
//! Drives project quotas (`quota`): a container's sandbox, and what it writes beside it (its own `/tmp`, the upper layer of its
//! image), belong to a project, and all that is made in them is born into it. The kernel counts, so that a look costs a system call however
//! many files there are, and with `--enforce_container_disk_quota` refuses what goes over. With `--xfs_kill_containers` it refuses only what is
//! over by `--xfs_quota_headroom`, and a thread (`keeper`) ends containers that are over. A container without `disk` is counted, and has no limit.
//!
//! Projects come from `--xfs_project_range`. Which are in use is read from the directories themselves (`projects`), so that a kill at any
//! instant loses none: the sandbox carries its project before that has a limit, and one that no directory carries any more
//! is stripped of its limit before it is given again.
//!
//! Rules: Mesos' `docs/isolators/disk-xfs.md`, `src/slave/containerizer/mesos/isolators/xfs/disk.cpp`; `xfs(5)`, `ext4(5)`.

mod keeper;
mod label;
mod projects;
mod quota;
mod recover;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tepui_api::resources::{Range, Ranges, Resources};
use tepui_api::v1::ResourceStatistics;

use crate::catalogue::Parts;
use crate::compose::MakeError;
use crate::isolator::{
    Answer, ContainerContext, ContainerId, Contribution, Isolator, IsolatorError, Limitation, Limits,
    Recovered, done,
};

use keeper::{Container, Keeper, Shared};
use label::label;
use quota::{FileSystem, ProjectId};

/// The flags of `disk/xfs`, and where sandboxes are.
#[derive(Debug, Clone, PartialEq)]
pub struct DiskXfsSettings {
    /// `--work_dir`: the sandboxes are below it. Absolute.
    pub work_dir: PathBuf,
    /// `--xfs_project_range`: projects that nobody else uses.
    pub project_range: Ranges,
    /// `--xfs_kill_containers`: containers that are over their disk are ended, rather than refused to write.
    pub kill_containers: bool,
    /// `--xfs_quota_headroom`: bytes that such a container may be over until it is ended.
    pub quota_headroom: u64,
    /// `--disk_watch_interval`: between two looks for projects that are free again.
    pub project_watch_interval: Duration,
}

/// Mesos' defaults, in a work directory that is not there.
impl Default for DiskXfsSettings {
    fn default() -> Self {
        DiskXfsSettings {
            work_dir: PathBuf::new(),
            project_range: Range::new(5000, 10000).into_iter().collect(),
            kill_containers: false,
            quota_headroom: 10 << 20,
            project_watch_interval: Duration::from_secs(60),
        }
    }
}

/// What is done about containers that write too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    /// They are only measured.
    Count,
    /// Their writes fail.
    Refuse,
    /// They are ended; writes fail once they are over by so many bytes.
    End {
        /// `--xfs_quota_headroom`
        headroom: u64,
    },
}

impl Policy {
    /// Soft and hard limit in bytes of a container that asked for so many.
    fn limits(self, disk: Option<u64>) -> (u64, u64) {
        match (self, disk) {
            (Policy::Count, _) | (_, None) => (0, 0),
            (Policy::Refuse, Some(disk)) => (disk, disk),
            (Policy::End { headroom }, Some(disk)) => (disk, disk.saturating_add(headroom)),
        }
    }
}

struct DiskXfs {
    keeper: Keeper,
}

pub(crate) fn make(parts: &Parts) -> Result<Arc<dyn Isolator>, MakeError> {
    let settings = parts.settings.disk_xfs.clone();
    let policy = match (parts.settings.enforce_container_disk_quota, settings.kill_containers) {
        (false, _) => Policy::Count,
        (true, false) => Policy::Refuse,
        (true, true) => Policy::End { headroom: settings.quota_headroom },
    };
    let file_system = open(&settings, policy)?;
    if policy == Policy::Refuse && matches!(file_system.spares_root(), Ok(true)) {
        tracing::warn!(
            "ext4 refuses no write of a task that runs as root with CAP_SYS_RESOURCE, whatever its quota. Run tasks as other users, take that capability \
             from them, or end those that are over with --xfs_kill_containers=true."
        );
    }
    let shared = Shared::new(
        file_system,
        settings,
        parts.settings.scratch_dir.clone(),
        policy,
        parts.settings.container_disk_watch_interval,
        parts.limitations.clone(),
    );
    let keeper = Keeper::start(shared)
        .map_err(|error| MakeError::Host(format!("it needs a thread, and the system has none: {error}")))?;
    Ok(Arc::new(DiskXfs { keeper }))
}

/// The file system of the work directory, if it has what this isolator needs.
fn open(settings: &DiskXfsSettings, policy: Policy) -> Result<FileSystem, MakeError> {
    let work_dir = settings.work_dir.display();
    let lacks = |what: String| {
        MakeError::Host(format!(
            "{what}. XFS has project quotas when it is mounted with the option prjquota; ext4 when it was made with `mkfs.ext4 -O quota,project` (or \
             given that, unmounted, by `tune2fs -O quota,project -Q prjquota`) and is mounted with prjquota. The kernel must be Linux 5.14 or later, \
             with CONFIG_XFS_QUOTA or CONFIG_QFMT_V2"
        ))
    };
    let file_system = FileSystem::of(&settings.work_dir).map_err(|error| {
        MakeError::Host(format!("the work directory {work_dir} cannot be opened: {error}"))
    })?;
    let state = file_system.state().map_err(|error| {
        lacks(format!("the file system of the work directory {work_dir} has no project quotas ({error})"))
    })?;
    if !state.counts {
        return Err(lacks(format!(
            "the file system of the work directory {work_dir} does not count for projects"
        )));
    }
    quota::project_at(&settings.work_dir).map_err(|error| {
        lacks(format!("the files of the work directory {work_dir} cannot belong to projects ({error})"))
    })?;
    if state.limits || policy == Policy::Count {
        return Ok(file_system);
    }
    let turned_on = file_system.enforce().and_then(|()| file_system.state());
    match turned_on {
        Ok(state) if state.limits => Ok(file_system),
        Ok(_) => Err(lacks(format!(
            "the file system of the work directory {work_dir} keeps no limits of projects"
        ))),
        Err(error) => Err(lacks(format!(
            "the file system of the work directory {work_dir} keeps no limits of projects, and they cannot be turned on ({error})"
        ))),
    }
}

impl DiskXfs {
    fn begin(&self, context: &ContainerContext) -> Result<(), IsolatorError> {
        // A nested container's sandbox is in its parent's, and of its project.
        if context.container_id.parent.is_some() {
            return Ok(());
        }
        let shared = self.keeper.shared();
        let project = shared.take(&context.sandbox)?;
        label(&context.sandbox, project).map_err(|error| cannot_move(&context.sandbox, project, &error))?;
        let disk = sandbox_disk(&context.requests);
        // Also without one: the project may have had a limit that nobody came to lift.
        shared.set_limit(project, disk)?;
        shared.lock().containers.insert(context.container_id.clone(), Container::new(project, disk));
        tracing::debug!(container = %context.container_id, project, "A sandbox belongs to a project.");
        Ok(())
    }

    /// What the container writes beside its sandbox counts with it.
    fn take_scratch(&self, id: &ContainerId) -> Result<(), IsolatorError> {
        let shared = self.keeper.shared();
        let Some(project) = shared.lock().containers.get(id).map(|one| one.project) else { return Ok(()) };
        let scratch = shared.scratch_dir.join(&id.value);
        if !scratch.exists() {
            return Ok(());
        }
        shared.lock().projects.note(project, Some(&scratch));
        label(&scratch, project).map_err(|error| cannot_move(&scratch, project, &error))
    }

    fn change(&self, id: &ContainerId, requests: &Resources) -> Result<(), IsolatorError> {
        let shared = self.keeper.shared();
        // As in Mesos, what took the disk away leaves the limit: nobody asked for no limit.
        let Some(disk) = sandbox_disk(requests) else { return Ok(()) };
        let project = {
            let mut state = shared.lock();
            let Some(container) = state.containers.get_mut(id) else { return Ok(()) };
            container.disk = Some(disk);
            container.project
        };
        shared.set_limit(project, Some(disk))
    }

    fn fill(&self, id: &ContainerId, statistics: &mut ResourceStatistics) -> Result<(), IsolatorError> {
        let shared = self.keeper.shared();
        let found = shared.lock().containers.get(id).map(|one| (one.project, one.disk));
        let Some((project, disk)) = found else { return Ok(()) };
        let quota = shared.file_system.quota(project).map_err(|error| {
            IsolatorError::Failed(format!("cannot ask for the quota of project {project}: {error}"))
        })?;
        statistics.disk_used_bytes = Some(quota.used);
        statistics.disk_limit_bytes = Some(disk.unwrap_or(0));
        Ok(())
    }
}

fn cannot_move(directory: &std::path::Path, project: ProjectId, error: &std::io::Error) -> IsolatorError {
    IsolatorError::Failed(format!("cannot move {} to project {project}: {error}", directory.display()))
}

/// Bytes of disk that are the sandbox's own: a resource with a volume, or from a disk of its own, is not.
fn sandbox_disk(requests: &Resources) -> Option<u64> {
    let own = requests.filter(|resource| resource.name().as_str() == "disk" && resource.disk().is_none());
    own.disk().map(|disk| disk.bytes())
}

impl Isolator for DiskXfs {
    fn name(&self) -> &str {
        "disk/xfs"
    }

    fn recover<'a>(&'a self, known: &'a [Recovered], _: &'a [ContainerId]) -> Answer<'a> {
        done(recover::recover(self.keeper.shared(), known))
    }

    fn prepare<'a>(&'a self, context: &'a ContainerContext, _: &'a mut Contribution) -> Answer<'a> {
        done(self.begin(context))
    }

    fn isolate<'a>(&'a self, id: &'a ContainerId, _: u32) -> Answer<'a> {
        done(self.take_scratch(id))
    }

    fn update<'a>(&'a self, id: &'a ContainerId, requests: &'a Resources, _: &'a Limits) -> Answer<'a> {
        done(self.change(id, requests))
    }

    fn usage<'a>(&'a self, id: &'a ContainerId, statistics: &'a mut ResourceStatistics) -> Answer<'a> {
        done(self.fill(id, statistics))
    }

    fn exited<'a>(&'a self, id: &'a ContainerId, _: i32) -> Answer<'a, Option<Limitation>> {
        let state = self.keeper.shared().lock();
        done(Ok(state.containers.get(id).and_then(|one| one.reported.clone())))
    }

    /// The project stays with the sandbox until that is removed.
    fn cleanup<'a>(&'a self, id: &'a ContainerId) -> Answer<'a> {
        self.keeper.shared().lock().containers.remove(id);
        done(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_follow_the_policy() {
        const MB: u64 = 1 << 20;
        assert_eq!(Policy::Count.limits(Some(MB)), (0, 0));
        assert_eq!(Policy::Refuse.limits(Some(MB)), (MB, MB));
        assert_eq!(Policy::Refuse.limits(None), (0, 0));
        assert_eq!(Policy::End { headroom: 2 * MB }.limits(Some(MB)), (MB, 3 * MB));
        assert_eq!(Policy::End { headroom: u64::MAX }.limits(Some(MB)), (MB, u64::MAX));
    }

    #[test]
    fn a_work_directory_without_quotas_is_told_how_to_get_them() {
        let settings = DiskXfsSettings { work_dir: "/proc".into(), ..DiskXfsSettings::default() };
        let text = open(&settings, Policy::Count).unwrap_err().to_string();
        assert!(
            text.contains("/proc has no project quotas") && text.contains("mkfs.ext4 -O quota,project"),
            "{text}"
        );
    }

    #[test]
    fn disk_of_volumes_is_not_the_sandboxes() {
        let parse = |text: &str| sandbox_disk(&Resources::parse(text, "*").unwrap());
        assert_eq!(parse("cpus:1"), None);
        assert_eq!(parse("cpus:1;disk:5;disk(role):7"), Some(12 << 20));
        let mounted = r#"[{"name":"disk","type":"SCALAR","scalar":{"value":9},
            "disk":{"source":{"type":"MOUNT","mount":{"root":"/m"}}}}]"#;
        assert_eq!(parse(mounted), None);
    }
}
