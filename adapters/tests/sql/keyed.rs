//! Requests under keys, as servers on one database meet on them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ports::{Fingerprint, KeyedRequest, NewTask, Payload, RequestKey, TaskStore};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::database::{Postgres, execute, number, waiting};
use crate::plans::{check, plans, store_of_one_session};

fn request(key: &str) -> KeyedRequest {
    KeyedRequest {
        key: RequestKey::new("anonymous", "submitTask", key).expect("a valid key"),
        fingerprint: Fingerprint([7; 32]),
        tasks: vec![NewTask {
            payload: Payload::new("Hello world!").expect("no NUL"),
            ..waiting()
        }],
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run cargo xtask test"]
async fn a_hundred_requests_with_one_key_over_two_servers_store_one_task() {
    let postgres = Postgres::migrated().await;
    let servers = [postgres.store().await, postgres.store().await];
    let other = postgres.connection().await;
    for round in 1..=3_i64 {
        let key = format!("key-{round}");
        let barrier = Arc::new(Barrier::new(100));
        let mut clients = JoinSet::new();
        for client in 0..100 {
            let server = Arc::clone(&servers[client % 2]);
            let (barrier, request) = (Arc::clone(&barrier), request(&key));
            clients.spawn(async move {
                barrier.wait().await;
                let kept = server.insert_keyed(&[request]).await.expect("an answer");
                (kept[0].tasks.clone(), kept[0].created_at)
            });
        }
        let answers: BTreeSet<_> = clients.join_all().await.into_iter().collect();
        assert_eq!(answers.len(), 1, "everyone has the same answer");
        for table in ["tasks", "queue", "idempotency_keys"] {
            let count = number(&other, &format!("SELECT count(*) FROM {table}")).await;
            assert_eq!(count, round, "{table}");
        }
    }
    for server in servers {
        server.close().await;
    }
    other.close().await.expect("close");
    postgres.drop_database().await;
}

/// With a table full of keys, what the store really asks finds its own by the primary key and the oldest by the index of their age.
#[tokio::test]
#[ignore = "needs PostgreSQL: run cargo xtask test"]
async fn keys_are_found_by_index() {
    let postgres = Postgres::migrated().await;
    let other = postgres.connection().await;
    let full = "INSERT INTO idempotency_keys
        SELECT 'anonymous submitTask ' || n, repeat('0', 64), ARRAY[gen_random_uuid()], LOCALTIMESTAMP
        FROM generate_series(1, 50000) AS n";
    execute(&other, full).await;
    execute(&other, "ANALYZE idempotency_keys").await;
    let store = store_of_one_session(&postgres).await;
    for _ in 0..2 {
        let kept = store.insert_keyed(&[request("a")]).await;
        assert_eq!(kept.expect("kept").len(), 1);
    }
    let pruned = store.prune_keys(Duration::from_secs(60), 1_000).await;
    assert_eq!(pruned.expect("pruned"), 0);
    let mut by_key = 0;
    let mut by_age = 0;
    for (statement, plan) in plans(&store.database()).await {
        check(&statement, &plan);
        by_key += usize::from(plan.contains("idempotency_keys_pkey"));
        by_age += usize::from(plan.contains("idempotency_keys_by_age"));
    }
    assert_eq!(
        (by_key, by_age),
        (3, 1),
        "a request, what is kept of it, and a deletion of what is old"
    );
    store.close().await;
    other.close().await.expect("close");
    postgres.drop_database().await;
}
