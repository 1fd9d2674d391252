//! Store, registry and audit as one process sees them.

use std::sync::Arc;
use std::time::Duration;

use adapters::memory::MemoryLog;
use async_trait::async_trait;
use ports::{
    AuditPage, BeatReply, ClaimError, ClaimId, ClaimRecord, ClaimTicket, ClaimedTask,
    DeliveryOutcome, Horizon, InsertOutcome, KeptRequest, KeyedRequest, NewTask, RemoveReply,
    StoreError, Task, TaskAudit, TaskEvent, TaskId, TaskMessage, TaskPublisher, TaskStore,
    Timestamp, Totals, Transition, TransitionOutcome, Whereabouts, WorkerEntry, WorkerId,
    WorkerRegistry, WriteOutcome,
};

use super::Struck;
use crate::link::Link;
use crate::record::RecordingStore;
use crate::sky::Call;

pub(crate) struct ChaosStore {
    inner: Arc<RecordingStore>,
    link: Arc<Link>,
    /// Where messages go that arrive before the commit.
    log: Arc<MemoryLog>,
    lies: bool,
}

impl ChaosStore {
    pub(crate) fn new(
        inner: Arc<RecordingStore>,
        link: Arc<Link>,
        log: Arc<MemoryLog>,
        lies: bool,
    ) -> Self {
        Self {
            inner,
            link,
            log,
            lies,
        }
    }

    async fn send_early(&self, tasks: &[NewTask]) {
        let sky = &self.link.sky;
        let early: Vec<TaskMessage> = tasks
            .iter()
            .filter(|task| task.messaged && sky.strikes(sky.weather.message_early))
            .map(|task| TaskMessage {
                id: task.id,
                payload: task.payload.clone(),
                priority: task.priority,
                trace: None,
            })
            .collect();
        if !early.is_empty() {
            sky.trace
                .note(self.link.who, "early message", early.len() as u64, || {
                    format!("{} before the commit", early.len())
                });
            self.log.publish(&early).await;
            tokio::time::sleep(sky.chance.millis(0, 30)).await;
        }
    }
}

fn unavailable<T>() -> Result<T, StoreError> {
    Err(StoreError::Unavailable(Struck.into()))
}

fn no_claim<T>() -> Result<T, ClaimError> {
    Err(ClaimError::Store(StoreError::Unavailable(Struck.into())))
}

#[async_trait]
impl TaskStore for ChaosStore {
    async fn insert(&self, tasks: &[NewTask]) -> Result<Vec<InsertOutcome>, StoreError> {
        if tasks.is_empty() {
            return Ok(Vec::new());
        }
        if self.lies && self.link.sky.chance.one_in(8) {
            let made = InsertOutcome {
                write: WriteOutcome::Applied,
                created_at: Timestamp::EPOCH,
            };
            return Ok(vec![made; tasks.len()]);
        }
        self.send_early(tasks).await;
        let (inner, tasks) = (Arc::clone(&self.inner), tasks.to_vec());
        let deed = async move { inner.insert(&tasks).await };
        let answer = self.link.call(Call::Insert, deed).await;
        answer.unwrap_or_else(unavailable)
    }

    async fn insert_keyed(
        &self,
        requests: &[KeyedRequest],
    ) -> Result<Vec<KeptRequest>, StoreError> {
        let (inner, requests) = (Arc::clone(&self.inner), requests.to_vec());
        let deed = async move { inner.insert_keyed(&requests).await };
        let answer = self.link.call(Call::InsertKeyed, deed).await;
        answer.unwrap_or_else(unavailable)
    }

    async fn prune_keys(&self, age: Duration, limit: usize) -> Result<usize, StoreError> {
        let inner = Arc::clone(&self.inner);
        let deed = async move { inner.prune_keys(age, limit).await };
        let answer = self.link.call(Call::PruneKeys, deed).await;
        answer.unwrap_or_else(unavailable)
    }

