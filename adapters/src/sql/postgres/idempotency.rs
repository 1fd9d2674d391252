//! Requests under keys.

use std::collections::HashMap;
use std::time::Duration;

use ports::{KeptRequest, KeyedRequest, NewTask, StoreError, TaskId};
use sea_orm::{DbErr, QueryResult, Value};
use uuid::Uuid;

use super::rows::{Array, grace_micros, timestamp, uuids};
use super::{PostgresStore, statements};
use crate::sql::batch::{first_of_each, kept_in_order, read_fingerprint};
use crate::sql::failure::store_error;
use crate::sql::row::{column, read};

impl PostgresStore {
    pub(in crate::sql) async fn insert_keyed(
        &self,
        requests: Vec<KeyedRequest>,
    ) -> Result<Vec<KeptRequest>, StoreError> {
        // In the order of their keys, so that two statements that meet on the same keys wait for each other in one order.
        let fresh = first_of_each(&requests, |request| request.key.as_str());
        let ids: Vec<String> = fresh
            .iter()
            .map(|request| {
                let ids = request.tasks.iter().map(|task| task.id.to_string());
                format!("{{{}}}", ids.collect::<Vec<_>>().join(","))
            })
            .collect();
        let fingerprints: Vec<String> = fresh
            .iter()
            .map(|request| request.fingerprint.to_string())
            .collect();
        let tasks: Vec<(i64, &NewTask)> = (1..)
            .zip(&fresh)
            .flat_map(|(number, request)| request.tasks.iter().map(move |task| (number, task)))
            .collect();
        let given = || tasks.iter().map(|(_, task)| *task);
        let values = vec![
            Array::texts(fresh.iter().map(|request| request.key.as_str())),
            Array::texts(fingerprints.iter().map(String::as_str)),
            Array::texts(ids.iter().map(String::as_str)),
            Array::bigints(tasks.iter().map(|(number, _)| *number)),
            uuids(given().map(|task| task.id.0)),
            Array::texts(given().map(|task| task.payload.as_str())),
            Array::ints(given().map(|task| i32::from(task.priority.get()))),
            Array::ints(given().map(|task| i32::try_from(task.max_attempts).unwrap_or(i32::MAX))),
            Array::optional_stamps(given().map(|task| task.run_at)),
            Array::bools(given().map(|task| task.messaged)),
        ];
        let rows = self
            .pool
            .rows(statements::INSERT_KEYED, values)
            .await
            .map_err(store_error)?;
        let mut kept: HashMap<String, KeptRequest> =
            read(&rows, kept_request)?.into_iter().collect();
        if given().any(|task| task.run_at.is_some()) {
            // It may lie in the past, which a walk may have passed.
            self.forget_walk();
        }
        // In a statement of its own, which sees what another one stored while this waited for it.
        let others: Vec<&str> = fresh
            .iter()
            .map(|request| request.key.as_str())
            .filter(|key| !kept.contains_key(*key))
            .collect();
        if !others.is_empty() {
            let rows = self
                .pool
                .rows(statements::KEPT, vec![Array::texts(others)])
                .await
                .map_err(store_error)?;
            kept.extend(read(&rows, kept_request)?);
        }
        kept_in_order(&requests, &kept)
    }

    pub(in crate::sql) async fn prune_keys(
        &self,
        age: Duration,
        limit: usize,
    ) -> Result<usize, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let values = vec![Value::from(grace_micros(age)), Value::from(limit)];
        let pruned = self
            .pool
            .execute(statements::PRUNE_KEYS, values)
            .await
            .map_err(store_error)?;
        Ok(usize::try_from(pruned).unwrap_or(usize::MAX))
    }
}

/// A row of [`KEPT`](super::statements::KEPT).
fn kept_request(row: &QueryResult) -> Result<(String, KeptRequest), DbErr> {
    let ids: Vec<Uuid> = column(row, 2)?;
    let kept = KeptRequest {
        fingerprint: read_fingerprint(row, 1)?,
        tasks: ids.into_iter().map(TaskId).collect(),
        created_at: timestamp(row, 3)?,
    };
    Ok((column(row, 0)?, kept))
}
