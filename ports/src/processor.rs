//! The work itself: a function of the embedding service.

use std::time::Duration;

use async_trait::async_trait;

use crate::beginning::Beginning;
use crate::cancellation::Cancellation;
use crate::task::{Fence, Payload, Priority, TaskId};
use crate::trace::TraceContext;

/// What a processing function is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The task.
    pub id: TaskId,
    /// The stored payload (never the message's).
    pub payload: Payload,
    /// Its priority.
    pub priority: Priority,
    /// Which attempt this is, from 1. A run after a rescue or a hand-back has the number of the one it replaces.
    pub attempt: u32,
    /// Different for every run of the task, and rising: a token for downstream writes that must not be overtaken.
    pub fence: Fence,
    /// Told within 2 s when the task is cancelled, or moved in any other way: whatever the run answers then is dropped. A
    /// function that returns when it is told frees its place for another task; one that never looks runs on, in vain.
    pub cancellation: Cancellation,
    /// From when the deadline counts. A processor that has fewer places of its own than the worker runs tasks
    /// [postpones](Beginning::postpone) it until there is one.
    pub beginning: Beginning,
    /// The trace this run belongs to, to be passed on to whatever the function calls.
    pub trace: Option<TraceContext>,
}

/// Why a run has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// May succeed next time: run again after a backoff, up to the task's `max_attempts`, then `failed`.
    #[error("{0}")]
    Retryable(String),
    /// The same, but not before this delay: whoever refused said when to come back. The retry policy's own wait is added,
    /// so that tasks that were refused together do not come back together, and its cap is kept.
    #[error("{0}")]
    RetryableAfter(String, Duration),
    /// Will never succeed: `failed` at once.
    #[error("{0}")]
    Permanent(String),
    /// Something the function needs is down, which is not the task's fault: run again later, no attempt spent.
    #[error("{0}")]
    Unavailable(String),
}

/// Turns a payload into a result.
///
/// Runs at least once per task, possibly on two workers at once after one was presumed dead; only one result counts.
/// A panic and a run past its deadline are [`Failure::Retryable`]. When the future is dropped the run has been given up. The deadline
/// counts from when it is called, or from when it [begins](Beginning).
///
/// It runs on the threads of the worker. A function that computes for long without awaiting anything belongs on threads of its own:
/// the adapter `OwnThreads` puts any processor there.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Processor: Send + Sync {
    /// Processes one task.
    ///
    /// # Errors
    /// A [`Failure`], whose text is kept with the task (control characters removed, cut at 4 KiB).
    async fn process(&self, job: Job) -> Result<String, Failure>;

    /// The deadline of one run; `None` takes the worker's. `Some(Duration::ZERO)` is none at all.
    fn timeout(&self, job: &Job) -> Option<Duration> {
        let _ = job;
        None
    }
}
