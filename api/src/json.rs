//! Mesos' mapping between protobuf and JSON, one adapter per kind of value.
//!
//! The generated structs derive serde; each field names the adapter that reads and writes it. The
//! rules are those of `protobuf::parse` and `JSON::Protobuf` in Mesos' stout library, which differ
//! from proto3's: names stay in `snake_case`, enum values go by name, 64-bit integers are numbers
//! (and are read from strings too), an optional enum value that is not known is dropped, `null` is
//! the same as absent, and one value may stand for a list of one.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

pub(crate) use crate::shape::tables::serialize_defaults as defaults;

/// How the values of one kind of field stand in JSON.
pub trait Adapter {
    /// The Rust type of the field.
    type Value;
    /// What a person would call it, for messages.
    const EXPECTED: &'static str;

    /// Writes one value.
    ///
    /// # Errors
    /// Whatever the serializer answers.
    fn write<S: Serializer>(value: &Self::Value, to: S) -> Result<S::Ok, S::Error>;

    /// Whether the value can be written. An enum's number without a name is as good as unset.
    fn is_known(value: &Self::Value) -> bool {
        let _ = value;
        true
    }

    /// From a JSON string.
    ///
    /// # Errors
    /// When this kind of field cannot be a string, or not this one.
    fn from_str<E: de::Error>(text: &str) -> Result<Read<Self::Value>, E> {
        Err(E::invalid_type(de::Unexpected::Str(text), &Self::EXPECTED))
    }

    /// From a JSON number.
    ///
    /// # Errors
    /// When this kind of field cannot be a number.
    fn from_number<E: de::Error>(number: Number) -> Result<Self::Value, E> {
        Err(E::invalid_type(number.unexpected(), &Self::EXPECTED))
    }

    /// From `true` or `false`.
    ///
    /// # Errors
    /// When this kind of field cannot be a boolean.
    fn from_bool<E: de::Error>(value: bool) -> Result<Self::Value, E> {
        Err(E::invalid_type(de::Unexpected::Bool(value), &Self::EXPECTED))
    }

    /// From a JSON object.
    ///
    /// # Errors
    /// When this kind of field cannot be an object, or the object's own error.
    fn from_map<'de, A: MapAccess<'de>>(map: A) -> Result<Self::Value, A::Error> {
        let _ = map;
        Err(de::Error::invalid_type(de::Unexpected::Map, &Self::EXPECTED))
    }
}

/// What became of a value that was read.
pub enum Read<T> {
    /// A value for the field.
    Value(T),
    /// Nothing: `null`.
    Absent,
    /// An enum name that is not known. Dropped where the field is optional, as in proto2.
    Unknown(String),
}

/// A JSON number in the widest form that holds it.
#[derive(Clone, Copy)]
pub enum Number {
    /// Not negative.
    Unsigned(u64),
    /// Negative.
    Signed(i64),
    /// With a fraction or an exponent.
    Float(f64),
}

/// Enums whose values have names on the wire; implemented for all generated enums.
pub trait NamedEnum {
    /// The number of a value's name.
    fn number(name: &str) -> Option<i32>;
    /// The name of a number.
    fn name(number: i32) -> Option<&'static str>;
}

/// Integers, `T` being the Rust type.
pub struct Int<T>(PhantomData<T>);
/// `double`; infinities are written as the strings "Infinity" and "-Infinity".
pub struct Double;
/// `float`.
pub struct Float;
/// `bool`.
pub struct Bool;
/// `string`.
pub struct Text;
/// `bytes`, as base64.
pub struct Base64;
/// An enum, by name.
pub struct Enum<E>(PhantomData<E>);
/// A message.
pub struct Message<M>(PhantomData<M>);

// === impl Number ===

