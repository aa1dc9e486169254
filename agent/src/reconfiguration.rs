//! Whether an agent that starts anew may go on as the one that it was: `--reconfiguration_policy`.
//!
//! The rules are those of Mesos' `src/slave/compatibility.cpp`, but for the port: an agent may move to another, since its
//! coordinator is told of it. `any` is not one of Mesos'.

use tepui_api::resources::Resources;
use tepui_api::v1::value::Type;
use tepui_api::v1::{AgentInfo, Attribute};

use crate::flags::ReconfigurationPolicy as Policy;

/// What of an agent is not as it was, in words that can follow "for".
///
/// # Errors
/// When the policy does not allow a difference: all of them that it does not allow, and the mildest policy that would.
pub fn check(policy: Policy, before: &AgentInfo, now: &AgentInfo) -> Result<(), Refused> {
    let differences = match policy {
        Policy::Equal => differences(before, now),
        Policy::Additive => losses(before, now),
        Policy::Any => Vec::new(),
    };
    if differences.is_empty() {
        return Ok(());
    }
    let allowed_by = if losses(before, now).is_empty() { Policy::Additive } else { Policy::Any };
    Err(Refused { differences: differences.join("; "), allowed_by })
}

/// Differences that are not allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// In words.
    pub differences: String,
    /// The mildest policy that would allow them.
    pub allowed_by: Policy,
}

fn resources(info: &AgentInfo) -> Resources {
    Resources::from_wire_lossy(&info.resources)
}

fn text(attributes: &[Attribute]) -> String {
    tepui_api::resources::attributes_to_text(attributes)
}

fn hostname(before: &AgentInfo, now: &AgentInfo) -> Option<String> {
    (before.hostname != now.hostname)
        .then(|| format!("its hostname was '{}' and is '{}'", before.hostname, now.hostname))
}

/// All differences.
fn differences(before: &AgentInfo, now: &AgentInfo) -> Vec<String> {
    let mut found: Vec<String> = hostname(before, now).into_iter().collect();
    let (old, new) = (resources(before), resources(now));
    if !(old.contains(&new) && new.contains(&old)) {
        found.push(format!("its resources were {old} and are {new}"));
    }
    if before.attributes != now.attributes {
        let (old, new) = (text(&before.attributes), text(&now.attributes));
        found.push(format!("its attributes were '{old}' and are '{new}'"));
    }
    if before.domain != now.domain {
        found.push("its domain is another".to_owned());
    }
    found
}

/// The differences by which somebody loses what he had, or was told.
fn losses(before: &AgentInfo, now: &AgentInfo) -> Vec<String> {
    let mut found: Vec<String> = hostname(before, now).into_iter().collect();
    let (old, new) = (resources(before), resources(now));
    let gone = old.iter().cloned().map(Resources::from).filter(|one| !new.contains(one));
    found.extend(gone.map(|one| format!("of its resources it had {one}, which is not in {new}")));
    for attribute in &before.attributes {
        let same_name = now.attributes.iter().find(|other| other.name == attribute.name);
        let was = text(std::slice::from_ref(attribute));
        match same_name {
            None => found.push(format!("its attribute '{was}' is gone")),
            Some(other) if keeps(attribute, other) => {}
            Some(other) => {
                found.push(format!("its attribute '{was}' is '{}'", text(std::slice::from_ref(other))));
            }
        }
    }
    if before.domain.is_some() && before.domain != now.domain {
        found.push("its domain is another".to_owned());
    }
    found
}

/// Whether an attribute says at least what it said.
fn keeps(before: &Attribute, now: &Attribute) -> bool {
    if before.r#type() != now.r#type() {
        return false;
    }
    match before.r#type() {
        Type::Ranges => {
            let ranges = |attribute: &Attribute| attribute.ranges.clone().unwrap_or_default().range;
            let new = ranges(now);
            ranges(before).iter().all(|old| new.iter().any(|r| r.begin <= old.begin && old.end <= r.end))
        }
        Type::Scalar | Type::Set | Type::Text => before == now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(resources: &str, attributes: &str) -> AgentInfo {
        AgentInfo {
            hostname: "h".into(),
            resources: Resources::parse(resources, "*").unwrap().to_wire(),
            attributes: tepui_api::resources::parse_attributes(attributes).unwrap(),
            ..AgentInfo::default()
        }
    }

    fn refused(policy: Policy, before: &AgentInfo, now: &AgentInfo) -> (String, Policy) {
        let refused = check(policy, before, now).unwrap_err();
        (refused.differences, refused.allowed_by)
    }

    #[test]
    fn equal_agents_may_go_on_and_others_are_told_why_not() {
        let before = info("cpus:2;mem:10", "rack:a");
        let same = AgentInfo { id: Some("A".into()), port: Some(1), ..info("mem:10;cpus:2", "rack:a") };
        assert_eq!(check(Policy::Equal, &before, &same), Ok(()));
        let (less, by) = refused(Policy::Equal, &before, &info("cpus:1;mem:10", "rack:a"));
        assert!(less.contains("cpus:2") && less.contains("cpus:1"), "{less}");
        assert_eq!(by, Policy::Any);
        let (more, by) = refused(Policy::Equal, &before, &info("cpus:3;mem:10", "rack:a;level:1"));
        assert!(more.contains("resources") && more.contains("level:1"), "{more}");
        assert_eq!(by, Policy::Additive);
        let renamed = AgentInfo { hostname: "x".into(), ..before.clone() };
        assert_eq!(refused(Policy::Equal, &before, &renamed).1, Policy::Any);
    }

    #[test]
    fn an_additive_change_only_adds() {
        let before = info("cpus:2;ports:[10-20]", "rack:a;ports:[1-5];n:1");
        for (resources, attributes) in [
            ("cpus:2;ports:[10-20]", "rack:a;ports:[1-5];n:1"),
            ("cpus:3;ports:[1-30];mem:5;disk(r):9", "new:x;rack:a;ports:[1-9];n:1"),
        ] {
            assert_eq!(check(Policy::Additive, &before, &info(resources, attributes)), Ok(()));
        }
        for (resources, attributes, words) in [
            ("cpus:1;ports:[10-20]", "rack:a;ports:[1-5];n:1", "cpus:2"),
            ("cpus(r):2;ports:[10-20]", "rack:a;ports:[1-5];n:1", "cpus:2"),
            ("cpus:2;ports:[11-20]", "rack:a;ports:[1-5];n:1", "ports:[10-20]"),
            ("cpus:2;ports:[10-20]", "rack:b;ports:[1-5];n:1", "'rack:a' is 'rack:b'"),
            ("cpus:2;ports:[10-20]", "rack:a;ports:[2-5];n:1", "ports"),
            ("cpus:2;ports:[10-20]", "rack:a;ports:[1-5];n:2", "'n:1' is 'n:2'"),
            ("cpus:2;ports:[10-20]", "rack:a;ports:[1-5];n:x", "'n:1' is 'n:x'"),
            ("cpus:2;ports:[10-20]", "rack:a;n:1", "is gone"),
        ] {
            let after = info(resources, attributes);
            let (found, by) = refused(Policy::Additive, &before, &after);
            assert!(found.contains(words), "{found}");
            assert_eq!(by, Policy::Any);
            assert_eq!(check(Policy::Any, &before, &after), Ok(()));
        }
    }
}
