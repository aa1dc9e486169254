//! How fast agents become unreachable, and how many may fail to come back.

use std::time::Duration;

use tepui_api::link::agent_frame::Body as AgentFrame;
use tepui_api::link::coordinator_frame::Body as Frame;
use tepui_api::v1::{AgentId, AgentInfo};

use super::super::*;
use super::world::*;

fn limited(seconds: u64) -> Settings {
    let spacing = Duration::from_secs(seconds);
    Settings { agent_removal_rate_limit: Some(RemovalRate { spacing }), ..settings() }
}

fn known(number: usize) -> Recovered {
    let agent = |n| AgentInfo {
        id: Some(format!("old-S{n}").as_str().into()),
        hostname: format!("h{n}"),
        ..Default::default()
    };
    Recovered { admitted: (0..number).map(agent).collect(), ..Recovered::default() }
}

fn unreachable(world: &World) -> usize {
    world.core.snapshot().unreachable_agents.len()
}

#[test]
fn silent_agents_become_unreachable_one_after_the_other() {
    let mut world = World::with(limited(100), Recovered::default());
    for name in ["a", "bb", "ccc"] {
        world.agent(name, "cpus:1");
    }
    world.pongs = false;
    let counts: Vec<usize> = [91, 98, 4, 95, 4]
        .into_iter()
        .map(|seconds| {
            world.wait(Duration::from_secs(seconds));
            unreachable(&world)
        })
        .collect();
    assert_eq!(counts, [1, 1, 2, 2, 3]);
    let counters = world.core.snapshot().counters;
    assert_eq!((counters.slave_unreachable_scheduled, counters.slave_unreachable_completed), (3, 3));
    assert_eq!(counters.slave_unreachable_canceled, 0);
}

#[test]
fn who_is_heard_of_again_leaves_the_queue() {
    let mut world = World::with(limited(100), Recovered::default());
    let (_, _first) = world.agent("a", "cpus:1");
    let (link, second) = world.agent("bb", "cpus:1");
    let (_, third) = world.agent("ccc", "cpus:1");
    world.pongs = false;
    world.wait(Duration::from_secs(91));
    assert_eq!(unreachable(&world), 1);
    let last = world.frames(link).into_iter().rev().find_map(|frame| match frame {
        Frame::Ping(number) => Some(number),
        _ => None,
    });
    world.step(Input::Agent { link, frame: AgentFrame::Pong(last.unwrap()) });
    assert_eq!(world.core.snapshot().counters.slave_unreachable_canceled, 1);
    // The next in line takes the turn.
    world.wait(Duration::from_secs(101));
    let snapshot = world.core.snapshot();
    assert!(snapshot.agents.contains_key(&second) && !snapshot.agents.contains_key(&third));
}

#[test]
fn awaited_agents_wait_in_the_same_queue() {
    let mut world = World::with(limited(60), known(3));
    world.wait(Duration::from_secs(601));
    assert_eq!(unreachable(&world), 1);
    let mut register = register("h1", "cpus:1");
    register.agent.id = Some("old-S1".into());
    let waiting: Vec<_> = world.core.snapshot().recovered_agents.keys().cloned().collect();
    assert_eq!(waiting.len(), 2);
    let link = world.register(register);
    world.registered(link);
    world.wait(Duration::from_secs(200));
    let snapshot = world.core.snapshot();
    assert_eq!((snapshot.unreachable_agents.len(), snapshot.recovered_agents.len()), (2, 0));
    assert!(snapshot.agents.contains_key(&AgentId::new("old-S1")));
    assert_eq!(snapshot.counters.recovery_slave_removals, 2);
}

#[test]
fn too_many_agents_that_do_not_come_back_end_the_coordinator() {
    // (known, back, limit, ends)
    for (number, back, limit, ends) in [
        (4, 0, 1.0, false),
        (4, 2, 0.5, false),
        (4, 1, 0.5, true),
        (4, 4, 0.0, false),
        (4, 3, 0.0, true),
        (0, 0, 0.0, false),
    ] {
        let settings = Settings { recovery_agent_removal_limit: limit, ..settings() };
        let mut world = World::with(settings, known(number));
        for n in 0..back {
            let mut register = register(&format!("h{n}"), "cpus:1");
            register.address = format!("10.0.1.{n}:5051");
            register.agent.id = Some(format!("old-S{n}").as_str().into());
            let link = world.register(register);
            world.registered(link);
        }
        world.wait(Duration::from_secs(601));
        assert_eq!(!world.failures.is_empty(), ends, "{back} of {number} back, limit {limit}");
        let given_up = unreachable(&world);
        assert_eq!(given_up, if ends { 0 } else { number - back });
        if ends {
            assert!(world.failures[0].contains("--recovery_agent_removal_limit"), "{:?}", world.failures);
        }
    }
}
