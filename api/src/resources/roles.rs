//! Roles: what a name may look like, and which is below which.
//!
//! `eng/web` is below `eng`; what is reserved to `eng` can be used by `eng/web`, not the other way.

/// Why a name cannot be a role. The rules are those of Mesos' `docs/roles.md`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoleError {
    /// Nothing at all.
    #[error("a role cannot be the empty string")]
    Empty,
    /// A slash at an end, or two together.
    #[error("role '{0}' cannot begin or end with a slash or have two beside each other")]
    Slash(String),
    /// A part that is `.`, `..` or `*`.
    #[error("role '{0}' cannot have '.', '..' or '*' between its slashes")]
    Reserved(String),
    /// A part that starts with a dash.
    #[error("no part of role '{0}' can begin with a dash")]
    Dash(String),
    /// White space or a control character that Mesos refuses.
    #[error("role '{0}' cannot have white space or the delete character in it")]
    Character(String),
}

/// The role of what is not reserved to anyone.
pub const UNRESERVED: &str = "*";

/// Checks the name of a role; `*` is one.
///
/// # Errors
/// When it breaks a rule; the error says which.
pub fn validate(role: &str) -> Result<(), RoleError> {
    let owned = || role.to_owned();
    if role == UNRESERVED {
        return Ok(());
    }
    if role.is_empty() {
        return Err(RoleError::Empty);
    }
    for part in role.split('/') {
        match part {
            "" => return Err(RoleError::Slash(owned())),
            "." | ".." | "*" => return Err(RoleError::Reserved(owned())),
            _ if part.starts_with('-') => return Err(RoleError::Dash(owned())),
            _ if part.bytes().any(|b| matches!(b, 0x09..=0x0d | 0x20 | 0x7f)) => {
                return Err(RoleError::Character(owned()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether `role` is below `ancestor`, and not the same.
#[must_use]
pub fn is_strict_subrole(role: &str, ancestor: &str) -> bool {
    role.strip_prefix(ancestor).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether `role` is `ancestor` or below it.
#[must_use]
pub fn is_in_subtree(role: &str, ancestor: &str) -> bool {
    role == ancestor || is_strict_subrole(role, ancestor)
}

/// The roles above this one, nearest first: `a/b/c` has `a/b` and `a`.
pub fn ancestors(role: &str) -> impl Iterator<Item = &str> {
    role.rmatch_indices('/').map(|(at, _)| &role[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules() {
        for good in ["*", "a", "eng/web", "a.b", "a-b", "...", "a/…"] {
            assert_eq!(validate(good), Ok(()), "{good}");
        }
        for bad in ["", "/", "/a", "a/", "a//b", ".", "a/..", "a/*", "-a", "a/-b", "a b", "a\tb", "a\u{7f}"] {
            assert!(validate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn below_means_at_a_slash() {
        assert!(is_strict_subrole("eng/web", "eng"));
        assert!(!is_strict_subrole("engine", "eng"));
        assert!(!is_strict_subrole("eng", "eng"));
        assert!(!is_strict_subrole("eng", "eng/web"));
        assert!(is_in_subtree("eng", "eng"));
        assert_eq!(ancestors("a/b/c").collect::<Vec<_>>(), ["a/b", "a"]);
    }
}
