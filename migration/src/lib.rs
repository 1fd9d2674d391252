//! The database schema of Task Processor.
//!
//! [`up`] creates the tables, or adopts the existing service's `tasks` without losing a row; [`down`] goes back and never
//! drops an adopted table; [`status`] tells what is applied; [`verify()`] checks that everything unfinished is findable and
//! that the totals are right. All of them are safe to repeat, and to run from any number of replicas at once: on
//! PostgreSQL (14 or later) they queue behind one advisory lock, on SQLite behind the writer's lock.

mod create_or_adopt;
mod keep_keys;
mod list_stopped;
mod tell_cancelled;
mod verify;

use sea_orm_migration::MigratorTrait;
use sea_orm_migration::prelude::{Alias, DynIden, IntoIden, MigrationTrait, async_trait};
use sea_orm_migration::sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr,
    SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait, Value,
};

pub use verify::{OVERDUE, Report, verify};

/// Advisory locks are numbers shared by everything that uses a database; this one is "task-pro" in ASCII.
const LOCK: i64 = 0x7461_736b_2d70_726f;

/// Where the applied migrations are recorded: not SeaORM's default table, which another program in the same database may
/// use.
const HISTORY: &str = "task_processor_migrations";

struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(create_or_adopt::CreateOrAdopt),
            Box::new(keep_keys::KeepKeys),
            Box::new(list_stopped::ListStopped),
            Box::new(tell_cancelled::TellCancelled),
        ]
    }

    fn migration_table_name() -> DynIden {
        Alias::new(HISTORY).into_iden()
    }
}

/// One migration and whether the database has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// Its name.
    pub name: String,
    /// Whether it is applied.
    pub applied: bool,
}

/// Applies every migration that the database does not have, in one transaction, and returns their names; none when
/// another replica was faster.
///
/// On an adopted table everything else that writes to it waits meanwhile: for the time of one scan of the table.
///
/// # Errors
/// [`DbErr`]; nothing was changed. A table `tasks` that is not the one the service knows is named with what differs.
pub async fn up(database: &DatabaseConnection) -> Result<Vec<String>, DbErr> {
    let transaction = locked(database).await?;
    let before = pending(&transaction).await?;
    Migrator::up(&transaction, None).await?;
    transaction.commit().await?;
    Ok(before)
}

/// Takes every migration back, in one transaction, and returns their names. Every server and worker must be stopped.
///
/// Tables that [`up`] created are dropped, with what is in them. An adopted table stays with all its rows: the columns
/// and tables that [`up`] added go, a `cancelled` row becomes `failed` and a `processing` one `pending`, because the
/// older service knows no other name for them. The enum keeps the value `cancelled`, which no row has any more.
///
/// # Errors
/// [`DbErr`]; nothing was changed.
pub async fn down(database: &DatabaseConnection) -> Result<Vec<String>, DbErr> {
    let transaction = locked(database).await?;
    let applied = Migrator::get_migration_with_status_read_only(&transaction)
        .await?
        .iter()
        .filter(|migration| is_applied(migration))
        .map(|migration| migration.name().to_owned())
        .rev()
        .collect();
    Migrator::down(&transaction, None).await?;
    Migrator::uninstall(&transaction).await?;
    transaction.commit().await?;
    Ok(applied)
}

/// Every migration this program knows, in order, and whether the database has it. Changes nothing.
///
/// # Errors
/// [`DbErr`], also when the database has a migration that this program does not know (it is newer).
pub async fn status(database: &DatabaseConnection) -> Result<Vec<Migration>, DbErr> {
    let migrations = Migrator::get_migration_with_status_read_only(database).await?;
    Ok(migrations
        .iter()
        .map(|migration| Migration {
            name: migration.name().to_owned(),
            applied: is_applied(migration),
        })
        .collect())
}

async fn pending(transaction: &DatabaseTransaction) -> Result<Vec<String>, DbErr> {
    let migrations = Migrator::get_migration_with_status_read_only(transaction).await?;
    Ok(migrations
        .iter()
        .filter(|migration| !is_applied(migration))
        .map(|migration| migration.name().to_owned())
        .collect())
}

fn is_applied(migration: &sea_orm_migration::Migration) -> bool {
    migration.status() == sea_orm_migration::MigrationStatus::Applied
}

/// Opens a transaction that only one replica has at a time.
async fn locked(database: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
    let transaction = database
        .begin_with_options(TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        })
        .await?;
    if transaction.get_database_backend() == DbBackend::Postgres {
        settle_session(&transaction).await?;
        transaction
            .execute_raw(Statement::from_sql_and_values(
                DbBackend::Postgres,
                "SELECT 1 FROM pg_advisory_xact_lock($1)",
                [Value::from(LOCK)],
            ))
            .await?;
    }
    Ok(transaction)
}

/// The service's own sessions have limits and planner settings for short statements; these are for long ones. They end
/// with the transaction.
async fn settle_session(transaction: &DatabaseTransaction) -> Result<(), DbErr> {
    transaction
        .execute_unprepared(
            "SET LOCAL timezone = 'UTC';
             SET LOCAL statement_timeout = 0;
             SET LOCAL lock_timeout = 0;
             SET LOCAL plan_cache_mode = auto;
             SET LOCAL enable_seqscan = on;
             SET LOCAL enable_bitmapscan = on;
             SET LOCAL enable_nestloop = on;
             SET LOCAL enable_mergejoin = on;",
        )
        .await?;
    Ok(())
}
