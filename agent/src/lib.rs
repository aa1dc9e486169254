//! The agent.
#![allow(missing_docs)]
pub mod core;
pub mod flags;
pub mod link;
pub mod resources;
pub mod sandbox;
pub mod store;
