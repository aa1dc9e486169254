//! `POST /tepui/v1/link`: agents that come, go, and say nonsense.

use crate::support::agent::{Connection, Ended, register};
use crate::support::raw::{get, post_json, request};
use crate::support::scheduler::{Scheduler, info};
use crate::support::{coordinator, settings, until};
use tepui_api::MediaType;
use tepui_api::v1::scheduler::event;
use tepui_coordinator::{Running, Settings, start};

const RESOURCES: &str = "cpus:2;mem:1024";

async fn agents(running: &Running) -> serde_json::Value {
    post_json(running, "/api/v1", r#"{"type":"GET_AGENTS"}"#).await.json()["get_agents"].clone()
}

#[tokio::test]
async fn a_link_needs_post_and_http_2() {
    let running = coordinator().await;
    assert_eq!(get(&running, "/tepui/v1/link").await.status, 405);
    let answer = request(&running, "POST", "/tepui/v1/link", &[], "").await;
    assert_eq!(answer.status, 505, "{}", answer.text());
    running.stop().await.unwrap();
}

#[tokio::test]
async fn several_links_share_a_connection() {
    let running = coordinator().await;
    let mut connection = Connection::open(&running).await;
    let mut links = Vec::new();
    for number in 0..300 {
        let mut link = connection.link().await.unwrap();
        link.register(register(
            &format!("host{number:0>width$}", width = 1 + number),
            RESOURCES,
            None,
            vec![],
        ))
        .await;
        links.push(link);
    }
    let listed = agents(&running).await;
    assert_eq!(listed["agents"].as_array().unwrap().len(), 300);
    // One goes; the others stay.
    drop(links.pop());
    until("one agent to be away", || async {
        let listed = agents(&running).await;
        let active =
            listed["agents"].as_array().unwrap().iter().filter(|agent| agent["active"] == true).count();
        (active == 299).then_some(())
    })
    .await;
    running.stop().await.unwrap();
}

#[tokio::test]
async fn nonsense_ends_the_link_and_nothing_else() {
    let running = coordinator().await;
    let mut connection = Connection::open(&running).await;
    let mut good = connection.link().await.unwrap();
    good.register(register("good", RESOURCES, None, vec![])).await;
    for nonsense in [b"hello\n".as_slice(), b"3\n\xff\xff\xff", b"99999999999\n"] {
        let mut bad = connection.link().await.unwrap();
        bad.send_bytes(nonsense);
        assert_eq!(bad.next().await.map(drop), Err(Ended));
    }
    assert_eq!(agents(&running).await["agents"][0]["active"], true);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn an_agent_that_comes_back_is_the_same_one() {
    let running = coordinator().await;
    let mut connection = Connection::open(&running).await;
    let mut link = connection.link().await.unwrap();
    let id = link.register(register("back", RESOURCES, None, vec![])).await.agent_id;
    connection.cut();
    drop(link);
    let mut scheduler = Scheduler::subscribe(&running, MediaType::Json, info("waits")).await;
    let mut connection = Connection::open(&running).await;
    let mut link = connection.link().await.unwrap();
    let again = link.register(register("back", RESOURCES, Some(id.clone()), vec![])).await.agent_id;
    assert_eq!(again, id);
    assert_eq!(scheduler.offer().await.agent_id, id);
    let listed = agents(&running).await;
    assert_eq!(listed["agents"].as_array().unwrap().len(), 1);
    assert!(listed["agents"][0]["reregistered_time"]["nanoseconds"].is_u64());
    running.stop().await.unwrap();
}

#[tokio::test]
async fn an_agent_that_is_silent_is_lost() {
    let quick = std::time::Duration::from_millis(100).into();
    let running = start(Settings { agent_ping_timeout: quick, max_agent_ping_timeouts: 2, ..settings() })
        .await
        .unwrap();
    let mut scheduler = Scheduler::subscribe(&running, MediaType::Json, info("watches")).await;
    let mut connection = Connection::open(&running).await;
    let mut link = connection.link().await.unwrap();
    let id = link.register(register("silent", RESOURCES, None, vec![])).await.agent_id;
    let offer = scheduler.offer().await;
    let rescind = scheduler.event(event::Type::Rescind).await.rescind.unwrap();
    assert_eq!(rescind.offer_id, offer.id);
    let failure = scheduler.event(event::Type::Failure).await.failure.unwrap();
    assert_eq!(failure.agent_id, Some(id));
    assert_eq!(get(&running, "/master/state").await.json()["unreachable_slaves"], 1.0);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_coordinator_that_stops_ends_links_and_streams() {
    let running = coordinator().await;
    let mut connection = Connection::open(&running).await;
    let mut link = connection.link().await.unwrap();
    link.register(register("stays", RESOURCES, None, vec![])).await;
    let mut scheduler = Scheduler::subscribe(&running, MediaType::Json, info("stays")).await;
    let address = running.address();
    crate::support::in_time("the end", running.stop()).await.unwrap();
    assert_eq!(link.next().await.map(drop), Err(Ended));
    crate::support::in_time("the stream's end", async { while scheduler.stream.next().await.is_ok() {} })
        .await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens");
}
