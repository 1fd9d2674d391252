//! What others forbid, with a trigger, is refused for its data: whoever moves many tasks halves them until the culprit stands alone.

use std::time::Duration;

use ports::{
    ClaimError, ClaimId, ClaimTicket, DeliveryOutcome, Fence, Horizon, NewTask, Next, Spent,
    StoreError, TaskAudit, TaskId, TaskStatus, TaskStore, Transition, WorkerId, WorkerRegistry,
};
use task_processor_adapters::sql::SqlTaskStore;
use uuid::Uuid;

use crate::database::{Postgres, SqliteFile, execute, waiting};

fn cancelled(id: Uuid) -> Transition {
    Transition {
        id: TaskId(id),
        fence: Fence(0),
        from: TaskStatus::Pending,
        to: Next::Cancelled,
        spent: Spent::Nothing,
    }
}

async fn plant(store: &SqlTaskStore, ids: [Uuid; 2]) {
    for id in ids {
        let task = NewTask {
            id: TaskId(id),
            ..waiting()
        };
        store.insert(&[task]).await.expect("insert");
    }
}

/// A trigger lets nobody update the first of them.
async fn check(store: &SqlTaskStore, [guarded, free]: [Uuid; 2]) {
    let refused = store
        .transition(&[cancelled(free), cancelled(guarded)])
        .await;
    assert!(
        matches!(refused, Err(StoreError::Rejected(_))),
        "{refused:?}"
    );
    let worker = WorkerId(Uuid::now_v7());
    store.register(worker, "w").await.expect("register");
    let ticket = || ClaimTicket {
        claim: ClaimId(Uuid::now_v7()),
        worker,
    };
    let [guarded, free] = [TaskId(guarded), TaskId(free)];
    let refused = store.claim_delivered(ticket(), &[free, guarded]).await;
    let is_refused = |error| matches!(error, ClaimError::Store(StoreError::Rejected(_)));
    assert!(refused.is_err_and(is_refused));
    // A statement that failed may hold its rows for a moment after its client knows, and who claims passes over what is held.
    let refused = patiently(async || {
        match store
            .claim_aged(ticket(), Horizon::Now, Duration::ZERO, 10)
            .await
        {
            Ok(claimed) => {
                assert!(claimed.is_empty(), "{claimed:?}");
                None
            }
            Err(error) => Some(error),
        }
    });
    assert!(is_refused(refused.await));
    patiently(async || {
        let claimed = store.claim_delivered(ticket(), &[free]).await;
        matches!(claimed.expect("claimed")[..], [DeliveryOutcome::Claimed(_)]).then_some(())
    })
    .await;
}

/// What this answers at last.
async fn patiently<T>(ask: impl AsyncFn() -> Option<T>) -> T {
    for _ in 0..500 {
        if let Some(answer) = ask().await {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no answer within seconds");
}

/// A table of others refers to the first of them, and keeps it.
async fn check_pruning(store: &SqlTaskStore, table: &str) {
    let [kept, free] = [Uuid::now_v7(), Uuid::now_v7()];
    plant(store, [kept, free]).await;
    for id in [kept, free] {
        let done = Transition {
            to: Next::Cancelled,
            ..cancelled(id)
        };
        store.transition(&[done]).await.expect("moved");
    }
    execute(&store.database(), table).await;
    let refer = "INSERT INTO of_others SELECT id FROM tasks ORDER BY id LIMIT 1";
    execute(&store.database(), refer).await;
    let whole = store.prune(None, 10, Duration::ZERO).await;
    assert!(matches!(whole, Err(StoreError::Rejected(_))), "{whole:?}");
    let alone = store.prune(None, 1, Duration::ZERO).await;
    assert!(matches!(alone, Err(StoreError::Rejected(_))), "{alone:?}");
    let behind = store.stranded(None, 1, Duration::ZERO).await;
    let behind = behind.expect("walked").next;
    assert_eq!(behind, Some(TaskId(kept)));
    let rest = store.prune(behind, 10, Duration::ZERO).await;
    assert_eq!(rest.expect("pruned").0, 1);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run cargo xtask test"]
async fn what_a_trigger_forbids_is_refused_on_postgres() {
    let postgres = Postgres::migrated().await;
    let store = postgres.store().await;
    let ids = [Uuid::now_v7(), Uuid::now_v7()];
    plant(&store, ids).await;
    guard(&store, ids[0], "RAISE EXCEPTION ''not this one''").await;
    check(&store, ids).await;
    store.close().await;
    postgres.drop_database().await;
}

async fn guard(store: &SqlTaskStore, id: Uuid, body: &str) {
    let trigger = format!(
        "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN {body}; RETURN new; END';
         CREATE OR REPLACE TRIGGER refuse BEFORE UPDATE ON tasks FOR EACH ROW
             WHEN (old.id = '{id}') EXECUTE FUNCTION refuse()"
    );
    execute(&store.database(), &trigger).await;
}

/// What a trigger breaks of the rules of others says nothing of the worker, nor of its claim.
#[tokio::test]
#[ignore = "needs PostgreSQL: run cargo xtask test"]
async fn what_breaks_a_rule_of_others_is_refused_on_postgres() {
    let postgres = Postgres::migrated().await;
    let store = postgres.store().await;
    let tables = "CREATE TABLE others (id integer PRIMARY KEY);
        CREATE TABLE more (id integer REFERENCES others (id));
        INSERT INTO others VALUES (1)";
    execute(&store.database(), tables).await;
    for body in [
        "INSERT INTO more VALUES (2)",
        "INSERT INTO others VALUES (1)",
        "ASSERT false",
        "RAISE EXCEPTION ''not this one'' USING ERRCODE = ''45000''",
    ] {
        let ids = [Uuid::now_v7(), Uuid::now_v7()];
        plant(&store, ids).await;
        guard(&store, ids[0], body).await;
        check(&store, ids).await;
        execute(&store.database(), "TRUNCATE queue").await;
    }
    store.close().await;
    postgres.drop_database().await;
}

#[tokio::test]
async fn what_a_trigger_forbids_is_refused_on_sqlite() {
    let file = SqliteFile::create();
    let store = file.store().await;
    migration::up(&store.database()).await.expect("migrate");
    let ids = [Uuid::now_v7(), Uuid::now_v7()];
    plant(&store, ids).await;
    let trigger = format!(
        "CREATE TRIGGER refuse BEFORE UPDATE ON tasks WHEN old.id = '{}'
             BEGIN SELECT RAISE(ABORT, 'not this one'); END",
        ids[0]
    );
    execute(&store.database(), &trigger).await;
    check(&store, ids).await;
    store.close().await;
    file.remove();
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run cargo xtask test"]
async fn what_a_table_of_others_refers_to_is_not_pruned_on_postgres() {
    let postgres = Postgres::migrated().await;
    let store = postgres.store().await;
    let table = "CREATE TABLE of_others (task_id uuid PRIMARY KEY REFERENCES tasks (id))";
    check_pruning(&store, table).await;
    store.close().await;
    postgres.drop_database().await;
}

#[tokio::test]
async fn what_a_table_of_others_refers_to_is_not_pruned_on_sqlite() {
    let file = SqliteFile::create();
    let store = file.store().await;
    migration::up(&store.database()).await.expect("migrate");
    let table = "CREATE TABLE of_others (task_id PRIMARY KEY REFERENCES tasks (id))";
    check_pruning(&store, table).await;
    store.close().await;
    file.remove();
}
