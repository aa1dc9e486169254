//! Containers: from what a task asks for to processes, and back to the last directory removed.
//!
//! How a container comes to be, and which file tells that part:
//!
//! ```text
//!  ContainerConfig ([config])
//!      │ prepare
//!      ├── [native::image]    the image is pulled ([pulls] tells how far) and its layers found
//!      ├── isolators          make cgroups, add to the OCI runtime spec
//!      ├── [native::user]     who the program runs as
//!      ├── [native::command], [native::spec]   what runs, in which environment, and on which root file system
//!      └── [native::layout]   config.json and launch.json in <runtime_dir>/containers/<id>
//!      │ start
//!      └── [native::shim]     the zygote forks a shim; a small tokio task reads its connection from here on
//!      │ the program ends, or an isolator reports a limitation
//!      └── Exited             one event a container
//!      │ destroy
//!      └── [native::destroy]  processes, cgroups and directories go
//! ```
//!
//! Containers of type DOCKER are made by an engine instead ([docker]); [composing] says whose a container is.
//! An agent that starts anew finds its containers again by their runtime directories ([native::recover]).
//! [adapter] is how the agent's shell calls all this.

mod adapter;
mod composing;
mod config;
pub mod docker;
mod error;
pub mod logger;
pub mod native;
mod pulls;

pub(crate) use adapter::{forward, merged};
pub(crate) use composing::Composing;
pub use config::ContainerConfig;
pub use error::{DestroyError, PrepareError, RecoverError, SetupError, StartError, Unsupported, UpdateError};
pub use native::{Exited, Found, NativeContainerizer, Settings};
pub use pulls::Pulls;
