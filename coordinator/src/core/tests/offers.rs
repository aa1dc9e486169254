//! Who is offered what, in which form, and when again.

use std::time::Duration;

use tepui_api::v1::framework_info::capability::Type as Capability;
use tepui_api::v1::scheduler::call::{self, Type};
use tepui_api::v1::scheduler::{Call, event};
use tepui_api::v1::{Filters, Offer};

use super::super::*;
use super::world::*;

fn one_offer(world: &mut World, stream: StreamId) -> Offer {
    let mut offers = world.offers(stream);
    assert_eq!(offers.len(), 1);
    offers.remove(0)
}

#[test]
fn an_offer_says_all_about_its_agent() {
    let mut world = World::new();
    let mut register = register("host", "cpus:4;mem:1000;ports:[1-5]");
    register.agent.attributes = tepui_api::resources::parse_attributes("rack:r1").unwrap();
    let link = world.register(register);
    let agent = world.registered(link).agent_id;
    let (stream, id) = world.framework(info(|_| {}));
    world.soon();
    let offer = one_offer(&mut world, stream);
    assert_eq!(offer.id.value, format!("{MASTER}-O0"));
    assert_eq!((offer.framework_id, offer.agent_id), (id, agent));
    assert_eq!(offer.hostname, "host");
    let url = offer.url.unwrap();
    assert_eq!((url.scheme.as_str(), url.path.as_deref()), ("http", Some("/slave(1)")));
    assert_eq!((url.address.ip.as_deref(), url.address.port), (Some("10.0.0.4"), 5051));
    assert_eq!(offer.attributes.len(), 1);
    // Without MULTI_ROLE and RESERVATION_REFINEMENT the oldest form is sent.
    assert_eq!(offer.allocation_info, None);
    for resource in &offer.resources {
        assert_eq!(resource.role.as_deref(), Some("*"));
        assert_eq!(resource.allocation_info, None);
    }
}

#[test]
fn capabilities_choose_the_form() {
    for (capabilities, old_form, marked) in [
        (&[Capability::MultiRole][..], true, true),
        (&[Capability::ReservationRefinement], false, false),
        (&[Capability::MultiRole, Capability::ReservationRefinement], false, true),
    ] {
        let mut world = World::new();
        world.agent("a", "cpus:4;mem:1000");
        let (stream, _) = world.framework(info(|i| {
            with_capabilities(i, capabilities);
            if marked {
                i.roles = vec!["x".into()];
            } else {
                i.role = Some("x".into());
            }
        }));
        world.soon();
        let offer = one_offer(&mut world, stream);
        assert_eq!(offer.allocation_info.is_some(), marked, "{capabilities:?}");
        assert_eq!(offer.resources[0].role.is_some(), old_form, "{capabilities:?}");
        assert_eq!(offer.resources[0].allocation_info.is_some(), marked, "{capabilities:?}");
    }
}

#[test]
fn what_is_declined_waits_for_its_filter() {
    let mut world = World::new();
    world.agent("a", "cpus:4;mem:1000");
    let (stream, id) = world.framework(info(|_| {}));
    // (refuse_seconds, seconds without an offer, seconds by which it has come)
    for (refuse, quiet, by) in [(0.0, 0.0, 1.0), (3.0, 2.9, 4.1), (-1.0, 4.9, 6.1), (0.1, 0.0, 2.1)] {
        world.wait(Duration::from_secs(10));
        let offer = one_offer(&mut world, stream);
        world.call(stream, &id, decline(&offer.id, refuse));
        assert!(world.offers(stream).is_empty(), "never at once");
        world.wait(Duration::from_secs_f64(quiet));
        assert!(world.offers(stream).is_empty(), "{refuse}");
        world.wait(Duration::from_secs_f64(by - quiet));
        let offer = one_offer(&mut world, stream);
        world.call(stream, &id, decline(&offer.id, 0.0));
    }
    // Without filters it is Mesos' default, 5 s.
    world.wait(Duration::from_secs(10));
    let offer = one_offer(&mut world, stream);
    let call = Call {
        decline: Some(call::Decline { offer_ids: vec![offer.id], filters: None }),
        ..of_type(Type::Decline)
    };
    world.call(stream, &id, call);
    world.wait(Duration::from_millis(4900));
    assert!(world.offers(stream).is_empty());
    world.wait(Duration::from_millis(1200));
    assert_eq!(world.offers(stream).len(), 1);
}

#[test]
fn what_one_declines_another_gets() {
    let mut world = World::new();
    world.agent("a", "cpus:4;mem:1000");
    let (first, id) = world.framework(info(|_| {}));
    let (second, _) = world.framework(info(|_| {}));
    world.soon();
    let offer = one_offer(&mut world, first);
    world.call(first, &id, decline(&offer.id, 100.0));
    world.wait(Duration::from_secs(1));
    assert_eq!(world.offers(second).len(), 1);
    assert!(world.offers(first).is_empty());
}

