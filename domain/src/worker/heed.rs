//! Telling runs that their task was cancelled.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ports::{Cancellation, Dependency, Fence, StoreError, TaskId, TaskStatus, Whereabouts};
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
    runs: Mutex<BTreeMap<Key, (Instant, Cancellation)>>,
}

/// A run that goes on; it leaves the list when it is dropped.
pub(super) struct Run<'life> {
    list: &'life Running,
    key: Key,
    cancellation: Cancellation,
}

impl Running {
    pub(super) fn enter(&self, id: TaskId, fence: Fence) -> Run<'_> {
        let (key, cancellation) = ((id, fence), Cancellation::default());
        self.lock()
            .insert(key, (Instant::now(), cancellation.clone()));
        Run {
            list: self,
            key,
            cancellation,
        }
    }

    /// Those that go on for a while and have not been told.
    fn grown(&self) -> Vec<(Key, Cancellation)> {
        let now = Instant::now();
        self.lock()
            .iter()
            .filter(|(_, (since, told))| {
                now.duration_since(*since) >= YOUNG && !told.is_cancelled()
            })
            .map(|(key, (_, cancellation))| (*key, cancellation.clone()))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, (Instant, Cancellation)>> {
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

impl Life {
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
