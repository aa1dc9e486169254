//! The laws of resource arithmetic, on random resources of few kinds, so that they often meet.

#![allow(clippy::unwrap_used, reason = "a test may end there")]

use proptest::prelude::*;
use tepui_api::resources::{Resource, Resources, Value};
use tepui_api::v1;
use tepui_api::v1::resource::disk_info::source::{Mount, Path, Type as SourceType};
use tepui_api::v1::resource::disk_info::{Persistence, Source};
use tepui_api::v1::resource::reservation_info::Type as ReservationType;
use tepui_api::v1::resource::{AllocationInfo, DiskInfo, ReservationInfo, RevocableInfo, SharedInfo};
use tepui_api::v1::value;

/// Of each law.
const CASES: u32 = if cfg!(debug_assertions) { 300 } else { 3000 };

fn of_type(name: &str, kind: value::Type) -> v1::Resource {
    v1::Resource { name: name.into(), r#type: kind as i32, ..Default::default() }
}

fn scalar(name: &str, thousandths: u32) -> v1::Resource {
    let value = f64::from(thousandths) / 1000.0;
    v1::Resource { scalar: Some(value::Scalar { value }), ..of_type(name, value::Type::Scalar) }
}

fn plain() -> impl Strategy<Value = v1::Resource> {
    let amount = prop_oneof![0u32..5_000, Just(0), Just(1000), any::<u32>()];
    let range = (0u64..30, 0u64..5).prop_map(|(begin, more)| value::Range { begin, end: begin + more });
    prop_oneof![
        (prop_oneof![Just("cpus"), Just("mem"), Just("custom")], amount).prop_map(|(n, a)| scalar(n, a)),
        proptest::collection::vec(range, 0..3).prop_map(|mut range| {
            range.sort_by_key(|r| r.begin);
            range.dedup_by(|later, kept| later.begin <= kept.end);
            let ranges = Some(value::Ranges { range });
            v1::Resource { ranges, ..of_type("ports", value::Type::Ranges) }
        }),
        proptest::sample::subsequence(vec!["a", "b", "c", "d"], 0..=4).prop_map(|items| {
            let set = Some(value::Set { item: items.into_iter().map(str::to_owned).collect() });
            v1::Resource { set, ..of_type("set", value::Type::Set) }
        }),
    ]
}

fn disk() -> impl Strategy<Value = v1::Resource> {
    let amount = prop_oneof![Just(1000u32), Just(2000), 0u32..5000];
    let source = prop_oneof![
        Just(None),
        Just(Some(Source {
            r#type: SourceType::Path as i32,
            path: Some(Path { root: Some("/p".into()) }),
            ..Default::default()
        })),
        Just(Some(Source {
            r#type: SourceType::Mount as i32,
            mount: Some(Mount { root: Some("/m".into()) }),
            ..Default::default()
        })),
        Just(Some(Source { r#type: SourceType::Block as i32, ..Default::default() })),
        proptest::option::of(Just("id".to_owned())).prop_map(|id| Some(Source {
            r#type: SourceType::Raw as i32,
            id,
            ..Default::default()
        })),
    ];
    let volume = proptest::option::of(prop_oneof![Just("v1"), Just("v2")]);
    (amount, source, volume, any::<bool>()).prop_map(|(amount, source, volume, shared)| {
        let shared = (shared && volume.is_some()).then_some(SharedInfo {});
        let persistence = volume.map(|id| Persistence { id: id.into(), principal: None });
        let disk = Some(DiskInfo { persistence, source, volume: None });
        v1::Resource { disk, shared, ..scalar("disk", amount) }
    })
}

fn reservations() -> impl Strategy<Value = Vec<ReservationInfo>> {
    let one = |kind: ReservationType, role: &str, principal: Option<&str>| ReservationInfo {
        r#type: Some(kind as i32),
        role: Some(role.into()),
        principal: principal.map(str::to_owned),
        labels: None,
    };
    prop_oneof![
        4 => Just(vec![]),
        2 => Just(vec![one(ReservationType::Static, "r", None)]),
        1 => Just(vec![one(ReservationType::Dynamic, "r", Some("p"))]),
        1 => Just(vec![one(ReservationType::Static, "r", None), one(ReservationType::Dynamic, "r/s", None)]),
    ]
}

fn resource() -> impl Strategy<Value = v1::Resource> {
    let role = prop_oneof![3 => Just(None), 1 => Just(Some("r")), 1 => Just(Some("q"))];
    let base = prop_oneof![3 => plain(), 1 => disk()];
    (base, reservations(), role, proptest::bool::weighted(0.1), proptest::bool::weighted(0.1)).prop_map(
        |(base, reservations, role, revocable, provided)| v1::Resource {
            reservations,
            allocation_info: role.map(|role| AllocationInfo { role: Some(role.into()) }),
            revocable: revocable.then_some(RevocableInfo {}),
            provider_id: provided.then(|| "provider".into()),
            ..base
        },
    )
}

fn some() -> impl Strategy<Value = Resources> {
    proptest::collection::vec(resource(), 0..8).prop_map(|list| Resources::from_wire(&list).unwrap())
}

/// Without those of which only the number of copies is lost on the wire.
fn unshared() -> impl Strategy<Value = Resources> {
    some().prop_map(|all| all.non_shared())
}

/// Whether no number and no item is in both: only then does the sum keep all of both.
fn disjoint(a: &Resources, b: &Resources) -> bool {
    let counted = |all: &Resources| {
        all.filter(|resource| !matches!(resource.value(), Value::Scalar(_))).to_quantities()
    };
    counted(&(a + b)) == counted(a) + &counted(b)
}

/// A wire resource that need not be valid in any way.
fn anything() -> impl Strategy<Value = v1::Resource> {
    let number = prop_oneof![any::<f64>(), Just(f64::NAN), Just(f64::INFINITY), Just(-0.0), Just(1e15)];
    let edge = prop_oneof![any::<u64>(), Just(0), Just(u64::MAX), 0u64..10];
    let range = (edge.clone(), edge).prop_map(|(begin, end)| value::Range { begin, end });
    let name = prop_oneof![Just("cpus"), Just("disk"), Just("ports"), Just(""), Just("x")];
    let values = (
        proptest::option::of(number.prop_map(|value| value::Scalar { value })),
        proptest::option::of(
            proptest::collection::vec(range, 0..4).prop_map(|range| value::Ranges { range }),
        ),
        proptest::option::of(proptest::collection::vec("[a-c]?", 0..4).prop_map(|item| value::Set { item })),
    );
    let role = || proptest::option::of(prop_oneof![Just("*"), Just("r"), Just("r/s"), Just(""), Just("/")]);
    let info = (proptest::option::of(-1i32..4), role()).prop_map(|(kind, role)| ReservationInfo {
        r#type: kind,
        role: role.map(str::to_owned),
        ..Default::default()
    });
    let old = proptest::option::of(info.clone());
    let list = proptest::collection::vec(info, 0..3);
    let source = (-1i32..6, any::<bool>()).prop_map(|(kind, path)| Source {
        r#type: kind,
        path: path.then(Path::default),
        ..Default::default()
    });
    let disk = (proptest::option::of(source), any::<bool>()).prop_map(|(source, volume)| DiskInfo {
        source,
        persistence: volume.then(Persistence::default),
        volume: None,
    });
    let rest = (proptest::option::of(disk), any::<bool>(), any::<bool>(), role());
    (name, -1i32..5, values, role(), old, list, rest).prop_map(
        |(name, r#type, (scalar, ranges, set), role, reservation, reservations, rest)| {
            let (disk, revocable, shared, allocation) = rest;
            v1::Resource {
                name: name.into(),
                r#type,
                scalar,
                ranges,
                set,
                role: role.map(str::to_owned),
                reservation,
                reservations,
                disk,
                revocable: revocable.then_some(RevocableInfo {}),
                shared: shared.then_some(SharedInfo {}),
                allocation_info: allocation.map(|role| AllocationInfo { role: Some(role.into()) }),
                provider_id: None,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..Default::default() })]

    #[test]
    fn adding_is_commutative_and_associative(a in some(), b in some(), c in some()) {
        prop_assert_eq!(&a + &b, &b + &a);
        prop_assert_eq!(&(&a + &b) + &c, &a + &(&b + &c));
        prop_assert_eq!(&a + &Resources::new(), a);
    }

    #[test]
    fn a_sum_contains_its_parts(a in some(), b in some()) {
        let sum = &a + &b;
        prop_assert!(sum.contains(&a) && sum.contains(&b));
        prop_assert!(a.contains(&Resources::new()));
    }

    #[test]
    fn taking_away_what_was_added_gives_back_what_was(a in some(), b in some()) {
        // What the sum could not keep apart is kept apart first.
        let b = if disjoint(&a, &b) { b } else { b.scalars() };
        let sum = &a + &b;
        prop_assert_eq!(&sum - &b, a.clone());
        prop_assert_eq!(sum.checked_sub(&a), Some(b));
    }

    #[test]
    fn adding_what_was_taken_away_gives_back_what_was(a in some(), b in some()) {
        match a.checked_sub(&b) {
            Some(rest) => {
                prop_assert!(a.contains(&b));
                prop_assert_eq!(rest + &b, a.clone());
            }
            None => prop_assert!(!a.contains(&b)),
        }
        // Whole or in part, nothing comes out that was not there.
        prop_assert!(a.contains(&(&a - &b)));
    }

    #[test]
    fn contains_is_an_order(a in some(), b in some(), c in some()) {
        prop_assert!(a.contains(&a));
        prop_assert_eq!(a == b, a.contains(&b) && b.contains(&a));
        let (ab, abc) = (&a + &b, &(&a + &b) + &c);
        prop_assert!(abc.contains(&ab) && ab.contains(&a) && abc.contains(&a));
    }

    #[test]
    fn each_kind_is_there_once_and_nothing_empty(a in some(), b in some()) {
        for all in [&a + &b, &a - &b, a.clone().allocated("x"), a.to_unreserved()] {
            let list: Vec<&Resource> = all.iter().collect();
            for (n, resource) in list.iter().enumerate() {
                prop_assert!(!resource.is_empty());
                let alone = Resources::from((*resource).clone());
                for other in &list[n + 1..] {
                    let pair = &alone + &Resources::from((*other).clone());
                    prop_assert!(pair.iter().len() == 2, "{resource} and {other}");
                }
            }
        }
    }

    #[test]
    fn parts_by_any_measure_make_the_whole(a in some()) {
        prop_assert_eq!(a.revocable() + a.non_revocable(), a.clone());
        prop_assert_eq!(a.shared() + a.non_shared(), a.clone());
        prop_assert_eq!(a.unreserved() + a.all_reserved(), a.clone());
        prop_assert_eq!(a.reservations().into_values().sum::<Resources>(), a.all_reserved());
        let allocated = a.filter(|resource| resource.allocation().is_some());
        prop_assert_eq!(a.allocations().into_values().sum::<Resources>(), allocated);
        prop_assert_eq!(a.clone().allocated("x").allocations().len(), usize::from(!a.is_empty()));
    }

    #[test]
    fn quantities_follow_the_resources(a in unshared(), b in unshared()) {
        let (qa, qb) = (a.scalar_quantities(), b.scalar_quantities());
        prop_assert_eq!((&a + &b).scalar_quantities(), qa.clone() + &qb);
        prop_assert_eq!((qa.clone() + &qb) - &qb, qa.clone());
        prop_assert!(qa.max(&qb).contains(&qa) && qa.contains(&qa.min(&qb)));
        prop_assert_eq!(qa.max(&qb) + &qa.min(&qb), qa.clone() + &qb);
        prop_assert!(a.contains_quantities(&a.to_quantities()));
        if a.contains(&b) {
            prop_assert!(a.to_quantities().contains(&b.to_quantities()));
        }
    }

    #[test]
    fn the_wire_gives_them_back(a in unshared()) {
        prop_assert_eq!(Resources::from_wire(&a.to_wire()), Ok(a.clone()));
        prop_assert_eq!(Resources::from_wire(&a.to_wire_endpoint()), Ok(a.clone()));
        match a.to_wire_pre_refinement() {
            Ok(wire) => {
                prop_assert!(wire.iter().all(|r| r.role.is_some() && r.reservations.is_empty()));
                prop_assert_eq!(Resources::from_wire(&wire), Ok(a));
            }
            Err(_) => prop_assert!(a.iter().any(Resource::has_refined_reservations)),
        }
    }

    #[test]
    fn the_text_gives_them_back(list in proptest::collection::vec((plain(), any::<bool>()), 1..8)) {
        let list: Vec<v1::Resource> = list.into_iter().map(|(mut resource, reserved)| {
            resource.role = reserved.then(|| "some/role".to_owned());
            resource
        }).collect();
        let all = Resources::from_wire(&list).unwrap();
        prop_assume!(!all.is_empty());
        prop_assert_eq!(Resources::parse(&all.to_string(), "*").unwrap(), all.clone());
        let json = String::from_utf8(tepui_api::codec::encode_json(&all.to_wire())).unwrap();
        prop_assert_eq!(Resources::parse(&json, "*").unwrap(), all);
    }

    #[test]
    fn what_is_found_is_there_and_as_much_as_wanted(a in some(), b in some()) {
        if let Some(found) = a.find(&b) {
            prop_assert!(a.contains(&found));
            prop_assert_eq!(found.scalar_quantities(), b.scalar_quantities());
        }
        prop_assert_eq!(a.find(&a).map(|found| found.scalar_quantities()), Some(a.scalar_quantities()));
    }

    #[test]
    fn no_wire_resource_makes_it_panic(list in proptest::collection::vec(anything(), 0..4)) {
        let (mut up, mut down) = (list.clone(), list.clone());
        tepui_api::resources::upgrade(&mut up);
        let _ = tepui_api::resources::downgrade(&mut down);
        let all = Resources::from_wire_lossy(&list);
        if let Ok(checked) = Resources::from_wire(&list) {
            prop_assert_eq!(&checked, &all);
            prop_assert_eq!(Resources::from_wire(&up), Ok(checked));
        }
        prop_assert!(all.contains(&all));
        prop_assert!((&all - &all).is_empty());
        let _ = (all.to_string(), all.check_use(), all.find(&all), all.to_quantities(), all.to_wire_endpoint());
        prop_assert!(all.to_wire().iter().all(|wire| Resource::from_wire(wire).is_ok()));
    }

    #[test]
    fn no_text_makes_it_panic(text in "[a-z0-9:;,{}()*\\[\\]. -]{0,40}") {
        let _ = Resources::parse(&text, "*");
        let _ = tepui_api::resources::parse_attributes(&text);
        let _ = tepui_api::resources::ResourceQuantities::parse(&text);
    }
}
