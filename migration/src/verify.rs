//! Checks that everything unfinished is findable, that nothing is left behind, and that the totals are right.

mod postgres;
mod sqlite;

use std::fmt;
use std::time::Duration;

use sea_orm_migration::sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, IsolationLevel,
    QueryResult, Statement, TransactionOptions, TransactionTrait,
};

use crate::create_or_adopt::unsupported;

/// How long what ends by itself may take to do so, unless told: a message of the older service on its way, an announcement that the
/// log does not take at the moment, the end of a dead worker.
pub const OVERDUE: Duration = Duration::from_secs(600);

/// How many ids of a finding are listed.
const LISTED: usize = 20;

/// A longer age is as good as this one, and times stay within what the databases can reckon with: a century.
const LONGEST_MICROS: i64 = 100 * 365 * 86_400 * 1_000_000;

/// Tasks, queue rows, claims or workers of which something is wrong.
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
    /// From which age on what should have ended by itself is a fault.
    pub overdue: Duration,
    /// Rows in `tasks`.
    pub tasks: u64,
    /// Rows in `queue`.
    pub queued: u64,
    /// Rows in `claims`.
    pub claims: u64,
    /// Pending tasks that were never touched, have no queue row and are not overdue. They come from the older service, whose
    /// message brings them to a worker: no fault.
    pub waiting_for_message: u64,
    /// Those of them that are overdue: nobody published them, or no worker takes the messages.
    pub unpublished: Finding,
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
    /// Claims of workers that are not registered.
    pub orphaned_claims: Finding,
    /// Claims that have held nothing unfinished since they were overdue: not announced, because the log does not take it, or
    /// forgotten.
    pub idle_claims: Finding,
    /// Workers that were declared dead and are still registered though nothing that they held has moved since it was overdue. One
    /// that held nothing and died this very instant may be among them.
    pub unburied: Finding,
    /// Done tasks in the table, and according to the totals without what was pruned.
    pub done: (u64, u64),
    /// The sum of (done − created) in microseconds over the table, and according to the totals without what was pruned.
    pub elapsed_micros: (i128, i128),
}

impl Report {
    /// Whether every promise holds: everything unfinished is in the queue or in one claim, everything failed or cancelled is
    /// listed, every claim and every dead worker comes to its end, and the totals equal the table.
    #[must_use]
    pub fn is_consistent(&self) -> bool {
        self.findings()
            .iter()
            .all(|(_, finding)| finding.count == 0)
            && self.done.0 == self.done.1
            && self.elapsed_micros.0 == self.elapsed_micros.1
    }

