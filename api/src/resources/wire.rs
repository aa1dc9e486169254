//! Resources from and to the wire.
//!
//! `v1::Resource` has had three forms. Before reservations could be refined, `role` and
//! `reservation` said for whom a resource was kept; after, the list `reservations` does; endpoints
//! write both. All are read into one [`Resource`]; each can be written.

use std::collections::HashSet;
use std::sync::Arc;

use super::resource::{Meta, Reservation, ReservationKind, same_labels};
use super::{Range, Ranges, Resource, Scalar, Set, Value, roles};
use crate::v1;
use crate::v1::resource::disk_info::source::Type as SourceType;
use crate::v1::resource::reservation_info::Type as ReservationType;
use crate::v1::resource::{AllocationInfo, DiskInfo, ReservationInfo, RevocableInfo, SharedInfo};
use crate::v1::value::Type;

/// A resource of the wire that cannot be one.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("resource '{name}' is invalid: {problem}")]
pub struct ResourceError {
    /// The name it has.
    pub name: String,
    /// What is wrong.
    pub problem: Problem,
}

/// What can be wrong with one resource. The rules are those of `Resources::validate` in Mesos, with
/// amounts that are not numbers refused besides.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Problem {
    /// The name is empty.
    #[error("its name is empty")]
    EmptyName,
    /// TEXT, or a type that is not known.
    #[error("its type must be SCALAR, RANGES or SET")]
    Type,
    /// The value of its type is missing, or one of another type is there.
    #[error("a resource of type {0} must have that value and no other")]
    ValueOfOtherType(&'static str),
    /// Below zero.
    #[error("its amount is {0}, below zero")]
    Negative(f64),
    /// NaN, infinite, or beyond what three decimals can be kept for.
    #[error("its amount {0} is not a number that three decimals can be kept for")]
    NotANumber(f64),
    /// The wrong way round.
    #[error("its range {0}-{1} begins after its end")]
    RangeInverted(u64, u64),
    /// Two ranges with a number in common.
    #[error("its ranges overlap at {0}")]
    RangesOverlap(u64),
    /// One item twice.
    #[error("its set has the item '{0}' twice")]
    DuplicateItem(String),
    /// A `disk` on something else.
    #[error("only a resource named 'disk' can have a DiskInfo")]
    DiskInfoElsewhere,
    /// A disk source that is not known.
    #[error("the type of its disk source must be PATH, MOUNT, BLOCK or RAW")]
    DiskSource,
    /// BLOCK and RAW have no file system.
    #[error("a {0} disk source has neither a mount nor a path")]
    DiskSourceRoot(&'static str),
    /// The name of a role.
    #[error(transparent)]
    Role(#[from] roles::RoleError),
    /// `reservation` has fields of the newer form.
    #[error(
        "'reservation' must have neither type nor role: 'role' beside it and 'reservations' are for those"
    )]
    OldReservation,
    /// `*` cannot be reserved.
    #[error("nothing can be reserved to the role '*'")]
    ReservedToAll,
    /// One of `reservations` lacks its type or role, or has a type that is not known.
    #[error("each of its reservations must have a role and a type, STATIC or DYNAMIC")]
    IncompleteReservation,
    /// Only the first can be static.
    #[error("a reservation that refines another must be DYNAMIC")]
    RefinedStatic,
    /// Not below the one before.
    #[error("role '{role}' is not below '{refined}', whose reservation it would refine")]
    NotARefinement {
        /// Of the later reservation.
        role: String,
        /// Of the one before.
        refined: String,
    },
    /// Both forms, and they differ.
    #[error("'role' and 'reservation' do not say the same as 'reservations'; set only the latter")]
    FormsDiffer,
    /// Only persistent volumes can be shared.
    #[error("only a persistent volume can be shared")]
    Shared,
}

/// Refined reservations have no place in the older form of a resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a resource with refined reservations cannot be given to one that lacks RESERVATION_REFINEMENT")]
pub struct RefinedError;

/// The forms in which a resource stands on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `role` and `reservation`.
    Old,
    /// `reservations`.
    New,
    /// All three, for those that know only the old.
    Both,
}

