//! Telling the workers that tasks wait: topic `tasks-input`.

use async_trait::async_trait;

use crate::Cause;
use crate::task::{Payload, Priority, TaskId};
use crate::trace::TraceContext;

/// A record of `tasks-input`. A hint only: the store decides whether the task wants work, and keeps the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskMessage {
    /// The task, also the record's key.
    pub id: TaskId,
    /// Its payload.
    pub payload: Payload,
    /// Its priority.
    pub priority: Priority,
    /// The trace that it belongs to.
    pub trace: Option<TraceContext>,
}

/// Why a record was not published. It may have been all the same.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The log cannot be reached, or did not confirm in time.
    #[error("the log is unavailable")]
    Unavailable(#[source] Cause),
    /// The log refuses this record, whenever it is sent (too large, for example).
    #[error("the log refused the record")]
    Rejected(#[source] Cause),
}

impl PublishError {
    /// Whether the same record may be taken later.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// Publishes task messages.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait TaskPublisher: Send + Sync {
    /// Sends messages, keyed by task id, and waits until each is confirmed by the log (all in-sync replicas) or refused,
    /// within the adapter's timeout. One outcome per input, in input order; one failure stops none of the others. May
    /// deliver a message more than once. The trace arrives with the message.
    async fn publish(&self, messages: &[TaskMessage]) -> Vec<Result<(), PublishError>>;

    /// Whether the log answers.
    ///
    /// # Errors
    /// [`PublishError::Unavailable`].
    async fn ping(&self) -> Result<(), PublishError>;
}
