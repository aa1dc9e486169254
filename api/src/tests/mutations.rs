//! A million broken inputs to the decoders: each is refused or read, and nothing panics.

use super::generate::{Random, message};
use super::{Case, Written};
use crate::recordio;
use crate::resources::Resources;
use crate::v1;

/// How many inputs, unless `TEPUI_MUTATIONS` says another number.
const DEFAULT: usize = if cfg!(debug_assertions) { 20_000 } else { 1_000_000 };

/// What comes in over the network, and what goes out to clients of ours.
const TARGETS: &[&str] = &[
    "mesos.v1.scheduler.Call",
    "mesos.v1.scheduler.Event",
    "mesos.v1.executor.Call",
    "mesos.v1.executor.Event",
    "mesos.v1.master.Call",
    "mesos.v1.master.Event",
    "mesos.v1.agent.Call",
];

/// Valid messages of each target to start from.
const SEEDS: usize = 64;
/// Longer ones take time and show nothing more.
const LONGEST: usize = 4096;

/// Pieces at which parsers go wrong.
const PIECES: &[&[u8]] = &[
    b"null",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\",
    b"\\u",
    b"\\ud800",
    b"1e999",
    b"-1",
    b"18446744073709551616",
    b"0.1",
    b":",
    b",",
    b"true",
    b"\xff",
    b"\xc3\x28",
    b"\x00",
    b"\n",
    b"99999999999\n",
    b"5\n",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80",
    b"\xff\xff\xff\xff\x0f",
    b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\x0b",
    b"\x0c",
    b"\"NaN\"",
    b"{\"value\":",
];

/// Of every kind, and in each of the forms.
const RESOURCES: &str = r#"[
    {"name": "cpus", "type": "SCALAR", "scalar": {"value": 1.5}},
    {"name": "mem", "type": "SCALAR", "scalar": {"value": 64}, "role": "r"},
    {"name": "ports", "type": "RANGES", "ranges": {"range": [{"begin": 1, "end": 5}, {"begin": 7, "end": 9}]}},
    {"name": "set", "type": "SET", "set": {"item": ["a", "b", "c"]}, "allocation_info": {"role": "r"}},
    {"name": "cpus", "type": "SCALAR", "scalar": {"value": 2}, "revocable": {}, "provider_id": {"value": "p"}},
    {"name": "mem", "type": "SCALAR", "scalar": {"value": 8}, "role": "r", "reservation": {"principal": "p"}},
    {"name": "mem", "type": "SCALAR", "scalar": {"value": 8}, "reservations": [
        {"type": "STATIC", "role": "r"}, {"type": "DYNAMIC", "role": "r/s", "labels": {"labels": [{"key": "k"}]}}]},
    {"name": "disk", "type": "SCALAR", "scalar": {"value": 10}, "shared": {},
        "reservations": [{"type": "DYNAMIC", "role": "r"}],
        "disk": {"persistence": {"id": "v"}, "volume": {"mode": "RW", "container_path": "data"}}},
    {"name": "disk", "type": "SCALAR", "scalar": {"value": 10},
        "disk": {"source": {"type": "MOUNT", "mount": {"root": "/mnt"}}}},
    {"name": "disk", "type": "SCALAR", "scalar": {"value": 10},
        "disk": {"source": {"type": "RAW", "id": "i", "profile": "fast", "vendor": "v"}}}
]"#;

