//! The agent.
#![allow(missing_docs)]
pub mod core;
pub mod sandbox;