    async fn get(&self, ids: &[TaskId]) -> Result<Vec<Option<Task>>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let (inner, ids) = (Arc::clone(&self.inner), ids.to_vec());
        let deed = async move { inner.get(&ids).await };
        let answer = self.link.call(Call::Get, deed).await;
        answer.unwrap_or_else(unavailable)
    }

    async fn whereabouts(&self, ids: &[TaskId]) -> Result<Vec<Option<Whereabouts>>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let (inner, ids) = (Arc::clone(&self.inner), ids.to_vec());
        let deed = async move { inner.whereabouts(&ids).await };
        let answer = self.link.call(Call::Whereabouts, deed).await;
        answer.unwrap_or_else(unavailable)
    }

    async fn claim_delivered(
        &self,
        ticket: ClaimTicket,
        ids: &[TaskId],
    ) -> Result<Vec<DeliveryOutcome>, ClaimError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let (inner, ids) = (Arc::clone(&self.inner), ids.to_vec());
        let deed = async move { inner.claim_delivered(ticket, &ids).await };
        let answer = self.link.call(Call::ClaimDelivered, deed).await;
        answer.unwrap_or_else(no_claim)
    }

    async fn claim_aged(
        &self,
        ticket: ClaimTicket,
        horizon: Horizon,
        grace: Duration,
        limit: usize,
    ) -> Result<Vec<ClaimedTask>, ClaimError> {
        let inner = Arc::clone(&self.inner);
        let deed = async move { inner.claim_aged(ticket, horizon, grace, limit).await };
        let answer = self.link.call(Call::ClaimAged, deed).await;
        answer.unwrap_or_else(no_claim)
    }

    async fn transition(
        &self,
        transitions: &[Transition],
    ) -> Result<Vec<TransitionOutcome>, StoreError> {
        if transitions.is_empty() {
            return Ok(Vec::new());
        }
        let (inner, transitions) = (Arc::clone(&self.inner), transitions.to_vec());
        let deed = async move { inner.transition(&transitions).await };
        let answer = self.link.call(Call::Transition, deed).await;
        answer.unwrap_or_else(unavailable)
    }

    async fn release(&self, claims: &[ClaimId]) -> Result<(), StoreError> {
        if claims.is_empty() {
            return Ok(());
        }
        let (inner, claims) = (Arc::clone(&self.inner), claims.to_vec());
        let deed = async move { inner.release(&claims).await };
        let answer = self.link.call(Call::Release, deed).await;
        answer.unwrap_or_else(unavailable)
    }

    async fn claims_of(
        &self,
        worker: WorkerId,
        after: Option<ClaimId>,
        limit: usize,
    ) -> Result<Vec<ClaimRecord>, StoreError> {
        let inner = Arc::clone(&self.inner);
        let deed = async move { inner.claims_of(worker, after, limit).await };
        let answer = self.link.call(Call::ClaimsOf, deed).await;
        answer.unwrap_or_else(unavailable)
    }

    async fn mark_unmessaged(&self, ids: &[TaskId]) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        let (inner, ids) = (Arc::clone(&self.inner), ids.to_vec());
        let deed = async move { inner.mark_unmessaged(&ids).await };
        let answer = self.link.call(Call::MarkUnmessaged, deed).await;
        answer.unwrap_or_else(unavailable)
    }

    async fn totals(&self) -> Result<Totals, StoreError> {
        let inner = Arc::clone(&self.inner);
        let deed = async move { inner.totals().await };
        let answer = self.link.call(Call::Totals, deed).await;
        answer.unwrap_or_else(unavailable)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let inner = Arc::clone(&self.inner);
        let deed = async move { inner.ping().await };
        let answer = self.link.call(Call::PingStore, deed).await;
        answer.unwrap_or_else(unavailable)
    }
}

#[async_trait]
impl WorkerRegistry for ChaosStore {
    async fn register(&self, worker: WorkerId, name: &str) -> Result<(), StoreError> {
        let (inner, name) = (Arc::clone(&self.inner), name.to_owned());
        let deed = async move { inner.register(worker, &name).await };
        let answer = self.link.call(Call::Register, deed).await;
        answer.unwrap_or_else(unavailable)
    }

    async fn beat(
        &self,
        worker: WorkerId,
        position: Option<Timestamp>,
    ) -> Result<BeatReply, StoreError> {
        let inner = Arc::clone(&self.inner);
        let deed = async move { inner.beat(worker, position).await };
        let answer = self.link.call(Call::Beat, deed).await;
        answer.unwrap_or_else(unavailable)
    }

    async fn workers(&self) -> Result<Vec<WorkerEntry>, StoreError> {
        let inner = Arc::clone(&self.inner);
        let deed = async move { inner.workers().await };
        let answer = self.link.call(Call::Workers, deed).await;
        answer.unwrap_or_else(unavailable)
    }

