//! The task store, the worker registry, the audit and the catalog on PostgreSQL and SQLite, through SeaORM.
//!
//! Every write is one statement on PostgreSQL and one `BEGIN IMMEDIATE` transaction on SQLite, and runs in a task of its
//! own: a caller that is dropped never cancels a half-open transaction. The schema is the `migration` crate's.

#[cfg(not(any(feature = "postgres", feature = "sqlite")))]
compile_error!("the feature `sql` needs at least one of `postgres` and `sqlite`");

mod batch;
mod failure;
#[cfg(feature = "postgres")]
mod postgres;
mod row;
#[cfg(feature = "sqlite")]
mod sqlite;
mod tickets;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ports::{
    AuditPage, BeatReply, ClaimError, ClaimId, ClaimRecord, ClaimTicket, ClaimedTask,
    ConnectionPool, Connections, DeliveryOutcome, Horizon, InsertOutcome, Inspection, KeptRequest,
    KeyedRequest, Listed, Listing, NewTask, RemoveReply, StoreError, Survey, Task, TaskAudit,
    TaskCatalog, TaskEvent, TaskId, TaskStore, TaskSurvey, Timestamp, Totals, Transition,
    TransitionOutcome, Whereabouts, WorkerEntry, WorkerId, WorkerRegistry, WriteOutcome,
};
use sea_orm::DatabaseConnection;

use failure::Unsupported;
use tickets::Tickets;

/// How to reach a database, and every limit of the pool. [`SqlOptions::new`] gives the defaults.
#[derive(Clone)]
pub struct SqlOptions {
    /// `postgres://user:password@host:port/name`, or `sqlite:///absolute/path.db`, `sqlite://relative/path.db`.
    pub url: String,
    /// Connections at most; 8. On SQLite: readers at most, beside the one writer.
    pub max_connections: u32,
    /// Connections kept open when idle; 0.
    pub min_connections: u32,
    /// How long a statement may wait for a free or new connection; 5 s.
    pub acquire_timeout: Duration,
    /// After how much idleness a connection is closed; 10 min. `None` keeps it. On PostgreSQL the last four that were used, half of
    /// all at most, stay open until the next statement.
    pub idle_timeout: Option<Duration>,
    /// After how much life a connection is replaced; 30 min. `None` keeps it.
    pub max_lifetime: Option<Duration>,
    /// How long one statement may run before PostgreSQL cancels it; 30 s. A server that does not even do that within 5 s
    /// more is given up, and the pool with it: the next statement gets fresh connections. So is, within a few seconds, one
    /// that answers over another connection and knows nothing of the statement, because it, or its answer, was lost.
    pub statement_timeout: Duration,
    /// How long PostgreSQL lets a session idle in an open transaction before it ends the session; 10 s.
    pub idle_in_transaction_timeout: Duration,
    /// The name that `pg_stat_activity` shows; `task-processor`.
    pub application_name: String,
}

impl SqlOptions {
    /// The defaults for this database.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            max_connections: 8,
            min_connections: 0,
            acquire_timeout: Duration::from_secs(5),
            idle_timeout: Some(Duration::from_secs(600)),
            max_lifetime: Some(Duration::from_secs(1_800)),
            statement_timeout: Duration::from_secs(30),
            idle_in_transaction_timeout: Duration::from_secs(10),
            application_name: "task-processor".to_owned(),
        }
    }
}

impl fmt::Debug for SqlOptions {
    /// Leaves the URL out: it may hold a password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SqlOptions")
            .field("max_connections", &self.max_connections)
            .field("acquire_timeout", &self.acquire_timeout)
            .field("statement_timeout", &self.statement_timeout)
            .field("application_name", &self.application_name)
            .finish_non_exhaustive()
    }
}

/// [`TaskStore`], [`WorkerRegistry`], [`TaskAudit`] and [`TaskCatalog`] in one SQL database.
///
/// A store is a pool of connections. On PostgreSQL, a second store on the same database with `max_connections: 1` is the
/// way to give the heartbeat a connection of its own. On SQLite, a store holds an exclusive lock on the database file
/// (a lock file beside it) as long as it lives: there is one store per file, and no second process.
pub struct SqlTaskStore {
    backend: Backend,
    tickets: Tickets,
}

#[derive(Clone)]
enum Backend {
    #[cfg(feature = "postgres")]
    Postgres(Arc<postgres::PostgresStore>),
    #[cfg(feature = "sqlite")]
    Sqlite(Arc<sqlite::SqliteStore>),
}

impl SqlTaskStore {
    /// Connects; the schema need not be there yet.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the server cannot be reached or refuses (wrong password, full, starting).
    /// [`StoreError::Rejected`] when trying again cannot help: a URL of another scheme, or a SQLite file that another
    /// store holds (the cause names the file).
    pub async fn connect(options: SqlOptions) -> Result<Arc<Self>, StoreError> {
        let scheme = options.url.split(':').next().unwrap_or_default();
        let backend = match scheme {
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => {
                Backend::Postgres(Arc::new(postgres::PostgresStore::connect(options).await?))
            }
            #[cfg(feature = "sqlite")]
            "sqlite" => Backend::Sqlite(Arc::new(sqlite::SqliteStore::connect(options).await?)),
            other => {
                return Err(StoreError::Rejected(Box::new(Unsupported::scheme(other))));
            }
        };
        Ok(Arc::new(Self {
            backend,
            tickets: Tickets::default(),
        }))
    }

