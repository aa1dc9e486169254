//! Durations and amounts of bytes in the text form of Mesos' flags: `10secs`, `1.5hrs`, `15GB`.
//!
//! [`Duration`] and [`Bytes`] read that form with [`FromStr`] and write it with [`Display`], in the
//! largest unit that shows the value without loss, as `/flags` of Mesos does.

use std::fmt::{self, Display};
use std::str::FromStr;

/// A span of time, as a flag has it. Never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Duration(pub std::time::Duration);

/// An amount of memory or disk, as a flag has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Bytes(
    /// Single bytes.
    pub u64,
);

/// Why a text is no such value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a number and a unit of time.
    #[error(
        "'{0}' is no duration: write a number and one of ns, us, ms, secs, mins, hrs, days, weeks, as in 10secs"
    )]
    Duration(String),
    /// More than 64 bits of nanoseconds.
    #[error("the duration '{0}' is too long: at most 15250 weeks fit")]
    TooLong(String),
    /// Not a whole number and a unit of bytes.
    #[error("'{0}' is no amount of bytes: write a whole number and one of B, KB, MB, GB, TB, as in 512MB")]
    Bytes(String),
    /// More than 64 bits of bytes.
    #[error("'{0}' is more than 2^64 bytes")]
    TooMuch(String),
}

/// Nanoseconds in each unit, the smallest unit first.
const TIMES: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("secs", 1_000_000_000),
    ("mins", 60 * 1_000_000_000),
    ("hrs", 3600 * 1_000_000_000),
    ("days", 24 * 3600 * 1_000_000_000),
    ("weeks", 7 * 24 * 3600 * 1_000_000_000),
];

/// Bytes in each unit, the smallest unit first.
const SIZES: [(&str, u64); 5] =
    [("B", 1), ("KB", 1 << 10), ("MB", 1 << 20), ("GB", 1 << 30), ("TB", 1 << 40)];

// === impl Duration ===

impl Duration {
    /// Whole seconds.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(std::time::Duration::from_secs(seconds))
    }
}

impl From<Duration> for std::time::Duration {
    fn from(value: Duration) -> Self {
        value.0
    }
}

impl From<std::time::Duration> for Duration {
    fn from(value: std::time::Duration) -> Self {
        Self(value)
    }
}

impl FromStr for Duration {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = || UnitError::Duration(text.to_owned());
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, unit) = text.split_at(digits);
        let (_, factor) = TIMES.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let nanoseconds = match number.parse::<u64>() {
            Ok(whole) => whole.checked_mul(*factor),
            #[expect(clippy::cast_precision_loss, reason = "a factor has at most 50 bits")]
            Err(_) => {
                let value = number.parse::<f64>().map_err(|_| wrong())?;
                to_u64((value * *factor as f64).round())
            }
        };
        let fits = nanoseconds.filter(|n| i64::try_from(*n).is_ok());
        let nanoseconds = fits.ok_or_else(|| UnitError::TooLong(text.to_owned()))?;
        Ok(Self(std::time::Duration::from_nanos(nanoseconds)))
    }
}

/// In the largest unit not above the value, or the next smaller one where only that shows it whole.
impl Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let nanoseconds = self.0.as_nanos();
        let at = TIMES.iter().rposition(|(_, factor)| nanoseconds >= u128::from(*factor)).unwrap_or(0);
        let below = at.saturating_sub(1);
        let is_whole = |at: usize| nanoseconds.is_multiple_of(u128::from(TIMES[at].1));
        let (unit, factor) = TIMES[if !is_whole(at) && is_whole(below) { below } else { at }];
        let factor = u128::from(factor);
        if nanoseconds.is_multiple_of(factor) {
            return write!(f, "{}{unit}", nanoseconds / factor);
        }
        #[expect(clippy::cast_precision_loss, reason = "Mesos prints 15 digits of a double as well")]
        let value = nanoseconds as f64 / factor as f64;
        write!(f, "{}{unit}", digits15(value))
    }
}

// === impl Bytes ===