    async fn declare_dead(
        &self,
        worker: WorkerId,
        last_beat: u64,
    ) -> Result<WriteOutcome, StoreError> {
        let inner = Arc::clone(&self.inner);
        let deed = async move { inner.declare_dead(worker, last_beat).await };
        let answer = self.link.call(Call::DeclareDead, deed).await;
        answer.unwrap_or_else(unavailable)
    }

    async fn remove(&self, worker: WorkerId) -> Result<RemoveReply, StoreError> {
        let inner = Arc::clone(&self.inner);
        let deed = async move { inner.remove(worker).await };
        let answer = self.link.call(Call::Remove, deed).await;
        answer.unwrap_or_else(unavailable)
    }
}

#[async_trait]
impl TaskAudit for ChaosStore {
    async fn stranded(
        &self,
        after: Option<TaskId>,
        limit: usize,
        unmoved_for: Duration,
    ) -> Result<AuditPage, StoreError> {
        let inner = Arc::clone(&self.inner);
        let deed = async move { inner.stranded(after, limit, unmoved_for).await };
        let answer = self.link.call(Call::Stranded, deed).await;
        answer.unwrap_or_else(unavailable)
    }

    async fn enqueue(&self, ids: &[TaskId]) -> Result<usize, StoreError> {
        let inner = Arc::clone(&self.inner);
        let ids = ids.to_vec();
        let deed = async move { inner.enqueue(&ids).await };
        let answer = self.link.call(Call::Enqueue, deed).await;
        answer.unwrap_or_else(unavailable)
    }

    async fn sweep_queue(
        &self,
        after: Option<TaskId>,
        limit: usize,
    ) -> Result<(usize, Option<TaskId>), StoreError> {
        let inner = Arc::clone(&self.inner);
        let deed = async move { inner.sweep_queue(after, limit).await };
        let answer = self.link.call(Call::SweepQueue, deed).await;
        answer.unwrap_or_else(unavailable)
    }

    async fn enlist(&self, ids: &[TaskId]) -> Result<usize, StoreError> {
        let inner = Arc::clone(&self.inner);
        let ids = ids.to_vec();
        let deed = async move { inner.enlist(&ids).await };
        let answer = self.link.call(Call::Enlist, deed).await;
        answer.unwrap_or_else(unavailable)
    }

    async fn sweep_stopped(
        &self,
        after: Option<TaskId>,
        limit: usize,
    ) -> Result<(usize, Option<TaskId>), StoreError> {
        let inner = Arc::clone(&self.inner);
        let deed = async move { inner.sweep_stopped(after, limit).await };
        let answer = self.link.call(Call::SweepStopped, deed).await;
        answer.unwrap_or_else(unavailable)
    }

    async fn untold(
        &self,
        after: Option<TaskId>,
        limit: usize,
        unmoved_for: Duration,
    ) -> Result<(Vec<TaskEvent>, Option<TaskId>), StoreError> {
        let inner = Arc::clone(&self.inner);
        let deed = async move { inner.untold(after, limit, unmoved_for).await };
        let answer = self.link.call(Call::Untold, deed).await;
        answer.unwrap_or_else(unavailable)
    }

    async fn mark_told(&self, ids: &[TaskId]) -> Result<(), StoreError> {
        let inner = Arc::clone(&self.inner);
        let ids = ids.to_vec();
        let deed = async move { inner.mark_told(&ids).await };
        let answer = self.link.call(Call::MarkTold, deed).await;
        answer.unwrap_or_else(unavailable)
    }

    async fn prune(
        &self,
        after: Option<TaskId>,
        limit: usize,
        older_than: Duration,
    ) -> Result<(usize, Option<TaskId>), StoreError> {
        let inner = Arc::clone(&self.inner);
        let deed = async move { inner.prune(after, limit, older_than).await };
        let answer = self.link.call(Call::Prune, deed).await;
        answer.unwrap_or_else(unavailable)
    }

    async fn orphaned_claims(&self, limit: usize) -> Result<Vec<ClaimRecord>, StoreError> {
        let inner = Arc::clone(&self.inner);
        let deed = async move { inner.orphaned_claims(limit).await };
        let answer = self.link.call(Call::OrphanedClaims, deed).await;
        answer.unwrap_or_else(unavailable)
    }
}