    /// The connections, for migrations and checks. On SQLite: the writer. On PostgreSQL take it anew for each use: the
    /// store replaces its pool when the server hangs.
    #[must_use]
    pub fn database(&self) -> DatabaseConnection {
        match &self.backend {
            #[cfg(feature = "postgres")]
            Backend::Postgres(store) => store.database(),
            #[cfg(feature = "sqlite")]
            Backend::Sqlite(store) => store.database(),
        }
    }

    /// Closes every connection and, on SQLite, gives the file free. Statements that run are waited for; later ones answer
    /// [`StoreError::Unavailable`].
    pub async fn close(&self) {
        match &self.backend {
            #[cfg(feature = "postgres")]
            Backend::Postgres(store) => store.close().await,
            #[cfg(feature = "sqlite")]
            Backend::Sqlite(store) => store.close().await,
        }
    }
}

/// Runs database work to its end whatever becomes of the caller: a future dropped in the middle of a transaction would
/// hand a connection with an open transaction back to the pool.
async fn owned<T, E>(work: impl Future<Output = Result<T, E>> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<StoreError> + Send + 'static,
{
    match tokio::spawn(work).await {
        Ok(outcome) => outcome,
        Err(failure) => match failure.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(stopped) => Err(StoreError::Unavailable(Box::new(stopped)).into()),
        },
    }
}

/// Calls a method of whichever database this is, in a task of its own.
macro_rules! dispatch {
    ($self:ident, $method:ident($($argument:expr),*)) => {
        match $self.backend.clone() {
            #[cfg(feature = "postgres")]
            Backend::Postgres(store) => owned(async move { store.$method($($argument),*).await }).await,
            #[cfg(feature = "sqlite")]
            Backend::Sqlite(store) => owned(async move { store.$method($($argument),*).await }).await,
        }
    };
}

/// Calls a claiming method of whichever database this is, in a task of its own, when it is this ticket's turn.
macro_rules! dispatch_claim {
    ($self:ident, $ticket:ident, $method:ident($($argument:expr),*)) => {{
        let mut turn = $self.tickets.turn($ticket.claim).await;
        match $self.backend.clone() {
            #[cfg(feature = "postgres")]
            Backend::Postgres(store) => {
                owned(async move {
                    if turn.is_doubtful() {
                        store.await_ticket($ticket.claim).await?;
                    }
                    turn.begin();
                    let outcome = store.$method($ticket, $($argument),*).await;
                    turn.end(&outcome);
                    outcome
                })
                .await
            }
            #[cfg(feature = "sqlite")]
            // One writer in one process: whatever was under way has ended.
            Backend::Sqlite(store) => {
                owned(async move {
                    turn.begin();
                    let outcome = store.$method($ticket, $($argument),*).await;
                    turn.end(&outcome);
                    outcome
                })
                .await
            }
        }
    }};
}

#[async_trait]
impl TaskStore for SqlTaskStore {
    async fn insert(&self, tasks: &[NewTask]) -> Result<Vec<InsertOutcome>, StoreError> {
        if tasks.is_empty() {
            return Ok(Vec::new());
        }
        batch::check_limits(tasks)?;
        let tasks = tasks.to_vec();
        dispatch!(self, insert(tasks))
    }

    async fn insert_keyed(
        &self,
        requests: &[KeyedRequest],
    ) -> Result<Vec<KeptRequest>, StoreError> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        for request in requests {
            batch::check_limits(&request.tasks)?;
        }
        let requests = requests.to_vec();
        dispatch!(self, insert_keyed(requests))
    }

    async fn prune_keys(&self, age: Duration, limit: usize) -> Result<usize, StoreError> {
        dispatch!(self, prune_keys(age, limit))
    }

    async fn get(&self, ids: &[TaskId]) -> Result<Vec<Option<Task>>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let ids = ids.to_vec();
        dispatch!(self, get(ids))
    }

    async fn whereabouts(&self, ids: &[TaskId]) -> Result<Vec<Option<Whereabouts>>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let ids = ids.to_vec();
        dispatch!(self, whereabouts(ids))
    }

    async fn claim_delivered(
        &self,
        ticket: ClaimTicket,
        ids: &[TaskId],
    ) -> Result<Vec<DeliveryOutcome>, ClaimError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let ids = ids.to_vec();
        dispatch_claim!(self, ticket, claim_delivered(ids))
    }

    async fn claim_aged(
        &self,
        ticket: ClaimTicket,
        horizon: Horizon,
        grace: Duration,
        limit: usize,
    ) -> Result<Vec<ClaimedTask>, ClaimError> {
        dispatch_claim!(self, ticket, claim_aged(horizon, grace, limit))
    }

    async fn transition(
        &self,
        transitions: &[Transition],
    ) -> Result<Vec<TransitionOutcome>, StoreError> {
        if transitions.is_empty() {
            return Ok(Vec::new());
        }
        let transitions = transitions.to_vec();
        dispatch!(self, transition(transitions))
    }

    async fn release(&self, claims: &[ClaimId]) -> Result<(), StoreError> {
        if claims.is_empty() {
            return Ok(());
        }
        let claims = claims.to_vec();
        dispatch!(self, release(claims))
    }

    async fn claims_of(
        &self,
        worker: WorkerId,
        after: Option<ClaimId>,
        limit: usize,
    ) -> Result<Vec<ClaimRecord>, StoreError> {
        dispatch!(self, claims_of(worker, after, limit))
    }

    async fn mark_unmessaged(&self, ids: &[TaskId]) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        let ids = ids.to_vec();
        dispatch!(self, mark_unmessaged(ids))
    }

    async fn totals(&self) -> Result<Totals, StoreError> {
        dispatch!(self, totals())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        dispatch!(self, ping())
    }
}

