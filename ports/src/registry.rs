//! Who is alive.

use async_trait::async_trait;

use crate::ids::WorkerId;
use crate::store::{StoreError, WriteOutcome};
use crate::time::Timestamp;

/// What a beat found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeatReply {
    /// The worker is registered and alive.
    Alive,
    /// It is unknown or was declared dead: it must stop its work and register anew under a new id.
    Gone,
}

/// What removing a worker found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoveReply {
    /// The worker is not in the registry (any more).
    Removed,
    /// Claims of it are still recorded; nothing was removed.
    HasClaims,
}

/// A registered worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerEntry {
    /// Identity of this life of it.
    pub id: WorkerId,
    /// A name for people: host and process.
    pub name: String,
    /// Rises with every beat. Only standing still means anything, never its value.
    pub beat: u64,
    /// Record time of what the worker last received from the log while more is waiting there; `None` when it has
    /// caught up, has no partitions or has no log.
    pub position: Option<Timestamp>,
    /// Whether it was declared dead. It can neither beat nor claim.
    pub dead: bool,
}

/// Keeps the workers that hold, or may hold, claims. Shares its store with [`TaskStore`](crate::store::TaskStore): a
/// claim and the death of its worker are serialised by the store.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait WorkerRegistry: Send + Sync {
    /// Registers a worker, alive. Idempotent; a worker declared dead stays dead.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn register(&self, worker: WorkerId, name: &str) -> Result<(), StoreError>;

    /// Says that a worker lives, and where it stands in the log.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn beat(
        &self,
        worker: WorkerId,
        position: Option<Timestamp>,
    ) -> Result<BeatReply, StoreError>;

    /// Every registered worker, dead ones that are not removed included, in ascending order of id.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn workers(&self) -> Result<Vec<WorkerEntry>, StoreError>;

    /// Declares a worker dead if its beat still is `last_beat`. From then on its claims and beats are refused.
    /// `AlreadyApplied` when it was dead before; `Stale` when it beat since or is unknown.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn declare_dead(
        &self,
        worker: WorkerId,
        last_beat: u64,
    ) -> Result<WriteOutcome, StoreError>;

    /// Removes a worker that has no recorded claims. A claim of it that commits at the same time either makes this
    /// answer `HasClaims` or is itself refused: never is a claim left without its worker.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn remove(&self, worker: WorkerId) -> Result<RemoveReply, StoreError>;
}
