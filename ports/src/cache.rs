//! Remembering results.

use async_trait::async_trait;

use crate::Cause;
use crate::task::{TaskId, TaskResult};

/// Why the cache did not answer. Never a reason to fail a request: the store knows.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The cache cannot be reached, refused, or was too slow.
    #[error("the result cache is unavailable")]
    Unavailable(#[source] Cause),
}

/// Keeps results of done tasks for a while. Only final results go in, so what comes out is never stale.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait ResultCache: Send + Sync {
    /// Looks results up. One answer per id, in input order: `None` for what it does not hold, and for what it holds but
    /// cannot read.
    ///
    /// # Errors
    /// [`CacheError::Unavailable`], within the adapter's timeout.
    async fn get(&self, ids: &[TaskId]) -> Result<Vec<Option<TaskResult>>, CacheError>;

    /// Keeps results for the adapter's time to live, at most: it may forget sooner. Overwrites what stood there.
    ///
    /// # Errors
    /// [`CacheError::Unavailable`]; any part of the batch may have been kept.
    async fn put(&self, results: &[TaskResult]) -> Result<(), CacheError>;

    /// Whether the cache answers.
    ///
    /// # Errors
    /// [`CacheError::Unavailable`].
    async fn ping(&self) -> Result<(), CacheError>;
}
