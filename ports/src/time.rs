//! Points in time, as exact as PostgreSQL keeps them.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Datelike, SecondsFormat, Utc};

/// A point in time in microseconds since 1970-01-01T00:00:00Z.
///
/// Microseconds are what PostgreSQL's `timestamp` keeps, so what is read equals what was written.
/// `Display` is the contract's form: RFC 3339, UTC, milliseconds (truncated), `Z`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);

    /// From microseconds since the epoch.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the epoch.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// The signed difference `self − earlier` in microseconds.
    #[must_use]
    pub const fn micros_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This point moved later by `delay`, saturating.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self(self.0.saturating_add(micros(delay)))
    }

    /// This point moved earlier by `delay`, saturating.
    #[must_use]
    pub fn before(self, delay: Duration) -> Self {
        Self(self.0.saturating_sub(micros(delay)))
    }

    /// Cut down to whole milliseconds, as the contract shows it (toward the past).
    #[must_use]
    pub const fn truncated_to_millis(self) -> Self {
        Self(self.0.div_euclid(1_000).saturating_mul(1_000))
    }

    /// Reads an RFC 3339 time with any offset; digits past the microsecond are cut off.
    ///
    /// A time that its offset carries out of the years 0 to 9999 is none: it could not be written again.
    #[must_use]
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let parsed = DateTime::parse_from_rfc3339(text).ok()?.to_utc();
        (0..=9999)
            .contains(&parsed.year())
            .then(|| Self(parsed.timestamp_micros()))
    }
}

fn micros(delay: Duration) -> i64 {
    i64::try_from(delay.as_micros()).unwrap_or(i64::MAX)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.truncated_to_millis();
        match DateTime::<Utc>::from_timestamp_micros(millis.0) {
            Some(time) => formatter.write_str(&time.to_rfc3339_opts(SecondsFormat::Millis, true)),
            // Outside the calendar that RFC 3339 can write (years before -262143 or after 262142).
            None => write!(formatter, "{}us", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(micros: i64, expected: &str) {
        assert_eq!(Timestamp::from_micros(micros).to_string(), expected);
    }

    #[test]
    fn displays_rfc3339_with_truncated_milliseconds() {
        check(0, "1970-01-01T00:00:00.000Z");
        check(1_735_689_602_345_999, "2025-01-01T00:00:02.345Z");
        check(-1, "1969-12-31T23:59:59.999Z");
    }

    /// A file that another program wrote in may hold any number.
    #[test]
    fn what_no_calendar_has_is_shown_as_a_number() {
        check(i64::MIN, "-9223372036854775808us");
        check(i64::MAX, "9223372036854775807us");
    }

    #[test]
    fn parses_offsets_and_refuses_rubbish() {
        let parsed = Timestamp::parse_rfc3339("2025-01-01T02:00:02.345678+02:00");
        assert_eq!(parsed, Some(Timestamp::from_micros(1_735_689_602_345_678)));
        assert_eq!(Timestamp::parse_rfc3339("2025-01-01"), None);
        for outside in ["9999-12-31T23:59:59-14:00", "0000-01-01T00:00:00+14:00"] {
            assert_eq!(Timestamp::parse_rfc3339(outside), None, "{outside}");
        }
        assert_eq!(Timestamp::parse_rfc3339("tomorrow"), None);
    }
}
