//! How many bytes are in hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// How long the payloads of a claim are taken to be, at the least: the longest that a server accepts by default.
const LONG: usize = 256 * 1024;

/// How many claims are remembered.
const REMEMBERED: usize = 16;

/// The bytes of all payloads in hand, and of their results.
///
/// Nobody knows how large the tasks are that a claim will take. They are all taken to be as long as a server lets them be, or as the
/// longest of the last claims where that is longer, and their results to be as long as they are. So a claim passes the limit by one
/// task at most, unless servers accept longer ones than by default; then by one claim, and not again and again where such come now
/// and then. Claims are that much smaller: of 128 tasks at most, with the limit as it is by default.
pub(super) struct Load {
    limit: usize,
    /// The longest payload of each of the last claims.
    longest: [AtomicUsize; REMEMBERED],
    /// How many claims there were.
    claims: AtomicUsize,
    /// The longest of these, or more.
    expected: AtomicUsize,
    carried: Arc<Carried>,
}

#[derive(Default)]
struct Carried {
    bytes: AtomicUsize,
    lighter: Notify,
}

/// The part of it that belongs to one task; gone when it is dropped.
pub(super) struct Weight {
    payload: usize,
    /// As long as the payload until it is there.
    result: usize,
    carried: Arc<Carried>,
}

impl Load {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            longest: Default::default(),
            claims: AtomicUsize::new(0),
            expected: AtomicUsize::new(LONG),
            carried: Arc::default(),
        }
    }

    /// How many tasks may be taken: none while the limit is reached, and at least one while it is not, however large that one is.
    pub(super) fn room(&self) -> usize {
        let free = self
            .limit
            .saturating_sub(self.carried.bytes.load(Ordering::Relaxed));
        free.div_ceil(self.expected.load(Ordering::Relaxed).saturating_mul(2))
    }

    /// Waits until the limit is not reached. For one that waits at a time.
    pub(super) async fn has_room(&self) {
        while self.room() == 0 {
            self.carried.lighter.notified().await;
        }
    }

    /// Takes the payloads of one claim. For one that claims at a time.
    pub(super) fn take(&self, payloads: impl Iterator<Item = usize>) -> Vec<Weight> {
        let weights: Vec<Weight> = payloads.map(|bytes| self.weight(bytes)).collect();
        if let Some(longest) = weights.iter().map(|weight| weight.payload).max() {
            self.expect(longest);
        }
        weights
    }

    fn expect(&self, bytes: usize) {
        let place = self.claims.fetch_add(1, Ordering::Relaxed) % REMEMBERED;
        self.longest[place].store(bytes, Ordering::Relaxed);
        let longest = self
            .longest
            .iter()
            .map(|bytes| bytes.load(Ordering::Relaxed));
        self.expected
            .store(longest.fold(LONG, usize::max), Ordering::Relaxed);
    }

    fn weight(&self, payload: usize) -> Weight {
        self.carried.bytes.fetch_add(payload * 2, Ordering::Relaxed);
        Weight {
            payload,
            result: payload,
            carried: Arc::clone(&self.carried),
        }
    }
}

impl Weight {
    /// The result is there, and has so many bytes.
    pub(super) fn has_result(&mut self, bytes: usize) {
        let carried = &self.carried.bytes;
        carried.fetch_add(bytes, Ordering::Relaxed);
        carried.fetch_sub(self.result, Ordering::Relaxed);
        if bytes < self.result {
            self.carried.lighter.notify_one();
        }
        self.result = bytes;
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        let bytes = self.payload + self.result;
        self.carried.bytes.fetch_sub(bytes, Ordering::Relaxed);
        // Costs nothing while nobody waits.
        self.carried.lighter.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_claim_is_as_large_as_tasks_of_the_longest_have_room_with_their_results() {
        let load = Load::new(6 * LONG);
        assert_eq!(load.room(), 3);
        let mut held = load.take([100_usize, 300].into_iter());
        assert_eq!(load.room(), 3, "small ones are no reason to expect more");
        held.extend(load.take([2 * LONG].into_iter()));
        assert_eq!(load.room(), 1, "of such a one");
        held.push(load.weight(LONG - 401));
        assert_eq!(load.room(), 1, "two bytes are left");
        held[0].has_result(102);
        assert_eq!(load.room(), 0);
        let waiting = load.has_room();
        tokio::pin!(waiting);
        tokio::select! {
            biased;
            () = &mut waiting => panic!("there is no room"),
            () = std::future::ready(()) => {}
        }
        held[1].has_result(10);
        waiting.await;
        assert_eq!(load.room(), 1, "a result was shorter than its payload");
        drop(held);
        assert_eq!(load.carried.bytes.load(Ordering::Relaxed), 0);
        assert_eq!(load.room(), 2, "of the longest that came");
    }

    /// Where servers accept more than by default, and one claim in ten is of such tasks, the others are no reason to take many of
    /// those.
    #[test]
    fn longer_tasks_that_come_now_and_then_pass_the_limit_once() {
        let limit = 200 * LONG;
        let load = Load::new(limit);
        let mut passed = 0;
        for round in 0..100 {
            let bytes = if round % 10 == 0 { 10 * LONG } else { 10 };
            let room = load.room();
            passed += usize::from(room * bytes * 2 > limit);
            drop(load.take(vec![bytes; room].into_iter()));
        }
        assert_eq!(passed, 1);
        assert_eq!(load.room(), 10);
        for _ in 0..REMEMBERED {
            drop(load.take([10_usize].into_iter()));
        }
        assert_eq!(load.room(), 100, "no longer one for long");
    }

    #[test]
    fn a_claim_of_nothing_says_nothing() {
        let load = Load::new(200 * LONG);
        let _held = load.take([10 * LONG].into_iter());
        for _ in 0..REMEMBERED {
            assert!(load.take([].into_iter()).is_empty());
        }
        assert_eq!(load.room(), 9);
    }
}
