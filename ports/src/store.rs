//! The store: the one truth about every task.

mod idempotency;

use std::time::Duration;

use async_trait::async_trait;

use crate::Cause;
use crate::ids::{ClaimId, WorkerId};
use crate::task::{Fence, NewTask, Payload, Priority, Task, TaskId, TaskStatus};
use crate::time::Timestamp;

pub use idempotency::{Fingerprint, InvalidRequestKey, KeptRequest, KeyedRequest, RequestKey};

/// Why the store did not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store cannot be reached, is failing over, is full, or gave up in a conflict. Whether the write happened is
    /// unknown; repeating the same call (same ids) is safe and may succeed.
    #[error("the task store is unavailable")]
    Unavailable(#[source] Cause),
    /// The store refused this batch for what is in it; repeating the call cannot succeed. Nothing was written.
    #[error("the task store refused the data")]
    Rejected(#[source] Cause),
}

impl StoreError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// Why a claim was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// The worker is not registered (any more) or was declared dead: it must stop its work and register anew.
    #[error("the worker is not registered or was declared dead")]
    WorkerGone,
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What an insert did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InsertOutcome {
    /// `Applied`, or `AlreadyApplied` when the id exists (the existing row is untouched). Never `Stale`.
    pub write: WriteOutcome,
    /// When the row with this id was created (store's clock).
    pub created_at: Timestamp,
}

/// What a conditional write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// The write happened now.
    Applied,
    /// The very same write had happened before (its answer was lost), and nothing moved the task since.
    AlreadyApplied,
    /// The task is not where the caller thought; nothing changed.
    Stale,
}

/// Under which identity a worker claims a batch. Repeating a claim with the same ticket returns the same tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimTicket {
    /// The claim, new for every batch.
    pub claim: ClaimId,
    /// Who claims; must be registered and not declared dead.
    pub worker: WorkerId,
}

/// A task that now belongs to a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedTask {
    /// The task.
    pub id: TaskId,
    /// What to process.
    pub payload: Payload,
    /// How urgent.
    pub priority: Priority,
    /// Attempts that ended before this claim.
    pub attempts: u32,
    /// After how many failed attempts it ends `failed`.
    pub max_attempts: u32,
    /// The fence after the claim: the one every later write for this claim must name.
    pub fence: Fence,
    /// When the task was stored.
    pub created_at: Timestamp,
    /// Since when it waited to be claimed: its `not_before`, or `created_at` for a row that was never queued.
    pub waiting_since: Timestamp,
    /// When the claim was made (store's clock).
    pub claimed_at: Timestamp,
}

/// What became of one delivered id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// Claimed by this call.
    Claimed(ClaimedTask),
    /// Its time has not come (`runAt`, backoff); it will be claimed by age.
    Early,
    /// Done, failed or cancelled.
    AtRest,
    /// Claimed, or just being claimed, by someone else; or waiting, and this ticket was used before.
    InHand,
    /// The same id stands earlier in the same slice.
    Repeated,
    /// No such task.
    Unknown,
}

/// Up to when waiting tasks are old enough to be claimed by age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Horizon {
    /// The store's present: every task whose time has come.
    Now,
    /// Only tasks whose `not_before` is earlier than this. A time in the future means no more than the store's present.
    Before(Timestamp),
}

/// Where a transition leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Done, with this result (no NUL). Moves the totals in the same commit and clears `error`.
    Done {
        /// The processed text.
        result: String,
    },
    /// Failed, with this error (no NUL).
    Failed {
        /// The last error.
        error: String,
    },
    /// Cancelled.
    Cancelled,
    /// Waiting again: a queue row is written in the same commit, not messaged.
    Pending {
        /// How long from now (store's clock) before it may be claimed.
        delay: Duration,
        /// `Some` replaces the kept error (no NUL); `None` leaves it.
        error: Option<String>,
    },
}

