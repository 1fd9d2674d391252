//! Every choice of a history comes from here.

use std::time::Duration;

use adapters::memory::SeededRandom;
use ports::Random;

/// A stream of choices that a seed determines.
pub(crate) struct Chance(SeededRandom);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(SeededRandom::new(seed))
    }

    /// A number for another stream.
    pub(crate) fn seed(&self) -> u64 {
        self.0.next()
    }

    /// Uniform over `0..bound`; 0 when the bound is.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        // The bias is below 2^-40 for the small bounds used here.
        self.0.next() % bound.max(1)
    }

    /// Uniform over `low..=high`.
    pub(crate) fn between(&self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    pub(crate) fn index(&self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or(0)
    }

    pub(crate) fn pick<'a, T>(&self, choices: &'a [T]) -> &'a T {
        &choices[self.index(choices.len())]
    }

    pub(crate) fn one_in(&self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// True in `rate` of 10,000 cases.
    pub(crate) fn happens(&self, rate: u64) -> bool {
        rate > 0 && self.below(10_000) < rate
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
