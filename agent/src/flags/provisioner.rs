//! How the layers of an image become a root file system.

use std::fmt;
use std::str::FromStr;

use clap::Args;

use super::FlagError;

/// The flag of what Mesos calls the provisioner.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(next_help_heading = "Images")]
pub struct ProvisionerFlags {
    /// How images become root file systems: "overlay" stacks their layers, "copy" copies them for each container. By default "overlay", or
    /// "copy" where overlayfs does not work in the work directory
    #[arg(long = "image_provisioner_backend", value_name = "NAME")]
    pub image_provisioner_backend: Option<ImageBackend>,
}

/// What Mesos calls a backend of its provisioner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageBackend {
    /// The layers are stacked by overlayfs, and shared by all containers.
    Overlay,
    /// Each container has a copy of all that the layers show.
    Copy,
}

// === impl ProvisionerFlags ===

impl ProvisionerFlags {
    /// Each flag that has a value, with that value as text.
    pub(super) fn table(&self) -> [(&'static str, Option<String>); 1] {
        let backend = self.image_provisioner_backend.as_ref();
        [("image_provisioner_backend", backend.map(ToString::to_string))]
    }
}

// === impl ImageBackend ===

impl FromStr for ImageBackend {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        const THERE_ARE: &str = "overlay or copy";
        match text {
            "overlay" => Ok(Self::Overlay),
            "copy" => Ok(Self::Copy),
            "aufs" | "bind" => Err(FlagError::NotImplemented(text.to_owned(), THERE_ARE)),
            _ => Err(FlagError::Unknown(text.to_owned(), THERE_ARE)),
        }
    }
}

impl fmt::Display for ImageBackend {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Overlay => "overlay",
            Self::Copy => "copy",
        })
    }
}
