//! What really happened in the store: a decorator next to the store itself, that every call passes which took effect.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use adapters::memory::{MemoryTaskStore, StoreSnapshot};
use async_trait::async_trait;
use ports::{
    AuditPage, BeatReply, ClaimError, ClaimId, ClaimRecord, ClaimTicket, ClaimedTask, Clock,
    DeliveryOutcome, Fence, Horizon, InsertOutcome, KeptRequest, KeyedRequest, NewTask,
    RemoveReply, Spent, StoreError, Task, TaskAudit, TaskCatalog, TaskEvent, TaskId, TaskStatus,
    TaskStore, Timestamp, Totals, Transition, TransitionOutcome, Whereabouts, WorkerEntry,
    WorkerId, WorkerRegistry, WriteOutcome,
};

use crate::link::Link;
use crate::sky::Sky;
use crate::trace::Who;

/// A claim of one task that took effect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claimed {
    pub(crate) worker: WorkerId,
    pub(crate) fence: Fence,
    /// Virtual microseconds.
    pub(crate) at: i64,
    /// The store's clock.
    pub(crate) stamped: Timestamp,
}

/// A transition that was applied.
#[derive(Clone, Debug)]
pub(crate) struct Moved {
    /// The fence that it named.
    pub(crate) fence: Fence,
    pub(crate) from: TaskStatus,
    pub(crate) to: TaskStatus,
    pub(crate) spent: Spent,
    pub(crate) at: i64,
}

/// The life of one task, as the store saw it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Life {
    pub(crate) inserted_at: Option<i64>,
    pub(crate) run_at: Option<Timestamp>,
    pub(crate) claims: Vec<Claimed>,
    pub(crate) moves: Vec<Moved>,
    /// The task each time that it had come to rest.
    pub(crate) rests: Vec<Task>,
}

/// A death that was declared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Death {
    pub(crate) worker: WorkerId,
    pub(crate) at: i64,
    /// When the worker last beat or registered.
    pub(crate) last_beat_at: i64,
    /// The process was under this identity then; an identity that a late request registered again is nobody's.
    pub(crate) was_living: bool,
    /// Something other than an outage kept it from beating, or it had ended.
    pub(crate) has_excuse: bool,
}

/// How long before its last beat a fault may have struck that still explains a silence: the slowest call, there and back.
const EXCUSE_REACHES_BACK: i64 = 30_000_000;

#[derive(Default)]
pub(crate) struct Records {
    pub(crate) lives: BTreeMap<TaskId, Life>,
    pub(crate) deaths: Vec<Death>,
    /// What was deleted, as it last was, and when.
    pub(crate) pruned: Vec<(Task, i64)>,
    /// What other hands wrote into the list of failed and cancelled tasks, or took out of it.
    pub(crate) misfiled: BTreeSet<TaskId>,
    pub(crate) beats: BTreeMap<WorkerId, i64>,
    /// Which process registered under this identity, by its name.
    pub(crate) names: BTreeMap<WorkerId, String>,
    /// Every process that ever ran a worker, by its name.
    pub(crate) links: BTreeMap<String, Arc<Link>>,
    /// Contradictions seen on the way.
    pub(crate) wrong: Vec<String>,
}

impl Records {
    /// The identity under which a process registered last.
    pub(crate) fn latest_of(&self, name: &str) -> Option<WorkerId> {
        let own = self.names.iter().filter(|(_, known)| *known == name);
        own.map(|(worker, _)| *worker).max()
    }

    /// The process that is, or last was, under this identity, unless it has registered under another since.
    fn link_of(&self, worker: WorkerId) -> Option<&Link> {
        let name = self.names.get(&worker)?;
        if self.latest_of(name) != Some(worker) {
            return None;
        }
        self.links.get(name).map(Arc::as_ref)
    }
}

/// The store and the registry of a history.
pub(crate) struct RecordingStore {
    inner: Arc<MemoryTaskStore>,
    clock: Arc<dyn Clock>,
    sky: Arc<Sky>,
    /// For how long what is at rest must be kept; for ever if nothing is said.
    retention: Option<Duration>,
    /// Whether nobody may claim some of the tasks while faults strike.
    has_guards: bool,
    records: Mutex<Records>,
}

impl RecordingStore {
    pub(crate) fn new(
        inner: Arc<MemoryTaskStore>,
        clock: Arc<dyn Clock>,
        sky: Arc<Sky>,
        retention: Option<Duration>,
        has_guards: bool,
    ) -> Self {
        Self {
            inner,
            clock,
            sky,
            retention,
            has_guards,
            records: Mutex::default(),
        }
    }

