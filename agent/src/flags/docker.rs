//! The flags of what makes containers: `--containerizers`, and how a Docker engine is used.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgAction, Args};
use tepui_api::units::Duration;

use super::FlagError;

/// The flags of what makes containers.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(next_help_heading = "Containers")]
pub struct ContainerizerFlags {
    /// What makes containers, split by commas: "mesos" those of type MESOS and those of no type, "docker" those of type DOCKER, by a
    /// Docker engine
    #[arg(long = "containerizers", value_name = "NAMES", default_value = "mesos")]
    pub containerizers: Containerizers,

    /// Where the Docker engine listens
    #[arg(long = "docker_socket", value_name = "FILE", default_value = "/var/run/docker.sock")]
    pub docker_socket: PathBuf,

    /// Remove Docker containers of this agent's that it knows nothing of
    #[arg(long = "docker_kill_orphans", value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    pub docker_kill_orphans: bool,

    /// How long a Docker container stays after its end, to be looked at
    #[arg(long = "docker_remove_delay", value_name = "DURATION", default_value = "6hrs")]
    pub docker_remove_delay: Duration,
}

/// What makes containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Containerizers {
    /// The native containerizer.
    pub mesos: bool,
    /// The Docker containerizer.
    pub docker: bool,
}

// === impl ContainerizerFlags ===

impl ContainerizerFlags {
    /// Each flag, with its value as text, sorted by name.
    pub(super) fn table(&self) -> [(&'static str, Option<String>); 4] {
        [
            ("containerizers", Some(self.containerizers.to_string())),
            ("docker_kill_orphans", Some(self.docker_kill_orphans.to_string())),
            ("docker_remove_delay", Some(self.docker_remove_delay.to_string())),
            ("docker_socket", Some(self.docker_socket.display().to_string())),
        ]
    }
}

// === impl Containerizers ===

/// Mesos asks them in their order; as a container's type says whose it is, the order changes nothing.
impl FromStr for Containerizers {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        let mut all = Self { mesos: false, docker: false };
        for name in text.split(',').map(str::trim) {
            match name {
                "mesos" => all.mesos = true,
                "docker" => all.docker = true,
                _ => {
                    return Err(FlagError::Unknown(
                        text.to_owned(),
                        "mesos, docker, or both split by a comma",
                    ));
                }
            }
        }
        Ok(all)
    }
}

impl fmt::Display for Containerizers {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match (self.docker, self.mesos) {
            (true, true) => "docker,mesos",
            (true, false) => "docker",
            (false, _) => "mesos",
        })
    }
}
