//! Looking at the queue and the claims. What is only read takes no turn with the writer.

use std::time::Duration;

use ports::survey::COUNTED;
use ports::{StoreError, Survey, Timestamp};
use sea_orm::Value;

use super::{SqliteStore, micros, now, rows, statements};
use crate::sql::row::{column, read};

impl SqliteStore {
    pub(in crate::sql) async fn survey(&self) -> Result<Survey, StoreError> {
        let now = now();
        let counted = Value::from(i64::try_from(COUNTED).unwrap_or(i64::MAX));
        let found = rows(&self.readers, statements::SURVEY, [micros(now), counted]).await?;
        let surveys = read(&found, |row| {
            let number = |index| column::<i64>(row, index).map(i64::unsigned_abs);
            let age = |index| {
                let since: Option<i64> = column(row, index)?;
                Ok::<_, sea_orm::DbErr>(since.map(|since| {
                    let micros = now.micros_since(Timestamp::from_micros(since));
                    Duration::from_micros(micros.max(0).unsigned_abs())
                }))
            };
            let due = number(1)?;
            Ok(Survey {
                waiting: number(0)?.max(due),
                due,
                oldest_due: age(2)?,
                claims: number(3)?,
                oldest_claim: age(4)?,
                oldest_transaction: None,
            })
        })?;
        Ok(surveys.first().copied().unwrap_or_default())
    }
}
