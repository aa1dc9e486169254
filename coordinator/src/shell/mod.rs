//! Everything around the pure core that is not HTTP: its thread, its queues and its disk.
//!
//! [`CoreHandle`] is how the rest speaks to the core. Requests go over one channel to the core's
//! thread ([`core_thread`]), which runs [`Core::step`](crate::core::Core::step) and hands each output to
//! whom it is for: a reply to the waiting handler, an event or frame to the queue of its stream or
//! link, a change to the registry's thread ([`registry_thread`]), which answers once it is on disk. At
//! the other end of a queue a [`pump`] turns messages into records, on its own task, and puts them
//! into an [`outbox`], from which the HTTP body takes them as fast as the client reads.

mod core_thread;
mod handle;
pub(crate) mod outbox;
pub(crate) mod pump;
mod registry_thread;

pub(crate) use core_thread::CoreThread;
pub(crate) use handle::{CoreGone, CoreHandle, LinkGuard, Request};
pub(crate) use registry_thread::{RegistryStats, RegistryThread};
