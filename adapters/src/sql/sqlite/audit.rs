//! Comparing the tasks with the queue, the claims and the list of the failed and cancelled. What is only read takes no turn with the writer.

use std::time::Duration;

use ports::{AuditPage, ClaimRecord, Fence, StoreError, TaskEvent, TaskId, TaskStatus, Timestamp};
use sea_orm::{DbErr, Value};

use super::rows::{claim_record, id_list, ids_of, task, task_id, timestamp};
use super::{PRUNED, SqliteStore, commit, count, execute, micros, now, rows, statements};
use crate::sql::row::{column, read};

impl SqliteStore {
    pub(in crate::sql) async fn stranded(
        &self,
        after: Option<TaskId>,
        limit: usize,
        unmoved_for: Duration,
    ) -> Result<AuditPage, StoreError> {
        let now = now();
        let values = [
            before_first(after),
            bounded(limit),
            micros(now.before(unmoved_for)),
            micros(now.after(unmoved_for)),
        ];
        let found = rows(&self.readers, statements::STRANDED, values).await?;
        let mut page = AuditPage::default();
        read(&found, |row| {
            match column::<Option<i64>>(row, 12)? {
                None => page.stranded.push(task(row)?),
                Some(walked) => {
                    // A short stretch was the last one.
                    if walked > 0 && walked.cast_unsigned() >= limit as u64 {
                        page.next = Some(task_id(row, 0)?);
                    }
                    page.unlisted = ids_of(&column::<String>(row, 13)?)?;
                }
            }
            Ok::<(), DbErr>(())
        })?;
        page.stranded.sort_unstable_by_key(|task| task.id);
        page.unlisted.sort_unstable();
        Ok(page)
    }

    pub(in crate::sql) async fn enqueue(&self, ids: Vec<TaskId>) -> Result<usize, StoreError> {
        let values = [id_list(ids), micros(now())];
        let given = self.write(statements::ENQUEUE_WAITING, values).await?;
        Ok(usize::try_from(given).unwrap_or(usize::MAX))
    }

    pub(in crate::sql) async fn enlist(&self, ids: Vec<TaskId>) -> Result<usize, StoreError> {
        let listed = self.write(statements::ENLIST, [id_list(ids)]).await?;
        Ok(usize::try_from(listed).unwrap_or(usize::MAX))
    }

    pub(in crate::sql) async fn sweep_queue(
        &self,
        after: Option<TaskId>,
        limit: usize,
    ) -> Result<(usize, Option<TaskId>), StoreError> {
        let values = [before_first(after), bounded(limit)];
        let (in_vain, next) = self.walk(statements::WALK_QUEUE, values, limit).await?;
        Ok((
            self.delete(statements::DEQUEUE_IN_VAIN, in_vain).await?,
            next,
        ))
    }

    pub(in crate::sql) async fn sweep_stopped(
        &self,
        after: Option<TaskId>,
        limit: usize,
    ) -> Result<(usize, Option<TaskId>), StoreError> {
        let values = [before_first(after), bounded(limit)];
        let (in_vain, next) = self.walk(statements::WALK_STOPPED, values, limit).await?;
        Ok((
            self.delete(statements::UNLIST_IN_VAIN, in_vain).await?,
            next,
        ))
    }

    pub(in crate::sql) async fn untold(
        &self,
        after: Option<TaskId>,
        limit: usize,
        unmoved_for: Duration,
    ) -> Result<(Vec<TaskEvent>, Option<TaskId>), StoreError> {
        let now = now();
        let values = [
            before_first(after),
            bounded(limit),
            micros(now.before(unmoved_for)),
            micros(now.after(unmoved_for)),
        ];
        let found = rows(&self.readers, statements::UNTOLD, values).await?;
        let (mut events, mut next) = (Vec::new(), None);
        read(&found, |row| {
            match column::<Option<i64>>(row, 3)? {
                None => events.push(TaskEvent {
                    id: task_id(row, 0)?,
                    status: TaskStatus::Cancelled,
                    fence: Fence(column(row, 1)?),
                    at: timestamp(row, 2)?,
                }),
                // A short stretch was the last one.
                Some(walked) if walked > 0 && walked.cast_unsigned() >= limit as u64 => {
                    next = Some(task_id(row, 0)?);
                }
                Some(_) => {}
            }
            Ok::<(), DbErr>(())
        })?;
        events.sort_unstable_by_key(|event| event.id);
        Ok((events, next))
    }

