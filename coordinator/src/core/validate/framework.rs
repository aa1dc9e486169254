//! What a framework may say of itself, first and later.

use std::collections::BTreeSet;

use tepui_api::resources::Scalar;
use tepui_api::resources::roles::{self, RoleError};
use tepui_api::v1::framework_info::capability::Type as Capability;
use tepui_api::v1::scheduler::OfferConstraints;
use tepui_api::v1::{FrameworkInfo, OfferFilters};

use super::super::framework::{has_capability, roles as roles_of};

/// Why a framework cannot subscribe so.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum FrameworkError {
    #[error(
        "'FrameworkInfo.role' must not be set by a framework with the MULTI_ROLE capability, use 'roles'"
    )]
    RoleOfMultiRole,
    #[error("'FrameworkInfo.roles' needs the MULTI_ROLE capability, use 'role'")]
    RolesWithoutMultiRole,
    #[error("'FrameworkInfo.roles' names '{0}' twice")]
    DuplicateRole(String),
    #[error("'FrameworkInfo' has an invalid role: {0}")]
    Role(#[from] RoleError),
    #[error("'FrameworkInfo.id' is invalid: {0}")]
    Id(#[from] super::IdError),
    #[error("an offer filter must name at least one resource quantity")]
    EmptyQuantities,
    #[error("the offer filter's quantity of '{0}' must be a finite number, and not negative")]
    Quantity(String),
    #[error("the framework's failover_timeout ({0}) is not a duration")]
    FailoverTimeout(f64),
    #[error("the roles {0:?} are not among those that this coordinator's --roles allows")]
    NotAllowed(Vec<String>),
    #[error("Framework has been removed")]
    Removed,
    #[error("the suppressed roles {0:?} are not among the framework's roles")]
    Suppressed(Vec<String>),
    #[error("the offer constraints name the role '{0}', which is not among the framework's roles")]
    ConstraintRole(String),
    #[error("offer constraints are not implemented")]
    ConstraintsNotImplemented,
    #[error("a framework's principal cannot be changed")]
    Principal,
    #[error("'FrameworkInfo.user' cannot be changed, from '{0}' to '{1}'")]
    User(String, String),
    #[error("'FrameworkInfo.checkpoint' cannot be changed, from {0} to {1}")]
    Checkpoint(bool, bool),
}

/// What Mesos' durations, 64 bits of nanoseconds, cannot hold.
const LONGEST_SECONDS: f64 = 9_223_372_036.854_775;

/// Checks what a framework says of itself, without regard to what it said before.
pub(crate) fn validate(info: &FrameworkInfo, allowed: Option<&[String]>) -> Result<(), FrameworkError> {
    validate_roles(info)?;
    if let Some(id) = info.id.as_ref().filter(|id| !id.value.is_empty()) {
        super::id(&id.value)?;
    }
    for filter in info.offer_filters.values() {
        validate_offer_filter(filter)?;
    }
    let timeout = info.failover_timeout();
    if timeout.is_nan() || timeout.abs() >= LONGEST_SECONDS {
        return Err(FrameworkError::FailoverTimeout(timeout));
    }
    if let Some(allowed) = allowed {
        let refused: Vec<String> =
            roles_of(info).into_iter().filter(|role| !allowed.contains(role)).collect();
        if !refused.is_empty() {
            return Err(FrameworkError::NotAllowed(refused));
        }
    }
    Ok(())
}

/// Checks in which roles it wants no offers, and what it wants of agents.
pub(crate) fn validate_wishes(
    info: &FrameworkInfo,
    suppressed: &[String],
    constraints: Option<&OfferConstraints>,
) -> Result<(), FrameworkError> {
    let roles = roles_of(info);
    let unknown: Vec<String> = suppressed.iter().filter(|role| !roles.contains(*role)).cloned().collect();
    if !unknown.is_empty() {
        return Err(FrameworkError::Suppressed(unknown));
    }
    let Some(constraints) = constraints else { return Ok(()) };
    let mut names: Vec<&String> = constraints.role_constraints.keys().collect();
    names.sort_unstable();
    if let Some(role) = names.into_iter().find(|role| !roles.contains(*role)) {
        return Err(FrameworkError::ConstraintRole(role.clone()));
    }
    if !constraints.role_constraints.is_empty() {
        return Err(FrameworkError::ConstraintsNotImplemented);
    }
    Ok(())
}

/// Checks what a framework that is known says anew.
pub(crate) fn validate_update(old: &FrameworkInfo, new: &FrameworkInfo) -> Result<(), FrameworkError> {
    if old.principal != new.principal {
        return Err(FrameworkError::Principal);
    }
    if old.user != new.user {
        return Err(FrameworkError::User(old.user.clone(), new.user.clone()));
    }
    if old.checkpoint() != new.checkpoint() {
        return Err(FrameworkError::Checkpoint(old.checkpoint(), new.checkpoint()));
    }
    Ok(())
}

/// Keeps what a framework that subscribes again cannot change; it is not told, as in Mesos.
pub(crate) fn keep_immutable(old: &FrameworkInfo, new: &mut FrameworkInfo) {
    if new.user != old.user {
        new.user.clone_from(&old.user);
    }
    if new.checkpoint() != old.checkpoint() {
        new.checkpoint = old.checkpoint;
    }
}

fn validate_roles(info: &FrameworkInfo) -> Result<(), FrameworkError> {
    if !has_capability(info, Capability::MultiRole) {
        if !info.roles.is_empty() {
            return Err(FrameworkError::RolesWithoutMultiRole);
        }
        return Ok(roles::validate(info.role())?);
    }
    if info.role.is_some() {
        return Err(FrameworkError::RoleOfMultiRole);
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = info.roles.iter().find(|role| !seen.insert(*role)) {
        return Err(FrameworkError::DuplicateRole(twice.clone()));
    }
    Ok(info.roles.iter().try_for_each(|role| roles::validate(role))?)
}

fn validate_offer_filter(filter: &OfferFilters) -> Result<(), FrameworkError> {
    for quantities in filter.min_allocatable_resources.iter().flat_map(|minimum| &minimum.quantities) {
        if quantities.quantities.is_empty() {
            return Err(FrameworkError::EmptyQuantities);
        }
        for (name, amount) in &quantities.quantities {
            if Scalar::from_f64(amount.value).is_none_or(|amount| amount < Scalar::ZERO) {
                return Err(FrameworkError::Quantity(name.clone()));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tepui_api::v1::framework_info;
    use tepui_api::v1::offer_filters::{MinAllocatableResources, ResourceQuantities};

    fn info(change: impl FnOnce(&mut FrameworkInfo)) -> FrameworkInfo {
        let mut info = FrameworkInfo { user: "u".into(), name: "n".into(), ..Default::default() };
        change(&mut info);
        info
    }

    fn multi(roles: &[&str]) -> FrameworkInfo {
        info(|info| {
            info.capabilities =
                vec![framework_info::Capability { r#type: Some(Capability::MultiRole.into()) }];
            info.roles = roles.iter().map(|role| (*role).to_owned()).collect();
        })
    }

    #[test]
    fn what_a_framework_says_is_checked() {
        let table = [
            (info(|_| {}), true),
            (info(|i| i.role = Some("eng/web".into())), true),
            (info(|i| i.role = Some("a b".into())), false),
            (info(|i| i.role = Some(String::new())), false),
            (info(|i| i.roles = vec!["a".into()]), false),
            (multi(&["a", "b"]), true),
            (multi(&[]), true),
            (multi(&["a", "a"]), false),
            (multi(&["/a"]), false),
            (FrameworkInfo { role: Some("a".into()), ..multi(&["a"]) }, false),
            (info(|i| i.id = Some("".into())), true),
            (info(|i| i.id = Some("a/b".into())), false),
            (info(|i| i.failover_timeout = Some(-1.0)), true),
            (info(|i| i.failover_timeout = Some(f64::NAN)), false),
            (info(|i| i.failover_timeout = Some(1e10)), false),
            (info(|i| i.failover_timeout = Some(9e9)), true),
        ];
        for (info, good) in table {
            assert_eq!(validate(&info, None).is_ok(), good, "{info:?}");
        }
    }

    #[test]
    fn only_allowed_roles() {
        let allowed = ["a".to_owned(), "*".to_owned()];
        assert!(validate(&multi(&["a"]), Some(&allowed)).is_ok());
        assert!(validate(&info(|_| {}), Some(&allowed)).is_ok());
        let refused = validate(&multi(&["a", "b", "c"]), Some(&allowed));
        assert_eq!(refused, Err(FrameworkError::NotAllowed(vec!["b".into(), "c".into()])));
    }

    #[test]
    fn offer_filters_are_amounts() {
        for (amount, good) in
            [(Some(1.0), true), (Some(-1.0), false), (Some(f64::INFINITY), false), (None, false)]
        {
            let quantities = amount.map(|value| ("cpus".to_owned(), tepui_api::v1::value::Scalar { value }));
            let filter = OfferFilters {
                min_allocatable_resources: Some(MinAllocatableResources {
                    quantities: vec![ResourceQuantities { quantities: quantities.into_iter().collect() }],
                }),
            };
            let info = info(|i| _ = i.offer_filters.insert("*".into(), filter));
            assert_eq!(validate(&info, None).is_ok(), good, "{amount:?}");
        }
    }

    #[test]
    fn wishes_name_own_roles() {
        let info = multi(&["a"]);
        assert!(validate_wishes(&info, &["a".into()], None).is_ok());
        assert_eq!(
            validate_wishes(&info, &["b".into()], None),
            Err(FrameworkError::Suppressed(vec!["b".into()]))
        );
        let constraints = |role: &str| OfferConstraints {
            role_constraints: [(role.to_owned(), Default::default())].into_iter().collect(),
        };
        assert_eq!(
            validate_wishes(&info, &[], Some(&constraints("b"))),
            Err(FrameworkError::ConstraintRole("b".into()))
        );
        assert_eq!(
            validate_wishes(&info, &[], Some(&constraints("a"))),
            Err(FrameworkError::ConstraintsNotImplemented)
        );
        assert!(validate_wishes(&info, &[], Some(&OfferConstraints::default())).is_ok());
    }

    #[test]
    fn principal_user_and_checkpoint_stay() {
        let old = info(|_| {});
        assert!(validate_update(&old, &old).is_ok());
        for change in [(|i: &mut FrameworkInfo| i.user = "other".into()) as fn(&mut FrameworkInfo), |i| {
            i.checkpoint = Some(true)
        }] {
            let mut new = info(change);
            assert!(validate_update(&old, &new).is_err());
            keep_immutable(&old, &mut new);
            assert!(validate_update(&old, &new).is_ok());
        }
        let mut new = info(|i| i.principal = Some("p".into()));
        keep_immutable(&old, &mut new);
        assert_eq!(validate_update(&old, &new), Err(FrameworkError::Principal));
    }
}
