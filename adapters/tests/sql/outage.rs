//! Lost connections, silent servers, dropped callers: the store comes back by itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ports::{
    ClaimId, ClaimTicket, Horizon, NewTask, Next, Spent, TaskId, TaskStatus, TaskStore, Transition,
    WorkerId, WorkerRegistry, WriteOutcome,
};
use sea_orm::{ConnectionTrait, TransactionTrait};
use task_processor_adapters::sql::{SqlOptions, SqlTaskStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;

use crate::database::{Postgres, execute, number, waiting};

fn tasks(count: usize) -> Vec<NewTask> {
    std::iter::repeat_with(waiting).take(count).collect()
}

/// Repeats a call until it is answered, as every use case does.
macro_rules! insist {
    ($call:expr) => {
        loop {
            match $call.await {
                Ok(answer) => break answer,
                Err(error) => assert!(error.is_transient(), "{error:?}"),
            }
        }
    };
}

/// One worker's life: inserts, claims, completes and releases, repeating whatever was not answered under the same ids.
async fn work(store: Arc<SqlTaskStore>, rounds: usize) -> usize {
    let worker = WorkerId(Uuid::now_v7());
    insist!(store.register(worker, "host:1"));
    for _ in 0..rounds {
        let fresh = tasks(20);
        insist!(store.insert(&fresh));
        let ticket = ClaimTicket {
            claim: ClaimId(Uuid::now_v7()),
            worker,
        };
        let claimed = loop {
            match store
                .claim_aged(ticket, Horizon::Now, Duration::ZERO, 20)
                .await
            {
                Ok(claimed) => break claimed,
                Err(ports::ClaimError::Store(error)) => assert!(error.is_transient(), "{error:?}"),
                Err(error) => panic!("{error:?}"),
            }
        };
        let done: Vec<Transition> = claimed
            .iter()
            .map(|task| Transition {
                id: task.id,
                fence: task.fence,
                from: TaskStatus::Processing,
                to: Next::Done {
                    result: task.id.to_string(),
                },
                spent: Spent::Attempt,
            })
            .collect();
        let outcomes = insist!(store.transition(&done));
        assert!(
            outcomes
                .iter()
                .all(|outcome| outcome.write != WriteOutcome::Stale)
        );
        insist!(store.release(&[ticket.claim]));
    }
    rounds * 20
}

/// Sessions are cut again and again in the middle of everything: nothing is lost, doubled or counted twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: run cargo xtask test"]
async fn cut_sessions_lose_nothing_and_count_nothing_twice() {
    let postgres = Postgres::migrated().await;
    let store = postgres.store().await;
    let other = postgres.connection().await;
    let working = Arc::new(AtomicBool::new(true));
    let cutter = {
        let (other, working) = (other.clone(), Arc::clone(&working));
        tokio::spawn(async move {
            let mut cuts = 0;
            while working.load(Ordering::Relaxed) {
                cuts += number(
                    &other,
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                     WHERE application_name = 'task-processor' AND datname = current_database()",
                )
                .await;
                tokio::time::sleep(Duration::from_millis(15)).await;
            }
            cuts
        })
    };
    let mut workers = JoinSet::new();
    for _ in 0..4 {
        workers.spawn(work(Arc::clone(&store), 12));
    }
    let mut expected = 0;
    while let Some(done) = workers.join_next().await {
        expected += done.expect("no panic");
    }
    working.store(false, Ordering::Relaxed);
    assert!(
        cutter.await.expect("no panic") > 10,
        "hardly anything was cut"
    );
    // What one worker's last claim left for another's is done by one more.
    let finisher = WorkerId(Uuid::now_v7());
    insist!(store.register(finisher, "host:2"));
    work(Arc::clone(&store), 5).await;
    expected += 100;
    let report = migration::verify(&other, migration::OVERDUE)
        .await
        .expect("verify");
    assert!(report.is_consistent(), "{report}");
    assert_eq!(report.tasks, expected as u64);
    assert_eq!(report.done.0 + report.queued, expected as u64);
    assert_eq!(report.claims, 0);
    store.close().await;
    other.close().await.expect("close");
    postgres.drop_database().await;
}

/// Callers hang up at every instant: no connection is left in a transaction or otherwise useless.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: run cargo xtask test"]
async fn dropped_callers_do_not_poison_the_pool() {
    let postgres = Postgres::migrated().await;
    let mut options = SqlOptions::new(postgres.url());
    options.max_connections = 2;
    options.acquire_timeout = Duration::from_secs(20);
    let store = SqlTaskStore::connect(options).await.expect("connect");
    let mut callers = JoinSet::new();
    for number in 0..400_u64 {
        let store = Arc::clone(&store);
        callers.spawn(async move {
            let patience = Duration::from_micros(number * 37 % 3_000);
            let _ = timeout(patience, store.insert(&tasks(5))).await;
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.expect("no panic");
    }
    for _ in 0..20 {
        store.insert(&tasks(1)).await.expect("insert");
    }
    let other = postgres.connection().await;
    let open = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
    assert_eq!(number(&other, open).await, 0);
    let report = migration::verify(&other, migration::OVERDUE)
        .await
        .expect("verify");
    assert!(report.is_consistent(), "{report}");
    store.close().await;
    other.close().await.expect("close");
    postgres.drop_database().await;
}

/// Stands between the store and the server, and can fall silent: packets vanish, connections stay.
struct Proxy {
    address: SocketAddr,
    silent: Arc<AtomicBool>,
    /// How many connections lost something because of that.
    hushed: Arc<AtomicUsize>,
    /// For how many milliseconds a new connection is kept waiting.
    hesitation: Arc<AtomicU64>,
    accepted: Arc<AtomicUsize>,
}

impl Proxy {
    async fn before(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("an address");
        let silent = Arc::new(AtomicBool::new(false));
        let accepted = Arc::new(AtomicUsize::new(0));
        let hesitation = Arc::new(AtomicU64::new(0));
        let (mute, count) = (Arc::clone(&silent), Arc::clone(&accepted));
        let hushed = Arc::new(AtomicUsize::new(0));
        let losses = Arc::clone(&hushed);
        let wait = Arc::clone(&hesitation);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.expect("accept");
                count.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(wait.load(Ordering::Relaxed))).await;
                let server = TcpStream::connect(&server).await.expect("connect");
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                for (from, to) in [(from_client, to_server), (from_server, to_client)] {
                    tokio::spawn(pass(from, to, Arc::clone(&mute), Arc::clone(&losses)));
                }
            }
        });
        Self {
            address,
            silent,
            hushed,
            hesitation,
            accepted,
        }
    }
}

