//! Resources and attributes as the JSON endpoints (`/state`, `/slaves`, …) show them: an object with a
//! value per name.

use serde_json::{Map, Value as Json};

use super::attributes::value_to_text;
use super::{Resource, Resources, Value};
use crate::v1;

/// `{"cpus": 4.0, "disk": 0.0, "gpus": 0.0, "mem": 1024.0, "ports": "[31000-32000]"}`.
///
/// Amounts of one name are summed; ranges and sets are text. Revocable resources have the name
/// `<name>_revocable`. The four amounts that every agent has are there even when they are 0.
#[must_use]
pub fn summarize(resources: &Resources) -> Map<String, Json> {
    let mut summary = Map::new();
    for name in ["cpus", "disk", "gpus", "mem"] {
        summary.insert(name.to_owned(), Json::from(0.0));
    }
    for (part, suffix) in [(resources.non_revocable(), ""), (resources.revocable(), "_revocable")] {
        for name in part.names() {
            let total = part.of(name.as_str()).map(Resource::value).cloned().reduce(added);
            let value = match total {
                Some(Value::Scalar(amount)) => Json::from(amount.as_f64()),
                Some(other) => Json::from(other.to_string()),
                None => continue,
            };
            summary.insert(format!("{name}{suffix}"), value);
        }
    }
    summary
}

fn added(mut a: Value, b: Value) -> Value {
    a.add(&b);
    a
}

/// `{"rack": "a", "level": 3.0}`: numbers as numbers, all else as text.
#[must_use]
pub fn summarize_attributes(attributes: &[v1::Attribute]) -> Map<String, Json> {
    let one = |attribute: &v1::Attribute| {
        let value = match &attribute.scalar {
            Some(scalar) if attribute.r#type() == v1::value::Type::Scalar => Json::from(scalar.value),
            _ => Json::from(value_to_text(attribute)),
        };
        (attribute.name.clone(), value)
    };
    attributes.iter().map(one).collect()
}
