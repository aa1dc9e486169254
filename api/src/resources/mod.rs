//! Resource arithmetic: what an agent has, what is offered, what a task takes.
//!
//! [`Resources`] is read from the wire ([`Resources::from_wire`]) or from the text of a flag
//! ([`Resources::parse`]), where every [`Resource`] is checked and brought into one form; from
//! then on, adding, subtracting and comparing cannot fail. [`ResourceQuantities`] is the smaller
//! thing that an allocator sums: a number per name, without reservations or disks.
//!
//! Two resources add up when they differ in nothing but their amount: name, type, role they are
//! allocated to, reservations, disk, provider and being revocable or shared. What can only be had whole
//! (persistent volumes, MOUNT and BLOCK disks, raw disks with an id) stays apart; of what is shared,
//! the copies are counted. The rules are those of Mesos' `Resources`.

mod attributes;
mod checks;
mod name;
mod quantities;
mod ranges;
mod resource;
pub mod roles;
mod scalar;
mod set;
mod summary;
mod text;
mod wire;

use std::collections::BTreeMap;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::sync::Arc;

use crate::v1;

pub use attributes::{AttributeError, attributes_to_text, parse_attributes};
pub use checks::UseError;
pub use name::ResourceName;
pub use quantities::ResourceQuantities;
pub use ranges::{Range, Ranges};
pub use resource::{Reservation, ReservationKind, Resource, Value};
pub use scalar::{Scalar, ScalarError};
pub use set::Set;
pub use summary::{summarize, summarize_attributes};
pub use text::{TextError, ValueError, parse_list};
pub use wire::{Problem, RefinedError, ResourceError, downgrade, upgrade};

/// A whole number of megabytes, of 2^20 bytes as everywhere in Mesos.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Megabytes(pub u64);

/// Resources of any kind, each kind once.
///
/// Cheap to clone but for one allocation; what is rare in a resource is shared by all copies.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    resource: Resource,
    /// Copies of a shared resource; 1 of any other.
    count: u32,
}

// === impl Megabytes ===

impl Megabytes {
    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0.saturating_mul(1 << 20)
    }
}

// === impl Resources: making ===

impl Resources {
    /// Nothing.
    #[must_use]
    pub const fn new() -> Self {
        Resources { entries: Vec::new() }
    }

    /// Checks and adds up resources of the wire, in any of their forms. Empty ones are left out.
    ///
    /// # Errors
    /// When one breaks a rule; the error names it and says which.
    pub fn from_wire(wire: &[v1::Resource]) -> Result<Self, ResourceError> {
        let mut all = Resources { entries: Vec::with_capacity(wire.len()) };
        for resource in wire {
            all += Resource::from_wire(resource)?;
        }
        Ok(all)
    }

    /// As [`Resources::from_wire`], but leaves out what is invalid: for messages that were checked
    /// before.
    #[must_use]
    pub fn from_wire_lossy(wire: &[v1::Resource]) -> Self {
        wire.iter().filter_map(|resource| Resource::from_wire(resource).ok()).collect()
    }

    /// As wire resources with `reservations`. The copies of a shared resource are written once, as
    /// in Mesos.
    #[must_use]
    pub fn to_wire(&self) -> Vec<v1::Resource> {
        self.iter().map(Resource::to_wire).collect()
    }

    /// As wire resources with `role` and `reservation`, for frameworks that lack
    /// `RESERVATION_REFINEMENT`.
    ///
    /// # Errors
    /// When one has refined reservations, which that form cannot say.
    pub fn to_wire_pre_refinement(&self) -> Result<Vec<v1::Resource>, RefinedError> {
        self.iter().map(Resource::to_wire_pre_refinement).collect()
    }

    /// As wire resources with both, as in the `*_full` lists of the JSON endpoints.
    #[must_use]
    pub fn to_wire_endpoint(&self) -> Vec<v1::Resource> {
        self.iter().map(Resource::to_wire_endpoint).collect()
    }
}

