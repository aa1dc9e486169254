//! Names of resources, small and quick to compare for those that every agent has.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// What a resource is called. Ordered by its text.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum ResourceName {
    /// `cpus`: shares of processors.
    Cpus,
    /// `disk`, in megabytes (2^20 bytes).
    Disk,
    /// `gpus`: whole ones.
    Gpus,
    /// `mem`, in megabytes (2^20 bytes).
    Mem,
    /// `ports`, as ranges.
    Ports,
    /// Any other. Never one of the above: made by [`ResourceName::from`].
    #[doc(hidden)]
    Other(OtherName),
}

/// A name that is not among the known ones.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct OtherName(Arc<str>);

// === impl ResourceName ===

impl ResourceName {
    /// Those that have a place of their own, in order.
    pub(super) const KNOWN: [ResourceName; 5] =
        [ResourceName::Cpus, ResourceName::Disk, ResourceName::Gpus, ResourceName::Mem, ResourceName::Ports];

    /// As on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            ResourceName::Cpus => "cpus",
            ResourceName::Disk => "disk",
            ResourceName::Gpus => "gpus",
            ResourceName::Mem => "mem",
            ResourceName::Ports => "ports",
            ResourceName::Other(name) => &name.0,
        }
    }

    /// Its place in [`ResourceName::KNOWN`].
    pub(super) fn place(&self) -> Option<usize> {
        match self {
            ResourceName::Cpus => Some(0),
            ResourceName::Disk => Some(1),
            ResourceName::Gpus => Some(2),
            ResourceName::Mem => Some(3),
            ResourceName::Ports => Some(4),
            ResourceName::Other(_) => None,
        }
    }
}

impl From<&str> for ResourceName {
    fn from(name: &str) -> Self {
        match name {
            "cpus" => ResourceName::Cpus,
            "disk" => ResourceName::Disk,
            "gpus" => ResourceName::Gpus,
            "mem" => ResourceName::Mem,
            "ports" => ResourceName::Ports,
            _ => ResourceName::Other(OtherName(name.into())),
        }
    }
}

impl Ord for ResourceName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl PartialOrd for ResourceName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq<str> for ResourceName {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
