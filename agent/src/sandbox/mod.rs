//! Sandboxes: the directory that each container has for itself on the host.
//!
//! The core decides where one is ([`paths`]) and which variables its task finds ([`environment`]); it is made ([`create`])
//! before the container is prepared, can be read over HTTP as long as it is there ([`files`], under the names
//! of [`attach`]), and is removed some time after its task is over ([`gc`]).

mod attach;
mod create;
pub mod environment;
pub mod files;
pub mod gc;
pub mod paths;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use attach::{attach, attach_all};
pub use create::{SandboxError, create, create_alone, create_nested, link_task};

/// Held while directories that lead to sandboxes are made or removed, so that none is removed from under a sandbox being made.
fn tree() -> MutexGuard<'static, ()> {
    static TREE: Mutex<()> = Mutex::new(());
    TREE.lock().unwrap_or_else(PoisonError::into_inner)
}
