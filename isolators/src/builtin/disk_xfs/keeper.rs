//! What all calls share, and the thread that ends containers which are over their disk and takes back projects that are free again.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tepui_api::resources::{Resource, Scalar};
use tepui_api::units::Bytes;
use tepui_api::v1::task_status::Reason;

use super::projects::Projects;
use super::quota::{FileSystem, ProjectId};
use super::{DiskXfsSettings, Policy};
use crate::isolator::{ContainerId, IsolatorError, Limitation, LimitationSender};

/// Holds the thread.
pub struct Keeper(Arc<Shared>);

/// What calls and the thread share.
pub struct Shared {
    pub file_system: FileSystem,
    pub settings: DiskXfsSettings,
    /// Has a directory for each container, named by its id, with what it writes beside its sandbox.
    pub scratch_dir: PathBuf,
    policy: Policy,
    /// `--container_disk_watch_interval`
    interval: Duration,
    limitations: LimitationSender,
    state: Mutex<State>,
    changed: Condvar,
}

/// What changes.
pub struct State {
    pub projects: Projects,
    pub containers: HashMap<ContainerId, Container>,
    stop: bool,
}

/// A container that was prepared or found.
pub struct Container {
    pub project: ProjectId,
    /// Bytes that it asked for.
    pub disk: Option<u64>,
    pub reported: Option<Limitation>,
}

impl Container {
    /// Nothing was reported of it.
    pub fn new(project: ProjectId, disk: Option<u64>) -> Self {
        Container { project, disk, reported: None }
    }
}

// === impl Keeper ===

impl Keeper {
    /// Starts the thread.
    pub fn start(shared: Shared) -> io::Result<Self> {
        let shared = Arc::new(shared);
        let of_thread = Arc::clone(&shared);
        thread::Builder::new().name("disk-xfs".to_owned()).spawn(move || of_thread.run())?;
        Ok(Keeper(shared))
    }

    /// What the thread works on.
    pub fn shared(&self) -> &Shared {
        &self.0
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.lock().stop = true;
        self.0.changed.notify_one();
    }
}

// === impl Shared ===

impl Shared {
    /// Nothing is known yet.
    pub fn new(
        file_system: FileSystem,
        settings: DiskXfsSettings,
        scratch_dir: PathBuf,
        policy: Policy,
        interval: Duration,
        limitations: LimitationSender,
    ) -> Self {
        let projects = Projects::new(settings.project_range.clone());
        let state = Mutex::new(State { projects, containers: HashMap::new(), stop: false });
        Shared {
            file_system,
            settings,
            scratch_dir,
            policy,
            interval,
            limitations,
            state,
            changed: Condvar::new(),
        }
    }

    /// Nothing is left half done by a panic.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A project for a sandbox.
    pub fn take(&self, sandbox: &Path) -> Result<ProjectId, IsolatorError> {
        if let Some(project) = self.lock().projects.take(sandbox) {
            return Ok(project);
        }
        // Some may be free for less than an interval.
        self.take_back();
        self.lock().projects.take(sandbox).ok_or_else(|| {
            IsolatorError::Refused(format!(
                "all projects of --xfs_project_range={} are in use: each is kept until its sandbox is removed. Give a larger range, \
                 or a shorter --gc_delay",
                self.settings.project_range
            ))
        })
    }

    /// Limits a project as the policy has it.
    pub fn set_limit(&self, project: ProjectId, disk: Option<u64>) -> Result<(), IsolatorError> {
        let (soft, hard) = self.policy.limits(disk);
        self.file_system
            .limit(project, soft, hard)
            .map_err(|error| IsolatorError::Failed(format!("cannot limit project {project}: {error}")))
    }

    /// Takes back the projects whose directories are gone. One of which files are left somewhere stays in use.
    pub fn take_back(&self) {
        let mut state = self.lock();
        for project in state.projects.abandoned(|directory| directory.symlink_metadata().is_ok()) {
            let lifted = self.file_system.limit(project, 0, 0);
            match lifted.and_then(|()| self.file_system.quota(project)) {
                Ok(quota) if quota.files == 0 && quota.used == 0 => {
                    state.projects.give_back(project);
                    tracing::debug!(project, "A project is free again.");
                }
                Ok(quota) => {
                    tracing::debug!(
                        project,
                        files = quota.files,
                        "A project has files that are in no sandbox."
                    );
                }
                Err(error) => tracing::warn!(project, %error, "A project cannot be taken back."),
            }
        }
    }

    fn run(&self) {
        let ends = matches!(self.policy, Policy::End { .. });
        let (mut look, mut sweep) = (Instant::now() + self.interval, self.next_sweep());
        loop {
            if !self.wait_until(if ends { look.min(sweep) } else { sweep }) {
                return;
            }
            if ends && look <= Instant::now() {
                self.look();
                look = Instant::now() + self.interval;
            }
            if sweep <= Instant::now() {
                self.take_back();
                sweep = self.next_sweep();
            }
        }
    }

    fn next_sweep(&self) -> Instant {
        Instant::now() + self.settings.project_watch_interval
    }

    /// False at the end of all.
    fn wait_until(&self, due: Instant) -> bool {
        let mut state = self.lock();
        loop {
            if state.stop {
                return false;
            }
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Looks whether a container is over its disk.
    fn look(&self) {
        let all: Vec<(ContainerId, ProjectId)> = {
            let state = self.lock();
            let limited =
                state.containers.iter().filter(|(_, one)| one.disk.is_some() && one.reported.is_none());
            limited.map(|(id, one)| (id.clone(), one.project)).collect()
        };
        for (id, project) in all {
            match self.file_system.quota(project) {
                Ok(quota) => self.record(&id, project, quota.used),
                Err(error) => {
                    tracing::warn!(container = %id, project, %error, "The disk of a container cannot be looked at.");
                }
            }
        }
    }

    fn record(&self, id: &ContainerId, project: ProjectId, used: u64) {
        let mut state = self.lock();
        let Some(container) = state.containers.get_mut(id).filter(|one| one.project == project) else {
            return;
        };
        let Some(disk) = container.disk.filter(|disk| used > *disk) else { return };
        let megabytes = Scalar::from_units(u32::try_from(used >> 20).unwrap_or(u32::MAX));
        let limitation = Limitation {
            container_id: id.clone(),
            resources: vec![Resource::scalar("disk", megabytes).to_wire()],
            message: format!("Disk usage ({}) exceeds quota ({})", Bytes(used), Bytes(disk)),
            reason: Reason::ContainerLimitationDisk,
        };
        tracing::info!(container = %id, message = %limitation.message, "A container is over its disk.");
        container.reported = Some(limitation.clone());
        if self.limitations.send(limitation).is_err() {
            tracing::debug!("Nobody hears of limitations any more.");
        }
    }
}
