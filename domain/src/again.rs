//! Asking again what failed for a while: at growing intervals, for as long as it makes sense.

use std::future::Future;
use std::time::Duration;

use ports::{Dependency, StoreError};
use tokio::time::{Instant, sleep, timeout_at};

use crate::{Ports, tell_of_failure};

/// The first interval for whatever a client or a task waits for.
pub(crate) const SOON: Duration = Duration::from_millis(20);

/// The longest interval of a worker, which asks for as long as it lives.
pub(crate) const OF_A_WORKER: Duration = Duration::from_secs(1);

/// The longest interval while a client waits.
const OF_A_CLIENT: Duration = Duration::from_millis(500);

/// How long a store that does not answer is asked again before a client who reads or orders is told.
const PATIENCE: Duration = Duration::from_secs(3);

/// Intervals that double up to the longest.
pub(crate) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self {
            next: first,
            longest,
        }
    }

    pub(crate) async fn pause(&mut self) {
        sleep(self.next).await;
        self.next = (self.next * 2).min(self.longest);
    }

    fn ends_before(&self, deadline: Instant) -> bool {
        Instant::now() + self.next < deadline
    }
}

/// Asks the store the very same while it is unavailable, until the deadline. What is asked must bear repeating: after a
/// commit whose answer was lost it is made already.
pub(crate) async fn with_patience<T, W>(
    ports: &Ports,
    deadline: Instant,
    doing: &'static str,
    ask: impl Fn() -> W,
) -> Result<T, StoreError>
where
    W: Future<Output = Result<T, StoreError>>,
{
    let mut backoff = Backoff::new(SOON, OF_A_CLIENT);
    loop {
        let error = match timeout_at(deadline, ask()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error,
            Err(elapsed) => StoreError::Unavailable(Box::new(elapsed)),
        };
        if !error.is_transient() {
            return Err(error);
        }
        tell_of_failure(&*ports.observer, Dependency::Store, doing, &error);
        if !backoff.ends_before(deadline) {
            return Err(error);
        }
        backoff.pause().await;
    }
}

/// The same for what a client reads or orders, who is told after 3 s. A connection that broke while nobody used it is noticed by
/// whoever takes it, and is no reason to send anybody away.
pub(crate) async fn for_a_client<T, W>(
    ports: &Ports,
    doing: &'static str,
    ask: impl Fn() -> W,
) -> Result<T, StoreError>
where
    W: Future<Output = Result<T, StoreError>>,
{
    with_patience(ports, Instant::now() + PATIENCE, doing, ask).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn intervals_double_up_to_the_longest() {
        let mut backoff = Backoff::new(SOON, Duration::from_millis(70));
        for millis in [20, 40, 70, 70] {
            let start = Instant::now();
            assert!(backoff.ends_before(start + Duration::from_millis(millis + 1)));
            assert!(!backoff.ends_before(start + Duration::from_millis(millis)));
            backoff.pause().await;
            assert_eq!(start.elapsed(), Duration::from_millis(millis));
        }
    }
}
