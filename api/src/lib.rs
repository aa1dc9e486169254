//! The Mesos v1 API as Rust types, and what every speaker of it needs.
//!
//! Bytes come in through [`http`] (which media type, how large) and [`codec`] (JSON or protobuf into
//! a message of [`v1`], with Mesos' rules); streams of them through [`recordio`]. [`resources`] is
//! the arithmetic by which offers are made and charged. [`client`] is the other end, for
//! frameworks, tools and tests. [`link`] holds what coordinator and agent say to each other.
//!
//! The `.proto` files under `proto/` are the only place where names, numbers and types stand.

pub mod client;
pub mod codec;
pub mod http;
pub mod ids;
pub mod json;
pub mod recordio;
pub mod resources;
mod shape;
#[cfg(test)]
mod tests;
pub mod units;

/// The generated messages, by their protobuf package.
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::nursery)]
pub mod types {
    include!(concat!(env!("OUT_DIR"), "/_includes.rs"));
}

pub use types::mesos::v1;
pub use types::tepui::link::v1 as link;

pub use codec::{DecodeError, MediaType, Wire, decode, encode};
