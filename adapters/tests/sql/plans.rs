//! The plans must be certain: `queue` and `claims` are all churn, and what the planner believes about them is wrong most
//! of the time.

use std::sync::Arc;
use std::time::Duration;

use ports::{
    ClaimId, ClaimTicket, DeliveryOutcome, Fence, Fingerprint, Horizon, KeyedRequest, Listing,
    NewTask, Next, Payload, RequestKey, Spent, TaskAudit, TaskCatalog, TaskId, TaskStatus,
    TaskStore, TaskSurvey, Timestamp, Transition, WorkerId, WorkerRegistry,
};
use sea_orm::{ConnectionTrait, DatabaseConnection, TransactionTrait};
use task_processor_adapters::sql::{SqlOptions, SqlTaskStore};
use uuid::Uuid;

use crate::database::{Postgres, execute, number, rows, texts, waiting};

/// What grows, or is all churn.
const TABLES: [&str; 5] = ["tasks", "queue", "claims", "stopped", "idempotency_keys"];

/// A store of one session, so that the test sees the plans of exactly the session that did the work.
pub(crate) async fn store_of_one_session(postgres: &Postgres) -> Arc<SqlTaskStore> {
    let mut options = SqlOptions::new(postgres.url());
    options.max_connections = 1;
    SqlTaskStore::connect(options).await.expect("connect")
}

fn tasks(count: usize, messaged: bool) -> Vec<NewTask> {
    let one = || NewTask {
        payload: Payload::new("Hello world!").expect("no NUL"),
        messaged,
        ..waiting()
    };
    std::iter::repeat_with(one).take(count).collect()
}

fn ticket(worker: WorkerId) -> ClaimTicket {
    ClaimTicket {
        claim: ClaimId(Uuid::now_v7()),
        worker,
    }
}

fn transition(id: TaskId, fence: Fence, from: TaskStatus, to: Next) -> Transition {
    Transition {
        id,
        fence,
        from,
        to,
        spent: Spent::Attempt,
    }
}

fn done() -> Next {
    Next::Done {
        result: "!dlrow olleH (len=12)".to_owned(),
    }
}

/// Every method at least once, every kind of transition included.
async fn whole_lives(store: &SqlTaskStore, worker: WorkerId, count: usize) {
    let fresh = tasks(count, true);
    let ids: Vec<TaskId> = fresh.iter().map(|task| task.id).collect();
    store.insert(&fresh).await.expect("insert");
    store.insert(&fresh[..1]).await.expect("insert again");
    store.mark_unmessaged(&ids[..1]).await.expect("mark");
    let cancelled = transition(ids[0], Fence(0), TaskStatus::Pending, Next::Cancelled);
    store.transition(&[cancelled]).await.expect("cancel");
    let delivered = ticket(worker);
    let outcomes = store.claim_delivered(delivered, &ids).await.expect("claim");
    let claimed = |outcome: &&DeliveryOutcome| matches!(outcome, DeliveryOutcome::Claimed(_));
    assert_eq!(outcomes.iter().filter(claimed).count(), count - 1);
    store
        .claim_delivered(delivered, &ids)
        .await
        .expect("claim again");
    let waiting = Next::Pending {
        delay: Duration::ZERO,
        error: None,
    };
    let again = transition(ids[1], Fence(1), TaskStatus::Processing, waiting);
    store.transition(&[again]).await.expect("hand back");
    let rest: Vec<Transition> = ids[2..]
        .iter()
        .map(|id| transition(*id, Fence(1), TaskStatus::Processing, done()))
        .collect();
    store.transition(&rest).await.expect("complete");
    store.transition(&rest[..1]).await.expect("complete again");
    let mut aged = Vec::new();
    // Both orders of the two kinds.
    for _ in 0..2 {
        let by_age = ticket(worker);
        let claimed = store.claim_aged(by_age, Horizon::Now, Duration::ZERO, 100);
        let claimed = claimed.await.expect("claim by age");
        aged.extend(claimed.iter().map(|task| (task.id, task.fence)));
        store.release(&[by_age.claim]).await.expect("release");
    }
    assert_eq!(aged, [(ids[1], Fence(3))]);
    let last = transition(ids[1], Fence(3), TaskStatus::Processing, done());
    store.transition(&[last]).await.expect("complete");
    store.get(&ids).await.expect("get");
    store.whereabouts(&ids).await.expect("whereabouts");
    store.claims_of(worker, None, 10).await.expect("claims");
    store.release(&[delivered.claim]).await.expect("release");
    store.totals().await.expect("totals");
    let found = store.stranded(None, 1_000, Duration::ZERO).await;
    assert_eq!(found.expect("walk").stranded, []);
    assert_eq!(store.enqueue(&ids).await.expect("enqueue"), 0);
    let (swept, _) = store.sweep_queue(None, 1_000).await.expect("sweep");
    assert_eq!(swept, 0);
    assert_eq!(store.enlist(&ids).await.expect("enlist"), 0);
    let (swept, _) = store.sweep_stopped(None, 1_000).await.expect("sweep");
    assert_eq!(swept, 0);
    store
        .untold(None, 1_000, Duration::ZERO)
        .await
        .expect("untold");
    store.mark_told(&ids).await.expect("mark");
    store.orphaned_claims(10).await.expect("orphaned claims");
    store.survey().await.expect("survey");
    catalog(store, &ids).await;
    let (pruned, _) = store
        .prune(None, 1_000, Duration::ZERO)
        .await
        .expect("prune");
    assert_eq!(pruned, count.min(1_000));
    keyed(store).await;
}