#[test]
fn suppressed_roles_get_nothing_until_revived() {
    let mut world = World::new();
    let (stream, id) = world.framework(info(|_| {}));
    world.call(stream, &id, of_type(Type::Suppress));
    world.agent("a", "cpus:4;mem:1000");
    world.wait(Duration::from_secs(5));
    assert!(world.offers(stream).is_empty());
    world.call(stream, &id, of_type(Type::Revive));
    world.soon();
    let offer = one_offer(&mut world, stream);
    // Reviving also forgets what was declined.
    world.call(stream, &id, decline(&offer.id, 1000.0));
    world.wait(Duration::from_secs(5));
    assert!(world.offers(stream).is_empty());
    world.call(stream, &id, of_type(Type::Revive));
    world.soon();
    assert_eq!(world.offers(stream).len(), 1);
    // A role of others makes the call do nothing.
    let suppress = Call {
        suppress: Some(call::Suppress { roles: vec!["*".into(), "other".into()] }),
        ..of_type(Type::Suppress)
    };
    assert_eq!(world.call(stream, &id, suppress), Reply::Accepted);
    assert_eq!(world.core.allocator.suppressed(world.core.framework(&id).unwrap().key).unwrap().len(), 0);
}

#[test]
fn roles_can_be_suppressed_from_the_start() {
    let mut world = World::new();
    world.agent("a", "cpus:4;mem:1000");
    let stream = StreamId(uuid::Uuid::from_u128(9));
    let framework_info = info(|i| {
        with_capabilities(i, &[Capability::MultiRole]);
        i.roles = vec!["x".into(), "y".into()];
    });
    let subscribe =
        call::Subscribe { framework_info, suppressed_roles: vec!["x".into()], ..Default::default() };
    let call = Call { subscribe: Some(subscribe), ..of_type(Type::Subscribe) };
    world.step(Input::Subscribe { request: RequestId(0), stream, call });
    world.soon();
    let offer = one_offer(&mut world, stream);
    assert_eq!(offer.allocation_info.unwrap().role.as_deref(), Some("y"));
}

#[test]
fn reserved_resources_go_to_their_role_and_those_below() {
    let mut world = World::new();
    world.agent("a", "cpus(eng):4;mem(eng):1000");
    let in_role = |role: &str| info(|i| i.role = Some(role.to_owned()));
    let (other, _) = world.framework(in_role("ops"));
    let (default, _) = world.framework(in_role("*"));
    world.wait(Duration::from_secs(3));
    assert!(world.offers(other).is_empty() && world.offers(default).is_empty());
    let (below, id) = world.framework(in_role("eng/web"));
    world.soon();
    let offer = one_offer(&mut world, below);
    assert_eq!(offer.resources[0].role.as_deref(), Some("eng"));
    world.call(below, &id, decline(&offer.id, 100.0));
    let (own, _) = world.framework(in_role("eng"));
    world.wait(Duration::from_secs(1));
    assert_eq!(world.offers(own).len(), 1);
}

#[test]
fn agents_with_gpus_are_for_those_that_know_them() {
    let mut world = World::new();
    world.agent("a", "cpus:4;mem:1000;gpus:1");
    let (plain, _) = world.framework(info(|_| {}));
    world.wait(Duration::from_secs(2));
    assert!(world.offers(plain).is_empty());
    let (knows, _) = world.framework(info(|i| with_capabilities(i, &[Capability::GpuResources])));
    world.soon();
    assert_eq!(world.offers(knows).len(), 1);
}

#[test]
fn too_little_is_not_offered() {
    let mut world = World::new();
    world.agent("a", "cpus:0.009;mem:31");
    let (stream, _) = world.framework(info(|_| {}));
    world.wait(Duration::from_secs(2));
    assert!(world.offers(stream).is_empty());
    world.agent("bb", "cpus:0.01");
    world.agent("ccc", "mem:32");
    world.soon();
    assert_eq!(world.offers(stream).len(), 2);
}

#[test]
fn shares_are_fair() {
    let mut world = World::new();
    let (one, _) = world.framework(info(|_| {}));
    let (two, _) = world.framework(info(|_| {}));
    for n in 0..10 {
        let name = "a".repeat(n + 1);
        world.agent(&name, "cpus:4;mem:1000");
        world.soon();
    }
    assert_eq!(world.offers(one).len(), 5);
    assert_eq!(world.offers(two).len(), 5);
}

#[test]
fn an_unanswered_offer_is_rescinded_in_time() {
    let timeout = Some(Duration::from_secs(7));
    let mut world = World::with(Settings { offer_timeout: timeout, ..settings() }, Recovered::default());
    world.agent("a", "cpus:4;mem:1000");
    let (stream, _) = world.framework(info(|_| {}));
    world.soon();
    let offer = one_offer(&mut world, stream);
    world.wait(Duration::from_secs(7));
    let rescinded = world.take(stream, event::Type::Rescind);
    assert_eq!(rescinded[0].rescind.clone().unwrap().offer_id, offer.id);
    world.wait(Duration::from_secs(1));
    assert_eq!(world.offers(stream).len(), 1);
}

#[test]
fn an_idle_cluster_sleeps() {
    let mut world = World::new();
    let (stream, id) = world.framework(info(|_| {}));
    world.call(stream, &id, of_type(Type::Suppress));
    world.soon();
    // Only heartbeats are left.
    assert_eq!(world.core.next_deadline(), Some(HEARTBEAT));
}

#[test]
fn only_own_offers_can_be_declined() {
    let mut world = World::new();
    world.agent("a", "cpus:4;mem:1000");
    let (owner, _) = world.framework(info(|_| {}));
    world.soon();
    let offer = one_offer(&mut world, owner);
    let (thief, thief_id) = world.framework(info(|_| {}));
    world.call(thief, &thief_id, decline(&offer.id, 0.0));
    assert_eq!(world.core.snapshot().agents.values().next().unwrap().offers.len(), 1);
    assert_eq!(Filters::default().refuse_seconds(), 5.0);
}
