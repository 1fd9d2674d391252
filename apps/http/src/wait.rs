//! How long a read may wait: `?wait=30s`.

use std::time::Duration;

use crate::problem::{FieldError, Kind, Problem};

/// The longest wait. Shorter than the time for which a connection may be silent.
pub(crate) const LONGEST: Duration = Duration::from_secs(60);

/// Reads `500ms`, `30s` and `1m`.
pub(crate) fn read(text: &str) -> Result<Duration, Problem> {
    parse(text).ok_or_else(|| {
        Problem::with_errors(
            Kind::InvalidParameter,
            "the parameter wait is invalid",
            vec![FieldError::new(
                "wait",
                "must be a duration like 500ms, 30s or 1m, at most 60s",
            )],
        )
    })
}

fn parse(text: &str) -> Option<Duration> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => return None,
    };
    let millis = number.parse::<u64>().ok()?.checked_mul(factor)?;
    Some(Duration::from_millis(millis)).filter(|wait| *wait <= LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit_and_a_limit() {
        for (text, millis) in [("500ms", 500), ("0s", 0), ("30s", 30_000), ("1m", 60_000)] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "",
            "30",
            "s",
            "-1s",
            "1.5s",
            "61s",
            "2m",
            "1h",
            "99999999999999999999s",
            "1S",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
