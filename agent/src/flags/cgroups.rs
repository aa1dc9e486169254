//! The flags of the isolators that drive cgroups: `cgroups/net_cls`, `cgroups/perf_event`, `cgroups/devices` and `linux/devices`.

use std::fmt;
use std::str::FromStr;

use clap::Args;
use tepui_api::codec::{decode_json, encode_json};
use tepui_api::units::Duration;
use tepui_api::v1::DeviceWhitelist;
use tepui_isolators::cgroups::{AllowedDevice, CgroupsSettings, HandleRange, PerfEvents, PrimaryHandle};

use super::FlagError;

/// See the module.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct CgroupFlags {
    /// The upper 16 bits, as 0xAAAA, of the mark that cgroups/net_cls gives to packets of containers; without it, marks are the operator's
    #[arg(long = "cgroups_net_cls_primary_handle", value_name = "HANDLE", help_heading = "Containers")]
    pub cgroups_net_cls_primary_handle: Option<PrimaryHandle>,

    /// The first and the last of the marks' lower 16 bits, as 0xAAAA,0xBBBB; all by default
    #[arg(
        long = "cgroups_net_cls_secondary_handles",
        value_name = "FIRST,LAST",
        requires = "cgroups_net_cls_primary_handle",
        help_heading = "Containers"
    )]
    pub cgroups_net_cls_secondary_handles: Option<HandleRange>,

    /// Events that cgroups/perf_event counts in each container, by perf's names, with commas between them
    #[arg(long = "perf_events", value_name = "EVENTS", help_heading = "Containers")]
    pub perf_events: Option<PerfEvents>,

    /// Time from the start of one sample of events to that of the next
    #[arg(
        long = "perf_interval",
        value_name = "DURATION",
        default_value = "1mins",
        help_heading = "Containers"
    )]
    pub perf_interval: Duration,

    /// Time that a sample of events takes; at most the interval
    #[arg(
        long = "perf_duration",
        value_name = "DURATION",
        default_value = "10secs",
        help_heading = "Containers"
    )]
    pub perf_duration: Duration,

    /// Devices that containers may use beyond the usual ones, as JSON, or file:///PATH of a file with it:
    /// {"allowed_devices": [{"device": {"path": "/dev/fuse"}, "access": {"read": true, "write": true}}]}
    #[arg(long = "allowed_devices", value_name = "JSON", help_heading = "Containers")]
    pub allowed_devices: Option<Devices>,
}

/// Devices of this host.
#[derive(Debug, Clone, PartialEq)]
pub struct Devices {
    given: DeviceWhitelist,
    found: Vec<AllowedDevice>,
}

// === impl CgroupFlags ===

impl CgroupFlags {
    /// Each flag, with its value as text if it has one.
    pub(super) fn table(&self) -> [(&'static str, Option<String>); 6] {
        [
            ("allowed_devices", self.allowed_devices.as_ref().map(ToString::to_string)),
            (
                "cgroups_net_cls_primary_handle",
                self.cgroups_net_cls_primary_handle.as_ref().map(ToString::to_string),
            ),
            (
                "cgroups_net_cls_secondary_handles",
                self.cgroups_net_cls_secondary_handles.as_ref().map(ToString::to_string),
            ),
            ("perf_duration", Some(self.perf_duration.to_string())),
            ("perf_events", self.perf_events.as_ref().map(ToString::to_string)),
            ("perf_interval", Some(self.perf_interval.to_string())),
        ]
    }

    /// In the isolators' words.
    #[must_use]
    pub fn settings(&self) -> CgroupsSettings {
        CgroupsSettings {
            net_cls_primary_handle: self.cgroups_net_cls_primary_handle,
            net_cls_secondary_handles: self.cgroups_net_cls_secondary_handles,
            perf_events: self.perf_events.clone(),
            perf_interval: self.perf_interval.0,
            perf_duration: self.perf_duration.0,
            allowed_devices: self
                .allowed_devices
                .as_ref()
                .map(|devices| devices.found.clone())
                .unwrap_or_default(),
        }
    }
}

// === impl Devices ===

impl FromStr for Devices {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        let wrong = |error: &dyn fmt::Display| FlagError::Devices(error.to_string());
        let read = match text.strip_prefix("file://") {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| wrong(&format_args!("{path} cannot be read: {error}")))?,
            None => text.to_owned(),
        };
        let given: DeviceWhitelist = decode_json(read.as_bytes()).map_err(|error| wrong(&error))?;
        let found = AllowedDevice::list(&given).map_err(|error| wrong(&error))?;
        Ok(Self { given, found })
    }
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&encode_json(&self.given)))
    }
}