    pub(crate) fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, label: &'static str, number: u64, text: impl FnOnce() -> String) {
        self.sky.trace.note(Who::WORLD, label, number, text);
    }

    /// Whether nobody may claim this task now.
    fn guards(&self, id: TaskId) -> bool {
        self.has_guards && self.sky.is_stormy() && id.0.as_u128().is_multiple_of(5)
    }

    fn refused(&self, mut ids: impl Iterator<Item = TaskId>) -> Result<(), ClaimError> {
        let Some(guarded) = ids.find(|id| self.guards(*id)) else {
            return Ok(());
        };
        self.note("claim refused", 0, || format!("because of {guarded}"));
        Err(StoreError::Rejected("not this one".into()).into())
    }

    fn note_contradiction(&self, what: String) {
        let mut records = self.records();
        if !records.wrong.contains(&what) {
            records.wrong.push(what);
        }
    }

    fn note_claim(&self, ticket: ClaimTicket, task: &ClaimedTask) {
        let at = self.sky.trace.now();
        let mut records = self.records();
        let life = records.lives.entry(task.id).or_default();
        if life.claims.iter().any(|claim| claim.fence == task.fence) {
            return;
        }
        life.claims.push(Claimed {
            worker: ticket.worker,
            fence: task.fence,
            at,
            stamped: self.clock.now(),
        });
        let name = records.names.get(&ticket.worker).cloned();
        drop(records);
        self.note("· claimed", task.fence.0.cast_unsigned(), || {
            let worker = name.unwrap_or_else(|| ticket.worker.to_string());
            let payload = task.payload.as_str();
            format!("{payload} by {worker} under fence {}", task.fence.0)
        });
    }

    /// Only what is at rest, announced and old may be deleted, and nothing that was counted is forgotten.
    fn note_pruned(&self, before: StoreSnapshot) {
        let (at, now) = (self.sky.trace.now(), self.clock.now());
        let totals = self.inner.snapshot().totals;
        if totals != before.totals {
            let what = format!(
                "pruning: totals went from {:?} to {totals:?}",
                before.totals
            );
            self.note_contradiction(what);
        }
        for task in before.tasks {
            if self.inner.task(task.id).is_some() {
                continue;
            }
            let payload = task.payload.as_str().to_owned();
            self.note("· pruned", 0, || payload.clone());
            let latest = self.retention.map(|retention| now.before(retention));
            let is_old = latest.is_some_and(|latest| task.updated_at <= latest);
            if !task.status.is_at_rest() || !is_old {
                let (status, since) = (task.status, task.updated_at);
                self.note_contradiction(format!(
                    "pruning: {payload} was {status} since {since} and deleted at {now}"
                ));
            }
            let held = before.claims.iter().flat_map(|claim| &claim.tasks);
            if held.into_iter().any(|(id, _)| *id == task.id) {
                self.note_contradiction(format!(
                    "pruning: {payload} was in a recorded claim and deleted"
                ));
            }
            self.records().pruned.push((task, at));
        }
    }

    fn note_move(&self, transition: &Transition, outcome: TransitionOutcome, before: Option<Task>) {
        let label = match outcome.write {
            WriteOutcome::Applied => "· moved",
            WriteOutcome::AlreadyApplied => "· moved before",
            WriteOutcome::Stale => "· refused, stale",
        };
        self.note(label, transition.fence.0.cast_unsigned(), || {
            let payload = before
                .as_ref()
                .map_or("unknown", |task| task.payload.as_str());
            format!(
                "{payload} to {} under fence {}, spending {:?}",
                transition.to.status(),
                transition.fence.0,
                transition.spent
            )
        });
        if outcome.write != WriteOutcome::Applied {
            return;
        }
        let at = self.sky.trace.now();
        let after = self.inner.task(transition.id);
        let mut records = self.records();
        match before {
            Some(task) if task.fence == transition.fence && task.status == transition.from => {}
            found => records.wrong.push(format!(
                "a transition that named {} under fence {} was applied to {found:?}",
                transition.from, transition.fence.0
            )),
        }
        let life = records.lives.entry(transition.id).or_default();
        life.moves.push(Moved {
            fence: transition.fence,
            from: transition.from,
            to: transition.to.status(),
            spent: transition.spent,
            at,
        });
        life.rests
            .extend(after.filter(|task| task.status.is_at_rest()));
    }
}

