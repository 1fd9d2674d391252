//! Finding what no one is going to run, and saying so in the books; taking out what nobody needs any more.

use std::time::Duration;

use async_trait::async_trait;

use crate::events::TaskEvent;
use crate::store::{ClaimRecord, StoreError};
use crate::task::{Task, TaskId};

/// A stretch of the table, walked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditPage {
    /// Tasks that are `pending` without a queue row, or `processing` in no recorded claim under their present fence, and
    /// have not moved for the time that was asked for. In ascending order of id.
    pub stranded: Vec<Task>,
    /// Tasks that are `failed` or `cancelled` and that the list of those lacks, so that nobody finds them by their status. In
    /// ascending order of id.
    pub unlisted: Vec<TaskId>,
    /// The last task walked, after which the next stretch begins; `None` when the end of the table was reached.
    pub next: Option<TaskId>,
}

/// Compares the tasks with the books about them: the queue, the claims, and the list of the failed and cancelled by which a
/// [`TaskCatalog`](crate::catalog::TaskCatalog) finds them. Shares its store with [`TaskStore`](crate::store::TaskStore).
///
/// Nothing that this program does makes such a contradiction. Rows edited by hand, written by another program that died
/// before it told the log, or restored from a backup do.
///
/// Each method is idempotent, and any number of callers may audit at once.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait TaskAudit: Send + Sync {
    /// Walks up to `limit` tasks in ascending order of id, beginning after `after`, and answers those that no one is
    /// going to run although they have not moved for `unmoved_for` (store's clock), and those that are failed or cancelled and
    /// not listed as such, whenever they moved. Its cost is that of `limit` rows, however large the table.
    ///
    /// A task that is said to have moved further in the future than `unmoved_for` counts as unmoved: a clock was wrong, and
    /// its time would not come. Tasks, queue, claims and list are compared as they stood at one moment, so what claims,
    /// transitions and releases do meanwhile is never taken for a contradiction.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn stranded(
        &self,
        after: Option<TaskId>,
        limit: usize,
        unmoved_for: Duration,
    ) -> Result<AuditPage, StoreError>;

    /// Gives a queue row, due at once and not messaged, to each of these tasks that is `pending` and has none; the others
    /// are passed over. Answers how many it gave. The task itself does not change.
    ///
    /// A claim by delivery that commits at the same time gets the task all the same, and the row may be left behind; it
    /// claims nothing, and [`sweep_queue`](Self::sweep_queue) deletes it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn enqueue(&self, ids: &[TaskId]) -> Result<usize, StoreError>;

    /// Deletes, of up to `limit` queue rows in ascending order of id beginning after `after`, those whose task is not
    /// `pending` or does not exist. Answers how many it deleted, and after which id the next stretch begins (`None` when
    /// the end of the queue was reached).
    ///
    /// Waits for nobody. A claim or a transition that commits at the same time is not disturbed: the row of a task that is
    /// `pending` again is kept.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn sweep_queue(
        &self,
        after: Option<TaskId>,
        limit: usize,
    ) -> Result<(usize, Option<TaskId>), StoreError>;

    /// Lists each of these tasks that is failed or cancelled and not listed as such; the others are passed over. Answers how
    /// many it listed. The task itself does not change.
    ///
    /// Waits for nobody: a task that someone is just moving may be passed over. What a transition at the same time makes
    /// wait again may be left in the list; no listing shows it, and [`sweep_stopped`](Self::sweep_stopped) deletes it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn enlist(&self, ids: &[TaskId]) -> Result<usize, StoreError>;

    /// Deletes, of up to `limit` tasks in the list of the failed and cancelled, in ascending order of id beginning after
    /// `after`, the entries whose task is not what it is listed as, or does not exist. Answers how many it deleted, and
    /// after which id the next stretch begins (`None` when the end of the list was reached). Its cost is that of `limit` rows,
    /// however long the list.
    ///
    /// Waits for nobody. The entry of a task that comes to rest as that at the same time is kept.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn sweep_stopped(
        &self,
        after: Option<TaskId>,
        limit: usize,
    ) -> Result<(usize, Option<TaskId>), StoreError>;

    /// Walks up to `limit` entries of the list that say cancelled, in ascending order of id beginning after `after`, and answers
    /// what is to be told of those whose news nobody has [marked as told](Self::mark_told) and that have not moved for `unmoved_for`
    /// (store's clock; further in the future than that counts as unmoved): whoever cancelled them may be about to tell. In ascending
    /// order of id, and after which id the next stretch begins (`None` when the end of the list was reached). An entry in vain is
    /// passed over. Its cost is that of `limit` rows, however long the list.
    ///
    /// Who cancels a task that no worker has holds no claim on it, which would be kept until the news is told. This entry is
    /// kept instead: a transition to cancelled, and [`enlist`](Self::enlist), write it as one that is not told. What is
    /// [pruned](Self::prune) before is told by nobody.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn untold(
        &self,
        after: Option<TaskId>,
        limit: usize,
        unmoved_for: Duration,
    ) -> Result<(Vec<TaskEvent>, Option<TaskId>), StoreError>;

    /// Marks the news of these tasks as told, of those that are listed as cancelled; the others are passed over. The task itself
    /// does not change.
    ///
    /// Waits for nobody: an entry that someone else is just writing may be passed over, and is told again.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn mark_told(&self, ids: &[TaskId]) -> Result<(), StoreError>;

    /// Walks up to `limit` tasks in ascending order of id, beginning after `after`, and deletes those that are done, failed or
    /// cancelled, have not moved for `older_than` (store's clock), and stand in no recorded claim: what is in one may not have
    /// been announced. Answers how many it deleted, and after which id the next stretch begins (`None` when the end of the table
    /// was reached). Its cost is that of `limit` rows, however large the table.
    ///
    /// The totals of [`TaskStore`](crate::store::TaskStore) do not change: what was done stays counted. Waits for nobody; a task
    /// that moves at the same time is kept.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn prune(
        &self,
        after: Option<TaskId>,
        limit: usize,
        older_than: Duration,
    ) -> Result<(usize, Option<TaskId>), StoreError>;

    /// Up to `limit` recorded claims whose worker is not registered at all, in ascending order of id (of version 7 ids:
    /// the oldest first).
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn orphaned_claims(&self, limit: usize) -> Result<Vec<ClaimRecord>, StoreError>;
}
