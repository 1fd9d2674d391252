//! The first migration on the existing service's table.

use std::time::Duration;

use ports::{
    ClaimId, ClaimTicket, DeliveryOutcome, Horizon, Next, Spent, TaskId, TaskStatus, TaskStore,
    Timestamp, Transition, WorkerId, WorkerRegistry, WriteOutcome,
};
use sea_orm::DatabaseConnection;
use task_processor_adapters::sql::SqlTaskStore;
use uuid::Uuid;

use crate::database::{Postgres, execute, number, rows, texts, waiting};

/// As the contract describes it, made by another program.
pub(crate) const EXISTING_TABLE: &str = "
CREATE TYPE task_status AS ENUM ('pending', 'processing', 'done', 'failed');
CREATE TABLE tasks (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    payload text NOT NULL,
    priority integer NOT NULL,
    status task_status NOT NULL DEFAULT 'pending',
    result text,
    created_at timestamp NOT NULL DEFAULT now(),
    updated_at timestamp NOT NULL DEFAULT now()
);";

/// A thousand rows of every status: version 4 ids, priorities that no API would accept, times below the millisecond.
const EXISTING_ROWS: &str = "
INSERT INTO tasks (id, payload, priority, status, result, created_at, updated_at)
SELECT gen_random_uuid(), 'payload ' || n || ' 👍🏽', (ARRAY[0, 5, 10, 42, -3, 2147483647])[1 + n % 6], status,
    CASE status WHEN 'done' THEN 'result ' || n END,
    timestamp '2024-03-10 01:59:59.123456' + n * interval '1.000777 seconds',
    timestamp '2024-03-10 01:59:59.123456' + n * interval '1.001777 seconds' + interval '1.000001 seconds'
FROM generate_series(1, 1000) AS n, unnest(enum_range(NULL::task_status)) AS status;";

const SEVEN: &str =
    "SELECT concat_ws('|', id, payload, priority, result, created_at) FROM tasks ORDER BY id";

async fn existing() -> (Postgres, DatabaseConnection) {
    let postgres = Postgres::create().await;
    let other = postgres.connection().await;
    execute(&other, EXISTING_TABLE).await;
    execute(&other, EXISTING_ROWS).await;
    (postgres, other)
}

async fn finish(postgres: Postgres, other: DatabaseConnection) {
    other.close().await.expect("close");
    postgres.drop_database().await;
}

