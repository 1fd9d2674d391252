//! Stores at work without HTTP, log and cache: what is measured is the shape of the writes alone.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use adapters::memory::{Memory, MemoryResultCache};
use adapters::sql::{SqlOptions, SqlTaskStore};
use adapters::system::{SystemClock, SystemRandom, UuidV7Ids};
use async_trait::async_trait;
use domain::{Ports, Submission, SubmitConfig, Submitter};
use ports::{
    ClaimTicket, DeliveryOutcome, IdSource, NewTask, Next, NoObserver, Payload, Priority,
    PublishError, Spent, TaskMessage, TaskPublisher, TaskStatus, TaskStore, Transition,
    WorkerRegistry, WriteOutcome,
};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::failure::Failure;

/// Who submit at once.
const PRODUCERS: usize = 64;
/// As the bar has it.
pub(crate) const BATCH: usize = 500;

fn payload() -> Result<Payload, Failure> {
    Ok(Payload::new("x".repeat(100))?)
}

fn new_task(payload: &Payload) -> NewTask {
    NewTask {
        id: UuidV7Ids.task_id(),
        payload: payload.clone(),
        priority: Priority::default(),
        max_attempts: 5,
        run_at: None,
        messaged: true,
    }
}

/// A SQLite file with `synchronous=FULL`, as the embedded form has it.
pub(crate) struct File(Arc<SqlTaskStore>);

impl File {
    pub(crate) async fn open(path: &Path) -> Result<Self, Failure> {
        let url = format!("sqlite://{}", path.display());
        let store = SqlTaskStore::connect(SqlOptions::new(url)).await?;
        migration::up(&store.database()).await?;
        Ok(Self(store))
    }

    /// Tasks stored a second when each is a commit of its own.
    pub(crate) async fn one_by_one(&self, length: Duration) -> Result<f64, Failure> {
        let store = Arc::clone(&self.0);
        let payload = payload()?;
        count(length, move || {
            let (store, task) = (Arc::clone(&store), new_task(&payload));
            async move { Ok(store.insert(&[task]).await.map(drop)?) }
        })
        .await
    }

    /// Tasks stored a second when those that wait share a commit.
    pub(crate) async fn coalesced(&self, length: Duration) -> Result<f64, Failure> {
        let submitter = Arc::new(Submitter::start(
            &self.ports(),
            SubmitConfig {
                // SQLite has one.
                writers: 1,
                ..SubmitConfig::default()
            },
        ));
        let submission = Submission::new(payload()?);
        let shared = Arc::clone(&submitter);
        let stored = count(length, move || {
            let (submitter, submission) = (Arc::clone(&shared), submission.clone());
            async move { Ok(submitter.submit(vec![submission]).await.map(drop)?) }
        })
        .await;
        submitter.stop(Duration::from_secs(10)).await;
        stored
    }

    fn ports(&self) -> Ports {
        let memory = Memory::with_clock(SystemClock);
        Ports {
            store: self.0.clone(),
            registry: self.0.clone(),
            audit: self.0.clone(),
            catalog: self.0.clone(),
            publisher: Arc::new(NoLog),
            announcer: memory.log.clone(),
            cache: Arc::new(MemoryResultCache::new(Arc::new(SystemClock))),
            clock: Arc::new(SystemClock),
            ids: Arc::new(UuidV7Ids),
            random: Arc::new(SystemRandom::new()),
            observer: Arc::new(NoObserver),
        }
    }

    pub(crate) async fn close(self) {
        self.0.close().await;
    }
}

struct NoLog;

#[async_trait]
impl TaskPublisher for NoLog {
    async fn publish(&self, messages: &[TaskMessage]) -> Vec<Result<(), PublishError>> {
        messages.iter().map(|_| Ok(())).collect()
    }

    async fn ping(&self) -> Result<(), PublishError> {
        Ok(())
    }
}

/// How often a second all producers together are through.
async fn count<F, W>(length: Duration, work: F) -> Result<f64, Failure>
where
    F: Fn() -> W + Clone + Send + Sync + 'static,
    W: Future<Output = Result<(), Failure>> + Send,
{
    let (begin, done) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let mut producers: JoinSet<Result<(), Failure>> = JoinSet::new();
    for _ in 0..PRODUCERS {
        let (work, done) = (work.clone(), Arc::clone(&done));
        producers.spawn(async move {
            while begin.elapsed() < length {
                work().await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
    }
    while let Some(ended) = producers.join_next().await {
        ended??;
    }
    Ok(done.load(Ordering::Relaxed) as f64 / begin.elapsed().as_secs_f64())
}

/// The whole life of tasks on PostgreSQL, in batches.
pub(crate) struct Lives {
    store: Arc<SqlTaskStore>,
    worker: ports::WorkerId,
    payload: Payload,
}

impl Lives {
    pub(crate) async fn begin(url: &str) -> Result<Self, Failure> {
        let store = SqlTaskStore::connect(SqlOptions::new(url)).await?;
        let worker = UuidV7Ids.worker_id();
        store.register(worker, "bars").await?;
        Ok(Self {
            store,
            worker,
            payload: payload()?,
        })
    }

    /// One batch: stored, claimed, done, released.
    pub(crate) async fn live(&self) -> Result<(), Failure> {
        let tasks: Vec<NewTask> = (0..BATCH).map(|_| new_task(&self.payload)).collect();
        self.store.insert(&tasks).await?;
        let ids: Vec<_> = tasks.iter().map(|task| task.id).collect();
        let ticket = ClaimTicket {
            claim: UuidV7Ids.claim_id(),
            worker: self.worker,
        };
        let mut done = Vec::with_capacity(BATCH);
        for outcome in self.store.claim_delivered(ticket, &ids).await? {
            let DeliveryOutcome::Claimed(task) = outcome else {
                return Err(format!("a task that waited was not claimed: {outcome:?}").into());
            };
            done.push(Transition {
                id: task.id,
                fence: task.fence,
                from: TaskStatus::Processing,
                to: Next::Done {
                    result: "x".repeat(100) + " (len=100)",
                },
                spent: Spent::Nothing,
            });
        }
        for outcome in self.store.transition(&done).await? {
            if outcome.write != WriteOutcome::Applied {
                return Err(format!("a claimed task did not become done: {outcome:?}").into());
            }
        }
        Ok(self.store.release(&[ticket.claim]).await?)
    }

    pub(crate) async fn close(self) {
        self.store.close().await;
    }
}
