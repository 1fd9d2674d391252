//! The conformance suites for the adapters in memory, and for the decorators around them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ports::conformance::log::{DeadLetterRecord, OutputRecord};
use ports::conformance::{cache, events, log, store};
use ports::{
    Announcer, ClaimRecord, Clock, DeadLetter, EventFeed, Payload, ResultCache, TaskAudit,
    TaskCatalog, TaskFeed, TaskId, TaskPublisher, TaskStore, WorkerRegistry,
};
use task_processor_adapters::faulty::Faulty;
use task_processor_adapters::memory::{CacheLimits, Memory, MemoryResultCache};
use task_processor_adapters::tiered::Tiered;

ports::store_conformance!(memory_store, StoreInMemory::plain());
ports::idempotency_conformance!(memory_idempotency, StoreInMemory::plain());
ports::registry_conformance!(memory_registry, StoreInMemory::plain());
ports::audit_conformance!(memory_audit, StoreInMemory::plain());
ports::survey_conformance!(memory_survey, StoreInMemory::plain());
ports::catalog_conformance!(memory_catalog, StoreInMemory::plain());
ports::log_conformance!(memory_log, LogInMemory::plain());
ports::announcer_conformance!(memory_announcer, LogInMemory::plain());
ports::events_conformance!(memory_events, LogInMemory::plain());
ports::cache_conformance!(memory_cache, CacheInMemory::plain());

ports::cache_conformance!(tiered_cache, CacheInMemory::tiered());
ports::store_conformance!(faulty_store, StoreInMemory::faulty());
ports::idempotency_conformance!(faulty_idempotency, StoreInMemory::faulty());
ports::audit_conformance!(faulty_audit, StoreInMemory::faulty());
ports::catalog_conformance!(faulty_catalog, StoreInMemory::faulty());
ports::log_conformance!(faulty_log, FaultyLog(LogInMemory::plain()));
ports::announcer_conformance!(faulty_announcer, FaultyLog(LogInMemory::plain()));
ports::events_conformance!(faulty_events, FaultyLog(LogInMemory::plain()));
ports::cache_conformance!(faulty_cache, CacheInMemory::faulty());

struct StoreInMemory {
    memory: Memory,
    store: Arc<dyn TaskStore>,
    audit: Arc<dyn TaskAudit>,
    catalog: Arc<dyn TaskCatalog>,
}

impl StoreInMemory {
    fn plain() -> Self {
        let memory = Memory::new();
        Self {
            store: memory.store.clone(),
            audit: memory.store.clone(),
            catalog: memory.store.clone(),
            memory,
        }
    }

    /// Nothing is ordered to go wrong, so nothing may.
    fn faulty() -> Self {
        let memory = Memory::new();
        let faulty = Arc::new(Faulty::new(Arc::clone(&memory.store)));
        Self {
            store: Arc::clone(&faulty) as Arc<dyn TaskStore>,
            audit: Arc::clone(&faulty) as Arc<dyn TaskAudit>,
            catalog: faulty,
            memory,
        }
    }
}

#[async_trait]
impl store::Subject for StoreInMemory {
    fn store(&self) -> Arc<dyn TaskStore> {
        Arc::clone(&self.store)
    }

    fn registry(&self) -> Arc<dyn WorkerRegistry> {
        Arc::clone(&self.memory.store) as Arc<dyn WorkerRegistry>
    }

    fn audit(&self) -> Arc<dyn TaskAudit> {
        Arc::clone(&self.audit)
    }

    fn catalog(&self) -> Arc<dyn TaskCatalog> {
        Arc::clone(&self.catalog)
    }

    async fn pass(&self, time: Duration) {
        self.memory.advance(time);
    }

    async fn plant_queue_row(&self, id: TaskId) {
        let now = self.memory.clock.now();
        self.memory.store.plant_queue_row(id, now);
    }

    async fn remove_queue_row(&self, id: TaskId) {
        self.memory.store.remove_queue_row(id);
    }

    async fn plant_claim(&self, claim: &ClaimRecord) {
        self.memory.store.plant_claim(claim);
    }

    async fn plant(&self, ids: &[TaskId], payload: &str) {
        let payload = Payload::new(payload).expect("no NUL");
        self.memory.store.plant(ids, &payload);
    }

    /// After every case, whatever it did, the store's own promise about where a task is must hold.
    async fn close(&self) {
        let contradictions = self.memory.store.snapshot().contradictions();
        assert!(contradictions.is_empty(), "{contradictions:#?}");
    }
}

struct LogInMemory {
    memory: Memory,
}

impl LogInMemory {
    fn plain() -> Self {
        Self {
            memory: Memory::new(),
        }
    }
}

#[async_trait]
impl log::Subject for LogInMemory {
    fn publisher(&self) -> Arc<dyn TaskPublisher> {
        Arc::clone(&self.memory.log) as Arc<dyn TaskPublisher>
    }

