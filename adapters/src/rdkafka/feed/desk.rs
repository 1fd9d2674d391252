//! What the feed's threads and its callers share: the records that wait, who owns what, and what is to be committed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ports::{Delivery, FeedError, Position, Standing};
use rdkafka::error::KafkaError;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, oneshot};

use crate::kafka_partition::OwnPartition;

/// Why an acknowledgement was not confirmed.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum CommitFault {
    #[error("the commit failed")]
    Failed(#[source] KafkaError),
    #[error("the commit was not confirmed within {0:?}")]
    Slow(Duration),
    #[error("the feed is closed")]
    Closed,
}

/// Why nothing is received.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
struct Outage(String);

pub(super) type Confirmation = oneshot::Receiver<Result<(), CommitFault>>;

/// Commits asked for and not yet sent, merged, with everybody who waits for them.
#[derive(Default)]
pub(super) struct CommitRequest {
    /// Per partition, the offset after the last acknowledged record.
    pub(super) next: BTreeMap<i32, i64>,
    waiting: Vec<oneshot::Sender<Result<(), CommitFault>>>,
}

impl CommitRequest {
    pub(super) fn answer(self, outcome: &Result<(), CommitFault>) {
        for waiting in self.waiting {
            // Whoever stopped waiting does not need the answer.
            drop(waiting.send(outcome.clone()));
        }
    }
}

#[derive(Default)]
struct State {
    buffer: VecDeque<Delivery>,
    owned: BTreeMap<i32, OwnPartition>,
    commit: CommitRequest,
    /// Whether the cluster has answered since the feed was made or the log went down.
    reached: bool,
    /// What is known of an outage.
    outage: Option<Outage>,
    refusal: Option<String>,
    closed: bool,
}

impl State {
    fn answered(&mut self) {
        self.reached = true;
        self.outage = None;
    }
}

pub(super) struct Desk {
    group_id: String,
    topic: String,
    state: Mutex<State>,
    /// Rings when there is something to take: records, or bad news.
    arrived: Notify,
    /// Rings when the buffer got room, a commit is asked for, or the feed closes.
    changed: Condvar,
}

impl Desk {
    pub(super) fn new(group_id: &str, topic: &str) -> Self {
        Self {
            group_id: group_id.into(),
            topic: topic.into(),
            state: Mutex::default(),
            arrived: Notify::new(),
            changed: Condvar::new(),
        }
    }

    pub(super) fn topic(&self) -> &str {
        &self.topic
    }

    pub(super) fn group_id(&self) -> &str {
        &self.group_id
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // For callers.

    /// To be made before [`take`](Self::take) and awaited after it, so that nothing falls between the two.
    pub(super) fn arrival(&self) -> Notified<'_> {
        self.arrived.notified()
    }

    /// What can be taken now: records, or the reason why none come. `None`: wait.
    pub(super) fn take(&self, limit: usize) -> Option<Result<Vec<Delivery>, FeedError>> {
        let mut state = self.lock();
        if state.buffer.is_empty() {
            if let Some(refusal) = &state.refusal {
                return Some(Err(FeedError::Refused(refusal.clone())));
            }
            if state.closed {
                return Some(Err(FeedError::Unavailable(Box::new(CommitFault::Closed))));
            }
            let outage = state.outage.clone()?;
            return Some(Err(FeedError::Unavailable(Box::new(outage))));
        }
        let count = state.buffer.len().min(limit);
        let taken: Vec<Delivery> = state.buffer.drain(..count).collect();
        for delivery in &taken {
            let Position { partition, offset } = delivery.position;
            if let Some(owned) = state.owned.get_mut(&partition) {
                owned.receive(offset);
            }
        }
        if !state.buffer.is_empty() {
            // Another caller may be waiting for what is left.
            self.arrived.notify_one();
        }
        drop(state);
        self.changed.notify_all();
        Some(Ok(taken))
    }

    /// Notes what is to be committed. `None`: nothing of it is this member's to commit any more, or it was committed.
    pub(super) fn request_commit(
        &self,
        upto: &[Position],
    ) -> Result<Option<Confirmation>, FeedError> {
        let mut state = self.lock();
        if state.closed {
            return Err(FeedError::Unavailable(Box::new(CommitFault::Closed)));
        }
        let mut asked = false;
        for position in upto {
            let owned = state.owned.get(&position.partition);
            let Some(next) = owned.and_then(|owned| owned.to_commit(position.offset)) else {
                continue;
            };
            let wanted = state.commit.next.entry(position.partition).or_insert(next);
            *wanted = next.max(*wanted);
            asked = true;
        }
        if !asked {
            return Ok(None);
        }
        let (sender, confirmation) = oneshot::channel();
        state.commit.waiting.push(sender);
        drop(state);
        self.changed.notify_all();
        Ok(Some(confirmation))
    }