#[async_trait]
impl TaskStore for RecordingStore {
    async fn insert(&self, tasks: &[NewTask]) -> Result<Vec<InsertOutcome>, StoreError> {
        let outcomes = self.inner.insert(tasks).await?;
        let at = self.sky.trace.now();
        for (task, outcome) in tasks.iter().zip(&outcomes) {
            if outcome.write == WriteOutcome::Applied {
                self.note("· inserted", 0, || task.payload.as_str().to_owned());
                let mut records = self.records();
                let life = records.lives.entry(task.id).or_default();
                life.inserted_at = Some(at);
                life.run_at = task.run_at;
            }
        }
        Ok(outcomes)
    }

    async fn insert_keyed(
        &self,
        requests: &[KeyedRequest],
    ) -> Result<Vec<KeptRequest>, StoreError> {
        let kept = self.inner.insert_keyed(requests).await?;
        let at = self.sky.trace.now();
        for (request, kept) in requests.iter().zip(&kept) {
            // The ids were made for this request: whoever has them kept was the first.
            let ids = request.tasks.iter().map(|task| &task.id);
            if !ids.eq(&kept.tasks) {
                continue;
            }
            for task in &request.tasks {
                let mut records = self.records();
                let life = records.lives.entry(task.id).or_default();
                if life.inserted_at.is_some() {
                    continue;
                }
                life.inserted_at = Some(at);
                life.run_at = task.run_at;
                drop(records);
                self.note("· inserted", 0, || task.payload.as_str().to_owned());
            }
        }
        Ok(kept)
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
        self.refused(ids.iter().copied())?;
        let outcomes = self.inner.claim_delivered(ticket, ids).await?;
        for outcome in &outcomes {
            if let DeliveryOutcome::Claimed(task) = outcome {
                self.note_claim(ticket, task);
            }
        }
        Ok(outcomes)
    }

    async fn claim_aged(
        &self,
        ticket: ClaimTicket,
        horizon: Horizon,
        grace: Duration,
        limit: usize,
    ) -> Result<Vec<ClaimedTask>, ClaimError> {
        if self.has_guards && self.sky.is_stormy() {
            // Whatever waits counts as one of those that wait for longest.
            let queue = self.inner.snapshot().queue;
            self.refused(queue.iter().map(|entry| entry.id))?;
        }
        let claimed = self.inner.claim_aged(ticket, horizon, grace, limit).await?;
        for task in &claimed {
            self.note_claim(ticket, task);
        }
        Ok(claimed)
    }

    async fn transition(
        &self,
        transitions: &[Transition],
    ) -> Result<Vec<TransitionOutcome>, StoreError> {
        let before: Vec<Option<Task>> = transitions
            .iter()
            .map(|transition| self.inner.task(transition.id))
            .collect();
        let outcomes = self.inner.transition(transitions).await?;
        for ((transition, outcome), task) in transitions.iter().zip(&outcomes).zip(before) {
            self.note_move(transition, *outcome, task);
        }
        Ok(outcomes)
    }

    async fn release(&self, claims: &[ClaimId]) -> Result<(), StoreError> {
        self.note("· released", claims.len() as u64, || {
            format!("{} claims", claims.len())
        });
        self.inner.release(claims).await
    }

    async fn claims_of(
        &self,
        worker: WorkerId,
        after: Option<ClaimId>,
        limit: usize,
    ) -> Result<Vec<ClaimRecord>, StoreError> {
        self.inner.claims_of(worker, after, limit).await
    }

    async fn mark_unmessaged(&self, ids: &[TaskId]) -> Result<(), StoreError> {
        self.inner.mark_unmessaged(ids).await
    }

    async fn totals(&self) -> Result<Totals, StoreError> {
        self.inner.totals().await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        TaskStore::ping(&*self.inner).await
    }
}

#[async_trait]
impl WorkerRegistry for RecordingStore {
    async fn register(&self, worker: WorkerId, name: &str) -> Result<(), StoreError> {
        self.note("· registered", 0, || name.to_owned());
        let at = self.sky.trace.now();
        self.records().beats.entry(worker).or_insert(at);
        self.records().names.insert(worker, name.to_owned());
        self.inner.register(worker, name).await
    }

    async fn beat(
        &self,
        worker: WorkerId,
        position: Option<Timestamp>,
    ) -> Result<BeatReply, StoreError> {
        let reply = self.inner.beat(worker, position).await?;
        if reply == BeatReply::Alive {
            let at = self.sky.trace.now();
            self.records().beats.insert(worker, at);
        }
        Ok(reply)
    }

    async fn workers(&self) -> Result<Vec<WorkerEntry>, StoreError> {
        self.inner.workers().await
    }

