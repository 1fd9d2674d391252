//! What follows a failure.

use std::time::Duration;

use ports::{ClaimedTask, Failure, Next, Random, Spent};

use crate::error_text;

/// Exponential backoff with full jitter: before attempt n + 1 a task waits a uniformly random time between zero and
/// `min(cap, base · 2^(n−1))`, so that tasks that failed together do not come back together.
///
/// Source: Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015 ("full jitter").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The upper bound of the first wait; default 1 s.
    pub base: Duration,
    /// The upper bound of every wait; default 5 min.
    pub cap: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            base: Duration::from_secs(1),
            cap: Duration::from_secs(300),
        }
    }
}

impl RetryPolicy {
    /// How long to wait after attempt number `attempt` (from 1) failed.
    #[must_use]
    pub fn backoff(&self, attempt: u32, random: &dyn Random) -> Duration {
        let doublings = attempt.saturating_sub(1).min(63);
        let ceiling = self
            .base
            .as_micros()
            .saturating_mul(1_u128 << doublings)
            .min(self.cap.as_micros());
        // The product of a 64-bit fraction and the ceiling: uniform over [0, ceiling).
        let waited = (u128::from(random.next()) * ceiling) >> 64;
        Duration::from_micros(u64::try_from(waited).unwrap_or(u64::MAX))
    }

    /// The backoff, behind the delay that the failure asks for; never longer than the cap.
    fn wait(&self, attempt: u32, failure: &Failure, random: &dyn Random) -> Duration {
        let asked = match failure {
            Failure::RetryableAfter(_, delay) => *delay,
            _ => Duration::ZERO,
        };
        let backoff = self.backoff(attempt, random);
        asked.saturating_add(backoff).min(self.cap)
    }

    /// Where a failed run leads, and what it counts.
    #[must_use]
    pub fn after_failure(
        &self,
        task: &ClaimedTask,
        failure: &Failure,
        random: &dyn Random,
    ) -> (Next, Spent) {
        let attempt = task.attempts.saturating_add(1);
        let error = error_text::clean(&failure.to_string());
        match failure {
            Failure::Unavailable(_) => (
                Next::Pending {
                    delay: self.backoff(1, random),
                    error: Some(error),
                },
                Spent::Nothing,
            ),
            Failure::Retryable(_) | Failure::RetryableAfter(..) if attempt < task.max_attempts => (
                Next::Pending {
                    delay: self.wait(attempt, failure, random),
                    error: Some(error),
                },
                Spent::Attempt,
            ),
            // Permanent, out of attempts, or a kind this version does not know: to try again for ever is worse.
            _ => (Next::Failed { error }, Spent::Attempt),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ports::{Fence, Payload, Priority, TaskId, Timestamp};

    struct Constant(u64);

    impl Random for Constant {
        fn next(&self) -> u64 {
            self.0
        }
    }

    fn claimed(attempts: u32, max_attempts: u32) -> ClaimedTask {
        ClaimedTask {
            id: TaskId(Default::default()),
            payload: Payload::default(),
            priority: Priority::default(),
            attempts,
            max_attempts,
            fence: Fence(1),
            created_at: Timestamp::EPOCH,
            waiting_since: Timestamp::EPOCH,
            claimed_at: Timestamp::EPOCH,
        }
    }

    #[test]
    fn the_ceiling_doubles_up_to_the_cap() {
        let policy = RetryPolicy::default();
        let highest = Constant(u64::MAX);
        for (attempt, seconds) in [
            (1, 1),
            (2, 2),
            (3, 4),
            (9, 256),
            (10, 300),
            (4_000_000, 300),
        ] {
            let waited = policy.backoff(attempt, &highest).as_secs_f64();
            assert!(
                (waited - f64::from(seconds)).abs() < 0.001,
                "{attempt}: {waited}"
            );
        }
        assert_eq!(policy.backoff(5, &Constant(0)), Duration::ZERO);
    }

    #[test]
    fn failures_differ() {
        let policy = RetryPolicy::default();
        let random = Constant(1 << 63);
        let check = |attempts, failure: Failure, status, spent| {
            let (next, counted) = policy.after_failure(&claimed(attempts, 3), &failure, &random);
            assert_eq!(
                (next.status(), counted),
                (status, spent),
                "{failure:?} after {attempts}"
            );
        };
        use ports::TaskStatus::{Failed, Pending};
        check(0, Failure::Retryable("x".into()), Pending, Spent::Attempt);
        check(1, Failure::Retryable("x".into()), Pending, Spent::Attempt);
        check(2, Failure::Retryable("x".into()), Failed, Spent::Attempt);
        let later = || Failure::RetryableAfter("x".into(), Duration::from_secs(9));
        check(0, later(), Pending, Spent::Attempt);
        check(2, later(), Failed, Spent::Attempt);
        check(0, Failure::Permanent("x".into()), Failed, Spent::Attempt);
        check(2, Failure::Unavailable("x".into()), Pending, Spent::Nothing);
    }

    #[test]
    fn a_delay_that_is_asked_for_comes_before_the_backoff_and_under_the_cap() {
        let policy = RetryPolicy::default();
        let half = Constant(1 << 63);
        for (asked, expected_millis) in [
            (Duration::ZERO, 500),
            (Duration::from_secs(30), 30_500),
            (Duration::from_secs(300), 300_000),
            (Duration::MAX, 300_000),
        ] {
            let failure = Failure::RetryableAfter("x".into(), asked);
            let (next, _) = policy.after_failure(&claimed(0, 3), &failure, &half);
            let Next::Pending { delay, .. } = next else {
                panic!("{next:?}");
            };
            assert_eq!(delay, Duration::from_millis(expected_millis), "{asked:?}");
        }
    }
}
