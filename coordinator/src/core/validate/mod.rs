//! What calls, frameworks, offers, tasks and agents must look like.
//!
//! The rules are Mesos' (`src/master/validation.cpp`, `src/common/validation.cpp`): what it refuses is
//! refused here, in the same order, so that the same one of several faults is named.

pub(super) mod agent;
pub(super) mod checks;
pub(super) mod container;
pub(super) mod executor;
pub(super) mod framework;
pub(super) mod group;
pub(super) mod task;

/// Why a string cannot be an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IdError {
    #[error("an id must not be empty")]
    Empty,
    #[error("an id must not be longer than 255 bytes")]
    TooLong,
    #[error("'{0}' cannot be an id, since it names a folder")]
    Dots(String),
    #[error("the id '{0}' must not contain slashes, backslashes or control characters")]
    Character(String),
}

/// Ids become names of folders on the agent.
pub(crate) fn id(id: &str) -> Result<(), IdError> {
    if id.is_empty() {
        Err(IdError::Empty)
    } else if id.len() > 255 {
        Err(IdError::TooLong)
    } else if id == "." || id == ".." {
        Err(IdError::Dots(id.to_owned()))
    } else if id.bytes().any(|byte| byte.is_ascii_control() || byte == b'/' || byte == b'\\') {
        Err(IdError::Character(id.to_owned()))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn ids_can_be_folders() {
        let long = "x".repeat(255);
        for good in ["a", "task-1", "a.b", "...", "tâche", "a b", &long] {
            assert_eq!(super::id(good), Ok(()), "{good}");
        }
        let too_long = "x".repeat(256);
        for bad in ["", ".", "..", "a/b", "a\\b", "a\nb", "\u{7f}", "a\0", &too_long] {
            assert!(super::id(bad).is_err(), "{bad:?}");
        }
    }
}
