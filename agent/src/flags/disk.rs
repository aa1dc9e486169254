//! The flags of the isolator `disk/xfs`.

use std::fmt;
use std::str::FromStr;

use clap::{ArgAction, Args};
use tepui_api::resources::Ranges;
use tepui_api::units::Bytes;

use super::FlagError;
use super::ports::ranges;

/// The flags of the isolator `disk/xfs`.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(next_help_heading = "Disk")]
pub struct DiskFlags {
    /// Projects that disk/xfs may give to containers, and that nobody else uses
    #[arg(long = "xfs_project_range", value_name = "RANGES", default_value = "[5000-10000]")]
    pub xfs_project_range: ProjectRanges,

    /// With --enforce_container_disk_quota, have disk/xfs end containers that are over their disk, rather than have their writes fail
    #[arg(long = "xfs_kill_containers", value_name = "BOOL", default_value_t = false, action = ArgAction::Set)]
    pub xfs_kill_containers: bool,

    /// How much a container may be over its disk until it is ended; then writes fail
    #[arg(long = "xfs_quota_headroom", value_name = "BYTES", default_value = "10MB")]
    pub xfs_quota_headroom: Bytes,
}

/// Numbers of projects: `[5000-10000]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectRanges(pub Ranges);

// === impl DiskFlags ===

impl DiskFlags {
    /// Each flag, with its value as text, sorted by name.
    pub(super) fn table(&self) -> Vec<(&'static str, Option<String>)> {
        vec![
            ("xfs_kill_containers", Some(self.xfs_kill_containers.to_string())),
            ("xfs_project_range", Some(self.xfs_project_range.to_string())),
            ("xfs_quota_headroom", Some(self.xfs_quota_headroom.to_string())),
        ]
    }
}

// === impl ProjectRanges ===

impl FromStr for ProjectRanges {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        let found = ranges(text, u32::MAX.into()).filter(|found| !found.is_empty() && !found.has(0));
        let words = "a list of projects such as [5000-10000], without 0, which stands for none";
        found.map(ProjectRanges).ok_or_else(|| FlagError::Range(text.to_owned(), words))
    }
}

impl fmt::Display for ProjectRanges {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_project_that_stands_for_none_is_refused() {
        for text in ["[0-5]", "[]", "5000", "[1-4294967296]", "[9-8]"] {
            assert!(text.parse::<ProjectRanges>().is_err(), "{text}");
        }
        assert_eq!("[5000-10000]".parse::<ProjectRanges>().unwrap().to_string(), "[5000-10000]");
        assert!("[1-4294967295]".parse::<ProjectRanges>().is_ok());
    }
}
