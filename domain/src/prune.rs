//! Taking out what has been at rest for long.
//!
//! Ids of version 7 are in the order of time and tell it, so what is old enough stands first. A walk goes over that part again and
//! again, past whatever stays there, to where ids are too young. Another one goes slowly through the whole table, for ids of
//! version 4 and for what came to rest late.

use std::time::Duration;

use ports::{Dependency, Event, StoreError, TaskId};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::{Ports, tell_of_failure, tell_of_refusal};

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

/// After a stretch of what is old comes a pause of this many times its duration: pruning takes a fifth of one connection's time.
const PAUSE_PER_STRETCH: u32 = 4;

/// The longest such pause: a stretch that waited for a store that was down says nothing of the next.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Over how many tasks in a row that the store does not let go one stretch gets.
const PASSED_OVER: usize = 64;

/// Prunes until dropped, whenever `on_duty` says that it is this one's turn: one at a time is enough, and several do no harm.
pub(crate) async fn prune(ports: &Ports, config: PruneConfig, on_duty: impl Fn() -> bool) {
    let Some(retention) = config.retention else {
        return;
    };
    let pruner = Pruner {
        ports,
        retention,
        interval: config.interval.max(Duration::from_millis(1)),
        stretch: config.stretch.max(1),
    };
    tokio::join!(
        biased;
        pruner.walk_what_is_old(&on_duty),
        pruner.walk_everything(&on_duty),
    );
}

struct Pruner<'ports> {
    ports: &'ports Ports,
    retention: Duration,
    interval: Duration,
    stretch: usize,
}

/// A walk from the beginning of the table to where ids are too young. It may take several turns, and goes on where the last one
/// ended: what stays at the beginning may be longer than a turn.
#[derive(Default)]
struct Pass {
    /// The last task seen.
    after: Option<TaskId>,
    /// How long it went over stretches where everything stays.
    in_vain: Duration,
    /// How many tasks the next stretch has, where the store refused a longer one.
    narrowed: Option<usize>,
}

impl Pruner<'_> {
    async fn walk_what_is_old(&self, on_duty: &impl Fn() -> bool) {
        let mut pass = Pass::default();
        let mut rest = Duration::ZERO;
        loop {
            sleep(rest.max(self.interval)).await;
            rest = Duration::ZERO;
            while on_duty() {
                match self.go_on(&mut pass).await {
                    Ok(Some(pause)) => sleep(pause).await,
                    Ok(None) => {
                        // What stays is not read again at once, or a long row of it would be read all the time.
                        rest = std::mem::take(&mut pass).in_vain * PAUSE_PER_STRETCH;
                        break;
                    }
                    Err(error) => {
                        self.failed(&error);
                        break;
                    }
                }
            }
        }
    }

    /// Another stretch of what is old. Answers the pause after it, or `None` where ids are too young.
    async fn go_on(&self, pass: &mut Pass) -> Result<Option<Duration>, StoreError> {
        let old = self.ports.clock.now().before(self.retention);
        let begun = Instant::now();
        let (deleted, next) = self.stretch(pass).await?;
        let Some(last) = next.filter(|last| last.made_at() <= old) else {
            return Ok(None);
        };
        let pause = pause(begun.elapsed(), pass.after, last);
        if deleted == 0 {
            pass.in_vain += pause;
        }
        pass.after = Some(last);
        Ok(Some(pause))
    }

    async fn walk_everything(&self, on_duty: &impl Fn() -> bool) {
        let mut ticks = interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pass = Pass::default();
        loop {
            ticks.tick().await;
            if !on_duty() {
                continue;
            }
            match self.stretch(&mut pass).await {
                Ok((_, next)) => pass.after = next,
                Err(error) => self.failed(&error),
            }
        }
    }

    /// What the store does not let go, because a row of others refers to it, say, is narrowed down until it stands alone, and passed
    /// over: it keeps nothing else.
    async fn stretch(&self, pass: &mut Pass) -> Result<(usize, Option<TaskId>), StoreError> {
        let audit = &self.ports.audit;
        let mut passed_over = 0;
        loop {
            let length = pass.narrowed.unwrap_or(self.stretch);
            match audit.prune(pass.after, length, self.retention).await {
                Ok((count, next)) => {
                    pass.narrowed = Some(length * 2).filter(|wider| *wider < self.stretch);
                    if count > 0 {
                        self.ports.observer.observe(&Event::Pruned { count });
                    }
                    return Ok((count, next));
                }
                Err(error) if error.is_transient() => return Err(error),
                Err(_) if length > 1 => pass.narrowed = Some(length / 2),
                Err(error) => {
                    tell_of_refusal(&*self.ports.observer, "prune", &error);
                    let alone = audit.stranded(pass.after, 1, self.retention).await?;
                    passed_over += 1;
                    if alone.next.is_none() || passed_over == PASSED_OVER {
                        return Ok((0, alone.next));
                    }
                    pass.after = alone.next;
                }
            }
        }
    }

    fn failed(&self, error: &StoreError) {
        tell_of_failure(&*self.ports.observer, Dependency::Store, "prune", error);
    }
}

/// The pause after a stretch that took so long and ended with this id. Where its tasks once came faster than a fifth of a
/// connection deletes them, it is shorter, down to as long as the stretch: whatever may be accepted for days can be deleted for days.
fn pause(took: Duration, after: Option<TaskId>, last: TaskId) -> Duration {
    let came_within = after.map_or(i64::MAX, |after| {
        last.made_at().micros_since(after.made_at())
    });
    let came_within = Duration::from_micros(u64::try_from(came_within).unwrap_or(0));
    came_within
        .saturating_sub(took)
        .clamp(took, took * PAUSE_PER_STRETCH)
        .min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use ports::Timestamp;

    use super::*;

    /// A stretch of tasks that came within so many milliseconds, pruned in 10 ms.
    fn check(came_within: Option<i64>, pause_in_millis: u64) {
        let made = |millis: i64| TaskId::first_at(Timestamp::from_micros(millis * 1_000));
        let begun = 1_735_689_600_000;
        let after = came_within.map(|_| made(begun));
        let last = made(begun + came_within.unwrap_or(0));
        let took = Duration::from_millis(10);
        let expected = Duration::from_millis(pause_in_millis);
        assert_eq!(pause(took, after, last), expected, "{came_within:?}");
    }

    #[test]
    fn pruning_is_as_fast_as_tasks_came_between_a_fifth_and_a_half_of_the_time() {
        check(None, 40);
        check(Some(1_000_000), 40);
        check(Some(50), 40);
        check(Some(49), 39);
        check(Some(20), 10);
        check(Some(0), 10);
        check(Some(-5), 10);
    }

    #[test]
    fn no_pause_is_longer_than_the_longest() {
        let last = TaskId::first_at(Timestamp::EPOCH);
        let pause = pause(Duration::from_secs(3_600), None, last);
        assert_eq!(pause, LONGEST_PAUSE);
    }
}
