//! `tepui run`: one command, run as a task, from anywhere to its exit code.
//!
//! [`args`] says what is wanted; [`embedded`] starts a coordinator and an agent when none is named;
//! [`framework`] is the scheduler that launches the task and follows it, with [`output`] showing what the
//! task prints and [`progress`] the pull of its image.

pub mod args;
pub mod embedded;
mod fit;
pub mod framework;
mod output;
mod progress;
mod task;

pub use args::RunArgs;
pub use task::EXIT_NOT_RUN;
