//! Many processes: tasks in PostgreSQL, news through Kafka, results in Redis.
//!
//! Only the database is needed to start. Without Kafka tasks are accepted and processed by age, without Redis results are
//! read from the database.

mod cache;
mod database;
mod kafka;

use std::sync::Arc;

use adapters::sql::SqlTaskStore;
use adapters::system::{SystemClock, SystemRandom, UuidV7Ids};
use domain::ports::{
    Clock, ConnectionPool, EventFeed, Observer, ResultCache, TaskFeed, TaskSurvey,
};
use domain::{Ports, Worker};
use tokio::task::JoinSet;

pub use self::database::for_migrations;
use self::kafka::{Feed, Kafka, Log};
use crate::Failure;
use crate::heartbeat::Heartbeat;
use crate::settings::{ServerSettings, WorkerSettings};
use crate::shutdown::Shutdown;
use crate::startup::unless_stopped;

/// The ports of a server.
pub struct Server {
    /// Every port.
    pub ports: Ports,
    /// What happens to tasks, in every process.
    pub events: Arc<dyn EventFeed>,
    store: Arc<SqlTaskStore>,
    /// Dropped with the server.
    _preparing: JoinSet<()>,
}

/// The ports of a worker.
pub struct Workshop {
    /// Every port but the feed.
    pub ports: Ports,
    /// What the log brings.
    pub feed: Arc<dyn TaskFeed>,
    feed_end: Feed,
    store: Arc<SqlTaskStore>,
    database_url: String,
    /// Dropped with the worker.
    _preparing: JoinSet<()>,
}

/// Waits for the database and its schema and makes the ports of a server.
///
/// # Errors
/// When the database or its schema is not there in time, or the Kafka client cannot talk to the broker.
pub async fn server(
    settings: &ServerSettings,
    observer: Arc<dyn Observer>,
    shutdown: &Shutdown,
) -> Result<Server, Failure> {
    const NAME: &str = "task-processor-server";
    let kafka = unless_stopped("Kafka", shutdown, Kafka::choose(&settings.kafka, NAME)).await?;
    let store = database::open(&settings.database, &settings.start, NAME, shutdown).await?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let redis = cache::open(&settings.redis).await?;
    let cache = cache::near(redis, settings.cache_bytes, clock.clone(), observer.clone());
    let ports = ports(store.clone(), kafka.log()?, cache, clock, observer);
    let events = kafka.events();
    let mut preparing = JoinSet::new();
    preparing.spawn(kafka.prepare(None));
    Ok(Server {
        ports,
        events,
        store,
        _preparing: preparing,
    })
}

/// Waits for the database and its schema and makes the ports of a worker.
///
/// # Errors
/// As [`server`].
pub async fn worker(
    settings: &WorkerSettings,
    observer: Arc<dyn Observer>,
    shutdown: &Shutdown,
) -> Result<Workshop, Failure> {
    const NAME: &str = "task-processor-worker";
    let kafka = unless_stopped("Kafka", shutdown, Kafka::choose(&settings.kafka, NAME)).await?;
    let store = database::open(&settings.database, &settings.start, NAME, shutdown).await?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    // Nobody reads results from a worker, so it keeps none itself.
    let cache = cache::open(&settings.redis).await?;
    let ports = ports(store.clone(), kafka.log()?, cache, clock, observer);
    let feed_end = kafka.feed()?;
    let mut preparing = JoinSet::new();
    preparing.spawn(kafka.prepare(Some(ports.registry.clone())));
    Ok(Workshop {
        ports,
        feed: feed_end.port(),
        feed_end,
        store,
        database_url: settings.database.url.clone(),
        _preparing: preparing,
    })
}

fn ports(
    store: Arc<SqlTaskStore>,
    log: Log,
    cache: Arc<dyn ResultCache>,
    clock: Arc<dyn Clock>,
    observer: Arc<dyn Observer>,
) -> Ports {
    Ports {
        registry: store.clone(),
        audit: store.clone(),
        catalog: store.clone(),
        store,
        publisher: log.publisher,
        announcer: log.announcer,
        cache,
        clock,
        ids: Arc::new(UuidV7Ids),
        random: Arc::new(SystemRandom::new()),
        observer,
    }
}

impl Server {
    /// What stands in the queue and the claims.
    #[must_use]
    pub fn survey(&self) -> Arc<dyn TaskSurvey> {
        self.store.clone()
    }

    /// The connections to the database.
    #[must_use]
    pub fn pool(&self) -> Arc<dyn ConnectionPool> {
        self.store.clone()
    }

    /// Waits for the statements that run and closes every connection.
    pub async fn close(self) {
        self.store.close().await;
    }
}

impl Workshop {
    /// What stands in the queue and the claims.
    #[must_use]
    pub fn survey(&self) -> Arc<dyn TaskSurvey> {
        self.store.clone()
    }

    /// The connections to the database.
    #[must_use]
    pub fn pool(&self) -> Arc<dyn ConnectionPool> {
        self.store.clone()
    }

    /// Starts the worker's heartbeat on a thread and a database connection of its own.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn heartbeat(&self, worker: &Worker) -> std::io::Result<Heartbeat> {
        let url = self.database_url.clone();
        Heartbeat::start(worker.heart(), move || database::registry(url.clone()))
    }

    /// Leaves the consumer group, waits for the statements that run and closes every connection.
    pub async fn close(self) {
        self.feed_end.close().await;
        self.store.close().await;
    }
}
