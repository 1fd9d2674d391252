//! Whether a worker gets on with its work.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// For how long a worker with room may take nothing while tasks wait. Claims by age are made a few times a second, and no message is
/// waited for longer than the grace; the rest is for a busy machine.
const STALL: Duration = Duration::from_secs(15);

/// What a worker's intake does, for whoever asks. Clones tell the same.
///
/// A worker that lives may still consume nothing; its beat does not show it. So the intake notes when it last took something, and
/// what keeps it from taking more.
#[derive(Clone, Debug)]
pub struct Progress(Arc<Mutex<Intake>>);

#[derive(Clone, Copy, Debug)]
struct Intake {
    doing: Doing,
    /// Since when it takes nothing without an excuse.
    since: Instant,
    /// When it last was full or braked.
    held_back: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Looking,
    Full,
    Braked,
}

/// How a worker gets on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Nothing waits whose time has come.
    Idle,
    /// It takes what waits.
    Working,
    /// Every place is taken by a task in hand, however long these run: it takes more when one of them ends.
    Full,
    /// The processing function says that something it needs is down; one task now and then finds out whether it is back.
    Braked,
    /// It has room, tasks wait, and it takes nothing.
    Stalled {
        /// Since how long.
        for_long: Duration,
    },
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Intake {
            doing: Doing::Looking,
            since: Instant::now(),
            held_back: None,
        })))
    }

    /// It took something, or could not because the store did not answer, which is another trouble.
    pub(super) fn excused(&self) {
        self.lock().since = Instant::now();
    }

    /// It has room.
    pub(super) fn looks(&self) {
        self.begin(Doing::Looking);
    }

    /// No place is free.
    pub(super) fn is_full(&self) {
        self.begin(Doing::Full);
    }

    /// The brake holds it back.
    pub(super) fn is_braked(&self) {
        self.begin(Doing::Braked);
    }

    /// Whether it was neither full nor braked for so long.
    pub(crate) fn has_had_room_for(&self, time: Duration) -> bool {
        let Intake {
            doing, held_back, ..
        } = *self.lock();
        doing == Doing::Looking && held_back.is_none_or(|at| at.elapsed() >= time)
    }

    /// How the worker gets on, if the first of the waiting tasks might have been claimed for so long.
    #[must_use]
    pub fn pace(&self, oldest_due: Option<Duration>) -> Pace {
        let Intake { doing, since, .. } = *self.lock();
        let for_long = since.elapsed();
        match (doing, oldest_due) {
            (Doing::Full, _) => Pace::Full,
            (Doing::Braked, _) => Pace::Braked,
            (Doing::Looking, None) => Pace::Idle,
            (Doing::Looking, Some(waits)) if waits.min(for_long) >= STALL => {
                Pace::Stalled { for_long }
            }
            (Doing::Looking, Some(_)) => Pace::Working,
        }
    }

    fn begin(&self, doing: Doing) {
        let mut intake = self.lock();
        if intake.doing != doing {
            let now = Instant::now();
            let is_held_back = intake.doing != Doing::Looking || doing != Doing::Looking;
            *intake = Intake {
                doing,
                since: now,
                held_back: is_held_back.then_some(now),
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, Intake> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Option<Duration> = Some(Duration::from_secs(3_600));

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_takes_nothing_while_tasks_wait_is_stalled() {
        let progress = Progress::new();
        tokio::time::advance(STALL / 2).await;
        assert_eq!(progress.pace(LONG), Pace::Working);
        progress.excused();
        tokio::time::advance(STALL / 2).await;
        assert_eq!(progress.pace(LONG), Pace::Working);
        tokio::time::advance(STALL / 2).await;
        assert_eq!(progress.pace(LONG), Pace::Stalled { for_long: STALL });
        // What has just come due is no reproach.
        assert_eq!(progress.pace(Some(STALL / 2)), Pace::Working);
        assert_eq!(progress.pace(None), Pace::Idle);
        progress.looks();
        assert_eq!(progress.pace(LONG), Pace::Stalled { for_long: STALL });
        progress.excused();
        assert_eq!(progress.pace(LONG), Pace::Working);
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_has_no_room_or_is_held_back_is_not() {
        let progress = Progress::new();
        progress.is_full();
        tokio::time::advance(STALL * 100).await;
        assert_eq!(progress.pace(LONG), Pace::Full);
        progress.looks();
        assert_eq!(progress.pace(LONG), Pace::Working);
        progress.is_braked();
        tokio::time::advance(STALL * 100).await;
        assert_eq!(progress.pace(LONG), Pace::Braked);
        progress.looks();
        assert_eq!(progress.pace(LONG), Pace::Working);
    }
}
