//! The task store, the worker registry, the audit and the catalog in memory.

mod audit;
mod catalog;
mod survey;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ports::{
    BeatReply, ClaimError, ClaimId, ClaimRecord, ClaimTicket, ClaimedTask, Clock, DeliveryOutcome,
    Fence, Horizon, InsertOutcome, KeptRequest, KeyedRequest, NewTask, Next, Payload, Priority,
    RemoveReply, RequestKey, Spent, StoreError, Task, TaskId, TaskStatus, TaskStore, Timestamp,
    Totals, Transition, TransitionOutcome, Whereabouts, WorkerEntry, WorkerId, WorkerRegistry,
    WriteOutcome,
};
use tokio::sync::Notify;

use audit::listed_as;

/// A value that PostgreSQL could not keep, and that this store therefore refuses too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RefusedValue {
    /// A result or an error text holds U+0000.
    #[error("text must not contain the NUL character (U+0000)")]
    Nul,
    /// `max_attempts` does not fit a signed 32-bit column.
    #[error("max_attempts must be at most 2147483647")]
    MaxAttempts,
}

/// The store holds as many tasks as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store in memory is full: it may hold {capacity} tasks")]
pub struct StoreFull {
    /// How many tasks it may hold.
    pub capacity: usize,
}

/// A row of the queue: a task that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueEntry {
    /// The task.
    pub id: TaskId,
    /// Not to be claimed before this time.
    pub not_before: Timestamp,
    /// Whether a message for it may be on its way.
    pub messaged: bool,
}

/// Everything a [`MemoryTaskStore`] holds, at one moment. Each list is in ascending order of id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSnapshot {
    /// Every task.
    pub tasks: Vec<Task>,
    /// Every waiting task.
    pub queue: Vec<QueueEntry>,
    /// Every recorded claim.
    pub claims: Vec<ClaimRecord>,
    /// Every entry in the list of failed and cancelled tasks, with what it is listed as: first the failed.
    pub stopped: Vec<(TaskStatus, TaskId)>,
    /// Every registered worker.
    pub workers: Vec<WorkerEntry>,
    /// The sums over tasks that became done.
    pub totals: Totals,
    /// The part of them that was pruned since.
    pub pruned: Totals,
}

impl StoreSnapshot {
    /// What contradicts the promise of [`TaskStore`] about where a task is, in words; empty when it holds.
    ///
    /// Planted rows (pending, fence 0, no queue row) are the exception that the promise names.
    #[must_use]
    pub fn contradictions(&self) -> Vec<String> {
        let queued: BTreeSet<TaskId> = self.queue.iter().map(|row| row.id).collect();
        let workers: BTreeSet<WorkerId> = self.workers.iter().map(|entry| entry.id).collect();
        let mut holders: BTreeMap<(TaskId, Fence), usize> = BTreeMap::new();
        let mut found = Vec::new();
        for claim in &self.claims {
            if !workers.contains(&claim.worker) {
                found.push(format!("claim {} is of an unknown worker", claim.id));
            }
            for held in &claim.tasks {
                *holders.entry(*held).or_default() += 1;
            }
        }
        let Totals {
            mut done,
            mut elapsed_micros,
        } = self.pruned;
        let tasks: BTreeSet<TaskId> = self.tasks.iter().map(|task| task.id).collect();
        for id in queued.difference(&tasks) {
            found.push(format!("task {id} is queued and does not exist"));
        }
        let standing: BTreeSet<(TaskStatus, TaskId)> = self
            .tasks
            .iter()
            .filter(|task| is_stopped(task.status))
            .map(|task| (task.status, task.id))
            .collect();
        let listed: BTreeSet<(TaskStatus, TaskId)> = self.stopped.iter().copied().collect();
        for (status, id) in standing.difference(&listed) {
            found.push(format!("task {id} is {status} and not listed"));
        }
        for (status, id) in listed.difference(&standing) {
            found.push(format!("task {id} is listed as {status} and is not"));
        }
        for task in &self.tasks {
            let is_queued = queued.contains(&task.id);
            let claims = holders.get(&(task.id, task.fence)).copied().unwrap_or(0);
            match task.status {
                TaskStatus::Pending if !is_queued && task.fence != Fence(0) => {
                    found.push(format!("task {} is pending without a queue row", task.id));
                }
                TaskStatus::Processing if claims != 1 => {
                    found.push(format!("task {} is processing in {claims} claims", task.id));
                }
                _ => {}
            }
            if is_queued && task.status != TaskStatus::Pending {
                found.push(format!("task {} is {} and queued", task.id, task.status));
            }
            if task.result.is_some() != (task.status == TaskStatus::Done) {
                found.push(format!(
                    "task {} is {} with a wrong result",
                    task.id, task.status
                ));
            }
            if task.status == TaskStatus::Done {
                done += 1;
                elapsed_micros += i128::from(task.updated_at.micros_since(task.created_at));
            }
        }
        let counted = Totals {
            done,
            elapsed_micros,
        };
        if counted != self.totals {
            found.push(format!(
                "the totals are {:?} and not {counted:?}",
                self.totals
            ));
        }
        found
    }
}

