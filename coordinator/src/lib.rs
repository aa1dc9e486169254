//! The coordinator: pools the machines of a cluster and forwards offers of their resources.
//!
//! [`core`] is the state machine, [`allocator`] its part that shares resources out: plain code without
//! clock, socket or disk. Around it, `shell` owns the core's thread and its queues, `http` the sockets,
//! [`registry`] what must survive, [`election`] who leads. [`start`] puts them together from
//! [`Settings`], which are the flags of `tepui coordinator` as data.
//!
//! The path of a call: `http` decodes it on the connection's task → the core's thread runs one step →
//! a reply to the waiting handler, events into the queues of streams, frames into those of agents'
//! links, changes to the registry's thread. Readers get a snapshot and write it on threads of their own.

pub mod allocator;
pub mod core;
pub mod election;
mod flags;
mod http;
mod identity;
pub mod registry;
mod running;
mod shell;
mod term;

pub use flags::{FlagError, MinAllocatable, NOT_IMPLEMENTED, RegistryKind, Settings, Weights};
pub use identity::API_VERSION;
pub use running::{Failure, Running, StartError, start};
