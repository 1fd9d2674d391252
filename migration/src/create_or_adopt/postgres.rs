//! PostgreSQL. The caller holds the advisory lock and an open transaction.

use sea_orm_migration::sea_orm::{ConnectionTrait, DbBackend, DbErr, QueryResult, Statement};

/// The contract's seven columns, as `format_type` names their types.
const CONTRACT: [(&str, &str); 7] = [
    ("id", "uuid"),
    ("payload", "text"),
    ("priority", "integer"),
    ("status", "task_status"),
    ("result", "text"),
    ("created_at", "timestamp without time zone"),
    ("updated_at", "timestamp without time zone"),
];

const CREATE_TASKS: &str = "
CREATE TYPE task_status AS ENUM ('pending', 'processing', 'done', 'failed', 'cancelled');
CREATE TABLE tasks (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    payload text NOT NULL,
    priority integer NOT NULL,
    status task_status NOT NULL DEFAULT 'pending',
    result text,
    created_at timestamp NOT NULL DEFAULT now(),
    updated_at timestamp NOT NULL DEFAULT now()
);";

/// Waits for every writer of the table and keeps new ones waiting until the commit, so that no row is between the old
/// world and the new.
const LOCK_TASKS: &str = "LOCK TABLE tasks IN ACCESS EXCLUSIVE MODE";

const EXTEND_TASKS: &str = "
ALTER TYPE task_status ADD VALUE IF NOT EXISTS 'cancelled';
ALTER TABLE tasks
    ADD COLUMN IF NOT EXISTS fence bigint NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS attempts integer NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS max_attempts integer NOT NULL DEFAULT 5,
    ADD COLUMN IF NOT EXISTS rescues integer NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS error text;";

/// Half of each page stays free, so that the updates of a task's life stay on its page and touch no index; dead rows go
/// long before the default fifth of the table is dead.
const TUNE_TASKS: &str = "
ALTER TABLE tasks SET (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.02
);";

/// `queue` and `claims` are all churn: they are vacuumed by count, and never shortened, which would lock everyone out.
/// The index serves claims by age; equal times of one insert share an entry. No statement of ours reads `priority`, since what is
/// served first follows from time and from what a worker holds: it tells whoever looks at the queue how urgent what waits is, without
/// a look at `tasks`. A row is as long without it, padded to 56 bytes; it costs three bytes of WAL.
const CREATE_BESIDE: &str = "
CREATE TABLE IF NOT EXISTS queue (
    task_id uuid PRIMARY KEY,
    not_before timestamp NOT NULL,
    messaged boolean NOT NULL,
    priority smallint NOT NULL
) WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_insert_threshold = -1, autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 100000,
    vacuum_truncate = false
);
CREATE INDEX IF NOT EXISTS queue_by_age ON queue (messaged, not_before);

CREATE TABLE IF NOT EXISTS workers (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    beat bigint NOT NULL,
    position timestamp,
    dead boolean NOT NULL,
    registered_at timestamp NOT NULL
) WITH (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500, vacuum_truncate = false
);

CREATE TABLE IF NOT EXISTS claims (
    id uuid PRIMARY KEY,
    worker_id uuid NOT NULL REFERENCES workers (id),
    task_ids uuid[] NOT NULL,
    fences bigint[] NOT NULL,
    claimed_at timestamp NOT NULL,
    CHECK (cardinality(task_ids) = cardinality(fences))
) WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_insert_threshold = -1, vacuum_truncate = false,
    toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 5000,
    toast.vacuum_truncate = false
);
CREATE INDEX IF NOT EXISTS claims_by_worker ON claims (worker_id, id);

CREATE TABLE IF NOT EXISTS totals (
    shard smallint PRIMARY KEY,
    done bigint NOT NULL,
    elapsed_us numeric(38, 0) NOT NULL
) WITH (
    fillfactor = 10,
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, vacuum_truncate = false
);

-- One row: whether `tasks` was there before us, and its settings at that time.
CREATE TABLE IF NOT EXISTS task_processor_origin (
    adopted boolean NOT NULL,
    settings text[] NOT NULL
);";

