//! What the agent asks of a shim beyond the OCI runtime spec: the [`LaunchPlan`], stored as `launch.json`.
//!
//! The agent writes it next to `config.json` before it asks the zygote for a shim; the shim reads it once.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::logger::Rotation;
use crate::privileges::Privileges;
use crate::terminal::WindowSize;

/// Names of the files in a container's runtime directory.
pub mod files {
    /// The OCI runtime spec, written by the agent.
    pub const CONFIG: &str = "config.json";
    /// The [`super::LaunchPlan`], written by the agent.
    pub const LAUNCH: &str = "launch.json";
    /// The mount point of the container's root file system; the mount itself exists only in the shim's namespace.
    pub const ROOTFS: &str = "rootfs";
    /// Where `libcontainer` keeps its state.
    pub const STATE: &str = "state";
    /// The socket at which the shim serves.
    pub const SOCKET: &str = "shim.sock";
    /// The process id, as the host sees it, of the container's first process.
    pub const PID: &str = "pid";
    /// The [`crate::ExitRecord`], written by the shim before it announces the exit.
    pub const EXIT: &str = "exit.json";
    /// What the shim itself has to say (its standard error); empty unless something is wrong.
    pub const LOG: &str = "shim.log";
    /// Where the runtime directories of the containers nested in this one are.
    pub(crate) const NESTED: &str = "containers";
    /// Where the shim mounts for a moment what it then mounts in the container. Empty for everybody else.
    pub(crate) const STAGING: &str = "staging";
    /// What the shim shows `libcontainer` in place of a cgroup.
    pub(crate) const NO_CGROUP: &str = "no-cgroup";
    /// Locked for as long as a shim is alive or about to be.
    pub const ALIVE: &str = "alive";
}

/// What a shim does for one container beyond what the OCI runtime spec says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchPlan {
    /// The container's id: letters, digits, `_`, `+`, `-` and `.` only.
    pub container_id: String,
    /// What the container's root file system is made of.
    pub rootfs: RootFs,
    /// Mounts made by the shim on the root file system, in this order, before those of the OCI runtime spec.
    #[serde(default)]
    pub mounts: Vec<BindMount>,
    /// Where, beneath `/dev`, something is mounted by this plan or the OCI runtime spec. Only of use with [`RootFs::Host`], where the
    /// shim takes everything away that was made in `/dev` but this. The host must have the paths.
    #[serde(default)]
    pub device_mounts: Vec<PathBuf>,
    /// Mounts made by the shim in the container that was created, after all others.
    #[serde(default)]
    pub volumes: Vec<VolumePlan>,
    /// A directory of the container that is made if absent: where its program starts. Only on a root file system of its own.
    #[serde(default)]
    pub directory: Option<PathBuf>,
    /// The file that receives standard output. It is created if absent, and appended to.
    pub stdout: PathBuf,
    /// The file that receives standard error. It is created if absent, and appended to.
    pub stderr: PathBuf,
    /// How the two files are rotated. Then the container writes into pipes, and the shim into the files; else the container writes into them itself.
    #[serde(default)]
    pub rotation: Option<Rotation>,
    /// Who owns the two files when the shim creates them: user and group id.
    pub stdio_owner: (u32, u32),
    /// The program to run.
    pub exec: ExecPlan,
    /// Whether the container's first process is the program itself.
    pub first_process: FirstProcess,
    /// The `cgroup.procs` files that the first process is written to after its creation, before it starts the program. The
    /// cgroups must exist. The first one is read for signals that go to all processes, unless they are shared.
    #[serde(default)]
    pub cgroup_procs: Vec<PathBuf>,
    /// Whether the cgroups are those of a container that this one is nested in, with processes of others in them.
    #[serde(default)]
    pub shared_cgroups: bool,
    /// The first process' `oom_score_adj`, if not the agent's.
    #[serde(default)]
    pub oom_score_adj: Option<i32>,
    /// What the program may do.
    #[serde(default)]
    pub privileges: Privileges,
    /// Whether the created container waits for [`crate::Request::Start`]. If every peer goes away instead, it ends.
    #[serde(default)]
    pub hold: bool,
    /// The size of the terminal that the program shall have. What it writes there goes to `stdout`; `stderr` stays empty. The shim
    /// holds the other end.
    #[serde(default)]
    pub terminal: Option<WindowSize>,
}

/// A container's root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootFs {
    /// The host's, with all its mounts and its `/dev`.
    Host,
    /// Image layers under a writable one.
    Overlay {
        /// Unpacked layers, the topmost first.
        lowers: Vec<PathBuf>,
        /// Receives what the container writes. Must exist.
        upper: PathBuf,
        /// Overlayfs' scratch directory, on the same file system as `upper`. Must exist.
        work: PathBuf,
    },
    /// A directory of the container's own that has a copy of what the layers show.
    Copy {
        /// The directory. Must exist.
        path: PathBuf,
        /// The layers, the topmost first, for whoever asks what the image itself says.
        lowers: Vec<PathBuf>,
    },
}

