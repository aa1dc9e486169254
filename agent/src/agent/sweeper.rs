//! Removes old sandboxes now and then: whenever `--disk_watch_interval` is over, and when the next one gets too old.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::flags::Settings;
use crate::sandbox::files::Files;
use crate::sandbox::gc::{self, Gc};
use crate::shell::Handle;

/// A sandbox is not removed earlier than this after its task, however full the disk, unless `--gc_delay` is shorter.
const YOUNGEST: Duration = Duration::from_secs(60);
/// Between two looks, at least.
const SHORTEST: Duration = Duration::from_secs(1);

/// Until the agent stops.
pub(super) async fn sweep(settings: Settings, handle: Handle, files: Arc<Files>, sandboxes: Arc<Gc>) {
    let mut next = settings.gc_delay.0;
    loop {
        tokio::time::sleep(next.min(settings.disk_watch_interval.0).max(SHORTEST)).await;
        let Ok(snapshot) = handle.snapshot().await else { return };
        let of_tasks = snapshot.frameworks.tasks().map(|task| task.directory.clone());
        let of_executors = snapshot.frameworks.executors().map(|executor| executor.directory.clone());
        let live: HashSet<PathBuf> = of_tasks.chain(of_executors).collect();
        let (settings, files, sandboxes) = (settings.clone(), Arc::clone(&files), Arc::clone(&sandboxes));
        let swept = tokio::task::spawn_blocking(move || {
            let in_use = gc::disk_in_use(&settings.work_dir)?;
            let max_age = gc::max_age(settings.gc_delay.0, settings.gc_disk_headroom.0, in_use);
            let swept = sandboxes.sweep(&live, max_age.max(YOUNGEST.min(settings.gc_delay.0)));
            for sandbox in &swept.gone {
                files.detach(sandbox);
            }
            Ok::<_, std::io::Error>(swept.next)
        });
        next = match swept.await {
            Ok(Ok(due)) => due.unwrap_or(Duration::MAX),
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot find out how full the disk is");
                Duration::MAX
            }
            Err(error) => {
                tracing::error!(%error, "removing old sandboxes did not come to its end");
                Duration::MAX
            }
        };
    }
}
