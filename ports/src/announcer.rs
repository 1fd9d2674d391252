//! Telling the world what came of tasks: topics `tasks-output`, `tasks-dead-letter` and `tasks-events`.

use async_trait::async_trait;

use crate::Cause;
use crate::events::TaskEvent;
use crate::feed::Position;
use crate::task::{Payload, Priority, TaskId, TaskResult};
use crate::time::Timestamp;
use crate::trace::TraceContext;

/// What could not be processed, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeadLetter {
    /// A record that cannot be read.
    Unreadable {
        /// What is wrong with it.
        reason: String,
        /// Where it stands in `tasks-input`.
        position: Position,
        /// The key as received.
        key: Option<Vec<u8>>,
        /// The value as received.
        value: Option<Vec<u8>>,
        /// When it was found (worker's clock).
        failed_at: Timestamp,
    },
    /// A task that ended `failed`.
    Failed {
        /// The task.
        id: TaskId,
        /// Its payload.
        payload: Payload,
        /// Its priority.
        priority: Priority,
        /// Attempts that ended.
        attempts: u32,
        /// The last error.
        error: String,
        /// When it became failed (store's clock).
        failed_at: Timestamp,
    },
}

/// Why something was not announced. It may have been all the same.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnnounceError {
    /// The log cannot be reached, or did not confirm in time.
    #[error("the log is unavailable")]
    Unavailable(#[source] Cause),
    /// The log refuses this record, whenever it is sent (too large, for example).
    #[error("the log refused the record")]
    Rejected(#[source] Cause),
}

impl AnnounceError {
    /// Whether the same record may be taken later.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// Announces what came of tasks.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Announcer: Send + Sync {
    /// Sends results to `tasks-output`, keyed by task id, and waits until each is confirmed (all in-sync replicas) or
    /// refused, within the adapter's timeout. One outcome per input, in input order; one failure stops none of the
    /// others. May announce a result more than once.
    async fn announce(&self, results: &[TaskResult]) -> Vec<Result<(), AnnounceError>>;

    /// The same, with the trace that each result belongs to, for a log whose records have headers; any other passes over the
    /// traces. `traces` is as long as `results`.
    async fn announce_traced(
        &self,
        results: &[TaskResult],
        traces: &[Option<TraceContext>],
    ) -> Vec<Result<(), AnnounceError>> {
        let _ = traces;
        self.announce(results).await
    }

    /// Sends dead letters to `tasks-dead-letter`; otherwise as [`announce`](Self::announce).
    async fn dead_letter(&self, letters: &[DeadLetter]) -> Vec<Result<(), AnnounceError>>;

    /// Sends events to `tasks-events`, where an [`EventFeed`](crate::EventFeed) reads them; otherwise as
    /// [`announce`](Self::announce).
    async fn tell(&self, events: &[TaskEvent]) -> Vec<Result<(), AnnounceError>>;
}
