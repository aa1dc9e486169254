//! Agents that join, come back, fall silent and leave.

use std::time::Duration;

use tepui_api::link::agent_frame::Body as AgentFrame;
use tepui_api::link::coordinator_frame::Body as Frame;
use tepui_api::link::{Register, TotalResources, Unregister};
use tepui_api::resources::Resources;
use tepui_api::v1::framework_info::capability::Type as Capability;
use tepui_api::v1::scheduler::event;
use tepui_api::v1::task_status::Reason;
use tepui_api::v1::{AgentId, AgentInfo, FrameworkId, FrameworkInfo, TaskState};

use super::super::*;
use super::world::*;

struct Setup {
    world: World,
    link: LinkId,
    agent: AgentId,
    stream: StreamId,
    id: FrameworkId,
}

/// A framework with the task `t` running on an agent.
fn setup(change: impl FnOnce(&mut FrameworkInfo)) -> Setup {
    let mut world = World::new();
    let (link, agent) = world.agent("a", "cpus:4;mem:1000");
    let (stream, id) = world.framework(info(change));
    world.soon();
    let offer = world.offers(stream).remove(0);
    let tasks = vec![task("t", &agent, "cpus:1;mem:32")];
    world.call(stream, &id, accept(&[&offer.id], vec![launch(tasks)]));
    let uuid = world.update(link, &id, "t", TaskState::TaskRunning);
    world.call(stream, &id, acknowledge(&agent, "t", &uuid));
    world.statuses(stream);
    world.frames(link);
    Setup { world, link, agent, stream, id }
}

impl Setup {
    /// What the agent would say when it registers again.
    fn register(&self) -> Register {
        let snapshot = self.world.core.snapshot();
        let mut register = register("a", "cpus:4;mem:1000");
        register.agent.id = Some(self.agent.clone());
        register.tasks = snapshot.tasks().map(|task| (**task).clone()).collect();
        register.frameworks =
            snapshot.frameworks.values().map(|framework| (*framework.info).clone()).collect();
        register
    }

    fn silence(&mut self) {
        self.world.step(Input::LinkClosed { link: self.link });
        self.world.wait(Duration::from_secs(91));
    }

    fn used(&self) -> Resources {
        self.world.core.snapshot().agents[&self.agent].allocated().unallocated()
    }
}

fn refused(world: &mut World, link: LinkId) -> bool {
    let frames = world.frames(link);
    let refused = frames.iter().any(|frame| matches!(frame, Frame::Refused(_)));
    assert_eq!(refused, world.closed_links.contains(&link));
    refused
}

#[test]
fn a_new_agent_is_written_before_it_is_admitted() {
    let mut world = World::new();
    world.slow_registry = true;
    let (stream, _) = world.framework(info(|_| {}));
    let link = world.register(register("a", "cpus:4;mem:1000"));
    world.wait(Duration::from_secs(5));
    assert!(world.frames(link).is_empty() && world.core.snapshot().agents.is_empty());
    assert!(world.offers(stream).is_empty());
    world.write_registry();
    let registered = world.registered(link);
    assert_eq!(registered.agent_id.value, format!("{MASTER}-S0"));
    assert_eq!(registered.ping_timeout_seconds, 75.0);
    let [RegistryChange::Admit(info)] = &world.persisted[..] else { panic!("{:?}", world.persisted) };
    assert_eq!(info.id, Some(registered.agent_id));
    world.soon();
    assert_eq!(world.offers(stream).len(), 1);
}

#[test]
fn a_process_that_asks_twice_is_one_agent() {
    let mut world = World::new();
    world.slow_registry = true;
    let first = world.register(register("a", "cpus:4;mem:1000"));
    let second = world.register(register("a", "cpus:4;mem:1000"));
    assert_eq!(world.closed_links, [first]);
    world.write_registry();
    world.registered(second);
    // Nor is it another after it has been admitted.
    let third = world.register(register("a", "cpus:4;mem:1000"));
    assert_eq!(world.registered(third).agent_id.value, format!("{MASTER}-S0"));
    assert_eq!(world.core.snapshot().agents.len(), 1);
    assert_eq!(world.closed_links, [first, second]);
}

