//! Finding tasks without knowing their ids, and finding out where one is.

use async_trait::async_trait;

use crate::ids::WorkerId;
use crate::store::StoreError;
use crate::task::{Priority, Task, TaskId, TaskStatus};
use crate::time::Timestamp;

/// A stretch of tasks that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Only tasks of this status.
    pub status: Option<TaskStatus>,
    /// Only tasks of this priority.
    pub priority: Option<Priority>,
    /// Only tasks created at this time or later.
    pub created_from: Option<Timestamp>,
    /// Only tasks created earlier than this.
    pub created_before: Option<Timestamp>,
    /// Only tasks with smaller ids than this.
    pub below: Option<TaskId>,
    /// How many tasks to look at; 0 counts as 1.
    pub walk: usize,
    /// How many to answer; 0 counts as 1.
    pub limit: usize,
    /// After how many bytes of text (payloads, results, errors) to stop. The first task is answered whatever its size.
    pub bytes: usize,
}

/// A stretch of tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Those that were asked for, in descending order of id (of version 7 ids: the newest first).
    pub tasks: Vec<Task>,
    /// Below which id the next stretch begins; `None` when the end was reached.
    pub next: Option<TaskId>,
}

/// Where a task is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// It waits in the queue.
    Queued {
        /// Not to be claimed before this time.
        not_before: Timestamp,
        /// Whether a message for it may be on its way.
        messaged: bool,
        /// How many tasks are due that wait for longer, counted no further than was asked for; 0 when it is not due itself.
        ahead: usize,
    },
    /// A recorded claim holds it under its present fence.
    Claimed {
        /// Who claimed.
        worker: WorkerId,
        /// The name of the worker, if it is registered.
        worker_name: Option<String>,
        /// When the claim was made (store's clock).
        claimed_at: Timestamp,
    },
    /// Neither: it is at rest, or the books about it are wrong.
    Nowhere,
}

/// A task and where it is, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// The task.
    pub task: Task,
    /// Where it is.
    pub place: Place,
    /// The moment (store's clock).
    pub now: Timestamp,
}

/// Finds tasks by what they are like, and says where they are. Shares its store with
/// [`TaskStore`](crate::store::TaskStore); changes nothing and waits for nobody.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait TaskCatalog: Send + Sync {
    /// Walks up to `walk` tasks in descending order of id, beginning below `below`, and answers those that match, as they
    /// stand at one moment; it stops early with `limit` tasks or when their texts pass `bytes`. Its cost is that of `walk`
    /// rows, however large the table.
    ///
    /// What is walked depends on the status: the queue for `pending`, the recorded claims for `processing`, a list of their
    /// own for `failed` and `cancelled`, every task for `done` and without a status. So a `pending` task without a queue row,
    /// or a `processing` one in no claim, is not found by its status. Whoever follows `next` meets each task that keeps
    /// matching exactly once, whatever is stored, moved and deleted meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn list(&self, listing: &Listing) -> Result<Listed, StoreError>;

    /// Reads a task and where it is; `None` for an unknown id. Of the tasks ahead of it at most `count_up_to` are counted, so
    /// that its cost does not grow with the queue.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn inspect(
        &self,
        id: TaskId,
        count_up_to: usize,
    ) -> Result<Option<Inspection>, StoreError>;
}
