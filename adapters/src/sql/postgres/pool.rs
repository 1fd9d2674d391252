//! Connections to PostgreSQL, and what every session of ours is set to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use sea_orm::sqlx::postgres::Postgres;
use sea_orm::sqlx::query::Query;
use sea_orm::sqlx::{Error as DriverError, query_with};
use sea_orm::{
    ConnAcquireErr, ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbBackend,
    DbErr, QueryResult, RuntimeErr, Statement, Value, Values,
};
use sea_query_sqlx::SqlxValues;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::kept::{Kept, Session};
use crate::sql::SqlOptions;
use crate::sql::failure::is_read_only;

/// How much longer than the server's own limits an answer is awaited before the server counts as silent. The driver sets
/// no keepalive on its sockets, so without this a server that vanished would be waited for without end.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long an answer is awaited before the server is asked, over another connection, whether it works on it at all. What
/// a network or something in it swallowed while a connection stood is never answered, though the server is well again.
const SUSPICION: Duration = Duration::from_secs(2);

/// How long that question may take, opening the connection for it included. A server that does not answer it proves nothing.
const QUESTION: Duration = Duration::from_secs(3);

/// How long a statement that the server does work on is left alone before the next question.
const REASSURED: Duration = Duration::from_secs(2);

/// Whether a session works on this statement, and not on a moment's notice: others send the same text. A session that
/// reads from its client, or writes to it, waits for us. `disabled` is a server that does not say.
const AT_WORK: &str = "SELECT 1 FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND datname = current_database()
        AND state IN ('active', 'disabled') AND wait_event_type IS DISTINCT FROM 'Client'
        AND starts_with($1, query) AND coalesce(query_start < statement_timestamp() - interval '1 second', true)
    LIMIT 1";

/// How old connections must be to be given up because they may only read: while every server is a standby, no statement opens
/// connections of its own.
const STANDBY: Duration = Duration::from_secs(1);

/// How long a pool may take to close.
const CLOSING: Duration = Duration::from_secs(5);

/// The planner is told what it cannot know about tables that are all churn; the statements leave it one plan. Generic
/// plans are made once per session instead of once per call.
const SESSION: [(&str, &str); 12] = [
    ("timezone", "UTC"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_nestloop", "off"),
    ("enable_mergejoin", "off"),
    ("plan_cache_mode", "force_generic_plan"),
    ("jit", "off"),
    ("default_transaction_isolation", "read committed"),
    ("lock_timeout", "0"),
    // A client that vanished without a word holds no locks for longer than about a minute.
    ("tcp_keepalives_idle", "30"),
    ("tcp_keepalives_interval", "10"),
    ("tcp_keepalives_count", "3"),
];

/// Why connections are given up.
const SILENT: &str = "the database was silent";

pub(super) struct Pool {
    current: RwLock<Arc<Connections>>,
    options: SqlOptions,
    waits: Waits,
}

/// How many statements wait for a connection, and for how long they ever have.
#[derive(Default)]
struct Waits {
    now: AtomicU64,
    micros: AtomicU64,
}

impl Waits {
    async fn during<T>(&self, wait: impl Future<Output = T>) -> T {
        self.now.fetch_add(1, Ordering::Relaxed);
        let began = Instant::now();
        let outcome = wait.await;
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
        self.now.fetch_sub(1, Ordering::Relaxed);
        outcome
    }
}

/// One pool of the driver's, and when it last proved to be of use.
struct Connections {
    database: DatabaseConnection,
    kept: Kept,
    /// One permit for each connection: who has one waits for the server, and for nobody of ours.
    places: Semaphore,
    opened: Instant,
    answered: Mutex<Instant>,
}

impl Connections {
    async fn open(options: &SqlOptions, lazy: bool) -> Result<Arc<Self>, DbErr> {
        Ok(Arc::new(Self {
            database: Database::connect(settings(options, lazy)).await?,
            kept: Kept::of(options.max_connections),
            places: Semaphore::new(usize::try_from(options.max_connections).unwrap_or(usize::MAX)),
            opened: Instant::now(),
            answered: Mutex::new(Instant::now()),
        }))
    }

    /// For one statement.
    async fn session(&self) -> Result<Session, DbErr> {
        if let Some(session) = self.kept.take() {
            return Ok(session);
        }
        let driver = self.database.get_postgres_connection_pool();
        let connection = driver.acquire().await.map_err(|error| match error {
            DriverError::PoolTimedOut => DbErr::ConnectionAcquire(ConnAcquireErr::Timeout),
            DriverError::PoolClosed => DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed),
            other => DbErr::Conn(RuntimeErr::SqlxError(other.into())),
        })?;
        Ok(Session::new(connection))
    }

    fn note_answer(&self) {
        *self.answered.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn silent_for(&self) -> Duration {
        let answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        answered.elapsed()
    }

    /// Closes what can be closed in time. The rest is left to the operating system: a connection whose server is silent
    /// is never given back, and waiting for it would take for ever.
    async fn close(&self) {
        self.kept.close();
        let closing = self.database.clone().close();
        match timeout(CLOSING, closing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "closing the database connections failed"),
            Err(_elapsed) => tracing::debug!("database connections did not close in time"),
        }
    }
}

