//! Who leads, and what a coordinator does about it.
//!
//! A coordinator that is alone leads from its start to its end. One of several stands for election in ZooKeeper
//! ([`zookeeper`]), again and again: as a candidate it listens and shows the way to the leader; when it is elected it
//! opens the registry, and is the leader of a *term* (`term.rs`) until it loses its lease. Requests are answered by what
//! [`Leadership`] says at that moment.

pub(crate) mod zookeeper;

use std::sync::Arc;

use tepui_api::v1::MasterInfo;

/// Who leads, as far as this coordinator knows.
#[derive(Debug, Clone, PartialEq)]
pub enum Leadership {
    /// This one.
    Own,
    /// This one, but it still reads the registry.
    Recovering,
    /// Another one.
    Other(Arc<MasterInfo>),
    /// Nobody, or nobody known.
    Vacant,
}