// === impl Resources: looking ===

impl Resources {
    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Each kind of resource, a shared one once.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Resource> + Clone {
        self.entries.iter().map(|entry| &entry.resource)
    }

    /// How many copies there are of exactly this resource; of one that is not shared, 0 or 1 as a rule.
    #[must_use]
    pub fn count(&self, resource: &Resource) -> u32 {
        let equal = self.entries.iter().filter(|entry| entry.resource == *resource);
        equal.fold(0, |sum, entry| sum.saturating_add(entry.count))
    }

    /// Whether all of `other` is here.
    #[must_use]
    pub fn contains(&self, other: &Resources) -> bool {
        other.entries.iter().all(|wanted| {
            if wanted.resource.is_divisible() {
                // A divisible kind is in one entry on either side.
                return self.entries.iter().any(|entry| entry.resource.contains(&wanted.resource));
            }
            other.count(&wanted.resource) <= self.count(&wanted.resource)
        })
    }

    /// Whether there is at least so much of every name, wherever it is reserved or allocated.
    #[must_use]
    pub fn contains_quantities(&self, quantities: &ResourceQuantities) -> bool {
        self.to_quantities().contains(quantities)
    }

    /// The names, in order and each once.
    #[must_use]
    pub fn names(&self) -> Vec<&ResourceName> {
        let mut names: Vec<_> = self.iter().map(Resource::name).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The sum of the amounts of this name; `None` when there is no such scalar.
    #[must_use]
    pub fn scalar(&self, name: &str) -> Option<Scalar> {
        self.of(name).filter_map(Resource::as_scalar).reduce(Add::add)
    }

    /// All numbers of this name; `None` when there are no such ranges.
    #[must_use]
    pub fn ranges(&self, name: &str) -> Option<Ranges> {
        let all = self.of(name).filter_map(|resource| match resource.value() {
            Value::Ranges(ranges) => Some(ranges.clone()),
            _ => None,
        });
        all.reduce(|a, b| a.union(&b))
    }

    /// All items of this name; `None` when there is no such set.
    #[must_use]
    pub fn set(&self, name: &str) -> Option<Set> {
        let all = self.of(name).filter_map(|resource| match resource.value() {
            Value::Set(set) => Some(set.clone()),
            _ => None,
        });
        all.reduce(|a, b| a.union(&b))
    }

    fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Resource> {
        self.iter().filter(move |resource| resource.name() == name)
    }

    /// CPUs.
    #[must_use]
    pub fn cpus(&self) -> Option<Scalar> {
        self.scalar("cpus")
    }

    /// GPUs; whole ones wherever [`Resources::check_use`] was asked.
    #[must_use]
    pub fn gpus(&self) -> Option<Scalar> {
        self.scalar("gpus")
    }

    /// Memory. A part of a megabyte is cut off, as in Mesos.
    #[must_use]
    pub fn mem(&self) -> Option<Megabytes> {
        self.scalar("mem").map(|amount| Megabytes(amount.units()))
    }

    /// Disk. A part of a megabyte is cut off, as in Mesos.
    #[must_use]
    pub fn disk(&self) -> Option<Megabytes> {
        self.scalar("disk").map(|amount| Megabytes(amount.units()))
    }

    /// Ports.
    #[must_use]
    pub fn ports(&self) -> Option<Ranges> {
        self.ranges("ports")
    }

    /// How much of every name: amounts, and for ranges and sets how many.
    #[must_use]
    pub fn to_quantities(&self) -> ResourceQuantities {
        let mut sum = ResourceQuantities::new();
        for resource in self.iter() {
            sum.add_amount(resource.name(), resource.value().quantity());
        }
        sum
    }

    /// How much of every name that is a scalar.
    #[must_use]
    pub fn scalar_quantities(&self) -> ResourceQuantities {
        let mut sum = ResourceQuantities::new();
        for resource in self.iter() {
            if let Some(amount) = resource.as_scalar() {
                sum.add_amount(resource.name(), amount);
            }
        }
        sum
    }
}

// === impl Resources: choosing ===

impl Resources {
    /// Those for which `keep` is true.
    #[must_use]
    pub fn filter(&self, mut keep: impl FnMut(&Resource) -> bool) -> Resources {
        // What is a kind of its own here is one there too, so nothing needs adding up.
        let entries = self.entries.iter().filter(|entry| keep(&entry.resource)).cloned().collect();
        Resources { entries }
    }

