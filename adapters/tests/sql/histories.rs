//! Generated histories: the databases answer as the store in memory does, and keep their promises when two call at once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use ports::conformance::histories::{Range, alike, at_once};
use ports::conformance::store;
use ports::conformance::store::Subject as _;
use ports::{
    ClaimError, ClaimId, ClaimRecord, ClaimTicket, ClaimedTask, Clock, DeliveryOutcome, Horizon,
    InsertOutcome, KeptRequest, KeyedRequest, NewTask, Payload, Spent, StoreError, Task, TaskAudit,
    TaskCatalog, TaskId, TaskStore, Timestamp, Totals, Transition, TransitionOutcome, Whereabouts,
    WorkerId, WorkerRegistry, WriteOutcome,
};
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
    wrong: Option<Wrong>,
}

impl InMemory {
    fn made(wrong: Option<Wrong>) -> Arc<dyn store::Subject> {
        let clock = Arc::new(RisingClock::default());
        Arc::new(Self {
            store: Arc::new(MemoryTaskStore::new(clock.clone())),
            clock,
            wrong,
        })
    }

    async fn empty() -> Arc<dyn store::Subject> {
        Self::made(None)
    }
}

/// How a store may be wrong, so little that no case of the suite might look for it.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    /// A claim by age takes what lies exactly on its horizon.
    HorizonIncluded,
    /// A page of claims begins with the one after which it was to begin.
    PageRepeated,
    /// Of several tasks that have no message after all, the last is forgotten.
    LastKeepsItsMessage,
    /// A move of a waiting task to somewhere it waits again counts no attempt.
    AttemptForgotten,
    /// A failed move that is repeated with another error counts as the same.
    ErrorNotCompared,
    /// An id that stands twice in one slice is told apart from an id that exists.
    RepeatedIdApplied,
    /// A ticket that was used before gets what is due since.
    TicketUsedTwice,
}

/// A store in memory that is wrong in one way.
struct WrongStore {
    inner: Arc<MemoryTaskStore>,
    wrong: Wrong,
}

#[async_trait]
impl TaskStore for WrongStore {
    async fn insert(&self, tasks: &[NewTask]) -> Result<Vec<InsertOutcome>, StoreError> {
        let mut outcomes = self.inner.insert(tasks).await?;
        if matches!(self.wrong, Wrong::RepeatedIdApplied) {
            for later in 1..tasks.len() {
                let same = |earlier: &usize| tasks[*earlier].id == tasks[later].id;
                if let Some(earlier) = (0..later).find(same) {
                    outcomes[later] = outcomes[earlier];
                }
            }
        }
        Ok(outcomes)
    }

    async fn insert_keyed(
        &self,
        requests: &[KeyedRequest],
    ) -> Result<Vec<KeptRequest>, StoreError> {
        self.inner.insert_keyed(requests).await
    }

    async fn prune_keys(&self, age: Duration, limit: usize) -> Result<usize, StoreError> {
        self.inner.prune_keys(age, limit).await
    }

    async fn get(&self, ids: &[TaskId]) -> Result<Vec<Option<Task>>, StoreError> {
        self.inner.get(ids).await
    }

    async fn whereabouts(&self, ids: &[TaskId]) -> Result<Vec<Option<Whereabouts>>, StoreError> {
        self.inner.whereabouts(ids).await
    }

    async fn claim_delivered(
        &self,
        ticket: ClaimTicket,
        ids: &[TaskId],
    ) -> Result<Vec<DeliveryOutcome>, ClaimError> {
        let mut ticket = ticket;
        if matches!(self.wrong, Wrong::TicketUsedTwice) {
            let claims = self.inner.claims_of(ticket.worker, None, 100).await?;
            if claims.iter().any(|claim| claim.id == ticket.claim) {
                ticket.claim.0 = uuid::Uuid::now_v7();
            }
        }
        self.inner.claim_delivered(ticket, ids).await
    }

    async fn claim_aged(
        &self,
        ticket: ClaimTicket,
        horizon: Horizon,
        grace: Duration,
        limit: usize,
    ) -> Result<Vec<ClaimedTask>, ClaimError> {
        let horizon = match (self.wrong, horizon) {
            (Wrong::HorizonIncluded, Horizon::Before(time)) => {
                Horizon::Before(time.after(Duration::from_micros(1)))
            }
            _ => horizon,
        };
        self.inner.claim_aged(ticket, horizon, grace, limit).await
    }

