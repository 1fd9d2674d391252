//! Generated histories: the databases answer as the store in memory does, and keep their promises when two call at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use ports::conformance::histories::{Range, alike, at_once};
use ports::conformance::store;
use ports::conformance::store::Subject as _;
use ports::{ClaimRecord, Clock, Payload, TaskAudit, TaskId, TaskStore, Timestamp, WorkerRegistry};
use task_processor_adapters::memory::MemoryTaskStore;
use task_processor_adapters::system::SystemClock;
use tokio::runtime::Runtime;

use crate::database::Subject;

/// So many take a few seconds; `HISTORIES=10000` takes minutes.
const ALIKE: u64 = 300;
const AT_ONCE: u64 = 150;

/// The system's time, and never the same twice: a store in memory answers in less than a microsecond.
#[derive(Default)]
struct RisingClock {
    last: AtomicI64,
}

impl Clock for RisingClock {
    fn now(&self) -> Timestamp {
        let system = SystemClock.now().as_micros();
        let rise = |last: i64| Some(system.max(last + 1));
        let last = self
            .last
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, rise);
        Timestamp::from_micros(system.max(last.unwrap_or_default() + 1))
    }
}

struct InMemory {
    clock: Arc<RisingClock>,
    store: Arc<MemoryTaskStore>,
}

impl InMemory {
    async fn empty() -> Arc<dyn store::Subject> {
        let clock = Arc::new(RisingClock::default());
        Arc::new(Self {
            store: Arc::new(MemoryTaskStore::new(clock.clone())),
            clock,
        })
    }
}

#[async_trait]
impl store::Subject for InMemory {
    fn store(&self) -> Arc<dyn TaskStore> {
        Arc::clone(&self.store) as Arc<dyn TaskStore>
    }

    fn registry(&self) -> Arc<dyn WorkerRegistry> {
        Arc::clone(&self.store) as Arc<dyn WorkerRegistry>
    }

    fn audit(&self) -> Arc<dyn TaskAudit> {
        Arc::clone(&self.store) as Arc<dyn TaskAudit>
    }

    async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    async fn plant(&self, ids: &[TaskId], payload: &str) {
        self.store
            .plant(ids, &Payload::new(payload).expect("no NUL"));
    }

    async fn plant_queue_row(&self, id: TaskId) {
        self.store.plant_queue_row(id, self.clock.now());
    }

    async fn remove_queue_row(&self, id: TaskId) {
        self.store.remove_queue_row(id);
    }

    async fn plant_claim(&self, claim: &ClaimRecord) {
        self.store.plant_claim(claim);
    }
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build();
    runtime.expect("a runtime starts")
}

/// Runs histories on one database and gives it back in the end.
fn on_one(make: impl Future<Output = Subject>, histories: impl FnOnce(&Runtime, &Arc<Subject>)) {
    let runtime = runtime();
    let subject = Arc::new(runtime.block_on(make));
    histories(&runtime, &subject);
    runtime.block_on(async {
        subject.empty().await;
        subject.close().await;
    });
}

async fn emptied(subject: &Arc<Subject>) -> Arc<dyn store::Subject> {
    subject.empty().await;
    Arc::clone(subject) as Arc<dyn store::Subject>
}

fn answers_as_memory_does(make: impl Future<Output = Subject>) {
    on_one(make, |runtime, subject| {
        let range = Range::of_environment(ALIKE);
        let subject = async || emptied(subject).await;
        alike(runtime, range, InMemory::empty, subject);
    });
}

fn keeps_its_promises_at_once(make: impl Future<Output = Subject>) {
    on_one(make, |runtime, subject| {
        let range = Range::of_environment(AT_ONCE);
        at_once(runtime, range, async || emptied(subject).await);
    });
}

#[test]
fn sqlite_answers_as_memory_does() {
    answers_as_memory_does(Subject::sqlite());
}

#[test]
#[ignore = "needs PostgreSQL: run cargo xtask test"]
fn postgres_answers_as_memory_does() {
    answers_as_memory_does(Subject::postgres());
}

#[test]
fn in_memory_two_at_once_keep_every_promise() {
    at_once(&runtime(), Range::of_environment(AT_ONCE), InMemory::empty);
}

#[test]
fn on_sqlite_two_at_once_keep_every_promise() {
    keeps_its_promises_at_once(Subject::sqlite());
}

#[test]
#[ignore = "needs PostgreSQL: run cargo xtask test"]
fn on_postgres_two_at_once_keep_every_promise() {
    keeps_its_promises_at_once(Subject::postgres());
}