    async fn declare_dead(
        &self,
        worker: WorkerId,
        last_beat: u64,
    ) -> Result<WriteOutcome, StoreError> {
        let outcome = self.inner.declare_dead(worker, last_beat).await?;
        if outcome == WriteOutcome::Applied {
            let at = self.sky.trace.now();
            let mut records = self.records();
            let last_beat_at = records.beats.get(&worker).copied().unwrap_or(at);
            let link = records.link_of(worker);
            let was_living = link.is_some_and(|link| !link.is_dead());
            // An earlier life of a process cannot beat any more.
            let has_excuse = link.is_none_or(|link| {
                link.was_hindered_since(last_beat_at.saturating_sub(EXCUSE_REACHES_BACK))
            });
            records.deaths.push(Death {
                worker,
                at,
                last_beat_at,
                was_living,
                has_excuse,
            });
            let name = records.names.get(&worker).cloned().unwrap_or_default();
            drop(records);
            self.note("· declared dead", 0, || name);
        }
        Ok(outcome)
    }

    async fn remove(&self, worker: WorkerId) -> Result<RemoveReply, StoreError> {
        let reply = self.inner.remove(worker).await?;
        if reply == RemoveReply::Removed {
            let name = self.records().names.get(&worker).cloned();
            self.note("· removed", 0, || name.unwrap_or_default());
        }
        Ok(reply)
    }
}

impl RecordingStore {
    /// What only looks is not recorded.
    pub(crate) fn catalog(&self) -> Arc<dyn TaskCatalog> {
        self.inner.clone()
    }
}

#[async_trait]
impl TaskAudit for RecordingStore {
    async fn stranded(
        &self,
        after: Option<TaskId>,
        limit: usize,
        unmoved_for: Duration,
    ) -> Result<AuditPage, StoreError> {
        let page = self.inner.stranded(after, limit, unmoved_for).await?;
        for task in &page.stranded {
            // Only what another program wrote may need the audit; else it would hide what a component does wrong.
            let is_ours = self.records().lives.contains_key(&task.id);
            if is_ours {
                let (payload, status) = (task.payload.as_str(), task.status);
                self.note_contradiction(format!("the audit found {payload} {status} in no book"));
            }
        }
        for id in &page.unlisted {
            let is_theirs = self.records().misfiled.contains(id);
            if !is_theirs {
                self.note_contradiction(format!("the audit found {id} not listed"));
            }
        }
        Ok(page)
    }

    async fn enqueue(&self, ids: &[TaskId]) -> Result<usize, StoreError> {
        self.inner.enqueue(ids).await
    }

    async fn sweep_queue(
        &self,
        after: Option<TaskId>,
        limit: usize,
    ) -> Result<(usize, Option<TaskId>), StoreError> {
        let (deleted, next) = self.inner.sweep_queue(after, limit).await?;
        if deleted > 0 {
            self.note_contradiction(format!("the audit found {deleted} queue rows in vain"));
        }
        Ok((deleted, next))
    }

    async fn enlist(&self, ids: &[TaskId]) -> Result<usize, StoreError> {
        self.inner.enlist(ids).await
    }

    async fn sweep_stopped(
        &self,
        after: Option<TaskId>,
        limit: usize,
    ) -> Result<(usize, Option<TaskId>), StoreError> {
        let before = self.inner.snapshot().stopped;
        let (deleted, next) = self.inner.sweep_stopped(after, limit).await?;
        if deleted > 0 {
            let left = self.inner.snapshot().stopped;
            for (status, id) in before.iter().filter(|entry| !left.contains(entry)) {
                let is_theirs = self.records().misfiled.contains(id);
                if !is_theirs {
                    self.note_contradiction(format!("the audit found {id} listed as {status}"));
                }
            }
        }
        Ok((deleted, next))
    }

    async fn untold(
        &self,
        after: Option<TaskId>,
        limit: usize,
        unmoved_for: Duration,
    ) -> Result<(Vec<TaskEvent>, Option<TaskId>), StoreError> {
        self.inner.untold(after, limit, unmoved_for).await
    }

    async fn mark_told(&self, ids: &[TaskId]) -> Result<(), StoreError> {
        self.inner.mark_told(ids).await
    }

    async fn prune(
        &self,
        after: Option<TaskId>,
        limit: usize,
        older_than: Duration,
    ) -> Result<(usize, Option<TaskId>), StoreError> {
        let before = self.inner.snapshot();
        let (count, next) = self.inner.prune(after, limit, older_than).await?;
        if count > 0 {
            self.note_pruned(before);
        }
        Ok((count, next))
    }

    async fn orphaned_claims(&self, limit: usize) -> Result<Vec<ClaimRecord>, StoreError> {
        let claims = self.inner.orphaned_claims(limit).await?;
        if !claims.is_empty() {
            let count = claims.len();
            self.note_contradiction(format!("the audit found {count} claims of nobody"));
        }
        Ok(claims)
    }
}
