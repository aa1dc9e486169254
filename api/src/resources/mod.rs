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

mod arithmetic;
mod attributes;
mod checks;
mod name;
mod quantities;
mod ranges;
mod resource;
pub mod roles;
mod scalar;
mod select;
mod set;
mod summary;
mod text;
mod wire;

use std::ops::Add;

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