/// A request under a key, and again, until both are forgotten.
async fn keyed(store: &SqlTaskStore) {
    let key = Uuid::now_v7().to_string();
    let request = KeyedRequest {
        key: RequestKey::new("anonymous", "submitTask", &key).expect("a valid key"),
        fingerprint: Fingerprint([7; 32]),
        tasks: tasks(1, true),
    };
    let id = request.tasks[0].id;
    for _ in 0..2 {
        let kept = store.insert_keyed(std::slice::from_ref(&request)).await;
        assert_eq!(kept.expect("kept")[0].tasks, [id]);
    }
    let pruned = store.prune_keys(Duration::ZERO, 1_000).await;
    assert_eq!(pruned.expect("prune"), 1);
    let cancelled = transition(id, Fence(0), TaskStatus::Pending, Next::Cancelled);
    store.transition(&[cancelled]).await.expect("cancel");
    let pruned = store.prune(None, 1_000, Duration::ZERO).await;
    assert_eq!(pruned.expect("prune").0, 1);
}

/// Every listing, and a look at one of them.
async fn catalog(store: &SqlTaskStore, ids: &[TaskId]) {
    for status in std::iter::once(None).chain(TaskStatus::ALL.map(Some)) {
        let listing = Listing {
            status,
            priority: None,
            created_from: None,
            created_before: None,
            below: None,
            walk: 1_000,
            limit: 100,
            bytes: usize::MAX,
        };
        store.list(&listing).await.expect("list");
    }
    store.inspect(ids[0], 10_000).await.expect("inspect");
}

/// Each statement the session prepared about these tables, with the plan it would run now, whatever the parameters.
pub(crate) async fn plans(session: &DatabaseConnection) -> Vec<(String, String)> {
    let prepared = rows(
        session,
        "SELECT name, statement, cardinality(parameter_types) FROM pg_prepared_statements
         WHERE statement ~ '(tasks|queue|claims|stopped|idempotency_keys)' AND statement !~ 'pg_prepared_statements'",
    )
    .await;
    let mut plans = Vec::new();
    for row in &prepared {
        let name: String = row.try_get_by_index(0).expect("name");
        let statement: String = row.try_get_by_index(1).expect("statement");
        let parameters: i32 = row.try_get_by_index(2).expect("parameters");
        let nulls = vec!["NULL"; usize::try_from(parameters).expect("a count")].join(", ");
        let arguments = if nulls.is_empty() {
            String::new()
        } else {
            format!("({nulls})")
        };
        let plan = texts(session, &format!("EXPLAIN EXECUTE {name}{arguments}")).await;
        plans.push((statement, plan.join("\n")));
    }
    plans
}

