//! What the harness itself asks PostgreSQL, past all doors.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use sea_orm::{
    ConnectOptions, ConnectionTrait, Database as Pool, DatabaseConnection, DbBackend, QueryResult,
    Statement, TransactionTrait, TryGetable,
};
use uuid::Uuid;

use crate::failure::Failure;
use crate::script::at_once;

/// A row of `tasks`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) payload: String,
    pub(crate) status: String,
    pub(crate) result: Option<String>,
    pub(crate) error: Option<String>,
    pub(crate) fence: i64,
    pub(crate) attempts: u32,
    pub(crate) rescues: u32,
    pub(crate) created_at: i64,
    pub(crate) updated_at: i64,
    /// `updated_at` as the contract writes it.
    pub(crate) processed_at: String,
}

/// What waits and what is in hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backlog {
    pub(crate) queued: i64,
    pub(crate) claims: i64,
    /// How long the oldest task whose time has come has waited, in microseconds.
    pub(crate) age: i64,
}

pub(crate) struct Database(DatabaseConnection);

impl Database {
    pub(crate) async fn connect(port: u16) -> Result<Self, Failure> {
        let mut options = ConnectOptions::new(format!(
            "postgres://task:task@127.0.0.1:{port}/taskdb?application_name=chaos"
        ));
        options
            .max_connections(2)
            .min_connections(0)
            .acquire_timeout(Duration::from_secs(5))
            .connect_timeout(Duration::from_secs(5))
            .sqlx_logging(false);
        Ok(Self(Pool::connect(options).await?))
    }

    pub(crate) async fn close(self) -> Result<(), Failure> {
        Ok(self.0.close().await?)
    }

    pub(crate) async fn query(&self, sql: &str) -> Result<Vec<QueryResult>, Failure> {
        let statement = Statement::from_string(DbBackend::Postgres, sql);
        Ok(self.0.query_all_raw(statement).await?)
    }

    /// The first column of the only row.
    pub(crate) async fn one<T: TryGetable>(&self, sql: &str) -> Result<T, Failure> {
        let rows = self.query(sql).await?;
        let row = rows.first().ok_or("the question has no answer")?;
        Ok(row.try_get_by_index(0)?)
    }

    pub(crate) async fn execute(&self, sql: &str) -> Result<u64, Failure> {
        let statement = Statement::from_string(DbBackend::Postgres, sql);
        Ok(self.0.execute_raw(statement).await?.rows_affected())
    }

    /// Stores tasks with these numbers, which succeed at once, and their rows in the queue; the time is an expression of SQL.
    pub(crate) async fn store(
        &self,
        numbers: Range<u64>,
        not_before: &str,
        messaged: bool,
    ) -> Result<(), Failure> {
        let (first, end, payload) = (numbers.start, numbers.end, at_once("' || n || '"));
        self.execute(&format!(
            "WITH stored AS (
                INSERT INTO tasks (id, payload, priority)
                SELECT gen_random_uuid(), '{payload}', 1 FROM generate_series({first}::bigint, {end}::bigint - 1) AS n
                RETURNING id
            )
            INSERT INTO queue (task_id, not_before, messaged, priority)
            SELECT id, {not_before}, {messaged}, 1 FROM stored"
        ))
        .await?;
        Ok(())
    }

    /// All or none.
    pub(crate) async fn execute_all(&self, statements: Vec<String>) -> Result<(), Failure> {
        let transaction = self.0.begin().await?;
        for sql in statements {
            let statement = Statement::from_string(DbBackend::Postgres, sql);
            transaction.execute_raw(statement).await?;
        }
        Ok(transaction.commit().await?)
    }

    pub(crate) async fn backlog(&self) -> Result<Backlog, Failure> {
        let rows = self
            .query(
                "SELECT count(*), (SELECT count(*) FROM claims),
                    coalesce((extract(epoch FROM LOCALTIMESTAMP - min(not_before)) * 1000000)::bigint, 0)
                FROM queue",
            )
            .await?;
        let row = rows.first().ok_or("the question has no answer")?;
        Ok(Backlog {
            queued: row.try_get_by_index(0)?,
            claims: row.try_get_by_index(1)?,
            age: row.try_get_by_index::<i64>(2)?.max(0),
        })
    }

    /// Every task.
    pub(crate) async fn rows(&self) -> Result<BTreeMap<Uuid, Row>, Failure> {
        const PAGE: usize = 20_000;
        let mut all = BTreeMap::new();
        let mut last = Uuid::nil();
        loop {
            let rows = self
                .query(&format!(
                    "SELECT id, payload, status::text, result, error, fence, attempts, rescues,
                        (extract(epoch FROM created_at) * 1000000)::bigint,
                        (extract(epoch FROM updated_at) * 1000000)::bigint,
                        to_char(updated_at, 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')
                    FROM tasks WHERE id > '{last}' ORDER BY id LIMIT {PAGE}"
                ))
                .await?;
            for row in &rows {
                last = row.try_get_by_index(0)?;
                let count = |index| -> Result<u32, Failure> {
                    Ok(u32::try_from(row.try_get_by_index::<i32>(index)?)?)
                };
                all.insert(
                    last,
                    Row {
                        payload: row.try_get_by_index(1)?,
                        status: row.try_get_by_index(2)?,
                        result: row.try_get_by_index(3)?,
                        error: row.try_get_by_index(4)?,
                        fence: row.try_get_by_index(5)?,
                        attempts: count(6)?,
                        rescues: count(7)?,
                        created_at: row.try_get_by_index(8)?,
                        updated_at: row.try_get_by_index(9)?,
                        processed_at: row.try_get_by_index(10)?,
                    },
                );
            }
            if rows.len() < PAGE {
                return Ok(all);
            }
        }
    }
}
