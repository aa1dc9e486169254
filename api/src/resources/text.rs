//! Resources as text: `cpus:4;mem:1024;ports:[31000-32000];disk(role):100;set:{a,b}`, or a JSON
//! list of wire resources.
//!
//! The text of a flag becomes wire resources ([`parse_list`]), those become [`Resources`], and on
//! those the rules for a command line are checked ([`Resources::parse`]).

use std::collections::BTreeMap;
use std::fmt;

use super::scalar::number;
use super::wire::wire_ranges;
use super::{
    Problem, Range, Ranges, Reservation, ReservationKind, Resource, ResourceError, Resources, Scalar, Set,
    Value, roles,
};
use crate::v1;
use crate::v1::resource::ReservationInfo;
use crate::v1::resource::reservation_info::Type as ReservationType;

/// Why a text does not say which resources there are.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// A part that is not `name:value`.
    #[error("'{0}' should be a name, one colon and a value, such as cpus:4")]
    Colon(String),
    /// Parentheses around a role.
    #[error("in '{0}', the role should stand between parentheses after the name, such as disk(role):100")]
    Parentheses(String),
    /// The value.
    #[error("the value '{value}' of '{name}' cannot be read: {error}")]
    Value {
        /// Before the colon.
        name: String,
        /// After it.
        value: String,
        /// What is wrong with it.
        error: ValueError,
    },
    /// The JSON form.
    #[error("the JSON list of resources cannot be read: {path}: {error}")]
    Json {
        /// Where in it.
        path: String,
        /// What is wrong there.
        error: serde_json::Error,
    },
    /// A resource that was read breaks a rule.
    #[error(transparent)]
    Resource(#[from] ResourceError),
    /// Persistent volumes are made at run time.
    #[error("'{0}' is a persistent volume; volumes are created by frameworks and operators, not by a flag")]
    PersistentVolume(Box<Resource>),
    /// Revocable resources come from an estimator.
    #[error("'{0}' is revocable; leave 'revocable' out, a flag cannot say that")]
    Revocable(Box<Resource>),
    /// Dynamic reservations are made at run time.
    #[error("'{0}' is reserved dynamically; a flag can only make STATIC reservations")]
    DynamicReservation(Box<Resource>),
    /// One name, two types.
    #[error("'{0}' is there with two types of value; a name can have one")]
    TwoTypes(String),
}

/// Why a text is not a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// Brackets that do not match, or are not around the whole.
    #[error("its brackets should be around the whole and match")]
    Brackets,
    /// A range that is none.
    #[error(
        "'{0}' should be two numbers from 0 to 2^64-1 with a dash between, the lower first, such as 31000-32000"
    )]
    Range(String),
    /// A number below zero.
    #[error("it is below zero")]
    Negative,
    /// Not a number, where one must be.
    #[error("it should be a number, ranges such as [1-5,7-9], or a set such as {{a,b}}")]
    NotAValue,
    /// Ranges or a set, where a number must be.
    #[error("it should be a number")]
    NotAScalar,
}

/// A value in text form. Attributes can be any text, resources cannot.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum TextValue {
    Scalar(f64),
    Ranges(Ranges),
    Set(Vec<String>),
    Text(String),
}

// === reading ===

impl Resources {
    /// Reads the value of `--resources`; `default_role` is that of parts which name none, `*` being
    /// nobody's. Empty resources are left out: where `gpus:0` differs from no `gpus`, look into
    /// [`parse_list`] first.
    ///
    /// # Errors
    /// When the text cannot be read, breaks a rule for resources, or says what a flag cannot.
    pub fn parse(text: &str, default_role: &str) -> Result<Resources, TextError> {
        let all = Resources::from_wire(&parse_list(text, default_role)?)?;
        let mut types: BTreeMap<&str, &Value> = BTreeMap::new();
        for resource in all.iter() {
            let boxed = || Box::new(resource.clone());
            if resource.is_persistent_volume() {
                return Err(TextError::PersistentVolume(boxed()));
            }
            if resource.is_revocable() {
                return Err(TextError::Revocable(boxed()));
            }
            if resource.is_dynamically_reserved() {
                return Err(TextError::DynamicReservation(boxed()));
            }
            let name = resource.name().as_str();
            let before = types.insert(name, resource.value());
            if before.is_some_and(|value| !value.same_type(resource.value())) {
                return Err(TextError::TwoTypes(name.to_owned()));
            }
        }
        Ok(all)
    }
}

