//! Redis, and a cache in this process before it.

use std::sync::Arc;
use std::time::Duration;

use adapters::memory::{CacheLimits, MemoryResultCache};
use adapters::redis::{RedisOptions, RedisRefusal, RedisResultCache};
use adapters::tiered::Tiered;
use domain::ports::{Clock, Observer, ResultCache};
use tracing::warn;

use crate::Failure;
use crate::settings::RedisSettings;
use crate::startup::{StartupError, chain};

/// How long the first answer may take. A machine on which everything starts at once is slow, and who is not heard is not known to refuse us.
const FIRST_TIMEOUT: Duration = Duration::from_secs(2);

/// Makes the cache; a Redis that does not answer costs time only.
///
/// # Errors
/// When a Redis that is there refuses us, which no waiting cures.
pub(super) async fn open(settings: &RedisSettings) -> Result<Arc<dyn ResultCache>, Failure> {
    let options = RedisOptions {
        root_certificates: settings.root_certificates.clone(),
        ..RedisOptions::new(&settings.url)
    };
    let redis = RedisResultCache::connect(&options)?;
    let first = RedisResultCache::connect(&RedisOptions {
        timeout: FIRST_TIMEOUT,
        ..options
    })?;
    let Err(error) = first.ping().await else {
        // Connects, so that no request has to wait for that.
        redis.ping().await.ok();
        return Ok(Arc::new(redis));
    };
    let reason = chain(&error);
    let hint = match RedisRefusal::of(&error) {
        Some(RedisRefusal::Login) => {
            Some("REDIS_USERNAME and REDIS_PASSWORD, or REDIS_URL, say who we are")
        }
        Some(RedisRefusal::Tls) => {
            Some("REDIS_TLS and REDIS_TLS_CA_CERT_FILE, or REDIS_URL, say how TLS is spoken")
        }
        _ => None,
    };
    if let Some(hint) = hint {
        let what = format!("Redis at {}", settings.masked());
        let reason = format!("{reason}; {hint}");
        return Err(StartupError::Refused { what, reason }.into());
    }
    warn!(
        event = "redis.not_there",
        address = settings.masked(),
        reason,
        "Redis does not answer{}; starting without it, results are read from the database until it does",
        if RedisRefusal::of(&error) == Some(RedisRefusal::PerhapsTls) {
            " in what we speak (REDIS_TLS says whether that is TLS)"
        } else {
            ""
        }
    );
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
