//! Resources that are sets of names.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// Items that each exist once, such as the names of devices. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Set(Arc<BTreeSet<String>>);

// === impl Set ===

impl Set {
    /// The items, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every item of `other` is here.
    #[must_use]
    pub fn contains(&self, other: &Set) -> bool {
        self.0.is_superset(&other.0)
    }

    /// The items of either.
    #[must_use]
    pub fn union(&self, other: &Set) -> Set {
        Set(Arc::new(&*self.0 | &*other.0))
    }

    /// The items here and not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Set) -> Set {
        Set(Arc::new(&*self.0 - &*other.0))
    }
}

impl<T: Into<String>> FromIterator<T> for Set {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Set(Arc::new(items.into_iter().map(Into::into).collect()))
    }
}

/// `{a, b}`
impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("{")?;
        for (n, item) in self.iter().enumerate() {
            let separator = if n == 0 { "" } else { ", " };
            write!(f, "{separator}{item}")?;
        }
        f.write_str("}")
    }
}
