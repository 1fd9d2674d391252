//! Holding the intake back while something the processing function needs is down.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

const FIRST: Duration = Duration::from_millis(500);
/// The outage is over at most this long before the next task goes ahead and finds out. One task in 5 s is no load for
/// what comes up again, and nobody waits half a minute after it did.
const LONGEST: Duration = Duration::from_secs(5);

/// While runs report that a dependency is down, nothing is taken but one task now and then, to see whether it is back.
#[derive(Default)]
pub(super) struct Brake {
    pulled: Mutex<Option<Pulled>>,
}

#[derive(Clone, Copy)]
struct Pulled {
    at: Instant,
    until: Instant,
    pause: Duration,
}

/// What the intake may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allowance {
    All,
    One,
    NothingUntil(Instant),
}

impl Brake {
    /// A run found its dependency down.
    pub(super) fn pull(&self) {
        let mut pulled = self.pulled.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        pulled.get_or_insert(Pulled {
            at: now,
            until: now + FIRST,
            pause: FIRST,
        });
    }

    /// A run that began at `started` ended in any other way. One that began before the brake was pulled tells nothing.
    pub(super) fn release(&self, started: Instant) {
        let mut pulled = self.pulled.lock().unwrap_or_else(PoisonError::into_inner);
        if pulled.is_some_and(|pulled| started >= pulled.at) {
            *pulled = None;
        }
    }

    /// What may be taken now.
    pub(super) fn allowance(&self) -> Allowance {
        let pulled = self.pulled.lock().unwrap_or_else(PoisonError::into_inner);
        match *pulled {
            None => Allowance::All,
            Some(brake) if Instant::now() < brake.until => Allowance::NothingUntil(brake.until),
            Some(_) => Allowance::One,
        }
    }

    /// A task was taken: if it is the one that was allowed, the next, longer pause begins. Looking and finding nothing
    /// begins none, or a braked worker would wait the longest pause for every record that wants no work.
    pub(super) fn taken(&self) {
        let mut pulled = self.pulled.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some(brake) = pulled.as_mut().filter(|brake| now >= brake.until) {
            brake.pause = (brake.pause * 2).min(LONGEST);
            brake.until = now + brake.pause;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_task_goes_ahead_after_each_pause() {
        let brake = Brake::default();
        assert_eq!(brake.allowance(), Allowance::All);
        let start = Instant::now();
        brake.pull();
        brake.pull();
        assert_eq!(brake.allowance(), Allowance::NothingUntil(start + FIRST));
        tokio::time::advance(FIRST).await;
        assert_eq!(brake.allowance(), Allowance::One);
        assert_eq!(brake.allowance(), Allowance::One, "nothing was taken");
        brake.taken();
        brake.taken();
        assert_eq!(
            brake.allowance(),
            Allowance::NothingUntil(start + FIRST * 3)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn however_long_the_outage_a_task_goes_ahead_every_5_seconds() {
        let brake = Brake::default();
        brake.pull();
        for _ in 0..10 {
            let waits_since = Instant::now();
            while let Allowance::NothingUntil(until) = brake.allowance() {
                tokio::time::sleep_until(until).await;
            }
            assert!(waits_since.elapsed() <= Duration::from_secs(5));
            brake.taken();
            brake.pull();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_run_begun_since_releases_it() {
        let brake = Brake::default();
        let before = Instant::now();
        tokio::time::advance(FIRST).await;
        brake.pull();
        brake.release(before);
        assert_ne!(brake.allowance(), Allowance::All);
        brake.release(Instant::now());
        assert_eq!(brake.allowance(), Allowance::All);
    }
}
