//! Subscriptions, fail-over, the ends of frameworks, and what calls are refused.

use std::time::Duration;

use tepui_api::link::coordinator_frame::Body as Frame;
use tepui_api::v1::framework_info::capability::Type as Capability;
use tepui_api::v1::scheduler::call::{self, Type};
use tepui_api::v1::scheduler::{Call, event};
use tepui_api::v1::{FrameworkId, TaskState};
use uuid::Uuid;

use super::super::*;
use super::world::*;

#[test]
fn a_new_framework_is_given_an_id_and_heartbeats() {
    let mut world = World::new();
    let stream = world.subscribe(info(|_| {}));
    assert_eq!(world.replies, [Reply::Subscribed]);
    let types: Vec<_> = world.events[&stream].iter().map(|event| event.r#type()).collect();
    assert_eq!(types, [event::Type::Subscribed, event::Type::Heartbeat]);
    let subscribed = world.events[&stream][0].subscribed.clone().unwrap();
    assert_eq!(subscribed.framework_id.value, format!("{MASTER}-0000"));
    assert_eq!(subscribed.heartbeat_interval_seconds, Some(15.0));
    assert_eq!(subscribed.master_info.unwrap().id, MASTER);
    world.events.clear();
    world.wait(Duration::from_secs(60));
    assert_eq!(world.take(stream, event::Type::Heartbeat).len(), 4);
    let other = world.framework(info(|_| {})).1;
    assert_eq!(other.value, format!("{MASTER}-0001"));
}

#[test]
fn an_invalid_framework_is_told_on_its_stream() {
    let mut world = World::new();
    for bad in [
        info(|i| i.role = Some("/a".into())),
        info(|i| i.roles = vec!["a".into()]),
        info(|i| i.id = Some("a/b".into())),
        info(|i| i.failover_timeout = Some(1e11)),
    ] {
        let stream = world.subscribe(bad);
        assert_eq!(world.replies.pop(), Some(Reply::Subscribed));
        assert_eq!(world.errors(stream).len(), 1);
        assert_eq!(world.closed_streams.pop(), Some(stream));
    }
    assert!(world.core.snapshot().frameworks.is_empty());
}

#[test]
fn another_instance_takes_over() {
    let mut world = World::new();
    let (_, agent) = world.agent("a", "cpus:4;mem:1000");
    let (old, id) = world.framework(info(|_| {}));
    world.soon();
    assert_eq!(world.offers(old).len(), 1);
    let new = world.subscribe(info(|i| {
        i.id = Some(id.clone());
        i.name = "renamed".into();
        i.user = "kept as it was".into();
    }));
    assert_eq!(world.errors(old), ["Framework failed over"]);
    assert_eq!(world.closed_streams, [old]);
    assert_eq!(world.take(new, event::Type::Subscribed).len(), 1);
    // Offers of the old instance are void, and come anew.
    assert_eq!(world.take(new, event::Type::Rescind).len(), 0);
    world.wait(Duration::from_secs(1));
    assert_eq!(world.offers(new)[0].agent_id, agent);
    // What belongs to the old stream is nobody's.
    world.step(Input::StreamClosed { stream: old });
    assert!(world.core.snapshot().frameworks[&id].connected());
    let reply = world.call(old, &id, of_type(Type::Revive));
    assert!(matches!(reply, Reply::Refused { status: 400, .. }), "{reply:?}");
    let info = world.core.snapshot().frameworks[&id].info.clone();
    assert_eq!((info.name.as_str(), info.user.as_str()), ("renamed", "u"));
}

#[test]
fn a_principal_cannot_be_changed() {
    let mut world = World::new();
    let (_, id) = world.framework(info(|i| i.principal = Some("p".into())));
    let stream = world.subscribe(info(|i| i.id = Some(id.clone())));
    assert_eq!(world.errors(stream).len(), 1);
    assert!(world.core.snapshot().frameworks[&id].connected());
}

#[test]
fn a_disconnected_framework_is_given_time() {
    let mut world = World::new();
    let (link, agent) = world.agent("a", "cpus:4;mem:1000");
    let (stream, id) = world.framework(info(|i| i.failover_timeout = Some(30.0)));
    world.soon();
    let offer = world.offers(stream).remove(0);
    let call = accept(&[&offer.id], vec![launch(vec![task("t", &agent, "cpus:1;mem:32")])]);
    assert_eq!(world.call(stream, &id, call), Reply::Accepted);
    world.frames(link);
    world.step(Input::StreamClosed { stream });
    assert_eq!(
        world.call(stream, &id, of_type(Type::Revive)),
        Reply::Refused { status: 403, message: "Framework is not subscribed".into() }
    );
    world.wait(Duration::from_secs(29));
    let back = world.subscribe(info(|i| i.id = Some(id.clone())));
    assert_eq!(world.take(back, event::Type::Subscribed).len(), 1);
    // The first absence's end is not the second's.
    world.wait(Duration::from_secs(10));
    world.step(Input::StreamClosed { stream: back });
    assert_eq!(world.core.snapshot().frameworks[&id].tasks.len(), 1);
    world.wait(Duration::from_secs(61));
    let snapshot = world.core.snapshot();
    assert!(snapshot.frameworks.is_empty());
    let ended = &snapshot.completed_frameworks[0];
    assert_eq!(ended.connection, Connection::Completed);
    assert_eq!(ended.completed_tasks[0].state(), TaskState::TaskKilled);
    assert!(world.frames(link).contains(&Frame::ShutdownFramework(id.clone())));
    assert!(snapshot.agents[&agent].used.is_empty());
    // Its id is used up.
    let late = world.subscribe(info(|i| i.id = Some(id.clone())));
    assert_eq!(world.errors(late), ["Framework has been removed"]);
}

#[test]
fn teardown_ends_the_stream() {
    let mut world = World::new();
    let (stream, id) = world.framework(info(|_| {}));
    assert_eq!(world.call(stream, &id, of_type(Type::Teardown)), Reply::Accepted);
    assert_eq!(world.closed_streams, [stream]);
    let reply = world.call(stream, &id, of_type(Type::Revive));
    assert_eq!(reply, Reply::Refused { status: 400, message: "Framework cannot be found".into() });
}

#[test]
fn an_unknown_id_is_from_before_the_start() {
    let mut world = World::new();
    let id = FrameworkId::new("another-coordinator-0007");
    let (_, given) = world.framework(info(|i| i.id = Some(id.clone())));
    assert_eq!(given, id);
}

#[test]
fn completed_frameworks_are_forgotten_beyond_a_number() {
    let mut world = World::with(Settings { max_completed_frameworks: 2, ..settings() }, Recovered::default());
    let ids: Vec<_> = (0..3)
        .map(|_| {
            let (stream, id) = world.framework(info(|_| {}));
            world.call(stream, &id, of_type(Type::Teardown));
            id
        })
        .collect();
    let snapshot = world.core.snapshot();
    let kept: Vec<_> = snapshot.completed_frameworks.iter().map(|framework| framework.id.clone()).collect();
    assert_eq!(kept, ids[1..]);
}

#[test]
fn calls_are_checked_in_order() {
    let mut world = World::new();
    let (stream, id) = world.framework(info(|_| {}));
    let other = StreamId(Uuid::from_u128(77));
    let refused = |world: &mut World, header, call: Call| {
        world.step(Input::Scheduler { request: RequestId(0), stream: header, call });
        match world.replies.pop() {
            Some(Reply::Refused { status, .. }) => status,
            other => panic!("{other:?}"),
        }
    };
    let call = |id: &FrameworkId, r#type| Call { framework_id: Some(id.clone()), ..of_type(r#type) };
    let unknown = FrameworkId::new("nobody");
    assert_eq!(refused(&mut world, StreamHeader::Absent, call(&unknown, Type::Revive)), 400);
    assert_eq!(refused(&mut world, StreamHeader::Absent, call(&id, Type::Revive)), 400);
    assert_eq!(refused(&mut world, StreamHeader::Unknown, call(&id, Type::Revive)), 400);
    assert_eq!(refused(&mut world, StreamHeader::Present(other), call(&id, Type::Revive)), 400);
    assert_eq!(refused(&mut world, StreamHeader::Present(stream), call(&id, Type::Unknown)), 501);
    assert_eq!(refused(&mut world, StreamHeader::Present(stream), call(&id, Type::Accept)), 400);
    for fine in [Type::Request, Type::AcknowledgeOperationStatus] {
        assert_eq!(world.call(stream, &id, of_type(fine)), Reply::Accepted);
    }
}

#[test]
fn a_framework_can_change_its_roles() {
    let mut world = World::new();
    let multi = |roles: &[&str]| {
        info(|i| {
            with_capabilities(i, &[Capability::MultiRole]);
            i.roles = roles.iter().map(|role| (*role).to_owned()).collect();
        })
    };
    world.agent("a", "cpus:4;mem:1000");
    let (stream, id) = world.framework(multi(&["x"]));
    world.soon();
    let offer = world.offers(stream).remove(0);
    assert_eq!(offer.allocation_info.unwrap().role.as_deref(), Some("x"));
    let update = |suppressed: &[&str], framework_info| Call {
        update_framework: Some(call::UpdateFramework {
            framework_info,
            suppressed_roles: suppressed.iter().map(|role| (*role).to_owned()).collect(),
            ..Default::default()
        }),
        ..of_type(Type::UpdateFramework)
    };
    let changed = FrameworkInfo { id: Some(id.clone()), ..multi(&["y"]) };
    assert_eq!(world.call(stream, &id, update(&[], changed.clone())), Reply::Ok);
    let rescinded = world.take(stream, event::Type::Rescind);
    assert_eq!(rescinded[0].rescind.clone().unwrap().offer_id, offer.id);
    world.wait(Duration::from_secs(1));
    assert_eq!(world.offers(stream)[0].allocation_info.clone().unwrap().role.as_deref(), Some("y"));
    for bad in [
        update(&["x"], changed.clone()),
        update(&[], FrameworkInfo { user: "other".into(), ..changed.clone() }),
        update(&[], FrameworkInfo { checkpoint: None, ..changed.clone() }),
        update(&[], FrameworkInfo { roles: vec!["-".into()], ..changed }),
    ] {
        let reply = world.call(stream, &id, bad);
        assert!(matches!(reply, Reply::Refused { status: 400, .. }), "{reply:?}");
    }
}

use tepui_api::v1::FrameworkInfo;
