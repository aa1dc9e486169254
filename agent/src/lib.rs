//! The agent: it offers its machine to a coordinator and runs tasks in containers.
//!
//! The way of a task, which is also the way to read this crate:
//!
//! 1. [`link`] keeps a stream to the coordinator open. A `RunTask` comes in; the shell ([`shell`]), the one task that owns the
//!    core, hands it over.
//! 2. [`core`] decides: a pure state machine without clock, disk or socket. It wants the task's record stored and its container
//!    prepared, both at once.
//! 3. [`store`] writes the record, together with whatever else waits, and confirms it once it is on disk.
//!    [`sandbox`] makes the directory; the [`fetcher`] puts into it what the task names; the containerizer fetches the image, asks every isolator for its part, and makes
//!    the container.
//! 4. Both are done: `TASK_STARTING` is stored and sent, the container is started over a shim process of its own;
//!    it runs: `TASK_RUNNING`.
//! 5. The first process ends. The terminal update is stored at once and sent when nothing is left of the container, and
//!    again until the framework's acknowledgement has come back over the link. Then the store forgets the task.
//!
//! While a task runs, the shell asks its checks ([`checks`]) when the core says so, and the core tells what they find.
//!
//! [`http`] answers readers from snapshots of the core and from the sandboxes. [`flags`], [`resources`] and [`gpus`], [`identity`] and [`reconfiguration`] say what
//! the agent was told, what it has, how it shows itself, and what of it may change; [`agent`] puts all together and is the way in: [`start`], or [`Agent::builder`] for an agent
//! with isolators of one's own.
//!
//! An agent that is stopped, or killed at any instant, leaves its containers running. The next one with its work directory finds
//! them by the store, takes them over and reports what ended meanwhile.

mod agent;
mod by_call;
pub mod checks;
pub mod containerizer;
pub mod core;
mod fetcher;
pub mod flags;
mod gpus;
mod http;
mod identity;
mod link;
mod reconfiguration;
mod resources;
mod sandbox;
mod shell;
mod store;

pub use agent::{Agent, Builder, RunError, Running, StartError, start};
pub use core::End;
