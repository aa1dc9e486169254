//! How much of every name, and nothing else: what an allocator sums and compares.

use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};

use super::text::{TextError, pairs, plain_scalar};
use super::{ResourceName, Scalar};

/// Names with a place of their own.
const KNOWN: usize = ResourceName::KNOWN.len();

/// An amount for every name; a name that is not there has 0. No amount is below zero.
///
/// Adding and comparing touch no heap as long as there are only the names that every agent has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceQuantities {
    /// In the order of [`ResourceName::KNOWN`].
    known: [Scalar; KNOWN],
    /// By name; none is zero.
    other: Vec<(ResourceName, Scalar)>,
}

// === impl ResourceQuantities ===

impl ResourceQuantities {
    /// Nothing of anything.
    #[must_use]
    pub const fn new() -> Self {
        ResourceQuantities { known: [Scalar::ZERO; KNOWN], other: Vec::new() }
    }

    /// From text such as `cpus:10;mem:4096`.
    ///
    /// # Errors
    /// When a part is not `name:amount`; the error says which.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        let mut all = Self::new();
        for (name, value) in pairs(text)? {
            all.add_amount(&name.trim().into(), plain_scalar(name, value)?);
        }
        Ok(all)
    }

    /// How much of this name.
    #[must_use]
    pub fn get(&self, name: &ResourceName) -> Scalar {
        match name.place() {
            Some(place) => self.known[place],
            None => self.find(name).map_or(Scalar::ZERO, |at| self.other[at].1),
        }
    }

    /// CPUs.
    #[must_use]
    pub fn cpus(&self) -> Scalar {
        self.get(&ResourceName::Cpus)
    }

    /// Memory, in megabytes.
    #[must_use]
    pub fn mem(&self) -> Scalar {
        self.get(&ResourceName::Mem)
    }

    /// Disk, in megabytes.
    #[must_use]
    pub fn disk(&self) -> Scalar {
        self.get(&ResourceName::Disk)
    }

    /// GPUs.
    #[must_use]
    pub fn gpus(&self) -> Scalar {
        self.get(&ResourceName::Gpus)
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.other.is_empty() && self.known.iter().all(|amount| amount.is_zero())
    }

    /// Every name of which there is some, in order, with its amount.
    pub fn iter(&self) -> impl Iterator<Item = (&ResourceName, Scalar)> {
        static NAMES: [ResourceName; KNOWN] = ResourceName::KNOWN;
        let mut known = NAMES.iter().zip(self.known).filter(|(_, amount)| !amount.is_zero()).peekable();
        let mut other = self.other.iter().map(|(name, amount)| (name, *amount)).peekable();
        std::iter::from_fn(move || match (known.peek(), other.peek()) {
            (Some((a, _)), Some((b, _))) if a < b => known.next(),
            (Some(_), None) => known.next(),
            _ => other.next(),
        })
    }

    /// Adds an amount of one name; a negative one takes away down to zero.
    pub fn add_amount(&mut self, name: &ResourceName, amount: Scalar) {
        if let Some(place) = name.place() {
            let sum = &mut self.known[place];
            *sum = (*sum + amount).max(Scalar::ZERO);
            return;
        }
        let at = self.other.partition_point(|(n, _)| n < name);
        match self.other.get_mut(at).filter(|(n, _)| n == name) {
            Some((_, sum)) => {
                *sum = (*sum + amount).max(Scalar::ZERO);
                if sum.is_zero() {
                    self.other.remove(at);
                }
            }
            None if amount > Scalar::ZERO => self.other.insert(at, (name.clone(), amount)),
            None => {}
        }
    }

    /// Whether there is at least as much of every name as in `other`.
    #[must_use]
    pub fn contains(&self, other: &ResourceQuantities) -> bool {
        self.known.iter().zip(&other.known).all(|(a, b)| a >= b)
            && other.other.iter().all(|(name, amount)| self.get(name) >= *amount)
    }

    /// The larger amount of every name.
    #[must_use]
    pub fn max(&self, other: &ResourceQuantities) -> ResourceQuantities {
        self.joined(other, Scalar::max)
    }

    /// The smaller amount of every name.
    #[must_use]
    pub fn min(&self, other: &ResourceQuantities) -> ResourceQuantities {
        self.joined(other, Scalar::min)
    }

    fn joined(&self, with: &ResourceQuantities, join: impl Fn(Scalar, Scalar) -> Scalar) -> Self {
        let known = std::array::from_fn(|n| join(self.known[n], with.known[n]));
        let names = self.other.iter().chain(with.other.iter().filter(|(n, _)| self.find(n).is_none()));
        let joined = names.map(|(name, _)| (name.clone(), join(self.get(name), with.get(name))));
        let mut other: Vec<_> = joined.filter(|(_, amount)| !amount.is_zero()).collect();
        other.sort_unstable();
        ResourceQuantities { known, other }
    }

    fn find(&self, name: &ResourceName) -> Option<usize> {
        self.other.binary_search_by(|(n, _)| n.cmp(name)).ok()
    }
}

impl AddAssign<&ResourceQuantities> for ResourceQuantities {
    fn add_assign(&mut self, other: &ResourceQuantities) {
        for (a, b) in self.known.iter_mut().zip(other.known) {
            *a += b;
        }
        for (name, amount) in &other.other {
            self.add_amount(name, *amount);
        }
    }
}

/// Down to zero, not below.
impl SubAssign<&ResourceQuantities> for ResourceQuantities {
    fn sub_assign(&mut self, other: &ResourceQuantities) {
        for (a, b) in self.known.iter_mut().zip(other.known) {
            *a = a.minus_or_zero(b);
        }
        for (name, amount) in &other.other {
            self.add_amount(name, Scalar::ZERO - *amount);
        }
    }
}

impl Add<&ResourceQuantities> for ResourceQuantities {
    type Output = ResourceQuantities;
    fn add(mut self, other: &ResourceQuantities) -> ResourceQuantities {
        self += other;
        self
    }
}

/// Down to zero, not below.
impl Sub<&ResourceQuantities> for ResourceQuantities {
    type Output = ResourceQuantities;
    fn sub(mut self, other: &ResourceQuantities) -> ResourceQuantities {
        self -= other;
        self
    }
}

impl<'a> FromIterator<(&'a str, Scalar)> for ResourceQuantities {
    fn from_iter<I: IntoIterator<Item = (&'a str, Scalar)>>(amounts: I) -> Self {
        let mut all = Self::new();
        for (name, amount) in amounts {
            all.add_amount(&name.into(), amount);
        }
        all
    }
}

/// `cpus:4; mem:1024`
impl fmt::Display for ResourceQuantities {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("{}");
        }
        for (n, (name, amount)) in self.iter().enumerate() {
            let separator = if n == 0 { "" } else { "; " };
            write!(f, "{separator}{name}:{amount}")?;
        }
        Ok(())
    }
}