/// [`TaskStore`], [`WorkerRegistry`], [`TaskAudit`](ports::TaskAudit) and [`TaskCatalog`](ports::TaskCatalog) in memory, under the clock it is given. Keeps every promise of the ports except
/// durability: it is the store of tests, of simulation and of benches.
///
/// ```
/// use std::sync::Arc;
/// use task_processor_adapters::memory::{ManualClock, MemoryTaskStore};
/// use ports::{NewTask, Payload, Priority, TaskId, TaskStore, WriteOutcome};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemoryTaskStore::new(Arc::new(ManualClock::default()));
/// let task = NewTask {
///     id: "0194fdc2-fa2f-7cc0-81d3-ff1204e5b6ab".parse()?,
///     payload: Payload::new("Hello world!")?,
///     priority: Priority::default(),
///     max_attempts: 5,
///     run_at: None,
///     messaged: false,
/// };
/// let outcomes = store.insert(std::slice::from_ref(&task)).await?;
/// assert_eq!(outcomes[0].write, WriteOutcome::Applied);
/// assert_eq!(store.insert(&[task]).await?[0].write, WriteOutcome::AlreadyApplied);
/// assert!(store.snapshot().contradictions().is_empty());
/// # Ok(())
/// # }
/// ```
pub struct MemoryTaskStore {
    clock: Arc<dyn Clock>,
    capacity: usize,
    changed: Notify,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    tasks: BTreeMap<TaskId, Task>,
    queue: Queue,
    claims: BTreeMap<ClaimId, Claim>,
    workers: BTreeMap<WorkerId, WorkerEntry>,
    totals: Totals,
    pruned: Totals,
    /// The failed and the cancelled tasks: whether cancelled, and the id; and whether the news of it is told.
    stopped: BTreeMap<(bool, TaskId), bool>,
    keys: BTreeMap<RequestKey, KeptRequest>,
}

#[derive(Clone, Copy)]
struct Waiting {
    not_before: Timestamp,
    messaged: bool,
}

/// Queue rows, and the same in order of age.
#[derive(Default)]
struct Queue {
    rows: BTreeMap<TaskId, Waiting>,
    by_age: BTreeSet<(bool, Timestamp, TaskId)>,
}

impl Queue {
    fn put(&mut self, id: TaskId, row: Waiting) {
        self.take(id);
        self.rows.insert(id, row);
        self.by_age.insert((row.messaged, row.not_before, id));
    }

    fn take(&mut self, id: TaskId) -> Option<Waiting> {
        let row = self.rows.remove(&id)?;
        self.by_age.remove(&(row.messaged, row.not_before, id));
        Some(row)
    }

