//! Requests under keys.

use std::collections::HashMap;
use std::time::Duration;

use ports::{KeptRequest, KeyedRequest, NewTask, StoreError, TaskId};
use sea_orm::{DbErr, QueryResult, Value};
use serde_json::json;

use super::rows::{parse, timestamp};
use super::{SqliteStore, commit, execute, json_list, micros, now, rows, statements, store};
use crate::sql::batch::{first_of_each, kept_in_order, read_fingerprint};
use crate::sql::row::{column, read};

impl SqliteStore {
    pub(in crate::sql) async fn insert_keyed(
        &self,
        requests: Vec<KeyedRequest>,
    ) -> Result<Vec<KeptRequest>, StoreError> {
        let distinct = first_of_each(&requests, |request| request.key.as_str());
        let transaction = self.begin().await?;
        let now = now();
        let keys = distinct.iter().map(|request| json!(request.key.as_str()));
        let found = rows(&transaction, statements::KEPT, [json_list(keys.collect())]).await?;
        let mut kept: HashMap<String, KeptRequest> =
            read(&found, kept_request)?.into_iter().collect();
        let fresh: Vec<&KeyedRequest> = distinct
            .into_iter()
            .filter(|request| !kept.contains_key(request.key.as_str()))
            .collect();
        let tasks: Vec<&NewTask> = fresh.iter().flat_map(|request| &request.tasks).collect();
        if !tasks.is_empty() {
            store(&transaction, &tasks, now).await?;
        }
        let items = fresh.iter().map(|request| {
            let ids: Vec<String> = request
                .tasks
                .iter()
                .map(|task| task.id.to_string())
                .collect();
            json!([request.key.as_str(), request.fingerprint.to_string(), ids])
        });
        let items = json_list(items.collect());
        execute(&transaction, statements::KEEP, [items, micros(now)]).await?;
        commit(transaction).await?;
        for request in fresh {
            let stored = KeptRequest {
                fingerprint: request.fingerprint,
                tasks: request.tasks.iter().map(|task| task.id).collect(),
                created_at: now,
            };
            kept.insert(request.key.as_str().to_owned(), stored);
        }
        kept_in_order(&requests, &kept)
    }

    pub(in crate::sql) async fn prune_keys(
        &self,
        age: Duration,
        limit: usize,
    ) -> Result<usize, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let values = [micros(now().before(age)), Value::from(limit)];
        let pruned = self.write(statements::PRUNE_KEYS, values).await?;
        Ok(usize::try_from(pruned).unwrap_or(usize::MAX))
    }
}

/// A row of [`KEPT`](super::statements::KEPT).
fn kept_request(row: &QueryResult) -> Result<(String, KeptRequest), DbErr> {
    let ids: String = column(row, 2)?;
    let ids: Vec<String> = serde_json::from_str(&ids)
        .map_err(|error| DbErr::Type(format!("ids that cannot be read: {error}")))?;
    let kept = KeptRequest {
        fingerprint: read_fingerprint(row, 1)?,
        tasks: ids
            .iter()
            .map(|id| parse(id).map(TaskId))
            .collect::<Result<_, DbErr>>()?,
        created_at: timestamp(row, 3)?,
    };
    Ok((column(row, 0)?, kept))
}