    /// Those of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Resources {
        self.filter(|resource| resource.name() == name)
    }

    /// The scalars.
    #[must_use]
    pub fn scalars(&self) -> Resources {
        self.filter(|resource| matches!(resource.value(), Value::Scalar(_)))
    }

    /// Those whose reservation in force is to exactly this role.
    #[must_use]
    pub fn reserved(&self, role: &str) -> Resources {
        self.filter(|resource| resource.reserved_to().is_some_and(|owner| **owner == *role))
    }

    /// Those that are reserved to anyone.
    #[must_use]
    pub fn all_reserved(&self) -> Resources {
        self.filter(|resource| !resource.is_unreserved())
    }

    /// Those that are reserved to nobody.
    #[must_use]
    pub fn unreserved(&self) -> Resources {
        self.filter(Resource::is_unreserved)
    }

    /// Those that may be offered to this role: unreserved, or reserved to it or a role above.
    #[must_use]
    pub fn allocatable_to(&self, role: &str) -> Resources {
        self.filter(|resource| resource.is_allocatable_to(role))
    }

    /// Those that are reserved to this role or one below it.
    #[must_use]
    pub fn reserved_to_subtree(&self, role: &str) -> Resources {
        self.filter(|resource| resource.reserved_to().is_some_and(|owner| roles::is_in_subtree(owner, role)))
    }

    /// Those that are allocated to this role or one below it.
    #[must_use]
    pub fn allocated_to_subtree(&self, role: &str) -> Resources {
        self.filter(|resource| resource.allocation().is_some_and(|to| roles::is_in_subtree(to, role)))
    }

    /// Those that can be taken back at any time.
    #[must_use]
    pub fn revocable(&self) -> Resources {
        self.filter(Resource::is_revocable)
    }

    /// Those that are kept until they are given back.
    #[must_use]
    pub fn non_revocable(&self) -> Resources {
        self.filter(|resource| !resource.is_revocable())
    }

    /// Those that many may use at once.
    #[must_use]
    pub fn shared(&self) -> Resources {
        self.filter(Resource::is_shared)
    }

    /// Those that one may use.
    #[must_use]
    pub fn non_shared(&self) -> Resources {
        self.filter(|resource| !resource.is_shared())
    }

    /// Persistent volumes.
    #[must_use]
    pub fn persistent_volumes(&self) -> Resources {
        self.filter(Resource::is_persistent_volume)
    }

    /// By the role they are reserved to. Unreserved ones are left out.
    #[must_use]
    pub fn reservations(&self) -> BTreeMap<Arc<str>, Resources> {
        self.grouped(|resource| resource.reserved_to())
    }

    /// By the role they are allocated to. Those not allocated are left out.
    #[must_use]
    pub fn allocations(&self) -> BTreeMap<Arc<str>, Resources> {
        self.grouped(|resource| resource.allocation.as_ref())
    }

    fn grouped(&self, role: impl Fn(&Resource) -> Option<&Arc<str>>) -> BTreeMap<Arc<str>, Resources> {
        let mut groups: BTreeMap<Arc<str>, Resources> = BTreeMap::new();
        for entry in &self.entries {
            if let Some(role) = role(&entry.resource) {
                groups.entry(role.clone()).or_default().entries.push(entry.clone());
            }
        }
        groups
    }

