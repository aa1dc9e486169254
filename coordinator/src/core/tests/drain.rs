//! Draining, deactivation and activation of agents.

use std::time::Duration;

use tepui_api::link::coordinator_frame::Body as Frame;
use tepui_api::v1::maintenance::{Schedule, Window};
use tepui_api::v1::scheduler::event;
use tepui_api::v1::{
    AgentId, AgentInfo, DrainConfig, DrainInfo, DrainState, DurationInfo, MachineId, TaskState, TimeInfo,
    Unavailability,
};

use super::super::*;
use super::running::*;
use super::world::*;

fn drain(agent: &AgentId, mark_gone: bool) -> OperatorCall {
    let max_grace_period = Some(DurationInfo { nanoseconds: 7 });
    OperatorCall::Drain { agent: agent.clone(), max_grace_period, mark_gone }
}

fn config(mark_gone: bool) -> DrainConfig {
    DrainConfig { max_grace_period: Some(DurationInfo { nanoseconds: 7 }), mark_gone: Some(mark_gone) }
}

fn drains(frames: &[Frame]) -> Vec<DrainConfig> {
    let drain = |frame: &Frame| match frame {
        Frame::Drain(config) => Some(*config),
        _ => None,
    };
    frames.iter().filter_map(drain).collect()
}

fn state(agent: &Agent) -> Option<DrainState> {
    agent.to_wire().drain_info.map(|info| info.state())
}

fn refused(reply: &Reply, status: u16) -> bool {
    matches!(reply, Reply::Refused { status: found, .. } if *found == status)
}

#[test]
fn a_drained_agent_is_told_and_offered_no_more() {
    let mut s = running(|_| {});
    let agent = s.agent.clone();
    s.world.wait(Duration::from_secs(6));
    assert_eq!(s.world.offers(s.stream).len(), 1);
    assert_eq!(s.world.operator(drain(&agent, false)), Reply::Ok);
    assert_eq!(s.world.take(s.stream, event::Type::Rescind).len(), 1);
    assert_eq!(drains(&s.world.frames(s.link)), [config(false)]);
    let wire = s.on_agent().to_wire();
    assert_eq!((wire.active, wire.deactivated), (false, Some(true)));
    assert_eq!(wire.drain_info, Some(DrainInfo { state: 1, config: config(false) }));
    assert!(wire.estimated_drain_start_time.is_some());
    assert!(s.world.persisted.contains(&RegistryChange::NeedCapability("AGENT_DRAINING".into())));
    s.world.wait(Duration::from_secs(60));
    assert!(s.world.offers(s.stream).is_empty());
    assert_eq!(state(&s.on_agent()), Some(DrainState::Draining), "its task runs");
    // Nor can it be activated meanwhile.
    assert!(refused(&s.world.operator(OperatorCall::Reactivate(agent.clone())), 400));

    s.end_task();
    assert_eq!(state(&s.on_agent()), Some(DrainState::Drained));
    let drained = RegistryChange::Deactivate {
        agent: agent.clone(),
        drain: Some(DrainInfo { state: DrainState::Drained.into(), config: config(false) }),
    };
    assert_eq!(s.world.persisted.last(), Some(&drained));
    s.world.wait(Duration::from_secs(60));
    assert!(s.world.offers(s.stream).is_empty());

    assert_eq!(s.world.operator(OperatorCall::Reactivate(agent.clone())), Reply::Ok);
    let [.., reactivate, drop] = &s.world.persisted[..] else { panic!("{:?}", s.world.persisted) };
    assert_eq!(*reactivate, RegistryChange::Reactivate(agent));
    assert_eq!(*drop, RegistryChange::DropCapability("AGENT_DRAINING".into()));
    let wire = s.on_agent().to_wire();
    assert_eq!((wire.active, wire.deactivated, wire.drain_info), (true, Some(false), None));
    s.world.wait(Duration::from_secs(2));
    assert_eq!(s.world.offers(s.stream).len(), 1);
}

#[test]
fn an_update_that_is_not_acknowledged_holds_the_drain_up() {
    let mut s = running(|_| {});
    s.world.operator(drain(&s.agent.clone(), false));
    let uuid = s.world.update(s.link, &s.id.clone(), "t", TaskState::TaskKilled);
    assert_eq!(state(&s.on_agent()), Some(DrainState::Draining));
    s.world.call(s.stream, &s.id.clone(), acknowledge(&s.agent, "t", &uuid));
    assert_eq!(state(&s.on_agent()), Some(DrainState::Drained));
}

