//! Lists of CPUs and memory nodes as the kernel writes them: `0-3,8` (`cpuset(7)`, "List format").

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// The highest number that is taken; no kernel has more CPUs.
const HIGHEST: u32 = 65_535;

/// A set of numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CpuList(BTreeSet<u32>);

impl CpuList {
    /// Those that `other` has not.
    pub fn beyond(&self, other: &CpuList) -> CpuList {
        CpuList(&self.0 - &other.0)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().copied()
    }
}

/// An empty text is the empty list. The error says what is wrong.
impl FromStr for CpuList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |word: &str| {
            let number = word.trim().parse::<u32>().ok().filter(|number| *number <= HIGHEST);
            number.ok_or_else(|| format!("'{word}' is not a number up to {HIGHEST}"))
        };
        let mut found = BTreeSet::new();
        if text.trim().is_empty() {
            return Ok(CpuList(found));
        }
        for part in text.trim().split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(format!("'{part}' begins after its end"));
            }
            found.extend(first..=last);
        }
        Ok(CpuList(found))
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let mut numbers = self.iter().peekable();
        let mut separator = "";
        while let Some(first) = numbers.next() {
            let mut last = first;
            while let Some(next) = numbers.next_if_eq(&(last + 1)) {
                last = next;
            }
            match first == last {
                true => write!(f, "{separator}{first}")?,
                false => write!(f, "{separator}{first}-{last}")?,
            }
            separator = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_are_read_and_shown() {
        for (text, shown) in [("0", "0"), ("0-3,8", "0-3,8"), ("3,1,2,1\n", "1-3"), ("", ""), ("0, 2", "0,2")]
        {
            assert_eq!(text.parse::<CpuList>().unwrap().to_string(), shown);
        }
        for text in ["a", "1-", "3-1", "-1", "1,,2", "0-4000000000", "70000"] {
            assert!(text.parse::<CpuList>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read(numbers in proptest::collection::btree_set(0u32..200, 0..40)) {
            let list = CpuList(numbers);
            prop_assert_eq!(list.to_string().parse::<CpuList>().unwrap(), list);
        }

        #[test]
        fn no_text_is_too_strange(text in "[0-9,\\- x]{0,20}") {
            let _ = text.parse::<CpuList>();
        }
    }
}