impl Next {
    /// The status it leads to.
    #[must_use]
    pub const fn status(&self) -> TaskStatus {
        match self {
            Self::Done { .. } => TaskStatus::Done,
            Self::Failed { .. } => TaskStatus::Failed,
            Self::Cancelled => TaskStatus::Cancelled,
            Self::Pending { .. } => TaskStatus::Pending,
        }
    }
}

/// What a transition counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// `attempts` + 1.
    Attempt,
    /// `rescues` + 1.
    Rescue,
    /// Neither.
    Nothing,
    /// `attempts` and `rescues` back to 0: someone retries a failed task.
    Reset,
}

/// A move of one task, made only if it still stands where the caller saw it. The domain decides which moves are legal;
/// the store compares and writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The task.
    pub id: TaskId,
    /// The fence the caller saw.
    pub fence: Fence,
    /// The status the caller saw.
    pub from: TaskStatus,
    /// Where it goes.
    pub to: Next,
    /// What it counts.
    pub spent: Spent,
}

/// What became of one transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransitionOutcome {
    /// Whether it happened.
    pub write: WriteOutcome,
    /// The row's `updated_at` after the call (store's clock); `None` when `Stale`.
    pub updated_at: Option<Timestamp>,
}

/// Where a task stands, without its texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whereabouts {
    /// Where it is in its life.
    pub status: TaskStatus,
    /// Its fence.
    pub fence: Fence,
}

/// A recorded claim: who holds what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRecord {
    /// The claim.
    pub id: ClaimId,
    /// Who claimed.
    pub worker: WorkerId,
    /// The tasks with the fences they had after the claim, in ascending order of id.
    pub tasks: Vec<(TaskId, Fence)>,
    /// When it was made (store's clock).
    pub claimed_at: Timestamp,
}

/// The sums behind `GET /metrics`: over every task that ever became done, pruned ones included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// How many became done.
    pub done: u64,
    /// The sum of (done − created) in microseconds.
    pub elapsed_micros: i128,
}

