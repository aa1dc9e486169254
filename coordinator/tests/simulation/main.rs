//! The coordinator's core under random faults, from seeds: agents and frameworks that join, leave, fail and repeat
//! themselves, a coordinator that is killed, connections that break.
//!
//! [`world`] holds the clock, the queue of what is to happen and the network; [`model`] the agents and frameworks;
//! [`ledger`] checks after every step what must always hold. Environment:
//!
//! - `SEEDS`: how many seeds (100; 10 without optimisation), `FIRST`: the first of them (0)
//! - `STEPS`: how many inputs the core gets under faults with each (10000; 2000 without optimisation)
//! - `SEED`: one seed, to see again how it failed, and `TRACE`: how many inputs before that are shown (30)

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod ledger;
mod model;
mod rng;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use world::{Tally, World};

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} should be a number, not '{text}'")))
}

/// What every run of the tests takes; more by the variables, such as `SEEDS=100 STEPS=10000`.
const SEEDS: u64 = 20;
/// For each seed.
const STEPS: u64 = 2000;

/// Runs one seed; the error is a whole report.
fn run(seed: u64, steps: u64) -> Result<Tally, String> {
    let traced = variable("TRACE").and_then(|traced| usize::try_from(traced).ok());
    let mut world = World::new(seed, traced.unwrap_or(30));
    let what = match catch_unwind(AssertUnwindSafe(|| world.run(steps))) {
        Ok(Ok(())) => return Ok(world.tally()),
        Ok(Err(what)) => what,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            format!("the core panicked: {}", text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("?"))
        }
    };
    Err(format!(
        "the last inputs:\n{}\nseed {seed}, step {}: {what}\n\nsee it again:\n  \
         SEED={seed} STEPS={steps} cargo nextest run --release -p tepui-coordinator simulation\n",
        world.report(),
        world.step_number(),
    ))
}

#[test]
fn simulation_holds_under_faults() {
    let steps = variable("STEPS").unwrap_or(STEPS);
    let first = variable("SEED").or_else(|| variable("FIRST")).unwrap_or(0);
    let seeds = if variable("SEED").is_some() { 1 } else { variable("SEEDS").unwrap_or(SEEDS) };
    let begun = Instant::now();
    let next = AtomicU64::new(first);
    let (total, failures) = (Mutex::new(Tally::default()), Mutex::new(Vec::new()));
    let threads =
        std::thread::available_parallelism().map_or(1, usize::from).min(usize::try_from(seeds).unwrap());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds || !failures.lock().unwrap().is_empty() {
                        return;
                    }
                    match run(seed, steps) {
                        Ok(tally) => total.lock().unwrap().add(&tally),
                        Err(report) => failures.lock().unwrap().push(report),
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let total = total.into_inner().unwrap();
    println!("{seeds} seeds from {first} in {:.1} s: {total}", begun.elapsed().as_secs_f64());
    if seeds >= 10 && steps >= 1000 {
        total.did_its_work();
    }
}

#[test]
fn simulation_of_a_seed_is_always_the_same() {
    let runs: Vec<Tally> = (0..2).map(|_| run(7, 1500).unwrap_or_else(|report| panic!("{report}"))).collect();
    assert_eq!(runs[0].digest, runs[1].digest);
    assert!(runs[0].simulated > Duration::from_secs(60));
}
