//! How long a read may wait: `?wait=30s`.

use std::time::Duration;

use poem_openapi::registry::MetaSchema;

use crate::problem::Problem;
use crate::query::{self, Asked, Parameter};
use crate::schema::{matching, text};

/// The longest wait in milliseconds. Shorter than the time for which a connection may be silent.
const LONGEST: u64 = 60_000;

/// How long to wait.
pub(crate) struct Wait;

impl Parameter for Wait {
    const NAME: &'static str = "wait";

    fn schema() -> MetaSchema {
        matching(
            text(
                "A duration like `500ms`, `30s` or `1m`, at most `60s`.",
                "30s",
            ),
            "^0*(([0-9]{1,4}|[1-5][0-9]{4}|60000)ms|([1-5]?[0-9]|60)s|[01]m)$",
        )
    }
}

/// How long to wait, if at all.
pub(crate) fn read(wait: &Asked<Wait>) -> Result<Option<Duration>, Problem> {
    let mut wrong = Vec::new();
    let limit = wait.read(&mut wrong, |text| {
        parse(text).ok_or("must be a duration like 500ms, 30s or 1m, at most 60s")
    });
    if wrong.is_empty() {
        Ok(limit)
    } else {
        Err(query::invalid(wrong))
    }
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
    (millis <= LONGEST).then(|| Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuzz_waits() {
        const WAITS: &[&[u8]] = &[b"500ms", b"30s", b"1m", b"60000ms"];
        fuzz::run("wait", &fuzz::text(WAITS), |text| {
            let wait = parse(&text);
            proptest::prop_assert!(wait.is_none_or(|wait| wait <= Duration::from_secs(60)));
            let again = wait.and_then(|wait| parse(&format!("{}ms", wait.as_millis())));
            proptest::prop_assert_eq!(again, wait);
            Ok(())
        });
    }

    /// The file that users run; one that gave up first would answer 504 in our place.
    #[test]
    fn the_load_balancer_waits_longer_than_anybody_may_and_leaves_room_for_its_checks() {
        let file = include_str!("../../../deploy/haproxy.cfg");
        let after = |words: &str| {
            let (_, rest) = file.split_once(words)?;
            let digits = rest.split(|letter: char| !letter.is_ascii_digit()).next()?;
            digits.parse::<u64>().ok()
        };
        for words in ["timeout server ", "timeout client "] {
            let seconds = after(words).expect("it is there, in seconds");
            assert!(seconds * 1_000 > LONGEST + 10_000, "{words}{seconds}");
        }
        let config = crate::HttpConfig::default();
        let of_a_server = after("rise 1 maxconn ").expect("it is there");
        let limit = u64::try_from(config.max_connections).expect("a number");
        assert!(
            (limit * 9 / 10..limit).contains(&of_a_server),
            "{of_a_server}"
        );
        let kept = after("timeout http-keep-alive ").expect("it is there");
        assert!(kept < config.idle_timeout.as_secs(), "{kept}");
    }

    #[test]
    fn durations_have_a_unit_and_a_limit() {
        for (text, millis) in [
            ("500ms", 500),
            ("60000ms", 60_000),
            ("0s", 0),
            ("30s", 30_000),
            ("1m", 60_000),
            ("00000000000000000000005s", 5_000),
        ] {
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
            "60001ms",
            "061s",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