// === impl Resource ===

impl Resource {
    /// Checks and reads one resource, in any of the forms.
    ///
    /// # Errors
    /// When it breaks a rule; the error names the resource and says which.
    pub fn from_wire(wire: &v1::Resource) -> Result<Resource, ResourceError> {
        read(wire).map_err(|problem| ResourceError { name: wire.name.clone(), problem })
    }

    /// With `reservations`, as between coordinators and agents, and to frameworks that have the
    /// capability `RESERVATION_REFINEMENT`.
    #[must_use]
    pub fn to_wire(&self) -> v1::Resource {
        self.write(Form::New)
    }

    /// With `role` and `reservation`, as frameworks get it that lack `RESERVATION_REFINEMENT`.
    ///
    /// # Errors
    /// When it has refined reservations, which that form cannot say.
    pub fn to_wire_pre_refinement(&self) -> Result<v1::Resource, RefinedError> {
        if self.has_refined_reservations() {
            return Err(RefinedError);
        }
        Ok(self.write(Form::Old))
    }

    /// With both, as in the `*_full` lists of the JSON endpoints.
    #[must_use]
    pub fn to_wire_endpoint(&self) -> v1::Resource {
        self.write(Form::Both)
    }

    fn write(&self, form: Form) -> v1::Resource {
        let mut wire = v1::Resource { name: self.name.as_str().to_owned(), ..Default::default() };
        match &self.value {
            Value::Scalar(amount) => {
                wire.set_type(Type::Scalar);
                wire.scalar = Some(v1::value::Scalar { value: amount.as_f64() });
            }
            Value::Ranges(ranges) => {
                wire.set_type(Type::Ranges);
                wire.ranges = Some(wire_ranges(ranges));
            }
            Value::Set(set) => {
                wire.set_type(Type::Set);
                wire.set = Some(v1::value::Set { item: set.iter().map(str::to_owned).collect() });
            }
        }
        wire.allocation_info = self
            .allocation
            .as_deref()
            .map(|role| AllocationInfo { role: (!role.is_empty()).then(|| role.to_owned()) });
        if let Some(meta) = &self.meta {
            wire.disk.clone_from(&meta.disk);
            wire.revocable = meta.revocable.then(RevocableInfo::default);
            wire.shared = meta.shared.then(SharedInfo::default);
            wire.provider_id = meta.provider.as_deref().map(Into::into);
            wire.reservations = meta.reservations.iter().map(Reservation::to_wire).collect();
        }
        match form {
            Form::New => {}
            Form::Old => {
                write_old(&mut wire);
                wire.reservations.clear();
            }
            Form::Both => write_old(&mut wire),
        }
        wire
    }
}

impl Reservation {
    /// One of `reservations`, checked.
    ///
    /// # Errors
    /// When its role or type is missing or not allowed.
    pub fn from_wire(wire: &ReservationInfo) -> Result<Self, Problem> {
        let kind = match wire.r#type.and_then(|n| ReservationType::try_from(n).ok()) {
            Some(ReservationType::Static) => ReservationKind::Static,
            Some(ReservationType::Dynamic) => ReservationKind::Dynamic,
            Some(ReservationType::Unknown) | None => return Err(Problem::IncompleteReservation),
        };
        let role = wire.role.as_deref().ok_or(Problem::IncompleteReservation)?;
        roles::validate(role)?;
        if role == roles::UNRESERVED {
            return Err(Problem::ReservedToAll);
        }
        Ok(Reservation {
            kind,
            role: role.into(),
            principal: wire.principal.clone(),
            labels: wire.labels.clone(),
        })
    }

    /// As one of `reservations`.
    #[must_use]
    pub fn to_wire(&self) -> ReservationInfo {
        let kind = match self.kind {
            ReservationKind::Static => ReservationType::Static,
            ReservationKind::Dynamic => ReservationType::Dynamic,
        };
        ReservationInfo {
            r#type: Some(kind as i32),
            role: Some(self.role.to_string()),
            principal: self.principal.clone(),
            labels: self.labels.clone(),
        }
    }
}

// === whole lists, for messages that only pass through ===

