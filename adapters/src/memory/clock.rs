//! Clocks that tests drive.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use ports::{Clock, Timestamp};
use tokio::time::Instant;

/// 2025-01-01T00:00:00Z: where the clocks of tests start unless told.
const START: Timestamp = Timestamp::from_micros(1_735_689_600_000_000);

/// A clock that stands still until it is moved. Starts at 2025-01-01T00:00:00Z.
///
/// ```
/// use std::time::Duration;
/// use task_processor_adapters::memory::ManualClock;
/// use ports::Clock;
///
/// let clock = ManualClock::default();
/// clock.advance(Duration::from_millis(2_345));
/// assert_eq!(clock.now().to_string(), "2025-01-01T00:00:02.345Z");
/// ```
#[derive(Debug)]
pub struct ManualClock {
    micros: AtomicI64,
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::starting_at(START)
    }
}

impl ManualClock {
    /// A clock that stands at this time.
    #[must_use]
    pub const fn starting_at(time: Timestamp) -> Self {
        Self {
            micros: AtomicI64::new(time.as_micros()),
        }
    }

    /// Moves it forward.
    pub fn advance(&self, time: Duration) {
        let step = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        self.micros.fetch_add(step, Ordering::SeqCst);
    }

    /// Puts it anywhere, backward too: system clocks jump.
    pub fn set(&self, time: Timestamp) {
        self.micros.store(time.as_micros(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.micros.load(Ordering::SeqCst))
    }
}

/// A clock that moves with tokio's time: under paused time it stands still while anything can run and jumps to the next
/// timer when nothing can, together with every `sleep` and `timeout`. Starts at 2025-01-01T00:00:00Z.
///
/// Make it inside the runtime whose time it follows.
///
/// ```
/// use std::time::Duration;
/// use task_processor_adapters::memory::TokioClock;
/// use ports::Clock;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
/// let clock = TokioClock::default();
/// tokio::time::sleep(Duration::from_secs(3_600)).await; // takes no time at all
/// assert_eq!(clock.now().to_string(), "2025-01-01T01:00:00.000Z");
/// # });
/// ```
#[derive(Clone, Copy, Debug)]
pub struct TokioClock {
    origin: Instant,
    start: Timestamp,
}

impl Default for TokioClock {
    fn default() -> Self {
        Self::starting_at(START)
    }
}

impl TokioClock {
    /// A clock that shows this time now.
    #[must_use]
    pub fn starting_at(time: Timestamp) -> Self {
        Self {
            origin: Instant::now(),
            start: time,
        }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        self.start.after(self.origin.elapsed())
    }
}
