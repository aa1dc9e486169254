//! Resources by example: what adds up, what contains what, and what the wire may not say.

#![allow(clippy::unwrap_used, reason = "a test may end there")]

use std::slice::from_ref;

use tepui_api::resources::{
    Problem, Range, RefinedError, Resource, ResourceQuantities, Resources, Scalar, UseError, downgrade,
    parse_list, summarize, upgrade,
};
use tepui_api::v1;
use tepui_api::v1::resource::disk_info::source::Type as SourceType;
use tepui_api::v1::resource::disk_info::{Persistence, Source};
use tepui_api::v1::resource::reservation_info::Type as ReservationType;
use tepui_api::v1::resource::{AllocationInfo, DiskInfo, ReservationInfo, RevocableInfo, SharedInfo};
use tepui_api::v1::value;

fn text(text: &str) -> Resources {
    Resources::parse(text, "*").unwrap()
}

fn wire(name: &str, amount: f64) -> v1::Resource {
    let mut resource = v1::Resource { name: name.into(), ..Default::default() };
    resource.set_type(value::Type::Scalar);
    resource.scalar = Some(value::Scalar { value: amount });
    resource
}

fn reservation(kind: ReservationType, role: &str) -> ReservationInfo {
    ReservationInfo { r#type: Some(kind as i32), role: Some(role.into()), ..Default::default() }
}

fn disk(amount: f64, kind: Option<SourceType>, id: Option<&str>, persistence: Option<&str>) -> v1::Resource {
    let source = kind.map(|kind| Source {
        r#type: kind as i32,
        id: id.map(str::to_owned),
        mount: (kind == SourceType::Mount)
            .then(|| v1::resource::disk_info::source::Mount { root: Some("/mnt/1".into()) }),
        ..Default::default()
    });
    let persistence = persistence.map(|id| Persistence { id: id.into(), principal: None });
    v1::Resource { disk: Some(DiskInfo { source, persistence, volume: None }), ..wire("disk", amount) }
}

fn volume(id: &str) -> v1::Resource {
    let mut resource = disk(64.0, None, None, Some(id));
    resource.reservations.push(reservation(ReservationType::Dynamic, "r"));
    resource
}

fn shared(id: &str) -> v1::Resource {
    v1::Resource { shared: Some(SharedInfo {}), ..volume(id) }
}

fn one(resource: &v1::Resource) -> Resources {
    Resources::from_wire(from_ref(resource)).unwrap()
}

#[test]
fn sums_of_doubles_come_out_even() {
    let mut all = text("cpus:0.1") + text("cpus:0.2");
    assert_eq!(all, text("cpus:0.3"));
    all -= &text("cpus:0.3");
    assert!(all.is_empty());
    assert_eq!(text("cpus:1.5123").cpus(), Some(Scalar::from_thousandths(1512)));
}

#[test]
fn what_differs_in_more_than_its_amount_is_kept_apart() {
    let plain = wire("cpus", 1.0);
    let others = [
        v1::Resource { name: "gpus".into(), ..plain.clone() },
        v1::Resource { revocable: Some(RevocableInfo {}), ..plain.clone() },
        v1::Resource { provider_id: Some("p".into()), ..plain.clone() },
        v1::Resource { allocation_info: Some(AllocationInfo { role: Some("r".into()) }), ..plain.clone() },
        v1::Resource { reservations: vec![reservation(ReservationType::Static, "r")], ..plain.clone() },
        v1::Resource { reservations: vec![reservation(ReservationType::Dynamic, "r")], ..plain.clone() },
        v1::Resource { role: Some("q".into()), ..plain.clone() },
    ];
    for other in &others {
        let other = one(other);
        let both = one(&plain) + &other;
        assert_eq!(both.iter().len(), 2, "{both}");
        assert!(!one(&plain).contains(&other), "{other}");
        assert!(!other.contains(&one(&plain)), "{other}");
        assert_eq!(both.checked_sub(&other), Some(one(&plain)));
    }
}

#[test]
fn labels_compare_without_order() {
    let with = |labels: &[(&str, &str)]| {
        let label =
            |(key, value): &(&str, &str)| v1::Label { key: (*key).into(), value: Some((*value).into()) };
        let mut resource = wire("cpus", 1.0);
        resource.reservations.push(ReservationInfo {
            labels: Some(v1::Labels { labels: labels.iter().map(label).collect() }),
            ..reservation(ReservationType::Dynamic, "r")
        });
        one(&resource)
    };
    assert_eq!(with(&[("a", "1"), ("b", "2")]), with(&[("b", "2"), ("a", "1")]));
    assert_ne!(with(&[("a", "1"), ("b", "2")]), with(&[("a", "1"), ("a", "1")]));
}

#[test]
fn whole_disks_and_volumes_cannot_be_divided() {
    for kind in [
        disk(100.0, Some(SourceType::Mount), None, None),
        disk(100.0, Some(SourceType::Block), None, None),
        disk(100.0, Some(SourceType::Raw), Some("id"), None),
        volume("v"),
    ] {
        let whole = one(&kind);
        let part = one(&v1::Resource { scalar: Some(value::Scalar { value: 50.0 }), ..kind.clone() });
        assert!(whole.contains(&whole));
        assert!(!whole.contains(&part), "{whole}");
        let twice = &whole + &whole;
        assert_eq!(twice.iter().len(), 2, "{twice}");
        assert!(twice.contains(&whole) && !whole.contains(&twice), "{twice}");
        assert_eq!(twice.checked_sub(&whole), Some(whole.clone()));
        let mut resource = whole.iter().next().cloned().unwrap();
        assert!(!resource.shrink(Scalar::from_units(50)) && resource.shrink(Scalar::from_units(500)));
    }
    for kind in
        [disk(100.0, Some(SourceType::Path), None, None), disk(100.0, Some(SourceType::Raw), None, None)]
    {
        let whole = one(&kind);
        let part = one(&v1::Resource { scalar: Some(value::Scalar { value: 50.0 }), ..kind });
        assert_eq!(whole.checked_sub(&part), Some(part.clone()));
        assert_eq!(&part + &part, whole);
    }
}

#[test]
fn how_a_volume_is_used_does_not_make_it_another() {
    let mut used = volume("v");
    if let Some(disk) = &mut used.disk {
        disk.volume = Some(v1::Volume { container_path: "data".into(), ..Default::default() });
        disk.persistence = Some(Persistence { id: "v".into(), principal: Some("someone".into()) });
    }
    assert_eq!(one(&volume("v")), one(&used));
    assert!((one(&volume("v")) - &one(&used)).is_empty());
    assert_ne!(one(&volume("v")), one(&volume("w")));
}

#[test]
fn copies_of_a_shared_resource_are_counted() {
    let single = one(&shared("v"));
    let copy = single.iter().next().cloned().unwrap();
    let three = &(&single + &single) + &single;
    assert_eq!((three.iter().len(), three.count(&copy)), (1, 3));
    assert!(three.contains(&single) && !single.contains(&three));
    let two = three.checked_sub(&single).unwrap();
    assert_eq!(two.count(&copy), 2);
    assert_eq!(two.checked_sub(&three), None);
    assert!((&two - &three).is_empty());
    assert_eq!(three.to_wire().len(), 1);
    assert_eq!(three.to_quantities().disk(), Scalar::from_units(64));
    assert!(!one(&volume("v")).contains(&single), "shared and not shared are different");
}

#[test]
fn what_is_reserved_to_a_role_is_also_for_roles_below() {
    let all = text("cpus(eng):1;cpus(eng/web):2;cpus:4;cpus(ops):8");
    assert_eq!(all.allocatable_to("eng/web"), text("cpus(eng):1;cpus(eng/web):2;cpus:4"));
    assert_eq!(all.allocatable_to("eng"), text("cpus(eng):1;cpus:4"));
    assert_eq!(all.allocatable_to("engine"), text("cpus:4"));
    assert_eq!(all.reserved("eng"), text("cpus(eng):1"));
    assert_eq!(all.reserved_to_subtree("eng"), text("cpus(eng):1;cpus(eng/web):2"));
    assert_eq!(all.unreserved(), text("cpus:4"));
    assert_eq!(all.reservations().keys().map(|role| &**role).collect::<Vec<_>>(), ["eng", "eng/web", "ops"]);
    assert_eq!(all.cpus(), Some(Scalar::from_units(15)));
}

#[test]
fn allocations_are_grouped_and_taken_back() {
    let a = text("cpus:1;mem:10").allocated("a");
    let b = text("cpus:2").allocated("b");
    let mut both = &a + &b;
    let groups = both.allocations();
    assert_eq!((groups.get("a"), groups.get("b")), (Some(&a), Some(&b)));
    assert!(both.allocation_role().is_err());
    assert_eq!(a.allocation_role(), Ok(Some("a")));
    both.unallocate();
    assert_eq!(both, text("cpus:3;mem:10"));
    assert_eq!(both.iter().len(), 2);
    assert_eq!(both.allocation_role(), Err(UseError::NotAllocated));
}

#[test]
fn a_target_is_found_in_its_role_first_then_unreserved_then_elsewhere() {
    let has = text("cpus(a):2;cpus:2;cpus(b):2;ports:[1-9]");
    assert_eq!(has.find(&text("cpus(a):1")), Some(text("cpus(a):1")));
    assert_eq!(has.find(&text("cpus(a):3")), Some(text("cpus(a):2;cpus:1")));
    assert_eq!(has.find(&text("cpus:3")), Some(text("cpus:2;cpus(a):1")));
    assert_eq!(
        has.find(&text("cpus(a):6;ports:[2-3]")),
        Some(text("cpus(a):2;cpus:2;cpus(b):2;ports:[2-3]"))
    );
    assert_eq!(has.find(&text("cpus:7")), None);
    assert_eq!(has.find(&text("cpus:1;mem:1")), None);
}

#[test]
fn reservations_are_pushed_and_popped() {
    let mut base = text("cpus(a):2");
    let refined = base.push_reservation(
        &tepui_api::resources::Reservation::from_wire(&reservation(ReservationType::Dynamic, "a/b")).unwrap(),
    );
    assert!(refined.iter().all(Resource::has_refined_reservations));
    assert_eq!(refined.to_wire_pre_refinement(), Err(RefinedError));
    assert_eq!(refined.pop_reservation(), base);
    assert_eq!(refined.to_unreserved(), text("cpus:2"));
    base += &refined;
    assert_eq!(base.to_unreserved(), text("cpus:4"));
}

#[test]
fn what_is_not_a_resource_says_why() {
    let scalar = wire("cpus", 1.0);
    let reserved = |list: Vec<ReservationInfo>| v1::Resource { reservations: list, ..wire("cpus", 1.0) };
    let ranges = |list: &[(u64, u64)]| {
        let range = list.iter().map(|(begin, end)| value::Range { begin: *begin, end: *end }).collect();
        let r#type = value::Type::Ranges as i32;
        v1::Resource {
            name: "ports".into(),
            r#type,
            ranges: Some(value::Ranges { range }),
            ..Default::default()
        }
    };
    let set = v1::Resource {
        name: "s".into(),
        r#type: value::Type::Set as i32,
        set: Some(value::Set { item: vec!["a".into(), "b".into(), "a".into()] }),
        ..Default::default()
    };
    let dynamic = |role| reservation(ReservationType::Dynamic, role);
    let with_source = |kind: i32, path: bool| {
        let path = path.then(Default::default);
        let source = Some(Source { r#type: kind, path, ..Default::default() });
        v1::Resource { disk: Some(DiskInfo { source, ..Default::default() }), ..wire("disk", 1.0) }
    };
    let old = |role: Option<&str>, info: ReservationInfo| v1::Resource {
        role: role.map(str::to_owned),
        reservation: Some(info),
        ..wire("cpus", 1.0)
    };
    type Expected = fn(&Problem) -> bool;
    let cases: Vec<(v1::Resource, Expected)> = vec![
        (v1::Resource { name: String::new(), ..scalar.clone() }, |p| *p == Problem::EmptyName),
        (v1::Resource { r#type: value::Type::Text as i32, ..scalar.clone() }, |p| *p == Problem::Type),
        (v1::Resource { r#type: 77, ..scalar.clone() }, |p| *p == Problem::Type),
        (v1::Resource { r#type: value::Type::Set as i32, ..scalar.clone() }, |p| {
            *p == Problem::ValueOfOtherType("SET")
        }),
        (v1::Resource { scalar: None, ..scalar.clone() }, |p| *p == Problem::ValueOfOtherType("SCALAR")),
        (v1::Resource { set: Some(value::Set::default()), ..scalar.clone() }, |p| {
            *p == Problem::ValueOfOtherType("SCALAR")
        }),
        (wire("cpus", -0.5), |p| *p == Problem::Negative(-0.5)),
        (wire("cpus", f64::NAN), |p| matches!(p, Problem::NotANumber(_))),
        (wire("cpus", f64::INFINITY), |p| matches!(p, Problem::NotANumber(_))),
        (wire("cpus", 1e300), |p| matches!(p, Problem::NotANumber(_))),
        (ranges(&[(2, 1)]), |p| *p == Problem::RangeInverted(2, 1)),
        (ranges(&[(5, 9), (1, 5)]), |p| *p == Problem::RangesOverlap(5)),
        (set, |p| *p == Problem::DuplicateItem("a".into())),
        (v1::Resource { disk: Some(DiskInfo::default()), ..wire("mem", 1.0) }, |p| {
            *p == Problem::DiskInfoElsewhere
        }),
        (with_source(SourceType::Unknown as i32, false), |p| *p == Problem::DiskSource),
        (with_source(99, false), |p| *p == Problem::DiskSource),
        (with_source(SourceType::Block as i32, true), |p| *p == Problem::DiskSourceRoot("BLOCK")),
        (with_source(SourceType::Raw as i32, true), |p| *p == Problem::DiskSourceRoot("RAW")),
        (v1::Resource { role: Some("a b".into()), ..scalar.clone() }, |p| matches!(p, Problem::Role(_))),
        (old(Some("r"), dynamic("r")), |p| *p == Problem::OldReservation),
        (old(None, ReservationInfo::default()), |p| *p == Problem::ReservedToAll),
        (reserved(vec![dynamic("*")]), |p| *p == Problem::ReservedToAll),
        (reserved(vec![dynamic("a/")]), |p| matches!(p, Problem::Role(_))),
        (reserved(vec![ReservationInfo { role: None, ..dynamic("r") }]), |p| {
            *p == Problem::IncompleteReservation
        }),
        (reserved(vec![ReservationInfo { r#type: None, ..dynamic("r") }]), |p| {
            *p == Problem::IncompleteReservation
        }),
        (reserved(vec![dynamic("a"), reservation(ReservationType::Static, "a/b")]), |p| {
            *p == Problem::RefinedStatic
        }),
        (reserved(vec![dynamic("a"), dynamic("ab")]), |p| matches!(p, Problem::NotARefinement { .. })),
        (v1::Resource { role: Some("b".into()), ..reserved(vec![dynamic("a")]) }, |p| {
            *p == Problem::FormsDiffer
        }),
        (v1::Resource { role: Some("a".into()), ..reserved(vec![dynamic("a")]) }, |p| {
            *p == Problem::FormsDiffer
        }),
        (v1::Resource { shared: Some(SharedInfo {}), ..wire("cpus", 1.0) }, |p| *p == Problem::Shared),
        (v1::Resource { shared: Some(SharedInfo {}), ..wire("disk", 1.0) }, |p| *p == Problem::Shared),
    ];
    for (resource, expected) in cases {
        let error = Resources::from_wire(from_ref(&resource)).unwrap_err();
        assert!(expected(&error.problem), "{resource:?}: {error}");
        assert_eq!(error.name, resource.name);
        assert!(Resources::from_wire_lossy(&[resource]).is_empty());
    }
}

#[test]
fn the_three_forms_say_the_same() {
    let principal = || Some("p".to_owned());
    let old = v1::Resource {
        role: Some("r".into()),
        reservation: Some(ReservationInfo { principal: principal(), ..Default::default() }),
        ..wire("cpus", 1.0)
    };
    let list = vec![ReservationInfo { principal: principal(), ..reservation(ReservationType::Dynamic, "r") }];
    let new = v1::Resource { reservations: list.clone(), ..wire("cpus", 1.0) };
    let both = v1::Resource { reservations: list, ..old.clone() };
    for form in [&old, &new, &both] {
        let all = one(form);
        assert_eq!(all.to_wire(), from_ref(&new));
        assert_eq!(all.to_wire_pre_refinement(), Ok(vec![old.clone()]));
        assert_eq!(all.to_wire_endpoint(), from_ref(&both));
        let mut passing = [form.clone()];
        upgrade(&mut passing);
        assert_eq!(&passing, from_ref(&new));
        assert_eq!(downgrade(&mut passing), Ok(()));
        assert_eq!(&passing, from_ref(&old));
    }
    let everyone = v1::Resource { role: Some("*".into()), ..wire("cpus", 1.0) };
    assert_eq!(text("cpus:1").to_wire_pre_refinement(), Ok(vec![everyone.clone()]));
    assert_eq!(text("cpus:1").to_wire_endpoint(), [everyone]);
    assert_eq!(text("cpus:1").to_wire(), [wire("cpus", 1.0)]);
    let fixed = v1::Resource { role: Some("r".into()), ..wire("cpus", 1.0) };
    assert_eq!(text("cpus(r):1").to_wire_pre_refinement(), Ok(vec![fixed.clone()]));
    assert_eq!(one(&fixed), text("cpus(r):1"));
}

#[test]
fn a_flag_is_read_as_text_and_as_json() {
    let all =
        text("cpus:24;gpus:2;mem:24576;disk:409600;ports:[21000-24000,30000-34000];bugs(debug_role):{a,b,c}");
    assert_eq!(
        all.to_string(),
        "cpus:24; gpus:2; mem:24576; disk:409600; ports:[21000-24000, 30000-34000]; bugs(debug_role):{a, b, c}"
    );
    assert_eq!(all.mem().map(tepui_api::resources::Megabytes::bytes), Some(24576 << 20));
    assert_eq!(all.ports().map(|ports| ports.count()), Some(3001 + 4001));
    let json = r#"[{"name":"cpus","type":"SCALAR","scalar":{"value":24}},
        {"name":"ports","type":"RANGES","ranges":{"range":[{"begin":21000,"end":24000}]}},
        {"name":"bugs","type":"SET","set":{"item":["a","b"]},"role":"debug_role"}]"#;
    assert_eq!(
        Resources::parse(json, "web").unwrap(),
        text("cpus(web):24;ports(web):[21000-24000];bugs(debug_role):{b,a}")
    );
    assert_eq!(Resources::parse(" cpus : 1 ; mem(*) : 5 ;", "web").unwrap(), text("cpus(web):1;mem:5"));
    assert!(text("").is_empty());
    assert_eq!(parse_list("gpus:0", "*").unwrap().len(), 1, "an explicit zero can be seen");
    assert!(text("gpus:0;ports:[];s:{}").is_empty());
}

#[test]
fn what_a_flag_cannot_say_is_refused_with_the_reason() {
    for (bad, reason) in [
        ("cpus", "one colon"),
        ("cpus:1:2", "one colon"),
        ("cpus(a:1", "parentheses"),
        ("cpus(a)b:1", "parentheses"),
        (":1", "name is empty"),
        ("cpus:", "empty"),
        ("cpus:-1", "below zero"),
        ("cpus:x", "should be a number"),
        ("cpus:nan", "should be a number"),
        ("cpus:1e300", "three decimals"),
        ("ports:[1-2", "brackets"),
        ("ports:1-2]", "brackets"),
        ("ports:[5]", "dash between"),
        ("ports:[2-1]", "dash between"),
        ("ports:[1-99999999999999999999]", "dash between"),
        ("s:{a,a}", "twice"),
        ("s:{a{b}", "brackets"),
        ("cpus(a b):1", "white space"),
        ("x:1;x:[1-2]", "two types"),
        ("[{\"name\":\"cpus\"}]", "type"),
        ("[{\"name\":\"cpus\",\"type\":\"SCALAR\",\"scalar\":{\"value\":1},\"revocable\":{}}]", "revocable"),
        ("[] x", "after it"),
    ] {
        let error = Resources::parse(bad, "*").unwrap_err().to_string();
        assert!(error.contains(reason), "{bad}: {error}");
    }
    let json =
        |resource: &v1::Resource| String::from_utf8(tepui_api::codec::encode_json(&[resource])).unwrap();
    assert!(
        Resources::parse(&json(&volume("v")), "*").unwrap_err().to_string().contains("persistent volume")
    );
    let mut reserved = volume("v");
    reserved.disk = None;
    assert!(Resources::parse(&json(&reserved), "*").unwrap_err().to_string().contains("STATIC"));
}

#[test]
fn use_is_checked_beyond_form() {
    let mut good = volume("v");
    let mount = v1::Volume { container_path: "data".into(), ..Default::default() };
    let change = |resource: &mut v1::Resource, change: fn(&mut DiskInfo)| {
        change(resource.disk.get_or_insert_default());
        one(resource).check_use()
    };
    assert_eq!(one(&good).check_use(), Err(UseError::VolumeMissing("v".into())));
    good.disk.get_or_insert_default().volume = Some(mount);
    assert_eq!(one(&good).check_use(), Ok(()));
    let unreserved = v1::Resource { reservations: vec![], ..good.clone() };
    assert_eq!(one(&unreserved).check_use(), Err(UseError::UnreservedVolume("v".into())));
    let revocable = v1::Resource { revocable: Some(RevocableInfo {}), ..good.clone() };
    assert_eq!(one(&revocable).check_use(), Err(UseError::RevocableVolume("v".into())));
    for id in ["", ".", "..", "a/b", "a\nb"] {
        let mut bad = good.clone();
        bad.disk.get_or_insert_default().persistence.get_or_insert_default().id = id.into();
        assert_eq!(one(&bad).check_use(), Err(UseError::PersistenceId(id.into())));
    }
    assert_eq!(
        change(&mut good.clone(), |disk| disk.volume.get_or_insert_default().host_path = Some("/x".into())),
        Err(UseError::VolumeHostPath("v".into()))
    );
    assert_eq!(
        change(&mut good.clone(), |disk| disk.persistence = None),
        Err(UseError::VolumeWithoutPersistence)
    );
    assert_eq!(change(&mut good.clone(), |disk| *disk = DiskInfo::default()), Err(UseError::EmptyDiskInfo));
    assert_eq!(text("gpus:1.5").check_use(), Err(UseError::FractionalGpus));
    assert_eq!(text("gpus:2").check_use(), Ok(()));
    let twice =
        one(&good) + one(&v1::Resource { scalar: Some(value::Scalar { value: 1.0 }), ..good.clone() });
    assert!(matches!(twice.check_persistence_ids(), Err(UseError::DuplicatePersistenceId { .. })));
    assert_eq!(one(&good).check_persistence_ids(), Ok(()));
    let soft = one(&v1::Resource { revocable: Some(RevocableInfo {}), ..wire("cpus", 1.0) });
    assert_eq!((&soft + &text("mem:1")).check_revocable(), Ok(()));
    assert!((&soft + &text("cpus:1")).check_revocable().is_err());
    let provided = one(&v1::Resource { provider_id: Some("p".into()), ..wire("disk", 1.0) });
    assert_eq!(provided.single_provider(), Ok(Some("p")));
    assert_eq!((&provided + &soft).single_provider(), Err(UseError::TwoProviders));
    assert_eq!(soft.single_provider(), Ok(None));
}

#[test]
fn quantities_are_a_number_per_name() {
    let all = text("cpus:1;cpus(r):2;mem:10;zebra:1;ant:2;ports:[1-10];s:{a,b}");
    let quantities = all.to_quantities();
    assert_eq!(quantities.to_string(), "ant:2; cpus:3; mem:10; ports:10; s:2; zebra:1");
    assert_eq!(all.scalar_quantities().to_string(), "ant:2; cpus:3; mem:10; zebra:1");
    assert_eq!(
        ResourceQuantities::parse("cpus:3; zebra:1;mem: 10 ;ant:2;gone:0").unwrap(),
        all.scalar_quantities()
    );
    for bad in ["cpus:[1-2]", "cpus:a", "cpus", "cpus:-1"] {
        assert!(ResourceQuantities::parse(bad).is_err(), "{bad}");
    }
    let limit = ResourceQuantities::parse("cpus:3;ant:5;disk:1").unwrap();
    assert!(
        !quantities.contains(&limit) && quantities.contains(&ResourceQuantities::parse("cpus:3").unwrap())
    );
    assert_eq!((limit.clone() - &quantities).to_string(), "ant:3; disk:1");
    assert_eq!(limit.max(&quantities).to_string(), "ant:5; cpus:3; disk:1; mem:10; ports:10; s:2; zebra:1");
    assert_eq!(limit.min(&quantities).to_string(), "ant:2; cpus:3");
    assert!(all.contains_quantities(&quantities));
    let all_numbers = Resources::from(Resource::ranges("ports", Range::new(0, u64::MAX)));
    assert_eq!(all_numbers.to_quantities().get(&"ports".into()), Scalar::MAX);
}

#[test]
fn endpoints_show_a_value_per_name() {
    let mut all = text("cpus:1;cpus(r):2;ports:[1-2];s:{b,a}");
    all += one(&v1::Resource { revocable: Some(RevocableInfo {}), ..wire("cpus", 4.0) });
    let shown = serde_json::Value::from(summarize(&all));
    assert_eq!(
        shown,
        serde_json::json!({"cpus": 3.0, "cpus_revocable": 4.0, "disk": 0.0, "gpus": 0.0, "mem": 0.0,
            "ports": "[1-2]", "s": "{a, b}"})
    );
}

#[test]
fn attributes_are_read_as_mesos_reads_them() {
    use tepui_api::resources::{attributes_to_text, parse_attributes, summarize_attributes};
    let all =
        parse_attributes("rack:abc;level:10;keys:[1000-1500,7-8];t:-3;url:http://x;os:cent os\nlast:1.5")
            .unwrap();
    let shown = serde_json::Value::from(summarize_attributes(&all));
    assert_eq!(
        shown,
        serde_json::json!({"rack": "abc", "level": 10.0, "keys": "[7-8, 1000-1500]", "t": "-3",
            "url": "http://x", "os": "centos", "last": 1.5})
    );
    assert_eq!(parse_attributes(&attributes_to_text(&all)).unwrap(), all);
    assert_eq!(parse_attributes("").unwrap(), []);
    for bad in ["rack", "rack:", ":a", "s:{a,b}", "x:[1", "x:[1-2]3"] {
        assert!(parse_attributes(bad).is_err(), "{bad}");
    }
}
