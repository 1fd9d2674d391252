//! Every port in memory: fakes for tests, benches and simulation, and the queue and cache of the embedded form.
//!
//! They pass the same conformance suites as the real adapters. They are deterministic: no hash map is iterated, nothing
//! is spawned, no thread is used, and time comes from the clock they are given; under tokio's paused time with a
//! [`TokioClock`] a run repeats itself exactly.

mod cache;
mod clock;
mod ids;
mod log;
mod observer;
mod random;
mod store;

use std::sync::Arc;
use std::time::Duration;

use ports::{
    Clock, IdSource, NewTask, Payload, Ports, Priority, Task, TaskId, TaskMessage, TaskPublisher,
    TaskStore,
};

pub use cache::{CacheLimits, MemoryResultCache};
pub use clock::{ManualClock, TokioClock};
pub use ids::SequentialIds;
pub use log::{LogFull, LogLimits, MemoryFeed, MemoryLog};
pub use observer::MemoryObserver;
pub use random::SeededRandom;
pub use store::{MemoryTaskStore, QueueEntry, RefusedValue, StoreFull, StoreSnapshot};

/// One of everything, sharing a clock.
///
/// `store` is the registry, the audit and the catalog too, `log` the announcer too; [`ports`](Self::ports) has each in its role.
///
/// ```
/// use std::time::Duration;
/// use task_processor_adapters::memory::Memory;
/// use ports::{TaskFeed, TaskStatus};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let memory = Memory::new();
/// let id = memory.submit("Hello world!").await;
/// let feed = memory.log.feed();
/// assert_eq!(feed.receive(10).await.unwrap().len(), 1);
/// memory.advance(Duration::from_secs(5));
/// assert_eq!(memory.task(id).status, TaskStatus::Pending);
/// # }
/// ```
#[derive(Clone)]
pub struct Memory<C = ManualClock> {
    /// What time it is for all of them.
    pub clock: Arc<C>,
    /// The task store, the worker registry, the audit and the catalog.
    pub store: Arc<MemoryTaskStore>,
    /// The publisher and the announcer; [`MemoryLog::feed`] makes feeds.
    pub log: Arc<MemoryLog>,
    /// The result cache.
    pub cache: Arc<MemoryResultCache>,
    /// Ids in ascending order, the same in every run.
    pub ids: Arc<SequentialIds>,
    /// Chance, from seed 0 unless replaced.
    pub random: Arc<SeededRandom>,
    /// Remembers what happened.
    pub observer: Arc<MemoryObserver>,
}

impl Memory {
    /// One of everything under a [`ManualClock`].
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(ManualClock::default())
    }

    /// Moves the clock forward.
    pub fn advance(&self, time: Duration) {
        self.clock.advance(time);
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: Clock + 'static> Memory<C> {
    /// One of everything under this clock.
    #[must_use]
    pub fn with_clock(clock: C) -> Self {
        let clock = Arc::new(clock);
        let shared: Arc<dyn Clock> = Arc::<C>::clone(&clock);
        Self {
            store: Arc::new(MemoryTaskStore::new(Arc::clone(&shared))),
            log: Arc::new(MemoryLog::new(Arc::clone(&shared))),
            cache: Arc::new(MemoryResultCache::new(shared)),
            ids: Arc::new(SequentialIds::default()),
            random: Arc::new(SeededRandom::new(0)),
            observer: Arc::new(MemoryObserver::default()),
            clock,
        }
    }

    /// Each in its role. To have others in some: `Ports { observer, ..memory.ports() }`.
    #[must_use]
    pub fn ports(&self) -> Ports {
        Ports {
            store: self.store.clone(),
            registry: self.store.clone(),
            audit: self.store.clone(),
            catalog: self.store.clone(),
            publisher: self.log.clone(),
            announcer: self.log.clone(),
            cache: self.cache.clone(),
            clock: self.clock.clone(),
            ids: self.ids.clone(),
            random: self.random.clone(),
            observer: self.observer.clone(),
        }
    }

    /// Stores a task with this payload (priority 0, 5 attempts, at once) and publishes its message; the shortest way for
    /// a test to have one.
    ///
    /// # Panics
    /// When the payload holds NUL, or the store or the log is full.
    pub async fn submit(&self, payload: &str) -> TaskId {
        let payload = Payload::new(payload).expect("the payload of a test has no NUL");
        let id = self.ids.task_id();
        let task = NewTask {
            id,
            payload: payload.clone(),
            priority: Priority::default(),
            max_attempts: 5,
            run_at: None,
            messaged: true,
        };
        self.store
            .insert(&[task])
            .await
            .expect("the store in memory has room");
        let message = TaskMessage {
            id,
            payload,
            priority: Priority::default(),
            trace: None,
        };
        for outcome in self.log.publish(&[message]).await {
            outcome.expect("the log in memory has room");
        }
        id
    }

    /// The task of this id, as it stands.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn task(&self, id: TaskId) -> Task {
        self.store.task(id).expect("the task is in the store")
    }
}
