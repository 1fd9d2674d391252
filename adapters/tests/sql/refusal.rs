//! What others forbid, with a trigger, is refused for its data: whoever moves many tasks halves them until the culprit stands alone.

use ports::{
    Fence, NewTask, Next, Spent, StoreError, TaskId, TaskStatus, TaskStore, Transition,
    WriteOutcome,
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
    let moved = store.transition(&[cancelled(free)]).await.expect("moved");
    assert_eq!(moved[0].write, WriteOutcome::Applied);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run cargo xtask test"]
async fn what_a_trigger_forbids_is_refused_on_postgres() {
    let postgres = Postgres::migrated().await;
    let store = postgres.store().await;
    let ids = [Uuid::now_v7(), Uuid::now_v7()];
    plant(&store, ids).await;
    let trigger = format!(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN RAISE EXCEPTION ''not this one''; END';
         CREATE TRIGGER refuse BEFORE UPDATE ON tasks FOR EACH ROW
             WHEN (old.id = '{}') EXECUTE FUNCTION refuse()",
        ids[0]
    );
    execute(&store.database(), &trigger).await;
    check(&store, ids).await;
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
