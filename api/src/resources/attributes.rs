//! Attributes of an agent as text: `rack:a;level:3;ports:[1-5]`.

use super::text::{TextValue, ValueError, parse_value};
use super::wire::wire_ranges;
use crate::v1;
use crate::v1::value::Type;

/// Why a text does not say which attributes an agent has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttributeError {
    /// A part that is not `name:value`.
    #[error("the attribute '{0}' should be a name, a colon and a value, such as rack:a")]
    Colon(String),
    /// The value.
    #[error("the value '{value}' of the attribute '{name}' cannot be read: {error}")]
    Value {
        /// Before the colon.
        name: String,
        /// After it.
        value: String,
        /// What is wrong with it.
        error: ValueError,
    },
    /// A set.
    #[error("the attribute '{0}' is a set; it should be a number, ranges or a text")]
    Set(String),
}

/// Reads the value of `--attributes`. A value is a number, ranges in brackets, or any other text.
///
/// # Errors
/// When a part is not `name:value`, has brackets that do not match, or is a set.
pub fn parse_attributes(text: &str) -> Result<Vec<v1::Attribute>, AttributeError> {
    let parts = text.split([';', '\n']).filter(|part| !part.is_empty());
    parts.map(parse_one).collect()
}

fn parse_one(part: &str) -> Result<v1::Attribute, AttributeError> {
    let pair = part.split_once(':').filter(|(name, value)| !name.is_empty() && !value.is_empty());
    let (name, value) = pair.ok_or_else(|| AttributeError::Colon(part.to_owned()))?;
    let failed = |error| AttributeError::Value { name: name.to_owned(), value: value.to_owned(), error };
    let mut attribute = v1::Attribute { name: name.to_owned(), ..Default::default() };
    match parse_value(value).map_err(failed)? {
        TextValue::Scalar(value) => {
            attribute.set_type(Type::Scalar);
            attribute.scalar = Some(v1::value::Scalar { value });
        }
        TextValue::Ranges(ranges) => {
            attribute.set_type(Type::Ranges);
            attribute.ranges = Some(wire_ranges(&ranges));
        }
        TextValue::Text(value) => {
            attribute.set_type(Type::Text);
            attribute.text = Some(v1::value::Text { value });
        }
        TextValue::Set(_) => return Err(AttributeError::Set(name.to_owned())),
    }
    Ok(attribute)
}

/// Writes attributes as [`parse_attributes`] reads them.
#[must_use]
pub fn attributes_to_text(attributes: &[v1::Attribute]) -> String {
    let one = |attribute: &v1::Attribute| format!("{}:{}", attribute.name, value_to_text(attribute));
    attributes.iter().map(one).collect::<Vec<_>>().join(";")
}

/// The value of an attribute as text.
pub(super) fn value_to_text(attribute: &v1::Attribute) -> String {
    let joined = |items: Vec<String>| items.join(", ");
    match attribute.r#type() {
        Type::Scalar => attribute.scalar.as_ref().map(|scalar| scalar.value.to_string()),
        Type::Ranges => attribute.ranges.as_ref().map(|ranges| {
            format!("[{}]", joined(ranges.range.iter().map(|r| format!("{}-{}", r.begin, r.end)).collect()))
        }),
        Type::Set => attribute.set.as_ref().map(|set| format!("{{{}}}", joined(set.item.clone()))),
        Type::Text => attribute.text.as_ref().map(|text| text.value.clone()),
    }
    .unwrap_or_default()
}
