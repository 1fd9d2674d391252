//! Changes of tasks' states, as they are told and as they are read back: topic `tasks-events`.

use async_trait::async_trait;

use crate::Cause;
use crate::task::{Fence, TaskId, TaskStatus};
use crate::time::Timestamp;

/// A task came to this state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskEvent {
    /// The task.
    pub id: TaskId,
    /// Where it is now.
    pub status: TaskStatus,
    /// Its fence in this state: of two events of one task the one with the higher fence is later, however they arrive.
    pub fence: Fence,
    /// When it came to this state (store's clock).
    pub at: Timestamp,
}

/// An event and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacedEvent {
    /// Rises by one from record to record, in the order of the log.
    pub position: u64,
    /// The event; `None` for a record that cannot be read.
    pub event: Option<TaskEvent>,
}

/// Why no events were read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventFeedError {
    /// The log cannot be read, or not from where this reader stands: open another.
    #[error("the events are unavailable")]
    Unavailable(#[source] Cause),
}

/// Brings the events of every process to this one. No group: every reader reads everything.
#[async_trait]
pub trait EventFeed: Send + Sync {
    /// Opens a reader that begins with the `latest` last events, or with the first if there are fewer. What was told
    /// before the call is before its end or among them. Nothing is read, and nothing costs anything, before a reader is open.
    ///
    /// # Errors
    /// [`EventFeedError`]; call again, after a pause.
    async fn open(&self, latest: usize) -> Result<Box<dyn EventReader>, EventFeedError>;
}

/// Reads events in order. Dropping it ends the reading.
#[async_trait]
pub trait EventReader: Send {
    /// The position of the first record it brings, if there is one.
    fn begin(&self) -> u64;

    /// Where the log ended when the reader was opened: a record told later stands there or behind.
    fn end(&self) -> u64;

    /// Waits until there is at least one record and returns up to `limit`. A gap between two positions, or a step back, says
    /// that records are gone or that the log was made anew. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`EventFeedError`]: this reader is at its end.
    async fn read(&mut self, limit: usize) -> Result<Vec<PlacedEvent>, EventFeedError>;
}
