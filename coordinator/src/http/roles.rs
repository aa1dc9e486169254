//! What is known of each role, for `GET_ROLES` and `/roles`.
//!
//! A role is known when a framework has it or holds resources for it, when resources are reserved to
//! it, when it has a weight, or when it is above such a role; with `--roles`, exactly those that are
//! named and what is above them.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde::ser::Serializer;
use tepui_api::resources::{ResourceQuantities, Resources, roles::ancestors};
use tepui_api::v1::{FrameworkId, Resource, Role, value};

use crate::core::Snapshot;

/// One role. Amounts include those of the roles below it.
#[derive(Debug, Clone, Default)]
pub(super) struct RoleView {
    pub(super) weight: f64,
    pub(super) frameworks: BTreeSet<FrameworkId>,
    pub(super) allocated: ResourceQuantities,
    pub(super) offered: ResourceQuantities,
    pub(super) reserved: ResourceQuantities,
    /// Of what is reserved, what is in use.
    reserved_allocated: ResourceQuantities,
}

/// Amounts by name, as numbers.
pub(super) struct Amounts<'a>(pub(super) &'a ResourceQuantities);

type Roles = BTreeMap<String, RoleView>;

/// All roles by name. `only` are the roles that frameworks may have, where that is restricted.
pub(super) fn known(state: &Snapshot, only: Option<&str>) -> Roles {
    let mut roles = Roles::new();
    match only {
        Some(only) => only.split(',').for_each(|role| meet(&mut roles, role.trim())),
        None => meet_all(&mut roles, state),
    }
    for (name, role) in &mut roles {
        role.weight = state.weights.get(name).copied().unwrap_or(1.0);
    }
    for framework in state.frameworks.values() {
        let allocated = framework.allocated();
        for role in framework.roles() {
            if let Some(view) = roles.get_mut(&role) {
                view.frameworks.insert(framework.id.clone());
            }
        }
        for (role, resources) in allocated.allocations() {
            if let Some(view) = roles.get_mut(&*role) {
                view.frameworks.insert(framework.id.clone());
            }
            add(&mut roles, &role, &resources, |view| &mut view.allocated);
        }
        for (role, resources) in allocated.reservations() {
            add(&mut roles, &role, &resources, |view| &mut view.reserved_allocated);
        }
        for (role, resources) in framework.offered().allocations() {
            add(&mut roles, &role, &resources, |view| &mut view.offered);
        }
    }
    for agent in state.agents.values() {
        for (role, resources) in agent.total.reservations() {
            add(&mut roles, &role, &resources, |view| &mut view.reserved);
        }
    }
    roles
}

// === impl RoleView ===

impl RoleView {
    /// What is in use and in offers.
    pub(super) fn resources(&self) -> ResourceQuantities {
        let mut sum = self.allocated.clone();
        sum += &self.offered;
        sum
    }

    /// What counts against a quota: what is in use, and what is kept by reservations.
    pub(super) fn consumed(&self) -> ResourceQuantities {
        let mut consumed = self.reserved.clone();
        consumed -= &self.reserved_allocated;
        consumed += &self.allocated;
        consumed
    }

    /// As `GET_ROLES` answers it: only the amounts that every agent has.
    pub(super) fn to_wire(&self, name: &str) -> Role {
        let resources = self.resources();
        let shown =
            resources.iter().filter(|(name, _)| ["cpus", "mem", "disk", "gpus"].contains(&name.as_str()));
        Role {
            name: name.to_owned(),
            weight: self.weight,
            frameworks: self.frameworks.iter().cloned().collect(),
            resources: shown
                .map(|(name, amount)| Resource {
                    name: name.as_str().to_owned(),
                    r#type: value::Type::Scalar.into(),
                    scalar: Some(value::Scalar { value: amount.as_f64() }),
                    ..Resource::default()
                })
                .collect(),
        }
    }
}

// === impl Amounts ===

impl Serialize for Amounts<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.0.iter().map(|(name, amount)| (name.as_str(), amount.as_f64())))
    }
}

fn meet(roles: &mut Roles, role: &str) {
    for name in std::iter::once(role).chain(ancestors(role)) {
        roles.entry(name.to_owned()).or_default();
    }
}

fn meet_all(roles: &mut Roles, state: &Snapshot) {
    for framework in state.frameworks.values() {
        framework.roles().iter().for_each(|role| meet(roles, role));
        framework.allocated().allocations().keys().for_each(|role| meet(roles, role));
    }
    for agent in state.agents.values() {
        agent.total.reservations().keys().for_each(|role| meet(roles, role));
    }
    state.weights.keys().for_each(|role| meet(roles, role));
}

/// Adds to a role and to all above it.
fn add(
    roles: &mut Roles,
    role: &str,
    resources: &Resources,
    amount: impl Fn(&mut RoleView) -> &mut ResourceQuantities,
) {
    let quantities = resources.to_quantities();
    for name in std::iter::once(role).chain(ancestors(role)) {
        if let Some(view) = roles.get_mut(name) {
            *amount(view) += &quantities;
        }
    }
}
