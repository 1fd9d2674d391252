//! What a line of the file says.

use std::time::Duration;

use adapters::memory::MemoryTaskStore;
use domain::ports::{
    ClaimError, ClaimId, ClaimTicket, Fence, Fingerprint, Horizon, KeyedRequest, NewTask, Next,
    Payload, Priority, RequestKey, Spent, StoreError, TaskAudit as _, TaskId, TaskStatus,
    TaskStore as _, Timestamp, Transition, WorkerId, WorkerRegistry as _,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A call and when it was made, in microseconds since 1970.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Entry {
    pub(super) at: i64,
    #[serde(flatten)]
    pub(super) call: Call,
}

/// A call that changes the store.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "call", rename_all = "snake_case")]
pub(super) enum Call {
    Insert {
        tasks: Vec<Inserted>,
    },
    InsertKeyed {
        requests: Vec<Keyed>,
    },
    PruneKeys {
        age: u64,
        limit: usize,
    },
    ClaimDelivered {
        claim: Uuid,
        worker: Uuid,
        ids: Vec<Uuid>,
    },
    ClaimAged {
        claim: Uuid,
        worker: Uuid,
        /// `None` is the present.
        before: Option<i64>,
        grace: u64,
        limit: usize,
    },
    Transition {
        moves: Vec<Moved>,
    },
    Release {
        claims: Vec<Uuid>,
    },
    MarkUnmessaged {
        ids: Vec<Uuid>,
    },
    Register {
        worker: Uuid,
        name: String,
    },
    Beat {
        worker: Uuid,
        position: Option<i64>,
    },
    DeclareDead {
        worker: Uuid,
        last_beat: u64,
    },
    Remove {
        worker: Uuid,
    },
    Enqueue {
        ids: Vec<Uuid>,
    },
    SweepQueue {
        after: Option<Uuid>,
        limit: usize,
    },
    Enlist {
        ids: Vec<Uuid>,
    },
    SweepStopped {
        after: Option<Uuid>,
        limit: usize,
    },
    MarkTold {
        ids: Vec<Uuid>,
    },
    Prune {
        after: Option<Uuid>,
        limit: usize,
        older_than: u64,
    },
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Inserted {
    id: Uuid,
    payload: String,
    priority: u8,
    max_attempts: u32,
    run_at: Option<i64>,
    messaged: bool,
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Keyed {
    key: String,
    fingerprint: String,
    tasks: Vec<Inserted>,
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Moved {
    id: Uuid,
    fence: i64,
    from: String,
    to: Whither,
    spent: What,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Whither {
    Done { result: String },
    Failed { error: String },
    Cancelled,
    Pending { delay: u64, error: Option<String> },
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum What {
    Attempt,
    Rescue,
    Nothing,
    Reset,
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn uuids(ids: &[TaskId]) -> Vec<Uuid> {
    ids.iter().map(|id| id.0).collect()
}

fn task_ids(ids: &[Uuid]) -> Vec<TaskId> {
    ids.iter().copied().map(TaskId).collect()
}

impl Call {
    pub(super) fn insert(tasks: &[NewTask]) -> Self {
        Self::Insert {
            tasks: tasks.iter().map(Inserted::new).collect(),
        }
    }

    pub(super) fn insert_keyed(requests: &[KeyedRequest]) -> Self {
        let requests = requests.iter().map(|request| Keyed {
            key: request.key.as_str().to_owned(),
            fingerprint: request.fingerprint.to_string(),
            tasks: request.tasks.iter().map(Inserted::new).collect(),
        });
        Self::InsertKeyed {
            requests: requests.collect(),
        }
    }

    pub(super) fn prune_keys(age: Duration, limit: usize) -> Self {
        Self::PruneKeys {
            age: micros(age),
            limit,
        }
    }

    pub(super) fn claim_delivered(ticket: ClaimTicket, ids: &[TaskId]) -> Self {
        Self::ClaimDelivered {
            claim: ticket.claim.0,
            worker: ticket.worker.0,
            ids: uuids(ids),
        }
    }

    pub(super) fn claim_aged(
        ticket: ClaimTicket,
        horizon: Horizon,
        grace: Duration,
        limit: usize,
    ) -> Self {
        Self::ClaimAged {
            claim: ticket.claim.0,
            worker: ticket.worker.0,
            before: match horizon {
                Horizon::Now => None,
                Horizon::Before(time) => Some(time.as_micros()),
            },
            grace: micros(grace),
            limit,
        }
    }

    pub(super) fn transition(transitions: &[Transition]) -> Self {
        let moved = transitions.iter().map(|transition| Moved {
            id: transition.id.0,
            fence: transition.fence.0,
            from: transition.from.as_str().to_owned(),
            to: match transition.to.clone() {
                Next::Done { result } => Whither::Done { result },
                Next::Failed { error } => Whither::Failed { error },
                Next::Cancelled => Whither::Cancelled,
                Next::Pending { delay, error } => Whither::Pending {
                    delay: micros(delay),
                    error,
                },
            },
            spent: match transition.spent {
                Spent::Attempt => What::Attempt,
                Spent::Rescue => What::Rescue,
                Spent::Nothing => What::Nothing,
                Spent::Reset => What::Reset,
            },
        });
        Self::Transition {
            moves: moved.collect(),
        }
    }

    pub(super) fn release(claims: &[ClaimId]) -> Self {
        Self::Release {
            claims: claims.iter().map(|claim| claim.0).collect(),
        }
    }

    pub(super) fn mark_unmessaged(ids: &[TaskId]) -> Self {
        Self::MarkUnmessaged { ids: uuids(ids) }
    }

    pub(super) fn register(worker: WorkerId, name: &str) -> Self {
        Self::Register {
            worker: worker.0,
            name: name.to_owned(),
        }
    }

    pub(super) fn beat(worker: WorkerId, position: Option<Timestamp>) -> Self {
        Self::Beat {
            worker: worker.0,
            position: position.map(Timestamp::as_micros),
        }
    }

    pub(super) fn declare_dead(worker: WorkerId, last_beat: u64) -> Self {
        Self::DeclareDead {
            worker: worker.0,
            last_beat,
        }
    }

    pub(super) fn remove(worker: WorkerId) -> Self {
        Self::Remove { worker: worker.0 }
    }

    pub(super) fn enqueue(ids: &[TaskId]) -> Self {
        Self::Enqueue { ids: uuids(ids) }
    }

    pub(super) fn sweep_queue(after: Option<TaskId>, limit: usize) -> Self {
        Self::SweepQueue {
            after: after.map(|id| id.0),
            limit,
        }
    }

    pub(super) fn enlist(ids: &[TaskId]) -> Self {
        Self::Enlist { ids: uuids(ids) }
    }

    pub(super) fn sweep_stopped(after: Option<TaskId>, limit: usize) -> Self {
        Self::SweepStopped {
            after: after.map(|id| id.0),
            limit,
        }
    }

    pub(super) fn mark_told(ids: &[TaskId]) -> Self {
        Self::MarkTold { ids: uuids(ids) }
    }

    pub(super) fn prune(after: Option<TaskId>, limit: usize, older_than: Duration) -> Self {
        Self::Prune {
            after: after.map(|id| id.0),
            limit,
            older_than: micros(older_than),
        }
    }

    /// Whether the disk must have it before it is acknowledged. A beat that is lost with its process says nothing false.
    pub(super) const fn must_last(&self) -> bool {
        !matches!(self, Self::Beat { .. })
    }

    /// Makes the call again. What it answered the first time it answers again, refusals included.
    pub(super) async fn make(self, store: &MemoryTaskStore) -> std::io::Result<()> {
        match self {
            Self::Insert { tasks } => {
                let tasks: Option<Vec<NewTask>> = tasks.into_iter().map(Inserted::task).collect();
                as_before(store.insert(&tasks.ok_or_else(nonsense)?).await)
            }
            Self::InsertKeyed { requests } => {
                let requests: Option<Vec<KeyedRequest>> =
                    requests.into_iter().map(Keyed::request).collect();
                as_before(store.insert_keyed(&requests.ok_or_else(nonsense)?).await)
            }
            Self::PruneKeys { age, limit } => {
                as_before(store.prune_keys(Duration::from_micros(age), limit).await)
            }
            Self::ClaimDelivered { claim, worker, ids } => {
                let ids = task_ids(&ids);
                let claimed = store.claim_delivered(ticket(claim, worker), &ids).await;
                as_before(claimed.map_err(refused))
            }
            Self::ClaimAged {
                claim,
                worker,
                before,
                grace,
                limit,
            } => {
                let horizon = before.map_or(Horizon::Now, |time| {
                    Horizon::Before(Timestamp::from_micros(time))
                });
                let grace = Duration::from_micros(grace);
                let claimed = store.claim_aged(ticket(claim, worker), horizon, grace, limit);
                as_before(claimed.await.map_err(refused))
            }
            Self::Transition { moves } => {
                let moves: Option<Vec<Transition>> =
                    moves.into_iter().map(Moved::transition).collect();
                as_before(store.transition(&moves.ok_or_else(nonsense)?).await)
            }
            Self::Release { claims } => {
                let claims: Vec<ClaimId> = claims.into_iter().map(ClaimId).collect();
                as_before(store.release(&claims).await)
            }
            Self::MarkUnmessaged { ids } => as_before(store.mark_unmessaged(&task_ids(&ids)).await),
            Self::Register { worker, name } => {
                as_before(store.register(WorkerId(worker), &name).await)
            }
            Self::Beat { worker, position } => {
                let position = position.map(Timestamp::from_micros);
                as_before(store.beat(WorkerId(worker), position).await)
            }
            Self::DeclareDead { worker, last_beat } => {
                as_before(store.declare_dead(WorkerId(worker), last_beat).await)
            }
            Self::Remove { worker } => as_before(store.remove(WorkerId(worker)).await),
            Self::Enqueue { ids } => as_before(store.enqueue(&task_ids(&ids)).await),
            Self::SweepQueue { after, limit } => {
                as_before(store.sweep_queue(after.map(TaskId), limit).await)
            }
            Self::Enlist { ids } => as_before(store.enlist(&task_ids(&ids)).await),
            Self::SweepStopped { after, limit } => {
                as_before(store.sweep_stopped(after.map(TaskId), limit).await)
            }
            Self::MarkTold { ids } => as_before(store.mark_told(&task_ids(&ids)).await),
            Self::Prune {
                after,
                limit,
                older_than,
            } => {
                let older_than = Duration::from_micros(older_than);
                as_before(store.prune(after.map(TaskId), limit, older_than).await)
            }
        }
    }
}

impl Keyed {
    fn request(self) -> Option<KeyedRequest> {
        let mut parts = self.key.splitn(3, ' ');
        let key = RequestKey::new(parts.next()?, parts.next()?, parts.next()?).ok()?;
        Some(KeyedRequest {
            key,
            fingerprint: Fingerprint::from_hex(&self.fingerprint)?,
            tasks: self
                .tasks
                .into_iter()
                .map(Inserted::task)
                .collect::<Option<_>>()?,
        })
    }
}

impl Inserted {
    fn new(task: &NewTask) -> Self {
        Self {
            id: task.id.0,
            payload: task.payload.as_str().to_owned(),
            priority: task.priority.get(),
            max_attempts: task.max_attempts,
            run_at: task.run_at.map(Timestamp::as_micros),
            messaged: task.messaged,
        }
    }

    fn task(self) -> Option<NewTask> {
        Some(NewTask {
            id: TaskId(self.id),
            payload: Payload::new(self.payload).ok()?,
            priority: Priority::new(self.priority.into()).ok()?,
            max_attempts: self.max_attempts,
            run_at: self.run_at.map(Timestamp::from_micros),
            messaged: self.messaged,
        })
    }
}

impl Moved {
    fn transition(self) -> Option<Transition> {
        Some(Transition {
            id: TaskId(self.id),
            fence: Fence(self.fence),
            from: TaskStatus::from_name(&self.from)?,
            to: match self.to {
                Whither::Done { result } => Next::Done { result },
                Whither::Failed { error } => Next::Failed { error },
                Whither::Cancelled => Next::Cancelled,
                Whither::Pending { delay, error } => Next::Pending {
                    delay: Duration::from_micros(delay),
                    error,
                },
            },
            spent: match self.spent {
                What::Attempt => Spent::Attempt,
                What::Rescue => Spent::Rescue,
                What::Nothing => Spent::Nothing,
                What::Reset => Spent::Reset,
            },
        })
    }
}

fn ticket(claim: Uuid, worker: Uuid) -> ClaimTicket {
    ClaimTicket {
        claim: ClaimId(claim),
        worker: WorkerId(worker),
    }
}

/// A worker that was gone is gone again.
fn refused(error: ClaimError) -> StoreError {
    match error {
        ClaimError::Store(error) => error,
        gone => StoreError::Rejected(gone.into()),
    }
}

/// A refusal is an answer like any other; that the store in memory cannot answer is not.
fn as_before<T>(answer: Result<T, StoreError>) -> std::io::Result<()> {
    match answer {
        Err(error) if error.is_transient() => Err(std::io::Error::other(error)),
        _ => Ok(()),
    }
}

fn nonsense() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, "the journal holds no task")
}
