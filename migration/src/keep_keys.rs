//! The second migration: requests that clients named.

use sea_orm_migration::prelude::async_trait;
use sea_orm_migration::sea_orm::DbErr;
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager};

use crate::create_or_adopt::execute;

pub(crate) struct KeepKeys;

/// Rows live for a day and are never updated; the index finds the oldest.
const POSTGRES: &str = "
CREATE TABLE IF NOT EXISTS idempotency_keys (
    key text PRIMARY KEY,
    fingerprint text NOT NULL,
    task_ids uuid[] NOT NULL,
    created_at timestamp NOT NULL
) WITH (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05, vacuum_truncate = false
);
CREATE INDEX IF NOT EXISTS idempotency_keys_by_age ON idempotency_keys (created_at);";

const SQLITE: &str = "
CREATE TABLE IF NOT EXISTS idempotency_keys (
    key TEXT NOT NULL PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    task_ids TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS idempotency_keys_by_age ON idempotency_keys (created_at);";

impl MigrationName for KeepKeys {
    fn name(&self) -> &str {
        "m0002_keep_keys"
    }
}

#[expect(
    elided_lifetimes_in_paths,
    reason = "with the lifetime written out, async-trait expands to another signature than the trait's"
)]
#[async_trait::async_trait]
impl MigrationTrait for KeepKeys {
    /// The caller has one open around everything.
    fn use_transaction(&self) -> Option<bool> {
        Some(false)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, POSTGRES, SQLITE).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        const STATEMENT: &str = "DROP TABLE IF EXISTS idempotency_keys;";
        execute(manager, STATEMENT, STATEMENT).await
    }
}
