//! Values to the wire and rows from it.

use std::time::Duration;

use ports::{
    ClaimId, ClaimRecord, ClaimedTask, Fence, Task, TaskId, Timestamp, Totals, WorkerEntry,
    WorkerId,
};
use sea_orm::prelude::{DateTime, DateTimeUtc};
use sea_orm::sea_query::ArrayType;
use sea_orm::{DbErr, QueryResult, Value};
use uuid::Uuid;

use crate::sql::row::{column, count, payload, priority, result_of, status};

/// AD 1 and AD 200000: within what both PostgreSQL and the driver can hold, with room for a delay or a grace.
const EARLIEST_MICROS: i64 = -62_135_596_800_000_000;
const LATEST_MICROS: i64 = 6_248_000_000_000_000_000;

/// Sixty thousand years: added to any present, it stays within what PostgreSQL can hold.
const LONGEST_DELAY_MICROS: i64 = 1_893_456_000_000_000_000;

/// A thousand years: taken from any time above, it stays within what PostgreSQL can hold.
const LONGEST_GRACE_MICROS: i64 = 31_557_600_000_000_000;

/// Makes array parameters.
pub(super) struct Array;

impl Array {
    fn of<T: Into<Value>>(kind: ArrayType, items: impl IntoIterator<Item = T>) -> Value {
        let items = items.into_iter().map(Into::into).collect();
        Value::Array(kind, Some(Box::new(items)))
    }

    pub(super) fn texts<'a>(items: impl IntoIterator<Item = &'a str>) -> Value {
        Self::of(ArrayType::String, items)
    }

    pub(super) fn ints(items: impl IntoIterator<Item = i32>) -> Value {
        Self::of(ArrayType::Int, items)
    }

    pub(super) fn bigints(items: impl IntoIterator<Item = i64>) -> Value {
        Self::of(ArrayType::BigInt, items)
    }

    pub(super) fn bools(items: impl IntoIterator<Item = bool>) -> Value {
        Self::of(ArrayType::Bool, items)
    }

    /// A missing time becomes one before AD 1, which no given time is.
    pub(super) fn optional_stamps(items: impl IntoIterator<Item = Option<Timestamp>>) -> Value {
        let items = items
            .into_iter()
            .map(|time| time.map_or_else(before_all, date_time));
        Self::of(ArrayType::ChronoDateTime, items)
    }
}

pub(super) fn uuids(items: impl IntoIterator<Item = Uuid>) -> Value {
    Array::of(ArrayType::Uuid, items)
}

/// A bound for `not_before`: one earlier than every stored time finds nothing.
pub(super) fn bound(time: Timestamp) -> Value {
    if time.as_micros() < EARLIEST_MICROS {
        Value::from(before_all())
    } else {
        Value::from(date_time(time))
    }
}

pub(super) fn optional_stamp(time: Option<Timestamp>) -> Value {
    Value::from(time.map(date_time))
}

/// Times that PostgreSQL cannot hold become the nearest that it can.
fn date_time(time: Timestamp) -> DateTime {
    let micros = time.as_micros().clamp(EARLIEST_MICROS, LATEST_MICROS);
    DateTimeUtc::from_timestamp_micros(micros)
        .unwrap_or_default()
        .naive_utc()
}

/// Earlier than every time that [`date_time`] gives.
fn before_all() -> DateTime {
    DateTimeUtc::from_timestamp_micros(EARLIEST_MICROS - 1)
        .unwrap_or_default()
        .naive_utc()
}

pub(super) fn delay_micros(delay: Duration) -> i64 {
    i64::try_from(delay.as_micros())
        .unwrap_or(i64::MAX)
        .min(LONGEST_DELAY_MICROS)
}

pub(super) fn grace_micros(grace: Duration) -> i64 {
    delay_micros(grace).min(LONGEST_GRACE_MICROS)
}

pub(super) fn timestamp(row: &QueryResult, index: usize) -> Result<Timestamp, DbErr> {
    let time: DateTime = column(row, index)?;
    Ok(Timestamp::from_micros(time.and_utc().timestamp_micros()))
}

/// A row of [`GET`](super::statements::GET).
pub(super) fn task(row: &QueryResult) -> Result<Task, DbErr> {
    let status = status(row, 3)?;
    Ok(Task {
        id: TaskId(column(row, 0)?),
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

/// Nine columns, from this one on, of a claimed task.
pub(super) fn claimed_task(row: &QueryResult, start: usize) -> Result<ClaimedTask, DbErr> {
    Ok(ClaimedTask {
        id: TaskId(column(row, start)?),
        payload: payload(row, start + 1)?,
        priority: priority(row, start + 2)?,
        attempts: count(row, start + 3)?,
        max_attempts: count(row, start + 4)?,
        fence: Fence(column(row, start + 5)?),
        created_at: timestamp(row, start + 6)?,
        waiting_since: timestamp(row, start + 7)?,
        claimed_at: timestamp(row, start + 8)?,
    })
}

/// A row of [`CLAIMS_OF`](super::statements::CLAIMS_OF).
pub(super) fn claim_record(row: &QueryResult) -> Result<ClaimRecord, DbErr> {
    let ids: Vec<Uuid> = column(row, 2)?;
    let fences: Vec<i64> = column(row, 3)?;
    Ok(ClaimRecord {
        id: ClaimId(column(row, 0)?),
        worker: WorkerId(column(row, 1)?),
        tasks: ids
            .into_iter()
            .map(TaskId)
            .zip(fences.into_iter().map(Fence))
            .collect(),
        claimed_at: timestamp(row, 4)?,
    })
}

/// A row of [`WORKERS`](super::statements::WORKERS).
pub(super) fn worker_entry(row: &QueryResult) -> Result<WorkerEntry, DbErr> {
    let position: Option<DateTime> = column(row, 3)?;
    Ok(WorkerEntry {
        id: WorkerId(column(row, 0)?),
        name: column(row, 1)?,
        beat: column::<i64>(row, 2)?.cast_unsigned(),
        position: position.map(|time| Timestamp::from_micros(time.and_utc().timestamp_micros())),
        dead: column(row, 4)?,
    })
}

/// A row of [`TOTALS`](super::statements::TOTALS).
pub(super) fn totals(row: &QueryResult) -> Result<Totals, DbErr> {
    let elapsed: String = column(row, 1)?;
    Ok(Totals {
        done: column::<i64>(row, 0)?.cast_unsigned(),
        elapsed_micros: elapsed
            .parse()
            .map_err(|_| DbErr::Type(format!("{elapsed:?} is no whole number")))?,
    })
}
