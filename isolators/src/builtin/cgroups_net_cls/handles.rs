//! Handles of 32 bits, given out once each: a primary one above, a secondary one below.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// `--cgroups_net_cls_primary_handle`: 16 bits, not 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrimaryHandle(u16);

/// `--cgroups_net_cls_secondary_handles`: from the first to the last, neither of them 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandleRange {
    first: u16,
    last: u16,
}

/// A handle, or a range of them, is none; or there is none left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    /// Not of 16 bits.
    #[error("'{0}' is not a handle of 16 bits other than 0, such as 0x0012")]
    Handle(String),
    /// Not a range.
    #[error("'{0}' is not a range of handles, such as 0x0001,0xffff")]
    Range(String),
    /// All are in use.
    #[error(
        "all {count} secondary handles of the primary handle {primary} are in use: wait, or widen --cgroups_net_cls_secondary_handles"
    )]
    None {
        /// The primary one.
        primary: PrimaryHandle,
        /// How many there are.
        count: usize,
    },
}

/// Who has which.
#[derive(Debug)]
pub(super) struct Handles {
    primary: PrimaryHandle,
    range: HandleRange,
    used: BTreeSet<u16>,
}

fn handle(text: &str) -> Result<u16, HandleError> {
    let text = text.trim();
    let number = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u16::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+')),
        None => text.parse().ok(),
    };
    number.filter(|number| *number > 0).ok_or_else(|| HandleError::Handle(text.to_owned()))
}

impl FromStr for PrimaryHandle {
    type Err = HandleError;

    fn from_str(text: &str) -> Result<Self, HandleError> {
        handle(text).map(PrimaryHandle)
    }
}

impl fmt::Display for PrimaryHandle {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:#06x}", self.0)
    }
}

impl FromStr for HandleRange {
    type Err = HandleError;

    fn from_str(text: &str) -> Result<Self, HandleError> {
        let wrong = || HandleError::Range(text.to_owned());
        let (first, last) = text.split_once(',').ok_or_else(wrong)?;
        let (first, last) = (handle(first)?, handle(last)?);
        if first <= last { Ok(HandleRange { first, last }) } else { Err(wrong()) }
    }
}

impl fmt::Display for HandleRange {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:#06x},{:#06x}", self.first, self.last)
    }
}

/// All.
impl Default for HandleRange {
    fn default() -> Self {
        HandleRange { first: 1, last: u16::MAX }
    }
}

// === impl Handles ===

impl Handles {
    pub fn new(primary: PrimaryHandle, range: HandleRange) -> Self {
        Handles { primary, range, used: BTreeSet::new() }
    }

    /// The lowest that nobody has.
    pub fn allot(&mut self) -> Result<u32, HandleError> {
        let HandleRange { first, last } = self.range;
        // Those in use ascend, so the first that is not where it should be leaves a gap before it.
        let in_use = self.used.range(first..=last).copied();
        let dense = in_use.zip(first..=last).take_while(|(used, expected)| used == expected).count();
        let free = (first..=last).nth(dense);
        let Some(secondary) = free else {
            let count = usize::from(last - first) + 1;
            return Err(HandleError::None { primary: self.primary, count });
        };
        self.used.insert(secondary);
        Ok(u32::from(self.primary.0) << 16 | u32::from(secondary))
    }

    /// Notes that somebody has one. `false` if it is not one of these, or taken.
    pub fn reserve(&mut self, handle: u32) -> bool {
        self.secondary(handle).is_some_and(|secondary| self.used.insert(secondary))
    }

    /// Nobody has it any more.
    pub fn free(&mut self, handle: u32) {
        if let Some(secondary) = self.secondary(handle) {
            self.used.remove(&secondary);
        }
    }

    fn secondary(&self, handle: u32) -> Option<u16> {
        let secondary = (handle & 0xffff) as u16;
        let ours = handle >> 16 == u32::from(self.primary.0);
        (ours && (self.range.first..=self.range.last).contains(&secondary)).then_some(secondary)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn flags_are_read_and_shown() {
        assert_eq!("0x12".parse::<PrimaryHandle>().unwrap().to_string(), "0x0012");
        assert_eq!("18".parse::<PrimaryHandle>().unwrap().to_string(), "0x0012");
        assert_eq!("0x0001, 0xFFff".parse::<HandleRange>().unwrap(), HandleRange::default());
        for text in ["0", "0x0", "0x10000", "", "x", "0x", "-1", "0x+1"] {
            assert!(text.parse::<PrimaryHandle>().is_err(), "{text}");
        }
        for text in ["1", "2,1", "0,5", "1,2,3", "1-2"] {
            assert!(text.parse::<HandleRange>().is_err(), "{text}");
        }
    }

    #[test]
    fn when_all_are_given_it_says_so() {
        let mut handles = Handles::new("0x10".parse().unwrap(), "2,3".parse().unwrap());
        assert!(handles.reserve(0x10_0002));
        assert!(!handles.reserve(0x10_0002), "somebody has it");
        assert!(!handles.reserve(0x11_0003) && !handles.reserve(0x10_0004), "not of ours");
        assert_eq!(handles.allot().unwrap(), 0x10_0003);
        let error = handles.allot().unwrap_err().to_string();
        assert!(error.contains("all 2 secondary handles of the primary handle 0x0010"), "{error}");
        handles.free(0x10_0002);
        handles.free(0x11_0003);
        assert_eq!(handles.allot().unwrap(), 0x10_0002);
    }

    proptest! {
        #[test]
        fn none_is_given_twice(steps in proptest::collection::vec(proptest::option::of(0usize..8), 1..60)) {
            let mut handles = Handles::new(PrimaryHandle(1), HandleRange { first: 5, last: 12 });
            let mut held: Vec<u32> = Vec::new();
            for step in steps {
                match step {
                    Some(at) if at < held.len() => handles.free(held.swap_remove(at)),
                    _ => match handles.allot() {
                        Ok(handle) => {
                            prop_assert!(!held.contains(&handle));
                            prop_assert!((0x1_0005..=0x1_000c).contains(&handle));
                            held.push(handle);
                        }
                        Err(_) => prop_assert_eq!(held.len(), 8),
                    },
                }
            }
        }
    }
}
