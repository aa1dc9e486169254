//! Sandboxes: the directory that each container has for itself on the host.

pub mod environment;
pub mod paths;
