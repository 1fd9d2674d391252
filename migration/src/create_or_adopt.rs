//! The first migration: creates the tables, or adopts the existing service's.

mod postgres;
mod sqlite;

use sea_orm_migration::prelude::async_trait;
use sea_orm_migration::sea_orm::{ConnectionTrait, DbBackend, DbErr};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager};

pub(crate) struct CreateOrAdopt;

impl MigrationName for CreateOrAdopt {
    fn name(&self) -> &str {
        "m0001_create_or_adopt"
    }
}

#[expect(
    elided_lifetimes_in_paths,
    reason = "with the lifetime written out, async-trait expands to another signature than the trait's"
)]
#[async_trait::async_trait]
impl MigrationTrait for CreateOrAdopt {
    /// The caller has one open around everything.
    fn use_transaction(&self) -> Option<bool> {
        Some(false)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let connection = manager.get_connection();
        match connection.get_database_backend() {
            DbBackend::Postgres => postgres::up(connection).await,
            DbBackend::Sqlite => sqlite::up(connection).await,
            other => Err(unsupported(other)),
        }
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let connection = manager.get_connection();
        match connection.get_database_backend() {
            DbBackend::Postgres => postgres::down(connection).await,
            DbBackend::Sqlite => sqlite::down(connection).await,
            other => Err(unsupported(other)),
        }
    }
}

/// Runs the statements that are written for the database at hand.
pub(crate) async fn execute(
    manager: &SchemaManager<'_>,
    postgres: &str,
    sqlite: &str,
) -> Result<(), DbErr> {
    let connection = manager.get_connection();
    let statements = match connection.get_database_backend() {
        DbBackend::Postgres => postgres,
        DbBackend::Sqlite => sqlite,
        other => return Err(unsupported(other)),
    };
    connection.execute_unprepared(statements).await?;
    Ok(())
}

pub(crate) fn unsupported(backend: DbBackend) -> DbErr {
    DbErr::Migration(format!("the schema is not written for {backend:?}"))
}
