//! What the bench itself asks PostgreSQL.

use std::time::Duration;

use sea_orm::{
    ConnectOptions, ConnectionTrait, Database as Pool, DatabaseConnection, DbBackend, QueryResult,
    Statement, TryGetable,
};

use crate::failure::Failure;

/// Seeding millions of rows is one statement.
const STATEMENT_LIMIT: Duration = Duration::from_secs(3_600);

pub(crate) struct Database(DatabaseConnection);

/// How a program is told where it is.
pub(crate) fn url(port: u16, name: &str) -> String {
    format!("postgres://task:task@127.0.0.1:{port}/{name}")
}

/// A setting as it may be shown.
pub(crate) fn without_password(setting: &str) -> String {
    setting.replace("task:task@", "task@")
}

/// The id of the seeded row `n`: those of whole tables are in the order of time, as version 7 has them.
const SEEDED: &str =
    "(lpad(to_hex(1600000000000 + n), 12, '0') || '70008000' || lpad(to_hex(n), 12, '0'))::uuid";

impl Database {
    pub(crate) async fn connect(port: u16, name: &str) -> Result<Self, Failure> {
        let mut options = ConnectOptions::new(url(port, name) + "?application_name=bars");
        options
            .max_connections(2)
            .min_connections(0)
            .acquire_timeout(Duration::from_secs(5))
            .connect_timeout(Duration::from_secs(5))
            .statement_timeout(STATEMENT_LIMIT)
            .sqlx_logging(false);
        Ok(Self(Pool::connect(options).await?))
    }

    pub(crate) async fn close(self) -> Result<(), Failure> {
        Ok(self.0.close().await?)
    }

    async fn query(&self, sql: &str) -> Result<Vec<QueryResult>, Failure> {
        let statement = Statement::from_string(DbBackend::Postgres, sql);
        Ok(self.0.query_all_raw(statement).await?)
    }

    /// The first column of the only row.
    pub(crate) async fn one<T: TryGetable>(&self, sql: &str) -> Result<T, Failure> {
        let rows = self.query(sql).await?;
        let row = rows.first().ok_or("the question has no answer")?;
        Ok(row.try_get_by_index(0)?)
    }

    pub(crate) async fn execute(&self, sql: &str) -> Result<(), Failure> {
        self.0.execute_unprepared(sql).await?;
        Ok(())
    }

    /// How many tasks have become done, by the books.
    pub(crate) async fn done(&self) -> Result<u64, Failure> {
        let done: i64 = self
            .one("SELECT coalesce(sum(done), 0)::bigint FROM totals")
            .await?;
        Ok(u64::try_from(done)?)
    }

    /// Whether nothing waits, and nothing is in hand or still to be announced.
    pub(crate) async fn is_at_rest(&self) -> Result<bool, Failure> {
        self.one("SELECT NOT EXISTS (SELECT FROM claims) AND NOT EXISTS (SELECT FROM queue)")
            .await
    }

    /// How many bytes of log have been written.
    pub(crate) async fn wal_bytes(&self) -> Result<i64, Failure> {
        self.one("SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint")
            .await
    }

    /// Writes down what is in memory, so that every round begins alike.
    pub(crate) async fn checkpoint(&self) -> Result<(), Failure> {
        self.execute("CHECKPOINT").await
    }

    /// Rows as they stand in the table long after: done, counted, and in the order of their ids.
    pub(crate) async fn seed(&self, rows: u64) -> Result<(), Failure> {
        self.execute(&format!(
            "INSERT INTO tasks (id, payload, priority, status, result, created_at, updated_at)
            SELECT {SEEDED},
                repeat('x', 100), 1, 'done', repeat('x', 100) || ' (len=100)',
                timestamp '2024-01-01' + n * interval '1 ms', timestamp '2024-01-01' + n * interval '1 ms'
            FROM generate_series(1, {rows}) AS n;
            UPDATE totals SET done = done + {rows} WHERE shard = (SELECT min(shard) FROM totals)"
        ))
        .await?;
        self.execute("VACUUM ANALYZE tasks").await
    }

    /// Paths of so many of these seeded rows, from all over the table, in no order.
    pub(crate) async fn seeded_paths(&self, rows: u64, count: u64) -> Result<String, Failure> {
        let step = (rows / count).max(1);
        self.one(&format!(
            "SELECT string_agg('/tasks/' || {SEEDED}, E'\\n' ORDER BY random())
            FROM generate_series(1, {rows}, {step}) AS n"
        ))
        .await
    }

    /// How many updates of tasks there were, and how many of them stayed on their page. A session tells when it ends.
    pub(crate) async fn updates(&self) -> Result<(i64, i64), Failure> {
        let of = |column: &str| {
            format!("SELECT {column} FROM pg_stat_user_tables WHERE relname = 'tasks'")
        };
        let all = self.one(&of("n_tup_upd")).await?;
        Ok((all, self.one(&of("n_tup_hot_upd")).await?))
    }

    /// What was set by whoever laid the server out, and what its speed depends on most.
    pub(crate) async fn settings(&self) -> Result<String, Failure> {
        self.one(
            "SELECT json_object_agg(name, current_setting(name) ORDER BY name)::text FROM pg_settings
            WHERE (source IN ('configuration file', 'command line') AND name !~ 'director|_file|^lc_|^port$')
            OR name IN ('autovacuum', 'checkpoint_timeout', 'effective_cache_size', 'fsync', 'full_page_writes', 'jit',
                'max_wal_size', 'shared_buffers', 'synchronous_commit', 'wal_compression', 'wal_level', 'wal_sync_method', 'work_mem')",
        )
        .await
    }
}
