//! The fourth migration: of each cancelled task, whether the news of it is told.

use sea_orm_migration::prelude::async_trait;
use sea_orm_migration::sea_orm::DbErr;
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager};

use crate::create_or_adopt::execute;

pub(crate) struct TellCancelled;

/// What was cancelled before counts as told. What programs of an earlier version write meanwhile does not: it is told once more.
/// Neither statement looks at a row, and no index names the column.
const POSTGRES: &str = "
ALTER TABLE stopped ADD COLUMN IF NOT EXISTS told boolean NOT NULL DEFAULT true;
ALTER TABLE stopped ALTER COLUMN told SET DEFAULT false;";

const SQLITE: &str = "
ALTER TABLE stopped ADD COLUMN told INTEGER NOT NULL DEFAULT 0;
UPDATE stopped SET told = 1;";

impl MigrationName for TellCancelled {
    fn name(&self) -> &str {
        "m0004_tell_cancelled"
    }
}

#[expect(
    elided_lifetimes_in_paths,
    reason = "with the lifetime written out, async-trait expands to another signature than the trait's"
)]
#[async_trait::async_trait]
impl MigrationTrait for TellCancelled {
    /// The caller has one open around everything.
    fn use_transaction(&self) -> Option<bool> {
        Some(false)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, POSTGRES, SQLITE).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        const STATEMENT: &str = "ALTER TABLE stopped DROP COLUMN told;";
        execute(manager, STATEMENT, STATEMENT).await
    }
}
