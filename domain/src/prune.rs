//! Taking out what has been at rest for long.
//!
//! Ids of version 7 are in the order of time, so what is old stands first. A walk from the beginning goes on as long as it
//! finds something to delete. Another one goes slowly through the whole table, for ids of version 4 and for what came to rest
//! late.

use std::time::Duration;

use ports::{Dependency, Event, StoreError, TaskId};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::{Ports, chain};

/// Which tasks are deleted, and at which pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PruneConfig {
    /// How long a task is kept after it came to rest; `None` is for ever, the default. Never less than what others may still
    /// know about it: a cached result lives for an hour, an idempotency key for a day.
    pub retention: Option<Duration>,
    /// How often a stretch of the whole table is walked. Default 1 s.
    pub interval: Duration,
    /// How many rows a stretch has. Default 500.
    pub stretch: usize,
}

impl Default for PruneConfig {
    fn default() -> Self {
        Self {
            retention: None,
            interval: Duration::from_secs(1),
            stretch: 500,
        }
    }
}

/// After a stretch at the beginning of the table that had something to delete comes a pause of this many times its duration:
/// pruning takes a fifth of one connection's time, and no more.
const PAUSE_PER_STRETCH: u32 = 4;

/// The longest such pause: a stretch that waited for a store that was down says nothing of the next.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Prunes until dropped, whenever `on_duty` says that it is this one's turn: one at a time is enough, and several do no harm.
pub(crate) async fn prune(ports: &Ports, config: PruneConfig, on_duty: impl Fn() -> bool) {
    let Some(retention) = config.retention else {
        return;
    };
    let mut ticks = interval(config.interval.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let pruner = Pruner {
        ports,
        retention,
        stretch: config.stretch.max(1),
    };
    let mut whole = None;
    loop {
        ticks.tick().await;
        if !on_duty() {
            continue;
        }
        if let Err(error) = pruner.step(&mut whole, &on_duty).await {
            ports.observer.observe(&Event::DependencyFailed {
                dependency: Dependency::Store,
                doing: "prune",
                error: chain(&error),
            });
        }
    }
}

struct Pruner<'ports> {
    ports: &'ports Ports,
    retention: Duration,
    stretch: usize,
}

impl Pruner<'_> {
    /// The beginning of the table, as far as it is old, and a stretch of the whole.
    async fn step(
        &self,
        whole: &mut Option<TaskId>,
        on_duty: &impl Fn() -> bool,
    ) -> Result<(), StoreError> {
        let mut first = None;
        loop {
            let begun = Instant::now();
            let (deleted, next) = self.stretch(first).await?;
            first = next;
            if deleted == 0 || first.is_none() || !on_duty() {
                break;
            }
            sleep((begun.elapsed() * PAUSE_PER_STRETCH).min(LONGEST_PAUSE)).await;
        }
        (_, *whole) = self.stretch(*whole).await?;
        Ok(())
    }

    async fn stretch(&self, after: Option<TaskId>) -> Result<(usize, Option<TaskId>), StoreError> {
        let audit = &self.ports.audit;
        let (count, next) = audit.prune(after, self.stretch, self.retention).await?;
        if count > 0 {
            self.ports.observer.observe(&Event::Pruned { count });
        }
        Ok((count, next))
    }
}
