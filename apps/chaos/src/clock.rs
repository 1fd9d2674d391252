//! The time of this machine, which every process and service of a run shares.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Microseconds since 1970.
pub(crate) fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
        })
}

/// So much later than now, in whole milliseconds.
pub(crate) fn after(delay: Duration) -> i64 {
    let micros = i64::try_from(delay.as_micros()).unwrap_or(i64::MAX);
    now().saturating_add(micros) / 1_000 * 1_000
}

pub(crate) const SECOND: i64 = 1_000_000;
