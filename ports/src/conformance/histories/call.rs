//! The calls of a history, and what came of them.

use std::time::Duration;

use crate::audit::AuditPage;
use crate::catalog::{Listed, Listing, Place};
use crate::events::TaskEvent;
use crate::ids::{ClaimId, WorkerId};
use crate::registry::{BeatReply, RemoveReply, WorkerEntry};
use crate::store::{
    ClaimError, ClaimRecord, ClaimTicket, ClaimedTask, DeliveryOutcome, Horizon, InsertOutcome,
    StoreError, Transition, TransitionOutcome, Whereabouts, WriteOutcome,
};
use crate::task::{NewTask, Task, TaskId, TaskStatus};
use crate::time::Timestamp;

use super::super::store::Subject;
use super::plan::WORKERS;
use super::state::{all_tasks, worker_of};

/// One call, the same for every store.
#[derive(Clone, Debug)]
pub(super) enum Call {
    Insert(Vec<NewTask>),
    Get(Vec<TaskId>),
    ClaimDelivered(ClaimTicket, Vec<TaskId>),
    ClaimAged(ClaimTicket, Horizon, Duration, usize),
    Transition(Vec<Transition>),
    Release(Vec<ClaimId>),
    ClaimsOf(WorkerId, Option<ClaimId>, usize),
    MarkUnmessaged(Vec<TaskId>),
    /// With every task there is: the sums must be theirs.
    Totals,
    Register(WorkerId, String),
    Beat(WorkerId, Option<Timestamp>),
    Workers,
    /// Under the beat that the store shows, or one less.
    DeclareDead(WorkerId, u64),
    Remove(WorkerId),
    Stranded(Option<TaskId>, usize, Duration),
    Enqueue(Vec<TaskId>),
    SweepQueue(Option<TaskId>, usize),
    Enlist(Vec<TaskId>),
    SweepStopped(Option<TaskId>, usize),
    Untold(Option<TaskId>, usize, Duration),
    MarkTold(Vec<TaskId>),
    OrphanedClaims(usize),
    Prune(Option<TaskId>, usize, Duration),
    List(Listing),
    Inspect(TaskId, usize),
    Plant(TaskId),
    /// In place of the one that may be there.
    PlantQueueRow(TaskId),
    RemoveQueueRow(TaskId),
    PlantClaim(ClaimRecord),
    /// In place of all that it may be listed as.
    PlantStopped(TaskId, bool),
    RemoveStopped(TaskId),
}

/// What a call answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Nothing,
    Inserted(Vec<InsertOutcome>),
    /// And whether the same is told of where they stand.
    Tasks(Vec<Option<Task>>, bool),
    Delivered(Vec<DeliveryOutcome>),
    Claimed(Vec<ClaimedTask>),
    Moved(Vec<TransitionOutcome>),
    Claims(Vec<ClaimRecord>),
    /// How many became done, and whether the sums are those of the tasks.
    Totals {
        done: u64,
        right: bool,
    },
    Beaten(BeatReply),
    Workers(Vec<WorkerEntry>),
    Declared(WriteOutcome),
    Removed(RemoveReply),
    Page(AuditPage),
    Given(usize),
    Swept(usize, Option<TaskId>),
    Untold(Vec<TaskEvent>, Option<TaskId>),
    /// And whether the totals are what they were.
    Pruned(usize, Option<TaskId>, bool),
    Listed(Listed),
    Inspected(Option<(Task, Place)>),
    WorkerGone,
    Rejected,
    Unavailable(String),
}

impl From<StoreError> for Answer {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Rejected(_) => Self::Rejected,
            StoreError::Unavailable(cause) => Self::Unavailable(cause.to_string()),
        }
    }
}

impl From<ClaimError> for Answer {
    fn from(error: ClaimError) -> Self {
        match error {
            ClaimError::WorkerGone => Self::WorkerGone,
            ClaimError::Store(error) => error.into(),
        }
    }
}

/// What every history ends with: everything is looked at, and whatever waits is claimed.
pub(super) fn ending() -> Vec<Call> {
    let reaper = WorkerId(uuid::Uuid::from_u128(u128::MAX));
    let ticket = |number: u8| ClaimTicket {
        claim: ClaimId(uuid::Uuid::from_u128(u128::MAX - u128::from(number))),
        worker: reaper,
    };
    let mut calls = vec![
        Call::Get(all_tasks()),
        Call::Totals,
        Call::Workers,
        Call::OrphanedClaims(100),
        Call::Stranded(None, 100, Duration::ZERO),
        Call::Untold(None, 100, Duration::ZERO),
    ];
    let statuses = std::iter::once(None).chain(TaskStatus::ALL.map(Some));
    calls.extend(statuses.map(|status| Call::List(listing(status, None, 100))));
    calls.extend(all_tasks().into_iter().map(|id| Call::Inspect(id, 100)));
    calls.extend((0..WORKERS).map(|worker| Call::ClaimsOf(worker_of(worker), None, 100)));
    calls.extend([
        Call::SweepQueue(None, 100),
        Call::SweepStopped(None, 100),
        Call::Register(reaper, "the last".to_owned()),
        Call::ClaimAged(ticket(1), Horizon::Now, Duration::ZERO, 100),
        Call::ClaimDelivered(ticket(2), all_tasks()),
        Call::Get(all_tasks()),
    ]);
    calls
}

/// A listing without any filter but the status.
pub(super) const fn listing(
    status: Option<TaskStatus>,
    below: Option<TaskId>,
    walk: usize,
) -> Listing {
    Listing {
        status,
        priority: None,
        created_from: None,
        created_before: None,
        below,
        walk,
        limit: 3,
        bytes: 1_000,
    }
}

