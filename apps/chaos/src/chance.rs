//! Every choice of a run comes from here: what is sent, and what is done to whom and when.

use std::time::Duration;

use adapters::memory::SeededRandom;
use domain::ports::Random;

/// A stream of choices that a seed determines.
pub(crate) struct Chance(SeededRandom);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(SeededRandom::new(seed))
    }

    /// Uniform over `0..bound`; 0 when the bound is.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        // The bias is below 2^-40 for the small bounds used here.
        self.0.next() % bound.max(1)
    }

    /// Uniform over `low..=high`.
    pub(crate) fn between(&self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    pub(crate) fn index(&self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or(0)
    }

    /// True in `rate` of 1,000 cases.
    pub(crate) fn happens(&self, rate: u64) -> bool {
        self.below(1_000) < rate
    }

    pub(crate) fn millis(&self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.between(low, high))
    }

    pub(crate) fn shuffle<T>(&self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }
}
