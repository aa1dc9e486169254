//! Choosing some of many resources, by what they are tied to.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Resource, Resources, Value, roles};

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