#[async_trait]
impl WorkerRegistry for SqlTaskStore {
    async fn register(&self, worker: WorkerId, name: &str) -> Result<(), StoreError> {
        let name = name.to_owned();
        dispatch!(self, register(worker, name))
    }

    async fn beat(
        &self,
        worker: WorkerId,
        position: Option<Timestamp>,
    ) -> Result<BeatReply, StoreError> {
        dispatch!(self, beat(worker, position))
    }

    async fn workers(&self) -> Result<Vec<WorkerEntry>, StoreError> {
        dispatch!(self, workers())
    }

    async fn declare_dead(
        &self,
        worker: WorkerId,
        last_beat: u64,
    ) -> Result<WriteOutcome, StoreError> {
        dispatch!(self, declare_dead(worker, last_beat))
    }

    async fn remove(&self, worker: WorkerId) -> Result<RemoveReply, StoreError> {
        dispatch!(self, remove(worker))
    }
}

#[async_trait]
impl TaskAudit for SqlTaskStore {
    async fn stranded(
        &self,
        after: Option<TaskId>,
        limit: usize,
        unmoved_for: Duration,
    ) -> Result<AuditPage, StoreError> {
        dispatch!(self, stranded(after, limit, unmoved_for))
    }

    async fn enqueue(&self, ids: &[TaskId]) -> Result<usize, StoreError> {
        if ids.is_empty() {
            return Ok(0);
        }
        let ids = ids.to_vec();
        dispatch!(self, enqueue(ids))
    }

    async fn sweep_queue(
        &self,
        after: Option<TaskId>,
        limit: usize,
    ) -> Result<(usize, Option<TaskId>), StoreError> {
        dispatch!(self, sweep_queue(after, limit))
    }

    async fn enlist(&self, ids: &[TaskId]) -> Result<usize, StoreError> {
        if ids.is_empty() {
            return Ok(0);
        }
        let ids = ids.to_vec();
        dispatch!(self, enlist(ids))
    }

    async fn sweep_stopped(
        &self,
        after: Option<TaskId>,
        limit: usize,
    ) -> Result<(usize, Option<TaskId>), StoreError> {
        dispatch!(self, sweep_stopped(after, limit))
    }

    async fn untold(
        &self,
        after: Option<TaskId>,
        limit: usize,
        unmoved_for: Duration,
    ) -> Result<(Vec<TaskEvent>, Option<TaskId>), StoreError> {
        dispatch!(self, untold(after, limit, unmoved_for))
    }

    async fn mark_told(&self, ids: &[TaskId]) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        let ids = ids.to_vec();
        dispatch!(self, mark_told(ids))
    }

    async fn prune(
        &self,
        after: Option<TaskId>,
        limit: usize,
        older_than: Duration,
    ) -> Result<(usize, Option<TaskId>), StoreError> {
        dispatch!(self, prune(after, limit, older_than))
    }

    async fn orphaned_claims(&self, limit: usize) -> Result<Vec<ClaimRecord>, StoreError> {
        dispatch!(self, orphaned_claims(limit))
    }
}

#[async_trait]
impl TaskCatalog for SqlTaskStore {
    async fn list(&self, listing: &Listing) -> Result<Listed, StoreError> {
        let listing = *listing;
        dispatch!(self, list(listing))
    }

    async fn inspect(
        &self,
        id: TaskId,
        count_up_to: usize,
    ) -> Result<Option<Inspection>, StoreError> {
        dispatch!(self, inspect(id, count_up_to))
    }
}

#[async_trait]
impl TaskSurvey for SqlTaskStore {
    async fn survey(&self) -> Result<Survey, StoreError> {
        dispatch!(self, survey())
    }
}

/// Of a file, which has one writer and no pool, nothing is known.
impl ConnectionPool for SqlTaskStore {
    fn connections(&self) -> Connections {
        match &self.backend {
            #[cfg(feature = "postgres")]
            Backend::Postgres(store) => store.connections(),
            #[cfg(feature = "sqlite")]
            Backend::Sqlite(_) => Connections::default(),
        }
    }
}
