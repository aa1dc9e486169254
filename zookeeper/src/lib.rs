//! ZooKeeper, as far as Tepui uses it: who leads, and sessions for the registry.
//!
//! A [`Url`] says where the ensemble is, the path in it, and the credentials. [`Session`] opens a session with
//! them. On it stand a coordinator that wants to lead ([`Candidate`]: an ephemeral, sequential node with its
//! `MasterInfo`, the lowest of which leads), and everybody who wants to know who does ([`Detector`]: follows the
//! lowest node and tells of its `MasterInfo`). The nodes ([`nodes`]) are those of Mesos, so that its detectors and
//! its contenders' nodes are understood, too.
//!
//! Who leads holds a [`Lease`]: a deadline on a clock that only moves forward, pushed on by every transaction that the
//! ensemble confirms ([`Incumbency`]). When it is over, the leader stops acting, whatever it hears from ZooKeeper or
//! does not hear, and that is before the ensemble can let anybody else lead.

mod candidate;
mod detector;
mod incumbency;
mod lease;
pub mod nodes;
mod session;
mod url;

pub use candidate::{Candidate, ContendError};
pub use detector::Detector;
pub use incumbency::{Incumbency, Lost};
pub use lease::Lease;
pub use session::{Session, SessionError};
pub use url::{Url, UrlError, UrlText};

/// The client library, for what is done with a [`Session`].
pub use zookeeper_client as client;
