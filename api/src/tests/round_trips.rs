//! Every message survives both codecs, and each names a required field that is missing.

use std::collections::{BTreeMap, BTreeSet};

use super::generate::{Random, message, message_without};
use super::{Case, Kind, Label, MESSAGES, all};

/// Random messages of each type.
const EACH: usize = if cfg!(debug_assertions) { 15 } else { 200 };

/// A message as a tree, to see what was lost between two encodings.
#[derive(Debug, PartialEq)]
enum Node {
    Number(u64),
    Bytes(Vec<u8>),
    Message(usize, Tree),
}

type Tree = BTreeMap<u32, Vec<Node>>;

#[test]
fn every_message_survives_protobuf_and_json() {
    let mut random = Random::new(0x7e9);
    let mut defaults = BTreeSet::new();
    for case in all() {
        for _ in 0..EACH {
            let bytes = message(case.place, &mut random);
            let first =
                (case.from_protobuf)(&bytes).unwrap_or_else(|e| panic!("{}: {e}: {bytes:?}", case.name));
            assert_same(
                case,
                &tree(case.place, &bytes),
                &tree(case.place, &first.protobuf),
                &mut BTreeSet::new(),
            );

            let again = (case.from_protobuf)(&first.protobuf).expect("what was written can be read");
            assert_eq!(again, first, "{}", case.name);

            let text = String::from_utf8_lossy(&first.json).into_owned();
            let read = (case.from_json)(&first.json).unwrap_or_else(|e| panic!("{}: {e}: {text}", case.name));
            assert_eq!(String::from_utf8_lossy(&read.json), text, "{}", case.name);
            let (before, after) = (tree(case.place, &first.protobuf), tree(case.place, &read.protobuf));
            assert_same(case, &before, &after, &mut defaults);

            let settled = (case.from_json)(&read.json).expect("what was written can be read");
            assert_eq!(settled, read, "{}", case.name);
        }
    }
    // JSON has the defaults of these in it even where protobuf had nothing.
    let expected = [
        "mesos.v1.AgentInfo.port",
        "mesos.v1.CSIPluginInfo.name",
        "mesos.v1.CheckInfo.delay_seconds",
        "mesos.v1.CheckInfo.interval_seconds",
        "mesos.v1.CheckInfo.timeout_seconds",
        "mesos.v1.CommandInfo.URI.extract",
        "mesos.v1.CommandInfo.shell",
        "mesos.v1.ContainerInfo.DockerInfo.network",
        "mesos.v1.ContainerInfo.DockerInfo.privileged",
        "mesos.v1.DrainConfig.mark_gone",
        "mesos.v1.Environment.Variable.type",
        "mesos.v1.Filters.refuse_seconds",
        "mesos.v1.FrameworkInfo.checkpoint",
        "mesos.v1.FrameworkInfo.failover_timeout",
        "mesos.v1.HealthCheck.HTTPCheckInfo.protocol",
        "mesos.v1.HealthCheck.TCPCheckInfo.protocol",
        "mesos.v1.HealthCheck.consecutive_failures",
        "mesos.v1.HealthCheck.delay_seconds",
        "mesos.v1.HealthCheck.grace_period_seconds",
        "mesos.v1.HealthCheck.interval_seconds",
        "mesos.v1.HealthCheck.timeout_seconds",
        "mesos.v1.Image.cached",
        "mesos.v1.LinuxInfo.share_cgroups",
        "mesos.v1.NetworkInfo.IPAddress.protocol",
        "mesos.v1.master.Call.DrainAgent.mark_gone",
    ];
    assert_eq!(defaults.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}

#[test]
fn a_missing_required_field_is_named_in_protobuf() {
    let mut random = Random::new(1);
    for case in all() {
        for field in case.shape().fields.iter().filter(|field| field.label == Label::Required) {
            let bytes = message_without(case.place, &mut random, Some(field.number));
            let error = (case.from_protobuf)(&bytes).expect_err(case.name);
            let expected = format!(": {}: missing required field", field.name);
            assert!(error.ends_with(&expected) && error.contains(case.name), "{}: {error}", field.name);
        }
    }
}

#[test]
fn a_missing_required_field_is_named_in_json() {
    let mut random = Random::new(2);
    for case in all() {
        for field in case.shape().fields.iter().filter(|field| field.label == Label::Required) {
            let written = (case.from_protobuf)(&message(case.place, &mut random)).expect(case.name);
            let mut json: serde_json::Value = serde_json::from_slice(&written.json).expect("JSON");
            let object = json.as_object_mut().expect("an object");
            for absent in [None, Some(serde_json::Value::Null)] {
                object.remove(field.name);
                object.extend(absent.map(|null| (field.name.to_owned(), null)));
                let text = serde_json::to_vec(object).expect("JSON");
                let error = (case.from_json)(&text).expect_err(case.name);
                assert!(error.contains(field.name) && error.contains("missing"), "{}: {error}", field.name);
            }
        }
    }
}

fn tree(place: usize, mut bytes: &[u8]) -> Tree {
    let mut tree = Tree::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let number = (key >> 3) as u32;
        let kind = MESSAGES[place].fields.iter().find(|field| field.number == number).map(|field| field.kind);
        let node = match key & 7 {
            0 => {
                let value = varint(&mut bytes);
                // The table does not tell 32 bits from 64; the rest of a 32 bit number is dropped.
                Node::Number(if matches!(kind, Some(Kind::Integer)) { value & 0xffff_ffff } else { value })
            }
            1 => Node::Bytes(take(&mut bytes, 8).to_vec()),
            5 => Node::Bytes(take(&mut bytes, 4).to_vec()),
            2 => {
                let length = varint(&mut bytes) as usize;
                let inside = take(&mut bytes, length);
                match kind {
                    Some(Kind::Message(inner)) => Node::Message(inner, self::tree(inner, inside)),
                    _ => Node::Bytes(inside.to_vec()),
                }
            }
            other => panic!("wire type {other}"),
        };
        tree.entry(number).or_default().push(node);
    }
    tree
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..70).step_by(7) {
        let byte = take(bytes, 1)[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

fn take<'a>(bytes: &mut &'a [u8], n: usize) -> &'a [u8] {
    let (head, rest) = bytes.split_at(n);
    *bytes = rest;
    head
}

