//! SQLite.

use sea_orm_migration::sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, Statement,
};

use super::{Finding, LISTED, Report};

/// The shard below zero holds what was pruned, which is among the others too.
const COUNTS: &str = "
SELECT (SELECT count(*) FROM tasks), (SELECT count(*) FROM tasks WHERE status = 'done'),
    (SELECT coalesce(sum(updated_at - created_at), 0) FROM tasks WHERE status = 'done'),
    (SELECT count(*) FROM queue), (SELECT count(*) FROM claims),
    (SELECT coalesce(sum(CASE WHEN shard < 0 THEN -done ELSE done END), 0) FROM totals),
    (SELECT coalesce(sum(CASE WHEN shard < 0 THEN -elapsed_us ELSE elapsed_us END), 0) FROM totals),
    (SELECT count(*) FROM tasks LEFT JOIN queue ON task_id = id
        WHERE status = 'pending' AND fence = 0 AND task_id IS NULL)";

const UNQUEUED: &str = "
SELECT id FROM tasks LEFT JOIN queue ON task_id = id
WHERE status = 'pending' AND fence > 0 AND task_id IS NULL";

const UNCLAIMED: &str = "
SELECT id FROM tasks
WHERE status = 'processing' AND (id, fence) NOT IN (
    SELECT value ->> 0, value ->> 1 FROM claims, json_each(claims.tasks)
)";

const CLAIMED_TWICE: &str = "
SELECT tasks.id AS id FROM claims, json_each(claims.tasks) AS held
JOIN tasks ON tasks.id = held.value ->> 0 AND tasks.fence = held.value ->> 1
WHERE status = 'processing' GROUP BY tasks.id HAVING count(*) > 1";

const QUEUED_IN_VAIN: &str = "
SELECT task_id AS id FROM queue LEFT JOIN tasks ON tasks.id = task_id AND status = 'pending'
WHERE tasks.id IS NULL";

const UNLISTED: &str = "
SELECT id FROM tasks LEFT JOIN stopped ON task_id = id AND cancelled = (status = 'cancelled')
WHERE status IN ('failed', 'cancelled') AND task_id IS NULL";

const LISTED_IN_VAIN: &str = "
SELECT task_id AS id FROM stopped
LEFT JOIN tasks ON tasks.id = task_id AND status = CASE WHEN cancelled THEN 'cancelled' ELSE 'failed' END
WHERE tasks.id IS NULL";

pub(super) async fn report(transaction: &DatabaseTransaction) -> Result<Report, DbErr> {
    let statement = Statement::from_string(DbBackend::Sqlite, COUNTS);
    let row = transaction
        .query_one_raw(statement)
        .await?
        .ok_or_else(|| DbErr::RecordNotFound("the counts".to_owned()))?;
    let number = |index| row.try_get_by_index::<i64>(index);
    let count = |index| Ok::<_, DbErr>(number(index)?.cast_unsigned());
    Ok(Report {
        tasks: count(0)?,
        queued: count(3)?,
        claims: count(4)?,
        waiting_for_message: count(7)?,
        unqueued: finding(transaction, UNQUEUED).await?,
        unclaimed: finding(transaction, UNCLAIMED).await?,
        claimed_twice: finding(transaction, CLAIMED_TWICE).await?,
        queued_in_vain: finding(transaction, QUEUED_IN_VAIN).await?,
        unlisted: finding(transaction, UNLISTED).await?,
        listed_in_vain: finding(transaction, LISTED_IN_VAIN).await?,
        done: (count(1)?, count(5)?),
        elapsed_micros: (number(2)?.into(), number(6)?.into()),
    })
}

async fn finding(transaction: &DatabaseTransaction, ids: &str) -> Result<Finding, DbErr> {
    let statement = format!(
        "WITH found AS MATERIALIZED ({ids})
         SELECT (SELECT count(*) FROM found), id FROM found ORDER BY id LIMIT {LISTED}"
    );
    let rows = transaction
        .query_all_raw(Statement::from_string(DbBackend::Sqlite, statement))
        .await?;
    let mut finding = Finding::default();
    for row in &rows {
        finding.count = row.try_get_by_index::<i64>(0)?.cast_unsigned();
        finding.first.push(row.try_get_by_index(1)?);
    }
    Ok(finding)
}
