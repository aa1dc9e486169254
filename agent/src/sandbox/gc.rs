//! Removing sandboxes whose tasks are over, when they are old, and earlier when the disk fills.
//!
//! The age that is allowed is Mesos': `gc_delay × max(0, 1 − gc_disk_headroom − share of the disk in use)`. A sandbox's age counts from
//! the end of its task ([`touch`]). What exists is read from the disk each time, so that nothing is forgotten over a restart. With the last
//! sandbox go the directories that led to it: of its executor, its framework, and of the agent under whose id it was made, which
//! may be a former one.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::tree;

/// Removes old sandboxes, and counts them for the metrics `gc/path_removals_*`.
#[derive(Debug)]
pub struct Gc {
    work_dir: PathBuf,
    /// The sandboxes of containers that are not destroyed, be they of tasks or of executors.
    held: Mutex<HashSet<PathBuf>>,
    succeeded: AtomicU64,
    failed: AtomicU64,
    pending: AtomicU64,
}

/// What was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Sandboxes that were removed.
    pub succeeded: u64,
    /// Attempts to remove one that failed.
    pub failed: u64,
    /// Sandboxes that will be removed when they are old.
    pub pending: u64,
}

/// What came of one look.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// The sandboxes that are gone.
    pub gone: Vec<PathBuf>,
    /// When the next one gets too old, if there is one and the disk does not fill.
    pub next: Option<Duration>,
}

// === impl Gc ===

impl Gc {
    /// For the sandboxes in a work directory.
    #[must_use]
    pub fn new(work_dir: PathBuf) -> Self {
        Self {
            work_dir,
            held: Mutex::default(),
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            pending: AtomicU64::new(0),
        }
    }

    /// A container has this sandbox: it stays, however old, until [`Gc::begin`].
    pub fn hold(&self, sandbox: &Path) {
        self.held().insert(sandbox.to_owned());
    }

    fn held(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A sandbox's container is over: its age counts from now.
    pub fn begin(&self, sandbox: &Path) {
        touch(sandbox);
        self.held().remove(sandbox);
        self.pending.fetch_add(1, Ordering::Relaxed);
    }

    /// What was counted since the agent began.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts { succeeded: read(&self.succeeded), failed: read(&self.failed), pending: read(&self.pending) }
    }

    /// Removes the sandboxes that are older than allowed, but for those that live. Blocks on the disk.
    pub fn sweep(&self, live: &HashSet<PathBuf>, max_age: Duration) -> Swept {
        let mut swept = Swept::default();
        let mut left = 0;
        for sandbox in all(&self.work_dir) {
            if live.contains(&sandbox) || self.held().contains(&sandbox) {
                continue;
            }
            let age = age(&sandbox);
            if age < max_age {
                left += 1;
                let due = max_age - age;
                swept.next = Some(swept.next.map_or(due, |next| next.min(due)));
                continue;
            }
            // Never through a mount, nor through a link.
            match tepui_shim::remove_tree(&sandbox) {
                Ok(()) => {
                    tracing::info!(sandbox = %sandbox.display(), "removed an old sandbox");
                    self.succeeded.fetch_add(1, Ordering::Relaxed);
                    remove_empty_parents(&sandbox, &self.work_dir);
                    swept.gone.push(sandbox);
                }
                Err(error) => {
                    tracing::warn!(sandbox = %sandbox.display(), %error, "cannot remove an old sandbox");
                    self.failed.fetch_add(1, Ordering::Relaxed);
                    left += 1;
                }
            }
        }
        self.pending.store(left, Ordering::Relaxed);
        swept
    }
}

/// How old a sandbox may get, in a file system of which this share is in use (0 to 1).
#[must_use]
pub fn max_age(gc_delay: Duration, headroom: f64, in_use: f64) -> Duration {
    gc_delay.mul_f64((1.0 - headroom - in_use).clamp(0.0, 1.0))
}

/// The share of the file system that is in use, for the users that are not root.
///
/// # Errors
/// When the system does not tell.
pub fn disk_in_use(directory: &Path) -> std::io::Result<f64> {
    let stat = nix::sys::statvfs::statvfs(directory)?;
    let (used, free) = (stat.blocks().saturating_sub(stat.blocks_free()), stat.blocks_available());
    #[expect(clippy::cast_precision_loss, reason = "a share needs no more than 52 bits")]
    let share = if used + free == 0 { 0.0 } else { used as f64 / (used + free) as f64 };
    Ok(share)
}

/// A sandbox's task is over: its age counts from now.
pub fn touch(directory: &Path) {
    let now = nix::sys::time::TimeSpec::UTIME_NOW;
    let follow = nix::sys::stat::UtimensatFlags::NoFollowSymlink;
    if let Err(error) = nix::sys::stat::utimensat(nix::fcntl::AT_FDCWD, directory, &now, &now, follow) {
        tracing::debug!(directory = %directory.display(), %error, "cannot note the end of a sandbox's task");
    }
}

