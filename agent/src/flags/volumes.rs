//! Flags of volumes, and of what an image says about its containers.

use std::path::PathBuf;

use clap::{ArgAction, Args};

/// The flags of volumes.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub struct VolumeFlags {
    /// Directories, split by colons, at and beneath which a HOST_PATH volume's path is made if it does not exist
    #[arg(long = "host_path_volume_force_creation", value_name = "DIRS", help_heading = "Volumes")]
    pub host_path_volume_force_creation: Option<String>,

    /// Directory where the agent keeps which container uses which Docker volume. By default isolators/docker/volume below
    /// the runtime directory (Mesos: /var/run/mesos/isolators/docker/volume)
    #[arg(long = "docker_volume_checkpoint_dir", value_name = "DIR", help_heading = "Volumes")]
    pub docker_volume_checkpoint_dir: Option<PathBuf>,

    /// Give the top directory of a Docker volume to the container's user
    #[arg(long = "docker_volume_chown", value_name = "BOOL", default_value_t = false, action = ArgAction::Set,
          help_heading = "Volumes")]
    pub docker_volume_chown: bool,

    /// Pass over the entrypoint, command, environment and working directory that an image names
    #[arg(long = "docker_ignore_runtime", value_name = "BOOL", default_value_t = false, action = ArgAction::Set,
          help_heading = "Images")]
    pub docker_ignore_runtime: bool,
}

impl VolumeFlags {
    /// Each flag, with its value as text if it has one.
    pub(super) fn table(&self) -> [(&'static str, Option<String>); 4] {
        [
            ("docker_ignore_runtime", Some(self.docker_ignore_runtime.to_string())),
            (
                "docker_volume_checkpoint_dir",
                self.docker_volume_checkpoint_dir.as_ref().map(|dir| dir.display().to_string()),
            ),
            ("docker_volume_chown", Some(self.docker_volume_chown.to_string())),
            ("host_path_volume_force_creation", self.host_path_volume_force_creation.clone()),
        ]
    }

    /// What the isolators of volumes are told.
    pub(crate) fn settings(&self, runtime_dir: &std::path::Path) -> tepui_isolators::VolumeSettings {
        let creation = self.host_path_volume_force_creation.iter().flat_map(|dirs| dirs.split(':'));
        let checkpoints = self.docker_volume_checkpoint_dir.clone();
        tepui_isolators::VolumeSettings {
            host_path_force_creation: creation
                .filter(|dir| dir.starts_with('/'))
                .map(PathBuf::from)
                .collect(),
            docker_checkpoint_dir: checkpoints.unwrap_or_else(|| runtime_dir.join("isolators/docker/volume")),
            docker_chown: self.docker_volume_chown,
            ..tepui_isolators::VolumeSettings::default()
        }
    }
}