pub(super) async fn make(call: &Call, store: &dyn Subject) -> Answer {
    match answer(call, store).await {
        Ok(answer) | Err(answer) => answer,
    }
}

async fn answer(call: &Call, subject: &dyn Subject) -> Result<Answer, Answer> {
    let (store, registry, audit) = (subject.store(), subject.registry(), subject.audit());
    Ok(match call {
        Call::Insert(tasks) => Answer::Inserted(store.insert(tasks).await?),
        Call::Get(ids) => {
            let tasks = store.get(ids).await?;
            let standing = |task: &Task| Whereabouts {
                status: task.status,
                fence: task.fence,
            };
            let expected = tasks.iter().map(|task| task.as_ref().map(standing));
            let is_same = expected.eq(store.whereabouts(ids).await?);
            Answer::Tasks(tasks, is_same)
        }
        Call::ClaimDelivered(ticket, ids) => {
            Answer::Delivered(store.claim_delivered(*ticket, ids).await?)
        }
        Call::ClaimAged(ticket, horizon, grace, limit) => {
            let claimed = store.claim_aged(*ticket, *horizon, *grace, *limit).await;
            let mut claimed = claimed?;
            // Which ones it takes is promised, and not in which order it tells.
            claimed.sort_unstable_by_key(|task| task.id);
            Answer::Claimed(claimed)
        }
        Call::Transition(transitions) => Answer::Moved(store.transition(transitions).await?),
        Call::Release(claims) => {
            store.release(claims).await?;
            Answer::Nothing
        }
        Call::ClaimsOf(worker, after, limit) => {
            Answer::Claims(store.claims_of(*worker, *after, *limit).await?)
        }
        Call::MarkUnmessaged(ids) => {
            store.mark_unmessaged(ids).await?;
            Answer::Nothing
        }
        Call::Totals => {
            let totals = store.totals().await?;
            let tasks = store.get(&all_tasks()).await?;
            let times = tasks.iter().flatten().filter_map(elapsed);
            let (done, elapsed_micros) = times.fold((0, 0), |(done, sum), time| {
                (done + 1, sum + i128::from(time))
            });
            Answer::Totals {
                done: totals.done,
                right: totals.done == done && totals.elapsed_micros == elapsed_micros,
            }
        }
        Call::Register(worker, name) => {
            registry.register(*worker, name).await?;
            Answer::Nothing
        }
        Call::Beat(worker, position) => Answer::Beaten(registry.beat(*worker, *position).await?),
        Call::Workers => Answer::Workers(registry.workers().await?),
        Call::DeclareDead(worker, earlier) => {
            let workers = registry.workers().await?;
            let entry = workers.iter().find(|entry| entry.id == *worker);
            let beat = entry.map_or(0, |entry| entry.beat.wrapping_sub(*earlier));
            Answer::Declared(registry.declare_dead(*worker, beat).await?)
        }
        Call::Remove(worker) => Answer::Removed(registry.remove(*worker).await?),
        Call::Stranded(after, limit, unmoved_for) => {
            Answer::Page(audit.stranded(*after, *limit, *unmoved_for).await?)
        }
        Call::Enqueue(ids) => Answer::Given(audit.enqueue(ids).await?),
        Call::SweepQueue(after, limit) => {
            let (deleted, next) = audit.sweep_queue(*after, *limit).await?;
            Answer::Swept(deleted, next)
        }
        Call::Enlist(ids) => Answer::Given(audit.enlist(ids).await?),
        Call::SweepStopped(after, limit) => {
            let (deleted, next) = audit.sweep_stopped(*after, *limit).await?;
            Answer::Swept(deleted, next)
        }
        Call::Untold(after, limit, unmoved_for) => {
            let (events, next) = audit.untold(*after, *limit, *unmoved_for).await?;
            Answer::Untold(events, next)
        }
        Call::MarkTold(ids) => {
            audit.mark_told(ids).await?;
            Answer::Nothing
        }
        Call::OrphanedClaims(limit) => Answer::Claims(audit.orphaned_claims(*limit).await?),
        Call::Prune(after, limit, older_than) => {
            let before = store.totals().await?;
            let (deleted, next) = audit.prune(*after, *limit, *older_than).await?;
            Answer::Pruned(deleted, next, store.totals().await? == before)
        }
        Call::List(listing) => Answer::Listed(subject.catalog().list(listing).await?),
        Call::Inspect(id, count_up_to) => {
            let found = subject.catalog().inspect(*id, *count_up_to).await?;
            Answer::Inspected(found.map(|found| (found.task, found.place)))
        }
        Call::Plant(id) => {
            subject.plant(&[*id], "planted 'here'").await;
            Answer::Nothing
        }
        Call::PlantQueueRow(id) => {
            subject.remove_queue_row(*id).await;
            subject.plant_queue_row(*id).await;
            Answer::Nothing
        }
        Call::RemoveQueueRow(id) => {
            subject.remove_queue_row(*id).await;
            Answer::Nothing
        }
        Call::PlantClaim(claim) => {
            subject.plant_claim(claim).await;
            Answer::Nothing
        }
        Call::PlantStopped(id, cancelled) => {
            subject.remove_stopped(*id).await;
            subject.plant_stopped(*id, *cancelled).await;
            Answer::Nothing
        }
        Call::RemoveStopped(id) => {
            subject.remove_stopped(*id).await;
            Answer::Nothing
        }
    })
}

fn elapsed(task: &Task) -> Option<i64> {
    let is_done = task.status == TaskStatus::Done;
    is_done.then(|| task.updated_at.micros_since(task.created_at))
}
