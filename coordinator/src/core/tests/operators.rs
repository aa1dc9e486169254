//! What operators see and do.

use tepui_api::v1::master::event::Type;
use tepui_api::v1::{FrameworkId, TaskState};

use super::super::*;
use super::world::*;

#[test]
fn operators_are_told_what_happens() {
    let mut world = World::new();
    world.agent("before anyone listens", "cpus:1");
    world.core.observe(true);
    let (link, agent) = world.agent("a", "cpus:4;mem:1000");
    let (stream, id) = world.framework(info(|_| {}));
    world.soon();
    let offers = world.offers(stream);
    let offer = offers.iter().find(|offer| offer.agent_id == agent).unwrap();
    world.call(stream, &id, accept(&[&offer.id], vec![launch(vec![task("t", &agent, "cpus:1;mem:32")])]));
    world.update(link, &id, "t", TaskState::TaskRunning);
    world.update(link, &id, "t", TaskState::TaskRunning);
    world.update(link, &id, "t", TaskState::TaskFinished);
    world.subscribe(info(|i| i.id = Some(id.clone())));
    let teardown = OperatorCall::Teardown(id.clone());
    world.replies.clear();
    world.step(Input::Operator { request: RequestId(1), call: teardown.clone() });
    world.step(Input::Operator { request: RequestId(2), call: teardown });
    assert_eq!(world.replies[0], Reply::Ok);
    assert!(matches!(world.replies[1], Reply::Refused { status: 400, .. }));
    world.step(Input::Agent {
        link,
        frame: tepui_api::link::agent_frame::Body::Unregister(Default::default()),
    });
    world.core.observe(false);
    world.agent("after", "cpus:1");
    let types: Vec<Type> = world.notices.iter().map(|event| event.r#type()).collect();
    use Type as T;
    assert_eq!(
        types,
        [
            T::AgentAdded,
            T::FrameworkAdded,
            T::TaskAdded,
            T::TaskUpdated,
            T::TaskUpdated,
            T::FrameworkUpdated,
            // The end of the framework kills its tasks.
            T::TaskUpdated,
            T::FrameworkRemoved,
            T::AgentRemoved,
        ]
    );
}

#[test]
fn readers_keep_what_they_took() {
    let mut world = World::new();
    let (stream, id) = world.framework(info(|_| {}));
    let before = world.core.snapshot();
    world.agent("a", "cpus:4;mem:1000");
    world.call(stream, &id, of_type(tepui_api::v1::scheduler::call::Type::Teardown));
    assert_eq!((before.frameworks.len(), before.agents.len()), (1, 0));
    assert!(before.frameworks[&id].connected());
    let after = world.core.snapshot();
    assert_eq!((after.frameworks.len(), after.completed_frameworks.len(), after.agents.len()), (0, 1, 1));
    let wire = after.get_frameworks();
    assert_eq!(wire.completed_frameworks[0].framework_info.id, Some(id));
    assert!(wire.completed_frameworks[0].unregistered_time.is_some());
    let agent = &after.get_agents().agents[0];
    assert_eq!(agent.pid.as_deref(), Some("slave(1)@10.0.0.1:5051"));
    assert_eq!(FrameworkId::new("x").to_string(), "x");
}