/// What nobody recorded holds goes back to the queue, oldest first. No message of ours is on its way for it; one of the
/// older service may be, and then finds it claimed or claims it.
const QUEUE_UNFINISHED: &str = "
UPDATE tasks SET status = 'pending', fence = fence + 1, updated_at = LOCALTIMESTAMP
WHERE status = 'processing' AND id NOT IN (SELECT unnest(task_ids) FROM claims);
INSERT INTO queue (task_id, not_before, messaged, priority)
SELECT id, least(created_at, LOCALTIMESTAMP), false, least(greatest(priority, 0), 10)
FROM tasks WHERE status = 'pending'
ON CONFLICT (task_id) DO NOTHING;";

/// Done rows of an adopted table count from the start; totals that exist are kept, because they may count rows that were
/// pruned since.
const COMPUTE_TOTALS: &str = "
INSERT INTO totals (shard, done, elapsed_us)
SELECT 0, count(*), coalesce(extract(epoch FROM sum(updated_at - created_at)) * 1000000, 0)
FROM tasks WHERE status = 'done' AND NOT EXISTS (SELECT FROM totals)
HAVING NOT EXISTS (SELECT FROM totals);
INSERT INTO totals (shard, done, elapsed_us)
SELECT shard, 0, 0 FROM generate_series(0, 15) AS shard
ON CONFLICT (shard) DO NOTHING;";

const LET_GO_OF_ADOPTED: &str = "
UPDATE tasks SET status = 'failed' WHERE status::text = 'cancelled';
UPDATE tasks SET status = 'pending' WHERE status = 'processing';
ALTER TABLE tasks
    DROP COLUMN IF EXISTS fence,
    DROP COLUMN IF EXISTS attempts,
    DROP COLUMN IF EXISTS max_attempts,
    DROP COLUMN IF EXISTS rescues,
    DROP COLUMN IF EXISTS error;
ALTER TABLE tasks RESET (
    fillfactor, autovacuum_vacuum_scale_factor, autovacuum_vacuum_insert_scale_factor,
    autovacuum_analyze_scale_factor
);";

const DROP_BESIDE: &str = "
DROP TABLE IF EXISTS claims;
DROP TABLE IF EXISTS workers;
DROP TABLE IF EXISTS queue;
DROP TABLE IF EXISTS totals;
DROP TABLE IF EXISTS task_processor_origin;";

const DROP_TASKS: &str = "
DROP TABLE IF EXISTS tasks;
DROP TYPE IF EXISTS task_status;";

pub(super) async fn up(connection: &impl ConnectionTrait) -> Result<(), DbErr> {
    let adopted = exists(connection, "tasks").await?;
    if adopted {
        connection.execute_unprepared(LOCK_TASKS).await?;
        check_contract(connection).await?;
    } else {
        connection.execute_unprepared(CREATE_TASKS).await?;
    }
    connection.execute_unprepared(EXTEND_TASKS).await?;
    connection.execute_unprepared(CREATE_BESIDE).await?;
    // Before the settings change, and only the first time.
    connection
        .execute_raw(Statement::from_sql_and_values(
            DbBackend::Postgres,
            "INSERT INTO task_processor_origin (adopted, settings)
             SELECT $1, coalesce(reloptions, '{}') FROM pg_class
             WHERE oid = 'tasks'::regclass AND NOT EXISTS (SELECT FROM task_processor_origin)",
            [adopted.into()],
        ))
        .await?;
    connection.execute_unprepared(TUNE_TASKS).await?;
    connection.execute_unprepared(QUEUE_UNFINISHED).await?;
    connection.execute_unprepared(COMPUTE_TOTALS).await?;
    Ok(())
}

