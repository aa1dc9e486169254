//! Isolators against the kernel of this host: real cgroups under a root of their own, real processes in them. Needs root.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod compose;
mod controllers;
mod cpu;
mod delegation;
mod devices;
mod gpu;
mod join;
mod kill;
mod memory;
mod pressure;
mod recovery;
mod seccomp;
mod support;
mod unified;
mod update;
mod volumes;