#[test]
fn another_process_at_the_address_replaces_the_agent() {
    let mut s = setup(|_| {});
    let mut other = register("a", "cpus:4;mem:1000");
    other.instance = "other".into();
    let link = s.world.register(other);
    assert_ne!(s.world.registered(link).agent_id, s.agent);
    let status = s.world.statuses(s.stream).remove(0);
    assert_eq!((status.state(), status.reason()), (TaskState::TaskLost, Reason::AgentRemoved));
    assert_eq!(s.world.core.snapshot().agents.len(), 1);
    assert!(s.world.closed_links.contains(&s.link));
}

#[test]
fn a_link_that_closes_before_the_registry_is_done() {
    let mut world = World::new();
    world.slow_registry = true;
    let (stream, _) = world.framework(info(|_| {}));
    let link = world.register(register("a", "cpus:4;mem:1000"));
    world.step(Input::LinkClosed { link });
    world.write_registry();
    world.slow_registry = false;
    assert_eq!(world.core.snapshot().agents.values().next().unwrap().link, None);
    world.wait(Duration::from_secs(60));
    assert!(world.offers(stream).is_empty());
    world.wait(Duration::from_secs(20));
    assert!(world.core.snapshot().agents.is_empty());
    assert_eq!(world.core.snapshot().unreachable_agents.len(), 1);
}

#[test]
fn nonsense_is_turned_away() {
    let s = setup(|_| {});
    let table: [fn(&mut Register); 9] = [
        |r| r.agent.id = Some("a/b".into()),
        |r| r.agent.resources[0].scalar = None,
        |r| r.frameworks[0].id = None,
        |r| r.frameworks[0].role = Some("-".into()),
        |r| r.frameworks.push(r.frameworks[0].clone()),
        |r| r.frameworks.clear(),
        |r| r.tasks.push(r.tasks[0].clone()),
        |r| r.tasks[0].agent_id = "elsewhere".into(),
        |r| r.executors.push(Default::default()),
    ];
    let mut world = World::new();
    for (n, change) in table.into_iter().enumerate() {
        let mut register = s.register();
        change(&mut register);
        let link = world.register(register);
        assert!(refused(&mut world, link), "row {n}");
    }
    assert!(world.core.snapshot().agents.is_empty());
}

#[test]
fn a_link_that_breaks_is_no_end() {
    let mut s = setup(|_| {});
    s.world.wait(Duration::from_secs(6));
    assert_eq!(s.world.offers(s.stream).len(), 1);
    s.world.step(Input::LinkClosed { link: s.link });
    assert_eq!(s.world.take(s.stream, event::Type::Rescind).len(), 1);
    s.world.wait(Duration::from_secs(10));
    let link = s.world.register(s.register());
    assert_eq!(s.world.registered(link).unknown_tasks, []);
    assert!(s.world.statuses(s.stream).is_empty());
    s.world.soon();
    assert_eq!(s.world.offers(s.stream).len(), 1);
    assert_eq!(s.used(), Resources::parse("cpus:1;mem:32", "*").unwrap());
    // The old link's end, told late, is nobody's.
    s.world.step(Input::LinkClosed { link: s.link });
    assert!(s.world.core.snapshot().agents[&s.agent].connected());
}

