//! Looking at the queue and the claims.

use std::time::Duration;

use ports::survey::COUNTED;
use ports::{StoreError, Survey};
use sea_orm::{DbErr, QueryResult, Value};

use super::{PostgresStore, statements};
use crate::sql::failure::store_error;
use crate::sql::row::{column, read};

impl PostgresStore {
    pub(in crate::sql) async fn survey(&self) -> Result<Survey, StoreError> {
        let counted = Value::from(i64::try_from(COUNTED).unwrap_or(i64::MAX));
        let rows = self
            .pool
            .rows(statements::SURVEY, vec![counted])
            .await
            .map_err(store_error)?;
        let surveys = read(&rows, survey)?;
        Ok(surveys.first().copied().unwrap_or_default())
    }
}

fn survey(row: &QueryResult) -> Result<Survey, DbErr> {
    let number = |index| column::<i64>(row, index).map(i64::unsigned_abs);
    let age = |index| {
        let micros: Option<i64> = column(row, index)?;
        Ok::<_, DbErr>(micros.map(|micros| Duration::from_micros(micros.max(0).unsigned_abs())))
    };
    // As the server's own statistics have it: what was inserted and deleted since they began.
    let estimate = number(2)?;
    let beyond = |counted: u64| {
        if counted < COUNTED {
            counted
        } else {
            counted.max(estimate)
        }
    };
    let due = beyond(number(1)?);
    Ok(Survey {
        waiting: beyond(number(0)?).max(due),
        due,
        oldest_due: age(3)?,
        claims: number(4)?,
        oldest_claim: age(5)?,
        oldest_transaction: age(6)?,
    })
}
