//! What the tests of the coordinator share: one that runs, raw HTTP to it, an agent and a scheduler.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

pub mod agent;
pub mod raw;
pub mod scheduler;

use std::net::Ipv4Addr;
use std::time::Duration;

use tepui_api::MediaType;
use tepui_api::client::Client;
use tepui_coordinator::{RegistryKind, Running, Settings, start};

/// Nothing that is waited for takes longer on a machine that works at all.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Settings of a coordinator on a free port of the loopback interface.
pub fn settings() -> Settings {
    Settings {
        ip: Ipv4Addr::LOCALHOST,
        port: 0,
        registry: RegistryKind::InMemory,
        hostname: Some("127.0.0.1".to_owned()),
        ..Settings::default()
    }
}

/// A coordinator that remembers nothing.
pub async fn coordinator() -> Running {
    start(settings()).await.unwrap()
}

/// `host:port` of a coordinator.
pub fn authority(running: &Running) -> String {
    running.address().to_string()
}

/// A client that speaks JSON.
pub fn client(running: &Running) -> Client {
    Client::new(authority(running), MediaType::Json)
}

/// Fails when the future takes too long.
pub async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(done) => done,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
    }
}

/// Asks again and again until there is an answer.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    in_time(what, async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}
