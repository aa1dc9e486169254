//! A client that does not read: it costs nobody time, and at last its stream.

use std::time::Instant;

use crate::support::raw::{get, open, post_json, request};
use crate::support::scheduler::{PATH, Scheduler, info};
use crate::support::{PATIENCE, coordinator, in_time, until};
use serde_json::json;
use tepui_api::MediaType;
use tokio::io::AsyncReadExt as _;

const JSON: (&str, &str) = ("Content-Type", "application/json");

/// Answers to this are some 20 MB of events.
fn reconcile(framework: &str) -> String {
    let padding = "x".repeat(200);
    let tasks: Vec<_> = (0..40_000)
        .map(|n| json!({"task_id": {"value": format!("{n}-{padding}")}, "agent_id": {"value": "a"}}))
        .collect();
    json!({"type": "RECONCILE", "framework_id": {"value": framework}, "reconcile": {"tasks": tasks}})
        .to_string()
}

#[tokio::test]
async fn a_slow_reader_blocks_nobody_and_is_closed_when_hopeless() {
    let running = coordinator().await;
    let subscribe = json!({"type": "SUBSCRIBE", "subscribe": {"framework_info": {"user": "root", "name": "slow",
        "roles": ["*"], "capabilities": [{"type": "MULTI_ROLE"}], "failover_timeout": 600.0}}});
    let (head, mut unread) = open(&running, PATH, &[JSON], &subscribe.to_string()).await;
    let stream = head.header("Mesos-Stream-Id").unwrap().to_owned();
    let frameworks = || async { get(&running, "/master/frameworks").await.json()["frameworks"][0].clone() };
    let id = frameworks().await["id"].as_str().unwrap().to_owned();

    // Far more than the sockets' buffers, less than the limit: the framework stays.
    let call = reconcile(&id);
    let send = async || request(&running, "POST", PATH, &[JSON, ("Mesos-Stream-Id", &stream)], &call).await;
    assert_eq!(send().await.status, 202);
    let quick = Instant::now();
    Scheduler::subscribe(&running, MediaType::Json, info("quick")).await;
    assert!(quick.elapsed() < PATIENCE / 2, "another waited {:?}", quick.elapsed());
    let mine = post_json(&running, "/api/v1", r#"{"type":"GET_FRAMEWORKS"}"#).await.json();
    let is_slow = |f: &&serde_json::Value| f["framework_info"]["name"] == "slow";
    let all = mine["get_frameworks"]["frameworks"].as_array().unwrap();
    assert_eq!(all.iter().find(is_slow).unwrap()["connected"], true);

    // Beyond the limit it is disconnected.
    until("the slow framework to be given up", || async { (send().await.status == 403).then_some(()) }).await;
    // What it still reads ends.
    let mut rest = vec![0; 1 << 20];
    in_time("the end of the stream", async {
        while matches!(unread.read(&mut rest).await, Ok(read) if read > 0) {
            if rest.windows(7).any(|tail| tail == b"\r\n0\r\n\r\n") {
                return;
            }
        }
    })
    .await;
    running.stop().await.unwrap();
}