pub(crate) fn check(statement: &str, plan: &str) {
    let complain = |what: &str| format!("{what} in\n{plan}\n\nof{statement}");
    let lines: Vec<&str> = plan.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        for table in TABLES {
            let scans = line.contains(&format!(" on {table}")) && line.contains("Scan");
            if !scans {
                continue;
            }
            assert!(line.contains("Index"), "{}", complain(line.trim()));
            let condition = lines.get(index + 1).copied().unwrap_or_default();
            assert!(
                condition.contains("Index Cond:"),
                "{}",
                complain("no index condition")
            );
            let by_age = line.contains("queue_by_age");
            let ranged = condition.contains("messaged = ") && condition.contains("not_before <= ");
            assert_eq!(by_age, ranged, "{}", complain("the wrong index"));
        }
        for join in ["Nested Loop", "Merge Join", "Seq Scan on queue"] {
            assert!(!line.contains(join), "{}", complain(join));
        }
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run cargo xtask test"]
async fn every_plan_is_by_index_whatever_the_statistics_say() {
    let postgres = Postgres::migrated().await;
    let other = postgres.connection().await;
    for table in TABLES.iter().chain(&["workers", "totals"]) {
        execute(
            &other,
            &format!("ALTER TABLE {table} SET (autovacuum_enabled = off)"),
        )
        .await;
    }
    let store = store_of_one_session(&postgres).await;
    let worker = WorkerId(Uuid::now_v7());
    store.register(worker, "host:1").await.expect("register");
    // The plans are made on empty tables and kept.
    whole_lives(&store, worker, 4).await;
    let session = store.database();
    let mut checked = 0;
    for state in ["no statistics", "empty then", "full then", "churned"] {
        match state {
            "empty then" => execute(&other, "ANALYZE").await,
            "full then" => {
                store.insert(&tasks(5_000, false)).await.expect("insert");
                execute(&other, "ANALYZE").await;
                execute(
                    &other,
                    "DELETE FROM queue; DELETE FROM tasks WHERE status = 'pending'",
                )
                .await;
            }
            "churned" => {
                for _ in 0..20 {
                    whole_lives(&store, worker, 500).await;
                }
            }
            _ => {}
        }
        whole_lives(&store, worker, 4).await;
        let plans = plans(&session).await;
        // Insert twice, created_at, get, whereabouts, claim by delivery and twice by age, what is held, transition, claims of a worker,
        // mark, release; walk, enqueue, enlist, both sweeps, what is not told, mark, orphaned claims; transition of stopped ones, four listings, inspect; a request
        // under a key, what is kept of it, and its end.
        assert!(plans.len() >= 30, "only {} plans: {state}", plans.len());
        for (statement, plan) in &plans {
            check(statement, plan);
            checked += 1;
        }
    }
    assert!(checked >= 100);
    // What was planned is what happened: only whole tables were never read.
    let scans = "SELECT coalesce(sum(seq_scan), 0)::bigint FROM pg_stat_xact_user_tables
        WHERE relname IN ('tasks', 'queue', 'claims', 'stopped', 'idempotency_keys')";
    assert_eq!(number(&session, scans).await, 0);
    store.close().await;
    other.close().await.expect("close");
    postgres.drop_database().await;
}

/// Tasks deep in the past, a horizon of long ago: the edges of what the database can hold.
#[tokio::test]
#[ignore = "needs PostgreSQL: run cargo xtask test"]
async fn times_beyond_what_the_database_holds_become_its_edges() {
    let postgres = Postgres::migrated().await;
    let store = postgres.store().await;
    let worker = WorkerId(Uuid::now_v7());
    store.register(worker, "host:1").await.expect("register");
    let mut extremes = tasks(2, false);
    extremes[0].run_at = Some(Timestamp::from_micros(i64::MIN));
    extremes[1].run_at = Some(Timestamp::from_micros(i64::MAX));
    store.insert(&extremes).await.expect("insert");
    for horizon in [i64::MIN, i64::MAX].map(Timestamp::from_micros) {
        let claimed = store
            .claim_aged(ticket(worker), Horizon::Before(horizon), Duration::MAX, 10)
            .await
            .expect("claim by age");
        let expected = usize::from(horizon.as_micros() > 0);
        assert_eq!(claimed.len(), expected);
        let back = claimed.iter().map(|task| {
            let never = Next::Pending {
                delay: Duration::MAX,
                error: None,
            };
            transition(task.id, task.fence, TaskStatus::Processing, never)
        });
        store
            .transition(&back.collect::<Vec<_>>())
            .await
            .expect("hand back");
    }
    store.close().await;
    postgres.drop_database().await;
}

/// A transaction that nobody ends keeps every dead entry of the queue's index in place: asking for aged rows must not walk
/// over all of them every time.
#[tokio::test]
#[ignore = "needs PostgreSQL: run cargo xtask test"]
async fn dead_entries_are_not_walked_again_and_again() {
    const DEAD: i64 = 400_000;
    let postgres = Postgres::migrated().await;
    let other = postgres.connection().await;
    let pinning = other.begin().await.expect("begin");
    pinning
        .execute_unprepared(
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM queue",
        )
        .await
        .expect("a snapshot");
    let churn = format!(
        "INSERT INTO queue SELECT gen_random_uuid(), now() - interval '1 hour' + n * interval '1 microsecond', true, 0
         FROM generate_series(1, {DEAD}) AS n"
    );
    execute(&other, &churn).await;
    execute(&other, "DELETE FROM queue").await;
    let store = store_of_one_session(&postgres).await;
    let session = store.database();
    let worker = WorkerId(Uuid::now_v7());
    store.register(worker, "host:1").await.expect("register");
    let grace = Duration::from_secs(3);
    let read = "SELECT coalesce(sum(idx_tup_read), 0)::bigint FROM pg_stat_user_indexes
        WHERE indexrelname = 'queue_by_age'";
    // What a session counted, it reports when it is asked to.
    let walked = async || {
        rows(&session, "SELECT pg_stat_force_next_flush()").await;
        number(&session, read).await
    };
    let before = walked().await;
    let asked = async || {
        let claimed = store
            .claim_aged(ticket(worker), Horizon::Now, grace, 100)
            .await;
        claimed.expect("claim by age").len()
    };
    assert_eq!(asked().await, 0);
    let whole = walked().await - before;
    assert!(whole >= DEAD, "the first walk saw {whole} entries");
    for _ in 0..20 {
        assert_eq!(asked().await, 0);
    }
    let again = walked().await - before - whole;
    assert!(again < DEAD, "twenty more walks saw {again} entries");
    // What is new is found at once, and what another server gives up as soon as this store hears of it.
    store.insert(&tasks(3, false)).await.expect("insert");
    assert_eq!(asked().await, 3);
    let old = NewTask {
        run_at: Some(Timestamp::from_micros(1)),
        ..tasks(1, true).remove(0)
    };
    store
        .insert(std::slice::from_ref(&old))
        .await
        .expect("insert");
    assert_eq!(asked().await, 1);
    pinning.rollback().await.expect("rollback");
    store.close().await;
    other.close().await.expect("close");
    postgres.drop_database().await;
}
