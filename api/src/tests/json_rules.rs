//! The rules of Mesos' JSON mapping, applied to every field of every message.

use serde_json::{Map, Value as Json};

use super::generate::{Random, message};
use super::{Case, FieldShape, Kind, Label, Written, all};

const EACH: usize = if cfg!(debug_assertions) { 2 } else { 20 };

/// For every message, several times: what it was read from, as JSON that can be changed.
fn each(seed: u64, mut check: impl FnMut(Case, &Written, Map<String, Json>)) {
    let mut random = Random::new(seed);
    for case in all() {
        for _ in 0..EACH {
            let written = (case.from_protobuf)(&message(case.place, &mut random)).expect(case.name);
            // By way of JSON, so that the defaults are in it.
            let written = (case.from_json)(&written.json).expect(case.name);
            let json = serde_json::from_slice(&written.json).expect("an object");
            check(case, &written, json);
        }
    }
}

/// The fields that are there, with their values.
fn present<'a>(
    case: Case,
    json: &'a Map<String, Json>,
) -> impl Iterator<Item = (&'static FieldShape, &'a Json)> + 'a {
    case.shape().fields.iter().filter_map(|field| Some((field, json.get(field.name)?)))
}

fn read(case: Case, json: &Map<String, Json>) -> Result<Written, String> {
    (case.from_json)(&serde_json::to_vec(json).expect("JSON"))
}

fn with(json: &Map<String, Json>, name: &str, value: Json) -> Map<String, Json> {
    let mut changed = json.clone();
    changed.insert(name.to_owned(), value);
    changed
}

#[test]
fn unknown_fields_are_ignored() {
    each(10, |case, written, json| {
        let changed = with(&json, "no_such_field", serde_json::json!({"deep": [1, null, {"x": "y"}]}));
        assert_eq!(read(case, &changed).as_ref(), Ok(written), "{}", case.name);
    });
}

#[test]
fn null_is_the_same_as_absent() {
    each(11, |case, _, json| {
        for field in case.shape().fields.iter().filter(|field| field.label != Label::Required) {
            let mut without = json.clone();
            without.remove(field.name);
            let null = with(&json, field.name, Json::Null);
            assert_eq!(read(case, &null), read(case, &without), "{}.{}", case.name, field.name);
        }
    });
}

#[test]
fn numbers_may_be_strings() {
    each(12, |case, written, json| {
        for (field, value) in
            present(case, &json).filter(|(_, value)| value.is_number() || value.is_boolean())
        {
            let changed = with(&json, field.name, Json::from(value.to_string()));
            assert_eq!(read(case, &changed).as_ref(), Ok(written), "{}.{}", case.name, field.name);
        }
    });
}

#[test]
fn one_value_stands_for_a_list_of_one() {
    each(13, |case, written, json| {
        for (field, value) in present(case, &json).filter(|(field, _)| field.label == Label::Repeated) {
            let Some([only]) = value.as_array().map(Vec::as_slice) else { continue };
            let changed = with(&json, field.name, only.clone());
            assert_eq!(read(case, &changed).as_ref(), Ok(written), "{}.{}", case.name, field.name);
        }
    });
}

#[test]
fn an_unknown_enum_value_is_dropped_unless_it_is_required() {
    each(14, |case, _, json| {
        for field in case.shape().fields.iter().filter(|field| matches!(field.kind, Kind::Enum(_))) {
            let changed = with(&json, field.name, Json::from("NO_SUCH_VALUE"));
            let mut without = json.clone();
            without.remove(field.name);
            match (field.label, read(case, &changed)) {
                (Label::Required, Err(error)) => {
                    assert!(error.contains(field.name) && error.contains("NO_SUCH_VALUE"), "{error}");
                }
                (Label::Required, Ok(_)) => panic!("{}.{} was taken", case.name, field.name),
                (_, result) => assert_eq!(result, read(case, &without), "{}.{}", case.name, field.name),
            }
        }
    });
}

#[test]
fn an_unknown_enum_number_is_not_written() {
    let mut random = Random::new(15);
    for case in all() {
        for field in case.shape().fields.iter().filter(|field| matches!(field.kind, Kind::Enum(_))) {
            let mut bytes = message(case.place, &mut random);
            super::generate::varint(u64::from(field.number) << 3, &mut bytes);
            super::generate::varint(1_000_000, &mut bytes);
            let name = format!("{}.{}", case.name, field.name);
            match (case.from_protobuf)(&bytes) {
                Ok(written) => {
                    let text = String::from_utf8_lossy(&written.json).into_owned();
                    assert!(!text.contains(&format!("\"{}\":1000000", field.name)), "{name}: {text}");
                    assert!((case.from_json)(&written.json).is_ok(), "{name}: {text}");
                }
                // The known value before it was overwritten.
                Err(error) => {
                    assert!(field.label == Label::Required && error.contains(field.name), "{name}: {error}")
                }
            }
        }
    }
}

#[test]
fn a_value_of_the_wrong_form_is_refused_and_named() {
    each(16, |case, _, json| {
        for (field, value) in present(case, &json) {
            let is_map = value.is_object() && field.label == Label::Repeated;
            let wrong = match field.kind {
                Kind::Message(_) if is_map => Json::from("x"),
                Kind::Message(_) | Kind::Enum(_) => Json::from(7),
                Kind::Text | Kind::Bytes => Json::from(true),
                Kind::Double | Kind::Float | Kind::Integer | Kind::Bool => Json::from("no number"),
            };
            let error = read(case, &with(&json, field.name, wrong)).expect_err(field.name);
            assert!(error.contains(field.name) && error.contains(case.name), "{}: {error}", field.name);
        }
    });
}
