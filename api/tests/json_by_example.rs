//! Mesos' JSON mapping by example, as a framework would write and read it.

#![allow(clippy::unwrap_used, reason = "a test may end there")]

use serde_json::{Value as Json, json};
use tepui_api::codec::{decode_json, encode_json};
use tepui_api::{MediaType, Wire, decode, encode, v1};

fn read<M: Wire>(json: Json) -> Result<M, String> {
    decode_json(json.to_string().as_bytes()).map_err(|error| error.to_string())
}

fn written<M: Wire>(message: &M) -> Json {
    serde_json::from_slice(&encode_json(message)).unwrap()
}

fn accept() -> Json {
    json!({
        "type": "ACCEPT",
        "framework_id": {"value": "f"},
        "accept": {
            "offer_ids": [{"value": "o"}],
            "operations": [{"type": "LAUNCH", "launch": {"task_infos": [{
                "name": "t",
                "task_id": {"value": "t"},
                "agent_id": {"value": "a"},
                "command": {"value": "sleep 1"},
                "resources": [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1}}],
                "data": "aGVsbG8="
            }]}}]
        }
    })
}

#[test]
fn a_call_is_read_with_names_and_base64() {
    let call: v1::scheduler::Call = read(accept()).unwrap();
    assert_eq!(call.r#type(), v1::scheduler::call::Type::Accept);
    let operations = &call.accept.unwrap().operations;
    let task = &operations[0].launch.as_ref().unwrap().task_infos[0];
    assert_eq!(task.data.as_deref(), Some(b"hello".as_slice()));
    assert_eq!(task.command.as_ref().unwrap().shell, None);
    assert!(task.command.as_ref().unwrap().shell());
    assert_eq!(task.resources[0].scalar.as_ref().unwrap().value, 0.1);
}

#[test]
fn defaults_are_written_except_deprecated_ones() {
    let command = v1::CommandInfo { value: Some("x".into()), ..Default::default() };
    assert_eq!(written(&command), json!({"shell": true, "value": "x"}));
    assert_eq!(written(&v1::Filters::default()), json!({"refuse_seconds": 5.0}));
    let framework = v1::FrameworkInfo { user: "u".into(), name: "n".into(), ..Default::default() };
    assert_eq!(
        written(&framework),
        json!({"user": "u", "name": "n", "failover_timeout": 0.0, "checkpoint": false})
    );
    let set = v1::Filters { refuse_seconds: Some(7.5) };
    assert_eq!(written(&set), json!({"refuse_seconds": 7.5}));
}

#[test]
fn a_missing_field_is_named_with_its_place() {
    let mut call = accept();
    call["accept"]["operations"][0]["launch"]["task_infos"][0].as_object_mut().unwrap().remove("agent_id");
    let error = read::<v1::scheduler::Call>(call).unwrap_err();
    assert!(error.contains("accept.operations[0].launch.task_infos[0]"), "{error}");
    assert!(error.contains("agent_id") && error.contains("mesos.v1.scheduler.Call"), "{error}");

    let mut call: v1::scheduler::Call = read(accept()).unwrap();
    let protobuf = encode(MediaType::Protobuf, &call);
    assert_eq!(decode::<v1::scheduler::Call>(MediaType::Protobuf, &protobuf).unwrap(), call);
    // An id that is there and empty is another thing than one that is not there.
    call.framework_id = Some(v1::FrameworkId::default());
    let protobuf = encode(MediaType::Protobuf, &call);
    assert!(decode::<v1::scheduler::Call>(MediaType::Protobuf, &protobuf).is_ok());
    let without_value = [0x0a, 0x00, 0x10, 0x03];
    let error = decode::<v1::scheduler::Call>(MediaType::Protobuf, &without_value).unwrap_err().to_string();
    assert!(error.contains("framework_id.value: missing required field"), "{error}");
}

#[test]
fn integers_of_64_bits_are_numbers_and_are_read_from_strings() {
    let port = |json: Json| read::<v1::value::Range>(json);
    let range = v1::value::Range { begin: 9_007_199_254_740_993, end: u64::MAX };
    assert_eq!(written(&range).to_string(), r#"{"begin":9007199254740993,"end":18446744073709551615}"#);
    assert_eq!(port(json!({"begin": 9_007_199_254_740_993u64, "end": u64::MAX})), Ok(range));
    assert_eq!(port(json!({"begin": "9007199254740993", "end": "18446744073709551615"})), Ok(range));
    assert_eq!(port(json!({"begin": 1.0, "end": 2.9})), Ok(v1::value::Range { begin: 1, end: 2 }));
    for bad in [
        json!(-1),
        json!("x"),
        json!("18446744073709551616"),
        json!(-1.5),
        json!(1e20),
        json!(true),
        json!([1]),
        json!({}),
    ] {
        let error = port(json!({"begin": bad, "end": 2})).unwrap_err();
        assert!(error.contains("begin"), "{bad}: {error}");
    }
    let nanoseconds = v1::DurationInfo { nanoseconds: i64::MIN };
    assert_eq!(read(json!({"nanoseconds": i64::MIN})), Ok(nanoseconds));
    assert_eq!(read(json!({"nanoseconds": i64::MIN.to_string()})), Ok(nanoseconds));
    assert!(read::<v1::HealthCheck>(json!({"consecutive_failures": 1u64 << 32})).is_err());
}

#[test]
fn doubles_may_be_infinite() {
    for (json, value) in [
        (json!("Infinity"), f64::INFINITY),
        (json!("-Infinity"), f64::NEG_INFINITY),
        (json!("0.5"), 0.5),
        (json!(3), 3.0),
        (json!(-0.0), -0.0),
        (json!(u64::MAX), 18_446_744_073_709_551_615.0),
    ] {
        let scalar: v1::value::Scalar = read(json!({"value": json})).unwrap();
        assert_eq!(scalar.value.to_bits(), f64::to_bits(value), "{json}");
    }
    assert_eq!(written(&v1::value::Scalar { value: f64::INFINITY }), json!({"value": "Infinity"}));
    assert_eq!(written(&v1::value::Scalar { value: f64::NEG_INFINITY }), json!({"value": "-Infinity"}));
    assert!(read::<v1::value::Scalar>(json!({"value": "inf"})).is_err());
    assert!(read::<v1::value::Scalar>(json!({"value": ""})).is_err());
}

#[test]
fn a_double_keeps_its_last_bit() {
    for value in [0.1 + 0.2, 1.7e9 + 0.123_456_789, f64::MIN_POSITIVE, 5e-324, f64::MAX, 1.0 / 3.0] {
        let scalar = v1::value::Scalar { value };
        assert_eq!(decode_json::<v1::value::Scalar>(&encode_json(&scalar)).unwrap(), scalar);
    }
}

#[test]
fn null_unknown_fields_and_single_values() {
    let mut call = accept();
    call["accept"]["filters"] = Json::Null;
    call["nobody_knows"] = json!({"x": [1]});
    call["accept"]["offer_ids"] = json!({"value": "o"});
    let launch = &mut call["accept"]["operations"][0]["launch"];
    launch["task_infos"] = launch["task_infos"][0].clone();
    launch["task_infos"]["resources"] = json!([null, launch["task_infos"]["resources"][0]]);
    assert_eq!(read::<v1::scheduler::Call>(call), read(accept()));
    let error =
        read::<v1::scheduler::Call>(json!({"type": "SUBSCRIBE", "subscribe": {"framework_info": null}}));
    assert!(error.unwrap_err().contains("framework_info"));
}

#[test]
fn enum_names_that_nobody_knows() {
    // Optional: as if it were not there. Required: refused.
    let call: v1::scheduler::Call = read(json!({"type": "FUTURE_CALL"})).unwrap();
    assert_eq!(call.r#type, None);
    let error = read::<v1::Resource>(json!({"name": "cpus", "type": "FUTURE"})).unwrap_err();
    assert!(error.contains("type") && error.contains("FUTURE"), "{error}");
    assert!(read::<v1::Resource>(json!({"name": "cpus", "type": 0})).is_err(), "enums go by name");
}

#[test]
fn bytes_must_be_base64() {
    let data = |text: &str| {
        read::<v1::scheduler::call::Message>(json!({
        "agent_id": {"value": "a"}, "executor_id": {"value": "e"}, "data": text}))
    };
    assert_eq!(data("AP+A").unwrap().data, [0x00, 0xff, 0x80]);
    assert!(data("").unwrap().data.is_empty());
    let error = data("a!b").unwrap_err();
    assert!(error.contains("base64") && error.contains("data"), "{error}");
}

#[test]
fn what_is_not_json_or_no_object_is_refused() {
    for bad in ["", "null", "[]", "7", "\"x\"", "{", "{} x", "{\"type\":}", "\u{feff}{}"] {
        assert!(decode_json::<v1::scheduler::Call>(bad.as_bytes()).is_err(), "{bad}");
    }
    let deep = "[".repeat(100_000);
    assert!(decode_json::<v1::scheduler::Call>(deep.as_bytes()).is_err());
    let deep = format!("{}{}", "{\"x\":".repeat(100_000), "}".repeat(100_000));
    assert!(decode_json::<v1::scheduler::Call>(deep.as_bytes()).is_err());
}

#[test]
fn protobuf_nested_too_deep_is_refused() {
    // container_id.parent.parent…, each 2 bytes of key and length around the last.
    let mut inner = vec![0x0a, 0x01, b'x'];
    for _ in 0..200 {
        let mut outer = vec![0x0a, 0x01, b'x', 0x12];
        prost::encoding::encode_varint(inner.len() as u64, &mut outer);
        outer.extend_from_slice(&inner);
        inner = outer;
    }
    assert!(decode::<v1::ContainerId>(MediaType::Protobuf, &inner).is_err());
}