impl Number {
    fn unexpected(self) -> de::Unexpected<'static> {
        match self {
            Number::Unsigned(v) => de::Unexpected::Unsigned(v),
            Number::Signed(v) => de::Unexpected::Signed(v),
            Number::Float(v) => de::Unexpected::Float(v),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a double field holds what a double can, as in Mesos")]
    fn as_f64(self) -> f64 {
        match self {
            Number::Unsigned(v) => v as f64,
            Number::Signed(v) => v as f64,
            Number::Float(v) => v,
        }
    }

    fn parse(text: &str) -> Option<Number> {
        let text = text.trim();
        if let Ok(v) = text.parse::<u64>() {
            return Some(Number::Unsigned(v));
        }
        if let Ok(v) = text.parse::<i64>() {
            return Some(Number::Signed(v));
        }
        // JSON has no "inf" or "nan"; Rust's parser would take them.
        let numeric = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
        text.parse::<f64>().ok().filter(|_| numeric).map(Number::Float)
    }
}

// === impl Int ===

macro_rules! int_adapter {
    ($ty:ty) => {
        impl Adapter for Int<$ty> {
            type Value = $ty;
            const EXPECTED: &'static str = concat!("a number (", stringify!($ty), ")");

            fn write<S: Serializer>(value: &$ty, to: S) -> Result<S::Ok, S::Error> {
                value.serialize(to)
            }

            fn from_str<E: de::Error>(text: &str) -> Result<Read<$ty>, E> {
                let number = Number::parse(text)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &Self::EXPECTED))?;
                Self::from_number(number).map(Read::Value)
            }

            #[expect(clippy::cast_possible_truncation, reason = "a fraction is cut off, as in Mesos")]
            fn from_number<E: de::Error>(number: Number) -> Result<$ty, E> {
                let out_of_range = || E::invalid_value(number.unexpected(), &Self::EXPECTED);
                match number {
                    Number::Unsigned(v) => <$ty>::try_from(v).map_err(|_| out_of_range()),
                    Number::Signed(v) => <$ty>::try_from(v).map_err(|_| out_of_range()),
                    // No double is beyond what an i128 tells apart from this type's ends.
                    Number::Float(v) => <$ty>::try_from(v as i128).map_err(|_| out_of_range()),
                }
            }
        }
    };
}
int_adapter!(i32);
int_adapter!(u32);
int_adapter!(i64);
int_adapter!(u64);

// === impl Double ===

impl Adapter for Double {
    type Value = f64;
    const EXPECTED: &'static str = "a number";

    fn write<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
        if value.is_finite() {
            return to.serialize_f64(*value);
        }
        to.serialize_str(if value.is_nan() {
            "NaN"
        } else if *value > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        })
    }

    fn from_str<E: de::Error>(text: &str) -> Result<Read<f64>, E> {
        match text {
            "Infinity" => return Ok(Read::Value(f64::INFINITY)),
            "-Infinity" => return Ok(Read::Value(f64::NEG_INFINITY)),
            "NaN" => return Ok(Read::Value(f64::NAN)),
            _ => {}
        }
        let number = Number::parse(text)
            .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &Self::EXPECTED))?;
        Ok(Read::Value(number.as_f64()))
    }

    fn from_number<E: de::Error>(number: Number) -> Result<f64, E> {
        Ok(number.as_f64())
    }
}

// === impl Float ===

impl Adapter for Float {
    type Value = f32;
    const EXPECTED: &'static str = "a number";

    fn write<S: Serializer>(value: &f32, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f32(*value)
    }

    #[expect(clippy::cast_possible_truncation, reason = "the field is a float")]
    fn from_number<E: de::Error>(number: Number) -> Result<f32, E> {
        Ok(number.as_f64() as f32)
    }
}

// === impl Bool ===

impl Adapter for Bool {
    type Value = bool;
    const EXPECTED: &'static str = "true or false";

    fn write<S: Serializer>(value: &bool, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bool(*value)
    }

    fn from_str<E: de::Error>(text: &str) -> Result<Read<bool>, E> {
        match text {
            "true" => Ok(Read::Value(true)),
            "false" => Ok(Read::Value(false)),
            _ => Err(E::invalid_value(de::Unexpected::Str(text), &Self::EXPECTED)),
        }
    }

    fn from_bool<E: de::Error>(value: bool) -> Result<bool, E> {
        Ok(value)
    }
}

// === impl Text ===

impl Adapter for Text {
    type Value = String;
    const EXPECTED: &'static str = "a string";

    fn write<S: Serializer>(value: &String, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(value)
    }

    fn from_str<E: de::Error>(text: &str) -> Result<Read<String>, E> {
        Ok(Read::Value(text.to_owned()))
    }
}

// === impl Base64 ===

impl Adapter for Base64 {
    type Value = Vec<u8>;
    const EXPECTED: &'static str = "bytes as a base64 string";

