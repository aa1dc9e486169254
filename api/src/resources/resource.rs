//! One resource: a name, an amount, and what ties it to a role, a disk or a provider.
//!
//! Most resources of a cluster are plain amounts, so everything rare sits behind one pointer that
//! copies share; two resources from the same source compare by that pointer alone.

use std::sync::Arc;

use super::{Range, Ranges, ResourceName, Scalar, Set, roles};
use crate::v1;
use crate::v1::resource::DiskInfo;
use crate::v1::resource::disk_info::source::Type as SourceType;

/// How much of a resource there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// An amount.
    Scalar(Scalar),
    /// Numbers.
    Ranges(Ranges),
    /// Names.
    Set(Set),
}

/// For whom a resource is kept.
#[derive(Clone, Debug)]
pub struct Reservation {
    /// By whom it was made.
    pub kind: ReservationKind,
    /// Whose tasks may use it, and those of roles below.
    pub role: Arc<str>,
    /// Who made it, when it is known.
    pub principal: Option<String>,
    /// Words of whoever made it.
    pub labels: Option<v1::Labels>,
}

/// How a reservation came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReservationKind {
    /// By the agent's `--resources`; it stays.
    Static,
    /// By a framework or operator; it can be taken back.
    Dynamic,
}

/// One resource of an agent, offer or task, checked and in one form.
///
/// Made from the wire by [`Resource::from_wire`] or from text. Equal when the wire resources would
/// be equal to Mesos: a disk's `volume` and who created a volume do not count, nor the order of labels.
#[derive(Clone, Debug)]
pub struct Resource {
    pub(super) name: ResourceName,
    pub(super) value: Value,
    /// The role whose framework was offered it. `""` for an `allocation_info` without a role.
    pub(super) allocation: Option<Arc<str>>,
    /// `None` when there is nothing in it.
    pub(super) meta: Option<Arc<Meta>>,
}

/// What few resources have.
#[derive(Clone, Debug, Default)]
pub(super) struct Meta {
    /// The last is in force; each refines the one before.
    pub reservations: Vec<Reservation>,
    pub disk: Option<DiskInfo>,
    pub revocable: bool,
    pub shared: bool,
    pub provider: Option<String>,
}

// === impl Value ===

impl Value {
    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Value::Scalar(amount) => amount.is_zero(),
            Value::Ranges(ranges) => ranges.is_empty(),
            Value::Set(set) => set.is_empty(),
        }
    }

    /// Whether all of `other` is here. `false` for values of different types.
    #[must_use]
    pub fn contains(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Scalar(a), Value::Scalar(b)) => b <= a,
            (Value::Ranges(a), Value::Ranges(b)) => a.contains(b),
            (Value::Set(a), Value::Set(b)) => a.contains(b),
            _ => false,
        }
    }

    /// How much, as one number: an amount, or how many numbers or names there are.
    #[must_use]
    pub fn quantity(&self) -> Scalar {
        let many = |n: u128| {
            let thousandths = n.checked_mul(1000).and_then(|n| i64::try_from(n).ok());
            thousandths.map_or(Scalar::MAX, Scalar::from_thousandths)
        };
        match self {
            Value::Scalar(amount) => *amount,
            Value::Ranges(ranges) => many(ranges.count()),
            Value::Set(set) => many(set.len() as u128),
        }
    }

    pub(super) fn same_type(&self, other: &Value) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    /// Adds a value of the same type; of another, nothing.
    pub(super) fn add(&mut self, other: &Value) {
        match (self, other) {
            (Value::Scalar(a), Value::Scalar(b)) => *a += *b,
            (Value::Ranges(a), Value::Ranges(b)) => *a = a.union(b),
            (Value::Set(a), Value::Set(b)) => *a = a.union(b),
            _ => {}
        }
    }

    /// Takes away what is here of a value of the same type.
    pub(super) fn subtract(&mut self, other: &Value) {
        match (self, other) {
            (Value::Scalar(a), Value::Scalar(b)) => *a = a.minus_or_zero(*b),
            (Value::Ranges(a), Value::Ranges(b)) => *a = a.difference(b),
            (Value::Set(a), Value::Set(b)) => *a = a.difference(b),
            _ => {}
        }
    }
}

// === impl Resource ===

