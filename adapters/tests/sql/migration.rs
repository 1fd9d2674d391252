//! Migrations in general, and what `verify` finds.

use migration::Report;
use ports::{
    ClaimId, ClaimTicket, ClaimedTask, Horizon, NewTask, Next, Spent, TaskAudit, TaskId,
    TaskStatus, TaskStore, Transition, WorkerId, WorkerRegistry, WriteOutcome,
};
use sea_orm::DatabaseConnection;
use std::time::Duration;
use task_processor_adapters::sql::SqlTaskStore;
use uuid::Uuid;

use crate::adoption::EXISTING_TABLE;
use crate::database::{Postgres, SqliteFile, execute, number, texts, waiting};

#[tokio::test]
#[ignore = "needs PostgreSQL: run cargo xtask test"]
async fn of_ten_replicas_one_migrates_and_the_others_find_it_done() {
    for existing in [false, true] {
        let postgres = Postgres::create().await;
        let other = postgres.connection().await;
        if existing {
            execute(&other, EXISTING_TABLE).await;
            execute(
                &other,
                "INSERT INTO tasks (payload, priority) SELECT 'x', 1 FROM generate_series(1, 2000)",
            )
            .await;
        }
        let replicas = (0..10).map(|_| {
            let url = postgres.url();
            tokio::spawn(async move {
                let store =
                    SqlTaskStore::connect(task_processor_adapters::sql::SqlOptions::new(url))
                        .await
                        .expect("connect");
                let applied = migration::up(&store.database()).await.expect("up");
                store.ping().await.expect("ping");
                store.close().await;
                applied.len()
            })
        });
        let mut applied = 0;
        for replica in replicas.collect::<Vec<_>>() {
            applied += replica.await.expect("no panic");
        }
        assert_eq!(applied, 4, "existing: {existing}");
        let queued = number(&other, "SELECT count(*) FROM queue").await;
        assert_eq!(queued, if existing { 2_000 } else { 0 });
        let report = migration::verify(&other, migration::OVERDUE)
            .await
            .expect("verify");
        assert!(report.is_consistent(), "{report}");
        other.close().await.expect("close");
        postgres.drop_database().await;
    }
}

