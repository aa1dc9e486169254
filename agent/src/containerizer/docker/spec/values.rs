//! The forms of `docker run`'s values: numbers, sizes, durations, pairs.

use std::time::Duration;

/// What Go takes for a truth value.
pub(super) fn boolean(value: &str) -> Option<bool> {
    match value {
        // `--privileged=` of a client is an error, but a parameter without a value is a flag that is there.
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Bytes: `512m`, `1.5g`, `64KiB`, `1048576`; units are powers of 1024.
#[expect(clippy::cast_possible_truncation, reason = "checked to fit")]
pub(super) fn size(value: &str) -> Option<i64> {
    let value = value.trim();
    let end = value.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(value.len());
    let number: f64 = value[..end].parse().ok()?;
    let unit = value[end..].trim_start().to_ascii_lowercase();
    let power = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return None,
    };
    let bytes = number * 1024f64.powi(power);
    // 2^63 is the first that does not fit.
    (bytes.is_finite() && bytes < 9.2e18).then_some(bytes as i64)
}

/// Nanoseconds, of a duration as Go writes it: `1m30s`, `500ms`, `0`.
#[expect(clippy::cast_possible_truncation, reason = "checked to fit")]
pub(super) fn nanoseconds(value: &str) -> Option<i64> {
    if value == "0" {
        return Some(0);
    }
    let (mut rest, mut sum) = (value, 0.0);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..unit_end] {
            "ns" => Duration::from_nanos(1),
            "us" | "µs" => Duration::from_micros(1),
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            _ => return None,
        };
        sum += number * unit.as_secs_f64() * 1e9;
        rest = &rest[unit_end..];
    }
    (sum.is_finite() && sum < 9.2e18).then_some(sum as i64)
}

/// `NAME=VALUE`.
pub(super) fn pair(value: &str) -> Option<(&str, &str)> {
    value.split_once('=').filter(|(name, _)| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_read_as_docker_does() {
        for (text, bytes) in [
            ("1", 1),
            ("32b", 32),
            ("4k", 4096),
            ("512m", 512 << 20),
            ("1.5g", 3 << 29),
            ("64 MiB", 64 << 20),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "m", "1x", "-1", "1e3", "9999999p", "1.2.3"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn durations_are_read_as_go_does() {
        for (text, ns) in [("0", 0), ("1s", 1_000_000_000), ("1m30s", 90_000_000_000), ("1.5ms", 1_500_000)] {
            assert_eq!(nanoseconds(text), Some(ns), "{text}");
        }
        for text in ["", "5", "s", "1d", "1s2"] {
            assert_eq!(nanoseconds(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC{0,20}") {
            let _ = (size(&text), nanoseconds(&text), boolean(&text), pair(&text));
        }
    }
}
