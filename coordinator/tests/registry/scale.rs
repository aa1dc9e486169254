//! 50,000 agents, and single entries beyond all that is usual.

use std::time::Instant;

use tepui_api::v1::{AgentId, AgentInfo, Attribute, Resource, TimeInfo, value};
use tepui_coordinator::core::RegistryChange;
use tepui_coordinator::registry::{FileRegistry, Registry};

use crate::agent;
use crate::server::ZooKeeper;

const AGENTS: usize = 50_000;
/// What the registry's thread writes at once.
const BATCH: usize = 4096;

#[test]
fn fifty_thousand_agents_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    fifty_thousand("file", |_| Box::new(FileRegistry::open(dir.path()).unwrap()));
}

#[test]
fn fifty_thousand_agents_in_zookeeper() {
    let zookeeper = ZooKeeper::start();
    fifty_thousand("zookeeper", |term| Box::new(zookeeper.registry(term)));
}

fn fifty_thousand(name: &str, open: impl Fn(&str) -> Box<dyn Registry>) {
    let agents: Vec<AgentInfo> = (0..AGENTS).map(an_agent_as_they_are).collect();
    let one = prost::Message::encoded_len(&agents[AGENTS / 2]);
    let changes: Vec<RegistryChange> = agents.iter().cloned().map(RegistryChange::Admit).collect();

    let mut first = open("first");
    assert_eq!(first.recover().unwrap().admitted.len(), 0);
    let begun = Instant::now();
    let mut longest = begun.elapsed();
    for batch in changes.chunks(BATCH) {
        let begun = Instant::now();
        first.write(batch).unwrap();
        longest = longest.max(begun.elapsed());
    }
    let written = begun.elapsed();
    let size = first.size().unwrap();
    // One at a time, as they come when nothing else is going on.
    let begun = Instant::now();
    for info in &agents[..50] {
        first.write(&[RegistryChange::Update(info.clone())]).unwrap();
    }
    let single = begun.elapsed() / 50;
    drop(first);

    let begun = Instant::now();
    let mut second = open("second");
    let recovered = second.recover().unwrap();
    let read = begun.elapsed();
    println!(
        "registry in {name}: {AGENTS} agents of {one} bytes, {size} bytes in all; written in {written:.2?} by batches \
         of {BATCH} (the longest {longest:.2?}), one alone in {single:.2?}; read back by a new term in {read:.2?}"
    );
    let id = |info: &AgentInfo| info.id.clone();
    let mut sorted = agents;
    sorted.sort_by_key(id);
    assert!(recovered.admitted == sorted, "what was read is what was written");

    // All of them fall silent, and are forgotten by one change.
    let since = TimeInfo { nanoseconds: 1 };
    let ids: Vec<AgentId> = sorted.iter().filter_map(id).collect();
    let begun = Instant::now();
    let silent = |agent: &AgentId| RegistryChange::Unreachable { agent: agent.clone(), since };
    let silent: Vec<RegistryChange> = ids.iter().map(silent).collect();
    second.write(&silent).unwrap();
    second.write(&[RegistryChange::Forget(ids)]).unwrap();
    println!("registry in {name}: all unreachable and forgotten in {:.2?}", begun.elapsed());
    let left = second.recover().unwrap();
    assert!(left.admitted.is_empty() && left.unreachable.is_empty());
}

/// With resources and attributes as machines of a cluster have them.
fn an_agent_as_they_are(number: usize) -> AgentInfo {
    let scalar = |name: &str, amount: f64| Resource {
        name: name.to_owned(),
        r#type: value::Type::Scalar.into(),
        scalar: Some(value::Scalar { value: amount }),
        ..Resource::default()
    };
    let text = |name: String| Attribute {
        name,
        r#type: value::Type::Text.into(),
        text: Some(value::Text {
            value: format!("some text about machine {number} that schedulers look at"),
        }),
        ..Attribute::default()
    };
    AgentInfo {
        port: Some(5051),
        resources: vec![
            scalar("cpus", 64.0),
            scalar("mem", 262_144.0),
            scalar("disk", 1_000_000.0),
            scalar("gpus", 4.0),
        ],
        attributes: (0..12).map(|i| text(format!("attribute_{i}"))).collect(),
        ..agent(
            &format!("1f7c5d1e-74ab-4a3c-9b53-1d4a2b4f6a70-S{number}"),
            &format!("node-{number}.example.org"),
        )
    }
}

#[test]
fn a_large_entry_is_kept_in_zookeeper() {
    let zookeeper = ZooKeeper::start();
    let mut registry = zookeeper.registry("first");
    let large = |letter: &str, kib: usize| agent("large", &letter.repeat(kib * 1024));
    for change in [
        RegistryChange::Admit(large("a", 3000)),
        RegistryChange::Update(large("b", 2500)),
        RegistryChange::Update(large("c", 1)),
        RegistryChange::Update(large("d", 200)),
    ] {
        registry.write(&[RegistryChange::Admit(agent("small", "s")), change.clone()]).unwrap();
        let (RegistryChange::Admit(info) | RegistryChange::Update(info)) = change else { unreachable!() };
        for registry in [&mut registry, &mut zookeeper.registry("reader")] {
            assert!(registry.recover().unwrap().admitted == [info.clone(), agent("small", "s")]);
        }
        registry = zookeeper.registry("next");
    }
    registry.write(&[RegistryChange::Remove(AgentId::new("large"))]).unwrap();
    assert_eq!(registry.recover().unwrap().admitted, [agent("small", "s")]);
    assert!(registry.size().unwrap() < 100);
}

#[test]
fn odd_ids_are_kept_in_zookeeper() {
    let zookeeper = ZooKeeper::start();
    let mut registry = zookeeper.registry("first");
    let ids = [".", "..", "a/b", "a~0.0", "\u{7f}", "zookeeper", "\u{1f4a9}", &"long".repeat(5000)];
    let changes: Vec<_> = ids.iter().map(|id| RegistryChange::Admit(agent(id, "host"))).collect();
    registry.write(&changes).unwrap();
    let mut expected = ids.map(|id| agent(id, "host"));
    expected.sort_by_key(|info| info.id.clone());
    assert_eq!(zookeeper.registry("second").recover().unwrap().admitted, expected);
}
