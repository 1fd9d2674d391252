//! The audit, and the contradictions that tests give it to find.

use std::collections::BTreeSet;
use std::collections::btree_map::Entry;
use std::ops::Bound;
use std::time::Duration;

use async_trait::async_trait;
use ports::{
    AuditPage, ClaimId, ClaimRecord, Fence, StoreError, Task, TaskAudit, TaskEvent, TaskId,
    TaskStatus, Timestamp,
};

use super::{Claim, Held, MemoryTaskStore, State, Waiting, is_stopped};

impl State {
    /// Everything that the recorded claims hold.
    fn held_by_all(&self) -> BTreeSet<(TaskId, Fence)> {
        let claims = self.claims.values();
        claims
            .flat_map(|claim| claim.tasks.iter().map(|(id, held)| (*id, held.fence)))
            .collect()
    }

    /// Takes a task out of the list of failed and cancelled ones; answers how many entries there were.
    pub(super) fn unlist(&mut self, id: TaskId) -> usize {
        let entries = [false, true].map(|cancelled| self.stopped.remove(&(cancelled, id)));
        entries.iter().flatten().count()
    }

    fn is_listed_in_vain(&self, (cancelled, id): (bool, TaskId)) -> bool {
        let task = self.tasks.get(&id);
        task.is_none_or(|task| task.status != listed_as(cancelled))
    }

    pub(super) fn is_in_vain(&self, queued: TaskId) -> bool {
        let task = self.tasks.get(&queued);
        task.is_none_or(|task| task.status != TaskStatus::Pending)
    }
}

pub(super) const fn listed_as(cancelled: bool) -> TaskStatus {
    if cancelled {
        TaskStatus::Cancelled
    } else {
        TaskStatus::Failed
    }
}

/// A time that lies further in the future than that is no time at which anything happened.
fn has_not_moved_for(time: Duration, task: &Task, now: Timestamp) -> bool {
    task.updated_at <= now.before(time) || task.updated_at > now.after(time)
}

fn beginning_after(after: Option<TaskId>) -> (Bound<TaskId>, Bound<TaskId>) {
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    (from, Bound::Unbounded)
}

impl MemoryTaskStore {
    /// Writes a queue row behind the store's back, not messaged, whether or not there is such a task. A row that is there
    /// is replaced.
    pub fn plant_queue_row(&self, id: TaskId, not_before: Timestamp) {
        let row = Waiting {
            not_before,
            messaged: false,
        };
        self.lock().queue.put(id, row);
        self.changed.notify_waiters();
    }

    /// Deletes the queue row of a task behind the store's back.
    pub fn remove_queue_row(&self, id: TaskId) {
        self.lock().queue.take(id);
        self.changed.notify_waiters();
    }

    /// Writes a claim behind the store's back, whether or not there are such a worker and such tasks. A claim of the same id
    /// is replaced.
    pub fn plant_claim(&self, record: &ClaimRecord) {
        let held = |(id, fence): &(TaskId, Fence)| {
            let held = Held {
                fence: *fence,
                waiting_since: record.claimed_at,
            };
            (*id, held)
        };
        let claim = Claim {
            worker: record.worker,
            claimed_at: record.claimed_at,
            tasks: record.tasks.iter().map(held).collect(),
        };
        self.lock().claims.insert(record.id, claim);
        self.changed.notify_waiters();
    }

    /// Lists a task as failed, or as cancelled, behind the store's back, whether or not there is such a task.
    pub fn plant_stopped(&self, id: TaskId, cancelled: bool) {
        self.lock().stopped.insert((cancelled, id), false);
        self.changed.notify_waiters();
    }

    /// Takes a task out of the list of failed and cancelled ones behind the store's back.
    pub fn remove_stopped(&self, id: TaskId) {
        self.lock().unlist(id);
        self.changed.notify_waiters();
    }

    /// Deletes a claim behind the backs of the store and of its worker.
    pub fn remove_claim(&self, claim: ClaimId) {
        self.lock().claims.remove(&claim);
        self.changed.notify_waiters();
    }
}

#[async_trait]
impl TaskAudit for MemoryTaskStore {
    async fn stranded(
        &self,
        after: Option<TaskId>,
        limit: usize,
        unmoved_for: Duration,
    ) -> Result<AuditPage, StoreError> {
        let state = self.lock();
        let now = self.clock.now();
        let walked: Vec<&Task> = state
            .tasks
            .range(beginning_after(after))
            .map(|(_, task)| task)
            .take(limit)
            .collect();
        let unmoved = |status: TaskStatus| {
            walked.iter().filter(move |task| {
                task.status == status && has_not_moved_for(unmoved_for, task, now)
            })
        };
        let mut stranded: Vec<Task> = unmoved(TaskStatus::Pending)
            .filter(|task| !state.queue.rows.contains_key(&task.id))
            .map(|task| (*task).clone())
            .collect();
        // The claims are read only when it depends on them.
        if unmoved(TaskStatus::Processing).next().is_some() {
            let held = state.held_by_all();
            stranded.extend(
                unmoved(TaskStatus::Processing)
                    .filter(|task| !held.contains(&(task.id, task.fence)))
                    .map(|task| (*task).clone()),
            );
            stranded.sort_unstable_by_key(|task| task.id);
        }
        let unlisted = walked
            .iter()
            .filter(|task| is_stopped(task.status))
            .filter(|task| {
                let cancelled = task.status == TaskStatus::Cancelled;
                !state.stopped.contains_key(&(cancelled, task.id))
            });
        Ok(AuditPage {
            stranded,
            unlisted: unlisted.map(|task| task.id).collect(),
            next: (walked.len() == limit)
                .then(|| walked.last().map(|task| task.id))
                .flatten(),
        })
    }

