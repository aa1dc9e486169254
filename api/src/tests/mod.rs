//! Tests that go through every message of the API, by the tables the build script makes.
//!
//! [`generate`] writes random messages as protobuf; [`round_trips`] and [`json_rules`] hold each
//! message to the rules of both codecs; [`mutations`] breaks valid input in a million ways.

mod generate;
mod json_rules;
mod mutations;
mod round_trips;

use std::fmt;

use crate::codec::{Wire, decode_json, decode_protobuf, encode_json};
use crate::shape::tables::{MESSAGES, for_each_message};
use crate::shape::{FieldShape, Kind, Label, MessageShape};

/// One message type without its type, so that all of them fit into one list.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    place: usize,
    from_protobuf: fn(&[u8]) -> Result<Written, String>,
    from_json: fn(&[u8]) -> Result<Written, String>,
}

/// A message that was read, in both forms.
#[derive(PartialEq)]
struct Written {
    json: Vec<u8>,
    protobuf: Vec<u8>,
}

// === impl Case ===

impl Case {
    fn of<M: Wire>() -> Case {
        fn written<M: Wire>(message: &M) -> Written {
            Written { json: encode_json(message), protobuf: message.encode_to_vec() }
        }
        Case {
            name: M::NAME,
            place: M::SHAPE,
            from_protobuf: |bytes| {
                decode_protobuf::<M>(bytes).map(|m| written(&m)).map_err(|error| error.to_string())
            },
            from_json: |bytes| {
                decode_json::<M>(bytes).map(|m| written(&m)).map_err(|error| error.to_string())
            },
        }
    }

    fn shape(&self) -> &'static MessageShape {
        &MESSAGES[self.place]
    }

    fn named(name: &str) -> Case {
        all()
            .into_iter()
            .find(|case| case.name == name)
            .unwrap_or_else(|| panic!("there is no message {name}"))
    }
}

/// Every message of the API.
fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    macro_rules! push {
        ($message:ty) => {
            cases.push(Case::of::<$message>())
        };
    }
    for_each_message!(push);
    assert!(cases.len() > 250, "the list of messages is too short: {}", cases.len());
    cases
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} {:02x?}", String::from_utf8_lossy(&self.json), self.protobuf)
    }
}
