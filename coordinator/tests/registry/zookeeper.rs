//! Terms in ZooKeeper: who may write, and what is refused.

use std::time::{Duration, Instant};

use tepui_coordinator::core::RegistryChange;
use tepui_coordinator::registry::{Registry as _, RegistryError, Term, ZooKeeperRegistry};
use tepui_zookeeper::SessionError;
use tepui_zookeeper::client::{Acls, Client, CreateMode};

use crate::agent;
use crate::server::{ZooKeeper, open, runtime, url};

const ROOT: &str = "/tepui/of this test/log_replicas";

fn admit(id: &str) -> [RegistryChange; 1] {
    [RegistryChange::Admit(agent(id, "host"))]
}

fn ids(registry: &mut ZooKeeperRegistry) -> Vec<String> {
    let admitted = registry.recover().unwrap().admitted;
    admitted.iter().map(|info| info.id.as_ref().unwrap().value.clone()).collect()
}

/// As somebody else.
fn client(zookeeper: &ZooKeeper) -> Client {
    runtime().block_on(Client::connect(&zookeeper.servers())).unwrap()
}

fn make(client: &Client, path: &str, data: &str) {
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    runtime().block_on(client.create(path, data.as_bytes(), &options)).unwrap();
}

#[test]
fn a_stale_leader_cannot_write() {
    let zookeeper = ZooKeeper::start();
    let mut first = zookeeper.registry("first");
    first.write(&admit("a")).unwrap();
    let mut second = zookeeper.registry("second");
    assert_eq!(ids(&mut second), ["a"]);
    // It has no idea, and its session is as good as ever.
    for _ in 0..2 {
        let refused = first.write(&admit("stale")).unwrap_err();
        assert!(matches!(&refused, RegistryError::Deposed { by, .. } if by == "second"), "{refused}");
        assert!(refused.to_string().contains("leads no more"), "{refused}");
    }
    second.write(&admit("b")).unwrap();
    assert_eq!(ids(&mut second), ["a", "b"]);
    // The same term's id does not help either.
    let mut third = zookeeper.registry("second");
    assert!(matches!(second.write(&admit("stale")), Err(RegistryError::Deposed { .. })));
    assert_eq!(ids(&mut third), ["a", "b"]);
}

#[test]
fn who_is_not_elected_any_more_deposes_nobody() {
    let zookeeper = ZooKeeper::start();
    let other = client(&zookeeper);
    let begin = |node: &str| {
        let term = Term { id: node, elected_by: Some(node) };
        let timeout = Duration::from_secs(20);
        ZooKeeperRegistry::open(&zookeeper.url(), timeout, term, runtime().handle().clone())
    };
    make(&other, "/elected-1", "");
    let mut leader = begin("/elected-1").unwrap();
    let refused = begin("/elected-0").unwrap_err();
    assert!(matches!(refused, RegistryError::NotElected { .. }), "{refused}");
    leader.write(&admit("a")).unwrap();
    assert_eq!(ids(&mut leader), ["a"]);
}

#[test]
fn what_a_crash_left_over_is_removed() {
    let zookeeper = ZooKeeper::start();
    zookeeper.registry("first").write(&admit("a")).unwrap();
    let other = client(&zookeeper);
    let bucket = format!("{ROOT}/admitted/ca");
    make(&other, &format!("{bucket}/a~7.0"), "part");
    make(&other, &format!("{bucket}/b~0.0"), "part");
    assert_eq!(ids(&mut zookeeper.registry("second")), ["a"]);
    assert_eq!(runtime().block_on(other.list_children(&bucket)).unwrap(), ["a"]);
}

#[test]
fn what_a_newer_version_wrote_is_refused() {
    let zookeeper = ZooKeeper::start();
    drop(zookeeper.registry("first"));
    let other = client(&zookeeper);
    make(&other, &format!("{ROOT}/later"), "");
    let refused = zookeeper.try_registry("second").unwrap_err();
    assert!(matches!(&refused, RegistryError::UnknownTable { table, .. } if table == "later"), "{refused}");
    for (data, words) in [("{\"format\":2}", "has format 2"), ("host", "is no registry")] {
        runtime().block_on(other.set_data(ROOT, data.as_bytes(), None)).unwrap();
        let refused = zookeeper.try_registry("second").unwrap_err();
        assert!(refused.to_string().contains(words), "{refused}");
    }
}

#[test]
fn a_damaged_entry_is_named() {
    let zookeeper = ZooKeeper::start();
    let mut registry = zookeeper.registry("first");
    registry.write(&admit("a")).unwrap();
    let path = format!("{ROOT}/admitted/ca/a");
    runtime().block_on(client(&zookeeper).set_data(&path, b"\xff", None)).unwrap();
    let refused = registry.recover().unwrap_err();
    assert!(refused.to_string().contains(&path), "{refused}");
}

#[test]
fn nobody_else_may_write_where_there_is_a_password() {
    let zookeeper = ZooKeeper::start();
    let place = |credentials: &str| url(&format!("{credentials}{}", zookeeper.servers()));
    let timeout = Duration::from_secs(20);
    let mut own = open(&place("tepui:secret@"), timeout, "first").unwrap();
    own.write(&admit("a")).unwrap();
    for credentials in ["", "tepui:wrong@"] {
        let refused = open(&place(credentials), timeout, "second").unwrap_err();
        assert!(refused.to_string().contains("password"), "{refused}");
        assert!(!refused.to_string().contains("wrong"), "{refused}");
    }
    own.write(&admit("b")).unwrap();
    assert_eq!(ids(&mut open(&place("tepui:secret@"), timeout, "third").unwrap()), ["a", "b"]);
}

#[test]
fn a_session_that_has_ended_ends_the_term() {
    let mut zookeeper = ZooKeeper::start();
    let timeout = Duration::from_secs(2);
    let mut registry = open(&zookeeper.url(), timeout, "first").unwrap();
    registry.write(&admit("a")).unwrap();
    zookeeper.kill();
    let begun = Instant::now();
    let ended = registry.write(&admit("b")).unwrap_err();
    let RegistryError::ZooKeeper { error, .. } = &ended else { panic!("{ended}") };
    assert!(matches!(**error, SessionError::Ended { .. }), "{ended}");
    assert!(begun.elapsed() < 5 * timeout, "{:?}", begun.elapsed());
    let unreached = open(&zookeeper.url(), timeout, "second").unwrap_err();
    assert!(unreached.to_string().contains("check that ZooKeeper runs"), "{unreached}");
}
