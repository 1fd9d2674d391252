//! When requests are to be sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

/// Below this a sleeping thread costs more processor time than the precision is worth.
const SHORTEST_SLEEP: Duration = Duration::from_micros(200);

/// Tells each request when it should have been sent.
///
/// Open loop: requests are due at a fixed rate, whether or not the server keeps up, and their latency counts from the
/// time at which they were due. Closed loop: a request is due when its connection is free.
#[derive(Clone)]
pub(super) struct Pace {
    begin: Instant,
    end: Instant,
    open: Option<Open>,
}

#[derive(Clone)]
struct Open {
    per_second: f64,
    taken: Arc<AtomicU64>,
    due: Arc<Semaphore>,
}

impl Pace {
    /// A pace from now on. At a rate, a thread of its own rings when requests are due: timers of the runtime ring to the
    /// millisecond only.
    pub(super) fn start(rate: Option<f64>, lasts: Duration) -> std::io::Result<Self> {
        let begin = Instant::now();
        let end = begin + lasts;
        let open = match rate {
            None => None,
            Some(per_second) => {
                let open = Open {
                    per_second,
                    taken: Arc::default(),
                    due: Arc::new(Semaphore::new(0)),
                };
                let ringing = open.clone();
                thread::Builder::new()
                    .name("pace".to_owned())
                    .spawn(move || ringing.ring(begin, end))?;
                Some(open)
            }
        };
        Ok(Self { begin, end, open })
    }

    pub(super) const fn begin(&self) -> Instant {
        self.begin
    }

    /// Waits until the next request is due and answers since when it is; `None` when the time is up.
    pub(super) async fn next(&self) -> Option<Instant> {
        let Some(open) = &self.open else {
            let now = Instant::now();
            return (now < self.end).then_some(now);
        };
        let number = open.taken.fetch_add(1, Ordering::Relaxed);
        let due = open.due_at(self.begin, number);
        if due >= self.end {
            return None;
        }
        let permit = open.due.acquire().await.ok()?;
        permit.forget();
        Some(due)
    }

    /// The requests that were due and never taken, because every connection was waiting: since when each was due.
    pub(super) fn untaken(&self) -> impl Iterator<Item = Instant> {
        let begin = self.begin;
        let end = self.end;
        let open = self.open.clone();
        let first = open
            .as_ref()
            .map_or(0, |open| open.taken.load(Ordering::Relaxed));
        (first..).map_while(move |number| {
            let due = open.as_ref()?.due_at(begin, number);
            (due < end).then_some(due)
        })
    }
}

impl Open {
    fn due_at(&self, begin: Instant, number: u64) -> Instant {
        begin + Duration::from_secs_f64(number as f64 / self.per_second)
    }

    fn ring(&self, begin: Instant, end: Instant) {
        let mut rung = 0;
        loop {
            let now = Instant::now();
            let until = now.min(end);
            let due = (until - begin).as_secs_f64() * self.per_second;
            // The first request is due at the very beginning.
            let due = due as u64 + 1;
            let new = usize::try_from(due.saturating_sub(rung)).unwrap_or(0);
            self.due.add_permits(new);
            rung = rung.max(due);
            if now >= end {
                return;
            }
            let next = self.due_at(begin, rung);
            thread::sleep(next.saturating_duration_since(now).max(SHORTEST_SLEEP));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn at_a_rate_requests_are_due_at_fixed_times_whoever_is_late() {
        let pace = Pace::start(Some(1_000.0), Duration::from_millis(50)).expect("a pace");
        let mut due = Vec::new();
        while let Some(at) = pace.next().await {
            due.push(at - pace.begin());
        }
        let expected: Vec<Duration> = (0..50).map(Duration::from_millis).collect();
        assert_eq!(due, expected);
    }

    #[tokio::test]
    async fn what_nobody_took_is_told() {
        let pace = Pace::start(Some(1_000.0), Duration::from_millis(10)).expect("a pace");
        for _ in 0..4 {
            pace.next().await;
        }
        assert_eq!(pace.untaken().count(), 6);
    }
}