/// Brings resources into the newer form (`reservations`) without checking them.
pub fn upgrade(resources: &mut [v1::Resource]) {
    for resource in resources {
        let role = resource.role.take();
        let old = resource.reservation.take();
        if !resource.reservations.is_empty() {
            continue;
        }
        let Some(role) = role.filter(|role| role != roles::UNRESERVED) else { continue };
        let kind = if old.is_some() { ReservationType::Dynamic } else { ReservationType::Static };
        resource.reservations.push(ReservationInfo {
            r#type: Some(kind as i32),
            role: Some(role),
            ..old.unwrap_or_default()
        });
    }
}

/// Brings resources from the newer into the older form (`role` and `reservation`).
///
/// # Errors
/// When one has refined reservations. Nothing is changed then.
pub fn downgrade(resources: &mut [v1::Resource]) -> Result<(), RefinedError> {
    if resources.iter().any(|resource| resource.reservations.len() > 1) {
        return Err(RefinedError);
    }
    for resource in resources {
        write_old(resource);
        resource.reservations.clear();
    }
    Ok(())
}

pub(super) fn wire_ranges(ranges: &Ranges) -> v1::value::Ranges {
    let one = |r: &Range| v1::value::Range { begin: r.begin(), end: r.end() };
    v1::value::Ranges { range: ranges.as_slice().iter().map(one).collect() }
}

/// Says by `role` and `reservation` what `reservations` says, if that can be.
fn write_old(wire: &mut v1::Resource) {
    match wire.reservations.as_slice() {
        [] => wire.role = Some(roles::UNRESERVED.to_owned()),
        [only] => {
            wire.role.clone_from(&only.role);
            wire.reservation = (only.r#type() == ReservationType::Dynamic).then(|| ReservationInfo {
                principal: only.principal.clone(),
                labels: only.labels.clone(),
                ..Default::default()
            });
        }
        _ => {}
    }
}

// === reading ===

fn read(wire: &v1::Resource) -> Result<Resource, Problem> {
    if wire.name.is_empty() {
        return Err(Problem::EmptyName);
    }
    let meta = Meta {
        reservations: read_reservations(wire)?,
        disk: wire.disk.clone(),
        revocable: wire.revocable.is_some(),
        shared: wire.shared.is_some(),
        provider: wire.provider_id.as_ref().map(|id| id.value.clone()),
    };
    let value = read_value(wire)?;
    if let Some(disk) = &wire.disk {
        if wire.name != "disk" {
            return Err(Problem::DiskInfoElsewhere);
        }
        check_disk(disk)?;
    }
    // That it is named `disk` follows from its having a DiskInfo.
    let is_volume = wire.disk.as_ref().is_some_and(|disk| disk.persistence.is_some());
    if meta.shared && !is_volume {
        return Err(Problem::Shared);
    }
    let allocation = wire.allocation_info.as_ref().map(|info| Arc::from(info.role()));
    Ok(Resource { name: wire.name.as_str().into(), value, allocation, meta: meta.into_shared() })
}

