//! How much waits, and for how long.

use std::time::Duration;

use async_trait::async_trait;

use crate::store::StoreError;

/// Up to how many rows are counted one by one.
pub const COUNTED: u64 = 10_000;

/// What stands in the books at one moment. Ages are by the store's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Tasks that wait, those whose time has not come included: exact up to [`COUNTED`], beyond it an estimate that is
    /// never lower.
    pub waiting: u64,
    /// Those of them whose time has come: exact up to [`COUNTED`], beyond it an estimate that is never lower.
    pub due: u64,
    /// For how long the first of these might have been claimed; `None` when there is none.
    pub oldest_due: Option<Duration>,
    /// Recorded claims, of any number of tasks each: exact up to [`COUNTED`], which it never exceeds.
    pub claims: u64,
    /// How long ago the recorded claim with the smallest id (of version 7 ids: the oldest) was made.
    pub oldest_claim: Option<Duration>,
    /// For how long the oldest transaction of anybody keeps the store from clearing away what is dead; `None` when nobody
    /// does, or the store knows no such thing.
    pub oldest_transaction: Option<Duration>,
}

/// Looks at the queue and the claims. Shares its store with [`TaskStore`](crate::store::TaskStore).
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait TaskSurvey: Send + Sync {
    /// What stands in the books now. Changes nothing, waits for nobody, and its cost does not grow with the number of tasks,
    /// however many wait.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn survey(&self) -> Result<Survey, StoreError>;
}

/// The connections of this process to the store, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// How many there may be.
    pub limit: u32,
    /// How many there are.
    pub open: u32,
    /// Those of them that nobody uses.
    pub idle: u32,
    /// How many statements wait for one.
    pub waiting: u64,
    /// For how long statements have waited for one, all of them together, since this process began.
    pub waited: Duration,
}

/// Holds connections that whoever asks the store shares.
#[cfg_attr(feature = "mock", mockall::automock)]
pub trait ConnectionPool: Send + Sync {
    /// How the connections stand. Asks nobody and waits for nobody.
    fn connections(&self) -> Connections;
}