    fn oldest(&self, messaged: bool) -> impl Iterator<Item = (Timestamp, TaskId)> {
        let lowest = (
            messaged,
            Timestamp::from_micros(i64::MIN),
            TaskId(uuid::Uuid::nil()),
        );
        self.by_age
            .range(lowest..)
            .take_while(move |(kind, ..)| *kind == messaged)
            .map(|&(_, not_before, id)| (not_before, id))
    }
}

struct Claim {
    worker: WorkerId,
    claimed_at: Timestamp,
    tasks: BTreeMap<TaskId, Held>,
}

#[derive(Clone, Copy)]
struct Held {
    fence: Fence,
    waiting_since: Timestamp,
}

impl Claim {
    fn record(&self, id: ClaimId) -> ClaimRecord {
        ClaimRecord {
            id,
            worker: self.worker,
            tasks: self
                .tasks
                .iter()
                .map(|(task, held)| (*task, held.fence))
                .collect(),
            claimed_at: self.claimed_at,
        }
    }
}

impl State {
    fn check_worker(&self, worker: WorkerId) -> Result<(), ClaimError> {
        match self.workers.get(&worker) {
            Some(entry) if !entry.dead => Ok(()),
            _ => Err(ClaimError::WorkerGone),
        }
    }

    /// What a claim holds of a task, if the task still is in its hands.
    fn held(&self, claim: &Claim, id: TaskId) -> Option<ClaimedTask> {
        let held = claim.tasks.get(&id)?;
        let task = self.tasks.get(&id)?;
        if task.status != TaskStatus::Processing || task.fence != held.fence {
            return None;
        }
        Some(ClaimedTask {
            id,
            payload: task.payload.clone(),
            priority: task.priority,
            attempts: task.attempts,
            max_attempts: task.max_attempts,
            fence: task.fence,
            created_at: task.created_at,
            waiting_since: held.waiting_since,
            claimed_at: claim.claimed_at,
        })
    }

    /// What stands in the way of claiming a task; `Ok` is since when it waits.
    fn claimable(&self, id: TaskId, now: Timestamp) -> Result<Timestamp, DeliveryOutcome> {
        let task = self.tasks.get(&id).ok_or(DeliveryOutcome::Unknown)?;
        if task.status.is_at_rest() {
            return Err(DeliveryOutcome::AtRest);
        }
        if task.status == TaskStatus::Processing {
            return Err(DeliveryOutcome::InHand);
        }
        match self.queue.rows.get(&id) {
            Some(row) if row.not_before > now => Err(DeliveryOutcome::Early),
            Some(row) => Ok(row.not_before),
            // Another program wrote the row and knows no queue.
            None if task.fence == Fence(0) => Ok(task.created_at),
            None => Err(DeliveryOutcome::InHand),
        }
    }

    /// Takes a row out of the queue that is due and whose task does not wait.
    fn drop_if_in_vain(&mut self, id: TaskId, now: Timestamp) {
        let row = self.queue.rows.get(&id);
        if row.is_some_and(|row| row.not_before <= now) && self.is_in_vain(id) {
            self.queue.take(id);
        }
    }

    /// Takes a row out of the queue and, if its task waits, the task into the claim.
    fn take(&mut self, claim: &mut Claim, id: TaskId, waiting_since: Timestamp) {
        self.queue.take(id);
        let waiting = |task: &&mut Task| task.status == TaskStatus::Pending;
        if let Some(task) = self.tasks.get_mut(&id).filter(waiting) {
            task.status = TaskStatus::Processing;
            task.fence = task.fence.next();
            task.updated_at = claim.claimed_at;
            let fence = task.fence;
            claim.tasks.insert(
                id,
                Held {
                    fence,
                    waiting_since,
                },
            );
        }
    }

