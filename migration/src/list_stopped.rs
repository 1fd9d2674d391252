//! The third migration: a list of the failed and cancelled tasks, so that they are found without reading the whole table.

use sea_orm_migration::prelude::async_trait;
use sea_orm_migration::sea_orm::DbErr;
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager};

use crate::create_or_adopt::execute;

pub(crate) struct ListStopped;

/// Rows are written and deleted with the transition of their task, and never updated. Whoever moves a task waits meanwhile. The
/// value `cancelled` may have been added to the enum in this very transaction, and then cannot be named as one.
const POSTGRES: &str = "
LOCK TABLE tasks IN SHARE ROW EXCLUSIVE MODE;
CREATE TABLE IF NOT EXISTS stopped (
    cancelled boolean NOT NULL,
    task_id uuid NOT NULL,
    PRIMARY KEY (cancelled, task_id)
) WITH (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05, vacuum_truncate = false
);
INSERT INTO stopped (cancelled, task_id)
SELECT status::text = 'cancelled', id FROM tasks WHERE status::text IN ('failed', 'cancelled')
ON CONFLICT (cancelled, task_id) DO NOTHING;";

const SQLITE: &str = "
CREATE TABLE IF NOT EXISTS stopped (
    cancelled INTEGER NOT NULL,
    task_id TEXT NOT NULL,
    PRIMARY KEY (cancelled, task_id)
) STRICT, WITHOUT ROWID;
INSERT INTO stopped (cancelled, task_id)
SELECT status = 'cancelled', id FROM tasks WHERE status IN ('failed', 'cancelled')
ON CONFLICT (cancelled, task_id) DO NOTHING;";

impl MigrationName for ListStopped {
    fn name(&self) -> &str {
        "m0003_list_stopped"
    }
}

#[expect(
    elided_lifetimes_in_paths,
    reason = "with the lifetime written out, async-trait expands to another signature than the trait's"
)]
#[async_trait::async_trait]
impl MigrationTrait for ListStopped {
    /// The caller has one open around everything.
    fn use_transaction(&self) -> Option<bool> {
        Some(false)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, POSTGRES, SQLITE).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        const STATEMENT: &str = "DROP TABLE IF EXISTS stopped;";
        execute(manager, STATEMENT, STATEMENT).await
    }
}
