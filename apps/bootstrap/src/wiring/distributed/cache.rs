//! Redis, behind a cache in this process.

use std::sync::Arc;

use adapters::memory::{CacheLimits, MemoryResultCache};
use adapters::redis::{RedisOptions, RedisResultCache, RedisSettingsError};
use adapters::tiered::Tiered;
use domain::ports::{Clock, ResultCache};
use tracing::warn;

use crate::settings::CacheSettings;
use crate::startup::chain;

/// Makes the cache; a Redis that does not answer costs time only.
pub(super) async fn open(
    settings: &CacheSettings,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn ResultCache>, RedisSettingsError> {
    let far: Arc<dyn ResultCache> = Arc::new(RedisResultCache::connect(&RedisOptions::new(
        &settings.url,
    ))?);
    if let Err(error) = far.ping().await {
        warn!(
            event = "redis.not_there",
            address = settings.masked(),
            reason = chain(&error),
            "Redis does not answer; starting without it, results are read from the database until it does"
        );
    }
    let limits = CacheLimits {
        max_bytes: settings.bytes,
        ..CacheLimits::default()
    };
    let near = Arc::new(MemoryResultCache::with_limits(clock, limits));
    Ok(Arc::new(Tiered::new(near, far)))
}