async fn assert_consistent(database: &DatabaseConnection) {
    let report = migration::verify(database, migration::OVERDUE)
        .await
        .expect("verify");
    assert!(report.is_consistent(), "{report}");
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run cargo xtask test"]
async fn adoption_keeps_every_row_and_queues_what_is_unfinished() {
    let (postgres, other) = existing().await;
    let before = texts(&other, SEVEN).await;
    let rest = "SELECT concat_ws('|', id, status, updated_at) FROM tasks
        WHERE status IN ('done', 'failed') ORDER BY id";
    let rest_before = texts(&other, rest).await;

    let store = postgres.store().await;
    let applied = migration::up(&store.database()).await.expect("up");
    assert_eq!(
        applied,
        [
            "m0001_create_or_adopt",
            "m0002_keep_keys",
            "m0003_list_stopped",
            "m0004_tell_cancelled"
        ]
    );

    assert_eq!(texts(&other, SEVEN).await, before);
    assert_eq!(texts(&other, rest).await, rest_before);
    let counted = texts(
        &other,
        "SELECT concat_ws(' ', status, fence, attempts, max_attempts, rescues, count(*)) FROM tasks
         GROUP BY status, fence, attempts, max_attempts, rescues ORDER BY status, fence",
    )
    .await;
    assert_eq!(
        counted,
        [
            "pending 0 0 5 0 1000",
            "pending 1 0 5 0 1000",
            "done 0 0 5 0 1000",
            "failed 0 0 5 0 1000"
        ]
    );
    let queued = texts(
        &other,
        "SELECT concat_ws(' ', messaged, in_order, valid, count(*)) FROM (
             SELECT messaged, not_before = created_at AS in_order, queue.priority BETWEEN 0 AND 10 AS valid
             FROM queue JOIN tasks ON id = task_id WHERE status = 'pending'
         ) AS queued GROUP BY messaged, in_order, valid",
    )
    .await;
    assert_eq!(queued, ["f t t 2000"]);
    let expected = rows(
        &other,
        "SELECT count(*), sum(round(extract(epoch FROM updated_at - created_at) * 1000000))::bigint
         FROM tasks WHERE status = 'done'",
    )
    .await;
    let totals = store.totals().await.expect("totals");
    assert_eq!(totals.done, 1_000);
    let micros: i64 = expected[0].try_get_by_index(1).expect("a sum");
    assert_eq!(totals.elapsed_micros, i128::from(micros));
    assert_consistent(&store.database()).await;
    store.close().await;
    finish(postgres, other).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run cargo xtask test"]
async fn adopted_tasks_are_read_and_processed() {
    let (postgres, other) = existing().await;
    let store = postgres.store().await;
    migration::up(&store.database()).await.expect("up");
    let ids = "SELECT id::text FROM tasks WHERE status = ";
    let finished = texts(&other, &format!("{ids}'done' ORDER BY id LIMIT 50")).await;
    let finished: Vec<TaskId> = finished
        .iter()
        .map(|id| id.parse().expect("a UUID"))
        .collect();
    for task in store
        .get(&finished)
        .await
        .expect("get")
        .into_iter()
        .flatten()
    {
        let result = task.to_result().expect("a done task has a result");
        assert!(result.result.starts_with("result "), "{result:?}");
        let micros = number(
            &other,
            &format!(
                "SELECT (extract(epoch FROM updated_at) * 1000000)::bigint FROM tasks WHERE id = '{}'",
                task.id
            ),
        )
        .await;
        assert_eq!(result.processed_at, Timestamp::from_micros(micros));
        assert!(task.priority.get() <= 10);
    }
    let worker = WorkerId(Uuid::now_v7());
    store.register(worker, "host:1").await.expect("register");
    assert_eq!(process_by_age(&store, worker).await, 2_000);
    assert_eq!(
        number(&other, "SELECT count(*) FROM tasks WHERE status = 'done'").await,
        3_000
    );
    assert_eq!(store.totals().await.expect("totals").done, 3_000);
    assert_consistent(&store.database()).await;
    store.close().await;
    finish(postgres, other).await;
}

/// Claims whatever waits and completes it; answers how many.
async fn process_by_age(store: &SqlTaskStore, worker: WorkerId) -> usize {
    let mut processed = 0;
    loop {
        let ticket = ClaimTicket {
            claim: ClaimId(Uuid::now_v7()),
            worker,
        };
        let claimed = store
            .claim_aged(ticket, Horizon::Now, Duration::ZERO, 300)
            .await
            .expect("claim by age");
        if claimed.is_empty() {
            return processed;
        }
        processed += claimed.len();
        let done: Vec<Transition> = claimed
            .iter()
            .map(|task| Transition {
                id: task.id,
                fence: task.fence,
                from: TaskStatus::Processing,
                to: Next::Done {
                    result: task.payload.as_str().to_owned(),
                },
                spent: Spent::Attempt,
            })
            .collect();
        let outcomes = store.transition(&done).await.expect("complete");
        assert!(
            outcomes
                .iter()
                .all(|outcome| outcome.write == WriteOutcome::Applied)
        );
        store.release(&[ticket.claim]).await.expect("release");
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run cargo xtask test"]
async fn the_older_service_may_insert_while_its_table_is_adopted() {
    let (postgres, other) = existing().await;
    let store = postgres.store().await;
    let connection = postgres.connection().await;
    let inserting = tokio::spawn(async move {
        // Its own columns only, each row a statement of its own, before, during and after.
        for number in 0..400 {
            let sql = format!("INSERT INTO tasks (payload, priority) VALUES ('late {number}', 1)");
            execute(&connection, &sql).await;
        }
        connection.close().await.expect("close");
    });
    // Somewhere in the middle.
    while number(&other, "SELECT count(*) FROM tasks").await < 4_100 {
        tokio::task::yield_now().await;
    }
    migration::up(&store.database()).await.expect("up");
    inserting.await.expect("no panic");
    assert_eq!(number(&other, "SELECT count(*) FROM tasks").await, 4_400);
    let report = migration::verify(&store.database(), migration::OVERDUE)
        .await
        .expect("verify");
    assert!(report.is_consistent(), "{report}");
    // What came later waits for its message, which then claims it.
    let ids = texts(
        &other,
        "SELECT id::text FROM tasks WHERE status = 'pending' AND id NOT IN (SELECT task_id FROM queue)",
    )
    .await;
    assert_eq!(report.waiting_for_message, ids.len() as u64);
    assert!(!ids.is_empty(), "the migration came after all of them");
    let ids: Vec<TaskId> = ids.iter().map(|id| id.parse().expect("a UUID")).collect();
    let worker = WorkerId(Uuid::now_v7());
    store.register(worker, "host:1").await.expect("register");
    let ticket = ClaimTicket {
        claim: ClaimId(Uuid::now_v7()),
        worker,
    };
    let outcomes = store.claim_delivered(ticket, &ids).await.expect("claim");
    let claimed = |outcome: &DeliveryOutcome| matches!(outcome, DeliveryOutcome::Claimed(_));
    assert!(outcomes.iter().all(claimed));
    store.close().await;
    finish(postgres, other).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run cargo xtask test"]
async fn down_after_adoption_gives_the_older_service_its_table_back() {
    let (postgres, other) = existing().await;
    execute(
        &other,
        "ALTER TABLE tasks SET (fillfactor = 87, autovacuum_enabled = false)",
    )
    .await;
    let store = postgres.store().await;
    let database = store.database();
    let before = texts(&other, SEVEN).await;
    migration::up(&database).await.expect("up");
    execute(
        &other,
        "UPDATE tasks SET status = 'cancelled' WHERE id IN (SELECT task_id FROM queue ORDER BY task_id LIMIT 10);
         UPDATE tasks SET status = 'processing' WHERE id IN (SELECT task_id FROM queue ORDER BY task_id OFFSET 10 LIMIT 10)",
    )
    .await;
    let taken = migration::down(&database).await.expect("down");
    assert_eq!(
        taken,
        [
            "m0004_tell_cancelled",
            "m0003_list_stopped",
            "m0002_keep_keys",
            "m0001_create_or_adopt"
        ]
    );
    assert_eq!(texts(&other, SEVEN).await, before);
    let statuses =
        "SELECT concat(status, ' ', count(*)) FROM tasks GROUP BY status ORDER BY status";
    assert_eq!(
        texts(&other, statuses).await,
        ["pending 1990", "done 1000", "failed 1010"]
    );
    let columns = "SELECT attname::text FROM pg_attribute
        WHERE attrelid = 'tasks'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
    assert_eq!(
        texts(&other, columns).await,
        [
            "id",
            "payload",
            "priority",
            "status",
            "result",
            "created_at",
            "updated_at"
        ]
    );
    let tables = "SELECT relname::text FROM pg_class
        WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1";
    assert_eq!(texts(&other, tables).await, ["tasks"]);
    let settings =
        "SELECT unnest(reloptions) FROM pg_class WHERE oid = 'tasks'::regclass ORDER BY 1";
    assert_eq!(
        texts(&other, settings).await,
        ["autovacuum_enabled=false", "fillfactor=87"]
    );
    // It works as before, and can be adopted again.
    execute(
        &other,
        "INSERT INTO tasks (payload, priority) VALUES ('again', 3)",
    )
    .await;
    assert!(
        migration::down(&database)
            .await
            .expect("down again")
            .is_empty()
    );
    migration::up(&database).await.expect("up again");
    assert_eq!(number(&other, "SELECT count(*) FROM queue").await, 1_991);
    assert_consistent(&database).await;
    store.close().await;
    finish(postgres, other).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run cargo xtask test"]
async fn a_table_of_someone_else_is_refused_with_what_differs() {
    let postgres = Postgres::create().await;
    let other = postgres.connection().await;
    execute(
        &other,
        "CREATE TABLE tasks (id serial, payload text, status text, created_at timestamptz)",
    )
    .await;
    let error = migration::up(&other)
        .await
        .expect_err("refused")
        .to_string();
    for part in [
        "id is integer, not uuid",
        "no column priority",
        "status is text, not task_status",
        "no column result",
        "created_at is timestamp with time zone, not timestamp without time zone",
        "no column updated_at",
        "id is not unique",
        "no value pending",
    ] {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
    let tables = "SELECT relname::text FROM pg_class
        WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace";
    assert_eq!(
        texts(&other, tables).await,
        ["tasks"],
        "nothing was changed"
    );
    finish(postgres, other).await;
}

/// The database's own default zone is not UTC, and neither is the other session's.
#[tokio::test]
#[ignore = "needs PostgreSQL: run cargo xtask test"]
async fn times_are_utc_whatever_the_server_says() {
    let postgres = Postgres::create().await;
    let other = postgres.connection().await;
    let name = texts(&other, "SELECT current_database()::text").await;
    execute(
        &other,
        &format!("ALTER DATABASE {} SET timezone = 'Asia/Kolkata'", name[0]),
    )
    .await;
    let store = postgres.store().await;
    migration::up(&store.database()).await.expect("up");
    let outcome = store.insert(&[waiting()]).await.expect("insert");
    let now = number(
        &other,
        "SELECT (extract(epoch FROM now()) * 1000000)::bigint",
    )
    .await;
    let apart = Timestamp::from_micros(now).micros_since(outcome[0].created_at);
    assert!(
        (0..60_000_000).contains(&apart),
        "{apart} microseconds apart"
    );
    store.close().await;
    finish(postgres, other).await;
}
