//! What survives: a coordinator that starts again, and a registry whose process is killed.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::agent::{Connection, register};
use crate::support::raw::{get, post_json};
use crate::support::scheduler::{Scheduler, info};
use crate::support::settings;
use tepui_api::MediaType;
use tepui_api::v1::{AgentId, AgentInfo};
use tepui_coordinator::core::RegistryChange;
use tepui_coordinator::registry::{FileRegistry, Registry as _};
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

/// Admits agents for ever, and says of each when it is on disk.
#[test]
#[ignore = "run by the test below, which kills it"]
fn admit_for_ever() {
    let Some(dir) = std::env::var_os("TEPUI_TEST_REGISTRY") else { return };
    let mut registry = FileRegistry::open(Path::new(&dir)).unwrap();
    for number in 0.. {
        let id = AgentId::new(format!("{number:08}"));
        let info = AgentInfo { hostname: "h".repeat(100), id: Some(id.clone()), ..AgentInfo::default() };
        registry.write(&[RegistryChange::Admit(info)]).unwrap();
        println!("\nadmitted {id}");
    }
}

#[test]
fn what_was_written_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut known = 0;
    for round in 0..5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "restart::admit_for_ever", "--ignored", "--nocapture"])
            .env("TEPUI_TEST_REGISTRY", dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let admitted = lines.filter_map(|line| Some(line.ok()?.strip_prefix("admitted ")?.to_owned()));
        let last = admitted.take(20 + 7 * round).last().unwrap();
        // SIGKILL, at whatever instant this is.
        child.kill().unwrap();
        child.wait().unwrap();
        let recovered = FileRegistry::open(dir.path()).unwrap().recover().unwrap();
        let ids: Vec<&str> =
            recovered.admitted.iter().map(|agent| agent.id.as_ref().unwrap().as_str()).collect();
        assert!(ids.contains(&last.as_str()), "{last} was on disk");
        assert!(ids.len() >= known, "nothing is lost later");
        known = ids.len();
    }
}
