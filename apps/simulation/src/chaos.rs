//! The ports as one process sees them: decorators around the shared adapters, through which faults strike.

mod cache;
mod clock;
mod feed;
mod log;
mod store;

pub(crate) use cache::{CacheRecord, ChaosCache};
pub(crate) use clock::SkewedClock;
pub(crate) use feed::{ChaosFeed, Topic};
pub(crate) use log::ChaosLog;
pub(crate) use store::ChaosStore;

/// The cause of every failure that the weather brings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Struck;

impl std::fmt::Display for Struck {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("struck by the weather")
    }
}

impl std::error::Error for Struck {}
