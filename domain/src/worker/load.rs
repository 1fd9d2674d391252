//! How many bytes are in hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// What a payload is taken to be before one was seen: the longest that a server accepts by default.
const UNSEEN: usize = 256 * 1024;

/// How many claims are remembered.
const REMEMBERED: usize = 16;

/// The bytes of all payloads in hand, and of results that were not announced yet.
///
/// Nobody knows how large the tasks are that a claim will take. They are taken to be like those of the largest of the last claims. So a
/// claim may pass the limit when tasks become larger, but not again and again where large ones come now and then.
pub(super) struct Load {
    limit: usize,
    /// What a payload of each of the last claims had on average.
    means: [AtomicUsize; REMEMBERED],
    /// How many claims there were.
    claims: AtomicUsize,
    /// The largest of these means.
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
    bytes: usize,
    carried: Arc<Carried>,
}

impl Load {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            means: Default::default(),
            claims: AtomicUsize::new(0),
            expected: AtomicUsize::new(UNSEEN),
            carried: Arc::default(),
        }
    }

    /// How many tasks may be taken: none while the limit is reached, and at least one while it is not, however large that one is.
    pub(super) fn room(&self) -> usize {
        let free = self
            .limit
            .saturating_sub(self.carried.bytes.load(Ordering::Relaxed));
        let expected = self.expected.load(Ordering::Relaxed).max(1);
        free.div_ceil(expected)
    }

    /// Waits until the limit is not reached. For one that waits at a time.
    pub(super) async fn has_room(&self) {
        while self.room() == 0 {
            self.carried.lighter.notified().await;
        }
    }

    /// Takes the payloads of one claim. For one that claims at a time.
    pub(super) fn take(&self, payloads: impl ExactSizeIterator<Item = usize>) -> Vec<Weight> {
        let count = payloads.len();
        let weights: Vec<Weight> = payloads.map(|bytes| self.weight(bytes)).collect();
        let bytes: usize = weights.iter().map(|weight| weight.bytes).sum();
        if let Some(mean) = bytes.checked_div(count) {
            self.expect(mean);
        }
        weights
    }

    fn expect(&self, mean: usize) {
        let place = self.claims.fetch_add(1, Ordering::Relaxed) % REMEMBERED;
        self.means[place].store(mean, Ordering::Relaxed);
        let means = self.means.iter().map(|mean| mean.load(Ordering::Relaxed));
        self.expected
            .store(means.max().unwrap_or(mean), Ordering::Relaxed);
    }

    fn weight(&self, bytes: usize) -> Weight {
        let mut weight = Weight {
            bytes: 0,
            carried: Arc::clone(&self.carried),
        };
        weight.grow(bytes);
        weight
    }
}

impl Weight {
    /// The task has a result of so many bytes besides.
    pub(super) fn grow(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.carried.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.carried.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        // Costs nothing while nobody waits.
        self.carried.lighter.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_next_claim_is_as_large_as_tasks_like_the_largest_before_have_room() {
        let load = Load::new(1_000_000);
        assert_eq!(load.room(), 4, "of the longest");
        let mut held = load.take([100_usize, 300].into_iter());
        assert_eq!(load.room(), 4_998);
        held.extend(load.take([400_000_usize].into_iter()));
        assert_eq!(load.room(), 2);
        held.push(load.weight(599_599));
        assert_eq!(load.room(), 1, "one byte is left");
        for weight in &mut held[..1] {
            weight.grow(1);
        }
        assert_eq!(load.room(), 0);
        let waiting = load.has_room();
        tokio::pin!(waiting);
        tokio::select! {
            biased;
            () = &mut waiting => panic!("there is no room"),
            () = std::future::ready(()) => {}
        }
        held.remove(0);
        waiting.await;
        assert_eq!(load.room(), 1);
        drop(held);
        assert_eq!(load.room(), 3);
    }

    /// Where one claim in ten is of large tasks, the others are no reason to take many of those.
    #[test]
    fn large_tasks_that_come_now_and_then_do_not_pass_the_limit_each_time() {
        let load = Load::new(1_000_000);
        for round in 0..100 {
            let bytes = if round % 10 == 0 { 100_000 } else { 10 };
            let room = load.room();
            drop(load.take(vec![bytes; room].into_iter()));
            assert!(room <= 10, "round {round}: {room}");
        }
        for _ in 0..REMEMBERED {
            drop(load.take([10_usize].into_iter()));
        }
        assert_eq!(load.room(), 100_000, "no large one for long");
    }

    #[test]
    fn tasks_without_a_byte_are_bounded_by_their_number_alone() {
        let load = Load::new(1_000);
        let _held = load.take([0_usize; 5].into_iter());
        assert_eq!(load.room(), 1_000);
        let _none = load.take([0_usize; 0].into_iter());
        assert_eq!(load.room(), 1_000);
    }
}