    pub(super) fn standing(&self) -> Standing {
        let state = self.lock();
        if state.closed {
            return Standing::Down;
        }
        // First, because a refused member is not told what else is wrong.
        if let Some(refusal) = &state.refusal {
            return Standing::Refused(refusal.clone());
        }
        if !state.reached {
            return Standing::Down;
        }
        if state.owned.is_empty() {
            return Standing::Unassigned;
        }
        if state.buffer.is_empty() && state.owned.values().all(|owned| owned.at_end) {
            return Standing::CaughtUp;
        }
        Standing::Behind
    }

    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let unanswered = std::mem::take(&mut state.commit);
        drop(state);
        unanswered.answer(&Err(CommitFault::Closed));
        self.arrived.notify_waiters();
        self.arrived.notify_one();
        self.changed.notify_all();
    }

    // For the polling thread.

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Puts a record into the buffer, unless its partition was lost meanwhile. Callers are told by
    /// [`announce_arrivals`](Self::announce_arrivals), once per handful.
    pub(super) fn put(&self, delivery: Delivery) {
        let mut state = self.lock();
        state.answered();
        if let Some(owned) = state.owned.get_mut(&delivery.position.partition) {
            owned.at_end = false;
            state.buffer.push_back(delivery);
        }
    }

    pub(super) fn announce_arrivals(&self) {
        self.arrived.notify_one();
    }

    pub(super) fn reached_end(&self, partition: i32) {
        let mut state = self.lock();
        state.answered();
        if let Some(owned) = state.owned.get_mut(&partition) {
            owned.at_end = true;
        }
    }

    /// How many records wait.
    pub(super) fn waiting(&self) -> usize {
        self.lock().buffer.len()
    }

    /// Waits until fewer than `limit` records wait, the feed closes, or the time is up.
    pub(super) fn wait_for_room(&self, limit: usize, at_most: Duration) {
        let state = self.lock();
        let waited = self.changed.wait_timeout_while(state, at_most, |state| {
            state.buffer.len() >= limit && !state.closed
        });
        drop(waited);
    }

    pub(super) fn assigned(&self, partitions: impl Iterator<Item = i32>) {
        let mut state = self.lock();
        state.refusal = None;
        state.answered();
        for partition in partitions {
            state.owned.insert(partition, OwnPartition::default());
        }
    }

    pub(super) fn revoked(&self, partitions: impl Iterator<Item = i32>) {
        let mut state = self.lock();
        for partition in partitions {
            state.owned.remove(&partition);
            state.commit.next.remove(&partition);
        }
        let State { buffer, owned, .. } = &mut *state;
        buffer.retain(|delivery| owned.contains_key(&delivery.position.partition));
    }

    pub(super) fn lost_everything(&self) {
        let mut state = self.lock();
        state.owned.clear();
        state.buffer.clear();
        state.commit.next.clear();
    }

    pub(super) fn went_down(&self, reason: String) {
        let mut state = self.lock();
        state.reached = false;
        state.outage = Some(Outage(reason));
        drop(state);
        self.arrived.notify_one();
    }

    /// The log was asked whether it is back, and is not. Also how an outage shows that began before the feed did.
    pub(super) fn stays_down(&self, error: &KafkaError) {
        let mut state = self.lock();
        if state.outage.is_none() {
            state.outage = Some(Outage(error.to_string()));
            drop(state);
            self.arrived.notify_one();
        }
    }

    pub(super) fn is_down(&self) -> bool {
        !self.lock().reached
    }

    pub(super) fn came_back(&self) {
        self.lock().answered();
    }

    pub(super) fn refused(&self, reason: String) {
        self.lock().refusal = Some(reason);
        self.arrived.notify_one();
    }

    // For the committing thread.

    /// Waits for something to commit; `None` when the feed is closed.
    pub(super) fn next_commit(&self) -> Option<CommitRequest> {
        let state = self.lock();
        let mut state = self
            .changed
            .wait_while(state, |state| {
                !state.closed && state.commit.waiting.is_empty()
            })
            .unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            return None;
        }
        Some(std::mem::take(&mut state.commit))
    }

    /// Leaves of a request only what is still this member's, and not behind what was committed.
    pub(super) fn prune(&self, request: &mut CommitRequest) {
        let state = self.lock();
        request.next.retain(|partition, next| {
            let owned = state.owned.get(partition);
            owned.is_some_and(|owned| owned.to_commit(*next - 1).is_some())
        });
    }

    pub(super) fn committed(&self, request: &CommitRequest) {
        let mut state = self.lock();
        for (partition, next) in &request.next {
            if let Some(owned) = state.owned.get_mut(partition) {
                owned.committed(*next);
            }
        }
    }
}