#[test]
fn an_agent_without_tasks_is_drained_at_once() {
    let mut world = World::new();
    let link = world.register(draining_agent("a"));
    let id = world.registered(link).agent_id;
    assert_eq!(world.operator(drain(&id, false)), Reply::Ok);
    assert_eq!(state(&world.core.snapshot().agents[&id]), Some(DrainState::Drained));
}

#[test]
fn mark_gone_ends_the_agent_with_the_drain() {
    let mut s = running(|_| {});
    let agent = s.agent.clone();
    assert_eq!(s.world.operator(drain(&agent, true)), Reply::Ok);
    s.end_task();
    assert!(matches!(s.world.persisted.last(), Some(RegistryChange::Gone { .. })));
    assert!(s.world.frames(s.link).iter().any(|frame| matches!(frame, Frame::Shutdown(_))));
    let snapshot = s.world.core.snapshot();
    assert!(snapshot.agents.is_empty() && snapshot.gone_agents.contains_key(&agent));
    // An operator who comes late learns that it is gone.
    assert!(refused(&s.world.operator(drain(&agent, false)), 400));
    assert!(refused(&s.world.operator(OperatorCall::Reactivate(agent)), 400));
}

#[test]
fn a_drain_outlives_silence_and_restarts() {
    let mut s = running(capabilities(true));
    let agent = s.agent.clone();
    let register = s.register();
    s.world.operator(drain(&agent, false));
    s.silence();
    assert!(s.world.core.snapshot().agents.is_empty());
    let link = s.world.register(register.clone());
    let frames = s.world.frames(link);
    assert!(matches!(frames[0], Frame::Registered(_)), "{frames:?}");
    assert_eq!(drains(&frames), [config(false)]);
    assert_eq!((s.on_agent().active(), state(&s.on_agent())), (false, Some(DrainState::Draining)));
    s.world.wait(Duration::from_secs(10));
    assert!(s.world.offers(s.stream).is_empty());
    // A link that breaks, too.
    s.world.step(Input::LinkClosed { link });
    let link = s.world.register(register.clone());
    assert_eq!(drains(&s.world.frames(link)), [config(false)]);
    assert!(!s.on_agent().active());

    // And a coordinator that starts anew.
    let mut info = register.agent.clone();
    info.id = Some(agent.clone());
    let draining = DrainInfo { state: DrainState::Draining.into(), config: config(false) };
    let recovered = Recovered {
        admitted: vec![info],
        deactivated: vec![(agent.clone(), Some(draining)), ("nobody".into(), None)],
        minimum_capabilities: vec!["AGENT_DRAINING".into()],
        ..Recovered::default()
    };
    s.world = World::with(settings(), recovered);
    let mut without_tasks = register;
    without_tasks.tasks.clear();
    let link = s.world.register(without_tasks);
    assert_eq!(drains(&s.world.frames(link)), [config(false)]);
    assert_eq!(state(&s.on_agent()), Some(DrainState::Drained), "nothing is left on it");
}

#[test]
fn deactivated_agents_keep_their_tasks_and_get_no_more() {
    let mut s = running(|_| {});
    let agent = s.agent.clone();
    s.world.wait(Duration::from_secs(6));
    assert_eq!(s.world.offers(s.stream).len(), 1);
    assert_eq!(s.world.operator(OperatorCall::Deactivate(agent.clone())), Reply::Ok);
    assert_eq!(s.world.take(s.stream, event::Type::Rescind).len(), 1);
    assert!(s.world.frames(s.link).is_empty(), "the agent need not know");
    let wire = s.on_agent().to_wire();
    assert_eq!((wire.active, wire.deactivated, wire.drain_info), (false, Some(true), None));
    assert_eq!(s.world.operator(OperatorCall::Deactivate(agent.clone())), Reply::Ok);
    s.end_task();
    s.world.wait(Duration::from_secs(60));
    assert!(s.world.offers(s.stream).is_empty());
    assert_eq!(s.world.operator(OperatorCall::Reactivate(agent.clone())), Reply::Ok);
    s.world.wait(Duration::from_secs(2));
    assert_eq!(s.world.offers(s.stream).len(), 1);
    assert!(refused(&s.world.operator(OperatorCall::Reactivate(agent)), 400), "it is not deactivated");
}

