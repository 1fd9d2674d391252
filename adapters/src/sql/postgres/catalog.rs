//! Finding tasks, and where one is.

use std::time::Instant;

use ports::{
    Inspection, Listed, Listing, Place, StoreError, TaskId, TaskStatus, Timestamp, WorkerId,
};
use sea_orm::prelude::DateTime;
use sea_orm::{DbErr, QueryResult, Value};
use uuid::Uuid;

use super::rows::{bound, task, timestamp};
use super::{PostgresStore, statements};
use crate::sql::batch::page_of;
use crate::sql::failure::store_error;
use crate::sql::row::{column, read};

impl PostgresStore {
    pub(in crate::sql) async fn list(&self, listing: Listing) -> Result<Listed, StoreError> {
        let Some(largest) = largest_below(listing.below) else {
            return Ok(Listed::default());
        };
        let statement = match listing.status {
            None | Some(TaskStatus::Done) => statements::LIST,
            Some(TaskStatus::Pending) => statements::LIST_QUEUED,
            Some(TaskStatus::Processing) => statements::LIST_CLAIMED,
            Some(TaskStatus::Failed | TaskStatus::Cancelled) => statements::LIST_STOPPED,
        };
        let (from, before) = (listing.created_from, listing.created_before);
        let values = vec![
            Value::from(largest),
            Value::from(number(listing.walk.max(1))),
            Value::from(listing.status.map(|status| status.as_str().to_owned())),
            Value::from(listing.priority.map(|priority| i32::from(priority.get()))),
            bound(from.unwrap_or(Timestamp::from_micros(i64::MIN))),
            bound(before.unwrap_or(Timestamp::from_micros(i64::MAX))),
            Value::from(number(listing.limit.max(1))),
            Value::from(number(listing.bytes)),
        ];
        let rows = self
            .pool
            .rows(statement, values)
            .await
            .map_err(store_error)?;
        let mut tasks = Vec::new();
        let (mut walked, mut matching, mut last) = (0_i64, 0_i64, None);
        read(&rows, |row| {
            match column::<Option<i64>>(row, 12)? {
                None => tasks.push(task(row)?),
                Some(count) => {
                    walked = count;
                    matching = column(row, 13)?;
                    last = column::<Option<Uuid>>(row, 0)?.map(TaskId);
                }
            }
            Ok::<(), DbErr>(())
        })?;
        tasks.sort_unstable_by_key(|task| std::cmp::Reverse(task.id));
        let matching = usize::try_from(matching).unwrap_or(usize::MAX);
        let walked_all = walked >= number(listing.walk.max(1));
        Ok(page_of(
            &listing,
            tasks,
            matching,
            last.filter(|_| walked_all),
        ))
    }

    pub(in crate::sql) async fn inspect(
        &self,
        id: TaskId,
        count_up_to: usize,
    ) -> Result<Option<Inspection>, StoreError> {
        let start = self.walk.start(Instant::now());
        let values = vec![
            Value::from(id.0),
            Value::from(number(count_up_to)),
            bound(start.unmessaged),
            bound(start.messaged),
        ];
        let rows = self
            .pool
            .rows(statements::INSPECT, values)
            .await
            .map_err(store_error)?;
        let mut found = read(&rows, |row| inspection(row, count_up_to))?;
        Ok(found.pop())
    }
}

/// A row of [`INSPECT`](super::statements::INSPECT).
fn inspection(row: &QueryResult, count_up_to: usize) -> Result<Inspection, DbErr> {
    let not_before: Option<DateTime> = column(row, 12)?;
    let worker: Option<Uuid> = column(row, 16)?;
    let place = match (not_before, worker) {
        (Some(_), _) => {
            let ahead: i64 = column::<i64>(row, 14)?.saturating_add(column(row, 15)?);
            Place::Queued {
                not_before: timestamp(row, 12)?,
                messaged: column(row, 13)?,
                ahead: usize::try_from(ahead).unwrap_or_default().min(count_up_to),
            }
        }
        (None, Some(worker)) => Place::Claimed {
            worker: WorkerId(worker),
            worker_name: column(row, 17)?,
            claimed_at: timestamp(row, 18)?,
        },
        (None, None) => Place::Nowhere,
    };
    Ok(Inspection {
        task: task(row)?,
        place,
        now: timestamp(row, 19)?,
    })
}

/// The largest id that a walk below this one may find; `None` when there is none.
fn largest_below(below: Option<TaskId>) -> Option<Uuid> {
    match below {
        None => Some(Uuid::max()),
        Some(below) => below.0.as_u128().checked_sub(1).map(Uuid::from_u128),
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