    async fn transition(
        &self,
        transitions: &[Transition],
    ) -> Result<Vec<TransitionOutcome>, StoreError> {
        let mut transitions = transitions.to_vec();
        if matches!(self.wrong, Wrong::AttemptForgotten) {
            for moved in &mut transitions {
                if moved.from == moved.to.status() && moved.spent == Spent::Attempt {
                    moved.spent = Spent::Nothing;
                }
            }
        }
        let mut outcomes = self.inner.transition(&transitions).await?;
        if matches!(self.wrong, Wrong::ErrorNotCompared) {
            let ids: Vec<TaskId> = transitions.iter().map(|moved| moved.id).collect();
            let tasks = self.inner.get(&ids).await?;
            for ((outcome, moved), task) in outcomes.iter_mut().zip(&transitions).zip(tasks) {
                let Some(task) = task else { continue };
                let stands = task.fence == moved.fence.next() && task.status == moved.to.status();
                if outcome.write == WriteOutcome::Stale && stands && task.error.is_some() {
                    outcome.write = WriteOutcome::AlreadyApplied;
                    outcome.updated_at = Some(task.updated_at);
                }
            }
        }
        Ok(outcomes)
    }

    async fn release(&self, claims: &[ClaimId]) -> Result<(), StoreError> {
        self.inner.release(claims).await
    }

    async fn claims_of(
        &self,
        worker: WorkerId,
        after: Option<ClaimId>,
        limit: usize,
    ) -> Result<Vec<ClaimRecord>, StoreError> {
        let after = match (self.wrong, after) {
            (Wrong::PageRepeated, Some(ClaimId(id))) => {
                Some(ClaimId(uuid::Uuid::from_u128(id.as_u128() - 1)))
            }
            _ => after,
        };
        self.inner.claims_of(worker, after, limit).await
    }

    async fn mark_unmessaged(&self, ids: &[TaskId]) -> Result<(), StoreError> {
        let forgotten = usize::from(matches!(self.wrong, Wrong::LastKeepsItsMessage));
        let kept = ids.len() - forgotten.min(ids.len().saturating_sub(1));
        self.inner.mark_unmessaged(&ids[..kept]).await
    }

    async fn totals(&self) -> Result<Totals, StoreError> {
        self.inner.totals().await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.inner.ping().await
    }
}

#[async_trait]
impl store::Subject for InMemory {
    fn store(&self) -> Arc<dyn TaskStore> {
        match self.wrong {
            None => Arc::clone(&self.store) as Arc<dyn TaskStore>,
            Some(wrong) => Arc::new(WrongStore {
                inner: Arc::clone(&self.store),
                wrong,
            }),
        }
    }

    fn registry(&self) -> Arc<dyn WorkerRegistry> {
        Arc::clone(&self.store) as Arc<dyn WorkerRegistry>
    }

    fn audit(&self) -> Arc<dyn TaskAudit> {
        Arc::clone(&self.store) as Arc<dyn TaskAudit>
    }

    fn catalog(&self) -> Arc<dyn TaskCatalog> {
        Arc::clone(&self.store) as Arc<dyn TaskCatalog>
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

    async fn plant_stopped(&self, id: TaskId, cancelled: bool) {
        self.store.plant_stopped(id, cancelled);
    }

    async fn remove_stopped(&self, id: TaskId) {
        self.store.remove_stopped(id);
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

/// What a comparison is worth that finds nothing: each of these it finds.
#[test]
fn a_store_that_is_slightly_wrong_is_found_out() {
    let runtime = runtime();
    for wrong in [
        Wrong::HorizonIncluded,
        Wrong::PageRepeated,
        Wrong::LastKeepsItsMessage,
        Wrong::AttemptForgotten,
        Wrong::ErrorNotCompared,
        Wrong::RepeatedIdApplied,
        Wrong::TicketUsedTwice,
    ] {
        let range = Range {
            first_seed: 0,
            count: 3_000,
        };
        let comparing = AssertUnwindSafe(|| {
            let subject = async || InMemory::made(Some(wrong));
            alike(&runtime, range, InMemory::empty, subject);
        });
        let found = catch_unwind(comparing).expect_err(&format!("{wrong:?} was not found"));
        let said = found.downcast_ref::<String>().expect("a text");
        println!("{wrong:?}: {}", said.lines().next().unwrap_or_default());
        assert!(said.starts_with("history "), "{said}");
    }
}