    fn write<S: Serializer>(value: &Vec<u8>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(value))
    }

    fn from_str<E: de::Error>(text: &str) -> Result<Read<Vec<u8>>, E> {
        STANDARD
            .decode(text)
            .map(Read::Value)
            .map_err(|error| E::custom(format_args!("bytes must be base64: {error}")))
    }
}

// === impl Enum ===

impl<T: NamedEnum> Adapter for Enum<T> {
    type Value = i32;
    const EXPECTED: &'static str = "the name of an enum value";

    fn write<S: Serializer>(value: &i32, to: S) -> Result<S::Ok, S::Error> {
        match T::name(*value) {
            Some(name) => to.serialize_str(name),
            None => to.serialize_i32(*value),
        }
    }

    fn is_known(value: &i32) -> bool {
        T::name(*value).is_some()
    }

    fn from_str<E: de::Error>(text: &str) -> Result<Read<i32>, E> {
        Ok(match T::number(text) {
            Some(number) => Read::Value(number),
            None => Read::Unknown(text.to_owned()),
        })
    }
}

// === impl Message ===

impl<M: Serialize + DeserializeOwned> Adapter for Message<M> {
    type Value = M;
    const EXPECTED: &'static str = "an object";

    fn write<S: Serializer>(value: &M, to: S) -> Result<S::Ok, S::Error> {
        value.serialize(to)
    }

    fn from_map<'de, A: MapAccess<'de>>(map: A) -> Result<M, A::Error> {
        M::deserialize(de::value::MapAccessDeserializer::new(map))
    }
}

// === reading ===

struct One<A>(PhantomData<A>);

impl<'de, A: Adapter> Visitor<'de> for One<A> {
    type Value = Read<A::Value>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(A::EXPECTED)
    }
    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(Read::Absent)
    }
    fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(Read::Absent)
    }
    fn visit_bool<E: de::Error>(self, v: bool) -> Result<Self::Value, E> {
        A::from_bool(v).map(Read::Value)
    }
    fn visit_u64<E: de::Error>(self, v: u64) -> Result<Self::Value, E> {
        A::from_number(Number::Unsigned(v)).map(Read::Value)
    }
    fn visit_i64<E: de::Error>(self, v: i64) -> Result<Self::Value, E> {
        let number = u64::try_from(v).map_or(Number::Signed(v), Number::Unsigned);
        A::from_number(number).map(Read::Value)
    }
    fn visit_f64<E: de::Error>(self, v: f64) -> Result<Self::Value, E> {
        A::from_number(Number::Float(v)).map(Read::Value)
    }
    fn visit_str<E: de::Error>(self, v: &str) -> Result<Self::Value, E> {
        A::from_str(v)
    }
    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Self::Value, M::Error> {
        A::from_map(map).map(Read::Value)
    }
}

impl<'de, A: Adapter> de::DeserializeSeed<'de> for One<A> {
    type Value = Read<A::Value>;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

/// Reads a required field.
pub(crate) fn read<'de, D: Deserializer<'de>, A: Adapter>(from: D) -> Result<A::Value, D::Error> {
    match from.deserialize_any(One::<A>(PhantomData))? {
        Read::Value(value) => Ok(value),
        Read::Absent => Err(de::Error::custom("missing required field: null is the same as absent")),
        Read::Unknown(name) => Err(de::Error::custom(format_args!("'{name}' is not a value of this enum"))),
    }
}

/// Reads an optional field.
pub(crate) fn read_optional<'de, D: Deserializer<'de>, A: Adapter>(
    from: D,
) -> Result<Option<A::Value>, D::Error> {
    Ok(match from.deserialize_any(One::<A>(PhantomData))? {
        Read::Value(value) => Some(value),
        Read::Absent | Read::Unknown(_) => None,
    })
}

/// Reads an optional field that is boxed, because its message is recursive.
pub(crate) fn read_boxed<'de, D: Deserializer<'de>, A: Adapter>(
    from: D,
) -> Result<Option<Box<A::Value>>, D::Error> {
    read_optional::<D, A>(from).map(|value| value.map(Box::new))
}

struct Many<A>(PhantomData<A>);

impl<'de, A: Adapter> Visitor<'de> for Many<A> {
    type Value = Vec<A::Value>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "a list, each being {}", A::EXPECTED)
    }
    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<Self::Value, S::Error> {
        // The hint is the sender's word: never reserve more than a little on its account.
        let mut values = Vec::with_capacity(list.size_hint().unwrap_or(0).min(64));
        while let Some(value) = list.next_element_seed(One::<A>(PhantomData))? {
            if let Read::Value(value) = value {
                values.push(value);
            }
        }
        Ok(values)
    }
    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }
    fn visit_bool<E: de::Error>(self, v: bool) -> Result<Self::Value, E> {
        single(One::<A>(PhantomData).visit_bool(v)?)
    }
    fn visit_u64<E: de::Error>(self, v: u64) -> Result<Self::Value, E> {
        single(One::<A>(PhantomData).visit_u64(v)?)
    }
    fn visit_i64<E: de::Error>(self, v: i64) -> Result<Self::Value, E> {
        single(One::<A>(PhantomData).visit_i64(v)?)
    }
    fn visit_f64<E: de::Error>(self, v: f64) -> Result<Self::Value, E> {
        single(One::<A>(PhantomData).visit_f64(v)?)
    }
    fn visit_str<E: de::Error>(self, v: &str) -> Result<Self::Value, E> {
        single(One::<A>(PhantomData).visit_str(v)?)
    }
    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Self::Value, M::Error> {
        single(One::<A>(PhantomData).visit_map(map)?)
    }
}