/// A bind mount of a host's path onto the container's root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindMount {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// Absolute path in the container; created if absent.
    pub target: PathBuf,
    /// With the mounts beneath `source`.
    pub recursive: bool,
    /// Cannot be written through.
    pub read_only: bool,
}

/// A mount that a container has for its user: see `volumes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumePlan {
    /// What is mounted.
    pub source: VolumeSource,
    /// A directory of the container that `target` is relative to and no link in `target` leads out of, nor anywhere else. With none, `target` is
    /// absolute, and links in it are followed as the container's processes would.
    #[serde(default)]
    pub base: Option<PathBuf>,
    /// Where it is mounted.
    pub target: PathBuf,
    /// Whether `target`, and the directories above, are made if absent; else they must exist.
    pub create: bool,
    /// Cannot be written through, nor can the mounts beneath it.
    pub read_only: bool,
    /// Whether what the container mounts beneath it appears on the host, if it is a shared mount there. What the host mounts
    /// appears in the container in any case.
    #[serde(default)]
    pub shared: bool,
}

/// What a volume is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeSource {
    /// A file or directory of the host, with the mounts beneath it.
    Path {
        /// Absolute. Links are followed.
        path: PathBuf,
    },
    /// The same, but found beneath a directory that no link leads out of.
    Beneath {
        /// The directory. Absolute.
        top: PathBuf,
        /// Relative to it.
        path: PathBuf,
    },
    /// Image layers, under a writable one if there is one.
    Layers {
        /// Unpacked layers, the topmost first.
        lowers: Vec<PathBuf>,
        /// Receives what the container writes, and overlayfs' scratch directory on the same file system. Both must exist.
        writable: Option<(PathBuf, PathBuf)>,
    },
    /// A file in memory with one of [`Secrets::files`], readable and writable by [`LaunchPlan::stdio_owner`] only.
    Secret {
        /// Which one, counted from 0.
        number: usize,
    },
}

/// What a shim is told and no file holds. It comes to the shim in memory, beside the launch plan.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets {
    /// Variables for the program, in place of those of the OCI runtime spec that have the same name. No value has a zero byte.
    pub environment: Vec<(String, Vec<u8>)>,
    /// The content of [`VolumeSource::Secret`].
    pub files: Vec<Vec<u8>>,
}

impl std::fmt::Debug for Secrets {
    /// How many there are, as nobody may read more of them in a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({} variables, {} files)", self.environment.len(), self.files.len())
    }
}

impl Secrets {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.environment.is_empty() && self.files.is_empty()
    }
}

/// The program that a container runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecPlan {
    /// The executable: a path, or a name that is looked up in the `PATH` of the container's environment.
    ///
    /// Apart from `argv` because Mesos' `CommandInfo` without a shell has it so: `value` names the
    /// executable, `arguments` is the whole argument vector including the zeroth.
    pub path: String,
    /// The whole argument vector. Empty means just `path`.
    pub argv: Vec<String>,
}

/// What runs as the container's first process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FirstProcess {
    /// The program itself. For containers without a PID namespace of their own; when it has ended, the shim ends the processes it left.
    Program,
    /// A minimal init that runs the program as its child, reaps orphans and passes signals on.
    ///
    /// The first process of a PID namespace is shielded from signals it has no handler for, even from those it sends itself, so
    /// that a `sleep` would ignore SIGTERM and `kill -9 $$` would do nothing. Programs do not expect that.
    Init,
    /// A process that only waits: see `holder`. The container has no program, and no root file system of its own; other containers
    /// are nested in it.
    Holder,
}

/// The launch plan cannot be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Reading or writing failed.
    #[error("{path} cannot be read or written: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not a launch plan.
    #[error("{path} is not a launch plan: {source}")]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

impl LaunchPlan {
    /// Writes the plan into a container's runtime directory.
    pub fn save(&self, dir: &Path) -> Result<(), PlanError> {
        let path = dir.join(files::LAUNCH);
        let text =
            serde_json::to_vec(self).map_err(|source| PlanError::Format { path: path.clone(), source })?;
        std::fs::write(&path, text).map_err(|source| PlanError::Io { path, source })
    }

    /// Reads the plan from a container's runtime directory.
    pub fn load(dir: &Path) -> Result<Self, PlanError> {
        let path = dir.join(files::LAUNCH);
        let text = std::fs::read(&path).map_err(|source| PlanError::Io { path: path.clone(), source })?;
        serde_json::from_slice(&text).map_err(|source| PlanError::Format { path, source })
    }
}