impl FromStr for Bytes {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = || UnitError::Bytes(text.to_owned());
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, unit) = text.split_at(digits);
        let (_, factor) = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(wrong)?;
        if number.is_empty() {
            return Err(wrong());
        }
        let value = number.parse::<u64>().ok().and_then(|n| n.checked_mul(*factor));
        value.map(Self).ok_or_else(|| UnitError::TooMuch(text.to_owned()))
    }
}

/// In the largest unit that shows it whole.
impl Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let whole =
            SIZES.iter().rev().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor));
        match whole {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// At most 15 significant digits and no trailing zeros. The value is between 1 and 10,000.
fn digits15(value: f64) -> String {
    let before = value.trunc().to_string().len();
    let text = format!("{value:.*}", 15usize.saturating_sub(before));
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn to_u64(value: f64) -> Option<u64> {
    const LIMIT: f64 = 9_223_372_036_854_775_807.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it was compared with both limits"
    )]
    (0.0..LIMIT).contains(&value).then_some(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read_and_shown_as_mesos_does() {
        for (text, seconds, shown) in [
            ("10secs", 10.0, "10secs"),
            ("1.5hrs", 5400.0, "90mins"),
            ("1weeks", 604_800.0, "1weeks"),
            ("2weeks", 1_209_600.0, "2weeks"),
            ("10days", 864_000.0, "10days"),
            ("90secs", 90.0, "90secs"),
            ("60secs", 60.0, "1mins"),
            ("1500ms", 1.5, "1500ms"),
            (".5secs", 0.5, "500ms"),
            ("0ns", 0.0, "0ns"),
            ("15mins", 900.0, "15mins"),
        ] {
            let read: Duration = text.parse().unwrap();
            assert_eq!(read.0.as_secs_f64(), seconds, "{text}");
            assert_eq!(read.to_string(), shown, "{text}");
        }
        assert_eq!(Duration(std::time::Duration::from_nanos(1_000_500_001)).to_string(), "1.000500001secs");
    }

    #[test]
    fn what_is_no_duration_says_what_would_be() {
        for text in ["", "10", "secs", "10 secs", "10sec", "-1secs", "1.2.3secs", "1h", "."] {
            assert!(matches!(text.parse::<Duration>(), Err(UnitError::Duration(_))), "{text}");
        }
        assert_eq!("99999weeks".parse::<Duration>(), Err(UnitError::TooLong("99999weeks".to_owned())));
        assert!("99999999999999999999999secs".parse::<Duration>().is_err());
    }

    #[test]
    fn bytes_are_read_and_shown_as_mesos_does() {
        for (text, bytes, shown) in [
            ("15GB", 15 << 30, "15GB"),
            ("1024MB", 1 << 30, "1GB"),
            ("4096B", 4096, "4KB"),
            ("0B", 0, "0B"),
            ("1500kb", 1500 << 10, "1500KB"),
            ("7B", 7, "7B"),
            ("2TB", 2 << 40, "2TB"),
        ] {
            let read: Bytes = text.parse().unwrap();
            assert_eq!(read, Bytes(bytes), "{text}");
            assert_eq!(read.to_string(), shown, "{text}");
        }
        for text in ["", "10", "MB", "1.5GB", "10 MB", "-1B", "1PB"] {
            assert!(matches!(text.parse::<Bytes>(), Err(UnitError::Bytes(_))), "{text}");
        }
        assert!(matches!("18014398509481984KB".parse::<Bytes>(), Err(UnitError::TooMuch(_))));
    }

    proptest! {
        #[test]
        fn bytes_come_back(bytes in any::<u64>()) {
            prop_assert_eq!(Bytes(bytes).to_string().parse::<Bytes>(), Ok(Bytes(bytes)));
        }

        #[test]
        fn whole_units_of_time_come_back(number in 0u64..10_000, unit in 0usize..8) {
            let value = std::time::Duration::from_nanos(number * TIMES[unit].1);
            let read: Duration = Duration(value).to_string().parse().unwrap();
            // Fifteen digits of a year are some nanoseconds.
            prop_assert!(read.0.abs_diff(value) < std::time::Duration::from_nanos(100), "{value:?} {read:?}");
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,12}") {
            let _ = text.parse::<Duration>();
            let _ = text.parse::<Bytes>();
        }
    }
}
