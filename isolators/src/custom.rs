//! Isolators of somebody else's making: how an agent gets them, and what they get.
//!
//! A [`Custom`] is a name and a function that makes the isolator once the built-in ones are there. It acts after all built-in isolators when a
//! container is prepared, and before them when it is removed, so that it finds the container's cgroups in both.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use crate::cgroups::Cgroups;
use crate::compose::BuildError;
use crate::isolator::{Isolator, LimitationSender};

/// Why a custom isolator cannot be made; its text is shown to the operator.
pub type CustomError = Box<dyn std::error::Error + Send + Sync>;

type Make = Box<dyn FnOnce(&Host) -> Result<Arc<dyn Isolator>, CustomError> + Send>;

/// An isolator of somebody else's making.
pub struct Custom {
    pub(crate) name: String,
    pub(crate) always: bool,
    pub(crate) make: Make,
}

/// What a custom isolator is told of the agent when it is made.
pub struct Host {
    /// Where it reports containers that overstep a limit.
    pub limitations: LimitationSender,
    /// Where the containers' cgroups are. Absent where the host has none.
    pub cgroups: Option<Arc<Cgroups>>,
    /// The agent's directories.
    pub places: Places,
    pub(crate) name: String,
}

/// Where an agent keeps its files.
#[derive(Debug, Clone)]
pub struct Places {
    /// `--runtime_dir`: what need not outlive a restart of the machine.
    pub runtime_dir: PathBuf,
    /// `--work_dir`: what must.
    pub work_dir: PathBuf,
    /// `--sandbox_directory`: where a container with an image finds its sandbox.
    pub sandbox_directory: PathBuf,
}

impl Custom {
    /// One that is switched on by its name in `--isolation`.
    pub fn named(
        name: impl Into<String>,
        make: impl FnOnce(&Host) -> Result<Arc<dyn Isolator>, CustomError> + Send + 'static,
    ) -> Self {
        Custom { name: name.into(), always: false, make: Box::new(make) }
    }

    /// One that is on in any case. It may be in `--isolation` and need not.
    pub fn always(
        name: impl Into<String>,
        make: impl FnOnce(&Host) -> Result<Arc<dyn Isolator>, CustomError> + Send + 'static,
    ) -> Self {
        Custom { always: true, ..Custom::named(name, make) }
    }

    /// Checks that the name can be one.
    pub(crate) fn check_name(&self) -> Result<(), BuildError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let begins = self.name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if begins && self.name.len() <= 64 && self.name.chars().all(plain) {
            return Ok(());
        }
        Err(BuildError::BadName(self.name.clone()))
    }
}

impl Host {
    /// A directory for what the isolator must still know when the agent, but not the machine, was restarted. Made for the agent's user alone.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn runtime_dir(&self) -> io::Result<PathBuf> {
        make(self.places.runtime_dir.join("isolators").join(&self.name))
    }

    /// The same for what must be known after a restart of the machine, too.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn work_dir(&self) -> io::Result<PathBuf> {
        make(self.places.work_dir.join("isolators").join(&self.name))
    }
}

fn make(path: PathBuf) -> io::Result<PathBuf> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
    path.canonicalize()
}
