//! Who leads: the seam between a coordinator and whatever elects it.
//!
//! A coordinator starts its core once it is elected, and serves requests by what [`Election`] says at
//! that moment: the leader answers, any other redirects to the leader. [`Single`] is the election of a
//! coordinator that is alone.

use std::sync::Arc;

use tepui_api::v1::MasterInfo;
use tokio::sync::watch;

/// Who leads, as far as this coordinator knows.
#[derive(Debug, Clone, PartialEq)]
pub enum Leadership {
    /// This one.
    Own,
    /// Another one.
    Other(Arc<MasterInfo>),
    /// Nobody, or nobody known.
    Vacant,
}

/// Tells who leads.
pub trait Election: Send + Sync {
    /// Always holds the latest that is known.
    fn leadership(&self) -> watch::Receiver<Leadership>;
}

/// The election of a coordinator that is alone: it leads.
#[derive(Debug)]
pub struct Single(watch::Sender<Leadership>);

// === impl Single ===

impl Default for Single {
    fn default() -> Self {
        Self(watch::Sender::new(Leadership::Own))
    }
}

impl Election for Single {
    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.0.subscribe()
    }
}