fn single<T, E>(value: Read<T>) -> Result<Vec<T>, E> {
    Ok(match value {
        Read::Value(value) => vec![value],
        Read::Absent | Read::Unknown(_) => Vec::new(),
    })
}

/// Reads a repeated field.
pub(crate) fn read_repeated<'de, D: Deserializer<'de>, A: Adapter>(
    from: D,
) -> Result<Vec<A::Value>, D::Error> {
    from.deserialize_any(Many::<A>(PhantomData))
}

struct Entries<A>(PhantomData<A>);

impl<'de, A: Adapter> Visitor<'de> for Entries<A> {
    type Value = BTreeMap<String, A::Value>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "an object, each of its values being {}", A::EXPECTED)
    }
    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(BTreeMap::new())
    }
    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut entries = BTreeMap::new();
        while let Some(key) = map.next_key::<String>()? {
            if let Read::Value(value) = map.next_value_seed(One::<A>(PhantomData))? {
                entries.insert(key, value);
            }
        }
        Ok(entries)
    }
}

/// Reads a map field.
pub(crate) fn read_map<'de, D: Deserializer<'de>, A: Adapter>(
    from: D,
) -> Result<BTreeMap<String, A::Value>, D::Error> {
    from.deserialize_any(Entries::<A>(PhantomData))
}

// === writing ===

struct Written<'a, A: Adapter>(&'a A::Value);

impl<A: Adapter> Serialize for Written<'_, A> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        A::write(self.0, to)
    }
}

/// Writes a required field.
pub(crate) fn write<S: Serializer, A: Adapter>(value: &A::Value, to: S) -> Result<S::Ok, S::Error> {
    A::write(value, to)
}

/// Whether there is nothing to write of an optional field.
pub(crate) fn is_unset<A: Adapter>(value: &Option<A::Value>) -> bool {
    !value.as_ref().is_some_and(A::is_known)
}

/// Writes an optional field.
pub(crate) fn write_optional<S: Serializer, A: Adapter>(
    value: &Option<A::Value>,
    to: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => A::write(value, to),
        None => to.serialize_none(),
    }
}

/// Writes an optional, boxed field.
pub(crate) fn write_boxed<S: Serializer, A: Adapter>(
    value: &Option<Box<A::Value>>,
    to: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => A::write(value, to),
        None => to.serialize_none(),
    }
}

/// Writes a repeated field.
pub(crate) fn write_repeated<S: Serializer, A: Adapter>(
    values: &[A::Value],
    to: S,
) -> Result<S::Ok, S::Error> {
    let mut list = to.serialize_seq(Some(values.len()))?;
    for value in values.iter().filter(|value| A::is_known(value)) {
        list.serialize_element(&Written::<A>(value))?;
    }
    list.end()
}

/// Writes a map field.
pub(crate) fn write_map<S: Serializer, A: Adapter>(
    values: &BTreeMap<String, A::Value>,
    to: S,
) -> Result<S::Ok, S::Error> {
    let mut map = to.serialize_map(Some(values.len()))?;
    for (key, value) in values {
        map.serialize_entry(key, &Written::<A>(value))?;
    }
    map.end()
}
