//! Removing sandboxes whose tasks are over, when they are old, and earlier when the disk fills.
//!
//! The age that is allowed is Mesos': `gc_delay × max(0, 1 − gc_disk_headroom − share of the disk in use)`. A sandbox's age counts from
//! the end of its task ([`touch`]). What exists is read from the disk each time, so that nothing is forgotten over a restart.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::paths;

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

/// Removes the sandboxes that are older than allowed, but for those that live. Gives those that are gone.
pub fn sweep(work_dir: &Path, live: &HashSet<PathBuf>, max_age: Duration) -> Vec<PathBuf> {
    let mut gone = Vec::new();
    for sandbox in all(work_dir) {
        if live.contains(&sandbox) || age(&sandbox) < max_age {
            continue;
        }
        // Never through a mount, nor through a link.
        match tepui_shim::remove_tree(&sandbox) {
            Ok(()) => {
                tracing::info!(sandbox = %sandbox.display(), "removed an old sandbox");
                remove_empty_parents(&sandbox, work_dir);
                gone.push(sandbox);
            }
            Err(error) => {
                tracing::warn!(sandbox = %sandbox.display(), %error, "cannot remove an old sandbox");
            }
        }
    }
    gone
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
    let top = work_dir.join("slaves");
    for parent in sandbox.ancestors().skip(1).take_while(|parent| *parent != top) {
        if children(parent).is_empty() {
            let latest = parent.join(paths::LATEST);
            if latest.is_symlink() {
                let _ = std::fs::remove_file(latest);
            }
        }
        if std::fs::remove_dir(parent).is_err() {
            return;
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
        let run = |executor: &str, run: &str| {
            let path = dir.path().join(format!("slaves/A/frameworks/F/executors/{executor}/runs/{run}"));
            super::super::create(&path, None).unwrap();
            path
        };
        let (dead, alive, other) = (run("e1", "c1"), run("e2", "c2"), run("e2", "c3"));
        let live = HashSet::from([alive.clone()]);
        assert_eq!(sweep(dir.path(), &live, Duration::from_secs(60)), Vec::<PathBuf>::new());
        let mut gone = sweep(dir.path(), &live, Duration::ZERO);
        gone.sort();
        assert_eq!(gone, [dead.clone(), other]);
        assert!(!dir.path().join("slaves/A/frameworks/F/executors/e1").exists());
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