impl Resource {
    /// A plain amount: not reserved, not allocated.
    #[must_use]
    pub fn scalar(name: &str, amount: Scalar) -> Self {
        Resource { name: name.into(), value: Value::Scalar(amount), allocation: None, meta: None }
    }

    /// Plain ranges, such as `ports`.
    pub fn ranges(name: &str, ranges: impl IntoIterator<Item = Range>) -> Self {
        let value = Value::Ranges(ranges.into_iter().collect());
        Resource { name: name.into(), value, allocation: None, meta: None }
    }

    /// A plain set of names.
    pub fn set(name: &str, items: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let value = Value::Set(items.into_iter().collect());
        Resource { name: name.into(), value, allocation: None, meta: None }
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &ResourceName {
        &self.name
    }

    /// How much of it there is.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The amount, if it is a scalar.
    #[must_use]
    pub fn as_scalar(&self) -> Option<Scalar> {
        match self.value {
            Value::Scalar(amount) => Some(amount),
            _ => None,
        }
    }

    /// Whether there is nothing of it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.value.is_empty()
    }

    /// The role whose framework was offered it.
    #[must_use]
    pub fn allocation(&self) -> Option<&str> {
        self.allocation.as_deref()
    }

    /// Its reservations, each refining the one before; the last is in force.
    #[must_use]
    pub fn reservations(&self) -> &[Reservation] {
        self.meta.as_ref().map_or(&[], |meta| &meta.reservations)
    }

    /// The role it is reserved to.
    #[must_use]
    pub fn reserved_to(&self) -> Option<&Arc<str>> {
        self.reservations().last().map(|reservation| &reservation.role)
    }

    /// Whether it is reserved to nobody.
    #[must_use]
    pub fn is_unreserved(&self) -> bool {
        self.reservations().is_empty()
    }

    /// Whether the reservation in force was made at run time.
    #[must_use]
    pub fn is_dynamically_reserved(&self) -> bool {
        self.reservations().last().is_some_and(|r| r.kind == ReservationKind::Dynamic)
    }

    /// Whether it has more than one reservation, which only a framework with
    /// `RESERVATION_REFINEMENT` understands.
    #[must_use]
    pub fn has_refined_reservations(&self) -> bool {
        self.reservations().len() > 1
    }

    /// Whether it may be offered to this role: it is reserved to nobody, to the role, or to one above it.
    #[must_use]
    pub fn is_allocatable_to(&self, role: &str) -> bool {
        self.reserved_to().is_none_or(|owner| roles::is_in_subtree(role, owner))
    }

    /// What the wire says of its disk.
    #[must_use]
    pub fn disk(&self) -> Option<&DiskInfo> {
        self.meta.as_ref()?.disk.as_ref()
    }

    /// The id of the persistent volume that this is.
    #[must_use]
    pub fn persistence_id(&self) -> Option<&str> {
        Some(&self.disk()?.persistence.as_ref()?.id)
    }

    /// Whether it is a persistent volume.
    #[must_use]
    pub fn is_persistent_volume(&self) -> bool {
        self.persistence_id().is_some()
    }

    /// The kind of disk it is on; `None` for the agent's own file system.
    #[must_use]
    pub fn disk_source(&self) -> Option<SourceType> {
        self.disk()?.source.as_ref().map(v1::resource::disk_info::Source::r#type)
    }

    /// Whether it can be taken back at any time.
    #[must_use]
    pub fn is_revocable(&self) -> bool {
        self.meta.as_ref().is_some_and(|meta| meta.revocable)
    }

    /// Whether many tasks may use it at once.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.meta.as_ref().is_some_and(|meta| meta.shared)
    }

    /// The resource provider it is from; `None` for the agent itself.
    #[must_use]
    pub fn provider(&self) -> Option<&str> {
        self.meta.as_ref()?.provider.as_deref()
    }