fn read_value(wire: &v1::Resource) -> Result<Value, Problem> {
    match (Type::try_from(wire.r#type), &wire.scalar, &wire.ranges, &wire.set) {
        (Ok(Type::Scalar), Some(scalar), None, None) => read_scalar(scalar.value),
        (Ok(Type::Ranges), None, Some(ranges), None) => read_ranges(&ranges.range),
        (Ok(Type::Set), None, None, Some(set)) => read_set(&set.item),
        (Ok(Type::Scalar), ..) => Err(Problem::ValueOfOtherType("SCALAR")),
        (Ok(Type::Ranges), ..) => Err(Problem::ValueOfOtherType("RANGES")),
        (Ok(Type::Set), ..) => Err(Problem::ValueOfOtherType("SET")),
        (Ok(Type::Text) | Err(_), ..) => Err(Problem::Type),
    }
}

fn read_scalar(value: f64) -> Result<Value, Problem> {
    if value < 0.0 {
        return Err(Problem::Negative(value));
    }
    Scalar::from_f64(value).map(Value::Scalar).ok_or(Problem::NotANumber(value))
}

fn read_ranges(wire: &[v1::value::Range]) -> Result<Value, Problem> {
    let mut ranges = Vec::with_capacity(wire.len());
    for range in wire {
        let range =
            Range::new(range.begin, range.end).ok_or(Problem::RangeInverted(range.begin, range.end))?;
        ranges.push(range);
    }
    ranges.sort_unstable();
    for pair in ranges.windows(2) {
        if pair[0].overlaps(pair[1]) {
            return Err(Problem::RangesOverlap(pair[1].begin()));
        }
    }
    Ok(Value::Ranges(ranges.into_iter().collect()))
}

fn read_set(items: &[String]) -> Result<Value, Problem> {
    let set: Set = items.iter().cloned().collect();
    if set.len() < items.len() {
        let mut seen = HashSet::new();
        let twice = items.iter().find(|item| !seen.insert(item.as_str()));
        return Err(Problem::DuplicateItem(twice.cloned().unwrap_or_default()));
    }
    Ok(Value::Set(set))
}

fn check_disk(disk: &DiskInfo) -> Result<(), Problem> {
    let Some(source) = &disk.source else { return Ok(()) };
    let kind = SourceType::try_from(source.r#type).map_err(|_| Problem::DiskSource)?;
    match kind {
        SourceType::Path | SourceType::Mount => Ok(()),
        SourceType::Block | SourceType::Raw if source.mount.is_some() || source.path.is_some() => {
            Err(Problem::DiskSourceRoot(kind.as_str_name()))
        }
        SourceType::Block | SourceType::Raw => Ok(()),
        SourceType::Unknown => Err(Problem::DiskSource),
    }
}

fn read_reservations(wire: &v1::Resource) -> Result<Vec<Reservation>, Problem> {
    if wire.reservations.is_empty() {
        return read_old_reservation(wire);
    }
    let list: Vec<Reservation> =
        wire.reservations.iter().map(Reservation::from_wire).collect::<Result<_, _>>()?;
    for pair in list.windows(2) {
        let (before, after) = (&pair[0], &pair[1]);
        if after.kind == ReservationKind::Static {
            return Err(Problem::RefinedStatic);
        }
        if !roles::is_strict_subrole(&after.role, &before.role) {
            return Err(Problem::NotARefinement {
                role: after.role.to_string(),
                refined: before.role.to_string(),
            });
        }
    }
    if says_otherwise(wire, &list) { Err(Problem::FormsDiffer) } else { Ok(list) }
}

/// Whether `role` or `reservation`, which may stand beside `reservations`, contradict them.
fn says_otherwise(wire: &v1::Resource, list: &[Reservation]) -> bool {
    let [only] = list else { return wire.role.is_some() || wire.reservation.is_some() };
    if wire.role.as_deref().is_some_and(|role| role != &*only.role) {
        return true;
    }
    match (only.kind, &wire.reservation) {
        (ReservationKind::Static, old) => old.is_some(),
        (ReservationKind::Dynamic, None) => wire.role.is_some(),
        (ReservationKind::Dynamic, Some(old)) => {
            let labels = |labels: &Option<v1::Labels>| labels.clone().unwrap_or_default();
            wire.role.is_none()
                || old.principal() != only.principal.as_deref().unwrap_or_default()
                || !same_labels(Some(&labels(&old.labels)), Some(&labels(&only.labels)))
        }
    }
}

fn read_old_reservation(wire: &v1::Resource) -> Result<Vec<Reservation>, Problem> {
    let role = wire.role();
    roles::validate(role)?;
    if let Some(old) = &wire.reservation {
        if old.r#type.is_some() || old.role.is_some() {
            return Err(Problem::OldReservation);
        }
        if role == roles::UNRESERVED {
            return Err(Problem::ReservedToAll);
        }
        return Ok(vec![Reservation {
            kind: ReservationKind::Dynamic,
            role: role.into(),
            principal: old.principal.clone(),
            labels: old.labels.clone(),
        }]);
    }
    if role == roles::UNRESERVED {
        return Ok(Vec::new());
    }
    Ok(vec![Reservation { kind: ReservationKind::Static, role: role.into(), principal: None, labels: None }])
}
