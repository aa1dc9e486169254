//! Isolators against the kernel of this host: real cgroups under a root of their own, real processes in them. Needs root.

mod compose;
mod cpu;
mod kill;
mod memory;
mod recovery;
mod support;