    pub(in crate::sql) async fn mark_told(&self, ids: Vec<TaskId>) -> Result<(), StoreError> {
        self.write(statements::MARK_TOLD, [id_list(ids)])
            .await
            .map(drop)
    }

    /// Of a stretch, of each row of which the statement tells the id and whether it may go: those that may, and where the next
    /// stretch begins.
    async fn walk<const COUNT: usize>(
        &self,
        statement: &'static str,
        values: [Value; COUNT],
        limit: usize,
    ) -> Result<(Vec<TaskId>, Option<TaskId>), StoreError> {
        let found = rows(&self.readers, statement, values).await?;
        let walked: Vec<(TaskId, bool)> = read(&found, |row| {
            Ok((task_id(row, 0)?, column::<i64>(row, 1)? != 0))
        })?;
        // A short stretch was the last one.
        let last = walked.last().filter(|_| walked.len() >= limit);
        let next = last.map(|(id, _)| *id);
        let may_go = walked.into_iter().filter(|(_, may_go)| *may_go);
        Ok((may_go.map(|(id, _)| id).collect(), next))
    }

    async fn delete(&self, statement: &'static str, ids: Vec<TaskId>) -> Result<usize, StoreError> {
        if ids.is_empty() {
            return Ok(0);
        }
        let deleted = self.write(statement, [id_list(ids)]).await?;
        Ok(usize::try_from(deleted).unwrap_or(usize::MAX))
    }

    pub(in crate::sql) async fn prune(
        &self,
        after: Option<TaskId>,
        limit: usize,
        older_than: Duration,
    ) -> Result<(usize, Option<TaskId>), StoreError> {
        let latest = now().before(older_than);
        let values = [before_first(after), bounded(limit), micros(latest)];
        let (old, next) = self.walk(statements::WALK_TASKS, values, limit).await?;
        if old.is_empty() {
            return Ok((0, next));
        }
        Ok((self.delete_old(id_list(old), latest).await?, next))
    }

    async fn delete_old(&self, ids: Value, latest: Timestamp) -> Result<usize, StoreError> {
        let transaction = self.begin().await?;
        let values = [ids, micros(latest)];
        let deleted = rows(&transaction, statements::PRUNE, values).await?;
        let deleted: Vec<(bool, i64, TaskId)> = read(&deleted, |row| {
            let is_done = column::<i64>(row, 0)? != 0;
            Ok((is_done, column(row, 1)?, task_id(row, 2)?))
        })?;
        let done = || deleted.iter().filter(|(is_done, ..)| *is_done);
        let elapsed = done().fold(0_i64, |sum, (_, micros, _)| sum.saturating_add(*micros));
        let number = i64::try_from(done().count()).unwrap_or(i64::MAX);
        if number > 0 {
            count(&transaction, PRUNED, number, elapsed).await?;
        }
        if deleted.iter().any(|(is_done, ..)| !is_done) {
            let stopped = deleted.iter().filter(|(is_done, ..)| !is_done);
            let ids = id_list(stopped.map(|(.., id)| *id));
            execute(&transaction, statements::UNLIST_STOPPED, [ids]).await?;
        }
        commit(transaction).await?;
        Ok(deleted.len())
    }

    pub(in crate::sql) async fn orphaned_claims(
        &self,
        limit: usize,
    ) -> Result<Vec<ClaimRecord>, StoreError> {
        let found = rows(&self.readers, statements::ORPHANED_CLAIMS, [bounded(limit)]).await?;
        read(&found, claim_record)
    }
}

/// The empty text stands before every id.
fn before_first(after: Option<TaskId>) -> Value {
    Value::from(after.map_or_else(String::new, |id| id.to_string()))
}

fn bounded(limit: usize) -> Value {
    Value::from(i64::try_from(limit).unwrap_or(i64::MAX))
}
