//! Databases of a test's own.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use ports::conformance::{store, survey};
use ports::{
    ClaimRecord, Clock, Fence, NewTask, Payload, Priority, TaskAudit, TaskCatalog, TaskId,
    TaskStore, TaskSurvey, WorkerRegistry,
};
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, QueryResult, Statement,
};
use task_processor_adapters::sql::{SqlOptions, SqlTaskStore};
use task_processor_adapters::system::SystemClock;
use uuid::Uuid;

/// A task that may run at once and of which no message tells.
pub(crate) fn waiting() -> NewTask {
    NewTask {
        id: TaskId(Uuid::now_v7()),
        payload: Payload::new("x").expect("no NUL"),
        priority: Priority::default(),
        max_attempts: 5,
        run_at: None,
        messaged: false,
    }
}

/// A name that no other test has, in this process or another.
fn unique_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("task_processor_{}_{number}", std::process::id())
}

/// A PostgreSQL database, empty at first.
pub(crate) struct Postgres {
    server: String,
    name: String,
}

impl Postgres {
    pub(crate) async fn create() -> Self {
        let server = std::env::var("TEST_DATABASE_URL")
            .expect("TEST_DATABASE_URL names a PostgreSQL server: run cargo xtask test");
        let name = unique_name();
        let administration = connect(&server).await;
        execute(
            &administration,
            &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
        )
        .await;
        execute(&administration, &format!("CREATE DATABASE {name}")).await;
        administration.close().await.expect("close");
        Self { server, name }
    }

    /// With the tables.
    pub(crate) async fn migrated() -> Self {
        let postgres = Self::create().await;
        let connection = postgres.connection().await;
        migration::up(&connection).await.expect("migrate");
        connection.close().await.expect("close");
        postgres
    }

    pub(crate) fn url(&self) -> String {
        let (server, database) = self.server.rsplit_once('/').expect("a URL with a database");
        let parameters = database.split_once('?').map(|(_, rest)| rest);
        let parameters = parameters
            .map(|rest| format!("?{rest}"))
            .unwrap_or_default();
        format!("{server}/{}{parameters}", self.name)
    }

    /// Connections with none of the store's settings: another program's.
    pub(crate) async fn connection(&self) -> DatabaseConnection {
        connect(&self.url()).await
    }

    pub(crate) async fn store(&self) -> Arc<SqlTaskStore> {
        SqlTaskStore::connect(SqlOptions::new(self.url()))
            .await
            .expect("connect")
    }

    pub(crate) async fn drop_database(&self) {
        let administration = connect(&self.server).await;
        let name = &self.name;
        execute(
            &administration,
            &format!("DROP DATABASE {name} WITH (FORCE)"),
        )
        .await;
        administration.close().await.expect("close");
    }
}

async fn connect(url: &str) -> DatabaseConnection {
    let mut options = ConnectOptions::new(url);
    options.sqlx_logging(false).max_connections(20);
    Database::connect(options).await.expect("connect")
}

/// Runs statements that answer nothing.
pub(crate) async fn execute(connection: &DatabaseConnection, sql: &str) {
    connection.execute_unprepared(sql).await.expect(sql);
}

/// Runs a statement.
pub(crate) async fn rows(connection: &DatabaseConnection, sql: &str) -> Vec<QueryResult> {
    let backend = connection.get_database_backend();
    let statement = Statement::from_string(backend, sql);
    connection.query_all_raw(statement).await.expect(sql)
}

/// The one number that a statement answers.
pub(crate) async fn number(connection: &DatabaseConnection, sql: &str) -> i64 {
    let rows = rows(connection, sql).await;
    rows[0].try_get_by_index(0).expect("a number")
}

/// The first column of every row.
pub(crate) async fn texts(connection: &DatabaseConnection, sql: &str) -> Vec<String> {
    let rows = rows(connection, sql).await;
    let texts = rows.iter().map(|row| row.try_get_by_index(0));
    texts.collect::<Result<_, _>>().expect("texts")
}

/// A SQLite file in a folder of its own.
pub(crate) struct SqliteFile {
    folder: PathBuf,
}

impl SqliteFile {
    pub(crate) fn create() -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(unique_name());
        // What an earlier process of the same number left behind.
        if folder.exists() {
            std::fs::remove_dir_all(&folder).expect("remove the old folder");
        }
        std::fs::create_dir_all(&folder).expect("make the folder");
        Self { folder }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.join("tasks.db")
    }

    pub(crate) fn url(&self) -> String {
        format!("sqlite://{}", self.path().display())
    }

    pub(crate) async fn store(&self) -> Arc<SqlTaskStore> {
        SqlTaskStore::connect(SqlOptions::new(self.url()))
            .await
            .expect("connect")
    }

    pub(crate) fn remove(&self) {
        std::fs::remove_dir_all(&self.folder).expect("remove the folder");
    }
}

enum Place {
    Postgres(Postgres),
    Sqlite(SqliteFile),
}

/// What the conformance suites try.
pub(crate) struct Subject {
    place: Place,
    store: Arc<SqlTaskStore>,
}

impl Subject {
    pub(crate) async fn postgres() -> Self {
        let postgres = Postgres::migrated().await;
        let mut options = SqlOptions::new(postgres.url());
        // A machine that does much else is no failure of the store.
        options.acquire_timeout = Duration::from_secs(60);
        let store = SqlTaskStore::connect(options).await.expect("connect");
        Self {
            place: Place::Postgres(postgres),
            store,
        }
    }

