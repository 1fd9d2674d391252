//! Which partitions the messages of a batch go to.
//!
//! librdkafka sends one request for each partition, so a batch of 30 that follows its keys over 12 partitions is 12 requests of
//! two or three messages, and a request costs the broker far more than a message in it. Nothing needs a task's message on one
//! certain partition: the batch stays together, and the partitions take turns (ADR 4).

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

/// So many messages of a batch stand together; those beyond go to the next partition, so that a large batch is spread over
/// the workers all the same.
const TOGETHER: usize = 64;

/// How often the number of partitions is asked for, in milliseconds.
const ASK_INTERVAL_MS: u64 = 10_000;

/// The partitions of one topic, in turn.
pub(super) struct Spread {
    /// 0 while it is not known.
    count: AtomicU32,
    turn: AtomicU32,
    started: Instant,
    /// When the number is asked for next, in milliseconds since the start.
    next_ask_ms: AtomicU64,
}

impl Default for Spread {
    fn default() -> Self {
        Self {
            count: AtomicU32::new(0),
            turn: AtomicU32::new(0),
            started: Instant::now(),
            next_ask_ms: AtomicU64::new(0),
        }
    }
}

impl Spread {
    /// Whether it is time to ask how many there are; true for one caller each time.
    pub(super) fn is_due(&self) -> bool {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let due = self.next_ask_ms.load(Ordering::Relaxed);
        now >= due
            && self
                .next_ask_ms
                .compare_exchange(
                    due,
                    now.saturating_add(ASK_INTERVAL_MS),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok()
    }

    pub(super) fn learned(&self, count: usize) {
        self.count
            .store(u32::try_from(count).unwrap_or(0), Ordering::Relaxed);
    }

    /// Until the number is learned again the keys choose.
    pub(super) fn forget(&self) {
        self.count.store(0, Ordering::Relaxed);
        self.next_ask_ms.store(0, Ordering::Relaxed);
    }

    /// The partitions of so many messages, in their order; nothing while the number of partitions is not known.
    pub(super) fn places(&self, messages: usize) -> impl Iterator<Item = i32> + use<> {
        let count = self.count.load(Ordering::Relaxed);
        let portions = messages.div_ceil(TOGETHER);
        let turns = u32::try_from(portions).unwrap_or(u32::MAX);
        let first = self.turn.fetch_add(turns, Ordering::Relaxed);
        (0..messages).map_while(move |index| {
            let portion = u32::try_from(index / TOGETHER).unwrap_or(u32::MAX);
            let place = first.wrapping_add(portion).checked_rem(count)?;
            i32::try_from(place).ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(spread: &Spread, messages: usize) -> Vec<i32> {
        spread.places(messages).collect()
    }

    #[test]
    fn a_batch_stays_together_and_the_partitions_take_turns() {
        let spread = Spread::default();
        spread.learned(3);
        assert_eq!(places(&spread, 2), [0, 0]);
        assert_eq!(places(&spread, 1), [1]);
        let large = places(&spread, 2 * TOGETHER + 1);
        assert_eq!(large.len(), 2 * TOGETHER + 1);
        assert_eq!(
            (large[0], large[TOGETHER], large[2 * TOGETHER]),
            (2, 0, 1),
            "a large batch goes on at the next partition"
        );
        assert_eq!(places(&spread, 1), [2]);
        assert_eq!(places(&spread, 0), [0; 0]);
    }

    #[test]
    fn without_a_number_the_keys_choose() {
        let spread = Spread::default();
        assert_eq!(places(&spread, 5), [0; 0]);
        spread.learned(2);
        assert_eq!(places(&spread, 1).len(), 1);
        spread.forget();
        assert_eq!(places(&spread, 1), [0; 0]);
    }

    #[test]
    fn the_number_is_asked_for_by_one_caller_and_at_once_when_forgotten() {
        let spread = Spread::default();
        assert!(spread.is_due());
        assert!(!spread.is_due());
        spread.forget();
        assert!(spread.is_due());
    }
}