/// A connection that was once silent stays so.
async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    silent: Arc<AtomicBool>,
    hushed: Arc<AtomicUsize>,
) {
    let mut buffer = vec![0; 65_536];
    let mut lost = false;
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if !lost && silent.load(Ordering::Relaxed) {
            lost = true;
            hushed.fetch_add(1, Ordering::Relaxed);
        }
        if !lost && to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: run cargo xtask test"]
async fn a_silent_server_is_given_up_and_the_store_comes_back() {
    let postgres = Postgres::migrated().await;
    let url = postgres.url();
    let (front, rest) = url.rsplit_once('@').expect("a URL with a user");
    let (server, database) = rest.split_once('/').expect("a URL with a database");
    let proxy = Proxy::before(server.to_owned()).await;
    let mut options = SqlOptions::new(format!("{front}@{}/{database}", proxy.address));
    options.max_connections = 1;
    options.acquire_timeout = Duration::from_millis(300);
    options.statement_timeout = Duration::from_millis(300);
    let store = SqlTaskStore::connect(options).await.expect("connect");
    store.insert(&tasks(3)).await.expect("insert");
    proxy.silent.store(true, Ordering::Relaxed);
    let lost = tasks(3);
    for outcome in [store.insert(&lost).await.map(|_| ()), store.ping().await] {
        let error = outcome.expect_err("nobody answers");
        assert!(error.is_transient(), "{error:?}");
    }
    proxy.silent.store(false, Ordering::Relaxed);
    // The only connection will never answer again, whether it was lost in a statement or on its way back to the pool.
    let start = Instant::now();
    insist!(store.insert(&lost));
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    assert!(proxy.accepted.load(Ordering::Relaxed) >= 2);
    let found = store.get(&[lost[0].id]).await.expect("get");
    assert!(found[0].is_some());
    store.close().await;
    postgres.drop_database().await;
}

/// How long what is sent is swallowed.
const HOLE: Duration = Duration::from_secs(8);

/// Waits until a number that others raise has come so far.
async fn reaches(number: &AtomicUsize, wanted: usize) {
    let reached = async {
        while number.load(Ordering::Relaxed) < wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let reached = timeout(Duration::from_secs(25), reached).await;
    reached.unwrap_or_else(|_| panic!("{} of {wanted}", number.load(Ordering::Relaxed)));
}

/// A hole swallows what is on the way while every connection stands. Under the default limits, which let a statement run for
/// half a minute, the store is of use again a few seconds after the hole, and not after those.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: run cargo xtask test"]
async fn what_a_hole_swallowed_is_missed_within_seconds() {
    let postgres = Postgres::migrated().await;
    let url = postgres.url();
    let (front, rest) = url.rsplit_once('@').expect("a URL with a user");
    let (server, database) = rest.split_once('/').expect("a URL with a database");
    let proxy = Proxy::before(server.to_owned()).await;
    let options = SqlOptions::new(format!("{front}@{}/{database}", proxy.address));
    let store = SqlTaskStore::connect(options).await.expect("connect");
    store.insert(&tasks(3)).await.expect("insert");
    proxy.silent.store(true, Ordering::Relaxed);
    let lost = tasks(3);
    let (inserting, submitted) = (Arc::clone(&store), lost.clone());
    let inserted = tokio::spawn(async move { insist!(inserting.insert(&submitted)) });
    reaches(&proxy.hushed, 1).await;
    tokio::time::sleep(HOLE).await;
    proxy.silent.store(false, Ordering::Relaxed);
    let end = Instant::now();
    inserted.await.expect("no panic");
    assert!(
        end.elapsed() < Duration::from_secs(8),
        "{:?}",
        end.elapsed()
    );
    let found = store.get(&[lost[0].id]).await.expect("get");
    assert!(found[0].is_some());
    store.close().await;
    postgres.drop_database().await;
}

/// A statement that the server does work on, however long within its limit, is not taken for a lost one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: run cargo xtask test"]
async fn a_slow_statement_is_not_taken_for_a_lost_one() {
    let postgres = Postgres::migrated().await;
    let other = postgres.connection().await;
    let url = postgres.url();
    let (front, rest) = url.rsplit_once('@').expect("a URL with a user");
    let (server, database) = rest.split_once('/').expect("a URL with a database");
    let proxy = Proxy::before(server.to_owned()).await;
    let mut options = SqlOptions::new(format!("{front}@{}/{database}", proxy.address));
    options.max_connections = 1;
    let store = SqlTaskStore::connect(options).await.expect("connect");
    store.insert(&tasks(1)).await.expect("insert");
    let lock = other.begin().await.expect("begin");
    lock.execute_unprepared("LOCK TABLE tasks")
        .await
        .expect("lock");
    let inserting = Arc::clone(&store);
    let inserted = tokio::spawn(async move { inserting.insert(&tasks(1)).await });
    // The one connection, and three for questions.
    reaches(&proxy.accepted, 4).await;
    lock.commit().await.expect("commit");
    inserted
        .await
        .expect("no panic")
        .expect("it was slow, and not lost");
    store.close().await;
    other.close().await.expect("close");
    postgres.drop_database().await;
}

/// After an outage on a busy machine a connection takes longer to open than any caller is patient.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: run cargo xtask test"]
async fn impatient_callers_do_not_keep_a_slow_server_away() {
    let postgres = Postgres::migrated().await;
    let other = postgres.connection().await;
    let url = postgres.url();
    let (front, rest) = url.rsplit_once('@').expect("a URL with a user");
    let (server, database) = rest.split_once('/').expect("a URL with a database");
    let proxy = Proxy::before(server.to_owned()).await;
    let mut options = SqlOptions::new(format!("{front}@{}/{database}", proxy.address));
    options.max_connections = 1;
    let store = SqlTaskStore::connect(options).await.expect("connect");
    proxy.hesitation.store(600, Ordering::Relaxed);
    number(
        &other,
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE application_name = 'task-processor' AND datname = current_database()",
    )
    .await;
    let fresh = tasks(1);
    let answered = async {
        while !matches!(
            timeout(Duration::from_millis(200), store.insert(&fresh)).await,
            Ok(Ok(_))
        ) {}
    };
    timeout(Duration::from_secs(20), answered)
        .await
        .expect("the connection is opened once, whoever waits for it");
    store.close().await;
    other.close().await.expect("close");
    postgres.drop_database().await;
}

/// A statement that waits for someone else's lock is given up in time, and says that it may be repeated.
#[tokio::test]
#[ignore = "needs PostgreSQL: run cargo xtask test"]
async fn a_statement_that_waits_too_long_is_transient() {
    let postgres = Postgres::migrated().await;
    let other = postgres.connection().await;
    let mut options = SqlOptions::new(postgres.url());
    options.statement_timeout = Duration::from_millis(200);
    let store = SqlTaskStore::connect(options).await.expect("connect");
    let holding = other.clone();
    let holder = tokio::spawn(async move {
        execute(
            &holding,
            "BEGIN; LOCK TABLE tasks; SELECT pg_sleep(1); COMMIT",
        )
        .await;
    });
    while number(
        &other,
        "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted
        AND relation = to_regclass('tasks')",
    )
    .await
        == 0
    {
        tokio::task::yield_now().await;
    }
    let fresh = tasks(1);
    let error = store.insert(&fresh).await.expect_err("it waits too long");
    assert!(error.is_transient(), "{error:?}");
    holder.await.expect("no panic");
    insist!(store.insert(&fresh));
    store.close().await;
    other.close().await.expect("close");
    postgres.drop_database().await;
}

/// After a failover the address may lead to a standby for a while, and sessions that began there may only read, for as long as they
/// last: they are given up, and the store writes again as soon as new sessions may.
#[tokio::test]
#[ignore = "needs PostgreSQL: run cargo xtask test"]
async fn sessions_that_may_only_read_are_given_up() {
    let postgres = Postgres::migrated().await;
    let other = postgres.connection().await;
    let setting = async |how: &str| {
        let sql = format!(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I {how}', current_database()); END $$"
        );
        execute(&other, &sql).await;
    };
    setting("SET default_transaction_read_only = on").await;
    let mut options = SqlOptions::new(postgres.url());
    // A second session would begin when it may write, and hide what the first one does.
    options.max_connections = 1;
    let store = SqlTaskStore::connect(options).await.expect("connect");
    let accepted = tasks(3);
    let refused = store.insert(&accepted).await.expect_err("a standby");
    assert!(refused.is_transient(), "{refused:?}");
    // What only reads is answered all the same.
    let ids: Vec<TaskId> = accepted.iter().map(|task| task.id).collect();
    assert_eq!(store.get(&ids).await.expect("get"), [None, None, None]);
    setting("RESET default_transaction_read_only").await;
    let outcomes = timeout(Duration::from_secs(10), async {
        insist!(store.insert(&accepted))
    });
    let outcomes = outcomes.await.expect("the sessions are given up");
    assert!(
        outcomes
            .iter()
            .all(|outcome| outcome.write == WriteOutcome::Applied)
    );
    store.close().await;
    other.close().await.expect("close");
    postgres.drop_database().await;
}
