//! The allocator by itself: shares, trees of roles, and work only where something changed.

use std::collections::BTreeSet;
use std::time::Duration;

use tepui_api::resources::Resources;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn allocator(weights: &[(&str, f64)]) -> Allocator {
    Allocator::new(Options {
        interval: SECOND,
        delay: Duration::ZERO,
        minimum: vec![
            ResourceQuantities::parse("cpus:0.01").unwrap(),
            ResourceQuantities::parse("mem:32").unwrap(),
        ],
        filter_gpus: true,
        seed: 7,
        weights: weights.iter().map(|(role, weight)| ((*role).to_owned(), *weight)).collect(),
    })
}

fn resources(text: &str) -> Resources {
    Resources::parse(text, "*").unwrap()
}

fn in_roles(roles: &[&str]) -> Terms {
    Terms { roles: roles.iter().map(|role| (*role).to_owned()).collect(), ..Default::default() }
}

fn framework(allocator: &mut Allocator, role: &str) -> FrameworkKey {
    let key = allocator.add_framework(in_roles(&[role]));
    allocator.activate_framework(key, Duration::ZERO);
    key
}

fn agent(allocator: &mut Allocator, text: &str) -> AgentKey {
    let traits = AgentTraits { multi_role: true, hierarchical_role: true };
    let key = allocator.add_agent(traits, resources(text));
    allocator.activate_agent(key, Duration::ZERO);
    key
}

/// Adds agents one by one, and counts who got them.
fn share_out(allocator: &mut Allocator, frameworks: &[FrameworkKey], agents: usize) -> Vec<usize> {
    // A large cluster whose agents are not for offer makes the shares small and steady.
    let traits = AgentTraits { multi_role: true, hierarchical_role: true };
    allocator.add_agent(traits, resources("cpus:100000;mem:100000"));
    let mut counts = vec![0; frameworks.len()];
    for _ in 0..agents {
        agent(allocator, "cpus:1;mem:1");
        for grant in allocator.run(Duration::ZERO) {
            counts[frameworks.iter().position(|key| *key == grant.framework).unwrap()] += 1;
        }
    }
    counts
}

#[test]
fn roles_share_before_frameworks_do() {
    let mut a = allocator(&[]);
    let keys = ["x", "x", "x", "y"].map(|role| framework(&mut a, role));
    assert_eq!(share_out(&mut a, &keys, 60), [10, 10, 10, 30]);
}

#[test]
fn weights_shift_the_shares() {
    let mut a = allocator(&[("x", 3.0)]);
    let keys = ["x", "y"].map(|role| framework(&mut a, role));
    assert_eq!(share_out(&mut a, &keys, 40), [30, 10]);
}

#[test]
fn a_role_and_those_below_it_share_what_is_theirs() {
    let mut a = allocator(&[]);
    let keys = ["eng", "eng/web", "eng/web/a", "ops"].map(|role| framework(&mut a, role));
    assert_eq!(share_out(&mut a, &keys, 80), [20, 10, 10, 40]);
}

#[test]
fn the_dominant_resource_counts() {
    let mut a = allocator(&[]);
    let (thin, wide) = (framework(&mut a, "x"), framework(&mut a, "y"));
    let traits = AgentTraits { multi_role: true, hierarchical_role: true };
    let base = a.add_agent(traits, resources("cpus:100;mem:1000"));
    // A tenth of the CPUs is more than a twentieth of the memory.
    a.charge(base, thin, "x", &resources("mem:50"));
    a.charge(base, wide, "y", &resources("cpus:10"));
    // By the last of them both have 10 CPUs of 110, and wide was given less often.
    for (cpus, turn) in [(1, thin), (8, thin), (1, thin), (1, wide)] {
        agent(&mut a, &format!("cpus:{cpus}"));
        assert_eq!(a.run(Duration::ZERO)[0].framework, turn);
    }
}

#[test]
fn nothing_changed_nothing_done() {
    let mut a = allocator(&[]);
    framework(&mut a, "*");
    for _ in 0..10 {
        agent(&mut a, "cpus:1;mem:100");
    }
    assert_eq!(a.run(Duration::ZERO).len(), 10);
    assert_eq!((a.next_deadline(), a.runs()), (None, 1));
    assert!(a.run(SECOND * 100).is_empty());
    assert_eq!(a.runs(), 1);
}

