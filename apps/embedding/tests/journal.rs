//! The store adapter of this program against every promise of its ports, and against what only a file can meet.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use adapters::memory::ManualClock;
use async_trait::async_trait;
use domain::ports::conformance::store::Subject;
use domain::ports::{
    ClaimId, ClaimRecord, ClaimTicket, Clock as _, NewTask, Next, Payload, Priority, Spent,
    TaskAudit, TaskCatalog, TaskId, TaskStatus, TaskStore, Transition, WorkerId, WorkerRegistry,
};
use task_processor_embedding::journal::JournalStore;
use uuid::Uuid;

ports::store_conformance!(journal, Fresh::new());
ports::registry_conformance!(journal_registry, Fresh::new());
ports::idempotency_conformance!(journal_idempotency, Fresh::new());
ports::audit_conformance!(journal_audit, Fresh::new());
ports::catalog_conformance!(journal_catalog, Fresh::new());

/// A path of its own, removed in the end.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("task-journal-{}-{number}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A file that stays behind harms nobody.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn open(path: &Path, clock: &Arc<ManualClock>) -> Arc<JournalStore> {
    Arc::new(JournalStore::open(path, clock.clone()).expect("the journal opens"))
}

/// What the suites ask for.
struct Fresh {
    store: Arc<JournalStore>,
    clock: Arc<ManualClock>,
    _place: Place,
}

impl Fresh {
    fn new() -> Self {
        let place = Place::new();
        let clock = Arc::new(ManualClock::default());
        Self {
            store: open(&place.0, &clock),
            clock,
            _place: place,
        }
    }
}

#[async_trait]
impl Subject for Fresh {
    fn store(&self) -> Arc<dyn TaskStore> {
        self.store.clone()
    }

    fn registry(&self) -> Arc<dyn WorkerRegistry> {
        self.store.clone()
    }

    fn audit(&self) -> Arc<dyn TaskAudit> {
        self.store.clone()
    }

    fn catalog(&self) -> Arc<dyn TaskCatalog> {
        self.store.clone()
    }

    async fn pass(&self, time: Duration) {
        self.clock.advance(time);
    }

    async fn plant(&self, ids: &[TaskId], payload: &str) {
        // The state has the time of the last call; one that changes nothing brings it up to date.
        self.store.ping().await.expect("it answers");
        let payload = Payload::new(payload).expect("no NUL");
        self.store.state().plant(ids, &payload);
    }

    async fn plant_queue_row(&self, id: TaskId) {
        self.store.state().plant_queue_row(id, self.clock.now());
    }

    async fn remove_queue_row(&self, id: TaskId) {
        self.store.state().remove_queue_row(id);
    }

    async fn plant_claim(&self, claim: &ClaimRecord) {
        self.store.state().plant_claim(claim);
    }

    async fn plant_stopped(&self, id: TaskId, cancelled: bool) {
        self.store.state().plant_stopped(id, cancelled);
    }

    async fn remove_stopped(&self, id: TaskId) {
        self.store.state().remove_stopped(id);
    }
}

fn task(number: u128) -> NewTask {
    NewTask {
        id: TaskId(Uuid::from_u128(number)),
        payload: Payload::new(format!("\"{number}\" é\n")).expect("no NUL"),
        priority: Priority::MAX,
        max_attempts: 3,
        run_at: None,
        messaged: false,
    }
}

/// A life in which a bit of everything happens.
async fn live(store: &JournalStore, clock: &ManualClock) {
    let worker = WorkerId(Uuid::from_u128(1));
    let ticket = ClaimTicket {
        claim: ClaimId(Uuid::from_u128(2)),
        worker,
    };
    let tasks: Vec<NewTask> = (10..20).map(task).collect();
    let ids: Vec<TaskId> = tasks.iter().map(|task| task.id).collect();
    store.register(worker, "one").await.expect("registered");
    store.insert(&tasks).await.expect("inserted");
    clock.advance(Duration::from_secs(1));
    store.beat(worker, None).await.expect("alive");
    store
        .claim_delivered(ticket, &ids[..5])
        .await
        .expect("claimed");
    clock.advance(Duration::from_micros(1_234_567));
    let next = [
        Next::Done { result: "1".into() },
        Next::Failed { error: "2".into() },
        Next::Pending {
            delay: Duration::from_secs(9),
            error: None,
        },
    ];
    let moves: Vec<Transition> = ids
        .iter()
        .zip(next)
        .map(|(id, to)| Transition {
            id: *id,
            fence: domain::ports::Fence(1),
            from: TaskStatus::Processing,
            to,
            spent: Spent::Attempt,
        })
        .collect();
    store.transition(&moves).await.expect("moved");
    // Refused then, and so again.
    let gone = ClaimTicket {
        claim: ClaimId(Uuid::from_u128(3)),
        worker: WorkerId(Uuid::from_u128(4)),
    };
    store.claim_delivered(gone, &ids).await.expect_err("nobody");
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let place = Place::new();
    let clock = Arc::new(ManualClock::default());
    let before = {
        let store = open(&place.0, &clock);
        live(&store, &clock).await;
        store.state().snapshot()
    };
    assert!(before.contradictions().is_empty());
    assert_eq!(
        (before.tasks.len(), before.claims.len(), before.totals.done),
        (10, 1, 1)
    );
    clock.advance(Duration::from_secs(3_600));
    let store = open(&place.0, &clock);
    assert_eq!(store.state().snapshot(), before);
    store.insert(&[task(99)]).await.expect("it goes on");
    assert_eq!(store.state().snapshot().tasks.len(), 11);
}

#[tokio::test]
async fn a_line_that_a_crash_cut_off_is_dropped() {
    let place = Place::new();
    let clock = Arc::new(ManualClock::default());
    let store = open(&place.0, &clock);
    store.insert(&[task(1)]).await.expect("inserted");
    let whole = std::fs::read(&place.0).expect("the file");
    store.insert(&[task(2)]).await.expect("inserted");
    drop(store);
    let both = std::fs::read(&place.0).expect("the file");
    for cut in whole.len()..both.len() {
        std::fs::write(&place.0, &both[..cut]).expect("the file");
        let store = open(&place.0, &clock);
        assert_eq!(store.state().snapshot().tasks.len(), 1, "{cut}");
        store.insert(&[task(3)]).await.expect("it goes on");
        drop(store);
        let store = open(&place.0, &clock);
        assert_eq!(store.state().snapshot().tasks.len(), 2, "{cut}");
    }
}

#[test]
fn a_journal_has_one_process_and_holds_nothing_else() {
    let place = Place::new();
    let clock = Arc::new(ManualClock::default());
    let store = open(&place.0, &clock);
    assert!(JournalStore::open(&place.0, clock.clone()).is_err());
    drop(store);
    std::fs::write(&place.0, "a letter\n").expect("the file");
    assert!(JournalStore::open(&place.0, clock).is_err());
}
