//! SQLite: times are microseconds since 1970, ids are hyphenated text.

use sea_orm_migration::sea_orm::{ConnectionTrait, DbErr};

/// How the totals are spread is PostgreSQL's concern: here one writer keeps one row.
const UP: &str = "
CREATE TABLE IF NOT EXISTS tasks (
    id TEXT NOT NULL PRIMARY KEY,
    payload TEXT NOT NULL,
    priority INTEGER NOT NULL,
    status TEXT NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending', 'processing', 'done', 'failed', 'cancelled')),
    result TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    fence INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    max_attempts INTEGER NOT NULL DEFAULT 5,
    rescues INTEGER NOT NULL DEFAULT 0,
    error TEXT
) STRICT;
CREATE TABLE IF NOT EXISTS queue (
    task_id TEXT NOT NULL PRIMARY KEY,
    not_before INTEGER NOT NULL,
    messaged INTEGER NOT NULL,
    priority INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS queue_by_age ON queue (messaged, not_before);
CREATE TABLE IF NOT EXISTS workers (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    beat INTEGER NOT NULL,
    position INTEGER,
    dead INTEGER NOT NULL,
    registered_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS claims (
    id TEXT NOT NULL PRIMARY KEY,
    worker_id TEXT NOT NULL REFERENCES workers (id),
    tasks TEXT NOT NULL,
    claimed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS claims_by_worker ON claims (worker_id, id);
CREATE TABLE IF NOT EXISTS totals (
    shard INTEGER NOT NULL PRIMARY KEY,
    done INTEGER NOT NULL,
    elapsed_us INTEGER NOT NULL
) STRICT;
INSERT INTO totals (shard, done, elapsed_us) VALUES (0, 0, 0) ON CONFLICT (shard) DO NOTHING;
";

const DOWN: &str = "
DROP TABLE IF EXISTS claims;
DROP TABLE IF EXISTS workers;
DROP TABLE IF EXISTS queue;
DROP TABLE IF EXISTS totals;
DROP TABLE IF EXISTS tasks;
";

pub(super) async fn up(connection: &impl ConnectionTrait) -> Result<(), DbErr> {
    connection.execute_unprepared(UP).await?;
    Ok(())
}

pub(super) async fn down(connection: &impl ConnectionTrait) -> Result<(), DbErr> {
    connection.execute_unprepared(DOWN).await?;
    Ok(())
}
