//! Looking after the runs that go on: they are told when their task was cancelled, and the world that they go on.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ports::{
    Cancellation, ClaimedTask, Dependency, Fence, StoreError, TaskEvent, TaskId, TaskStatus,
    Timestamp, Whereabouts,
};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Life;

/// How often the store is asked about the runs that go on: with [`YOUNG`], within 2 s of a cancellation.
const INTERVAL: Duration = Duration::from_secs(1);

/// Runs that began more lately are not asked about: most are over before anyone could cancel them, and cost nothing.
const YOUNG: Duration = Duration::from_millis(500);

type Key = (TaskId, Fence);

/// The runs of one life that go on.
#[derive(Default)]
pub(super) struct Running {
    runs: Mutex<BTreeMap<Key, Entry>>,
}

struct Entry {
    since: Instant,
    claimed_at: Timestamp,
    cancellation: Cancellation,
    /// The world was told that it goes on.
    is_told_of: bool,
}

/// A run that goes on; it leaves the list when it is dropped.
pub(super) struct Run<'life> {
    list: &'life Running,
    key: Key,
    cancellation: Cancellation,
}

impl Running {
    pub(super) fn enter(&self, task: &ClaimedTask) -> Run<'_> {
        let (key, cancellation) = ((task.id, task.fence), Cancellation::default());
        let entry = Entry {
            since: Instant::now(),
            claimed_at: task.claimed_at,
            cancellation: cancellation.clone(),
            is_told_of: false,
        };
        self.lock().insert(key, entry);
        Run {
            list: self,
            key,
            cancellation,
        }
    }

    /// Those that go on for a while and have not been told to stop.
    fn grown(&self) -> Vec<(Key, Cancellation)> {
        let now = Instant::now();
        self.lock()
            .iter()
            .filter(|(_, entry)| {
                now.duration_since(entry.since) >= YOUNG && !entry.cancellation.is_cancelled()
            })
            .map(|(key, entry)| (*key, entry.cancellation.clone()))
            .collect()
    }

    /// The events of those that go on for a while, each once.
    fn untold(&self) -> Vec<TaskEvent> {
        let now = Instant::now();
        let mut events = Vec::new();
        for ((id, fence), entry) in self.lock().iter_mut() {
            if entry.is_told_of || now.duration_since(entry.since) < YOUNG {
                continue;
            }
            entry.is_told_of = true;
            events.push(TaskEvent {
                id: *id,
                status: TaskStatus::Processing,
                fence: *fence,
                at: entry.claimed_at,
            });
        }
        events
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Entry>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Run<'_> {
    pub(super) const fn cancellation(&self) -> &Cancellation {
        &self.cancellation
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.list.lock().remove(&self.key);
    }
}

/// Asks, in one query a second, where the tasks of the runs that go on stand. Nothing is asked while there is none.
pub(super) async fn heed_cancellations(life: Arc<Life>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let runs = life.running.grown();
        if runs.is_empty() {
            continue;
        }
        if let Err(error) = life.tell_cancelled(&runs).await {
            life.failed(Dependency::Store, "heed_cancellations", &error);
        }
    }
}

/// Tells the world, once a second, of the runs that go on for half a second or more.
pub(super) async fn tell_of_runs(life: Arc<Life>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        life.tell_of_runs().await;
    }
}

impl Life {
    /// Nobody relies on this news, so it is not repeated, and what is over soon is not worth telling.
    async fn tell_of_runs(&self) {
        if self.log_is_down.load(Ordering::Relaxed) {
            return;
        }
        let events = self.running.untold();
        if !events.is_empty() {
            self.ports.announcer.tell(&events).await;
        }
    }

    async fn tell_cancelled(&self, runs: &[(Key, Cancellation)]) -> Result<(), StoreError> {
        let ids: Vec<TaskId> = runs.iter().map(|((id, _), _)| *id).collect();
        let standing = self.ports.store.whereabouts(&ids).await?;
        for (((_, fence), cancellation), found) in runs.iter().zip(standing) {
            let in_hand = Whereabouts {
                status: TaskStatus::Processing,
                fence: *fence,
            };
            // Cancelled, or taken back: either way its result would be late.
            if found != Some(in_hand) {
                cancellation.cancel();
            }
        }
        Ok(())
    }
}