impl Pool {
    pub(super) async fn connect(options: SqlOptions) -> Result<Self, DbErr> {
        crate::tls::settle_provider();
        let connections = Connections::open(&options, false).await?;
        Ok(Self {
            current: RwLock::new(connections),
            options,
            waits: Waits::default(),
        })
    }

    pub(super) fn current(&self) -> DatabaseConnection {
        self.connections().database.clone()
    }

    pub(super) fn standing(&self) -> ports::Connections {
        let connections = self.connections();
        let driver = connections.database.get_postgres_connection_pool();
        let idle = u32::try_from(driver.num_idle()).unwrap_or(u32::MAX);
        let idle = idle.saturating_add(connections.kept.count());
        ports::Connections {
            limit: self.options.max_connections,
            open: driver.size(),
            // The driver counts the two one after the other.
            idle: idle.min(driver.size()),
            waiting: self.waits.now.load(Ordering::Relaxed),
            waited: Duration::from_micros(self.waits.micros.load(Ordering::Relaxed)),
        }
    }

    fn connections(&self) -> Arc<Connections> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current)
    }

    /// The rows that a statement answers.
    pub(super) async fn rows(
        &self,
        sql: &'static str,
        values: Vec<Value>,
    ) -> Result<Vec<QueryResult>, DbErr> {
        let connections = self.connections();
        let rows = async {
            let mut session = connections.session().await?;
            let rows = statement(sql, values).fetch_all(&mut *session.connection);
            let rows = rows.await.map_err(failed)?;
            connections.kept.keep(session);
            Ok(rows.into_iter().map(QueryResult::from).collect())
        };
        self.within_patience(&connections, sql, rows).await
    }

    /// How many rows a statement wrote.
    pub(super) async fn execute(
        &self,
        sql: &'static str,
        values: Vec<Value>,
    ) -> Result<u64, DbErr> {
        let connections = self.connections();
        let written = async {
            let mut session = connections.session().await?;
            let outcome = statement(sql, values).execute(&mut *session.connection);
            let outcome = outcome.await.map_err(failed)?;
            connections.kept.keep(session);
            Ok(outcome.rows_affected())
        };
        self.within_patience(&connections, sql, written).await
    }

    /// Longer than any statement of a server that answers at all.
    fn patience(&self) -> Duration {
        self.options.acquire_timeout + self.options.statement_timeout + PATIENCE
    }

    /// What a statement answers, unless its connections turn out to be of no use.
    async fn within_patience<T>(
        &self,
        connections: &Arc<Connections>,
        sql: &'static str,
        work: impl Future<Output = Result<T, DbErr>>,
    ) -> Result<T, DbErr> {
        let limit = self.patience();
        let place = match connections.places.try_acquire() {
            Ok(place) => Ok(Ok(place)),
            Err(_) => {
                let place = timeout(self.options.acquire_timeout, connections.places.acquire());
                self.waits.during(place).await
            }
        };
        let outcome = match place {
            Ok(_place) => {
                tokio::pin!(work);
                match timeout(SUSPICION, &mut work).await {
                    Ok(outcome) => Ok(outcome),
                    Err(_elapsed) => tokio::select! {
                        biased;
                        outcome = timeout(limit.saturating_sub(SUSPICION), work) => outcome,
                        fresh = self.found_lost(sql) => {
                            self.replace(connections, fresh, SILENT);
                            return Err(DbErr::Conn(RuntimeErr::Internal(
                                "the statement, or its answer, was lost on the way".to_owned(),
                            )));
                        }
                    },
                }
            }
            Err(_elapsed) => Ok(Err(DbErr::ConnectionAcquire(ConnAcquireErr::Timeout))),
        };
        match outcome {
            // No connection is free. Either they are busy, and then some statement was answered meanwhile, or they all
            // wait for a server that is silent.
            Ok(Err(error @ DbErr::ConnectionAcquire(_))) => {
                if connections.silent_for() > limit {
                    let fresh = Connections::open(&self.options, true).await?;
                    self.replace(connections, fresh, SILENT);
                }
                Err(error)
            }
            // The driver would keep these sessions as long as the standby lives, whatever the address leads to by then.
            Ok(Err(error)) if is_read_only(&error) && connections.opened.elapsed() > STANDBY => {
                let fresh = Connections::open(&self.options, true).await?;
                self.replace(connections, fresh, "the database may only be read");
                Err(error)
            }
            Ok(outcome) => {
                connections.note_answer();
                outcome
            }
            Err(_elapsed) => {
                let fresh = Connections::open(&self.options, true).await?;
                self.replace(connections, fresh, SILENT);
                Err(DbErr::Conn(RuntimeErr::Internal(format!(
                    "no answer from the database within {limit:?}"
                ))))
            }
        }
    }

    /// Comes back when the server answers and does not work on this statement, with the connections that it answered over.
    async fn found_lost(&self, sql: &'static str) -> Arc<Connections> {
        loop {
            let asked = timeout(QUESTION, async {
                let fresh = Connections::open(&self.options, true).await?;
                let question = Statement::from_sql_and_values(
                    DbBackend::Postgres,
                    AT_WORK,
                    vec![Value::from(sql)],
                );
                let found = fresh.database.query_one_raw(question).await?;
                Ok::<_, DbErr>((fresh, found.is_some()))
            });
            match asked.await {
                Ok(Ok((fresh, false))) => return fresh,
                Ok(Ok((fresh, true))) => {
                    fresh.close().await;
                    sleep(REASSURED).await;
                }
                // Refused at once, most likely.
                Ok(Err(_)) => sleep(REASSURED).await,
                Err(_elapsed) => {}
            }
        }
    }

    /// Gives up every connection of a pool that is of no use any more. Of a server that is silent the driver would wait for each of
    /// them as long as the operating system does, which may be for ever, and they would never be free again.
    fn replace(&self, useless: &Arc<Connections>, fresh: Arc<Connections>, reason: &str) {
        let given_up = {
            let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
            if Arc::ptr_eq(&current, useless) {
                tracing::warn!(reason, "the connections to the database are given up");
                std::mem::replace(&mut *current, fresh)
            } else {
                fresh
            }
        };
        tokio::spawn(async move { given_up.close().await });
    }

    pub(super) async fn close(&self) {
        self.connections().close().await;
    }
}

fn statement(sql: &'static str, values: Vec<Value>) -> Query<'static, Postgres, SqlxValues> {
    query_with(sql, SqlxValues(Values(values)))
}

fn failed(error: DriverError) -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(error.into()))
}

fn settings(options: &SqlOptions, lazy: bool) -> ConnectOptions {
    let mut settings = ConnectOptions::new(options.url.clone());
    settings
        .max_connections(options.max_connections)
        .min_connections(options.min_connections)
        .acquire_timeout(options.acquire_timeout)
        .idle_timeout(options.idle_timeout)
        .max_lifetime(options.max_lifetime)
        .test_before_acquire(false)
        .sqlx_logging(false)
        .record_stmt_in_spans(false)
        .connect_lazy(lazy)
        .set_application_name(options.application_name.clone());
    let limits = [
        ("statement_timeout", options.statement_timeout),
        (
            "idle_in_transaction_session_timeout",
            options.idle_in_transaction_timeout,
        ),
    ]
    .map(|(name, limit)| (name, limit.as_millis().to_string()));
    settings.map_sqlx_postgres_opts(move |driver| {
        driver
            .options(SESSION)
            .options(limits.iter().map(|(name, limit)| (name, limit)))
    });
    settings
}