    /// Takes from these what satisfies `wanted`, whatever role it is reserved to: first what is
    /// reserved to the role that each wanted resource names, then what is unreserved, then the rest.
    #[must_use]
    pub fn find(&self, wanted: &Resources) -> Option<Resources> {
        let mut left = self.clone();
        let mut found = Resources::new();
        for target in wanted.iter() {
            let part = left.find_one(target)?;
            left -= &part;
            found += part;
        }
        Some(found)
    }

    fn find_one(&self, target: &Resource) -> Option<Resources> {
        let rank = |resource: &Resource| match (resource.reserved_to(), target.reserved_to()) {
            (Some(has), Some(wants)) if has == wants => 0,
            (None, _) => 1,
            _ => 2,
        };
        let mut candidates: Vec<&Resource> = self.iter().collect();
        // Stable, so that equals are taken in their order.
        candidates.sort_by_key(|resource| rank(resource));
        let mut remaining = target.unreserved();
        let mut found = Resources::new();
        for candidate in candidates {
            let bare = candidate.unreserved();
            if bare.contains(&remaining) {
                found += Resource { value: remaining.value, ..candidate.clone() };
                return Some(found);
            }
            if remaining.contains(&bare) {
                found += candidate.clone();
                remaining.value.subtract(&bare.value);
            }
        }
        None
    }
}

// === impl Resources: changing ===

impl Resources {
    /// Marks all as offered to a framework in this role.
    pub fn allocate(&mut self, role: impl Into<Arc<str>>) {
        let role = role.into();
        self.rebuild_if_merged(|resource| resource.allocation = Some(role.clone()));
    }

    /// Takes that mark off.
    pub fn unallocate(&mut self) {
        self.rebuild_if_merged(|resource| resource.allocation = None);
    }

    /// These, marked as offered to a framework in this role.
    #[must_use]
    pub fn allocated(mut self, role: impl Into<Arc<str>>) -> Resources {
        self.allocate(role);
        self
    }

    /// These without that mark.
    #[must_use]
    pub fn unallocated(mut self) -> Resources {
        self.unallocate();
        self
    }

    /// These, reserved once more. Whether the reservation refines those that are there is for the
    /// caller to have checked.
    #[must_use]
    pub fn push_reservation(&self, reservation: &Reservation) -> Resources {
        self.map(|resource| resource.change_meta(|meta| meta.reservations.push(reservation.clone())))
    }

    /// These without the reservation that is in force on each.
    #[must_use]
    pub fn pop_reservation(&self) -> Resources {
        self.map(|resource| resource.change_meta(|meta| drop(meta.reservations.pop())))
    }

    /// These as if nobody had reserved them.
    #[must_use]
    pub fn to_unreserved(&self) -> Resources {
        self.map(|resource| *resource = resource.unreserved())
    }

    fn map(&self, mut change: impl FnMut(&mut Resource)) -> Resources {
        let mut all = Resources { entries: Vec::with_capacity(self.entries.len()) };
        for entry in &self.entries {
            let mut entry = entry.clone();
            change(&mut entry.resource);
            all.add_entry(entry);
        }
        all
    }

    /// Changes every resource in place, and adds up again those that no longer differ.
    fn rebuild_if_merged(&mut self, mut change: impl FnMut(&mut Resource)) {
        for entry in std::mem::take(&mut self.entries) {
            let mut entry = entry;
            change(&mut entry.resource);
            self.add_entry(entry);
        }
    }

    /// What is left after `other` is taken; `None` when not all of it is here.
    #[must_use]
    pub fn checked_sub(&self, other: &Resources) -> Option<Resources> {
        self.contains(other).then(|| self - other)
    }

    fn add_entry(&mut self, new: Entry) {
        if new.resource.is_empty() || new.count == 0 {
            return;
        }
        match self.entries.iter_mut().find(|entry| entry.resource.can_take(&new.resource)) {
            Some(entry) if entry.resource.is_shared() => entry.count = entry.count.saturating_add(new.count),
            Some(entry) => entry.resource.value.add(&new.resource.value),
            None => self.entries.push(new),
        }
    }

