//! Chance, for jitter. Not for secrets.

/// A source of chance that a simulation can seed.
#[cfg_attr(feature = "mock", mockall::automock)]
pub trait Random: Send + Sync {
    /// The next number, uniform over all of `u64`.
    fn next(&self) -> u64;
}