#[test]
fn frameworks_without_checkpoint_lose_their_tasks_with_the_link() {
    let mut s = setup(|i| i.checkpoint = None);
    let register = s.register();
    s.world.step(Input::LinkClosed { link: s.link });
    let status = s.world.statuses(s.stream).remove(0);
    assert_eq!((status.state(), status.reason()), (TaskState::TaskLost, Reason::AgentDisconnected));
    assert_eq!(s.used(), Resources::new());
    // If it goes on nevertheless, it is counted and killed.
    let link = s.world.register(register);
    let frames = s.world.frames(link);
    assert!(frames.iter().any(|frame| matches!(frame, Frame::KillTask(_))), "{frames:?}");
    assert_eq!(s.used(), Resources::parse("cpus:1;mem:32", "*").unwrap());
    s.world.update(link, &s.id.clone(), "t", TaskState::TaskKilled);
    assert_eq!(s.used(), Resources::new());
}

#[test]
fn tasks_of_an_agent_that_leaves_are_told_why_and_not_that_its_link_is_closed() {
    let mut s = setup(|i| i.checkpoint = None);
    s.world.slow_registry = true;
    s.world.step(Input::Agent { link: s.link, frame: AgentFrame::Unregister(Unregister {}) });
    s.world.step(Input::LinkClosed { link: s.link });
    assert!(s.world.statuses(s.stream).is_empty());
    s.world.write_registry();
    let status = s.world.statuses(s.stream).remove(0);
    assert_eq!((status.state(), status.reason()), (TaskState::TaskLost, Reason::AgentRemoved));
}

#[test]
fn what_the_agent_lacks_it_is_told() {
    let mut s = setup(|_| {});
    let mut register = s.register();
    register.tasks.clear();
    s.world.step(Input::LinkClosed { link: s.link });
    let link = s.world.register(register);
    let unknown = s.world.registered(link).unknown_tasks;
    assert_eq!(unknown.len(), 1);
    assert_eq!(unknown[0].task_id, "t".into());
    // It answers as for a task that it never had.
    let uuid = s.world.update(link, &s.id.clone(), "t", TaskState::TaskDropped);
    s.world.call(s.stream, &s.id.clone(), acknowledge(&s.agent, "t", &uuid));
    assert!(s.world.core.snapshot().frameworks[&s.id].tasks.is_empty());
}

#[test]
fn an_agent_that_did_not_hear_of_its_admission_is_asked_what_was_launched_meanwhile() {
    let mut s = setup(|_| {});
    let mut anew = s.register();
    anew.agent.id = None;
    anew.tasks.clear();
    anew.frameworks.clear();
    // A later registration counts, and so an earlier one that comes after it does not.
    let (late, now) = (LinkId(s.link.0 + 1), LinkId(s.link.0 + 2));
    let frame = |link| Input::Agent { link, frame: AgentFrame::Register(anew.clone()) };
    s.world.step(frame(now));
    let registered = s.world.registered(now);
    assert_eq!(registered.agent_id, s.agent);
    assert_eq!(registered.unknown_tasks.len(), 1);
    assert_eq!(registered.unknown_tasks[0].task_id, "t".into());
    s.world.step(frame(late));
    assert!(s.world.closed_links.contains(&late));
    assert_eq!(s.world.core.snapshot().agents[&s.agent].link, Some(now));
    s.world.update(now, &s.id.clone(), "t", TaskState::TaskLost);
    assert_eq!(s.used(), Resources::new());
}

#[test]
fn a_silent_agent_is_unreachable_and_comes_back() {
    for aware in [false, true] {
        let capabilities = if aware { &[Capability::PartitionAware][..] } else { &[] };
        let mut s = setup(|i| with_capabilities(i, capabilities));
        let register = s.register();
        s.silence();
        let status = s.world.statuses(s.stream).remove(0);
        let state = if aware { TaskState::TaskUnreachable } else { TaskState::TaskLost };
        assert_eq!((status.state(), status.reason()), (state, Reason::AgentRemoved));
        assert!(status.unreachable_time.is_some() && status.uuid.is_none());
        let failure = s.world.take(s.stream, event::Type::Failure).remove(0);
        assert_eq!(failure.failure.clone().unwrap().agent_id, Some(s.agent.clone()));
        let snapshot = s.world.core.snapshot();
        assert!(snapshot.agents.is_empty());
        assert_eq!(snapshot.unreachable_tasks().count(), 1);
        assert!(matches!(s.world.persisted.last(), Some(RegistryChange::Unreachable { .. })));

        let link = s.world.register(register);
        s.world.registered(link);
        assert!(matches!(s.world.persisted.last(), Some(RegistryChange::Reachable(_))));
        let status = s.world.statuses(s.stream).remove(0);
        assert_eq!((status.state(), status.reason()), (TaskState::TaskRunning, Reason::AgentReregistered));
        let snapshot = s.world.core.snapshot();
        assert_eq!((snapshot.tasks().count(), snapshot.unreachable_tasks().count()), (1, 0));
        assert!(snapshot.unreachable_agents.is_empty());
        assert_eq!(s.used(), Resources::parse("cpus:1;mem:32", "*").unwrap());
    }
}

