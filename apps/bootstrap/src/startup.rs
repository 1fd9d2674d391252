//! Waiting for what is not up yet.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

use crate::shutdown::Shutdown;

/// Why an attempt to reach a dependency failed.
#[derive(Debug)]
pub enum Obstacle {
    /// It may work later.
    NotYet(String),
    /// It cannot work until someone changes something; the text says what.
    Never(String),
}

impl Obstacle {
    /// It may work later, because of this error.
    pub fn not_yet(error: &(dyn Error + 'static)) -> Self {
        Self::NotYet(chain(error))
    }
}

/// Why a process did not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartupError {
    /// The limit passed.
    #[error("{what} was not there within {limit:?} (STARTUP_TIMEOUT): {reason}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
        /// What the last attempt said.
        reason: String,
    },
    /// Waiting does not help.
    #[error("{what} refuses us: {reason}")]
    Refused {
        /// What was wanted.
        what: String,
        /// Why it cannot be had.
        reason: String,
    },
    /// The process was asked to stop while it waited.
    #[error("asked to stop while waiting for {what}")]
    Interrupted {
        /// What was waited for.
        what: String,
    },
}

/// The first wait between attempts; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// How long one attempt may take: an address that swallows packets must not use up the whole limit in silence.
const ATTEMPT: Duration = Duration::from_secs(10);

/// Waits for `start`, which has a limit of its own, unless the process is asked to stop.
///
/// # Errors
/// [`StartupError::Interrupted`], and what `start` fails with.
pub async fn unless_stopped<T, E: From<StartupError>>(
    what: &str,
    shutdown: &Shutdown,
    start: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    tokio::select! {
        biased;
        () = shutdown.requested() => Err(StartupError::Interrupted { what: what.to_owned() }.into()),
        outcome = start => outcome,
    }
}

/// Tries until `attempt` succeeds: at once, then with pauses that double, and says each time what it waits for and
/// why.
///
/// # Errors
/// [`StartupError`].
pub async fn wait_for<T, F>(
    what: &str,
    limit: Duration,
    shutdown: &Shutdown,
    mut attempt: impl FnMut() -> F,
) -> Result<T, StartupError>
where
    F: Future<Output = Result<T, Obstacle>>,
{
    let deadline = Instant::now() + limit;
    let mut pause = FIRST_PAUSE;
    let mut waited = false;
    loop {
        let until = (Instant::now() + ATTEMPT).min(deadline.max(Instant::now() + FIRST_PAUSE));
        let outcome = tokio::select! {
            biased;
            () = shutdown.requested() => return Err(StartupError::Interrupted { what: what.to_owned() }),
            outcome = timeout_at(until, attempt()) => outcome,
        };
        let reason = match outcome {
            Ok(Ok(ready)) => {
                if waited {
                    info!(event = "startup.found", "{what} is there");
                }
                return Ok(ready);
            }
            Ok(Err(Obstacle::Never(reason))) => {
                return Err(StartupError::Refused {
                    what: what.to_owned(),
                    reason,
                });
            }
            Ok(Err(Obstacle::NotYet(reason))) => reason,
            Err(_elapsed) => "no answer".to_owned(),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(StartupError::TimedOut {
                what: what.to_owned(),
                limit,
                reason,
            });
        }
        waited = true;
        let next = pause.min(left);
        warn!(
            event = "startup.waiting",
            reason,
            left_s = left.as_secs(),
            "waiting for {what}"
        );
        tokio::select! {
            biased;
            () = shutdown.requested() => return Err(StartupError::Interrupted { what: what.to_owned() }),
            () = sleep(next) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// An error with its causes on one line, as it is shown to people.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    without_source_line(&domain::chain(error)).to_owned()
}

/// An error's text without the ` at line 1234` that the driver appends to what PostgreSQL says: a line of PostgreSQL's own
/// source, which a reader would take for one of theirs.
pub(crate) fn without_source_line(text: &str) -> &str {
    match text.rsplit_once(" at line ") {
        Some((said, line))
            if !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            said
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[test]
    fn a_line_of_postgresql_s_source_is_not_shown() {
        for (text, expected) in [
            (
                "relation does not exist at line 1449",
                "relation does not exist",
            ),
            (
                "not JSON at line 1 column 11",
                "not JSON at line 1 column 11",
            ),
            ("stopped at line ", "stopped at line "),
            ("refused", "refused"),
        ] {
            assert_eq!(without_source_line(text), expected);
            assert_eq!(chain(&std::io::Error::other(text)), expected);
        }
    }

    #[test]
    fn a_refusal_is_no_absence() {
        let refused = StartupError::Refused {
            what: "PostgreSQL at db".to_owned(),
            reason: "no such database".to_owned(),
        };
        assert_eq!(
            refused.to_string(),
            "PostgreSQL at db refuses us: no such database"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn it_waits_until_the_dependency_is_there() {
        let (_trigger, shutdown) = Shutdown::by_trigger();
        let tried = Cell::new(0);
        let found = wait_for("PostgreSQL", LIMIT, &shutdown, || async {
            tried.set(tried.get() + 1);
            if tried.get() < 4 {
                Err(Obstacle::NotYet("refused".to_owned()))
            } else {
                Ok(tried.get())
            }
        });
        assert_eq!(found.await, Ok(4));
    }

    #[tokio::test(start_paused = true)]
    async fn it_gives_up_at_the_limit_and_says_why() {
        let (_trigger, shutdown) = Shutdown::by_trigger();
        let start = Instant::now();
        let outcome: Result<(), _> = wait_for("PostgreSQL", LIMIT, &shutdown, || async {
            Err(Obstacle::NotYet("connection refused".to_owned()))
        })
        .await;
        assert_eq!(
            outcome,
            Err(StartupError::TimedOut {
                what: "PostgreSQL".to_owned(),
                limit: LIMIT,
                reason: "connection refused".to_owned()
            })
        );
        assert!(start.elapsed() >= LIMIT && start.elapsed() < LIMIT + ATTEMPT);
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_never_answers_does_not_hold_the_limit_up() {
        let (_trigger, shutdown) = Shutdown::by_trigger();
        let start = Instant::now();
        let outcome: Result<(), _> =
            wait_for("Kafka", LIMIT, &shutdown, std::future::pending).await;
        assert!(matches!(outcome, Err(StartupError::TimedOut { .. })));
        assert!(start.elapsed() < LIMIT + ATTEMPT);
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_work_ends_the_wait_at_once() {
        let (_trigger, shutdown) = Shutdown::by_trigger();
        let start = Instant::now();
        let outcome: Result<(), _> = wait_for("Kafka", LIMIT, &shutdown, || async {
            Err(Obstacle::Never("set KAFKA_CLIENT=rdkafka".to_owned()))
        })
        .await;
        assert!(matches!(outcome, Err(StartupError::Refused { .. })));
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_ends_the_wait() {
        let (trigger, shutdown) = Shutdown::by_trigger();
        let wait = wait_for("Redis", LIMIT, &shutdown, || async {
            Err::<(), _>(Obstacle::NotYet("refused".to_owned()))
        });
        let stop = async {
            sleep(Duration::from_secs(2)).await;
            trigger.stop();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            outcome = wait => assert_eq!(outcome, Err(StartupError::Interrupted { what: "Redis".to_owned() })),
            () = stop => {}
        }
    }
}
