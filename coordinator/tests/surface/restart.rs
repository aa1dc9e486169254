//! What survives when a coordinator starts again.

use crate::support::agent::{Connection, register};
use crate::support::raw::{get, post_json};
use crate::support::scheduler::{Scheduler, info};
use crate::support::settings;
use tepui_api::MediaType;
use tepui_coordinator::{RegistryKind, Settings, StartError, start};

#[tokio::test]
async fn a_coordinator_awaits_the_agents_that_it_admitted() {
    let dir = tempfile::tempdir().unwrap();
    let on_disk =
        || Settings { registry: RegistryKind::File, work_dir: Some(dir.path().to_owned()), ..settings() };
    let running = start(on_disk()).await.unwrap();
    let mut connection = Connection::open(&running).await;
    let mut link = connection.link().await.unwrap();
    let id = link.register(register("host", "cpus:1;mem:100", None, vec![])).await.agent_id;
    let metrics = get(&running, "/metrics/snapshot").await.json();
    assert!(metrics["registrar/registry_size_bytes"].as_f64().unwrap() > 0.0);
    assert!(metrics["registrar/state_store_ms"].as_f64().unwrap() > 0.0);
    let second = start(on_disk()).await;
    assert!(matches!(second, Err(StartError::Registry(_))), "two must not share a registry");
    running.stop().await.unwrap();

    let running = start(on_disk()).await.unwrap();
    let agents = post_json(&running, "/api/v1", r#"{"type":"GET_AGENTS"}"#).await.json();
    assert_eq!(agents["get_agents"]["recovered_agents"][0]["id"]["value"], id.value);
    let mut connection = Connection::open(&running).await;
    let mut link = connection.link().await.unwrap();
    let again = link.register(register("host", "cpus:1;mem:100", Some(id.clone()), vec![])).await.agent_id;
    assert_eq!(again, id);
    let mut scheduler = Scheduler::subscribe(&running, MediaType::Json, info("after")).await;
    assert_eq!(scheduler.offer().await.agent_id, id);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_registry_on_disk_needs_a_place() {
    let started = start(Settings { registry: RegistryKind::File, ..settings() }).await;
    assert!(matches!(started, Err(StartError::NoWorkDir)));
}