/// Keeps tasks, the queue of waiting ones, and the claims on those in hand.
///
/// Every method takes a slice and answers one outcome per input, in input order. An empty slice is answered without
/// asking the store. All times are the store's own clock.
///
/// **Cancellation.** Dropping a returned future never leaves half a write: the work was not started or runs to its end.
///
/// **Where a task is.** A `pending` task has exactly one queue row, a `processing` task is in exactly one recorded claim
/// under its present fence, a task at rest is in neither queue (it may still be in a claim until that is released).
/// Rows that another program wrote (`pending`, fence 0, no queue row) are the one exception, and `claim_delivered`
/// accepts them.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait TaskStore: Send + Sync {
    /// Stores tasks as `pending` with fence 0, each with its queue row, in one commit: all or nothing.
    ///
    /// When it returns `Ok` the tasks are durable. Idempotent by id: an id that exists is left untouched and reported
    /// `AlreadyApplied` with the existing row's `created_at`; the same id twice in one slice is stored once.
    ///
    /// # Errors
    /// [`StoreError::Rejected`] when the store refuses a value: nothing of the batch was stored.
    async fn insert(&self, tasks: &[NewTask]) -> Result<Vec<InsertOutcome>, StoreError>;

    /// For each request whose key is not kept: stores its tasks as [`insert`](Self::insert) does and keeps the key with the
    /// fingerprint and the ids, all in one commit, all or nothing. A request whose key is kept stores nothing. The answer
    /// is what is kept under each key; the caller compares the fingerprints.
    ///
    /// The same key twice in one slice: the first is stored. Two callers at once with the same key: one stores, the other
    /// waits until it has and finds the key kept. Callers with keys in different orders never wait for each other for ever.
    /// The ids of the tasks must be new. Repeating the call after a lost answer finds the keys kept.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    async fn insert_keyed(&self, requests: &[KeyedRequest])
    -> Result<Vec<KeptRequest>, StoreError>;

    /// Forgets up to `limit` keys that are kept for longer than `age`, the oldest first; their tasks stay. Answers how many.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn prune_keys(&self, age: Duration, limit: usize) -> Result<usize, StoreError>;

    /// Reads tasks; `None` for an unknown id. Reads committed state at least as new as every write acknowledged before.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn get(&self, ids: &[TaskId]) -> Result<Vec<Option<Task>>, StoreError>;

    /// Reads where tasks stand; `None` for an unknown id. As new as [`get`](Self::get), and cheap enough to be asked every
    /// second about everything that a worker runs.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn whereabouts(&self, ids: &[TaskId]) -> Result<Vec<Option<Whereabouts>>, StoreError>;

    /// Claims the delivered ids whose time has come: queue row deleted, `pending` → `processing`, fence + 1, one claim
    /// recorded for all of them, in one commit. A claim that would hold nothing is not recorded.
    ///
    /// Also claims an id without a queue row that is `pending` with fence 0 (written by another program). Two workers
    /// that claim the same id at once: exactly one gets it, the other does not wait. Repeating the call under the same
    /// ticket reports `Claimed` for what that ticket already holds (and that is still `processing` under its fence), and
    /// claims nothing more; since when such a task waited need not be remembered. Under the ticket of another worker nothing is
    /// held. A due queue row of a delivered id whose task does not wait is deleted.
    ///
    /// # Errors
    /// [`ClaimError::WorkerGone`] when the ticket's worker is unknown or declared dead: nothing is claimed.
    async fn claim_delivered(
        &self,
        ticket: ClaimTicket,
        ids: &[TaskId],
    ) -> Result<Vec<DeliveryOutcome>, ClaimError>;

    /// Claims up to `limit` waiting tasks that should have been served by now, oldest `not_before` first within each of
    /// the two kinds: not messaged with `not_before` before the horizon; messaged with `not_before` before the horizon
    /// minus `grace`. Otherwise as [`claim_delivered`](Self::claim_delivered), the idempotence by ticket included.
    ///
    /// Never waits for a row that someone else is claiming: it is skipped.
    ///
    /// # Errors
    /// As [`claim_delivered`](Self::claim_delivered).
    async fn claim_aged(
        &self,
        ticket: ClaimTicket,
        horizon: Horizon,
        grace: Duration,
        limit: usize,
    ) -> Result<Vec<ClaimedTask>, ClaimError>;

    /// Moves tasks, each only if it still has the status and the fence that the transition names; the fence rises by
    /// one, `updated_at` becomes now. Queue rows follow in the same commit: written for `Next::Pending`, deleted when
    /// `from` is `Pending`. Totals move only with rows that became done now, so repeating never counts twice.
    ///
    /// One outcome per input; a stale one changes nothing and stops none of the others. Repeating a call whose answer
    /// was lost reports `AlreadyApplied` for what is still as that call left it. Two transitions of one id in one slice
    /// are not allowed (the second may be reported `Stale`).
    ///
    /// # Errors
    /// [`StoreError::Rejected`] when the store refuses a value: nothing of the batch happened.
    async fn transition(
        &self,
        transitions: &[Transition],
    ) -> Result<Vec<TransitionOutcome>, StoreError>;

    /// Forgets claims whose tasks are all settled and announced. Unknown claims are passed over.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn release(&self, claims: &[ClaimId]) -> Result<(), StoreError>;

    /// Up to `limit` claims recorded for a worker, in ascending order of id (of version 7 ids: the oldest first), beginning
    /// after `after`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn claims_of(
        &self,
        worker: WorkerId,
        after: Option<ClaimId>,
        limit: usize,
    ) -> Result<Vec<ClaimRecord>, StoreError>;

    /// Says of waiting tasks that no message is on its way after all, so that they are claimed by age without the grace.
    /// Ids without a queue row are passed over.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn mark_unmessaged(&self, ids: &[TaskId]) -> Result<(), StoreError>;

    /// The sums over tasks that became done. Exact, and its cost does not grow with the number of tasks.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn totals(&self) -> Result<Totals, StoreError>;

    /// Whether the store answers.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn ping(&self) -> Result<(), StoreError>;
}
