//! Measures the allocator by itself: `cargo run --release -p tepui-coordinator --example allocator_bench`.
//!
//! The first rows are the promises of allocation rounds; the others show what a round costs when frameworks
//! decline everything, and how soon what a task leaves behind is granted again.

#![allow(clippy::expect_used, reason = "a benchmark that cannot go on says so and ends")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tepui_api::resources::{ResourceQuantities, Resources};
use tepui_coordinator::allocator::{
    AgentKey, AgentTraits, Allocator, FrameworkKey, Grant, Options, Return, Terms,
};

const SECOND: Duration = Duration::from_secs(1);

struct Cluster {
    allocator: Allocator,
    now: Duration,
}

impl Cluster {
    /// Agents that are free, and frameworks that want them, spread over roles.
    fn new(agents: usize, frameworks: usize, roles: usize) -> Self {
        let mut allocator = Allocator::new(Options {
            interval: SECOND,
            delay: Duration::ZERO,
            minimum: vec![
                ResourceQuantities::parse("cpus:0.01").expect("an amount"),
                ResourceQuantities::parse("mem:32").expect("an amount"),
            ],
            filter_gpus: true,
            seed: 1,
            weights: Vec::new(),
        });
        for n in 0..frameworks {
            let role = if roles == 1 { "*".to_owned() } else { format!("role-{:05}", n % roles) };
            let terms = Terms { roles: BTreeSet::from([role]), ..Default::default() };
            let key: FrameworkKey = allocator.add_framework(terms);
            allocator.activate_framework(key, Duration::ZERO);
        }
        let total =
            Resources::parse("cpus:24;mem:65536;disk:1000000;ports:[31000-32000]", "*").expect("resources");
        let traits = AgentTraits { multi_role: true, hierarchical_role: true };
        for _ in 0..agents {
            let key: AgentKey = allocator.add_agent(traits, total.clone());
            allocator.activate_agent(key, Duration::ZERO);
        }
        Self { allocator, now: SECOND }
    }

    fn round(&mut self) -> (Vec<Grant>, Duration) {
        let begin = Instant::now();
        let grants = self.allocator.run(self.now);
        (grants, begin.elapsed())
    }

    fn decline(&mut self, grants: Vec<Grant>, refuse: Duration) {
        for Grant { framework, role, agent, resources } in grants {
            self.allocator.release(agent, framework, &role, &resources, Return::Unused { refuse }, self.now);
        }
    }
}

fn row(what: &str, rounds: &mut [Duration], grants: usize) {
    rounds.sort_unstable();
    let (median, worst) = (rounds[rounds.len() / 2], rounds[rounds.len() - 1]);
    println!("{what:<58} {:>10.3} ms {:>10.3} ms {grants:>8}", millis(median), millis(worst));
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn main() {
    println!("{:<58} {:>13} {:>13} {:>8}", "", "median", "worst", "grants");
    for (agents, frameworks, roles) in
        [(2_000, 2_000, 1), (2_000, 2_000, 2_000), (3_000, 3_000, 3_000), (50_000, 1_000, 1)]
    {
        let name = format!("{agents} agents, {frameworks} frameworks, {roles} roles");
        let mut times = Vec::new();
        let mut idle = Vec::new();
        let mut granted = 0;
        for _ in 0..7 {
            let mut cluster = Cluster::new(agents, frameworks, roles);
            let (grants, time) = cluster.round();
            granted = grants.len();
            times.push(time);
            cluster.now += SECOND;
            idle.push(cluster.round().1);
        }
        row(&format!("{name}: all free"), &mut times, granted);
        row(&format!("{name}: nothing changed"), &mut idle, 0);
    }
    decline_rows();
    reuse_row();
}

/// Each framework declines all it gets, for longer than the run lasts.
fn decline_rows() {
    for rounds in [20, 200] {
        let mut cluster = Cluster::new(2_000, 2_000, 1);
        let mut times = Vec::new();
        let mut granted = 0;
        for _ in 0..rounds {
            let (grants, time) = cluster.round();
            granted += grants.len();
            times.push(time);
            cluster.decline(grants, SECOND * 100_000);
            cluster.now += SECOND;
        }
        row(&format!("2000 agents, 2000 frameworks: {rounds} rounds, all declined"), &mut times, granted);
    }
}

/// One task ends on one of many agents.
fn reuse_row() {
    let mut cluster = Cluster::new(50_000, 1_000, 1);
    let (grants, _) = cluster.round();
    let part = Resources::parse("cpus:1;mem:1024", "*").expect("resources");
    let mut times = Vec::new();
    for Grant { framework, role, agent, .. } in grants.into_iter().take(1_000) {
        let begin = Instant::now();
        cluster.allocator.release(agent, framework, &role, &part, Return::Ended, cluster.now);
        let granted = cluster.allocator.run(cluster.now).len();
        times.push(begin.elapsed());
        assert_eq!(granted, 1, "what came back is granted again");
    }
    row("50000 agents, 1000 frameworks: one task ends", &mut times, 1);
}
