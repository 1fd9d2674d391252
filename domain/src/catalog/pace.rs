//! How fast tasks become done, from looks at the totals that are taken when somebody asks.

use std::collections::VecDeque;
use std::time::Duration;

use ports::Timestamp;

/// No more than one look a second.
const BETWEEN: i64 = 1_000_000;
/// A rate is that of about the last minute, if it was looked at then, and otherwise of up to ten.
const RECENT: i64 = 60_000_000;
const OLDEST: i64 = 600_000_000;

#[derive(Debug, Default)]
pub(super) struct Pace {
    looks: VecDeque<(Timestamp, u64)>,
}

impl Pace {
    /// Whether it is time for another look.
    pub(super) fn is_stale(&self, now: Timestamp) -> bool {
        let last = self.looks.back();
        last.is_none_or(|(time, _)| now.micros_since(*time) >= BETWEEN)
    }

    pub(super) fn note(&mut self, now: Timestamp, done: u64) {
        self.looks.push_back((now, done));
        let is_recent = |(time, _): &(Timestamp, u64)| now.micros_since(*time) <= RECENT;
        // One look older than a minute is kept, in case that there is no other.
        while self.looks.len() > 2 && !self.looks.front().is_some_and(is_recent) {
            self.looks.pop_front();
        }
    }

    /// `None` while it is not known, or nothing becomes done.
    pub(super) fn per_second(&self, now: Timestamp) -> Option<f64> {
        let (first, last) = (self.looks.front()?, self.looks.back()?);
        let micros = last.0.micros_since(first.0);
        let done = last.1.saturating_sub(first.1);
        if micros < BETWEEN || now.micros_since(first.0) > OLDEST || done == 0 {
            return None;
        }
        let micros = u64::try_from(micros).ok()?;
        Some(exact(done) / Duration::from_micros(micros).as_secs_f64())
    }
}

/// When this many more are done.
pub(super) fn after(now: Timestamp, tasks: usize, per_second: f64) -> Timestamp {
    let seconds = exact(u64::try_from(tasks).unwrap_or(u64::MAX)) / per_second;
    Duration::try_from_secs_f64(seconds).map_or(now, |wait| now.after(wait))
}

/// As exact as an estimate needs it.
fn exact(number: u64) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn a_rate_needs_two_looks_and_forgets_old_ones() {
        let mut pace = Pace::default();
        assert!(pace.is_stale(at(0)));
        pace.note(at(0), 100);
        assert!(!pace.is_stale(Timestamp::from_micros(999_999)));
        assert_eq!(pace.per_second(at(0)), None);
        pace.note(at(10), 300);
        assert_eq!(pace.per_second(at(10)), Some(20.0));
        assert_eq!(after(at(10), 40, 20.0), at(12));
        // Nothing becomes done any more.
        pace.note(at(200), 300);
        pace.note(at(230), 300);
        assert_eq!(pace.per_second(at(230)), None);
        pace.note(at(240), 340);
        assert_eq!(pace.per_second(at(240)), Some(1.0));
        assert_eq!(pace.per_second(at(900)), None);
    }
}