    /// Whether part of it is a resource too. Persistent volumes, whole disks (MOUNT and BLOCK), raw
    /// disks with an id and whatever is shared can only be had whole.
    #[must_use]
    pub fn is_divisible(&self) -> bool {
        let Some(meta) = &self.meta else { return true };
        let whole_disk = |disk: &DiskInfo| {
            let source = disk.source.as_ref();
            disk.persistence.is_some()
                || source.is_some_and(|source| match source.r#type() {
                    SourceType::Mount | SourceType::Block => true,
                    SourceType::Raw => source.id.is_some(),
                    SourceType::Path | SourceType::Unknown => false,
                })
        };
        !meta.shared && !meta.disk.as_ref().is_some_and(whole_disk)
    }

    /// Whether all of `other` can be taken from this.
    #[must_use]
    pub fn contains(&self, other: &Resource) -> bool {
        self.can_give(other) && self.value.contains(&other.value)
    }

    /// Lowers its amount to at most `target`.
    ///
    /// Answers whether it is within the target now: what can only be had whole stays as it is.
    pub fn shrink(&mut self, target: Scalar) -> bool {
        let Value::Scalar(amount) = &self.value else { return false };
        if *amount > target {
            if !self.is_divisible() {
                return false;
            }
            self.value = Value::Scalar(target);
        }
        true
    }

    /// Whether both are the same but for how much there is.
    pub(super) fn same_kind(&self, other: &Resource) -> bool {
        self.name == other.name
            && self.value.same_type(&other.value)
            && same_role(self.allocation.as_ref(), other.allocation.as_ref())
            && match (&self.meta, &other.meta) {
                (None, None) => true,
                (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
                _ => false,
            }
    }

    /// Whether the sum of both is one resource. Of what is shared, another copy.
    pub(super) fn can_take(&self, other: &Resource) -> bool {
        self.same_kind(other) && (self.is_divisible() || (self.is_shared() && self.value == other.value))
    }

    /// Whether the difference of both is one resource. What is whole can only be taken whole.
    pub(super) fn can_give(&self, other: &Resource) -> bool {
        self.same_kind(other) && (self.is_divisible() || self.value == other.value)
    }

    /// Changes what is rare, leaving other copies alone.
    pub(super) fn change_meta(&mut self, change: impl FnOnce(&mut Meta)) {
        let mut meta = self.meta.as_deref().cloned().unwrap_or_default();
        change(&mut meta);
        self.meta = meta.into_shared();
    }
}

impl PartialEq for Resource {
    fn eq(&self, other: &Self) -> bool {
        self.same_kind(other) && self.value == other.value
    }
}

impl Eq for Resource {}

fn same_role(a: Option<&Arc<str>>, b: Option<&Arc<str>>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
        _ => false,
    }
}

// === impl Meta ===

impl Meta {
    pub(super) fn into_shared(self) -> Option<Arc<Meta>> {
        let Meta { reservations, disk, revocable, shared, provider } = &self;
        let plain = reservations.is_empty() && disk.is_none() && !revocable && !shared && provider.is_none();
        (!plain).then(|| Arc::new(self))
    }
}

impl PartialEq for Meta {
    fn eq(&self, other: &Self) -> bool {
        self.reservations == other.reservations
            && self.revocable == other.revocable
            && self.shared == other.shared
            && self.provider == other.provider
            && match (&self.disk, &other.disk) {
                (None, None) => true,
                (Some(a), Some(b)) => same_disk(a, b),
                _ => false,
            }
    }
}

impl PartialEq for Reservation {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.role == other.role
            && self.principal == other.principal
            && same_labels(self.labels.as_ref(), other.labels.as_ref())
    }
}

impl Eq for Reservation {}

/// How a disk is used (`volume`) and who created its volume (`persistence.principal`) say nothing
/// about which disk it is.
fn same_disk(a: &DiskInfo, b: &DiskInfo) -> bool {
    let id = |disk: &DiskInfo| disk.persistence.as_ref().map(|p| p.id.clone());
    let sources = match (&a.source, &b.source) {
        (None, None) => true,
        (Some(a), Some(b)) => {
            a.r#type == b.r#type
                && a.path == b.path
                && a.mount == b.mount
                && a.vendor == b.vendor
                && a.id == b.id
                && a.profile == b.profile
                && same_labels(a.metadata.as_ref(), b.metadata.as_ref())
        }
        _ => false,
    };
    sources && id(a) == id(b)
}

/// Order does not count.
pub(super) fn same_labels(a: Option<&v1::Labels>, b: Option<&v1::Labels>) -> bool {
    let sorted = |labels: &v1::Labels| {
        let mut pairs: Vec<_> = labels.labels.iter().map(|l| (l.key.clone(), l.value.clone())).collect();
        pairs.sort_unstable();
        pairs
    };
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => a == b || sorted(a) == sorted(b),
        _ => false,
    }
}