/// All sandboxes in a work directory, of all agents that ever used it.
#[must_use]
pub fn all(work_dir: &Path) -> Vec<PathBuf> {
    let agents = children(&work_dir.join("slaves"));
    let frameworks = agents.iter().flat_map(|agent| children(&agent.join("frameworks")));
    let executors = frameworks.flat_map(|framework| children(&framework.join("executors")));
    executors.flat_map(|executor| children(&executor.join("runs"))).collect()
}

fn age(sandbox: &Path) -> Duration {
    let modified = sandbox.symlink_metadata().and_then(|metadata| metadata.modified());
    modified.ok().and_then(|at| SystemTime::now().duration_since(at).ok()).unwrap_or_default()
}

/// The directories in a directory, but for links.
fn children(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let entries = entries.filter_map(Result::ok);
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

/// Removes what only led to a sandbox that is gone.
fn remove_empty_parents(sandbox: &Path, work_dir: &Path) {
    // Nobody makes a sandbox in one of them meanwhile.
    let _tree = tree();
    let top = work_dir.join("slaves");
    for parent in sandbox.ancestors().skip(1).take_while(|parent| *parent != top) {
        if children(parent).is_empty() {
            remove_links(parent);
        }
        if std::fs::remove_dir(parent).is_err() {
            return;
        }
    }
}

/// Removes the link to the newest run, and one that was left half-way by an agent that was killed.
fn remove_links(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    for link in paths.filter(|path| path.is_symlink()) {
        if let Err(error) = std::fs::remove_file(&link) {
            tracing::warn!(link = %link.display(), %error, "cannot remove what only led to an old sandbox");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_shortens_the_age() {
        let week = Duration::from_secs(7 * 24 * 3600);
        assert_eq!(max_age(week, 0.1, 0.0), week.mul_f64(0.9));
        assert_eq!(max_age(week, 0.1, 0.9), Duration::ZERO);
        assert_eq!(max_age(week, 0.5, 0.9), Duration::ZERO);
        assert!((0.0..=1.0).contains(&disk_in_use(Path::new("/")).unwrap()));
    }

    #[test]
    fn old_sandboxes_go_with_what_led_to_them_and_living_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let run = |agent: &str, executor: &str, run: &str| {
            let path =
                dir.path().join(format!("slaves/{agent}/frameworks/F/executors/{executor}/runs/{run}"));
            super::super::create(&path, None).unwrap();
            path
        };
        let (dead, alive, other) = (run("A", "e1", "c1"), run("A", "e2", "c2"), run("A", "e2", "c3"));
        let former = run("B", "e1", "c4");
        let live = HashSet::from([alive.clone()]);
        let gc = Gc::new(dir.path().to_owned());
        gc.begin(&dead);
        // An agent was killed while it made the link to the newest run.
        std::os::unix::fs::symlink(&dead, dead.with_file_name(".c1.latest")).unwrap();
        assert_eq!(gc.counts(), Counts { succeeded: 0, failed: 0, pending: 1 });

        // That of an executor, of which no task says that it lives.
        let idle = run("A", "e3", "c5");
        gc.hold(&idle);
        let others = HashSet::from([dead.clone(), alive.clone(), other.clone(), former.clone()]);
        assert_eq!(gc.sweep(&others, Duration::ZERO).gone, Vec::<PathBuf>::new());
        gc.begin(&idle);
        assert_eq!(gc.sweep(&others, Duration::ZERO).gone, [idle]);

        let minute = Duration::from_secs(60);
        let swept = gc.sweep(&live, minute);
        assert_eq!(swept.gone, Vec::<PathBuf>::new());
        let next = swept.next.unwrap();
        assert!(next <= minute && next > minute / 2, "{next:?}");
        assert_eq!(gc.counts().pending, 3);

        let mut swept = gc.sweep(&live, Duration::ZERO);
        swept.gone.sort();
        assert_eq!((swept.gone, swept.next), (vec![dead.clone(), other, former], None));
        assert_eq!(gc.counts(), Counts { succeeded: 4, failed: 0, pending: 0 });
        assert!(!dir.path().join("slaves/A/frameworks/F/executors/e1").exists());
        assert!(!dir.path().join("slaves/B").exists(), "nor is anything left of a former agent");
        assert!(alive.join("stdout").exists());
        assert_eq!(all(dir.path()), [alive]);
    }

    #[test]
    fn touching_makes_a_sandbox_young() {
        let dir = tempfile::tempdir().unwrap();
        let old = std::fs::File::open(dir.path()).unwrap();
        old.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert!(age(dir.path()) > Duration::from_secs(3600));
        touch(dir.path());
        assert!(age(dir.path()) < Duration::from_secs(3600));
    }
}
