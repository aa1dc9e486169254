//! What every store must do.

use tepui_api::v1::{AgentId, TimeInfo};
use tepui_coordinator::core::RegistryChange;
use tepui_coordinator::registry::{FileRegistry, MemoryRegistry, Registry};

use crate::agent;
use crate::server::ZooKeeper;

#[test]
fn the_memory_keeps_what_it_is_told() {
    keeps_what_it_is_told(&mut MemoryRegistry::default());
}

#[test]
fn a_file_keeps_what_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    keeps_what_it_is_told(&mut FileRegistry::open(dir.path()).unwrap());
}

#[test]
fn zookeeper_keeps_what_it_is_told() {
    let zookeeper = ZooKeeper::start();
    keeps_what_it_is_told(&mut zookeeper.registry("first"));
    let mut second = zookeeper.registry("second");
    assert_eq!(names(&mut second), (vec!["b@two".to_owned()], vec![]));
    second.write(&[RegistryChange::Remove(AgentId::new("b"))]).unwrap();
    keeps_what_it_is_told(&mut second);
}

fn names(registry: &mut dyn Registry) -> (Vec<String>, Vec<String>) {
    let recovered = registry.recover().unwrap();
    let admitted = recovered.admitted.iter().map(|a| format!("{}@{}", a.id.as_ref().unwrap(), a.hostname));
    let unreachable = recovered.unreachable.iter().map(|(id, at)| format!("{id}@{}", at.nanoseconds));
    (admitted.collect(), unreachable.collect())
}

fn keeps_what_it_is_told(registry: &mut dyn Registry) {
    let since = TimeInfo { nanoseconds: 7 };
    let unreachable = |id: &str| RegistryChange::Unreachable { agent: AgentId::new(id), since };
    assert_eq!(names(registry), (vec![], vec![]));
    registry
        .write(&[
            RegistryChange::Admit(agent("a", "one")),
            RegistryChange::Admit(agent("b", "two")),
            RegistryChange::Admit(agent("c", "three")),
            RegistryChange::Update(agent("a", "changed")),
            unreachable("b"),
            unreachable("c"),
        ])
        .unwrap();
    assert_eq!(names(registry), (vec!["a@changed".to_owned()], vec!["b@7".to_owned(), "c@7".to_owned()]));
    registry
        .write(&[
            RegistryChange::Reachable(agent("b", "two")),
            RegistryChange::Forget(vec![AgentId::new("c"), AgentId::new("unknown"), AgentId::new("c")]),
            RegistryChange::Remove(AgentId::new("a")),
            RegistryChange::Remove(AgentId::new("unknown")),
        ])
        .unwrap();
    assert_eq!(names(registry), (vec!["b@two".to_owned()], vec![]));
    registry.write(&[]).unwrap();
}
