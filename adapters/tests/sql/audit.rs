//! The audit where only a real server can show something: rows edited by hand, locks held by others, and the cost.

use std::time::Duration;

use ports::{TaskAudit, TaskId};
use sea_orm::{ConnectionTrait, TransactionTrait};
use uuid::Uuid;

use crate::database::{Postgres, SqliteFile, execute, number, rows, texts};

const PATIENCE: Duration = Duration::from_secs(10);

/// Rows of an adopted table may bear any time: one ahead of the clock is found, one just ahead of it waits.
#[tokio::test]
#[ignore = "needs PostgreSQL: run cargo xtask test"]
async fn times_in_the_future_do_not_hide_a_row() {
    let postgres = Postgres::migrated().await;
    let store = postgres.store().await;
    let ids: Vec<TaskId> = std::iter::repeat_with(|| TaskId(Uuid::now_v7()))
        .take(5)
        .collect();
    let times = [
        "now() + interval '5 seconds'",
        "now() + interval '2 hours'",
        "'2999-01-01'",
        "'infinity'",
        "'-infinity'",
    ];
    for (id, time) in ids.iter().zip(times) {
        let sql = format!(
            "INSERT INTO tasks (id, payload, priority, created_at, updated_at) VALUES ('{id}', '', -7, {time}, {time})"
        );
        execute(&store.database(), &sql).await;
    }
    let page = store.stranded(None, 2, PATIENCE).await.expect("walk");
    let rest = store.stranded(page.next, 3, PATIENCE).await.expect("walk");
    let found: Vec<TaskId> = page
        .stranded
        .iter()
        .chain(&rest.stranded)
        .map(|task| task.id)
        .collect();
    assert_eq!(found, ids[1..3]);
    assert_eq!(store.enqueue(&found).await.expect("enqueue"), 2);
    let priorities = "SELECT sum(priority)::bigint FROM queue";
    assert_eq!(number(&store.database(), priorities).await, 0);
    store.close().await;
    postgres.drop_database().await;
}

#[tokio::test]
async fn on_sqlite_times_in_the_future_do_not_hide_a_row() {
    let file = SqliteFile::create();
    let store = file.store().await;
    migration::up(&store.database()).await.expect("migrate");
    let (soon, late) = (TaskId(Uuid::now_v7()), TaskId(Uuid::now_v7()));
    for (id, seconds) in [(soon, 5), (late, 7_200)] {
        let sql = format!(
            "INSERT INTO tasks (id, payload, priority, created_at, updated_at)
             VALUES ('{id}', '', 99, 0, (unixepoch() + {seconds}) * 1000000)"
        );
        execute(&store.database(), &sql).await;
    }
    let page = store.stranded(None, 10, PATIENCE).await.expect("walk");
    let found: Vec<TaskId> = page.stranded.iter().map(|task| task.id).collect();
    assert_eq!(found, [late]);
    assert_eq!(store.enqueue(&found).await.expect("enqueue"), 1);
    let priorities = "SELECT sum(priority) FROM queue";
    assert_eq!(number(&store.database(), priorities).await, 10);
    store.close().await;
    file.remove();
}

/// Someone else's open transaction holds a queue row and its task: nothing waits for it, and what it then commits stands.
#[tokio::test]
#[ignore = "needs PostgreSQL: run cargo xtask test"]
async fn the_audit_waits_for_nobody() {
    let postgres = Postgres::migrated().await;
    let store = postgres.store().await;
    let other = postgres.connection().await;
    let (done, unqueued) = (Uuid::now_v7(), Uuid::now_v7());
    execute(
        &other,
        &format!(
            "INSERT INTO tasks (id, payload, priority, status, result) VALUES ('{done}', '', 0, 'done', '');
             INSERT INTO tasks (id, payload, priority) VALUES ('{unqueued}', '', 0);
             INSERT INTO queue VALUES ('{done}', now(), false, 0)"
        ),
    )
    .await;
    let busy = other.begin().await.expect("begin");
    busy.execute_unprepared(&format!(
        "UPDATE tasks SET status = 'pending', result = NULL WHERE id = '{done}';
         UPDATE queue SET not_before = now() WHERE task_id = '{done}';
         UPDATE tasks SET priority = 1 WHERE id = '{unqueued}'"
    ))
    .await
    .expect("held");
    let quick = async {
        let swept = store.sweep_queue(None, 10).await.expect("sweep");
        let given = store.enqueue(&[TaskId(unqueued)]).await.expect("enqueue");
        (swept.0, given)
    };
    let answers = tokio::time::timeout(PATIENCE, quick).await;
    assert_eq!(answers.expect("nothing waits"), (0, 0));
    busy.commit().await.expect("commit");
    assert_eq!(store.sweep_queue(None, 10).await.expect("sweep").0, 0);
    assert_eq!(
        store.enqueue(&[TaskId(unqueued)]).await.expect("enqueue"),
        1
    );
    store.close().await;
    other.close().await.expect("close");
    postgres.drop_database().await;
}

