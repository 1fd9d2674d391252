//! The beat that says a worker lives.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ports::{
    BeatReply, Dependency, Event, Observer, StoreError, TaskFeed, Timestamp, WorkerId,
    WorkerRegistry,
};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::tell_of_failure;
use crate::worker::Progress;

/// Beats for a worker, once per interval.
///
/// Run it on a thread, a runtime and a database connection of its own: then neither a busy runtime nor a full pool makes
/// a living worker look dead. [`Worker::heart`](crate::Worker::heart) hands it out for that; a worker whose heart nobody
/// took runs it among its other tasks.
pub struct Heart {
    pub(crate) life: Arc<Pulse>,
    pub(crate) feed: Arc<dyn TaskFeed>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) interval: Duration,
    /// How long a beat may take: after it there must be time for another within the lease.
    pub(crate) limit: Duration,
    /// Whether the worker gets on with what its log has for it.
    pub(crate) progress: Progress,
    /// For how long it may have had no room, or received nothing, until others no longer wait for it.
    pub(crate) grace: Duration,
}

/// What heart and worker know of each other.
pub(crate) struct Pulse {
    /// The present life of the worker; `None` between two.
    current: watch::Sender<Option<WorkerId>>,
    /// The last life that the registry no longer knows.
    gone: watch::Sender<Option<WorkerId>>,
    /// Record time of what was last received from the log, and when that was.
    position: Mutex<Option<(Timestamp, Instant)>>,
}

impl Pulse {
    pub(crate) fn new() -> Self {
        Self {
            current: watch::Sender::new(None),
            gone: watch::Sender::new(None),
            position: Mutex::new(None),
        }
    }

    pub(crate) fn live_as(&self, worker: Option<WorkerId>) {
        self.current.send_replace(worker);
    }

    /// Record time of what was last received from the log.
    pub(crate) fn last_received(&self) -> Option<Timestamp> {
        self.position().map(|(recorded_at, _)| recorded_at)
    }

    fn position(&self) -> Option<(Timestamp, Instant)> {
        *self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn received(&self, recorded_at: Timestamp) {
        *self.position.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((recorded_at, Instant::now()));
    }

    /// What stands in the log after this point comes to others, who must not wait for this worker to get there.
    pub(crate) fn receives_no_more(&self) {
        *self.position.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn declare_gone(&self, worker: WorkerId) {
        self.gone.send_replace(Some(worker));
    }

    /// Waits until this life of the worker is found gone.
    pub(crate) async fn until_gone(&self, worker: WorkerId) {
        let mut gone = self.gone.subscribe();
        // The sender lives as long as `self`, so waiting ends only with the news.
        let _ = gone.wait_for(|dead| *dead == Some(worker)).await;
    }
}

impl Heart {
    /// Beats until dropped. A registry that fails, or does not answer within half the lease, is tried again at the next beat.
    pub async fn run(self, registry: Arc<dyn WorkerRegistry>) {
        let mut ticks = interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            ticks.tick().await;
            let Some(worker) = *self.life.current.borrow() else {
                continue;
            };
            let beat = registry.beat(worker, self.position());
            let beat = match timeout(self.limit, beat).await {
                Ok(beat) => beat,
                Err(elapsed) => Err(StoreError::Unavailable(Box::new(elapsed))),
            };
            match beat {
                Ok(reply) => {
                    if std::mem::take(&mut failing) {
                        self.observer.observe(&Event::DependencyRecovered {
                            dependency: Dependency::Store,
                        });
                    }
                    if reply == BeatReply::Gone {
                        self.life.declare_gone(worker);
                    }
                }
                Err(error) => {
                    failing = true;
                    tell_of_failure(&*self.observer, Dependency::Store, "beat", &error);
                }
            }
        }
    }

    /// Where this worker stands in the log while more waits there for it. What waits for one that has no room, is held back or
    /// hangs is for others to take by age, and so is everything newer.
    fn position(&self) -> Option<Timestamp> {
        let behind = self.feed.standing() == ports::Standing::Behind;
        let (recorded_at, received) = self.life.position()?;
        let gets_on = received.elapsed() < self.grace && self.progress.has_had_room_for(self.grace);
        (behind && gets_on).then_some(recorded_at)
    }
}