#[test]
fn broken_input_is_refused_or_read_without_a_panic() {
    let count = std::env::var("TEPUI_MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(DEFAULT);
    let mut random = Random::new(0x5eed);
    let targets: Vec<(Case, Vec<Written>)> = TARGETS.iter().map(|name| seeds(name, &mut random)).collect();
    let (mut read, mut refused) = (0usize, 0usize);
    for n in 0..count {
        let (case, seeds) = &targets[n % targets.len()];
        let (one, other) = (random.pick(seeds), random.pick(seeds));
        let result = match n / targets.len() % 3 {
            0 => {
                let input = mutated(&one.json, &other.json, &mut random);
                (case.from_json)(&input)
            }
            1 => {
                let input = mutated(&one.protobuf, &other.protobuf, &mut random);
                let result = (case.from_protobuf)(&input);
                if let Ok(written) = &result {
                    // What one codec takes, the other can write and read.
                    let json = String::from_utf8_lossy(&written.json);
                    let again = (case.from_json)(&written.json);
                    assert!(again.is_ok(), "{}: {again:?}: {json}", case.name);
                }
                result
            }
            _ => {
                let stream = [recordio::encode(&one.json), recordio::encode(&other.protobuf)].concat();
                records(&mutated(&stream, &one.protobuf, &mut random), *case)
            }
        };
        match result {
            Ok(_) => read += 1,
            Err(_) => refused += 1,
        }
    }
    println!("{count} mutated inputs: {read} were read, {refused} refused");
    assert_eq!(read + refused, count);
    assert!(read > count / 20 && refused > count / 20, "the mutations are too weak or too strong");
}

#[test]
fn broken_resources_are_refused_or_added_up() {
    let count = if cfg!(debug_assertions) { 5_000 } else { 100_000 };
    let mut random = Random::new(0xca5e);
    let case = Case::named("mesos.v1.Resource");
    let seeds: Vec<Written> = serde_json::from_str::<Vec<serde_json::Value>>(RESOURCES)
        .expect("a list")
        .iter()
        .map(|json| (case.from_json)(json.to_string().as_bytes()).expect("a valid resource"))
        .collect();
    let mut sum = Resources::new();
    let mut valid = 0usize;
    for _ in 0..count {
        let (one, other) = (random.pick(&seeds), random.pick(&seeds));
        let input = mutated(&one.protobuf, &other.protobuf, &mut random);
        if (case.from_protobuf)(&input).is_err() {
            continue;
        }
        let wire = crate::codec::decode_protobuf::<v1::Resource>(&input).expect("it was read before");
        let Ok(resources) = Resources::from_wire(&[wire]) else { continue };
        valid += 1;
        let _ = (resources.to_string(), resources.check_use());
        assert!(resources.checked_sub(&resources).is_some_and(|rest| rest.is_empty()), "{resources}");
        if sum.iter().len() > 50 {
            sum = Resources::new();
        }
        sum += &resources;
        assert!(sum.contains(&resources), "{sum} should contain {resources}");
    }
    println!("{count} mutated resources: {valid} were valid");
    assert!(valid > count / 20, "hardly any were valid: {valid}");
}

fn seeds(name: &str, random: &mut Random) -> (Case, Vec<Written>) {
    let case = Case::named(name);
    let mut seeds = Vec::new();
    while seeds.len() < SEEDS {
        let written = (case.from_protobuf)(&message(case.place, random)).expect("a valid message");
        if written.json.len() <= LONGEST {
            seeds.push(written);
        }
    }
    (case, seeds)
}

/// Reads a stream in chunks, and each record as both forms.
fn records(stream: &[u8], case: Case) -> Result<Written, String> {
    let mut decoder = recordio::Decoder::new();
    let mut last = Err(String::from("no record"));
    for chunk in stream.chunks(97) {
        decoder.push(chunk);
        while let Some(record) = decoder.next_record().map_err(|error| error.to_string())? {
            last = (case.from_json)(&record).or_else(|_| (case.from_protobuf)(&record));
        }
    }
    last
}

/// One to four changes to an input; `other` is what parts of it are mixed with.
fn mutated(input: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = input.to_vec();
    // One change most of the time, so that much is still whole around it.
    let changes = *random.pick(&[1, 1, 1, 2, 4]);
    for _ in 0..changes {
        let at = random.below(bytes.len() + 1);
        match random.below(9) {
            0 | 1 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            2 if at < bytes.len() => bytes[at] = random.next() as u8,
            3 => bytes.truncate(at),
            4 => {
                // The head of one, the tail of another.
                let from = random.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            5 => {
                let from = random.below(other.len() + 1);
                let to = from + random.below(other.len() - from + 1);
                bytes.splice(at..at, other[from..to].iter().copied());
            }
            6 => {
                let to = at + random.below(bytes.len() - at + 1).min(16);
                bytes.drain(at..to);
            }
            7 => {
                let to = at + random.below(bytes.len() - at + 1).min(64);
                let twice = bytes[at..to].to_vec();
                bytes.splice(at..at, twice);
            }
            _ => {
                let piece = random.pick(PIECES);
                bytes.splice(at..at, piece.iter().copied());
            }
        }
    }
    bytes
}
