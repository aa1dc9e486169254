//! Weights of roles.

use std::time::Duration;

use tepui_api::v1::WeightInfo;
use tepui_api::v1::scheduler::event;

use super::super::*;
use super::running::*;
use super::world::*;

fn update(weights: &[(&str, f64)]) -> OperatorCall {
    let info = |(role, weight): &(&str, f64)| WeightInfo { role: Some((*role).to_owned()), weight: *weight };
    OperatorCall::UpdateWeights(weights.iter().map(info).collect())
}

#[test]
fn weights_are_written_and_offers_of_their_roles_taken_back() {
    let mut s = running(|i| i.role = Some("eng/a".into()));
    s.world.wait(Duration::from_secs(6));
    assert_eq!(s.world.offers(s.stream).len(), 1);
    assert_eq!(s.world.operator(update(&[("other", 2.0)])), Reply::Ok);
    assert!(s.world.take(s.stream, event::Type::Rescind).is_empty(), "nobody is in that role");
    assert_eq!(s.world.operator(update(&[(" eng ", 3.0), ("other", 4.0)])), Reply::Ok);
    assert_eq!(s.world.take(s.stream, event::Type::Rescind).len(), 1);
    let written = RegistryChange::Weights(vec![("eng".into(), 3.0), ("other".into(), 4.0)]);
    assert_eq!(s.world.persisted.last(), Some(&written));
    let weights = s.world.core.snapshot().weights;
    assert_eq!(weights.into_iter().collect::<Vec<_>>(), [("eng".to_owned(), 3.0), ("other".to_owned(), 4.0)]);
    s.world.wait(Duration::from_secs(2));
    assert_eq!(s.world.offers(s.stream).len(), 1);
}

#[test]
fn wrong_weights_change_nothing() {
    let mut world =
        World::with(Settings { roles: Some(vec!["known".into()]), ..settings() }, Recovered::default());
    for wrong in [("known", 0.0), ("known", -1.0), ("known", f64::NAN), ("unknown", 1.0), ("a b", 1.0)] {
        let reply = world.operator(update(&[("known", 2.0), wrong]));
        assert!(matches!(reply, Reply::Refused { status: 400, .. }), "{wrong:?}: {reply:?}");
    }
    assert!(world.persisted.is_empty() && world.core.snapshot().weights.is_empty());
    assert_eq!(world.operator(update(&[("known", 2.0), ("*", 3.0)])), Reply::Ok);
}

#[test]
fn weights_of_the_registry_count_before_those_of_the_flags() {
    let with_flags = || Settings { weights: vec![("flag".into(), 2.0)], ..settings() };
    let weights = |world: &World| world.core.snapshot().weights.into_iter().collect::<Vec<_>>();
    let mut world = World::with(with_flags(), Recovered::default());
    world.wait(Duration::from_secs(1));
    assert_eq!(weights(&world), [("flag".to_owned(), 2.0)]);
    assert_eq!(world.persisted, [RegistryChange::Weights(vec![("flag".into(), 2.0)])]);
    let recovered = Recovered { weights: vec![("kept".into(), 5.0)], ..Recovered::default() };
    let mut world = World::with(with_flags(), recovered);
    world.wait(Duration::from_secs(1));
    assert_eq!(weights(&world), [("kept".to_owned(), 5.0)]);
    assert_eq!(world.persisted, []);
}

#[test]
fn a_role_with_more_weight_gets_more() {
    let mut world = World::new();
    let (heavy, _) = world.framework(info(|i| i.role = Some("heavy".into())));
    let (light, _) = world.framework(info(|i| i.role = Some("light".into())));
    assert_eq!(world.operator(update(&[("heavy", 3.0)])), Reply::Ok);
    for n in 1..=8 {
        world.agent(&"x".repeat(n), "cpus:1;mem:100");
        world.soon();
    }
    let (heavy, light) = (world.offers(heavy).len(), world.offers(light).len());
    assert_eq!((heavy, light), (6, 2));
}