    async fn enqueue(&self, ids: &[TaskId]) -> Result<usize, StoreError> {
        let mut state = self.lock();
        let row = Waiting {
            not_before: self.clock.now(),
            messaged: false,
        };
        let mut given = 0;
        for id in ids {
            if !state.is_in_vain(*id) && !state.queue.rows.contains_key(id) {
                state.queue.put(*id, row);
                given += 1;
            }
        }
        drop(state);
        self.changed.notify_waiters();
        Ok(given)
    }

    async fn sweep_queue(
        &self,
        after: Option<TaskId>,
        limit: usize,
    ) -> Result<(usize, Option<TaskId>), StoreError> {
        let mut state = self.lock();
        let walked: Vec<TaskId> = state
            .queue
            .rows
            .range(beginning_after(after))
            .map(|(id, _)| *id)
            .take(limit)
            .collect();
        let mut swept = 0;
        for id in &walked {
            if state.is_in_vain(*id) {
                state.queue.take(*id);
                swept += 1;
            }
        }
        drop(state);
        if swept > 0 {
            self.changed.notify_waiters();
        }
        let next = (walked.len() == limit).then(|| walked.last().copied());
        Ok((swept, next.flatten()))
    }

    async fn enlist(&self, ids: &[TaskId]) -> Result<usize, StoreError> {
        let mut state = self.lock();
        let mut listed = 0;
        for id in ids {
            let status = state.tasks.get(id).map(|task| task.status);
            if let Some(status) = status.filter(|status| is_stopped(*status)) {
                let entry = (status == TaskStatus::Cancelled, *id);
                if let Entry::Vacant(missing) = state.stopped.entry(entry) {
                    missing.insert(false);
                    listed += 1;
                }
            }
        }
        drop(state);
        self.changed.notify_waiters();
        Ok(listed)
    }

    async fn sweep_stopped(
        &self,
        after: Option<TaskId>,
        limit: usize,
    ) -> Result<(usize, Option<TaskId>), StoreError> {
        let mut state = self.lock();
        let ids: BTreeSet<TaskId> = state.stopped.keys().map(|(_, id)| *id).collect();
        let walked: Vec<TaskId> = ids
            .range(beginning_after(after))
            .copied()
            .take(limit)
            .collect();
        let entries = walked.iter().flat_map(|id| [(false, *id), (true, *id)]);
        let mut swept = 0;
        for entry in entries {
            if state.is_listed_in_vain(entry) && state.stopped.remove(&entry).is_some() {
                swept += 1;
            }
        }
        drop(state);
        if swept > 0 {
            self.changed.notify_waiters();
        }
        let next = (walked.len() == limit).then(|| walked.last().copied());
        Ok((swept, next.flatten()))
    }

    async fn untold(
        &self,
        after: Option<TaskId>,
        limit: usize,
        unmoved_for: Duration,
    ) -> Result<(Vec<TaskEvent>, Option<TaskId>), StoreError> {
        let state = self.lock();
        let now = self.clock.now();
        let walked: Vec<(TaskId, bool)> = state
            .stopped
            .iter()
            .filter(|((cancelled, id), _)| *cancelled && after.is_none_or(|after| *id > after))
            .map(|((_, id), told)| (*id, *told))
            .take(limit)
            .collect();
        let untold = walked.iter().filter(|(_, told)| !told);
        let events = untold
            .filter_map(|(id, _)| state.tasks.get(id))
            .filter(|task| task.status == TaskStatus::Cancelled)
            .filter(|task| has_not_moved_for(unmoved_for, task, now))
            .map(|task| TaskEvent {
                id: task.id,
                status: task.status,
                fence: task.fence,
                at: task.updated_at,
            });
        let last = walked.last().filter(|_| walked.len() == limit);
        Ok((events.collect(), last.map(|(id, _)| *id)))
    }

    async fn mark_told(&self, ids: &[TaskId]) -> Result<(), StoreError> {
        let mut state = self.lock();
        for id in ids {
            if let Some(told) = state.stopped.get_mut(&(true, *id)) {
                *told = true;
            }
        }
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }

    async fn prune(
        &self,
        after: Option<TaskId>,
        limit: usize,
        older_than: Duration,
    ) -> Result<(usize, Option<TaskId>), StoreError> {
        let mut state = self.lock();
        let latest = self.clock.now().before(older_than);
        let walked: Vec<TaskId> = state
            .tasks
            .range(beginning_after(after))
            .map(|(id, _)| *id)
            .take(limit)
            .collect();
        let held: BTreeSet<TaskId> = state.held_by_all().iter().map(|(id, _)| *id).collect();
        let mut pruned = 0;
        for id in walked.iter().filter(|id| !held.contains(id)) {
            let is_old = |task: &&Task| task.status.is_at_rest() && task.updated_at <= latest;
            let Some(task) = state.tasks.get(id).filter(is_old) else {
                continue;
            };
            let status = task.status;
            if status == TaskStatus::Done {
                let elapsed = task.updated_at.micros_since(task.created_at);
                state.pruned.done += 1;
                state.pruned.elapsed_micros += i128::from(elapsed);
            }
            if is_stopped(status) {
                state.unlist(*id);
            }
            state.tasks.remove(id);
            pruned += 1;
        }
        drop(state);
        if pruned > 0 {
            self.changed.notify_waiters();
        }
        let next = (walked.len() == limit).then(|| walked.last().copied());
        Ok((pruned, next.flatten()))
    }

    async fn orphaned_claims(&self, limit: usize) -> Result<Vec<ClaimRecord>, StoreError> {
        let state = self.lock();
        Ok(state
            .claims
            .iter()
            .filter(|(_, claim)| !state.workers.contains_key(&claim.worker))
            .map(|(id, claim)| claim.record(*id))
            .take(limit)
            .collect())
    }
}
