//! The coordinator as a plain state machine: no clock, no socket, no lock, no disk.
//!
//! The shell turns what happens into an [`Input`] and calls [`Core::step`]; what is to be done about
//! it comes back as [`Output`]s. Scheduler calls go through `validate` to `frameworks`, `accept`,
//! `offers`, `tasks` and `reconcile`; frames of agents to `agents` and `updates`. Resources are shared
//! out by [`crate::allocator`], which these modules tell of every charge and return. Everything that
//! readers may see is kept in persistent maps, so that a [`Snapshot`] costs next to nothing.

mod agent;
mod framework;
mod io;
mod snapshot;

pub use agent::Agent;
pub use framework::{Connection, Framework};
pub use io::{
    Input, LinkId, Now, OperatorCall, Output, Recovered, RegistryChange, Reply, RequestId, ResponseBody, Settings,
    StreamHeader, StreamId, Ticket,
};
pub use snapshot::{Counters, Snapshot};
