//! The conformance suites for the adapters in memory, and for the decorators around them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use ports::conformance::histories::{Range, caches_alike, logs_alike};
use ports::conformance::log::{DeadLetterRecord, OutputRecord};
use ports::conformance::{cache, events, log, store};
use ports::{
    Announcer, CacheError, ClaimRecord, Clock, Delivery, EventFeed, FeedError, Payload, Position,
    ResultCache, Standing, TaskAudit, TaskCatalog, TaskFeed, TaskId, TaskPublisher, TaskResult,
    TaskStore, WorkerRegistry,
};
use task_processor_adapters::faulty::Faulty;
use task_processor_adapters::memory::{CacheLimits, Memory, MemoryResultCache};
use task_processor_adapters::tiered::Tiered;
use tokio::runtime::Runtime;

#[path = "memory/log.rs"]
mod in_memory;

use in_memory::LogInMemory;

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

/// How many histories of caches and logs each test plays, unless told.
const HISTORIES: u64 = 100;

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime starts")
}

/// The cache in memory, and decorators around it, answer alike.
#[test]
fn caches_answer_alike_in_every_history() {
    let range = Range::of_environment(HISTORIES);
    let plain = async || cache::Subject::cache(&CacheInMemory::plain());
    caches_alike(&runtime(), range, plain, async || {
        cache::Subject::cache(&CacheInMemory::tiered())
    });
    caches_alike(&runtime(), range, plain, async || {
        cache::Subject::cache(&CacheInMemory::faulty())
    });
}

#[test]
fn logs_hold_the_same_in_every_history() {
    let range = Range::of_environment(HISTORIES);
    let plain = async || Arc::new(LogInMemory::plain()) as Arc<dyn log::Subject>;
    logs_alike(&runtime(), range, plain, async || {
        Arc::new(FaultyLog(LogInMemory::plain())) as Arc<dyn log::Subject>
    });
}

/// A cache that forgets every seventh result, so that it is known that the comparison can fail.
struct Forgetful {
    inner: Arc<dyn ResultCache>,
    puts: AtomicUsize,
}

#[async_trait]
impl ResultCache for Forgetful {
    async fn get(&self, ids: &[TaskId]) -> Result<Vec<Option<TaskResult>>, CacheError> {
        self.inner.get(ids).await
    }

    async fn put(&self, results: &[TaskResult]) -> Result<(), CacheError> {
        for result in results {
            if self.puts.fetch_add(1, Ordering::Relaxed) % 7 != 6 {
                self.inner.put(std::slice::from_ref(result)).await?;
            }
        }
        Ok(())
    }

    async fn ping(&self) -> Result<(), CacheError> {
        self.inner.ping().await
    }
}

#[test]
#[should_panic(expected = "the other cache answered")]
fn a_cache_that_forgets_is_found_out() {
    let plain = async || cache::Subject::cache(&CacheInMemory::plain());
    caches_alike(&runtime(), FIXED, plain, async || {
        Arc::new(Forgetful {
            inner: cache::Subject::cache(&CacheInMemory::plain()),
            puts: AtomicUsize::new(0),
        }) as Arc<dyn ResultCache>
    });
}

/// A log whose reader acknowledges one record more than it is told.
struct Hasty(LogInMemory);

struct HastyFeed(Box<dyn TaskFeed>);

#[async_trait]
impl log::Subject for Hasty {
    fn publisher(&self) -> Arc<dyn TaskPublisher> {
        self.0.publisher()
    }

    fn announcer(&self) -> Arc<dyn Announcer> {
        self.0.announcer()
    }

    async fn feed(&self) -> Box<dyn TaskFeed> {
        Box::new(HastyFeed(self.0.feed().await))
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
impl TaskFeed for HastyFeed {
    async fn receive(&self, limit: usize) -> Result<Vec<Delivery>, FeedError> {
        self.0.receive(limit).await
    }

    async fn acknowledge(&self, upto: &[Position]) -> Result<(), FeedError> {
        let further: Vec<Position> = upto
            .iter()
            .map(|position| Position {
                offset: position.offset + 1,
                ..*position
            })
            .collect();
        self.0.acknowledge(&further).await
    }

    fn standing(&self) -> Standing {
        self.0.standing()
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_that_passes_over_a_record_is_found_out() {
    let played = tokio::task::spawn_blocking(|| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        // What never comes is waited for in no time.
        let runtime = builder.enable_all().start_paused(true).build();
        let plain = async || Arc::new(LogInMemory::plain()) as Arc<dyn log::Subject>;
        logs_alike(
            &runtime.expect("a runtime starts"),
            FIXED,
            plain,
            async || Arc::new(Hasty(LogInMemory::plain())) as Arc<dyn log::Subject>,
        );
    });
    let panic = played.await.expect_err("is found out").into_panic();
    let said = panic.downcast_ref::<String>().map_or("", String::as_str);
    assert!(said.contains("never came"), "{said}");
}

/// The same histories whatever the environment says.
const FIXED: Range = Range {
    first_seed: 0,
    count: 100,
};

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

    async fn plant_stopped(&self, id: TaskId, cancelled: bool) {
        self.memory.store.plant_stopped(id, cancelled);
    }

    async fn remove_stopped(&self, id: TaskId) {
        self.memory.store.remove_stopped(id);
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
