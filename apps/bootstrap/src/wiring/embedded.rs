//! Everything in one process: tasks in a SQLite file, log and cache in memory.

use std::sync::Arc;

use adapters::memory::{CacheLimits, MemoryLog, MemoryResultCache};
use adapters::sql::{SqlOptions, SqlTaskStore};
use adapters::system::{SystemClock, SystemRandom, UuidV7Ids};
use domain::Ports;
use domain::ports::{Clock, EventFeed, Observer, StoreError, TaskFeed, TaskSurvey};
use tracing::info;

use crate::Failure;
use crate::settings::StandaloneSettings;

/// The ports of the embedded form.
pub struct Embedded {
    /// Every port but the feed.
    pub ports: Ports,
    /// What the log brings to the worker.
    pub feed: Arc<dyn TaskFeed>,
    /// What happens to tasks.
    pub events: Arc<dyn EventFeed>,
    store: Arc<SqlTaskStore>,
}

/// Opens the file, brings its schema up to date, and returns to the queue what an earlier life of the program held: the
/// exclusive lock on the file proves that none of them lives.
///
/// # Errors
/// When the file cannot be opened, belongs to a running process, or has a newer schema.
pub async fn open(
    settings: &StandaloneSettings,
    observer: Arc<dyn Observer>,
) -> Result<Embedded, Failure> {
    let store = SqlTaskStore::connect(SqlOptions::new(&settings.database.url))
        .await
        .map_err(cause)?;
    for name in migration::up(&store.database()).await? {
        info!(
            event = "schema.migrated",
            name, "the schema was brought up to date"
        );
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let log = MemoryLog::new(clock.clone());
    let cache = CacheLimits {
        max_bytes: settings.cache_bytes,
        ..CacheLimits::default()
    };
    let ports = Ports {
        store: store.clone(),
        registry: store.clone(),
        audit: store.clone(),
        catalog: store.clone(),
        publisher: Arc::new(log.clone()),
        announcer: Arc::new(log.clone()),
        cache: Arc::new(MemoryResultCache::with_limits(clock.clone(), cache)),
        clock,
        ids: Arc::new(UuidV7Ids),
        random: Arc::new(SystemRandom::new()),
        observer,
    };
    domain::rescue::recover_all(&ports, settings.work.max_rescues).await?;
    Ok(Embedded {
        ports,
        feed: Arc::new(log.feed()),
        events: Arc::new(log),
        store,
    })
}

/// What is wrong with the file. The port's own words are about data or about a store that may come back.
fn cause(error: StoreError) -> Failure {
    match error {
        StoreError::Rejected(cause) | StoreError::Unavailable(cause) => cause,
        other => other.into(),
    }
}

impl Embedded {
    /// What stands in the queue and the claims.
    #[must_use]
    pub fn survey(&self) -> Arc<dyn TaskSurvey> {
        self.store.clone()
    }

    /// Finishes what the file is doing and lets it go.
    pub async fn close(self) {
        self.store.close().await;
    }
}