#[test]
fn what_comes_back_is_offered_when_it_may() {
    let mut a = allocator(&[]);
    let key = framework(&mut a, "*");
    let on = agent(&mut a, "cpus:4;mem:100");
    let all = a.run(Duration::ZERO).remove(0).resources;
    let half = resources("cpus:2;mem:50");
    // Ended: at once.
    a.release(on, key, "*", &half, Return::Ended, SECOND);
    assert_eq!(a.next_deadline(), Some(SECOND));
    assert_eq!(a.run(SECOND)[0].resources, half);
    // Unused: at the next interval.
    a.release(on, key, "*", &half, Return::Unused { refuse: Duration::ZERO }, SECOND);
    assert_eq!(a.next_deadline(), Some(SECOND * 2));
    assert!(a.run(SECOND * 3 / 2).is_empty());
    assert_eq!(a.run(SECOND * 2)[0].resources, half);
    // Refused: when the filter falls, unless there is more by then.
    a.release(on, key, "*", &half, Return::Unused { refuse: SECOND * 5 / 2 }, SECOND * 2);
    assert!(a.run(SECOND * 3).is_empty());
    assert_eq!(a.next_deadline(), Some(SECOND * 5));
    assert_eq!(a.run(SECOND * 5)[0].resources, half);
    a.release(on, key, "*", &half, Return::Unused { refuse: SECOND * 100 }, SECOND * 5);
    assert!(a.run(SECOND * 6).is_empty());
    a.release(on, key, "*", &half, Return::Ended, SECOND * 6);
    assert_eq!(a.run(SECOND * 6)[0].resources, all);
}

#[test]
fn minimums_of_frameworks_replace_the_default() {
    let mut a = allocator(&[]);
    let least = |text: &str| ResourceQuantities::parse(text).unwrap();
    let terms =
        |minimum: Vec<_>| Terms { minimum: BTreeMap::from([("*".to_owned(), minimum)]), ..in_roles(&["*"]) };
    let picky = a.add_framework(terms(vec![least("cpus:8"), least("mem:500;ports:2")]));
    a.activate_framework(picky, Duration::ZERO);
    agent(&mut a, "cpus:7;mem:499");
    assert!(a.run(Duration::ZERO).is_empty());
    agent(&mut a, "cpus:1;mem:500;ports:[1-2]");
    assert_eq!(a.run(Duration::ZERO).len(), 1);
    a.update_framework(picky, terms(vec![]), Duration::ZERO);
    assert_eq!(a.run(Duration::ZERO).len(), 1);
}

#[test]
fn frameworks_with_many_roles_leave_some() {
    let mut a = allocator(&[]);
    let key = a.add_framework(in_roles(&["x", "y"]));
    a.activate_framework(key, Duration::ZERO);
    let on = agent(&mut a, "cpus(x):1;cpus(y):1");
    let roles: BTreeSet<_> = a.run(Duration::ZERO).into_iter().map(|grant| grant.role).collect();
    assert_eq!(roles.len(), 2);
    a.update_framework(key, in_roles(&["y"]), Duration::ZERO);
    // What it holds as x it gives back later; then the role is gone.
    a.release(on, key, "x", &resources("cpus(x):1"), Return::Ended, Duration::ZERO);
    assert!(a.run(Duration::ZERO).is_empty());
    a.release(on, key, "y", &resources("cpus(y):1"), Return::Ended, Duration::ZERO);
    assert_eq!(a.run(Duration::ZERO).len(), 1);
    a.release(on, key, "y", &resources("cpus(y):1"), Return::Ended, Duration::ZERO);
    a.remove_framework(key);
    a.remove_agent(on);
    assert!(a.run(SECOND).is_empty());
}

#[test]
fn a_framework_that_left_is_not_looked_at() {
    let mut a = allocator(&[]);
    let key = framework(&mut a, "*");
    let on = agent(&mut a, "cpus:1");
    a.run(Duration::ZERO);
    let unused = Return::Unused { refuse: SECOND * 5 };
    a.release(on, key, "*", &resources("cpus:1"), unused, SECOND);
    // It revives its role, and is removed before anything came of that.
    a.revive(key, &[], SECOND);
    a.remove_framework(key);
    assert!(a.run(SECOND).is_empty());
    assert!(a.run(SECOND * 100).is_empty());
    let next = framework(&mut a, "*");
    assert_eq!(a.run(SECOND * 101)[0].framework, next);
}
