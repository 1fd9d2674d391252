//! Finding tasks, and where one is. Takes no turn with the writer.

use ports::{
    Inspection, Listed, Listing, Place, Priority, StoreError, Task, TaskId, TaskStatus, Timestamp,
    WorkerId,
};
use sea_orm::{DbErr, QueryResult, TransactionTrait, Value};

use super::rows::{id_list, parse, task, task_id, text, timestamp};
use super::{SqliteStore, commit, micros, now, rows, statements};
use crate::sql::batch::page_of;
use crate::sql::failure::store_error;
use crate::sql::row::{column, read, status};

/// What a task that was walked is like, without its texts.
struct Walked {
    status: TaskStatus,
    priority: Priority,
    created_at: Timestamp,
    bytes: usize,
}

impl SqliteStore {
    pub(in crate::sql) async fn list(&self, listing: Listing) -> Result<Listed, StoreError> {
        let statement = match listing.status {
            None | Some(TaskStatus::Done) => statements::WALK,
            Some(TaskStatus::Pending) => statements::WALK_QUEUED,
            Some(TaskStatus::Processing) => statements::WALK_CLAIMED,
            Some(TaskStatus::Failed) => statements::WALK_FAILED,
            Some(TaskStatus::Cancelled) => statements::WALK_CANCELLED,
        };
        // One snapshot for both questions.
        let snapshot = self.readers.begin().await.map_err(store_error)?;
        let values = [after_last(listing.below), number(listing.walk.max(1))];
        let found = rows(&snapshot, statement, values).await?;
        let walked: Vec<(TaskId, Option<Walked>)> =
            read(&found, |row| Ok((task_id(row, 0)?, walked(row)?)))?;
        let matching: Vec<(TaskId, usize)> = walked
            .iter()
            .filter_map(|(id, walked)| Some((*id, walked.as_ref()?)))
            .filter(|(_, walked)| matches(&listing, walked))
            .map(|(id, walked)| (id, walked.bytes))
            .take(listing.limit.max(1))
            .collect();
        let mut bytes = 0;
        let fitting = matching
            .iter()
            .enumerate()
            .take_while(|(index, (_, size))| {
                let fits = *index == 0 || bytes < listing.bytes;
                bytes += size;
                fits
            });
        let ids = id_list(fitting.map(|(_, (id, _))| *id));
        let found = rows(&snapshot, statements::GET, [ids]).await?;
        commit(snapshot).await?;
        let mut tasks: Vec<Task> = read(&found, task)?;
        tasks.sort_unstable_by_key(|task| std::cmp::Reverse(task.id));
        let last = walked.last().map(|(id, _)| *id);
        let walked_all = walked.len() >= listing.walk.max(1);
        Ok(page_of(
            &listing,
            tasks,
            matching.len(),
            last.filter(|_| walked_all),
        ))
    }

    pub(in crate::sql) async fn inspect(
        &self,
        id: TaskId,
        count_up_to: usize,
    ) -> Result<Option<Inspection>, StoreError> {
        let now = now();
        let values = [text(id), number(count_up_to), micros(now)];
        let found = rows(&self.readers, statements::INSPECT, values).await?;
        let mut found = read(&found, |row| inspection(row, count_up_to, now))?;
        Ok(found.pop())
    }
}

fn walked(row: &QueryResult) -> Result<Option<Walked>, DbErr> {
    if column::<Option<String>>(row, 1)?.is_none() {
        return Ok(None);
    }
    Ok(Some(Walked {
        status: status(row, 1)?,
        priority: Priority::clamped(column(row, 2)?),
        created_at: timestamp(row, 3)?,
        bytes: usize::try_from(column::<i64>(row, 4)?).unwrap_or_default(),
    }))
}

fn matches(listing: &Listing, walked: &Walked) -> bool {
    listing.status.is_none_or(|status| walked.status == status)
        && listing
            .priority
            .is_none_or(|priority| walked.priority == priority)
        && listing
            .created_from
            .is_none_or(|from| walked.created_at >= from)
        && listing
            .created_before
            .is_none_or(|before| walked.created_at < before)
}

/// A row of [`INSPECT`](super::statements::INSPECT).
fn inspection(row: &QueryResult, count_up_to: usize, now: Timestamp) -> Result<Inspection, DbErr> {
    let not_before: Option<i64> = column(row, 12)?;
    let worker: Option<String> = column(row, 16)?;
    let place = match (not_before, worker) {
        (Some(not_before), _) => {
            let ahead = column::<i64>(row, 14)?.saturating_add(column(row, 15)?);
            Place::Queued {
                not_before: Timestamp::from_micros(not_before),
                messaged: column::<i64>(row, 13)? != 0,
                ahead: usize::try_from(ahead).unwrap_or_default().min(count_up_to),
            }
        }
        (None, Some(worker)) => Place::Claimed {
            worker: WorkerId(parse(&worker)?),
            worker_name: column(row, 17)?,
            claimed_at: timestamp(row, 18)?,
        },
        (None, None) => Place::Nowhere,
    };
    Ok(Inspection {
        task: task(row)?,
        place,
        now,
    })
}

/// Every id stands before this text.
fn after_last(below: Option<TaskId>) -> Value {
    Value::from(below.map_or_else(|| "g".to_owned(), |id| id.to_string()))
}

fn number(count: usize) -> Value {
    Value::from(i64::try_from(count).unwrap_or(i64::MAX))
}
