//! Comparing the tasks with the queue, the claims and the list of the failed and cancelled.

use std::time::Duration;

use ports::{AuditPage, ClaimRecord, Fence, StoreError, TaskEvent, TaskId, TaskStatus};
use sea_orm::{DbErr, QueryResult, Value};
use uuid::Uuid;

use super::rows::{claim_record, grace_micros, task, timestamp, uuids};
use super::{PostgresStore, statements};
use crate::sql::batch::distinct;
use crate::sql::failure::store_error;
use crate::sql::row::{column, read};

impl PostgresStore {
    pub(in crate::sql) async fn stranded(
        &self,
        after: Option<TaskId>,
        limit: usize,
        unmoved_for: Duration,
    ) -> Result<AuditPage, StoreError> {
        let Some(first) = first_after(after) else {
            return Ok(AuditPage::default());
        };
        let values = vec![
            Value::from(first),
            Value::from(bounded(limit)),
            Value::from(grace_micros(unmoved_for)),
        ];
        let rows = self
            .pool
            .rows(statements::STRANDED, values)
            .await
            .map_err(store_error)?;
        let mut page = AuditPage::default();
        read(&rows, |row| {
            match column(row, 12)? {
                Some(walked) => {
                    page.next = next_of(walked, limit, column(row, 0)?);
                    let unlisted: Vec<Uuid> = column(row, 13)?;
                    page.unlisted = unlisted.into_iter().map(TaskId).collect();
                }
                None => page.stranded.push(task(row)?),
            }
            Ok::<(), DbErr>(())
        })?;
        page.stranded.sort_unstable_by_key(|task| task.id);
        page.unlisted.sort_unstable();
        Ok(page)
    }

    pub(in crate::sql) async fn enqueue(&self, ids: Vec<TaskId>) -> Result<usize, StoreError> {
        self.enter(statements::ENQUEUE, ids).await
    }

    pub(in crate::sql) async fn enlist(&self, ids: Vec<TaskId>) -> Result<usize, StoreError> {
        self.enter(statements::ENLIST, ids).await
    }

    /// Writes the entries of these tasks that are missing, or not as they should be; how many.
    async fn enter(&self, statement: &'static str, ids: Vec<TaskId>) -> Result<usize, StoreError> {
        let ids = uuids(distinct(ids).into_iter().map(|id| id.0));
        let entered = self
            .pool
            .execute(statement, vec![ids])
            .await
            .map_err(store_error)?;
        Ok(usize::try_from(entered).unwrap_or(usize::MAX))
    }

    pub(in crate::sql) async fn sweep_queue(
        &self,
        after: Option<TaskId>,
        limit: usize,
    ) -> Result<(usize, Option<TaskId>), StoreError> {
        self.sweep(statements::SWEEP_QUEUE, after, limit, None)
            .await
    }

    pub(in crate::sql) async fn sweep_stopped(
        &self,
        after: Option<TaskId>,
        limit: usize,
    ) -> Result<(usize, Option<TaskId>), StoreError> {
        self.sweep(statements::SWEEP_STOPPED, after, limit, None)
            .await
    }

    pub(in crate::sql) async fn untold(
        &self,
        after: Option<TaskId>,
        limit: usize,
        unmoved_for: Duration,
    ) -> Result<(Vec<TaskEvent>, Option<TaskId>), StoreError> {
        let Some(first) = first_after(after) else {
            return Ok((Vec::new(), None));
        };
        let values = vec![
            Value::from(first),
            Value::from(bounded(limit)),
            Value::from(grace_micros(unmoved_for)),
        ];
        let rows = self
            .pool
            .rows(statements::UNTOLD, values)
            .await
            .map_err(store_error)?;
        let (mut events, mut next) = (Vec::new(), None);
        read(&rows, |row| {
            match column(row, 3)? {
                Some(walked) => next = next_of(walked, limit, column(row, 0)?),
                None => events.push(TaskEvent {
                    id: TaskId(column(row, 0)?),
                    status: TaskStatus::Cancelled,
                    fence: Fence(column(row, 1)?),
                    at: timestamp(row, 2)?,
                }),
            }
            Ok::<(), DbErr>(())
        })?;
        events.sort_unstable_by_key(|event| event.id);
        Ok((events, next))
    }

    pub(in crate::sql) async fn mark_told(&self, ids: Vec<TaskId>) -> Result<(), StoreError> {
        self.enter(statements::MARK_TOLD, ids).await.map(drop)
    }

    pub(in crate::sql) async fn prune(
        &self,
        after: Option<TaskId>,
        limit: usize,
        older_than: Duration,
    ) -> Result<(usize, Option<TaskId>), StoreError> {
        self.sweep(statements::PRUNE, after, limit, Some(older_than))
            .await
    }

    /// Deletes what a stretch holds in vain; how many rows, and where the next one begins.
    async fn sweep(
        &self,
        statement: &'static str,
        after: Option<TaskId>,
        limit: usize,
        older_than: Option<Duration>,
    ) -> Result<(usize, Option<TaskId>), StoreError> {
        let Some(first) = first_after(after) else {
            return Ok((0, None));
        };
        let mut values = vec![Value::from(first), Value::from(bounded(limit))];
        values.extend(older_than.map(|age| Value::from(grace_micros(age))));
        let rows = self
            .pool
            .rows(statement, values)
            .await
            .map_err(store_error)?;
        stretch_of(&rows, limit)
    }

    pub(in crate::sql) async fn orphaned_claims(
        &self,
        limit: usize,
    ) -> Result<Vec<ClaimRecord>, StoreError> {
        let rows = self
            .pool
            .rows(
                statements::ORPHANED_CLAIMS,
                vec![Value::from(bounded(limit))],
            )
            .await
            .map_err(store_error)?;
        let mut claims = read(&rows, claim_record)?;
        claims.sort_unstable_by_key(|claim| claim.id);
        Ok(claims)
    }
}

/// The smallest id that a walk after this one may find; `None` when there is none.
fn first_after(after: Option<TaskId>) -> Option<Uuid> {
    match after {
        None => Some(Uuid::nil()),
        Some(after) => after.0.as_u128().checked_add(1).map(Uuid::from_u128),
    }
}

/// How many rows of a stretch were deleted, and where the next one begins: from how many were walked, the last of them, and
/// how many were deleted.
fn stretch_of(rows: &[QueryResult], limit: usize) -> Result<(usize, Option<TaskId>), StoreError> {
    let mut answer = (0, None);
    read(rows, |row| {
        let deleted: i64 = column(row, 2)?;
        answer = (
            usize::try_from(deleted).unwrap_or_default(),
            next_of(column(row, 0)?, limit, column(row, 1)?),
        );
        Ok::<(), DbErr>(())
    })?;
    Ok(answer)
}

/// A short stretch was the last one.
fn next_of(walked: i64, limit: usize, last: Option<Uuid>) -> Option<TaskId> {
    last.filter(|_| walked >= bounded(limit)).map(TaskId)
}

fn bounded(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