    pub(crate) async fn sqlite() -> Self {
        let file = SqliteFile::create();
        let store = file.store().await;
        migration::up(&store.database()).await.expect("migrate");
        Self {
            place: Place::Sqlite(file),
            store,
        }
    }
}

impl Subject {
    /// Takes out every row, for the next one who wants an empty store.
    pub(crate) async fn empty(&self) {
        let database = self.store.database();
        let sql = "DELETE FROM claims; DELETE FROM queue; DELETE FROM tasks; DELETE FROM workers;
            DELETE FROM stopped;
            UPDATE totals SET done = 0, elapsed_us = 0";
        execute(&database, sql).await;
    }
}

#[async_trait]
impl store::Subject for Subject {
    fn store(&self) -> Arc<dyn TaskStore> {
        Arc::clone(&self.store) as Arc<dyn TaskStore>
    }

    fn registry(&self) -> Arc<dyn WorkerRegistry> {
        Arc::clone(&self.store) as Arc<dyn WorkerRegistry>
    }

    fn audit(&self) -> Arc<dyn TaskAudit> {
        Arc::clone(&self.store) as Arc<dyn TaskAudit>
    }

    fn catalog(&self) -> Arc<dyn TaskCatalog> {
        Arc::clone(&self.store) as Arc<dyn TaskCatalog>
    }

    async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    async fn plant_queue_row(&self, id: TaskId) {
        let due_unmessaged = match self.place {
            Place::Postgres(_) => "LOCALTIMESTAMP, false".to_owned(),
            Place::Sqlite(_) => format!("{}, 0", SystemClock.now().as_micros()),
        };
        let sql = format!("INSERT INTO queue VALUES ('{id}', {due_unmessaged}, 0)");
        execute(&self.store.database(), &sql).await;
    }

    async fn remove_queue_row(&self, id: TaskId) {
        let sql = format!("DELETE FROM queue WHERE task_id = '{id}'");
        execute(&self.store.database(), &sql).await;
    }

    async fn plant_stopped(&self, id: TaskId, cancelled: bool) {
        let as_what = if cancelled { "1 > 0" } else { "1 < 0" };
        let sql = format!("INSERT INTO stopped (cancelled, task_id) VALUES ({as_what}, '{id}')");
        execute(&self.store.database(), &sql).await;
    }

    async fn remove_stopped(&self, id: TaskId) {
        let sql = format!("DELETE FROM stopped WHERE task_id = '{id}'");
        execute(&self.store.database(), &sql).await;
    }

    /// The foreign key is switched off for that long, as it is while a backup is loaded.
    async fn plant_claim(&self, claim: &ClaimRecord) {
        let (id, worker) = (claim.id, claim.worker);
        let micros = claim.claimed_at.as_micros();
        let listed = |one: fn(&(TaskId, Fence)) -> String| {
            claim.tasks.iter().map(one).collect::<Vec<_>>().join(", ")
        };
        let sql = match self.place {
            Place::Postgres(_) => {
                let ids = listed(|(id, _)| format!("'{id}'"));
                let fences = listed(|(_, fence)| fence.0.to_string());
                format!(
                    "BEGIN; SET LOCAL session_replication_role = replica;
                     INSERT INTO claims VALUES ('{id}', '{worker}', ARRAY[{ids}]::uuid[], ARRAY[{fences}]::bigint[],
                         timestamp '1970-01-01' + {micros} * interval '1 microsecond');
                     COMMIT"
                )
            }
            Place::Sqlite(_) => {
                let tasks = listed(|(id, fence)| format!("[\"{id}\", {}]", fence.0));
                format!(
                    "PRAGMA foreign_keys = off;
                     INSERT INTO claims VALUES ('{id}', '{worker}', '[{tasks}]', {micros});
                     PRAGMA foreign_keys = on"
                )
            }
        };
        execute(&self.store.database(), &sql).await;
    }

    async fn plant(&self, ids: &[TaskId], payload: &str) {
        let database = self.store.database();
        for id in ids {
            let payload = payload.replace('\'', "''");
            let now = SystemClock.now().as_micros();
            let (columns, times) = match self.place {
                Place::Postgres(_) => ("", String::new()),
                Place::Sqlite(_) => (", created_at, updated_at", format!(", {now}, {now}")),
            };
            let sql = format!(
                "INSERT INTO tasks (id, payload, priority{columns}) VALUES ('{id}', '{payload}', 0{times})"
            );
            execute(&database, &sql).await;
        }
    }

    /// After every case, whatever it did, everything unfinished must be findable and the totals right.
    async fn close(&self) {
        let verified = migration::verify(&self.store.database(), migration::OVERDUE).await;
        self.store.close().await;
        match &self.place {
            Place::Postgres(postgres) => postgres.drop_database().await,
            Place::Sqlite(file) => file.remove(),
        }
        let report = verified.expect("verify");
        assert!(report.is_consistent(), "{report}");
    }
}

impl survey::Subject for Subject {
    fn survey(&self) -> Arc<dyn TaskSurvey> {
        Arc::clone(&self.store) as Arc<dyn TaskSurvey>
    }
}
