//! Redis, and a cache in this process before it.

use std::sync::Arc;

use adapters::memory::{CacheLimits, MemoryResultCache};
use adapters::redis::{RedisOptions, RedisResultCache, RedisSettingsError};
use adapters::tiered::Tiered;
use domain::ports::{Clock, Observer, ResultCache};
use tracing::warn;

use crate::settings::RedisSettings;
use crate::startup::chain;

/// Makes the cache; a Redis that does not answer costs time only.
pub(super) async fn open(
    settings: &RedisSettings,
) -> Result<Arc<dyn ResultCache>, RedisSettingsError> {
    let redis = RedisResultCache::connect(&RedisOptions::new(&settings.url))?;
    if let Err(error) = redis.ping().await {
        warn!(
            event = "redis.not_there",
            address = settings.masked(),
            reason = chain(&error),
            "Redis does not answer; starting without it, results are read from the database until it does"
        );
    }
    Ok(Arc::new(redis))
}

/// Puts a cache of this many bytes in this process before a far one.
pub(super) fn near(
    far: Arc<dyn ResultCache>,
    bytes: usize,
    clock: Arc<dyn Clock>,
    observer: Arc<dyn Observer>,
) -> Arc<dyn ResultCache> {
    let limits = CacheLimits {
        max_bytes: bytes,
        ..CacheLimits::default()
    };
    let near = Arc::new(MemoryResultCache::with_limits(clock, limits));
    Arc::new(Tiered::new(near, far, observer))
}
