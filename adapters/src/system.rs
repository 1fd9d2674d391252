//! Time, identities and chance from the operating system.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{SystemTime, UNIX_EPOCH};

use ports::{Clock, IdSource, Random, Timestamp};
use uuid::Uuid;

use crate::splitmix::SplitMix64;

/// The system's clock. It may jump.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let micros = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
            Err(before) => {
                i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros)
            }
        };
        Timestamp::from_micros(micros)
    }
}

/// UUIDs version 7. Those made in one process are in ascending order, within a millisecond and when the system's clock
/// steps back too.
///
/// ```
/// use task_processor_adapters::system::UuidV7Ids;
/// use ports::IdSource;
///
/// let ids = UuidV7Ids;
/// assert!(ids.next() < ids.next());
/// assert_eq!(ids.next().get_version_num(), 7);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct UuidV7Ids;

impl IdSource for UuidV7Ids {
    fn next(&self) -> Uuid {
        // It counts within one context of the whole process, which is what keeps the order.
        Uuid::now_v7()
    }
}

/// Numbers that differ from process to process, seeded by the operating system. Not for secrets.
#[derive(Debug)]
pub struct SystemRandom(SplitMix64);

impl SystemRandom {
    /// Takes a seed from the operating system.
    #[must_use]
    pub fn new() -> Self {
        // The keys of `RandomState` come from the system's entropy; the hash of nothing reveals 64 bits of them.
        Self(SplitMix64::new(RandomState::new().build_hasher().finish()))
    }
}

impl Default for SystemRandom {
    fn default() -> Self {
        Self::new()
    }
}

impl Random for SystemRandom {
    fn next(&self) -> u64 {
        self.0.next()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_of_many_threads_are_distinct_and_ascend_within_each() {
        let made: Vec<Vec<Uuid>> = std::thread::scope(|scope| {
            let makers: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..5_000).map(|_| UuidV7Ids.next()).collect::<Vec<_>>()))
                .collect();
            makers
                .into_iter()
                .map(|maker| maker.join().expect("no panic"))
                .collect()
        });
        for ids in &made {
            assert!(ids.is_sorted());
        }
        let distinct: BTreeSet<Uuid> = made.into_iter().flatten().collect();
        assert_eq!(distinct.len(), 20_000);
    }

    #[test]
    fn the_clock_is_in_this_century() {
        let now = SystemClock.now();
        assert!(Timestamp::parse_rfc3339("2025-01-01T00:00:00Z").is_some_and(|start| start < now));
        assert!(Timestamp::parse_rfc3339("2100-01-01T00:00:00Z").is_some_and(|end| now < end));
    }

    #[test]
    fn two_sources_of_chance_differ() {
        assert_ne!(SystemRandom::new().next(), SystemRandom::new().next());
    }
}
