//! The flags of the isolators that drive cgroups, beyond those that [`crate::Settings`] itself has.

use std::time::Duration;

pub use crate::builtin::allowed_devices::{AllowedDevice, AllowedDeviceError};
pub use crate::builtin::cgroups_net_cls::{HandleError, HandleRange, PrimaryHandle};
pub use crate::builtin::cgroups_perf_event::{EventError, PerfEvent, PerfEvents};

/// By Mesos' names, without `cgroups_`. The defaults are Mesos'.
#[derive(Debug, Clone, PartialEq)]
pub struct CgroupsSettings {
    /// `--cgroups_net_cls_primary_handle`: absent, handles are left to the operator.
    pub net_cls_primary_handle: Option<PrimaryHandle>,
    /// `--cgroups_net_cls_secondary_handles`: absent, all.
    pub net_cls_secondary_handles: Option<HandleRange>,
    /// `--perf_events`: absent, nothing is sampled.
    pub perf_events: Option<PerfEvents>,
    /// `--perf_interval`: from the start of one sample to that of the next.
    pub perf_interval: Duration,
    /// `--perf_duration`: how long a sample takes; at most the interval.
    pub perf_duration: Duration,
    /// `--allowed_devices`.
    pub allowed_devices: Vec<AllowedDevice>,
}

impl Default for CgroupsSettings {
    fn default() -> Self {
        CgroupsSettings {
            net_cls_primary_handle: None,
            net_cls_secondary_handles: None,
            perf_events: None,
            perf_interval: Duration::from_secs(60),
            perf_duration: Duration::from_secs(10),
            allowed_devices: Vec::new(),
        }
    }
}