    fn subtract_entry(&mut self, other: &Entry) {
        if let Some(at) = self.entries.iter().position(|entry| entry.resource.can_give(&other.resource)) {
            let entry = &mut self.entries[at];
            let gone = if entry.resource.is_shared() {
                entry.count = entry.count.saturating_sub(other.count);
                entry.count == 0
            } else {
                entry.resource.value.subtract(&other.resource.value);
                entry.resource.is_empty()
            };
            if gone {
                self.entries.remove(at);
            }
        }
    }
}

impl Resource {
    /// This as if nobody had reserved it.
    #[must_use]
    pub fn unreserved(&self) -> Resource {
        let mut bare = self.clone();
        if !bare.is_unreserved() {
            bare.change_meta(|meta| meta.reservations.clear());
        }
        bare
    }
}

// === operators ===

impl AddAssign<Resource> for Resources {
    fn add_assign(&mut self, resource: Resource) {
        self.add_entry(Entry { resource, count: 1 });
    }
}

impl AddAssign<&Resources> for Resources {
    fn add_assign(&mut self, other: &Resources) {
        for entry in &other.entries {
            self.add_entry(entry.clone());
        }
    }
}

impl AddAssign for Resources {
    fn add_assign(&mut self, other: Resources) {
        if self.is_empty() {
            *self = other;
            return;
        }
        for entry in other.entries {
            self.add_entry(entry);
        }
    }
}

impl Add<&Resources> for Resources {
    type Output = Resources;
    fn add(mut self, other: &Resources) -> Resources {
        self += other;
        self
    }
}

impl Add for Resources {
    type Output = Resources;
    fn add(mut self, other: Resources) -> Resources {
        self += other;
        self
    }
}

impl Add for &Resources {
    type Output = Resources;
    fn add(self, other: &Resources) -> Resources {
        self.clone() + other
    }
}

/// What is not there is not taken, and no amount falls below zero: ask [`Resources::contains`]
/// or use [`Resources::checked_sub`] where that would be a mistake.
impl SubAssign<&Resources> for Resources {
    fn sub_assign(&mut self, other: &Resources) {
        for entry in &other.entries {
            self.subtract_entry(entry);
        }
    }
}

/// As `-=`.
impl Sub<&Resources> for Resources {
    type Output = Resources;
    fn sub(mut self, other: &Resources) -> Resources {
        self -= other;
        self
    }
}

/// As `-=`.
impl Sub for &Resources {
    type Output = Resources;
    fn sub(self, other: &Resources) -> Resources {
        self.clone() - other
    }
}

impl PartialEq for Resources {
    fn eq(&self, other: &Resources) -> bool {
        self.entries.len() == other.entries.len() && self.contains(other) && other.contains(self)
    }
}

impl Eq for Resources {}

impl From<Resource> for Resources {
    fn from(resource: Resource) -> Self {
        let mut all = Resources::new();
        all += resource;
        all
    }
}

impl FromIterator<Resource> for Resources {
    fn from_iter<I: IntoIterator<Item = Resource>>(resources: I) -> Self {
        let mut all = Resources::new();
        all.extend(resources);
        all
    }
}

impl Extend<Resource> for Resources {
    fn extend<I: IntoIterator<Item = Resource>>(&mut self, resources: I) {
        for resource in resources {
            *self += resource;
        }
    }
}

impl<'a> Sum<&'a Resources> for Resources {
    fn sum<I: Iterator<Item = &'a Resources>>(all: I) -> Resources {
        all.fold(Resources::new(), Add::add)
    }
}

impl Sum for Resources {
    fn sum<I: Iterator<Item = Resources>>(all: I) -> Resources {
        all.fold(Resources::new(), Add::add)
    }
}
