//! How far back a claim by age has to look.
//!
//! Claimed rows leave dead entries in the queue's index until a vacuum may remove them, and a long transaction anywhere in
//! the database keeps vacuum from it. A question that starts at the oldest entry walks over all of them, several times a
//! second. So a walk that was slow and took everything there was is remembered, and for a while the next ones start where
//! it ended. What appears behind that point all the same (a message given up by another server, a `runAt` in the past, a
//! claim that was rolled back) is found by the next whole walk: later by less than half a minute, and only while walks
//! are slow.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ports::Timestamp;

/// A walk that took longer had dead entries to walk over.
const SLOW: Duration = Duration::from_millis(20);

/// Whole walks may take a fiftieth of the time.
const REST_PER_WALK: u32 = 50;

/// However slow a walk was, the next whole one comes after this.
const LONGEST_REST: Duration = Duration::from_secs(30);

/// Rows are written under the time at which their statement began; this long after it every one of them is visible, or
/// its server is in such trouble that the rest does not matter.
const MARGIN: Duration = Duration::from_secs(5);

/// From where on the two kinds of waiting rows are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) unmessaged: Timestamp,
    pub(super) messaged: Timestamp,
}

impl Start {
    const BEGINNING: Self = Self {
        unmessaged: Timestamp::from_micros(i64::MIN),
        messaged: Timestamp::from_micros(i64::MIN),
    };
}

#[derive(Debug, Default)]
pub(super) struct Walk {
    rest: Mutex<Option<Rest>>,
}

#[derive(Debug)]
struct Rest {
    until: Instant,
    start: Start,
}

impl Walk {
    pub(super) fn start(&self, now: Instant) -> Start {
        let rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        match &*rest {
            Some(rest) if now < rest.until => rest.start,
            _ => Start::BEGINNING,
        }
    }

    /// Takes note of a walk that took every row up to `end`, and how long that took.
    pub(super) fn took_all(
        &self,
        from: Start,
        end: Timestamp,
        grace: Duration,
        took: Duration,
        now: Instant,
    ) {
        if from != Start::BEGINNING || took < SLOW {
            return;
        }
        let unmessaged = end.before(MARGIN);
        let until = now + (took * REST_PER_WALK).min(LONGEST_REST);
        let start = Start {
            unmessaged,
            messaged: unmessaged.before(grace),
        };
        *self.rest.lock().unwrap_or_else(PoisonError::into_inner) = Some(Rest { until, start });
    }

    /// Something was written behind the point where walks may start.
    pub(super) fn forget(&self) {
        *self.rest.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: Timestamp = Timestamp::from_micros(100_000_000);
    const GRACE: Duration = Duration::from_secs(3);

    fn started(walk: &Walk, now: Instant) -> (i64, i64) {
        let start = walk.start(now);
        (start.unmessaged.as_micros(), start.messaged.as_micros())
    }

    #[test]
    fn after_a_slow_walk_the_next_ones_start_where_it_ended() {
        let (walk, now) = (Walk::default(), Instant::now());
        assert_eq!(walk.start(now), Start::BEGINNING);
        walk.took_all(Start::BEGINNING, END, GRACE, Duration::from_millis(40), now);
        assert_eq!(started(&walk, now), (95_000_000, 92_000_000));
        assert_eq!(walk.start(now + Duration::from_secs(2)), Start::BEGINNING);
        walk.took_all(Start::BEGINNING, END, GRACE, Duration::from_secs(10), now);
        assert_ne!(walk.start(now + Duration::from_secs(29)), Start::BEGINNING);
        assert_eq!(walk.start(now + Duration::from_secs(30)), Start::BEGINNING);
    }

    #[test]
    fn a_quick_walk_or_a_short_one_changes_nothing() {
        let (walk, now) = (Walk::default(), Instant::now());
        walk.took_all(Start::BEGINNING, END, GRACE, Duration::from_millis(19), now);
        assert_eq!(walk.start(now), Start::BEGINNING);
        let short = Start {
            unmessaged: END,
            messaged: END,
        };
        walk.took_all(short, END, GRACE, Duration::from_secs(1), now);
        assert_eq!(walk.start(now), Start::BEGINNING);
    }

    #[test]
    fn what_was_written_behind_it_ends_the_rest() {
        let (walk, now) = (Walk::default(), Instant::now());
        walk.took_all(Start::BEGINNING, END, GRACE, Duration::from_secs(1), now);
        walk.forget();
        assert_eq!(walk.start(now), Start::BEGINNING);
    }
}
