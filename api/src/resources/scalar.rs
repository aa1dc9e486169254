//! Amounts of `cpus`, `mem` and the like, exact to three decimals.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::str::FromStr;

/// The largest amount that is taken from the wire: 2^50 thousandths, above 10^12.
///
/// Up to here a `double` holds every thousandth apart (2^53 would do but for the two roundings on
/// the way out and in), and 8,000 of them can be added before an `i64` is full. Sums saturate there.
const LARGEST: i64 = 1 << 50;

/// An amount in thousandths: `Scalar` 1500 is 1.5 CPUs, or 1.5 MB of `mem` and `disk`.
///
/// The wire has doubles. Like Mesos, arithmetic is on thousandths, rounded half away from zero, so
/// that 0.1 + 0.2 - 0.3 is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scalar(i64);

/// The text is not an amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an amount: it should be a number such as 4 or 0.5")]
pub struct ScalarError(String);

// === impl Scalar ===

impl Scalar {
    /// Nothing.
    pub const ZERO: Scalar = Scalar(0);
    /// Larger than any amount from the wire.
    pub const MAX: Scalar = Scalar(i64::MAX);

    /// From thousandths.
    #[must_use]
    pub const fn from_thousandths(thousandths: i64) -> Self {
        Scalar(thousandths)
    }

    /// From whole units.
    #[must_use]
    pub const fn from_units(units: u32) -> Self {
        Scalar(units as i64 * 1000)
    }

    /// From a double of the wire; `None` when it is not finite, or too large to be told from its
    /// neighbours by thousandths.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "checked to be within ±2^50")]
    #[expect(clippy::cast_precision_loss, reason = "2^50 is exact")]
    pub fn from_f64(value: f64) -> Option<Self> {
        let thousandths = (value * 1000.0).round();
        (thousandths.abs() <= LARGEST as f64).then_some(Scalar(thousandths as i64))
    }

    /// In thousandths.
    #[must_use]
    pub const fn thousandths(self) -> i64 {
        self.0
    }

    /// As the wire has it. Whole units and the rest are converted apart, as in Mesos, so that every
    /// amount has one double.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "only sums above 2^53 units lose, which no cluster has")]
    pub fn as_f64(self) -> f64 {
        (self.0 / 1000) as f64 + (self.0 % 1000) as f64 / 1000.0
    }

    /// Whole units, the rest cut off; negative amounts give 0.
    #[must_use]
    pub fn units(self) -> u64 {
        u64::try_from(self.0 / 1000).unwrap_or(0)
    }

    /// Whether this is nothing.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Whether this is a whole number of units, as `gpus` must be.
    #[must_use]
    pub const fn is_whole(self) -> bool {
        self.0 % 1000 == 0
    }

    /// The difference, or nothing when `other` is larger.
    #[must_use]
    pub fn minus_or_zero(self, other: Scalar) -> Scalar {
        Scalar(self.0.saturating_sub(other.0).max(0))
    }
}

impl Add for Scalar {
    type Output = Scalar;
    fn add(self, other: Scalar) -> Scalar {
        Scalar(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Scalar {
    fn add_assign(&mut self, other: Scalar) {
        *self = *self + other;
    }
}

/// May be negative.
impl Sub for Scalar {
    type Output = Scalar;
    fn sub(self, other: Scalar) -> Scalar {
        Scalar(self.0.saturating_sub(other.0))
    }
}

impl SubAssign for Scalar {
    fn sub_assign(&mut self, other: Scalar) {
        *self = *self - other;
    }
}

impl Sum for Scalar {
    fn sum<I: Iterator<Item = Scalar>>(amounts: I) -> Scalar {
        amounts.fold(Scalar::ZERO, Add::add)
    }
}

/// `4`, `0.5`, `-1.25`.
impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let magnitude = self.0.unsigned_abs();
        let (units, rest) = (magnitude / 1000, magnitude % 1000);
        if self.0 < 0 {
            f.write_str("-")?;
        }
        write!(f, "{units}")?;
        match rest {
            0 => Ok(()),
            _ if rest % 100 == 0 => write!(f, ".{}", rest / 100),
            _ if rest % 10 == 0 => write!(f, ".{:02}", rest / 10),
            _ => write!(f, ".{rest:03}"),
        }
    }
}

impl FromStr for Scalar {
    type Err = ScalarError;
    fn from_str(text: &str) -> Result<Self, ScalarError> {
        number(text).and_then(Scalar::from_f64).ok_or_else(|| ScalarError(text.to_owned()))
    }
}

/// A decimal number; Rust's own parser would also take "inf" and "nan".
pub(super) fn number(text: &str) -> Option<f64> {
    let numeric = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    text.parse().ok().filter(|v: &f64| numeric && v.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn thousandths_are_rounded_half_away_from_zero() {
        let of = |v: f64| Scalar::from_f64(v).map(Scalar::thousandths);
        assert_eq!(of(1.5123), Some(1512));
        assert_eq!(of(0.0005), Some(1));
        assert_eq!(of(0.0004), Some(0));
        assert_eq!(of(-0.0005), Some(-1));
        assert_eq!(of(0.1 + 0.2), Some(300));
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e16, -1e300] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_text_is_short() {
        for (thousandths, text) in
            [(4000, "4"), (500, "0.5"), (1250, "1.25"), (1001, "1.001"), (-50, "-0.05")]
        {
            assert_eq!(Scalar::from_thousandths(thousandths).to_string(), text);
        }
        for bad in ["", "x", "inf", "nan", "1e300", "0x10", "1 2"] {
            assert!(bad.parse::<Scalar>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn doubles_and_text_give_the_amount_back(thousandths in -LARGEST..=LARGEST) {
            let amount = Scalar::from_thousandths(thousandths);
            prop_assert_eq!(Scalar::from_f64(amount.as_f64()), Some(amount));
            prop_assert_eq!(amount.to_string().parse::<Scalar>(), Ok(amount));
        }

        #[test]
        fn sums_of_many_small_doubles_are_exact(parts in proptest::collection::vec(0i64..100_000, 0..200)) {
            let total: Scalar = parts.iter().filter_map(|p| {
                #[allow(clippy::cast_precision_loss)]
                Scalar::from_f64(*p as f64 / 1000.0)
            }).sum();
            prop_assert_eq!(total.thousandths(), parts.iter().sum::<i64>());
        }
    }
}