    fn findings(&self) -> [(&'static str, &Finding); 10] {
        [
            ("pending without a queue row", &self.unqueued),
            ("pending without a message, overdue", &self.unpublished),
            ("processing without a claim", &self.unclaimed),
            ("processing in several claims", &self.claimed_twice),
            ("queued without a pending task", &self.queued_in_vain),
            ("failed or cancelled and not listed", &self.unlisted),
            ("listed without such a task", &self.listed_in_vain),
            ("claims without a worker", &self.orphaned_claims),
            ("claims of nothing unfinished, overdue", &self.idle_claims),
            ("dead workers, overdue", &self.unburied),
        ]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{} tasks, {} queued, {} claims; {} wait for a message of the older service; overdue after {:?}",
            self.tasks, self.queued, self.claims, self.waiting_for_message, self.overdue
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
/// Reads `tasks` from end to end. What ends by itself counts as a fault once it is `overdue`; [`OVERDUE`] is a good measure.
///
/// # Errors
/// [`DbErr`], also when the schema is not there.
pub async fn verify(database: &DatabaseConnection, overdue: Duration) -> Result<Report, DbErr> {
    let backend = database.get_database_backend();
    let isolation = (backend == DbBackend::Postgres).then_some(IsolationLevel::RepeatableRead);
    let transaction = database
        .begin_with_options(TransactionOptions {
            isolation_level: isolation,
            ..TransactionOptions::default()
        })
        .await?;
    let dialect = match backend {
        DbBackend::Postgres => {
            crate::settle_session(&transaction).await?;
            &postgres::DIALECT
        }
        DbBackend::Sqlite => &sqlite::DIALECT,
        other => return Err(unsupported(other)),
    };
    let report = Questions {
        transaction: &transaction,
        dialect,
        overdue,
    }
    .report()
    .await?;
    transaction.rollback().await?;
    Ok(report)
}

/// What the databases say in words of their own. Every question that `finding` asks may name `limits`.
struct Dialect {
    /// Between which times, `past` and `future`, a row has moved that is not overdue; `$1` is the age in microseconds. One that
    /// moved later than now comes from a wrong clock, and will be overdue for as long as that was wrong.
    limits: &'static str,
    /// The numbers of rows and the totals; sums as text.
    counts: &'static str,
    unclaimed: &'static str,
    claimed_twice: &'static str,
    idle_claims: &'static str,
    unburied: &'static str,
}

const UNQUEUED: &str = "
SELECT id FROM tasks LEFT JOIN queue ON task_id = id
WHERE status = 'pending' AND fence > 0 AND task_id IS NULL";

const UNPUBLISHED: &str = "
SELECT id FROM tasks LEFT JOIN queue ON task_id = id
WHERE status = 'pending' AND fence = 0 AND task_id IS NULL
    AND updated_at NOT BETWEEN (SELECT past FROM limits) AND (SELECT future FROM limits)";

const QUEUED_IN_VAIN: &str = "
SELECT task_id AS id FROM queue LEFT JOIN tasks ON tasks.id = task_id AND status = 'pending'
WHERE tasks.id IS NULL";

const UNLISTED: &str = "
SELECT id FROM tasks LEFT JOIN stopped ON task_id = id AND cancelled = (status = 'cancelled')
WHERE status IN ('failed', 'cancelled') AND task_id IS NULL";

const LISTED_IN_VAIN: &str = "
SELECT task_id AS id FROM stopped LEFT JOIN tasks
    ON tasks.id = task_id AND CAST(status AS text) = CASE WHEN cancelled THEN 'cancelled' ELSE 'failed' END
WHERE tasks.id IS NULL";

const ORPHANED_CLAIMS: &str = "
SELECT claims.id AS id FROM claims LEFT JOIN workers ON workers.id = worker_id
WHERE workers.id IS NULL";

/// All of them are asked in one transaction, of one snapshot.
struct Questions<'transaction> {
    transaction: &'transaction DatabaseTransaction,
    dialect: &'static Dialect,
    overdue: Duration,
}

impl Questions<'_> {
    async fn report(&self) -> Result<Report, DbErr> {
        let row = self.counts().await?;
        let count = |index| Ok::<_, DbErr>(row.try_get_by_index::<i64>(index)?.cast_unsigned());
        let unpublished = self.finding(UNPUBLISHED).await?;
        Ok(Report {
            overdue: self.overdue,
            tasks: count(0)?,
            queued: count(3)?,
            claims: count(4)?,
            waiting_for_message: count(7)?.saturating_sub(unpublished.count),
            unpublished,
            unqueued: self.finding(UNQUEUED).await?,
            unclaimed: self.finding(self.dialect.unclaimed).await?,
            claimed_twice: self.finding(self.dialect.claimed_twice).await?,
            queued_in_vain: self.finding(QUEUED_IN_VAIN).await?,
            unlisted: self.finding(UNLISTED).await?,
            listed_in_vain: self.finding(LISTED_IN_VAIN).await?,
            orphaned_claims: self.finding(ORPHANED_CLAIMS).await?,
            idle_claims: self.finding(self.dialect.idle_claims).await?,
            unburied: self.finding(self.dialect.unburied).await?,
            done: (count(1)?, count(5)?),
            elapsed_micros: (whole(&row, 2)?, whole(&row, 6)?),
        })
    }

    async fn counts(&self) -> Result<QueryResult, DbErr> {
        let backend = self.transaction.get_database_backend();
        let statement = Statement::from_string(backend, self.dialect.counts);
        self.transaction
            .query_one_raw(statement)
            .await?
            .ok_or_else(|| DbErr::RecordNotFound("the counts".to_owned()))
    }

    async fn finding(&self, ids: &str) -> Result<Finding, DbErr> {
        let age = i64::try_from(self.overdue.as_micros()).unwrap_or(LONGEST_MICROS);
        let statement = Statement::from_sql_and_values(
            self.transaction.get_database_backend(),
            format!(
                "WITH limits AS ({}), found AS MATERIALIZED ({ids})
                 SELECT (SELECT count(*) FROM found), CAST(id AS text) FROM found ORDER BY id LIMIT {LISTED}",
                self.dialect.limits
            ),
            [age.min(LONGEST_MICROS).into()],
        );
        let mut finding = Finding::default();
        for row in &self.transaction.query_all_raw(statement).await? {
            finding.count = row.try_get_by_index::<i64>(0)?.cast_unsigned();
            finding.first.push(row.try_get_by_index(1)?);
        }
        Ok(finding)
    }
}

fn whole(row: &QueryResult, index: usize) -> Result<i128, DbErr> {
    let text: String = row.try_get_by_index(index)?;
    text.parse()
        .map_err(|_| DbErr::Type(format!("{text:?} is no whole number")))
}
