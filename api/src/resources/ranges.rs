//! Sets of whole numbers as ranges, such as `ports`.

use std::fmt;
use std::sync::Arc;

/// The numbers from `begin` to `end`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    begin: u64,
    end: u64,
}

/// Any set of numbers, as few ranges: in order, neither overlapping nor adjacent.
///
/// Cheap to clone.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Ranges(Arc<[Range]>);

// === impl Range ===

impl Range {
    /// The numbers from `begin` to `end`, both included; `None` when `begin > end`.
    #[must_use]
    pub const fn new(begin: u64, end: u64) -> Option<Range> {
        if begin <= end { Some(Range { begin, end }) } else { None }
    }

    /// The lowest number.
    #[must_use]
    pub const fn begin(self) -> u64 {
        self.begin
    }

    /// The highest number.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.end
    }

    /// Whether the number is among these.
    #[must_use]
    pub const fn contains(self, number: u64) -> bool {
        self.begin <= number && number <= self.end
    }

    /// Whether a number is in both.
    #[must_use]
    pub const fn overlaps(self, other: Range) -> bool {
        self.begin <= other.end && other.begin <= self.end
    }
}

// === impl Ranges ===

impl Ranges {
    /// Those with numbers in them, in order.
    #[must_use]
    pub fn as_slice(&self) -> &[Range] {
        &self.0
    }

    /// Every number, in order.
    pub fn numbers(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().flat_map(|range| range.begin..=range.end)
    }

    /// Whether there are no numbers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many numbers there are: up to 2^64.
    #[must_use]
    pub fn count(&self) -> u128 {
        self.0.iter().map(|range| u128::from(range.end - range.begin) + 1).sum()
    }

    /// Whether the number is among these.
    #[must_use]
    pub fn has(&self, number: u64) -> bool {
        self.holding(number).is_some()
    }

    /// Whether every number of `other` is among these.
    #[must_use]
    pub fn contains(&self, other: &Ranges) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || other.0.iter().all(|o| self.holding(o.begin).is_some_and(|range| o.end <= range.end))
    }

    /// The range with this number in it.
    fn holding(&self, number: u64) -> Option<Range> {
        let at = self.0.partition_point(|range| range.end < number);
        self.0.get(at).copied().filter(|range| range.begin <= number)
    }

    /// The numbers in either.
    #[must_use]
    pub fn union(&self, other: &Ranges) -> Ranges {
        if other.is_empty() {
            return self.clone();
        }
        if self.is_empty() {
            return other.clone();
        }
        self.0.iter().chain(other.0.iter()).copied().collect()
    }

    /// The numbers here and not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Ranges) -> Ranges {
        if self.is_empty() || other.is_empty() {
            return self.clone();
        }
        let mut left = Vec::with_capacity(self.0.len());
        let mut taken = other.0.iter().peekable();
        for range in self.0.iter() {
            while taken.next_if(|t| t.end < range.begin).is_some() {}
            let mut begin = Some(range.begin);
            // The last one taken may reach into the next range too, so it is not consumed.
            while let (Some(from), Some(t)) = (begin, taken.peek().copied().filter(|t| t.begin <= range.end))
            {
                if from < t.begin {
                    // t.begin > from >= 0, so there is a number before it.
                    left.push(Range { begin: from, end: t.begin - 1 });
                }
                begin = (t.end < range.end).then(|| t.end + 1);
                if begin.is_some() {
                    taken.next();
                }
            }
            if let Some(from) = begin {
                left.push(Range { begin: from, end: range.end });
            }
        }
        Ranges(left.into())
    }
}

/// In any order, overlapping or not.
impl FromIterator<Range> for Ranges {
    fn from_iter<I: IntoIterator<Item = Range>>(ranges: I) -> Self {
        let mut all: Vec<Range> = ranges.into_iter().collect();
        all.sort_unstable();
        // `dedup_by` drops its first argument, the later one, once the earlier has taken it up.
        all.dedup_by(|later, kept| {
            let touches = later.begin <= kept.end.saturating_add(1);
            if touches {
                kept.end = kept.end.max(later.end);
            }
            touches
        });
        Ranges(all.into())
    }
}

impl From<Range> for Ranges {
    fn from(range: Range) -> Self {
        Ranges(Arc::new([range]))
    }
}

/// `[31000-32000, 4000-5000]`
impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("[")?;
        for (n, range) in self.0.iter().enumerate() {
            let separator = if n == 0 { "" } else { ", " };
            write!(f, "{separator}{}-{}", range.begin, range.end)?;
        }
        f.write_str("]")
    }
}

impl fmt::Debug for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn ranges(of: &[(u64, u64)]) -> Ranges {
        of.iter().filter_map(|(begin, end)| Range::new(*begin, *end)).collect()
    }

    #[test]
    fn the_highest_number_does_not_overflow() {
        let all = ranges(&[(0, u64::MAX)]);
        assert_eq!(all.count(), 1 << 64);
        assert_eq!(all.union(&ranges(&[(u64::MAX, u64::MAX)])), all);
        assert_eq!(all.difference(&ranges(&[(u64::MAX, u64::MAX)])), ranges(&[(0, u64::MAX - 1)]));
        assert_eq!(all.difference(&ranges(&[(0, 0)])), ranges(&[(1, u64::MAX)]));
        assert!(all.difference(&all).is_empty());
        assert_eq!(ranges(&[(5, u64::MAX), (0, 4)]), all);
    }

    #[test]
    fn adjacent_ranges_become_one() {
        assert_eq!(ranges(&[(3, 4), (1, 2), (6, 9), (7, 8)]).to_string(), "[1-4, 6-9]");
        assert_eq!(Range::new(2, 1), None);
    }

    /// Ranges near one end of the numbers, and the same as a plain set.
    fn some() -> impl Strategy<Value = (Ranges, BTreeSet<u64>)> {
        let one = (0u64..40, 0u64..8, any::<bool>());
        proptest::collection::vec(one, 0..8).prop_map(|list| {
            let list: Vec<Range> = list
                .into_iter()
                .filter_map(|(begin, more, high)| {
                    let begin = if high { u64::MAX - 39 + begin } else { begin };
                    Range::new(begin, begin.saturating_add(more))
                })
                .collect();
            let set = list.iter().flat_map(|r| r.begin..=r.end).collect();
            (list.into_iter().collect(), set)
        })
    }

    proptest! {
        #[test]
        fn it_behaves_as_a_set_of_numbers((a, a_set) in some(), (b, b_set) in some()) {
            let numbers = |r: &Ranges| r.numbers().collect::<BTreeSet<u64>>();
            prop_assert_eq!(numbers(&a), a_set.clone());
            prop_assert_eq!(a.count(), a_set.len() as u128);
            prop_assert_eq!(numbers(&a.union(&b)), &a_set | &b_set);
            prop_assert_eq!(numbers(&a.difference(&b)), &a_set - &b_set);
            prop_assert_eq!(a.contains(&b), a_set.is_superset(&b_set));
            prop_assert_eq!(a == b, a_set == b_set);
            for n in (0..50).chain(u64::MAX - 50..=u64::MAX) {
                prop_assert_eq!(a.has(n), a_set.contains(&n));
            }
            for result in [a.union(&b), a.difference(&b)] {
                for pair in result.as_slice().windows(2) {
                    prop_assert!(pair[0].end < u64::MAX && pair[0].end + 1 < pair[1].begin);
                }
            }
        }
    }
}