    /// Stores a task, unless the id exists.
    fn store(&mut self, new: &NewTask, now: Timestamp) -> InsertOutcome {
        if let Some(existing) = self.tasks.get(&new.id) {
            return InsertOutcome {
                write: WriteOutcome::AlreadyApplied,
                created_at: existing.created_at,
            };
        }
        self.tasks.insert(
            new.id,
            Task {
                id: new.id,
                payload: new.payload.clone(),
                priority: new.priority,
                status: TaskStatus::Pending,
                result: None,
                error: None,
                attempts: 0,
                max_attempts: new.max_attempts,
                rescues: 0,
                fence: Fence(0),
                created_at: now,
                updated_at: now,
            },
        );
        let row = Waiting {
            not_before: new.run_at.unwrap_or(now),
            messaged: new.messaged,
        };
        self.queue.put(new.id, row);
        InsertOutcome {
            write: WriteOutcome::Applied,
            created_at: now,
        }
    }

    fn move_task(&mut self, transition: &Transition, now: Timestamp) -> TransitionOutcome {
        const STALE: TransitionOutcome = TransitionOutcome {
            write: WriteOutcome::Stale,
            updated_at: None,
        };
        let Some(task) = self.tasks.get_mut(&transition.id) else {
            return STALE;
        };
        if is_as_left_by(task, transition) {
            return TransitionOutcome {
                write: WriteOutcome::AlreadyApplied,
                updated_at: Some(task.updated_at),
            };
        }
        if task.fence != transition.fence || task.status != transition.from {
            return STALE;
        }
        task.status = transition.to.status();
        task.fence = task.fence.next();
        task.updated_at = now;
        task.result = None;
        match transition.spent {
            Spent::Attempt => task.attempts = task.attempts.saturating_add(1),
            Spent::Rescue => task.rescues = task.rescues.saturating_add(1),
            Spent::Nothing => {}
            Spent::Reset => {
                task.attempts = 0;
                task.rescues = 0;
            }
        }
        if transition.from == TaskStatus::Pending {
            self.queue.take(transition.id);
        }
        match &transition.to {
            Next::Done { result } => {
                task.result = Some(result.clone());
                task.error = None;
                self.totals.done += 1;
                self.totals.elapsed_micros += i128::from(now.micros_since(task.created_at));
            }
            Next::Failed { error } => task.error = Some(error.clone()),
            Next::Cancelled => {}
            Next::Pending { delay, error } => {
                if let Some(error) = error {
                    task.error = Some(error.clone());
                }
                let row = Waiting {
                    not_before: now.after(*delay),
                    messaged: false,
                };
                self.queue.put(transition.id, row);
            }
        }
        if is_stopped(transition.from) {
            self.unlist(transition.id);
        }
        let becomes = transition.to.status();
        if is_stopped(becomes) {
            let cancelled = becomes == TaskStatus::Cancelled;
            self.stopped.insert((cancelled, transition.id), false);
        }
        TransitionOutcome {
            write: WriteOutcome::Applied,
            updated_at: Some(now),
        }
    }
}

/// Whether it stands in the list of failed and cancelled tasks.
const fn is_stopped(status: TaskStatus) -> bool {
    matches!(status, TaskStatus::Failed | TaskStatus::Cancelled)
}

/// Whether a task stands exactly where this transition would have left it.
fn is_as_left_by(task: &Task, transition: &Transition) -> bool {
    let counted = match transition.spent {
        Spent::Attempt => task.attempts >= 1,
        Spent::Rescue => task.rescues >= 1,
        Spent::Nothing => true,
        Spent::Reset => task.attempts == 0 && task.rescues == 0,
    };
    counted
        && task.fence == transition.fence.next()
        && task.status == transition.to.status()
        && match &transition.to {
            Next::Done { result } => task.result.as_ref() == Some(result),
            Next::Failed { error }
            | Next::Pending {
                error: Some(error), ..
            } => task.error.as_ref() == Some(error),
            Next::Cancelled | Next::Pending { error: None, .. } => true,
        }
}

