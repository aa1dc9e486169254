//! `disk/du`: how much disk a sandbox takes, and an end to containers that take more than they asked for.
//!
//! Drives no limit of the kernel: a file system knows no quota for a directory. So each sandbox is walked every
//! `--container_disk_watch_interval` (15 s), one at a time, by one thread for all (`watch`). A container is measured when it has
//! `disk` of its own; what it writes beside its sandbox (its own `/tmp`, the upper layer of its image) counts; the content of volumes does not, as they have a size of their own. With `--enforce_container_disk_quota`, one
//! that is found over its request ends with REASON_CONTAINER_LIMITATION_DISK; between two walks it can be over. A nested container's sandbox
//! lies within that of its parent and counts there.
//!
//! Rules: Mesos' `docs/isolators/disk-du.md`, `src/slave/containerizer/mesos/isolators/posix/disk.cpp`.

mod watch;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use tepui_api::resources::Resources;
use tepui_api::v1::{DiskStatistics, ResourceStatistics};

use crate::catalogue::Parts;
use crate::compose::MakeError;
use crate::isolator::{
    Answer, ContainerContext, ContainerId, Contribution, Isolator, IsolatorError, Limitation, Limits,
    Recovered, done,
};

use watch::{Sandbox, Watch};

struct DiskDu {
    watch: Watch,
    /// `--work_dir`/containers
    scratch_dir: PathBuf,
}

pub(crate) fn make(parts: &Parts) -> Result<Arc<dyn Isolator>, MakeError> {
    let settings = parts.settings;
    let enforce = settings.enforce_container_disk_quota.then(|| parts.limitations.clone());
    let watch = Watch::new(settings.container_disk_watch_interval, enforce);
    Ok(Arc::new(DiskDu { watch, scratch_dir: settings.scratch_dir.clone() }))
}

impl DiskDu {
    fn begin(&self, context: &ContainerContext) -> Result<(), IsolatorError> {
        if context.container_id.parent.is_some() {
            return Ok(());
        }
        let below = |path: &PathBuf| path.strip_prefix(&context.sandbox).ok().map(PathBuf::from);
        let excluded: HashSet<PathBuf> =
            context.volumes.iter().filter_map(below).chain(volumes(context)).collect();
        let beside = self.scratch_dir.join(&context.container_id.value);
        let sandbox =
            Sandbox::new(context.sandbox.clone(), beside, excluded, sandbox_quota(&context.requests));
        self.watch.begin(&context.container_id, sandbox)
    }

    fn fill(&self, id: &ContainerId, statistics: &mut ResourceStatistics) {
        let Some((limit, used)) = self.watch.figures(id) else { return };
        statistics.disk_limit_bytes = Some(limit);
        statistics.disk_used_bytes = Some(used);
        statistics.disk_statistics.push(DiskStatistics {
            limit_bytes: Some(limit),
            used_bytes: Some(used),
            ..DiskStatistics::default()
        });
    }
}

/// The disk that is the sandbox's own: a resource with a volume is that volume's.
fn sandbox_quota(requests: &Resources) -> Resources {
    requests.filter(|resource| {
        resource.name().as_str() == "disk" && resource.disk().is_none_or(|disk| disk.volume.is_none())
    })
}

/// Persistent volumes within the sandbox, relative to it.
fn volumes(context: &ContainerContext) -> impl Iterator<Item = PathBuf> {
    let paths = context.requests.iter().filter_map(|resource| {
        let path = &resource.disk()?.volume.as_ref()?.container_path;
        Some(PathBuf::from(path))
    });
    paths.filter(|path| path.is_relative())
}

impl Isolator for DiskDu {
    fn name(&self) -> &str {
        "disk/du"
    }

    fn recover<'a>(&'a self, known: &'a [Recovered], _: &'a [ContainerId]) -> Answer<'a> {
        done(known.iter().try_for_each(|one| self.begin(&one.context)))
    }

    fn prepare<'a>(&'a self, context: &'a ContainerContext, _: &'a mut Contribution) -> Answer<'a> {
        done(self.begin(context))
    }

    fn update<'a>(&'a self, id: &'a ContainerId, requests: &'a Resources, _: &'a Limits) -> Answer<'a> {
        self.watch.change(id, sandbox_quota(requests));
        done(Ok(()))
    }

    fn usage<'a>(&'a self, id: &'a ContainerId, statistics: &'a mut ResourceStatistics) -> Answer<'a> {
        self.fill(id, statistics);
        done(Ok(()))
    }

    fn exited<'a>(&'a self, id: &'a ContainerId, _: i32) -> Answer<'a, Option<Limitation>> {
        done(Ok(self.watch.reported(id)))
    }

    fn cleanup<'a>(&'a self, id: &'a ContainerId) -> Answer<'a> {
        self.watch.end(id);
        done(Ok(()))
    }
}
