//! Adding, taking away, and changing what resources are tied to.

use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::sync::Arc;

use super::{Entry, Reservation, Resource, Resources};

impl Resources {
    /// Marks all as offered to a framework in this role.
    pub fn allocate(&mut self, role: impl Into<Arc<str>>) {
        self.set_allocation(Some(role.into()));
    }

    /// Takes that mark off.
    pub fn unallocate(&mut self) {
        self.set_allocation(None);
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

    fn set_allocation(&mut self, role: Option<Arc<str>>) {
        let first = self.entries.first().and_then(|entry| entry.resource.allocation.clone());
        let mut uniform = true;
        for entry in &mut self.entries {
            uniform &= entry.resource.allocation == first;
            entry.resource.allocation.clone_from(&role);
        }
        // Only where roles differed can two have become one kind.
        if !uniform {
            for entry in std::mem::take(&mut self.entries) {
                self.add_entry(entry);
            }
        }
    }

    /// What is left after `other` is taken; `None` when not all of it is here.
    #[must_use]
    pub fn checked_sub(&self, other: &Resources) -> Option<Resources> {
        self.contains(other).then(|| self - other)
    }

    fn add_entry(&mut self, new: Entry) {
        if !self.merge(&new) {
            self.entries.push(new);
        }
    }

    /// Adds to what is there; `false` when nothing there is of this kind.
    fn merge(&mut self, new: &Entry) -> bool {
        if new.resource.is_empty() || new.count == 0 {
            return true;
        }
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.resource.can_take(&new.resource)) else {
            return false;
        };
        if entry.resource.is_shared() {
            entry.count = entry.count.saturating_add(new.count);
        } else {
            entry.resource.value.add(&new.resource.value);
        }
        true
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
            if !self.merge(entry) {
                self.entries.push(entry.clone());
            }
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
