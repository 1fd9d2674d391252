//! What becomes of a connection between statements.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ports::{ConnectionPool, Connections, TaskStore};
use task_processor_adapters::sql::{SqlOptions, SqlTaskStore};
use tokio::task::JoinSet;

use crate::database::{Postgres, waiting};

async fn store_with(postgres: &Postgres, max_connections: u32) -> Arc<SqlTaskStore> {
    let options = SqlOptions {
        max_connections,
        ..SqlOptions::new(postgres.url())
    };
    SqlTaskStore::connect(options).await.expect("connect")
}

fn free(store: &SqlTaskStore) -> bool {
    let Connections { open, idle, .. } = store.connections();
    open > 0 && open == idle
}

/// It is free at once, without the server being asked about it, and taken again.
#[tokio::test]
#[ignore = "needs PostgreSQL: run cargo xtask test"]
async fn a_statement_leaves_its_connection_to_the_next() {
    let postgres = Postgres::migrated().await;
    let store = store_with(&postgres, 8).await;
    for _ in 0..100 {
        store.insert(&[waiting()]).await.expect("insert");
        // The driver, which would ask, can only do that in a task that did not run yet.
        assert!(free(&store), "{:?}", store.connections());
    }
    assert_eq!(store.connections().open, 1);
    store.close().await;
    postgres.drop_database().await;
}

/// However few or many there are: what is kept is in nobody's way, and closing waits for nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: run cargo xtask test"]
async fn connections_that_are_kept_are_in_nobodys_way() {
    let postgres = Postgres::migrated().await;
    for connections in [1, 2, 3, 8, 20] {
        let store = store_with(&postgres, connections).await;
        let mut callers = JoinSet::new();
        for _ in 0..40 {
            let store = Arc::clone(&store);
            callers.spawn(async move {
                for _ in 0..10 {
                    store.insert(&[waiting()]).await.expect("insert");
                    let database = store.database();
                    database.ping().await.expect("ping");
                }
            });
        }
        while let Some(ended) = callers.join_next().await {
            ended.expect("no panic");
        }
        assert!(store.connections().open <= connections);
        let began = Instant::now();
        store.close().await;
        assert!(
            began.elapsed() < Duration::from_secs(1),
            "{:?}",
            began.elapsed()
        );
        let refused = store.insert(&[waiting()]).await.expect_err("closed");
        assert!(refused.is_transient(), "{refused:?}");
        assert_eq!(store.connections().idle, 0);
    }
    postgres.drop_database().await;
}

/// An embedder may let go of a store anywhere.
#[test]
#[ignore = "needs PostgreSQL: run cargo xtask test"]
fn a_store_may_outlive_its_runtime() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (postgres, store) = runtime.block_on(async {
        let postgres = Postgres::migrated().await;
        let store = store_with(&postgres, 8).await;
        store.insert(&[waiting()]).await.expect("insert");
        (postgres, store)
    });
    drop(runtime);
    drop(store);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(postgres.drop_database());
}
