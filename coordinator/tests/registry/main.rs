//! The registry's stores as the coordinator sees them, against real disks and a real ZooKeeper (Debian's
//! `libzookeeper-java`), whose server and whose writers are killed.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod contract;
mod kills;
mod scale;
mod server;
mod zookeeper;

use tepui_api::v1::{AgentId, AgentInfo};

/// An agent that is told from others by its id and its host's name.
fn agent(id: &str, hostname: &str) -> AgentInfo {
    AgentInfo { hostname: hostname.to_owned(), id: Some(AgentId::new(id)), ..AgentInfo::default() }
}
