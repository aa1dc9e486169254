//! Volumes and secrets: what isolators have mounted beyond a container's root file system, and what is told to its program alone.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tepui_api::v1::Image;

/// What the isolators of volumes are told of the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeSettings {
    /// `--host_path_volume_force_creation`: where `volume/host_path` makes directories of the host that do not exist.
    pub host_path_force_creation: Vec<PathBuf>,
    /// `--docker_volume_checkpoint_dir`: which container uses which volume of `docker/volume`. Belongs to one agent.
    pub docker_checkpoint_dir: PathBuf,
    /// `--docker_volume_chown`: a volume's top directory is given to the container's user.
    pub docker_chown: bool,
    /// Where sockets of volume plugins are.
    pub docker_plugin_sockets: Vec<PathBuf>,
    /// Where files are that name the address of a volume plugin.
    pub docker_plugin_specs: Vec<PathBuf>,
    /// How long a volume plugin may take for a call.
    pub docker_call_timeout: Duration,
}

/// Mesos' and Docker's defaults.
impl Default for VolumeSettings {
    fn default() -> Self {
        VolumeSettings {
            host_path_force_creation: Vec::new(),
            docker_checkpoint_dir: PathBuf::from("/var/run/mesos/isolators/docker/volume"),
            docker_chown: false,
            docker_plugin_sockets: vec![PathBuf::from("/run/docker/plugins")],
            docker_plugin_specs: vec![
                PathBuf::from("/etc/docker/plugins"),
                PathBuf::from("/usr/lib/docker/plugins"),
            ],
            docker_call_timeout: Duration::from_secs(60),
        }
    }
}

/// A mount that a container has for its user. Made after all other mounts of the container, so that none covers it.
#[derive(Debug, Clone, PartialEq)]
pub struct VolumeMount {
    /// What is mounted.
    pub source: VolumeSource,
    /// Where.
    pub target: VolumeTarget,
    /// Cannot be written through, nor can the mounts beneath it.
    pub read_only: bool,
    /// What the container mounts beneath it appears on the host, whose mount there must be a shared one. What the host mounts
    /// appears in the container in any case (if its mount is shared).
    pub shared: bool,
}

/// What a volume is made of.
#[derive(Debug, Clone, PartialEq)]
pub enum VolumeSource {
    /// A file or directory of the host with the mounts beneath it, by its absolute path.
    Host(PathBuf),
    /// The same, by its path beneath a directory that no link leads out of.
    Beneath {
        /// The directory. Absolute.
        top: PathBuf,
        /// Relative to it.
        path: PathBuf,
    },
    /// The content of an image, which the agent provisions. What the container writes to it is gone with the container.
    Image(Box<Image>),
    /// A file in memory with a secret, for the container's user only.
    Secret(SecretBytes),
}

/// Where a volume is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeTarget {
    /// A path relative to the sandbox, made there if absent. No link in it is followed.
    Sandbox(PathBuf),
    /// An absolute path in the container, made there if absent.
    Made(PathBuf),
    /// An absolute path in the container, which must exist there.
    Existing(PathBuf),
}

/// Bytes for the container alone: neither logged nor written to a disk.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretBytes(Vec<u8>);

impl SecretBytes {
    /// Takes them.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        SecretBytes(bytes)
    }

    /// Shows them, to be handed on to the container.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(…)")
    }
}