fn holds_nul(next: &Next) -> bool {
    match next {
        Next::Done { result } => result.contains('\0'),
        Next::Failed { error }
        | Next::Pending {
            error: Some(error), ..
        } => error.contains('\0'),
        Next::Cancelled | Next::Pending { error: None, .. } => false,
    }
}

fn check_limits(tasks: &[NewTask]) -> Result<(), StoreError> {
    let too_many = |task: &NewTask| i32::try_from(task.max_attempts).is_err();
    if tasks.iter().any(too_many) {
        return Err(StoreError::Rejected(RefusedValue::MaxAttempts.into()));
    }
    Ok(())
}

impl MemoryTaskStore {
    /// An empty store without a limit, whose own clock is this one.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            capacity: usize::MAX,
            changed: Notify::new(),
            state: Mutex::default(),
        }
    }

    /// The same store with room for this many tasks: an insert that would exceed it fails as
    /// [`StoreError::Unavailable`] with [`StoreFull`] as its cause.
    #[must_use]
    pub fn limited_to(self, capacity: usize) -> Self {
        Self { capacity, ..self }
    }

    /// Writes rows as another program does: `pending`, priority 0, fence 0, created now, no queue row. Ids that exist
    /// are left alone.
    pub fn plant(&self, ids: &[TaskId], payload: &Payload) {
        let now = self.clock.now();
        let mut state = self.lock();
        for id in ids {
            state.tasks.entry(*id).or_insert_with(|| Task {
                id: *id,
                payload: payload.clone(),
                priority: Priority::default(),
                status: TaskStatus::Pending,
                result: None,
                error: None,
                attempts: 0,
                max_attempts: 5,
                rescues: 0,
                fence: Fence(0),
                created_at: now,
                updated_at: now,
            });
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// A copy of everything, taken at one moment.
    #[must_use]
    pub fn snapshot(&self) -> StoreSnapshot {
        let state = self.lock();
        StoreSnapshot {
            tasks: state.tasks.values().cloned().collect(),
            queue: state
                .queue
                .rows
                .iter()
                .map(|(id, row)| QueueEntry {
                    id: *id,
                    not_before: row.not_before,
                    messaged: row.messaged,
                })
                .collect(),
            claims: state
                .claims
                .iter()
                .map(|(id, claim)| claim.record(*id))
                .collect(),
            stopped: state
                .stopped
                .keys()
                .map(|(cancelled, id)| (listed_as(*cancelled), *id))
                .collect(),
            workers: state.workers.values().cloned().collect(),
            pruned: state.pruned,
            totals: state.totals,
        }
    }

    /// The task of this id, as it stands.
    #[must_use]
    pub fn task(&self, id: TaskId) -> Option<Task> {
        self.lock().tasks.get(&id).cloned()
    }

    /// Waits until the condition holds, looking again after every change of a task or a claim; gives back what the store
    /// held then. Waits for ever if that never comes: give it a timeout in tests.
    pub async fn until(&self, condition: impl Fn(&StoreSnapshot) -> bool) -> StoreSnapshot {
        loop {
            // Made before looking, it is woken by whatever changes after.
            let changed = self.changed.notified();
            let snapshot = self.snapshot();
            if condition(&snapshot) {
                return snapshot;
            }
            changed.await;
        }
    }

    /// Waits until each of these tasks is at rest and returns them, in this order. Unknown ids are waited for.
    pub async fn at_rest(&self, ids: &[TaskId]) -> Vec<Task> {
        loop {
            // Made before looking, it is woken by whatever changes after.
            let changed = self.changed.notified();
            let resting: Option<Vec<Task>> = {
                let state = self.lock();
                ids.iter()
                    .map(|id| {
                        state
                            .tasks
                            .get(id)
                            .filter(|task| task.status.is_at_rest())
                            .cloned()
                    })
                    .collect()
            };
            if let Some(tasks) = resting {
                return tasks;
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock is a defect of this file, and the panicking test reports it; others may go on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_room<'a>(
        &self,
        state: &State,
        tasks: impl Iterator<Item = &'a NewTask>,
    ) -> Result<(), StoreError> {
        let fresh: BTreeSet<TaskId> = tasks
            .map(|task| task.id)
            .filter(|id| !state.tasks.contains_key(id))
            .collect();
        if state.tasks.len().saturating_add(fresh.len()) > self.capacity {
            let full = StoreFull {
                capacity: self.capacity,
            };
            return Err(StoreError::Unavailable(full.into()));
        }
        Ok(())
    }

    fn close_claim(
        &self,
        mut state: MutexGuard<'_, State>,
        id: ClaimId,
        claim: Claim,
    ) -> Vec<ClaimedTask> {
        let claimed = claim
            .tasks
            .keys()
            .filter_map(|task| state.held(&claim, *task))
            .collect();
        if !claim.tasks.is_empty() {
            state.claims.insert(id, claim);
        }
        drop(state);
        self.changed.notify_waiters();
        claimed
    }
}

#[async_trait]
impl TaskStore for MemoryTaskStore {
    async fn insert(&self, tasks: &[NewTask]) -> Result<Vec<InsertOutcome>, StoreError> {
        if tasks.is_empty() {
            return Ok(Vec::new());
        }
        check_limits(tasks)?;
        let mut state = self.lock();
        self.check_room(&state, tasks.iter())?;
        let now = self.clock.now();
        let outcomes = tasks.iter().map(|new| state.store(new, now)).collect();
        drop(state);
        self.changed.notify_waiters();
        Ok(outcomes)
    }

    async fn insert_keyed(
        &self,
        requests: &[KeyedRequest],
    ) -> Result<Vec<KeptRequest>, StoreError> {
        let mut state = self.lock();
        let mut fresh: BTreeMap<&RequestKey, &KeyedRequest> = BTreeMap::new();
        for request in requests {
            if !state.keys.contains_key(&request.key) {
                fresh.entry(&request.key).or_insert(request);
            }
        }
        for request in fresh.values() {
            check_limits(&request.tasks)?;
        }
        self.check_room(&state, fresh.values().flat_map(|request| &request.tasks))?;
        let now = self.clock.now();
        for (key, request) in fresh {
            for task in &request.tasks {
                state.store(task, now);
            }
            let kept = KeptRequest {
                fingerprint: request.fingerprint,
                tasks: request.tasks.iter().map(|task| task.id).collect(),
                created_at: now,
            };
            state.keys.insert(key.clone(), kept);
        }
        let answers = requests
            .iter()
            .filter_map(|request| state.keys.get(&request.key).cloned())
            .collect();
        drop(state);
        self.changed.notify_waiters();
        Ok(answers)
    }

    async fn prune_keys(&self, age: Duration, limit: usize) -> Result<usize, StoreError> {
        let mut state = self.lock();
        let latest = self.clock.now().before(age);
        let mut old: Vec<(Timestamp, RequestKey)> = state
            .keys
            .iter()
            .filter(|(_, kept)| kept.created_at < latest)
            .map(|(key, kept)| (kept.created_at, key.clone()))
            .collect();
        old.sort_unstable();
        old.truncate(limit);
        for (_, key) in &old {
            state.keys.remove(key);
        }
        Ok(old.len())
    }

    async fn get(&self, ids: &[TaskId]) -> Result<Vec<Option<Task>>, StoreError> {
        let state = self.lock();
        Ok(ids.iter().map(|id| state.tasks.get(id).cloned()).collect())
    }

    async fn whereabouts(&self, ids: &[TaskId]) -> Result<Vec<Option<Whereabouts>>, StoreError> {
        let state = self.lock();
        let standing = |task: &Task| Whereabouts {
            status: task.status,
            fence: task.fence,
        };
        Ok(ids
            .iter()
            .map(|id| state.tasks.get(id).map(standing))
            .collect())
    }

    async fn claim_delivered(
        &self,
        ticket: ClaimTicket,
        ids: &[TaskId],
    ) -> Result<Vec<DeliveryOutcome>, ClaimError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut state = self.lock();
        state.check_worker(ticket.worker)?;
        let now = self.clock.now();
        let mut seen = BTreeSet::new();
        if let Some(claim) = state.claims.get(&ticket.claim) {
            let outcomes = ids
                .iter()
                .map(|id| {
                    if !seen.insert(*id) {
                        return DeliveryOutcome::Repeated;
                    }
                    if claim.worker == ticket.worker
                        && let Some(held) = state.held(claim, *id)
                    {
                        return DeliveryOutcome::Claimed(held);
                    }
                    // What became due since the first call is left to claiming by age.
                    state
                        .claimable(*id, now)
                        .err()
                        .unwrap_or(DeliveryOutcome::InHand)
                })
                .collect();
            return Ok(outcomes);
        }
        let mut claim = Claim {
            worker: ticket.worker,
            claimed_at: now,
            tasks: BTreeMap::new(),
        };
        let refusals: Vec<Option<DeliveryOutcome>> = ids
            .iter()
            .map(|id| {
                if !seen.insert(*id) {
                    return Some(DeliveryOutcome::Repeated);
                }
                match state.claimable(*id, now) {
                    Ok(waiting_since) => {
                        state.take(&mut claim, *id, waiting_since);
                        None
                    }
                    Err(outcome) => {
                        state.drop_if_in_vain(*id, now);
                        Some(outcome)
                    }
                }
            })
            .collect();
        let mut claimed: BTreeMap<TaskId, ClaimedTask> = self
            .close_claim(state, ticket.claim, claim)
            .into_iter()
            .map(|task| (task.id, task))
            .collect();
        let outcomes = ids.iter().zip(refusals).map(|(id, refusal)| {
            refusal.unwrap_or_else(|| {
                claimed
                    .remove(id)
                    .map_or(DeliveryOutcome::Unknown, DeliveryOutcome::Claimed)
            })
        });
        Ok(outcomes.collect())
    }

    async fn claim_aged(
        &self,
        ticket: ClaimTicket,
        horizon: Horizon,
        grace: Duration,
        limit: usize,
    ) -> Result<Vec<ClaimedTask>, ClaimError> {
        let mut state = self.lock();
        state.check_worker(ticket.worker)?;
        if let Some(claim) = state.claims.get(&ticket.claim) {
            if claim.worker != ticket.worker {
                return Ok(Vec::new());
            }
            return Ok(claim
                .tasks
                .keys()
                .filter_map(|id| state.held(claim, *id))
                .collect());
        }
        let now = self.clock.now();
        let is_aged = |not_before: Timestamp, patience: Duration| match horizon {
            Horizon::Now => not_before <= now.before(patience),
            Horizon::Before(point) => {
                not_before <= now.before(patience) && not_before < point.before(patience)
            }
        };
        let mut unmessaged = state
            .queue
            .oldest(false)
            .take_while(|(not_before, _)| is_aged(*not_before, Duration::ZERO))
            .peekable();
        let mut messaged = state
            .queue
            .oldest(true)
            .take_while(|(not_before, _)| is_aged(*not_before, grace))
            .peekable();
        let mut chosen = Vec::new();
        while chosen.len() < limit {
            // The oldest of both kinds first, so that neither kind can starve the other.
            let next = match (unmessaged.peek(), messaged.peek()) {
                (Some(one), Some(other)) if one <= other => unmessaged.next(),
                (_, Some(_)) => messaged.next(),
                _ => unmessaged.next(),
            };
            match next {
                Some(row) => chosen.push(row),
                None => break,
            }
        }
        drop((unmessaged, messaged));
        let mut claim = Claim {
            worker: ticket.worker,
            claimed_at: now,
            tasks: BTreeMap::new(),
        };
        for (not_before, id) in chosen {
            state.take(&mut claim, id, not_before);
        }
        let mut claimed = self.close_claim(state, ticket.claim, claim);
        claimed.sort_by_key(|task| (task.waiting_since, task.id));
        Ok(claimed)
    }

    async fn transition(
        &self,
        transitions: &[Transition],
    ) -> Result<Vec<TransitionOutcome>, StoreError> {
        if transitions.is_empty() {
            return Ok(Vec::new());
        }
        if transitions
            .iter()
            .any(|transition| holds_nul(&transition.to))
        {
            return Err(StoreError::Rejected(RefusedValue::Nul.into()));
        }
        let mut state = self.lock();
        let now = self.clock.now();
        let outcomes = transitions
            .iter()
            .map(|transition| state.move_task(transition, now))
            .collect();
        drop(state);
        self.changed.notify_waiters();
        Ok(outcomes)
    }

    async fn release(&self, claims: &[ClaimId]) -> Result<(), StoreError> {
        let mut state = self.lock();
        for claim in claims {
            state.claims.remove(claim);
        }
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }

    async fn claims_of(
        &self,
        worker: WorkerId,
        after: Option<ClaimId>,
        limit: usize,
    ) -> Result<Vec<ClaimRecord>, StoreError> {
        let state = self.lock();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        Ok(state
            .claims
            .range((from, Bound::Unbounded))
            .filter(|(_, claim)| claim.worker == worker)
            .map(|(id, claim)| claim.record(*id))
            .take(limit)
            .collect())
    }

    async fn mark_unmessaged(&self, ids: &[TaskId]) -> Result<(), StoreError> {
        let mut state = self.lock();
        for id in ids {
            if let Some(row) = state.queue.take(*id) {
                state.queue.put(
                    *id,
                    Waiting {
                        messaged: false,
                        ..row
                    },
                );
            }
        }
        Ok(())
    }

    async fn totals(&self) -> Result<Totals, StoreError> {
        Ok(self.lock().totals)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[async_trait]
impl WorkerRegistry for MemoryTaskStore {
    async fn register(&self, worker: WorkerId, name: &str) -> Result<(), StoreError> {
        if let Entry::Vacant(place) = self.lock().workers.entry(worker) {
            place.insert(WorkerEntry {
                id: worker,
                name: name.to_owned(),
                beat: 0,
                position: None,
                dead: false,
            });
        }
        Ok(())
    }

    async fn beat(
        &self,
        worker: WorkerId,
        position: Option<Timestamp>,
    ) -> Result<BeatReply, StoreError> {
        match self.lock().workers.get_mut(&worker) {
            Some(entry) if !entry.dead => {
                entry.beat += 1;
                entry.position = position;
                Ok(BeatReply::Alive)
            }
            _ => Ok(BeatReply::Gone),
        }
    }

    async fn workers(&self) -> Result<Vec<WorkerEntry>, StoreError> {
        Ok(self.lock().workers.values().cloned().collect())
    }

    async fn declare_dead(
        &self,
        worker: WorkerId,
        last_beat: u64,
    ) -> Result<WriteOutcome, StoreError> {
        match self.lock().workers.get_mut(&worker) {
            Some(entry) if entry.dead => Ok(WriteOutcome::AlreadyApplied),
            Some(entry) if entry.beat == last_beat => {
                entry.dead = true;
                Ok(WriteOutcome::Applied)
            }
            _ => Ok(WriteOutcome::Stale),
        }
    }

    async fn remove(&self, worker: WorkerId) -> Result<RemoveReply, StoreError> {
        let mut state = self.lock();
        if !state.workers.contains_key(&worker) {
            return Ok(RemoveReply::Removed);
        }
        if state.claims.values().any(|claim| claim.worker == worker) {
            return Ok(RemoveReply::HasClaims);
        }
        state.workers.remove(&worker);
        Ok(RemoveReply::Removed)
    }
}
