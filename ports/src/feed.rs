//! What the log brings to a worker.

use async_trait::async_trait;

use crate::Cause;
use crate::task::TaskId;
use crate::time::Timestamp;
use crate::trace::TraceContext;

/// Where a record stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The partition.
    pub partition: i32,
    /// The offset in it.
    pub offset: i64,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordContent {
    /// A task that may want work.
    Task(TaskId),
    /// A record that cannot be read.
    Unreadable {
        /// What is wrong with it, for people.
        reason: String,
        /// The key as received.
        key: Option<Vec<u8>>,
        /// The value as received; `None` is a tombstone.
        value: Option<Vec<u8>>,
    },
}

/// One received record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Where it stands.
    pub position: Position,
    /// The record's time.
    pub recorded_at: Timestamp,
    /// What it says.
    pub content: RecordContent,
    /// The trace that it belongs to; `None` also when it is unreadable: a trace never makes a record unreadable.
    pub trace: Option<TraceContext>,
}

/// Whether the log has more for this worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Everything in the partitions of this worker was received.
    CaughtUp,
    /// More is waiting.
    Behind,
    /// No partition belongs to this worker.
    Unassigned,
    /// The log cannot be reached.
    Down,
    /// The group does not let this member in, or takes nothing from it, until someone changes something: the text says
    /// what.
    Refused(String),
}

/// Why nothing was received or acknowledged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FeedError {
    /// The log cannot be reached; the feed reconnects by itself and the next call may succeed.
    #[error("the log is unavailable")]
    Unavailable(#[source] Cause),
    /// The group does not let this member in, until someone changes something: the text says what.
    #[error("the consumer group refuses this member: {0}")]
    Refused(String),
}

/// Receives records of `tasks-input`.
///
/// At least once: what was not acknowledged comes again after a crash, to this worker or another. Records may be
/// repeated, early, out of order, or rubbish; rubbish arrives as [`RecordContent::Unreadable`] and stops nothing.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait TaskFeed: Send + Sync {
    /// Waits until at least one record is there and returns up to `limit`, in log order within each partition. Does not
    /// wait for a batch to fill. Dropping the future loses no record.
    ///
    /// # Errors
    /// [`FeedError`]; call again, after a pause.
    async fn receive(&self, limit: usize) -> Result<Vec<Delivery>, FeedError>;

    /// Says that every record up to and including each position, in its partition, needs no redelivery. Cumulative, and
    /// never moves backward. Positions of partitions that meanwhile belong to another worker are passed over.
    ///
    /// # Errors
    /// [`FeedError`]; the records may come again.
    async fn acknowledge(&self, upto: &[Position]) -> Result<(), FeedError>;

    /// Whether more is waiting, as far as is known; never blocks.
    fn standing(&self) -> Standing;
}
