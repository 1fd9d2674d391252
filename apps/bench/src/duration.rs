//! Durations as people write them.

use std::time::Duration;

/// Reads `500ms`, `30s`, `5m` or `1h`.
///
/// # Errors
/// A sentence for the person who wrote something else.
pub fn read(text: &str) -> Result<Duration, String> {
    let wrong = || "must be a number with a unit, such as 500ms, 30s, 5m or 1h".to_owned();
    let digits = text
        .find(|character: char| !character.is_ascii_digit() && character != '.')
        .ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "ms" => number / 1_000.0,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3_600.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::read;
    use std::time::Duration;

    #[test]
    fn durations_are_read_or_refused() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("1.5s", 1_500),
            ("5m", 300_000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(
                read(text),
                Ok(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
        for text in ["", "5", "s", "5 s", "-1s", "1d", "1.2.3s"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
