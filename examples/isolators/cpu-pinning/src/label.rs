//! What a task asks for, by its label.

use tepui_isolators::{ContainerContext, IsolatorError};

const LABEL: &str = "tepui.cpuset";

/// Which cores a container wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Those that are nobody's own.
    Shared,
    /// So many of its own.
    Exclusive(usize),
    /// Those of one NUMA node that are nobody's own.
    Node(usize),
}

impl Wish {
    /// What the container's task asks for.
    ///
    /// # Errors
    /// When the label has no meaning: a task never runs without what it asks for.
    pub fn of(context: &ContainerContext) -> Result<Wish, IsolatorError> {
        let labels = context.task.as_ref().and_then(|task| task.labels.as_ref());
        let label = labels.and_then(|labels| labels.labels.iter().find(|label| label.key == LABEL));
        let Some(label) = label else { return Ok(Wish::Shared) };
        let value = label.value.as_deref().unwrap_or_default();
        Wish::parse(value).ok_or_else(|| {
            IsolatorError::Refused(format!(
                "the label {LABEL}={value} is not understood: use exclusive:CORES or numa:NODE, such as exclusive:2"
            ))
        })
    }

    fn parse(text: &str) -> Option<Wish> {
        let (kind, number) = text.split_once(':')?;
        let number = number.parse().ok()?;
        match kind {
            "exclusive" if number > 0 => Some(Wish::Exclusive(number)),
            "numa" => Some(Wish::Node(number)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_a_kind_and_a_number() {
        assert_eq!(Wish::parse("exclusive:2"), Some(Wish::Exclusive(2)));
        assert_eq!(Wish::parse("numa:0"), Some(Wish::Node(0)));
        for text in [
            "",
            "exclusive",
            "exclusive:",
            "exclusive:0",
            "exclusive:-1",
            "exclusive:two",
            "node:1",
            "numa:x",
        ] {
            assert_eq!(Wish::parse(text), None, "{text}");
        }
    }
}
