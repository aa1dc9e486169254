//! Isolators: what keeps containers apart and within their resources.
//!
//! The agent composes them once by name with [`build`], from the user's `--isolation` list, and walks the composed list at each
//! step of a container's life ([`Isolator`] has the table of steps). Each isolator is one file and knows no other; what those of cgroups
//! share, finding the hierarchies and making, emptying and removing a container's cgroups, is in [`cgroups`].
//!
//! On the way in, an isolator sees a [`ContainerContext`] and adds to a [`Contribution`]; from then on it is told of the
//! container by its id. On the way out it fills in statistics when asked, and reports a [`Limitation`] into one channel that the agent reads.
//!
//! Isolators of somebody else's making are added by [`build_with`]: each is a [`Custom`], be it a type of another crate or a program behind a
//! socket ([`plugin`]).

#![deny(unsafe_code)]

mod builtin;
mod catalogue;
pub mod cgroups;
mod compose;
mod custom;
mod isolator;
pub mod plugin;
pub mod seccomp;
mod volume;

pub use builtin::amounts::fill_limits;
pub use builtin::cgroups_mem::score_of as oom_score_adj;
pub use builtin::disk_xfs::DiskXfsSettings;
pub use builtin::gpu_nvidia::{GpuSettings, count as gpus};
pub use builtin::linux_capabilities::CapabilitiesSettings;
pub use builtin::linux_seccomp::SeccompSettings;
pub use builtin::network_cni::{ContainerDns, ContainerDnsError, Dns, NetworkSettings};
pub use builtin::network_ports::NetworkPortsSettings;
pub use builtin::secrets::resolve as resolve_secret;
pub use builtin::volumes::isolator_of as volume_isolator;
pub use catalogue::known;
pub use compose::{BuildError, Composition, MakeError, Settings, build, build_with};
pub use custom::{Custom, CustomError, Host, Places};
pub use isolator::{
    Answer, BindMount, BoxFuture, ContainerContext, ContainerId, Contribution, Isolator, IsolatorError,
    Limitation, LimitationSender, Limits, Recovered, done,
};
pub use volume::{SecretBytes, VolumeMount, VolumeSettings, VolumeSource, VolumeTarget};