/// Everything of `before` is in `after`; what `after` has besides goes into `added`, or is an error
/// when nothing may be added.
fn assert_same(case: Case, before: &Tree, after: &Tree, added: &mut BTreeSet<String>) {
    assert_tree(case.place, before, after, added);
}

fn assert_tree(place: usize, before: &Tree, after: &Tree, added: &mut BTreeSet<String>) {
    let shape = &MESSAGES[place];
    let is_map = |number: &u32| {
        shape.fields.iter().any(|field| {
            field.number == *number
                && matches!(field.kind, Kind::Message(inner) if MESSAGES[inner].name.ends_with("Entry"))
        })
    };
    for (number, nodes) in before {
        let others = after.get(number).unwrap_or_else(|| panic!("{}: field {number} was lost", shape.name));
        if is_map(number) {
            // The last entry of a key counts, and empty parts of an entry may be left out.
            assert!(!others.is_empty());
            continue;
        }
        assert_eq!(nodes.len(), others.len(), "{}: field {number}", shape.name);
        for (a, b) in nodes.iter().zip(others) {
            match (a, b) {
                (Node::Message(inner, a), Node::Message(_, b)) => assert_tree(*inner, a, b, added),
                _ => assert_eq!(a, b, "{}: field {number}", shape.name),
            }
        }
    }
    for number in after.keys().filter(|number| !before.contains_key(number)) {
        let field = shape.fields.iter().find(|field| field.number == *number);
        let field = field.unwrap_or_else(|| panic!("{}: field {number} is new", shape.name));
        assert!(!matches!(field.kind, Kind::Message(_)), "{}.{} was added", shape.name, field.name);
        added.insert(format!("{}.{}", shape.name, field.name));
    }
}