#[test]
fn pings_that_are_answered_keep_an_agent() {
    let mut s = setup(|_| {});
    s.world.pongs = false;
    let mut pings = 0;
    for _ in 0..20 {
        s.world.wait(Duration::from_secs(15));
        for frame in s.world.frames(s.link) {
            if let Frame::Ping(number) = frame {
                pings += 1;
                s.world.step(Input::Agent { link: s.link, frame: AgentFrame::Pong(number) });
            }
        }
    }
    assert_eq!(pings, 20);
    assert!(s.world.core.snapshot().agents[&s.agent].connected());
    s.world.wait(Duration::from_secs(15 * 6));
    assert!(s.world.core.snapshot().agents.is_empty(), "unanswered with an open link");
    assert_eq!(s.world.closed_links, [s.link]);
}

#[test]
fn an_agent_that_returns_while_it_is_given_up_is_not_lost() {
    let mut s = setup(|_| {});
    let register = s.register();
    s.world.slow_registry = true;
    s.silence();
    let link = s.world.register(register);
    assert!(s.world.frames(link).is_empty());
    s.world.write_registry();
    s.world.registered(link);
    let snapshot = s.world.core.snapshot();
    assert_eq!((snapshot.agents.len(), snapshot.tasks().count()), (1, 1));
    assert!(matches!(s.world.persisted.last(), Some(RegistryChange::Reachable(_))));
}

#[test]
fn a_link_that_closes_while_the_registry_writes_costs_nothing_when_another_is_there() {
    let mut s = setup(|i| i.checkpoint = None);
    let register = s.register();
    s.world.pongs = false;
    s.world.wait(Duration::from_secs(91));
    s.world.statuses(s.stream);
    s.world.slow_registry = true;
    let first = s.world.register(register.clone());
    s.world.step(Input::LinkClosed { link: first });
    let second = s.world.register(register);
    s.world.write_registry();
    s.world.registered(second);
    let states: Vec<_> = s.world.statuses(s.stream).iter().map(|status| status.state()).collect();
    assert_eq!(states, [TaskState::TaskRunning]);
    assert_eq!(s.used(), Resources::parse("cpus:1;mem:32", "*").unwrap());
}

#[test]
fn an_agent_that_unregisters_is_forgotten() {
    let mut s = setup(|i| with_capabilities(i, &[Capability::PartitionAware]));
    s.world.step(Input::Agent { link: s.link, frame: AgentFrame::Unregister(Unregister {}) });
    let status = s.world.statuses(s.stream).remove(0);
    assert_eq!((status.state(), status.reason()), (TaskState::TaskLost, Reason::AgentRemoved));
    assert!(matches!(s.world.persisted.last(), Some(RegistryChange::Remove(_))));
    let snapshot = s.world.core.snapshot();
    assert!(snapshot.agents.is_empty() && snapshot.unreachable_agents.is_empty());
    assert_eq!(snapshot.completed_tasks().count(), 1);
}

