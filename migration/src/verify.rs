//! Checks that everything unfinished is findable and that the totals are right.

mod postgres;
mod sqlite;

use std::fmt;

use sea_orm_migration::sea_orm::{
    DatabaseConnection, DbBackend, DbErr, IsolationLevel, TransactionOptions, TransactionTrait,
};

use crate::create_or_adopt::unsupported;

/// How many ids of a finding are listed.
pub(crate) const LISTED: usize = 20;

/// Tasks, or queue rows, of which something is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    /// How many.
    pub count: u64,
    /// The first 20 ids, in ascending order.
    pub first: Vec<String>,
}

/// What [`verify`] found: one instant of the database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Rows in `tasks`.
    pub tasks: u64,
    /// Rows in `queue`.
    pub queued: u64,
    /// Rows in `claims`.
    pub claims: u64,
    /// Pending tasks that were never touched and have no queue row. They come from the older service, whose message
    /// brings them to a worker: no fault.
    pub waiting_for_message: u64,
    /// Pending tasks without a queue row that no message will bring.
    pub unqueued: Finding,
    /// Processing tasks that no claim holds under their present fence.
    pub unclaimed: Finding,
    /// Processing tasks that more than one claim holds under their present fence.
    pub claimed_twice: Finding,
    /// Queue rows whose task is missing or not pending.
    pub queued_in_vain: Finding,
    /// Failed and cancelled tasks that the list of those lacks.
    pub unlisted: Finding,
    /// Rows of that list whose task is missing or has another status.
    pub listed_in_vain: Finding,
    /// Done tasks in the table, and according to the totals without what was pruned.
    pub done: (u64, u64),
    /// The sum of (done − created) in microseconds over the table, and according to the totals without what was pruned.
    pub elapsed_micros: (i128, i128),
}

impl Report {
    /// Whether every promise holds: everything unfinished is in the queue or in one claim, everything failed or cancelled is
    /// listed, and the totals equal the table.
    #[must_use]
    pub fn is_consistent(&self) -> bool {
        self.findings()
            .iter()
            .all(|(_, finding)| finding.count == 0)
            && self.done.0 == self.done.1
            && self.elapsed_micros.0 == self.elapsed_micros.1
    }

    fn findings(&self) -> [(&'static str, &Finding); 6] {
        [
            ("pending without a queue row", &self.unqueued),
            ("processing without a claim", &self.unclaimed),
            ("processing in several claims", &self.claimed_twice),
            ("queued without a pending task", &self.queued_in_vain),
            ("failed or cancelled and not listed", &self.unlisted),
            ("listed without such a task", &self.listed_in_vain),
        ]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{} tasks, {} queued, {} claims; {} wait for a message of the older service",
            self.tasks, self.queued, self.claims, self.waiting_for_message
        )?;
        for (name, finding) in self.findings() {
            writeln!(formatter, "{name}: {}", finding.count)?;
            for id in &finding.first {
                writeln!(formatter, "  {id}")?;
            }
        }
        writeln!(
            formatter,
            "done: {} in the table, {} in the totals",
            self.done.0, self.done.1
        )?;
        writeln!(
            formatter,
            "microseconds from created to done: {} in the table, {} in the totals",
            self.elapsed_micros.0, self.elapsed_micros.1
        )?;
        formatter.write_str(if self.is_consistent() {
            "consistent"
        } else {
            "NOT consistent"
        })
    }
}

/// Checks the whole database as it is at one instant, changing and locking nothing: everybody goes on working meanwhile.
/// Reads `tasks` from end to end.
///
/// # Errors
/// [`DbErr`], also when the schema is not there.
pub async fn verify(database: &DatabaseConnection) -> Result<Report, DbErr> {
    let backend = database.get_database_backend();
    let isolation = (backend == DbBackend::Postgres).then_some(IsolationLevel::RepeatableRead);
    let transaction = database
        .begin_with_options(TransactionOptions {
            isolation_level: isolation,
            ..TransactionOptions::default()
        })
        .await?;
    let report = match backend {
        DbBackend::Postgres => {
            crate::settle_session(&transaction).await?;
            postgres::report(&transaction).await?
        }
        DbBackend::Sqlite => sqlite::report(&transaction).await?,
        other => return Err(unsupported(other)),
    };
    transaction.rollback().await?;
    Ok(report)
}
