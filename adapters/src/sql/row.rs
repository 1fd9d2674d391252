//! Reading rows: what both databases keep alike.

use ports::{Fence, Payload, Priority, StoreError, TaskStatus, Whereabouts};
use sea_orm::{DbErr, QueryResult, TryGetError, TryGetable};

use super::failure::store_error;

/// Reads every row.
pub(super) fn read<T>(
    rows: &[QueryResult],
    one: impl FnMut(&QueryResult) -> Result<T, DbErr>,
) -> Result<Vec<T>, StoreError> {
    rows.iter()
        .map(one)
        .collect::<Result<_, _>>()
        .map_err(store_error)
}

pub(super) fn column<T: TryGetable>(row: &QueryResult, index: usize) -> Result<T, DbErr> {
    T::try_get_by_index(row, index).map_err(|error| match error {
        TryGetError::DbErr(error) => error,
        TryGetError::Null(name) => DbErr::Type(format!("column {name} is null")),
    })
}

pub(super) fn status(row: &QueryResult, index: usize) -> Result<TaskStatus, DbErr> {
    let name: String = column(row, index)?;
    TaskStatus::from_name(&name).ok_or_else(|| {
        let beginning: String = name.chars().take(36).collect();
        DbErr::Type(format!("unknown status {beginning:?}"))
    })
}

/// A status and, in the next column, a fence.
pub(super) fn whereabouts(row: &QueryResult, index: usize) -> Result<Whereabouts, DbErr> {
    Ok(Whereabouts {
        status: status(row, index)?,
        fence: Fence(column(row, index + 1)?),
    })
}

pub(super) fn payload(row: &QueryResult, index: usize) -> Result<Payload, DbErr> {
    Payload::new(column::<String>(row, index)?).map_err(|error| DbErr::Type(error.to_string()))
}

/// Any integer that another program wrote becomes the nearest priority.
pub(super) fn priority(row: &QueryResult, index: usize) -> Result<Priority, DbErr> {
    Ok(Priority::clamped(column::<i32>(row, index)?.into()))
}

pub(super) fn count(row: &QueryResult, index: usize) -> Result<u32, DbErr> {
    let value: i32 = column(row, index)?;
    Ok(u32::try_from(value.max(0)).unwrap_or_default())
}

/// The result that the port promises: only done tasks have one, and every done task has one. Rows that another program
/// wrote may differ.
pub(super) fn result_of(status: TaskStatus, stored: Option<String>) -> Option<String> {
    (status == TaskStatus::Done).then(|| stored.unwrap_or_default())
}
