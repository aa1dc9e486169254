//! Takes what one instance needs out of an offer.

use tepui_api::v1;

/// Amounts have three decimals, as in Mesos; counting in thousandths keeps 0.1 + 0.2 exact.
#[expect(
    clippy::cast_possible_truncation,
    reason = "offers are far below 2^63 thousandths; `as` saturates beyond"
)]
fn thousandths(value: f64) -> i64 {
    (value * 1000.0).round() as i64
}

#[expect(clippy::cast_precision_loss, reason = "back to the double it came from")]
fn amount(thousandths: i64) -> f64 {
    thousandths as f64 / 1000.0
}

/// Takes the wanted amounts from what is free, whichever reservations it takes; `None`, and nothing
/// taken, when they are not there.
pub fn take(free: &mut [v1::Resource], wanted: &[(&str, f64)]) -> Option<Vec<v1::Resource>> {
    let mut left = free.to_vec();
    let mut taken = Vec::new();
    for (name, amount_wanted) in wanted {
        let mut missing = thousandths(*amount_wanted);
        for resource in left.iter_mut().filter(|r| r.name == *name && is_plain(r)) {
            let Some(scalar) = &mut resource.scalar else { continue };
            let here = thousandths(scalar.value);
            let part = here.min(missing);
            if part <= 0 {
                continue;
            }
            missing -= part;
            scalar.value = amount(here - part);
            taken.push(v1::Resource {
                scalar: Some(v1::value::Scalar { value: amount(part) }),
                ..resource.clone()
            });
        }
        if missing > 0 {
            return None;
        }
    }
    free.clone_from_slice(&left);
    Some(taken)
}

/// Not revocable, and no volume or disk of its own.
fn is_plain(resource: &v1::Resource) -> bool {
    resource.revocable.is_none() && resource.disk.is_none() && resource.shared.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalar(name: &str, value: f64) -> v1::Resource {
        v1::Resource {
            name: name.to_owned(),
            scalar: Some(v1::value::Scalar { value }),
            ..Default::default()
        }
    }

    #[test]
    fn takes_until_nothing_is_left() {
        let mut free = vec![scalar("cpus", 0.25), scalar("cpus", 0.1), scalar("mem", 64.0)];
        let taken = take(&mut free, &[("cpus", 0.3), ("mem", 32.0)]).unwrap();
        assert_eq!(taken, [scalar("cpus", 0.25), scalar("cpus", 0.05), scalar("mem", 32.0)]);
        let before = free.clone();
        assert_eq!(take(&mut free, &[("mem", 32.0), ("cpus", 0.051)]), None);
        assert_eq!(free, before);
        assert!(take(&mut free, &[("cpus", 0.05)]).is_some());
    }
}
