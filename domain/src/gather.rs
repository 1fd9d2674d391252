//! Letting a batch gather, where nobody waits for the first of it.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// How much longer the next batch for the store may gather for each item of the last one. So items that come more slowly than one
/// in this time are never kept waiting, and those that come faster travel in ever larger batches, up to [`LONGEST`].
pub(crate) const FOR_THE_STORE: Duration = Duration::from_micros(200);

/// The same for the log. A record that travels alone costs the server, the broker and the worker a dozen times of what it costs among
/// many, and whoever submits one after the other waits for the processors that this takes.
pub(crate) const FOR_THE_LOG: Duration = Duration::from_millis(1);

/// The longest time for which an item is kept waiting. At 10,000 a second it makes batches of 50, each of which costs the
/// store little more than a single item does.
const LONGEST: Duration = Duration::from_millis(5);

/// What is shorter is not worth a timer, whose clock ticks once a millisecond.
const SHORTEST: Duration = Duration::from_millis(1);

/// A batch of so many is large enough: the next one follows at once.
const ENOUGH: usize = 256;

/// The pace of a stage that moves whatever has gathered.
///
/// Without it the first item that comes is a batch of its own whenever the stage is idle, and under load the machine is busy with
/// batches of a few, which cost nearly as much as batches of many.
#[derive(Debug)]
pub(crate) struct Gather {
    each: Duration,
    until: Instant,
}

impl Gather {
    /// One whose batches may gather so much longer for each item of the last one.
    pub(crate) fn new(each: Duration) -> Self {
        Self {
            each,
            until: Instant::now(),
        }
    }

    /// Notes that a batch of this many was begun at this time.
    pub(crate) fn began(&mut self, at: Instant, count: usize) {
        self.until = at + self.pause(count);
    }

    /// Waits until the next batch has had its time.
    pub(crate) async fn wait(&self) {
        if Instant::now() + SHORTEST <= self.until {
            sleep_until(self.until).await;
        }
    }

    fn pause(&self, count: usize) -> Duration {
        if count >= ENOUGH {
            return Duration::ZERO;
        }
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.each.saturating_mul(count).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn waited(count: usize) -> Duration {
        let started = Instant::now();
        let mut gather = Gather::new(FOR_THE_STORE);
        gather.began(started, count);
        gather.wait().await;
        started.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_are_not_kept_waiting() {
        for count in 0..5 {
            assert_eq!(waited(count).await, Duration::ZERO, "{count}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_let_more_gather_for_a_bounded_time() {
        assert_eq!(waited(10).await, Duration::from_millis(2));
        assert_eq!(waited(25).await, LONGEST);
        assert_eq!(waited(ENOUGH - 1).await, LONGEST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_batch_is_followed_at_once() {
        assert_eq!(waited(ENOUGH).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_that_the_batch_itself_took_counts() {
        let started = Instant::now();
        let mut gather = Gather::new(FOR_THE_STORE);
        gather.began(started, 50);
        tokio::time::advance(Duration::from_millis(7)).await;
        gather.wait().await;
        assert_eq!(started.elapsed(), Duration::from_millis(7));
    }
}
