//! Chance that repeats itself.

use ports::Random;

use crate::splitmix::SplitMix64;

/// The same numbers for the same seed (SplitMix64), whichever the platform.
///
/// ```
/// use task_processor_adapters::memory::SeededRandom;
/// use ports::Random;
///
/// let (one, other) = (SeededRandom::new(7), SeededRandom::new(7));
/// assert_eq!(one.next(), other.next());
/// assert_ne!(one.next(), SeededRandom::new(8).next());
/// ```
#[derive(Debug)]
pub struct SeededRandom(SplitMix64);

impl SeededRandom {
    /// Starts at a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(SplitMix64::new(seed))
    }
}

impl Random for SeededRandom {
    fn next(&self) -> u64 {
        self.0.next()
    }
}