#[test]
fn a_silent_agent_that_is_deactivated_comes_back_so() {
    let mut s = running(|_| {});
    let agent = s.agent.clone();
    let register = s.register();
    s.silence();
    assert_eq!(s.world.operator(OperatorCall::Deactivate(agent.clone())), Reply::Ok);
    s.world.register(register);
    assert!(s.on_agent().connected() && !s.on_agent().active());
    // One that is away is activated, and its operator told that it is not there, as in Mesos.
    s.silence_again();
    assert!(refused(&s.world.operator(OperatorCall::Reactivate(agent)), 409));
    assert!(matches!(
        s.world.persisted[..],
        [.., RegistryChange::Reactivate(_), RegistryChange::DropCapability(_)]
    ));
}

impl Running {
    fn silence_again(&mut self) {
        self.link = self.on_agent().link.unwrap();
        self.silence();
    }
}

#[test]
fn what_cannot_be_drained() {
    let awaited = AgentInfo { id: Some("old-S0".into()), hostname: "h".into(), ..Default::default() };
    let mut world = World::with(settings(), Recovered { admitted: vec![awaited], ..Recovered::default() });
    assert!(refused(&world.operator(drain(&"nobody".into(), false)), 400));
    assert!(refused(&world.operator(OperatorCall::Deactivate("nobody".into())), 400));
    let (_, incapable) = world.agent("old", "cpus:1");
    assert!(refused(&world.operator(drain(&incapable, false)), 400));
    assert_eq!(world.operator(OperatorCall::Deactivate(incapable)), Reply::Ok);
    // What an awaited agent can do is not known before it is back.
    assert_eq!(world.operator(drain(&"old-S0".into(), false)), Reply::Ok);
    // A machine that is in the schedule is not drained besides.
    let link = world.register(draining_agent("scheduled"));
    let id = world.registered(link).agent_id;
    let machine = MachineId { hostname: Some("SCHEDULED".into()), ip: Some("10.0.0.9".into()) };
    let unavailability = Unavailability { start: TimeInfo { nanoseconds: 1 }, duration: None };
    let window = Window { machine_ids: vec![machine], unavailability };
    assert_eq!(world.operator(OperatorCall::UpdateSchedule(Schedule { windows: vec![window] })), Reply::Ok);
    assert!(refused(&world.operator(drain(&id, false)), 400));
    // Nor is an agent that is being marked gone.
    world.operator(OperatorCall::UpdateSchedule(Schedule::default()));
    world.slow_registry = true;
    world.step(Input::Operator { request: RequestId(1), call: OperatorCall::MarkGone(id.clone()) });
    assert!(refused(&world.operator(drain(&id, false)), 409));
}

#[test]
fn calls_of_one_agent_are_done_one_after_the_other() {
    let mut s = running(|_| {});
    s.world.slow_registry = true;
    s.world.replies.clear();
    let agent = s.agent.clone();
    for (n, call) in [
        OperatorCall::Deactivate(agent.clone()),
        OperatorCall::Reactivate(agent.clone()),
        OperatorCall::Reactivate(agent.clone()),
        drain(&agent, false),
    ]
    .into_iter()
    .enumerate()
    {
        s.world.step(Input::Operator { request: RequestId(n as u64), call });
    }
    assert!(s.world.replies.is_empty());
    s.world.write_registry();
    let statuses: Vec<bool> = s.world.replies.iter().map(|reply| *reply == Reply::Ok).collect();
    assert_eq!(statuses, [true, true, false, true]);
    assert_eq!(state(&s.on_agent()), Some(DrainState::Draining));
}

#[test]
fn an_agent_that_leaves_takes_its_drain_along() {
    let mut s = running(|_| {});
    let agent = s.agent.clone();
    s.world.operator(OperatorCall::Deactivate(agent.clone()));
    let frame = tepui_api::link::agent_frame::Body::Unregister(Default::default());
    s.world.step(Input::Agent { link: s.link, frame });
    assert!(refused(&s.world.operator(OperatorCall::Reactivate(agent)), 400));
}
