//! Agents that an operator declares lost for good.

use std::time::Duration;

use tepui_api::link::coordinator_frame::Body as Frame;
use tepui_api::v1::framework_info::capability::Type as Capability;
use tepui_api::v1::scheduler::event;
use tepui_api::v1::task_status::Reason;
use tepui_api::v1::{AgentInfo, TaskState, TimeInfo};

use super::super::*;
use super::running::*;
use super::world::*;

fn shut_down(frames: &[Frame]) -> bool {
    frames.iter().any(|frame| matches!(frame, Frame::Shutdown(_)))
}

#[test]
fn a_registered_agent_and_its_tasks_are_gone() {
    for aware in [false, true] {
        let mut s = running(capabilities(aware));
        let (register, agent) = (s.register(), s.agent.clone());
        assert_eq!(s.world.operator(OperatorCall::MarkGone(agent.clone())), Reply::Ok);
        let (state, reason) = if aware {
            (TaskState::TaskGoneByOperator, Reason::AgentRemovedByOperator)
        } else {
            (TaskState::TaskLost, Reason::AgentRemoved)
        };
        let status = s.world.statuses(s.stream).remove(0);
        assert_eq!((status.state(), status.reason(), status.unreachable_time), (state, reason, None));
        assert_eq!(s.world.take(s.stream, event::Type::Failure).len(), 1);
        assert!(shut_down(&s.world.frames(s.link)));
        assert!(s.world.closed_links.contains(&s.link));
        let snapshot = s.world.core.snapshot();
        assert!(snapshot.agents.is_empty() && snapshot.gone_agents.contains_key(&agent));
        assert_eq!((snapshot.completed_tasks().count(), snapshot.unreachable_tasks().count()), (1, 0));
        // It is refused for good, whatever it says.
        let link = s.world.register(register);
        assert!(shut_down(&s.world.frames(link)));
        assert!(s.world.closed_links.contains(&link));
        assert!(s.world.core.snapshot().agents.is_empty());
        // Saying so again is no error, and nothing is written again.
        let written = s.world.persisted.len();
        assert_eq!(s.world.operator(OperatorCall::MarkGone(agent)), Reply::Ok);
        assert_eq!(s.world.persisted.len(), written);
    }
}

#[test]
fn nothing_is_told_before_it_is_written() {
    let mut s = running(capabilities(true));
    let register = s.register();
    s.world.slow_registry = true;
    s.world.replies.clear();
    let call = OperatorCall::MarkGone(s.agent.clone());
    s.world.step(Input::Operator { request: RequestId(1), call: call.clone() });
    assert!(s.world.replies.is_empty() && s.world.statuses(s.stream).is_empty());
    // Another call meanwhile may be repeated.
    assert!(matches!(s.world.operator(call), Reply::Refused { status: 503, .. }));
    // An agent that registers anew meanwhile waits, and is refused.
    let link = s.world.register(register);
    assert!(s.world.frames(link).is_empty());
    s.world.write_registry();
    assert_eq!(s.world.replies, [Reply::Ok]);
    assert!(shut_down(&s.world.frames(link)));
    assert_eq!(s.world.statuses(s.stream).len(), 1);
}

#[test]
fn an_agent_that_is_unreachable_can_be_gone() {
    for aware in [false, true] {
        let mut s = running(capabilities(aware));
        let agent = s.agent.clone();
        s.silence();
        s.world.statuses(s.stream);
        assert_eq!(s.world.operator(OperatorCall::MarkGone(agent.clone())), Reply::Ok);
        let status = s.world.statuses(s.stream).remove(0);
        let state = if aware { TaskState::TaskGoneByOperator } else { TaskState::TaskLost };
        assert_eq!(status.state(), state);
        let snapshot = s.world.core.snapshot();
        assert!(snapshot.unreachable_agents.is_empty() && snapshot.gone_agents.contains_key(&agent));
        assert_eq!((snapshot.completed_tasks().count(), snapshot.unreachable_tasks().count()), (1, 0));
        assert_eq!(snapshot.completed_tasks().next().unwrap().state(), state);
    }
}

#[test]
fn an_awaited_agent_can_be_gone_and_an_unknown_one_not() {
    let info = AgentInfo { id: Some("old-S0".into()), hostname: "h".into(), ..Default::default() };
    let mut world = World::with(settings(), Recovered { admitted: vec![info], ..Recovered::default() });
    let gone = |id: &str| OperatorCall::MarkGone(id.into());
    assert!(matches!(world.operator(gone("nobody")), Reply::Refused { status: 404, .. }));
    assert_eq!(world.operator(gone("old-S0")), Reply::Ok);
    let snapshot = world.core.snapshot();
    assert_eq!((snapshot.recovered_agents.len(), snapshot.gone_agents.len()), (0, 1));
    assert!(matches!(world.persisted[..], [RegistryChange::Gone { .. }]));
    world.wait(Duration::from_secs(700));
    assert_eq!(world.core.snapshot().unreachable_agents.len(), 0, "it is not awaited any more");
}

#[test]
fn gone_agents_are_forgotten_by_age_and_number() {
    let at = |seconds: i64| TimeInfo { nanoseconds: seconds * 1_000_000_000 };
    let now = 1_700_000_000;
    let recovered = Recovered {
        gone: vec![("a".into(), at(now - 100)), ("b".into(), at(now - 50)), ("c".into(), at(now))],
        unreachable: vec![("u".into(), at(now - 100))],
        ..Recovered::default()
    };
    let settings = Settings { registry_max_agent_count: 2, ..settings() };
    let mut world = World::with(settings, recovered);
    world.wait(Duration::from_secs(16 * 60));
    assert_eq!(world.persisted, [RegistryChange::ForgetGone(vec!["a".into()])]);
    let snapshot = world.core.snapshot();
    assert_eq!((snapshot.gone_agents.len(), snapshot.unreachable_agents.len()), (2, 1));
    world.wait(Duration::from_secs(15 * 24 * 3600));
    assert!(world.core.snapshot().gone_agents.is_empty());
}

#[test]
fn reconciliation_after_a_restart_knows_the_gone() {
    let recovered =
        Recovered { gone: vec![("old-S0".into(), TimeInfo { nanoseconds: 1 })], ..Recovered::default() };
    let mut world = World::with(settings(), recovered);
    let aware = &[Capability::PartitionAware];
    let (stream, id) = world.framework(info(|i| with_capabilities(i, aware)));
    world.call(stream, &id, reconcile(&[("t", Some(&"old-S0".into()))]));
    assert_eq!(world.statuses(stream)[0].state(), TaskState::TaskGoneByOperator);
}
