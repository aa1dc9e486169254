//! The coordinator: pools the machines of a cluster and forwards offers of their resources.
//!
//! [`core`] is the state machine, [`allocator`] its part that shares resources out.

pub mod allocator;
pub mod core;
