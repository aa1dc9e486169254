//! A whole cluster under random faults, from seeds: the real cores of coordinators and agents, models of everything around them.
//!
//! Several coordinators elect a leader over a model of ZooKeeper; agents, each with a disk and containers that outlive its
//! process, and frameworks find it. All of them share one clock and one network. [`world`] moves them and makes things
//! fail; [`ledger`] knows what was promised to whom, and says when a promise is broken. After the faults all must
//! come to agree within a bounded time.
//!
//! Environment:
//!
//! - `CLUSTER_SEEDS`: how many seeds, `CLUSTER_FIRST`: the first of them (0)
//! - `CLUSTER_STEPS`: how many inputs the cores get under faults with each
//! - `CLUSTER_FAILURES`: how many seeds may fail before it stops (1); the first is told in full
//! - `CLUSTER_SEED`: one seed, to see again how it failed, and `CLUSTER_TRACE`: how many events before that are shown

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod ledger;
#[path = "../../coordinator/tests/simulation/rng.rs"]
#[allow(dead_code, reason = "shared with the simulation of a coordinator alone, which uses all of it")]
mod rng;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use world::{Tally, World};

/// What every run of the tests takes; more by the variables.
const SEEDS: u64 = 1000;
/// For each seed.
const STEPS: u64 = 400;
/// How many events a report shows.
const TRACED: u64 = 60;

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} should be a number, not '{text}'")))
}

/// Runs one seed. What fails is run again, so that it can be told what happened before.
fn run(seed: u64, steps: u64) -> Result<Tally, String> {
    let mut world = World::new(seed, 0);
    let Err(what) = attempt(&mut world, steps) else { return Ok(world.tally()) };
    let traced = variable("CLUSTER_TRACE").unwrap_or(TRACED);
    let mut again = World::new(seed, usize::try_from(traced).unwrap_or(usize::MAX));
    let same = attempt(&mut again, steps);
    let note =
        if same.as_ref() == Err(&what) { "" } else { "\n(a second run of this seed went differently)" };
    Err(format!(
        "what happened last:\n{}\nseed {seed}, at {:.3} s: {what}{note}\n\nsee it again:\n  \
         CLUSTER_SEED={seed} CLUSTER_STEPS={steps} cargo nextest run -p tepui-tests simulation_of_a_cluster --no-capture\n",
        again.report(),
        again.now().as_secs_f64(),
    ))
}

fn attempt(world: &mut World, steps: u64) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| world.run(steps))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        Err(format!("a core panicked: {}", text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("?")))
    })
}

#[test]
fn simulation_of_a_cluster_holds_under_faults() {
    let steps = variable("CLUSTER_STEPS").unwrap_or(STEPS);
    let one = variable("CLUSTER_SEED");
    let first = one.or_else(|| variable("CLUSTER_FIRST")).unwrap_or(0);
    let seeds = if one.is_some() { 1 } else { variable("CLUSTER_SEEDS").unwrap_or(SEEDS) };
    let most = usize::try_from(variable("CLUSTER_FAILURES").unwrap_or(1)).unwrap();
    let begun = Instant::now();
    let next = AtomicU64::new(first);
    let (total, failures) = (Mutex::new(Tally::default()), Mutex::new(Vec::new()));
    let threads =
        std::thread::available_parallelism().map_or(1, usize::from).min(usize::try_from(seeds).unwrap());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut own = Tally::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds || failures.lock().unwrap().len() >= most {
                        break;
                    }
                    match run(seed, steps) {
                        Ok(tally) => own.add(&tally),
                        Err(report) => failures.lock().unwrap().push(report),
                    }
                }
                total.lock().unwrap().add(&own);
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    for report in failures.iter().skip(1) {
        println!("{}", report.lines().find(|line| line.starts_with("seed ")).unwrap_or_default());
    }
    assert!(failures.is_empty(), "{}", failures[0]);
    let total = total.into_inner().unwrap();
    let took = begun.elapsed().as_secs_f64();
    println!("{seeds} seeds from {first} in {took:.1} s ({:.0} a second): {total}", seeds as f64 / took);
    if seeds >= 200 && steps >= STEPS {
        total.did_its_work();
    }
}

#[test]
fn simulation_of_a_cluster_is_the_same_for_a_seed() {
    for seed in [3, 4, 5] {
        let runs: Vec<u64> =
            (0..2).map(|_| run(seed, STEPS).unwrap_or_else(|report| panic!("{report}")).digest).collect();
        assert_eq!(runs[0], runs[1], "seed {seed}");
    }
}
