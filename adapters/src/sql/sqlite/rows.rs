//! Values to SQLite and rows from it.

use std::fmt::Display;

use ports::{
    ClaimId, ClaimRecord, ClaimedTask, Fence, Task, TaskId, Timestamp, Totals, WorkerEntry,
    WorkerId,
};
use sea_orm::{DbErr, QueryResult, Value};
use uuid::Uuid;

use crate::sql::row::{column, count, payload, priority, result_of, status};

/// An id as the tables have it: hyphenated, lower case.
pub(super) fn text(id: impl Display) -> Value {
    Value::from(id.to_string())
}

/// The ids as a JSON array.
pub(super) fn id_list(ids: impl IntoIterator<Item = TaskId>) -> Value {
    let ids = ids.into_iter().map(|id| id.to_string().into()).collect();
    Value::from(serde_json::Value::Array(ids).to_string())
}

/// The ids of a JSON array.
pub(super) fn ids_of(list: &str) -> Result<Vec<TaskId>, DbErr> {
    let ids: Vec<String> = serde_json::from_str(list)
        .map_err(|_| DbErr::Type("a list of ids that cannot be read".to_owned()))?;
    ids.iter().map(|id| parse(id).map(TaskId)).collect()
}

fn uuid(row: &QueryResult, index: usize) -> Result<Uuid, DbErr> {
    let text: String = column(row, index)?;
    parse(&text)
}

pub(super) fn parse(text: &str) -> Result<Uuid, DbErr> {
    Uuid::parse_str(text).map_err(|_| {
        // No more of it than a UUID has: it may be a payload that stands in the wrong column.
        let beginning: String = text.chars().take(36).collect();
        DbErr::Type(format!("{beginning:?} is no UUID"))
    })
}

pub(super) fn task_id(row: &QueryResult, index: usize) -> Result<TaskId, DbErr> {
    uuid(row, index).map(TaskId)
}

pub(super) fn timestamp(row: &QueryResult, index: usize) -> Result<Timestamp, DbErr> {
    column(row, index).map(Timestamp::from_micros)
}

/// A row of [`GET`](super::statements::GET).
pub(super) fn task(row: &QueryResult) -> Result<Task, DbErr> {
    let status = status(row, 3)?;
    Ok(Task {
        id: task_id(row, 0)?,
        payload: payload(row, 1)?,
        priority: priority(row, 2)?,
        status,
        result: result_of(status, column(row, 4)?),
        error: column(row, 5)?,
        attempts: count(row, 6)?,
        max_attempts: count(row, 7)?,
        rescues: count(row, 8)?,
        fence: Fence(column(row, 9)?),
        created_at: timestamp(row, 10)?,
        updated_at: timestamp(row, 11)?,
    })
}

/// A queue row: the task and its `not_before`.
pub(super) fn waiting(row: &QueryResult) -> Result<(TaskId, Timestamp), DbErr> {
    Ok((task_id(row, 0)?, timestamp(row, 1)?))
}

/// A pending task as it is once claimed.
pub(super) fn claimed(task: Task, waiting_since: Timestamp, now: Timestamp) -> ClaimedTask {
    ClaimedTask {
        fence: task.fence.next(),
        waiting_since,
        ..held(task, now)
    }
}

/// A task that a claim made at that time holds.
pub(super) fn held(task: Task, claimed_at: Timestamp) -> ClaimedTask {
    ClaimedTask {
        id: task.id,
        payload: task.payload,
        priority: task.priority,
        attempts: task.attempts,
        max_attempts: task.max_attempts,
        fence: task.fence,
        created_at: task.created_at,
        waiting_since: task.created_at,
        claimed_at,
    }
}

/// A row of [`CLAIM`](super::statements::CLAIM).
pub(super) fn claim_record(row: &QueryResult) -> Result<ClaimRecord, DbErr> {
    let tasks: String = column(row, 2)?;
    let tasks: Vec<(String, i64)> = serde_json::from_str(&tasks).map_err(|error| {
        // No more than the place: the text may be anything, of any length.
        let (line, column) = (error.line(), error.column());
        DbErr::Type(format!(
            "a claim that cannot be read at line {line} column {column}"
        ))
    })?;
    Ok(ClaimRecord {
        id: ClaimId(uuid(row, 0)?),
        worker: WorkerId(uuid(row, 1)?),
        tasks: tasks
            .into_iter()
            .map(|(id, fence)| Ok((TaskId(parse(&id)?), Fence(fence))))
            .collect::<Result<_, DbErr>>()?,
        claimed_at: timestamp(row, 3)?,
    })
}

/// A row of [`WORKERS`](super::statements::WORKERS).
pub(super) fn worker_entry(row: &QueryResult) -> Result<WorkerEntry, DbErr> {
    let position: Option<i64> = column(row, 3)?;
    Ok(WorkerEntry {
        id: WorkerId(uuid(row, 0)?),
        name: column(row, 1)?,
        beat: column::<i64>(row, 2)?.cast_unsigned(),
        position: position.map(Timestamp::from_micros),
        dead: column::<i64>(row, 4)? != 0,
    })
}

/// A row of [`TOTALS`](super::statements::TOTALS).
pub(super) fn totals(row: &QueryResult) -> Result<Totals, DbErr> {
    Ok(Totals {
        done: column::<i64>(row, 0)?.cast_unsigned(),
        elapsed_micros: column::<i64>(row, 1)?.into(),
    })
}

#[cfg(test)]
mod fuzz;