/// The same of the list of failed and cancelled tasks: someone's open transaction holds a task that is listed in vain, one that is
/// not listed, and an entry of no task.
#[tokio::test]
#[ignore = "needs PostgreSQL: run cargo xtask test"]
async fn the_audit_of_the_list_waits_for_nobody() {
    let postgres = Postgres::migrated().await;
    let store = postgres.store().await;
    let other = postgres.connection().await;
    let (in_vain, unlisted, nobody) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
    execute(
        &other,
        &format!(
            "INSERT INTO tasks (id, payload, priority, status) VALUES
                 ('{in_vain}', '', 0, 'processing'), ('{unlisted}', '', 0, 'failed');
             INSERT INTO stopped VALUES (false, '{in_vain}'), (true, '{nobody}')"
        ),
    )
    .await;
    let busy = other.begin().await.expect("begin");
    busy.execute_unprepared(&format!(
        "UPDATE tasks SET status = 'failed' WHERE id = '{in_vain}';
         UPDATE tasks SET priority = 1 WHERE id = '{unlisted}';
         SELECT 1 FROM stopped WHERE task_id = '{nobody}' FOR UPDATE"
    ))
    .await
    .expect("held");
    let quick = async {
        let swept = store.sweep_stopped(None, 10).await.expect("sweep");
        let listed = store.enlist(&[TaskId(unlisted)]).await.expect("enlist");
        (swept.0, listed)
    };
    let answers = tokio::time::timeout(PATIENCE, quick).await;
    assert_eq!(answers.expect("nothing waits"), (0, 0));
    busy.commit().await.expect("commit");
    // What was in vain is right by now.
    assert_eq!(store.sweep_stopped(None, 10).await.expect("sweep").0, 1);
    assert_eq!(store.enlist(&[TaskId(unlisted)]).await.expect("enlist"), 1);
    let page = store.stranded(None, 10, Duration::MAX).await;
    assert_eq!(page.expect("walk").unlisted, []);
    store.close().await;
    other.close().await.expect("close");
    postgres.drop_database().await;
}

/// A stretch costs what its rows cost, in a table and beside a queue and claims that are much longer.
#[tokio::test]
#[ignore = "needs PostgreSQL: run cargo xtask test"]
async fn a_stretch_costs_what_its_rows_cost() {
    const ROWS: i64 = 40_000;
    const STRETCH: usize = 500;
    let postgres = Postgres::migrated().await;
    let mut options = task_processor_adapters::sql::SqlOptions::new(postgres.url());
    options.max_connections = 1;
    let store = task_processor_adapters::sql::SqlTaskStore::connect(options)
        .await
        .expect("connect");
    let session = store.database();
    let fill = format!(
        "INSERT INTO tasks (payload, priority, status, result)
             SELECT '', 0, 'done', '' FROM generate_series(1, {ROWS});
         INSERT INTO tasks (payload, priority) SELECT '', 0 FROM generate_series(1, {ROWS});
         INSERT INTO queue SELECT id, now(), false, 0 FROM tasks WHERE status = 'pending';
         INSERT INTO tasks (payload, priority, status) SELECT '', 0, 'failed' FROM generate_series(1, {ROWS});
         INSERT INTO stopped SELECT false, id FROM tasks WHERE status = 'failed';
         INSERT INTO workers VALUES (gen_random_uuid(), 'host:1', 0, NULL, false, now());
         INSERT INTO claims SELECT gen_random_uuid(), workers.id, '{{}}', '{{}}', now()
             FROM workers, generate_series(1, {ROWS})"
    );
    execute(&session, &fill).await;
    let read = async || {
        rows(&session, "SELECT pg_stat_force_next_flush()").await;
        let sum = "SELECT coalesce(sum(coalesce(idx_tup_fetch, 0) + seq_tup_read), 0)::bigint FROM pg_stat_user_tables
            WHERE relname IN ('tasks', 'queue', 'claims', 'stopped')";
        number(&session, sum).await
    };
    let mut before = read().await;
    let mut cost = async || {
        let after = read().await;
        let cost = after - before;
        before = after;
        cost
    };
    let stretch = i64::try_from(STRETCH).expect("small");
    let page = store.stranded(None, STRETCH, Duration::ZERO).await;
    assert_eq!(page.expect("walk").stranded, []);
    let walked = cost().await;
    assert!(walked <= stretch * 2 + 10, "{walked} rows for {STRETCH}");
    let swept = store.sweep_queue(None, STRETCH).await.expect("sweep");
    assert_eq!(swept.0, 0);
    let walked = cost().await;
    assert!(walked <= stretch * 2 + 10, "{walked} rows for {STRETCH}");
    let swept = store.sweep_stopped(None, STRETCH).await.expect("sweep");
    assert_eq!(swept.0, 0);
    // Both halves of the list are walked, and the entries read once more with their tasks.
    let walked = cost().await;
    assert!(walked <= stretch * 3 + 10, "{walked} rows for {STRETCH}");
    execute(&session, "UPDATE stopped SET cancelled = true, told = true").await;
    cost().await;
    let (untold, next) = store
        .untold(None, STRETCH, Duration::ZERO)
        .await
        .expect("walk");
    assert!(untold.is_empty() && next.is_some());
    let walked = cost().await;
    assert!(walked <= stretch + 10, "{walked} rows for {STRETCH}");
    let (pruned, _) = store
        .prune(None, STRETCH, Duration::from_secs(3_600))
        .await
        .expect("prune");
    assert_eq!(pruned, 0);
    let walked = cost().await;
    assert!(walked <= stretch * 2 + 10, "{walked} rows for {STRETCH}");
    let orphans = store.orphaned_claims(10).await.expect("orphaned claims");
    assert_eq!(orphans, []);
    let walked = cost().await;
    assert!(walked <= 10, "{walked} claims for one worker");
    store.close().await;
    postgres.drop_database().await;
}