pub(super) async fn down(connection: &impl ConnectionTrait) -> Result<(), DbErr> {
    if exists(connection, "tasks").await? {
        connection.execute_unprepared(LOCK_TASKS).await?;
    }
    // Without a record of where the table came from, it is not ours to drop.
    let origin = if exists(connection, "task_processor_origin").await? {
        rows(connection, "SELECT adopted FROM task_processor_origin").await?
    } else {
        Vec::new()
    };
    let ours = match origin.first() {
        Some(row) => !row.try_get_by_index::<bool>(0)?,
        None => false,
    };
    if ours {
        connection.execute_unprepared(DROP_BESIDE).await?;
        connection.execute_unprepared(DROP_TASKS).await?;
    } else {
        connection.execute_unprepared(LET_GO_OF_ADOPTED).await?;
        if !origin.is_empty() {
            restore_settings(connection).await?;
        }
        connection.execute_unprepared(DROP_BESIDE).await?;
    }
    Ok(())
}

/// Gives an adopted table back the settings it came with, as PostgreSQL itself wrote them: `name=value`.
async fn restore_settings(connection: &impl ConnectionTrait) -> Result<(), DbErr> {
    let settings = rows(
        connection,
        "SELECT format('ALTER TABLE tasks SET (%s = %L)', split_part(setting, '=', 1),
             substr(setting, strpos(setting, '=') + 1))
         FROM task_processor_origin, unnest(settings) AS setting",
    )
    .await?;
    for row in &settings {
        let statement: String = row.try_get_by_index(0)?;
        connection.execute_unprepared(&statement).await?;
    }
    Ok(())
}

async fn exists(connection: &impl ConnectionTrait, table: &str) -> Result<bool, DbErr> {
    let found = connection
        .query_one_raw(Statement::from_sql_and_values(
            DbBackend::Postgres,
            "SELECT to_regclass($1) IS NOT NULL",
            [table.into()],
        ))
        .await?;
    match found {
        Some(row) => row.try_get_by_index(0),
        None => Ok(false),
    }
}

async fn rows(
    connection: &impl ConnectionTrait,
    sql: &'static str,
) -> Result<Vec<QueryResult>, DbErr> {
    connection
        .query_all_raw(Statement::from_string(DbBackend::Postgres, sql))
        .await
}

/// Refuses a table `tasks` that is someone else's, with everything that differs.
async fn check_contract(connection: &impl ConnectionTrait) -> Result<(), DbErr> {
    let columns = rows(
        connection,
        "SELECT attname::text, format_type(atttypid, NULL) FROM pg_attribute
         WHERE attrelid = 'tasks'::regclass AND attnum > 0 AND NOT attisdropped",
    )
    .await?
    .iter()
    .map(|row| Ok((row.try_get_by_index(0)?, row.try_get_by_index(1)?)))
    .collect::<Result<Vec<(String, String)>, DbErr>>()?;
    let mut differences = Vec::new();
    for (name, kind) in CONTRACT {
        match columns.iter().find(|(column, _)| column == name) {
            None => differences.push(format!("it has no column {name}")),
            Some((_, found)) if found != kind => {
                differences.push(format!("its column {name} is {found}, not {kind}"));
            }
            Some(_) => {}
        }
    }
    let keyed = rows(
        connection,
        "SELECT 1 FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]
         WHERE indrelid = 'tasks'::regclass AND indisunique AND indimmediate AND indpred IS NULL
             AND indnkeyatts = 1 AND attname = 'id'",
    )
    .await?;
    if keyed.is_empty() {
        differences.push("its column id is not unique".to_owned());
    }
    let labels = rows(
        connection,
        "SELECT name FROM unnest(ARRAY['pending', 'processing', 'done', 'failed']) AS name
         WHERE NOT EXISTS (
             SELECT FROM pg_enum
             WHERE enumtypid = to_regtype('task_status') AND enumlabel = name
         )",
    )
    .await?;
    for row in &labels {
        let name: String = row.try_get_by_index(0)?;
        differences.push(format!("its task_status has no value {name}"));
    }
    if differences.is_empty() {
        Ok(())
    } else {
        Err(DbErr::Migration(format!(
            "the table \"tasks\" in this database is not one that can be adopted: {}",
            differences.join("; ")
        )))
    }
}