/// Reads the value of `--resources`, either form, into wire resources that are not checked yet:
/// empty ones and double ones are still there.
///
/// # Errors
/// When the text is of neither form.
pub fn parse_list(text: &str, default_role: &str) -> Result<Vec<v1::Resource>, TextError> {
    if text.trim_start().starts_with('[') {
        return parse_json(text, default_role);
    }
    pairs(text)?.into_iter().map(|(key, value)| parse_one(key, value, default_role)).collect()
}

fn parse_json(text: &str, default_role: &str) -> Result<Vec<v1::Resource>, TextError> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let list: Result<Vec<v1::Resource>, _> = serde_path_to_error::deserialize(&mut reader);
    let mut list =
        list.map_err(|error| TextError::Json { path: error.path().to_string(), error: error.into_inner() })?;
    reader.end().map_err(|error| TextError::Json { path: String::from("after it"), error })?;
    for resource in &mut list {
        if resource.role.is_none() && resource.reservations.is_empty() {
            resource.role = Some(default_role.to_owned());
        }
    }
    Ok(list)
}

fn parse_one(key: &str, text: &str, default_role: &str) -> Result<v1::Resource, TextError> {
    let (name, role) = match key.split_once('(') {
        None => (key.trim(), default_role),
        Some((name, rest)) => {
            let role = rest.trim_end().strip_suffix(')').filter(|role| !role.contains(['(', ')']));
            (name.trim(), role.ok_or_else(|| TextError::Parentheses(format!("{key}:{text}")))?.trim())
        }
    };
    let failed = |error| TextError::Value { name: name.to_owned(), value: text.trim().to_owned(), error };
    let mut wire = v1::Resource { name: name.to_owned(), ..Default::default() };
    match parse_value(text).map_err(failed)? {
        TextValue::Scalar(value) => {
            wire.set_type(v1::value::Type::Scalar);
            wire.scalar = Some(v1::value::Scalar { value });
        }
        TextValue::Ranges(ranges) => {
            wire.set_type(v1::value::Type::Ranges);
            wire.ranges = Some(wire_ranges(&ranges));
        }
        TextValue::Set(item) => {
            wire.set_type(v1::value::Type::Set);
            wire.set = Some(v1::value::Set { item });
        }
        TextValue::Text(text) if number(&text).is_some() => return Err(failed(ValueError::Negative)),
        TextValue::Text(_) => return Err(failed(ValueError::NotAValue)),
    }
    if role != roles::UNRESERVED {
        wire.reservations.push(ReservationInfo {
            r#type: Some(ReservationType::Static as i32),
            role: Some(role.to_owned()),
            ..Default::default()
        });
    }
    Ok(wire)
}

/// The parts of `a:1;b:2`. A semicolon too many does no harm.
pub(super) fn pairs(text: &str) -> Result<Vec<(&str, &str)>, TextError> {
    let parts = text.split(';').filter(|part| !part.trim().is_empty());
    parts
        .map(|part| {
            let pair = part.split_once(':').filter(|(_, value)| !value.contains(':'));
            pair.ok_or_else(|| TextError::Colon(part.trim().to_owned()))
        })
        .collect()
}

/// An amount that stands for itself, as in quotas.
pub(super) fn plain_scalar(name: &str, text: &str) -> Result<Scalar, TextError> {
    let failed =
        |error| TextError::Value { name: name.trim().to_owned(), value: text.trim().to_owned(), error };
    match parse_value(text).map_err(failed)? {
        TextValue::Scalar(value) => Scalar::from_f64(value).ok_or_else(|| {
            TextError::Resource(ResourceError { name: name.to_owned(), problem: Problem::NotANumber(value) })
        }),
        _ => Err(failed(ValueError::NotAScalar)),
    }
}

/// White space means nothing in a value, not even inside of a text. That is how Mesos reads them.
pub(super) fn parse_value(text: &str) -> Result<TextValue, ValueError> {
    let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    if text.is_empty() {
        return Err(ValueError::Empty);
    }
    if let Some(inner) = text.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or(ValueError::Brackets)?;
        let ranges = inner.split(',').filter(|part| !part.is_empty()).map(parse_range);
        return Ok(TextValue::Ranges(ranges.collect::<Result<_, _>>()?));
    }
    if let Some(inner) = text.strip_prefix('{') {
        let inner = inner.strip_suffix('}').ok_or(ValueError::Brackets)?;
        if inner.contains(['{', '}', '[', ']']) {
            return Err(ValueError::Brackets);
        }
        let items = inner.split(',').filter(|item| !item.is_empty());
        return Ok(TextValue::Set(items.map(str::to_owned).collect()));
    }
    if text.contains(['{', '}', '[', ']']) {
        return Err(ValueError::Brackets);
    }
    // A negative number is a text, as in Mesos: an attribute may be one.
    Ok(match number(&text).filter(|value| *value >= 0.0) {
        Some(value) => TextValue::Scalar(value),
        None => TextValue::Text(text),
    })
}