#[test]
fn a_restarted_coordinator_takes_agents_and_tasks_over() {
    let mut s = setup(|_| {});
    let mut register = s.register();
    let mut ended = register.tasks[0].clone();
    ended.task_id = "ended before".into();
    ended.set_state(TaskState::TaskFinished);
    register.completed_tasks.push(ended);
    let mut info = register.agent.clone();
    info.id = Some(s.agent.clone());
    let recovered = Recovered { admitted: vec![info], ..Recovered::default() };
    s.world = World::with(Settings { seed: 1, ..settings() }, recovered);
    assert_eq!(s.world.core.snapshot().recovered_agents.len(), 1);
    let link = s.world.register(register);
    s.world.registered(link);
    assert_eq!(s.world.persisted, [], "nothing changed");
    let framework = s.world.core.snapshot().frameworks[&s.id].clone();
    assert_eq!(framework.connection, Connection::Recovered);
    assert_eq!((framework.tasks.len(), framework.completed_tasks.len()), (1, 1));
    assert_eq!(s.used(), Resources::parse("cpus:1;mem:32", "*").unwrap());
    // The framework comes back with its id, and is offered what is truly free.
    let stream = s.world.subscribe(super::world::info(|i| i.id = Some(s.id.clone())));
    s.world.soon();
    let offer = s.world.offers(stream).remove(0);
    assert_eq!(
        Resources::from_wire(&offer.resources).unwrap(),
        Resources::parse("cpus:3;mem:968", "*").unwrap()
    );
    s.world.call(stream, &s.id.clone(), reconcile(&[]));
    assert_eq!(s.world.statuses(stream)[0].state(), TaskState::TaskRunning);
}

#[test]
fn agents_that_do_not_return_after_a_restart_are_unreachable() {
    let info = AgentInfo { id: Some("old-S0".into()), hostname: "h".into(), ..Default::default() };
    let mut world = World::with(settings(), Recovered { admitted: vec![info], ..Recovered::default() });
    let (stream, _) = world.framework(super::world::info(|_| {}));
    world.wait(Duration::from_secs(599));
    assert_eq!(world.core.snapshot().recovered_agents.len(), 1);
    world.wait(Duration::from_secs(2));
    let snapshot = world.core.snapshot();
    assert_eq!((snapshot.recovered_agents.len(), snapshot.unreachable_agents.len()), (0, 1));
    assert_eq!(world.take(stream, event::Type::Failure).len(), 1);
    // Two weeks later it is forgotten.
    world.wait(Duration::from_secs(15 * 24 * 3600));
    assert_eq!(world.core.snapshot().unreachable_agents.len(), 0);
    assert!(matches!(world.persisted.last(), Some(RegistryChange::Forget(_))));
}

#[test]
fn frameworks_that_ended_end_on_returning_agents() {
    let mut s = setup(|_| {});
    let register = s.register();
    s.silence();
    s.world.call(s.stream, &s.id.clone(), of_type(tepui_api::v1::scheduler::call::Type::Teardown));
    assert_eq!(s.world.core.snapshot().completed_tasks().count(), 1);
    let link = s.world.register(register);
    let frames = s.world.frames(link);
    assert!(frames.contains(&Frame::ShutdownFramework(s.id.clone())), "{frames:?}");
    assert_eq!(s.used(), Resources::new());
}

#[test]
fn two_processes_cannot_share_an_id() {
    let mut s = setup(|_| {});
    let (mut first, mut second) = (s.register(), s.register());
    second.instance = "second".into();
    let link = s.world.register(second.clone());
    s.world.registered(link);
    assert!(s.world.closed_links.contains(&s.link));
    // The first one was alive, for here it is again.
    let again = s.world.register(first.clone());
    assert!(refused(&mut s.world, again));
    // One that has not answered yet may be a dead process, whose registration came late.
    s.world.pongs = false;
    second.instance = "late".into();
    let late = s.world.register(second.clone());
    s.world.registered(late);
    second.instance = "second".into();
    let link = s.world.register(second);
    s.world.registered(link);
    s.world.pongs = true;
    // A restart, whose old process is gone, is no second process.
    s.world.step(Input::LinkClosed { link });
    first.instance = "third".into();
    let third = s.world.register(first);
    s.world.registered(third);
    // Nor may an agent move.
    let mut moved = s.register();
    moved.instance = "third".into();
    moved.agent.hostname = "elsewhere".into();
    let moved = s.world.register(moved);
    assert!(refused(&mut s.world, moved));
}

