//! How durations and sizes are written.

use std::time::Duration;

const SIZES: [(&str, usize); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// Reads `500ms`, `30s`, `5m`, `2h` and `0`.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3_600).map(Duration::from_secs),
        "" if number == 0 => Some(Duration::ZERO),
        _ => None,
    }
}

/// Writes a duration so that [`parse_duration`] reads the same, to the millisecond.
pub(super) fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        0 => "0".to_owned(),
        _ if millis.is_multiple_of(3_600_000) => format!("{}h", millis / 3_600_000),
        _ if millis.is_multiple_of(60_000) && millis > 60_000 => format!("{}m", millis / 60_000),
        _ if millis.is_multiple_of(1_000) => format!("{}s", millis / 1_000),
        _ => format!("{millis}ms"),
    }
}

/// Reads `4096`, `256KiB`, `1MiB` and `2GiB`.
pub(super) fn parse_bytes(text: &str) -> Option<usize> {
    for (unit, factor) in SIZES {
        if let Some(number) = text.strip_suffix(unit) {
            return number.parse::<usize>().ok()?.checked_mul(factor);
        }
    }
    text.parse().ok()
}

/// Writes a size so that [`parse_bytes`] reads the same.
pub(super) fn show_bytes(bytes: usize) -> String {
    for (unit, factor) in SIZES {
        if bytes != 0 && bytes.is_multiple_of(factor) {
            return format!("{}{unit}", bytes / factor);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_unit() {
        for (text, expected) in [
            ("0", Some(0)),
            ("500ms", Some(500)),
            ("30s", Some(30_000)),
            ("5m", Some(300_000)),
            ("2h", Some(7_200_000)),
            ("30", None),
            ("s", None),
            ("", None),
            ("-1s", None),
            ("1.5s", None),
            ("1 s", None),
            ("5M", None),
            ("99999999999999999999s", None),
            ("18446744073709551615m", None),
        ] {
            assert_eq!(
                parse_duration(text),
                expected.map(Duration::from_millis),
                "{text:?}"
            );
        }
    }

    #[test]
    fn sizes_are_read_with_their_unit() {
        for (text, expected) in [
            ("0", Some(0)),
            ("4096", Some(4096)),
            ("256KiB", Some(262_144)),
            ("1MiB", Some(1_048_576)),
            ("2GiB", Some(2_147_483_648)),
            ("256KB", None),
            ("256kib", None),
            ("KiB", None),
            ("-1", None),
            ("99999999999999999GiB", None),
        ] {
            assert_eq!(parse_bytes(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for millis in [0, 1, 999, 1_000, 60_000, 90_000, 300_000, 3_600_000] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse_duration(&show_duration(duration)), Some(duration));
        }
        for bytes in [0, 1, 1_023, 1_024, 1_025, 262_144, 1 << 20, 3 << 30] {
            assert_eq!(parse_bytes(&show_bytes(bytes)), Some(bytes));
        }
    }
}