fn parse_range(text: &str) -> Result<Range, ValueError> {
    let numbers = text.split_once('-').and_then(|(a, b)| Some((whole(a)?, whole(b)?)));
    numbers.and_then(|(begin, end)| Range::new(begin, end)).ok_or_else(|| ValueError::Range(text.to_owned()))
}

/// Rust's own parser would take a plus sign.
fn whole(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

// === writing ===

/// `cpus:4; disk(role):100; ports:[31000-32000]`, which [`Resources::parse`] reads back as long as
/// no resource has what only the wire can say. `{}` when there is nothing.
impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("{}");
        }
        for (n, entry) in self.entries.iter().enumerate() {
            let separator = if n == 0 { "" } else { "; " };
            write!(f, "{separator}{}", entry.resource)?;
            if entry.resource.is_shared() {
                write!(f, "<{}>", entry.count)?;
            }
        }
        Ok(())
    }
}

/// `disk(role):100`; what only the wire can say follows the name in brackets, as Mesos prints it.
impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self.name)?;
        if let Some(role) = self.allocation() {
            write!(f, "(allocated: {role})")?;
        }
        match self.reservations() {
            [] => {}
            [Reservation { kind: ReservationKind::Static, role, principal: None, labels: None }] => {
                write!(f, "({role})")?;
            }
            list => {
                f.write_str("(reservations: [")?;
                for (n, reservation) in list.iter().enumerate() {
                    let separator = if n == 0 { "" } else { ", " };
                    write!(f, "{separator}({reservation})")?;
                }
                f.write_str("])")?;
            }
        }
        if let Some(disk) = self.disk() {
            write_disk(f, disk)?;
        }
        if self.is_revocable() {
            f.write_str("{REV}")?;
        }
        if self.is_shared() {
            f.write_str("<SHARED>")?;
        }
        write!(f, ":{}", self.value)
    }
}

/// `DYNAMIC,role,principal`
impl fmt::Display for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let kind = match self.kind {
            ReservationKind::Static => "STATIC",
            ReservationKind::Dynamic => "DYNAMIC",
        };
        write!(f, "{kind},{}", self.role)?;
        if let Some(principal) = &self.principal {
            write!(f, ",{principal}")?;
        }
        if let Some(labels) = &self.labels {
            f.write_str(",{")?;
            for (n, label) in labels.labels.iter().enumerate() {
                let separator = if n == 0 { "" } else { ", " };
                write!(f, "{separator}{}", label.key)?;
                if let Some(value) = &label.value {
                    write!(f, ": {value}")?;
                }
            }
            f.write_str("}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Value::Scalar(amount) => amount.fmt(f),
            Value::Ranges(ranges) => ranges.fmt(f),
            Value::Set(set) => Set::fmt(set, f),
        }
    }
}

/// `[MOUNT:/mnt/disk1,volume-id:data]`
fn write_disk(f: &mut fmt::Formatter, disk: &v1::resource::DiskInfo) -> fmt::Result {
    f.write_str("[")?;
    if let Some(source) = &disk.source {
        f.write_str(source.r#type().as_str_name())?;
        let mount = source.mount.as_ref().and_then(|mount| mount.root.as_deref());
        let root = mount.or_else(|| source.path.as_ref().and_then(|path| path.root.as_deref()));
        if source.id.is_some() || source.profile.is_some() {
            write!(f, "({},{},{})", source.vendor(), source.id(), source.profile())?;
        } else if let Some(root) = root {
            write!(f, ":{root}")?;
        }
    }
    if let Some(persistence) = &disk.persistence {
        let separator = if disk.source.is_some() { "," } else { "" };
        write!(f, "{separator}{}", persistence.id)?;
    }
    if let Some(volume) = &disk.volume {
        write!(f, ":{}", volume.container_path)?;
    }
    f.write_str("]")
}