/// A task becomes `pending` again after the sweep has looked and before it deletes: a trigger holds the sweep between the two.
#[tokio::test]
#[ignore = "needs PostgreSQL: run cargo xtask test"]
async fn a_row_that_is_renewed_behind_the_sweep_is_kept() {
    let postgres = Postgres::migrated().await;
    let store = postgres.store().await;
    let other = postgres.connection().await;
    let (renewed, in_vain) = (Uuid::now_v7(), Uuid::now_v7());
    execute(
        &other,
        &format!(
            "INSERT INTO tasks (id, payload, priority, status) VALUES ('{renewed}', '', 0, 'processing');
             INSERT INTO queue VALUES ('{renewed}', now(), false, 0), ('{in_vain}', now(), false, 0);
             CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN NULL; END';
             CREATE TRIGGER wait BEFORE DELETE ON queue FOR EACH STATEMENT EXECUTE FUNCTION wait()"
        ),
    )
    .await;
    let between = other.begin().await.expect("begin");
    between
        .execute_unprepared("SELECT pg_advisory_xact_lock(4711)")
        .await
        .expect("lock");
    let sweeper = store.clone();
    let sweeping = tokio::spawn(async move { sweeper.sweep_queue(None, 10).await });
    let waiters = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    while number(&other, waiters).await == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    between
        .execute_unprepared(&format!(
            "UPDATE tasks SET status = 'pending', fence = 1 WHERE id = '{renewed}';
             INSERT INTO queue VALUES ('{renewed}', now(), false, 0)
             ON CONFLICT (task_id) DO UPDATE SET not_before = excluded.not_before"
        ))
        .await
        .expect("renewed");
    between.commit().await.expect("commit");
    let swept = sweeping.await.expect("no panic").expect("sweep");
    assert_eq!(swept, (1, None));
    let left = texts(&other, "SELECT task_id::text FROM queue").await;
    assert_eq!(left, [renewed.to_string()]);
    store.close().await;
    other.close().await.expect("close");
    postgres.drop_database().await;
}

/// As many as the audit asks for in a second while the queue is long; a stray row stands at its end.
#[tokio::test]
#[ignore = "needs PostgreSQL: run cargo xtask test"]
async fn a_queue_of_100_000_rows_is_compared_in_seconds() {
    const STRETCH: usize = 10_000;
    let postgres = Postgres::migrated().await;
    let store = postgres.store().await;
    let waiting = "
        INSERT INTO tasks (id, payload, priority)
        SELECT (lpad(to_hex(number), 8, '0') || '-0000-7000-8000-000000000000')::uuid, repeat('x', 100), 0
        FROM generate_series(1, 100000) AS number";
    execute(&store.database(), waiting).await;
    let queued = "
        INSERT INTO queue (task_id, not_before, messaged, priority)
        SELECT id, '2999-01-01', false, 0 FROM tasks";
    execute(&store.database(), queued).await;
    let stray = "
        INSERT INTO queue (task_id, not_before, messaged, priority)
        VALUES ('ffffffff-0000-7000-8000-000000000000', '2999-01-01', false, 0)";
    execute(&store.database(), stray).await;
    let (mut after, mut deleted, mut longest) = (None, 0, Duration::ZERO);
    let mut stretches = 0;
    loop {
        let begun = std::time::Instant::now();
        let (swept, next) = store.sweep_queue(after, STRETCH).await.expect("sweep");
        longest = longest.max(begun.elapsed());
        (deleted, after, stretches) = (deleted + swept, next, stretches + 1);
        if after.is_none() {
            break;
        }
    }
    println!("the longest of {stretches} stretches of {STRETCH} rows took {longest:?}");
    assert_eq!((deleted, stretches), (1, 11));
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    let left = number(&store.database(), "SELECT count(*) FROM queue").await;
    assert_eq!(left, 100_000);
    store.close().await;
    postgres.drop_database().await;
}