/// `up`, `status` and `down`, each twice.
async fn back_and_forth(database: &DatabaseConnection) {
    let applied = async || {
        let status = migration::status(database).await.expect("status");
        let names: Vec<&str> = status.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "m0001_create_or_adopt",
                "m0002_keep_keys",
                "m0003_list_stopped",
                "m0004_tell_cancelled"
            ]
        );
        let applied = status[0].applied;
        assert!(status.iter().all(|step| step.applied == applied));
        applied
    };
    for _ in 0..2 {
        assert!(!applied().await);
        assert_eq!(migration::up(database).await.expect("up").len(), 4);
        assert!(applied().await);
        assert!(migration::up(database).await.expect("up again").is_empty());
        let report = migration::verify(database, migration::OVERDUE)
            .await
            .expect("verify");
        let empty = Report {
            overdue: migration::OVERDUE,
            ..Report::default()
        };
        assert_eq!(report, empty);
        assert!(report.is_consistent());
        assert_eq!(migration::down(database).await.expect("down").len(), 4);
        assert!(
            migration::down(database)
                .await
                .expect("down again")
                .is_empty()
        );
        migration::verify(database, migration::OVERDUE)
            .await
            .expect_err("there is nothing to verify");
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run cargo xtask test"]
async fn postgres_goes_back_and_forth() {
    let postgres = Postgres::create().await;
    let other = postgres.connection().await;
    let store = postgres.store().await;
    back_and_forth(&store.database()).await;
    let left = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace";
    assert_eq!(number(&other, left).await, 0);
    let types = "SELECT count(*) FROM pg_type WHERE typname = 'task_status'";
    assert_eq!(number(&other, types).await, 0);
    store.close().await;
    other.close().await.expect("close");
    postgres.drop_database().await;
}

#[tokio::test]
async fn sqlite_goes_back_and_forth() {
    let file = SqliteFile::create();
    let store = file.store().await;
    let database = store.database();
    back_and_forth(&database).await;
    assert!(
        texts(&database, "SELECT name FROM sqlite_schema")
            .await
            .is_empty()
    );
    store.close().await;
    file.remove();
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run cargo xtask test"]
async fn hot_tables_are_tuned() {
    let postgres = Postgres::migrated().await;
    let other = postgres.connection().await;
    let settings = "SELECT concat(relname, ': ', unnest(reloptions)) FROM pg_class
        WHERE relname IN ('tasks', 'queue', 'claims') ORDER BY 1";
    let settings = texts(&other, settings).await;
    for expected in [
        "claims: autovacuum_vacuum_scale_factor=0",
        "queue: autovacuum_vacuum_scale_factor=0",
        "queue: autovacuum_vacuum_threshold=5000",
        "tasks: fillfactor=50",
        "tasks: autovacuum_vacuum_scale_factor=0.02",
    ] {
        assert!(
            settings.iter().any(|setting| setting == expected),
            "{expected}: {settings:#?}"
        );
    }
    // An index that names the status would end HOT for every change of it.
    let indexes = "SELECT indexdef FROM pg_indexes WHERE tablename = 'tasks'";
    let indexes = texts(&other, indexes).await;
    assert!(
        indexes.iter().all(|index| !index.contains("status")),
        "{indexes:?}"
    );
    other.close().await.expect("close");
    postgres.drop_database().await;
}

/// Plants every inconsistency that there can be, one at a time, and sees it named and then gone.
async fn plant_and_find(store: &SqlTaskStore, first_claimed: &str) {
    let database = store.database();
    let worker = WorkerId(Uuid::now_v7());
    store.register(worker, "host:1").await.expect("register");
    let tasks: [NewTask; 6] = std::array::from_fn(|_| waiting());
    store.insert(&tasks).await.expect("insert");
    let ticket = ClaimTicket {
        claim: ClaimId(Uuid::now_v7()),
        worker,
    };
    let claimed = store
        .claim_aged(ticket, Horizon::Now, Duration::ZERO, 3)
        .await;
    let claimed = claimed.expect("claim by age");
    assert_eq!(claimed.len(), 3);
    let (waiting, held) = (tasks[5].id.to_string(), claimed[0].id.to_string());
    let check = async |plant: &str, undo: &str, found: &dyn Fn(&Report) -> bool| {
        execute(&database, plant).await;
        let report = migration::verify(&database, migration::OVERDUE)
            .await
            .expect("verify");
        assert!(found(&report), "{plant}: {report}");
        assert!(!report.is_consistent());
        assert!(report.to_string().ends_with("NOT consistent"));
        execute(&database, undo).await;
        let report = migration::verify(&database, migration::OVERDUE)
            .await
            .expect("verify");
        assert!(report.is_consistent(), "{undo}: {report}");
        assert!(!report.to_string().contains("NOT"));
    };
    check(
        &format!("INSERT INTO stopped (cancelled, task_id) VALUES (1 > 0, '{waiting}')"),
        "DELETE FROM stopped",
        &|report| report.listed_in_vain.first == [waiting.clone()],
    )
    .await;
    check(
        &format!("DELETE FROM queue WHERE task_id = '{waiting}'; UPDATE tasks SET status = 'failed' WHERE id = '{waiting}'"),
        &format!("INSERT INTO stopped (cancelled, task_id) VALUES (1 < 0, '{waiting}')"),
        &|report| report.unlisted.first == [waiting.clone()] && report.unlisted.count == 1,
    )
    .await;
    execute(
        &database,
        &format!("DELETE FROM stopped; UPDATE tasks SET status = 'pending' WHERE id = '{waiting}'"),
    )
    .await;
    let given = store.enqueue(&[tasks[5].id]).await;
    assert_eq!(given.expect("enqueue"), 1);
    check(
        &format!("UPDATE tasks SET status = 'processing' WHERE id = '{waiting}'"),
        &format!("UPDATE tasks SET status = 'pending' WHERE id = '{waiting}'"),
        &|report| {
            report.unclaimed.first == [waiting.clone()]
                && report.unclaimed.count == 1
                && report.queued_in_vain.first == [waiting.clone()]
        },
    )
    .await;
    check(
        &format!("UPDATE tasks SET fence = 7 WHERE id = '{held}'"),
        &format!("UPDATE tasks SET fence = 1 WHERE id = '{held}'"),
        &|report| report.unclaimed.first == [held.clone()],
    )
    .await;
    check(
        &format!("UPDATE tasks SET status = 'pending' WHERE id = '{held}'"),
        &format!("UPDATE tasks SET status = 'processing' WHERE id = '{held}'"),
        &|report| report.unqueued.first == [held.clone()],
    )
    .await;
    check(
        &first_claimed
            .replace("WORKER", &worker.to_string())
            .replace("TASK", &held),
        "DELETE FROM claims WHERE id = '00000000-0000-4000-8000-000000000001'",
        &|report| report.claimed_twice.first == [held.clone()],
    )
    .await;
    check(
        "UPDATE totals SET done = done + 1 WHERE shard = 0",
        "UPDATE totals SET done = done - 1 WHERE shard = 0",
        &|report| report.done == (0, 1),
    )
    .await;
    check(
        "UPDATE totals SET elapsed_us = elapsed_us - 3 WHERE shard = 0",
        "UPDATE totals SET elapsed_us = elapsed_us + 3 WHERE shard = 0",
        &|report| report.elapsed_micros == (0, -3),
    )
    .await;
    // A row of the older service is no fault while its message may be on its way, and is told.
    execute(
        &database,
        &format!("DELETE FROM queue WHERE task_id = '{waiting}'"),
    )
    .await;
    let report = migration::verify(&database, migration::OVERDUE)
        .await
        .expect("verify");
    assert!(report.is_consistent(), "{report}");
    assert_eq!(
        (report.waiting_for_message, report.queued, report.claims),
        (1, 2, 1)
    );
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run cargo xtask test"]
async fn verify_reports_planted_inconsistencies_on_postgres() {
    let postgres = Postgres::migrated().await;
    let store = postgres.store().await;
    plant_and_find(
        &store,
        "INSERT INTO claims (id, worker_id, task_ids, fences, claimed_at)
         VALUES ('00000000-0000-4000-8000-000000000001', 'WORKER', '{TASK}', '{1}', now())",
    )
    .await;
    store.close().await;
    postgres.drop_database().await;
}

#[tokio::test]
async fn verify_reports_planted_inconsistencies_on_sqlite() {
    let file = SqliteFile::create();
    let store = file.store().await;
    migration::up(&store.database()).await.expect("up");
    plant_and_find(
        &store,
        "INSERT INTO claims (id, worker_id, tasks, claimed_at)
         VALUES ('00000000-0000-4000-8000-000000000001', 'WORKER', '[[\"TASK\",1]]', 0)",
    )
    .await;
    store.close().await;
    file.remove();
}

/// What one database says in its own words.
struct Words {
    /// A time long past.
    long_ago: &'static str,
    /// Records the claim `CLAIM` of a worker that is not registered.
    plant_orphan: &'static str,
}

/// What ends by itself is a fault once it has had its time, counted from the last that moved; and not before.
async fn leave_behind_and_find(store: &SqlTaskStore, words: &Words) {
    let database = store.database();
    let verify = async |overdue| {
        let report = migration::verify(&database, overdue).await;
        let report = report.expect("verify");
        assert_eq!(report.overdue, overdue);
        report
    };
    let young = async || {
        let report = verify(migration::OVERDUE).await;
        assert!(report.is_consistent(), "{report}");
        report
    };
    let tasks: [NewTask; 3] = std::array::from_fn(|_| waiting());
    store.insert(&tasks).await.expect("insert");
    let ids = tasks.each_ref().map(|task| task.id.to_string());

    // One of the older service: its message may be on its way.
    let other = &ids[2];
    execute(
        &database,
        &format!("DELETE FROM queue WHERE task_id = '{other}'"),
    )
    .await;
    let report = young().await;
    assert_eq!(report.waiting_for_message, 1, "{report}");
    let report = verify(Duration::ZERO).await;
    let unpublished = report.unpublished.first.as_slice();
    assert_eq!(unpublished, std::slice::from_ref(other), "{report}");
    assert_eq!(
        (report.unpublished.count, report.waiting_for_message),
        (1, 0)
    );
    assert!(!report.is_consistent());
    let given = store.enqueue(&[tasks[2].id]).await;
    assert_eq!(given.expect("enqueue"), 1);

    // A claim that waits for its announcement beside one whose task runs; both were made long ago, as was their worker.
    let worker = WorkerId(Uuid::now_v7());
    store.register(worker, "host:1").await.expect("register");
    let mut claims = Vec::new();
    for _ in 0..2 {
        claims.push(claim_one(store, worker).await);
    }
    let [(announcing, ended), (_, running)] = claims.as_slice() else {
        unreachable!("two were claimed");
    };
    let outcomes = store.transition(&[fail(ended)]).await.expect("transition");
    assert_eq!(outcomes[0].write, WriteOutcome::Applied);
    let Words {
        long_ago,
        plant_orphan,
    } = words;
    execute(
        &database,
        &format!("UPDATE claims SET claimed_at = {long_ago}; UPDATE workers SET registered_at = {long_ago}"),
    )
    .await;
    young().await;
    let report = verify(Duration::ZERO).await;
    assert_eq!(
        report.idle_claims.first,
        [announcing.to_string()],
        "{report}"
    );
    assert_eq!((report.idle_claims.count, report.unburied.count), (1, 0));
    let age = |id: TaskId| format!("UPDATE tasks SET updated_at = {long_ago} WHERE id = '{id}'");
    execute(&database, &age(ended.id)).await;
    let report = verify(migration::OVERDUE).await;
    assert_eq!(
        report.idle_claims.first,
        [announcing.to_string()],
        "{report}"
    );
    assert!(!report.is_consistent());
    store.release(&[*announcing]).await.expect("release");
    young().await;

    // A dead worker, whose task was only just touched, and then not for long.
    let dead = store.declare_dead(worker, 0).await.expect("declare dead");
    assert_eq!(dead, WriteOutcome::Applied);
    young().await;
    execute(&database, &age(running.id)).await;
    let report = verify(migration::OVERDUE).await;
    assert_eq!(report.unburied.first, [worker.to_string()], "{report}");
    assert_eq!((report.unburied.count, report.idle_claims.count), (1, 0));
    assert!(!report.is_consistent());
    let outcomes = store
        .transition(&[fail(running)])
        .await
        .expect("transition");
    assert_eq!(outcomes[0].write, WriteOutcome::Applied);
    execute(&database, "DELETE FROM claims; DELETE FROM workers").await;
    young().await;

    // A claim of nobody is a fault however young.
    let claim = Uuid::now_v7().to_string();
    execute(&database, &plant_orphan.replace("CLAIM", &claim)).await;
    let report = verify(migration::OVERDUE).await;
    assert_eq!(report.orphaned_claims.first, [claim], "{report}");
    assert!(!report.is_consistent());
}

async fn claim_one(store: &SqlTaskStore, worker: WorkerId) -> (ClaimId, ClaimedTask) {
    let claim = ClaimId(Uuid::now_v7());
    let ticket = ClaimTicket { claim, worker };
    let claimed = store
        .claim_aged(ticket, Horizon::Now, Duration::ZERO, 1)
        .await;
    let claimed = claimed.expect("claim by age").pop();
    (claim, claimed.expect("one waits"))
}

fn fail(task: &ClaimedTask) -> Transition {
    Transition {
        id: task.id,
        fence: task.fence,
        from: TaskStatus::Processing,
        to: Next::Failed {
            error: "as ordered".to_owned(),
        },
        spent: Spent::Attempt,
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run cargo xtask test"]
async fn verify_tells_what_is_overdue_and_not_what_waits_on_postgres() {
    let postgres = Postgres::migrated().await;
    let store = postgres.store().await;
    let words = Words {
        long_ago: "timestamp '2001-01-01'",
        plant_orphan: "BEGIN; SET LOCAL session_replication_role = replica;
            INSERT INTO claims VALUES ('CLAIM', gen_random_uuid(), '{}', '{}', LOCALTIMESTAMP);
            COMMIT",
    };
    leave_behind_and_find(&store, &words).await;
    store.close().await;
    postgres.drop_database().await;
}

#[tokio::test]
async fn verify_tells_what_is_overdue_and_not_what_waits_on_sqlite() {
    let file = SqliteFile::create();
    let store = file.store().await;
    migration::up(&store.database()).await.expect("up");
    let words = Words {
        long_ago: "1000000",
        plant_orphan: "PRAGMA foreign_keys = off;
            INSERT INTO claims VALUES ('CLAIM', 'nobody', '[]', unixepoch() * 1000000);
            PRAGMA foreign_keys = on",
    };
    leave_behind_and_find(&store, &words).await;
    store.close().await;
    file.remove();
}