    fn announcer(&self) -> Arc<dyn Announcer> {
        Arc::clone(&self.memory.log) as Arc<dyn Announcer>
    }

    async fn feed(&self) -> Box<dyn TaskFeed> {
        Box::new(self.memory.log.feed())
    }

    async fn put_raw(&self, key: Option<Vec<u8>>, value: Option<Vec<u8>>) {
        self.memory
            .log
            .put_unreadable("not a task message", key, value)
            .expect("the log has room");
    }

    async fn outputs(&self, _at_least: usize) -> Vec<OutputRecord> {
        let records = self
            .memory
            .log
            .outputs()
            .into_iter()
            .map(|result| OutputRecord {
                key: Some(result.id.to_string().into_bytes()),
                result,
            });
        records.collect()
    }

    async fn dead_letters(&self, _at_least: usize) -> Vec<DeadLetterRecord> {
        let letters = self.memory.log.dead_letters();
        letters.into_iter().map(record_of).collect()
    }
}

/// Nothing is ordered to go wrong, so nothing may.
struct FaultyLog(LogInMemory);

#[async_trait]
impl log::Subject for FaultyLog {
    fn publisher(&self) -> Arc<dyn TaskPublisher> {
        Arc::new(Faulty::new(self.0.publisher()))
    }

    fn announcer(&self) -> Arc<dyn Announcer> {
        Arc::new(Faulty::new(self.0.announcer()))
    }

    async fn feed(&self) -> Box<dyn TaskFeed> {
        Box::new(Faulty::new(Arc::<dyn TaskFeed>::from(self.0.feed().await)))
    }

    async fn put_raw(&self, key: Option<Vec<u8>>, value: Option<Vec<u8>>) {
        self.0.put_raw(key, value).await;
    }

    async fn outputs(&self, at_least: usize) -> Vec<OutputRecord> {
        self.0.outputs(at_least).await
    }

    async fn dead_letters(&self, at_least: usize) -> Vec<DeadLetterRecord> {
        self.0.dead_letters(at_least).await
    }
}

#[async_trait]
impl events::Subject for LogInMemory {
    fn announcer(&self) -> Arc<dyn Announcer> {
        log::Subject::announcer(self)
    }

    fn feed(&self) -> Arc<dyn EventFeed> {
        Arc::clone(&self.memory.log) as Arc<dyn EventFeed>
    }
}

#[async_trait]
impl events::Subject for FaultyLog {
    fn announcer(&self) -> Arc<dyn Announcer> {
        log::Subject::announcer(self)
    }

    fn feed(&self) -> Arc<dyn EventFeed> {
        events::Subject::feed(&self.0)
    }
}

fn record_of(letter: DeadLetter) -> DeadLetterRecord {
    match letter {
        DeadLetter::Unreadable {
            reason, key, value, ..
        } => DeadLetterRecord {
            key,
            reason,
            value,
            task: None,
            attempts: None,
            error: None,
        },
        DeadLetter::Failed {
            id,
            payload,
            attempts,
            error,
            ..
        } => DeadLetterRecord {
            key: Some(id.to_string().into_bytes()),
            reason: "the task failed".to_owned(),
            value: Some(payload.into_string().into_bytes()),
            task: Some(id),
            attempts: Some(attempts),
            error: Some(error),
        },
    }
}

struct CacheInMemory {
    memory: Memory,
    cache: Arc<dyn ResultCache>,
}

impl CacheInMemory {
    fn plain() -> Self {
        let memory = Memory::new();
        let cache = Arc::clone(&memory.cache) as Arc<dyn ResultCache>;
        Self { memory, cache }
    }

    fn tiered() -> Self {
        let Self { memory, cache } = Self::plain();
        let far = Arc::new(MemoryResultCache::new(memory.clock.clone()));
        let cache = Arc::new(Tiered::new(cache, far, memory.observer.clone()));
        Self { memory, cache }
    }

    /// Nothing is ordered to go wrong, so nothing may.
    fn faulty() -> Self {
        let Self { memory, cache } = Self::plain();
        let cache = Arc::new(Faulty::new(cache));
        Self { memory, cache }
    }
}

#[async_trait]
impl cache::Subject for CacheInMemory {
    fn cache(&self) -> Arc<dyn ResultCache> {
        Arc::clone(&self.cache)
    }

    fn time_to_live(&self) -> Duration {
        CacheLimits::default().time_to_live
    }

    async fn pass(&self, time: Duration) {
        self.memory.advance(time);
    }

    async fn plant_rubbish(&self, _id: TaskId) {
        // A cache that holds values, not bytes, cannot hold rubbish.
    }
}

impl ports::conformance::survey::Subject for StoreInMemory {
    fn survey(&self) -> Arc<dyn ports::TaskSurvey> {
        Arc::clone(&self.memory.store) as Arc<dyn ports::TaskSurvey>
    }
}
