//! Waiters: the look once a second, and the reading for all who ask at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ports::{Dependency, StoreError, TaskId, TaskResult};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{EventsConfig, Kind, Shared, State};
use crate::turn::turn;
use crate::{Ports, Reading, tell_of_failure};

/// How many tasks are read together.
const BATCH: usize = 512;

/// Waiters that came more lately have just read their task themselves.
const YOUNG: Duration = Duration::from_millis(500);

/// Someone wants to know how a task stands.
pub(super) struct Question {
    pub(super) id: TaskId,
    pub(super) reply: oneshot::Sender<Result<Reading, Arc<StoreError>>>,
}

/// Looks, in one query, where the tasks that are waited for stand, and wakes those whose task is at rest or gone. Nothing is
/// asked while nobody waits.
pub(super) async fn look(shared: Arc<Shared>, ports: Ports, config: EventsConfig) {
    let mut ticks = interval(config.look_interval.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        turn(&*ports.observer, "look_for_waiters", shared.look(&ports)).await;
    }
}

impl Shared {
    async fn look(&self, ports: &Ports) {
        let ids = self.lock().waited_for();
        if ids.is_empty() {
            return;
        }
        match ports.store.whereabouts(&ids).await {
            Ok(found) => {
                let state = self.lock();
                for (id, whereabouts) in ids.into_iter().zip(found) {
                    if whereabouts.is_none_or(|found| found.status.is_at_rest()) {
                        state.wake(id);
                    }
                }
            }
            Err(error) => tell_of_failure(
                &*ports.observer,
                Dependency::Store,
                "look_for_waiters",
                &error,
            ),
        }
    }
}

impl State {
    fn waited_for(&self) -> Vec<TaskId> {
        let now = Instant::now();
        let is_due = |kind: Kind| match kind {
            Kind::Waiter { since } => now.duration_since(since) >= YOUNG,
            Kind::Stream => false,
        };
        self.by_task
            .iter()
            .filter(|(_, watchers)| watchers.values().any(|watcher| is_due(watcher.kind)))
            .map(|(id, _)| *id)
            .collect()
    }

    fn wake(&self, id: TaskId) {
        for watcher in self.by_task.get(&id).into_iter().flat_map(BTreeMap::values) {
            if watcher.kind != Kind::Stream {
                watcher.bell.notify_one();
            }
        }
    }
}

/// Answers everybody who asks: whatever is asked while the last batch was read makes the next.
pub(super) async fn answer_all(ports: Ports, mut asked: mpsc::Receiver<Question>) {
    let mut questions = Vec::new();
    while asked.recv_many(&mut questions, BATCH).await > 0 {
        let answering = answer(&ports, std::mem::take(&mut questions));
        // Of a panic its questions learn by the loss of their reply; the others go on.
        turn(&*ports.observer, "answer_waiters", answering).await;
    }
}

async fn answer(ports: &Ports, questions: Vec<Question>) {
    let ids: Vec<TaskId> = questions.iter().map(|question| question.id).collect();
    let readings = read_all(ports, &ids).await;
    for (place, question) in questions.into_iter().enumerate() {
        let reading = match &readings {
            Ok(readings) => Ok(readings.get(place).cloned().unwrap_or(Reading::Unknown)),
            Err(error) => Err(Arc::clone(error)),
        };
        // Whoever hung up does not listen.
        let _ = question.reply.send(reading);
    }
}

/// As [`Reader::read`](crate::Reader::read) reads one.
async fn read_all(ports: &Ports, ids: &[TaskId]) -> Result<Vec<Reading>, Arc<StoreError>> {
    let failed = |doing, error: &ports::CacheError| {
        tell_of_failure(&*ports.observer, Dependency::Cache, doing, error);
    };
    let cached = match ports.cache.get(ids).await {
        Ok(found) => found,
        Err(error) => {
            failed("get", &error);
            vec![None; ids.len()]
        }
    };
    let missing: Vec<TaskId> = ids
        .iter()
        .zip(&cached)
        .filter(|(_, cached)| cached.is_none())
        .map(|(id, _)| *id)
        .collect();
    let mut stored = ports
        .store
        .get(&missing)
        .await
        .map_err(Arc::new)?
        .into_iter();
    let mut fresh: Vec<TaskResult> = Vec::new();
    let readings = cached
        .into_iter()
        .map(|cached| match cached {
            Some(result) => Reading::Done(result),
            None => match stored.next().flatten() {
                None => Reading::Unknown,
                Some(task) => match task.to_result() {
                    Some(result) => {
                        fresh.push(result.clone());
                        Reading::Done(result)
                    }
                    None => Reading::Unfinished(Box::new(task)),
                },
            },
        })
        .collect();
    if !fresh.is_empty()
        && let Err(error) = ports.cache.put(&fresh).await
    {
        failed("put", &error);
    }
    Ok(readings)
}
