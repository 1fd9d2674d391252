//! The catalog.

use std::collections::BTreeSet;
use std::ops::Bound;

use async_trait::async_trait;
use ports::{
    Inspection, Listed, Listing, Place, StoreError, Task, TaskCatalog, TaskId, TaskStatus,
};

use super::{MemoryTaskStore, State};

impl State {
    /// The ids that a listing walks.
    fn walked(&self, listing: &Listing) -> Vec<TaskId> {
        let below = listing.below.map_or(Bound::Unbounded, Bound::Excluded);
        let range = (Bound::Unbounded, below);
        let walk = listing.walk.max(1);
        let tasks = || self.tasks.range(range).rev();
        match listing.status {
            None | Some(TaskStatus::Done) => tasks().map(|(id, _)| *id).take(walk).collect(),
            Some(TaskStatus::Pending) => {
                let rows = self.queue.rows.range(range).rev();
                rows.map(|(id, _)| *id).take(walk).collect()
            }
            Some(TaskStatus::Processing) => {
                let claims = self.claims.values();
                let held: BTreeSet<TaskId> = claims
                    .flat_map(|claim| claim.tasks.keys().copied())
                    .collect();
                held.range(range).rev().copied().take(walk).collect()
            }
            Some(status @ (TaskStatus::Failed | TaskStatus::Cancelled)) => {
                let cancelled = status == TaskStatus::Cancelled;
                let first = Bound::Included((cancelled, TaskId(uuid::Uuid::nil())));
                let last = match listing.below {
                    Some(below) => Bound::Excluded((cancelled, below)),
                    None => Bound::Included((cancelled, TaskId(uuid::Uuid::max()))),
                };
                let entries = self.stopped.range((first, last)).rev();
                entries.map(|((_, id), _)| *id).take(walk).collect()
            }
        }
    }

    fn place(&self, task: &Task, count_up_to: usize, now: ports::Timestamp) -> Place {
        let queued = self.queue.rows.get(&task.id);
        match (task.status, queued) {
            (TaskStatus::Pending, Some(row)) => {
                let due = row.not_before <= now;
                let kinds = [false, true].into_iter().filter(|_| due);
                let ahead = kinds.map(|messaged| {
                    let own = (row.not_before, task.id);
                    let earlier = self.queue.oldest(messaged).take_while(|other| *other < own);
                    earlier.take(count_up_to).count()
                });
                Place::Queued {
                    not_before: row.not_before,
                    messaged: row.messaged,
                    ahead: ahead.sum::<usize>().min(count_up_to),
                }
            }
            (TaskStatus::Processing, _) => {
                let holds = |claim: &&super::Claim| {
                    let held = claim.tasks.get(&task.id);
                    held.is_some_and(|held| held.fence == task.fence)
                };
                self.claims
                    .values()
                    .find(holds)
                    .map_or(Place::Nowhere, |claim| {
                        let worker = self.workers.get(&claim.worker);
                        Place::Claimed {
                            worker: claim.worker,
                            worker_name: worker.map(|entry| entry.name.clone()),
                            claimed_at: claim.claimed_at,
                        }
                    })
            }
            _ => Place::Nowhere,
        }
    }
}

fn matches(listing: &Listing, task: &Task) -> bool {
    listing.status.is_none_or(|status| task.status == status)
        && listing
            .priority
            .is_none_or(|priority| task.priority == priority)
        && listing
            .created_from
            .is_none_or(|from| task.created_at >= from)
        && listing
            .created_before
            .is_none_or(|before| task.created_at < before)
}

fn bytes_of(task: &Task) -> usize {
    let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    task.payload.as_str().len() + length(&task.result) + length(&task.error)
}

#[async_trait]
impl TaskCatalog for MemoryTaskStore {
    async fn list(&self, listing: &Listing) -> Result<Listed, StoreError> {
        let state = self.lock();
        let walked = state.walked(listing);
        let mut listed = Listed::default();
        let mut bytes = 0;
        let mut matching = walked
            .iter()
            .filter_map(|id| state.tasks.get(id))
            .filter(|task| matches(listing, task));
        for task in matching.by_ref() {
            if !listed.tasks.is_empty() && bytes >= listing.bytes {
                listed.next = listed.tasks.last().map(|last| last.id);
                return Ok(listed);
            }
            bytes += bytes_of(task);
            listed.tasks.push(task.clone());
            if listed.tasks.len() >= listing.limit.max(1) {
                listed.next = Some(task.id);
                return Ok(listed);
            }
        }
        listed.next = walked
            .last()
            .copied()
            .filter(|_| walked.len() >= listing.walk.max(1));
        Ok(listed)
    }

    async fn inspect(
        &self,
        id: TaskId,
        count_up_to: usize,
    ) -> Result<Option<Inspection>, StoreError> {
        let state = self.lock();
        let now = self.clock.now();
        Ok(state.tasks.get(&id).map(|task| Inspection {
            task: task.clone(),
            place: state.place(task, count_up_to, now),
            now,
        }))
    }
}
