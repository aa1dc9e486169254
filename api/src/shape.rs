//! Finds missing `required` fields in protobuf input.
//!
//! prost fills a required field that is not on the wire with its default, so that a task without an
//! id would become a task whose id is empty. Mesos refuses such a message and names the field. This
//! walks the encoded bytes beside a table of all messages, made by the build script.

use std::fmt::Write as _;

pub(crate) struct MessageShape {
    pub name: &'static str,
    pub fields: &'static [FieldShape],
}

pub(crate) struct FieldShape {
    pub number: u32,
    pub name: &'static str,
    pub label: Label,
    pub kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Label {
    Required,
    Optional,
    Repeated,
}

#[derive(Clone, Copy)]
#[allow(dead_code, reason = "the API has no float field today; the build script would name one")]
pub(crate) enum Kind {
    Double,
    Float,
    Integer,
    Bool,
    Text,
    Bytes,
    /// With the numbers that are known: in proto2 another number leaves the field unset.
    Enum(&'static [i32]),
    /// With its place in [`tables::MESSAGES`].
    Message(usize),
}

#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub(crate) mod tables {
    use super::{FieldShape, Kind, Label, MessageShape};
    include!(concat!(env!("OUT_DIR"), "/_tables.rs"));
}

/// Deeper nesting than this is refused; prost's own limit is the same.
const MAX_DEPTH: usize = 100;

/// Checks that all required fields are there, in the message and in those inside it.
///
/// # Errors
/// With the path of the first field that is missing, or a word on why the bytes are no protobuf.
pub(crate) fn check(place: usize, bytes: &[u8]) -> Result<(), String> {
    walk(place, bytes, 0)
}

fn walk(place: usize, bytes: &[u8], depth: usize) -> Result<(), String> {
    let shape = tables::MESSAGES.get(place).ok_or("unknown message")?;
    if depth > MAX_DEPTH {
        return Err(format!("{} is nested more than {MAX_DEPTH} deep", shape.name));
    }
    let mut input = Input(bytes);
    let mut seen = vec![false; shape.fields.len()];
    while !input.0.is_empty() {
        let key = input.varint().ok_or("truncated field key")?;
        let value = input.value(key & 7).ok_or("truncated or malformed field")?;
        let number = key >> 3;
        let Some(at) = shape.fields.iter().position(|f| u64::from(f.number) == number) else { continue };
        let field = &shape.fields[at];
        match (field.kind, value) {
            (Kind::Message(inner), Value::Bytes(inside)) => {
                walk(inner, inside, depth + 1).map_err(|error| prefixed(field.name, error))?;
            }
            (Kind::Enum(known), Value::Varint(number)) => {
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "enums are 32 bits on the wire, sign-extended"
                )]
                let number = number as i32;
                if !known.contains(&number) {
                    // Also when a known one came before: prost keeps the last.
                    seen[at] = false;
                    continue;
                }
            }
            _ => {}
        }
        seen[at] = true;
    }
    let missing =
        shape.fields.iter().zip(&seen).find(|(field, seen)| field.label == Label::Required && !**seen);
    match missing {
        Some((field, _)) => Err(format!("{}: missing required field", field.name)),
        None => Ok(()),
    }
}

fn prefixed(name: &str, mut error: String) -> String {
    let rest = std::mem::take(&mut error);
    let _ = write!(error, "{name}.{rest}");
    error
}

enum Value<'a> {
    Varint(u64),
    Fixed,
    Bytes(&'a [u8]),
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    /// The value behind a key of this wire type. Groups are not part of the API.
    fn value(&mut self, wire_type: u64) -> Option<Value<'a>> {
        match wire_type {
            0 => self.varint().map(Value::Varint),
            1 => self.take(8).map(|_| Value::Fixed),
            2 => {
                let n = usize::try_from(self.varint()?).ok()?;
                self.take(n).map(Value::Bytes)
            }
            5 => self.take(4).map(|_| Value::Fixed),
            _ => None,
        }
    }
}