/// The connection over which the process asked first was given up, and comes to be read after the one over which it asked again.
#[test]
fn a_registration_that_the_same_process_has_overtaken_is_ignored() {
    let setup = setup(|_| {});
    let stale = setup.register();
    let Setup { mut world, link, agent, .. } = setup;
    world.step(Input::LinkClosed { link });
    let newer = world.register(Register { attempt: Some(1), tasks: Vec::new(), ..stale.clone() });
    world.registered(newer);
    let older = world.register(Register { attempt: Some(0), ..stale });
    assert!(world.closed_links.contains(&older) && !world.closed_links.contains(&newer));
    assert_eq!(world.frames(older), []);
    assert_eq!(world.core.snapshot().agents[&agent].link, Some(newer));
}

#[test]
fn changed_agents_are_written_first() {
    let mut s = setup(|_| {});
    let mut register = s.register();
    register.agent.resources = Resources::parse("cpus:8;mem:2000", "*").unwrap().to_wire();
    s.world.step(Input::LinkClosed { link: s.link });
    let link = s.world.register(register);
    s.world.registered(link);
    assert!(matches!(s.world.persisted.last(), Some(RegistryChange::Update(_))));
    s.world.soon();
    let offer = s.world.offers(s.stream).remove(0);
    assert_eq!(
        Resources::from_wire(&offer.resources).unwrap(),
        Resources::parse("cpus:7;mem:1968", "*").unwrap()
    );
    // It can also say so while it is connected.
    let total = TotalResources { resources: Resources::parse("cpus:2;mem:2000", "*").unwrap().to_wire() };
    s.world.step(Input::Agent { link, frame: AgentFrame::TotalResources(total) });
    assert_eq!(s.world.take(s.stream, event::Type::Rescind).len(), 1);
    s.world.soon();
    let offer = s.world.offers(s.stream).remove(0);
    assert_eq!(
        Resources::from_wire(&offer.resources).unwrap(),
        Resources::parse("cpus:1;mem:1968", "*").unwrap()
    );
}

#[test]
fn a_task_id_used_again_elsewhere_stays_with_the_newer() {
    let mut world =
        World::with(Settings { max_unreachable_tasks_per_framework: 0, ..settings() }, Recovered::default());
    let (link, agent) = world.agent("a", "cpus:4;mem:1000");
    let (stream, id) = world.framework(info(|_| {}));
    world.soon();
    let offer = world.offers(stream).remove(0);
    world.call(stream, &id, accept(&[&offer.id], vec![launch(vec![task("t", &agent, "cpus:1;mem:32")])]));
    let snapshot = world.core.snapshot();
    let mut register = register("a", "cpus:4;mem:1000");
    register.agent.id = Some(agent.clone());
    register.tasks = snapshot.tasks().map(|task| (**task).clone()).collect();
    register.frameworks = vec![(*snapshot.frameworks[&id].info).clone()];
    world.step(Input::LinkClosed { link });
    world.wait(Duration::from_secs(91));
    let (_, other) = world.agent("bb", "cpus:4;mem:1000");
    world.soon();
    let offer = world.offers(stream).remove(0);
    world.call(stream, &id, accept(&[&offer.id], vec![launch(vec![task("t", &other, "cpus:1;mem:32")])]));
    let link = world.register(register);
    let frames = world.frames(link);
    assert!(frames.iter().any(|frame| matches!(frame, Frame::KillTask(_))), "{frames:?}");
    assert_eq!(world.core.task(&id, &"t".into()).unwrap().agent_id, other);
}
