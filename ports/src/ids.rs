//! Identities made by the caller, so that a write whose answer was lost can be repeated.

use std::fmt;

use uuid::Uuid;

use crate::task::TaskId;

/// The identity of one claimed batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimId(pub Uuid);

/// The identity of one life of a worker: a worker that registers anew takes a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub Uuid);

impl fmt::Display for ClaimId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(formatter)
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(formatter)
    }
}

/// Makes identities that nobody else makes.
#[cfg_attr(feature = "mock", mockall::automock)]
pub trait IdSource: Send + Sync {
    /// A new UUID, version 7 in production: those made by one source are in ascending order.
    fn next(&self) -> Uuid;

    /// A new task id.
    fn task_id(&self) -> TaskId {
        TaskId(self.next())
    }

    /// A new claim id.
    fn claim_id(&self) -> ClaimId {
        ClaimId(self.next())
    }

    /// A new worker id.
    fn worker_id(&self) -> WorkerId {
        WorkerId(self.next())
    }
}
