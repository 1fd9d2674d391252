//! What the API is compared with: the same routes on ports that do nothing, or a route that writes one row a request.

use std::sync::Arc;

use adapters::memory::Memory;
use adapters::system::{SystemClock, SystemRandom, UuidV7Ids};
use async_trait::async_trait;
use clap::Parser;
use domain::{Events, EventsConfig, Ports, SubmitConfig, Submitter};
use http_api::{Api, HttpConfig, Meters};
use mimalloc::MiMalloc;
use poem::http::StatusCode;
use poem::listener::TcpAcceptor;
use poem::web::{Data, Json};
use poem::{EndpointExt, Route, Server, get, handler, post};
use ports::{
    CacheError, Clock, IdSource, InsertOutcome, MockTaskStore, PublishError, ResultCache, TaskId,
    TaskMessage, TaskPublisher, TaskResult, WriteOutcome,
};
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbBackend, Statement,
};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

/// The server's.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

type Failure = Box<dyn std::error::Error + Send + Sync + 'static>;

#[derive(Parser)]
#[command(name = "task-processor-bars-reference")]
struct Arguments {
    /// It listens on this port of loopback
    #[arg(long)]
    port: u16,
    /// Write a row into this database for each request, one INSERT each, and serve nothing else
    #[arg(long, value_name = "URL")]
    insert: Option<String>,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let listener = TcpListener::bind(("127.0.0.1", arguments.port)).await?;
    match arguments.insert {
        None => serve_nothing(listener).await,
        Some(url) => serve_inserts(listener, url).await,
    }
}

/// Every route of the API with its parsing and its answers, and no input or output behind it.
async fn serve_nothing(listener: TcpListener) -> Result<(), Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let memory = Memory::with_clock(SystemClock);
    let mut store = MockTaskStore::new();
    let now = Arc::clone(&clock);
    store.expect_insert().returning(move |tasks| {
        let stored = InsertOutcome {
            write: WriteOutcome::Applied,
            created_at: now.now(),
        };
        Ok(vec![stored; tasks.len()])
    });
    store.expect_prune_keys().returning(|_, _| Ok(0));
    store.expect_ping().returning(|| Ok(()));
    let meters = Arc::new(Meters::new());
    let ports = Ports {
        store: Arc::new(store),
        registry: memory.store.clone(),
        audit: memory.store.clone(),
        catalog: memory.store.clone(),
        publisher: Arc::new(Nothing(Arc::clone(&clock))),
        announcer: memory.log.clone(),
        cache: Arc::new(Nothing(Arc::clone(&clock))),
        clock,
        ids: Arc::new(UuidV7Ids),
        random: Arc::new(SystemRandom::new()),
        observer: meters.clone(),
    };
    let submitter = Arc::new(Submitter::start(&ports, SubmitConfig::default()));
    let events = Events::start(&ports, memory.log.clone(), EventsConfig::default());
    let api = Api::new(&ports, submitter, Arc::new(events), meters);
    http_api::run(api, HttpConfig::default(), listener, std::future::pending()).await?;
    Ok(())
}

/// Confirms every message, and holds a result for every id.
struct Nothing(Arc<dyn Clock>);

#[async_trait]
impl TaskPublisher for Nothing {
    async fn publish(&self, messages: &[TaskMessage]) -> Vec<Result<(), PublishError>> {
        messages.iter().map(|_| Ok(())).collect()
    }

    async fn ping(&self) -> Result<(), PublishError> {
        Ok(())
    }
}

#[async_trait]
impl ResultCache for Nothing {
    async fn get(&self, ids: &[TaskId]) -> Result<Vec<Option<TaskResult>>, CacheError> {
        let result = |id: &TaskId| TaskResult {
            id: *id,
            result: "x".repeat(100) + " (len=100)",
            processed_at: self.0.now().truncated_to_millis(),
        };
        Ok(ids.iter().map(|id| Some(result(id))).collect())
    }

    async fn put(&self, _: &[TaskResult]) -> Result<(), CacheError> {
        Ok(())
    }

    async fn ping(&self) -> Result<(), CacheError> {
        Ok(())
    }
}

#[derive(Deserialize)]
struct Submission {
    payload: String,
    priority: i32,
}

#[derive(Serialize)]
struct Accepted {
    id: String,
    status: &'static str,
}

/// As short as it can be written by hand: no queue row, no message, no sharing of commits.
async fn serve_inserts(listener: TcpListener, url: String) -> Result<(), Failure> {
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(10)
        .test_before_acquire(false)
        .sqlx_logging(false);
    let database = Database::connect(options).await?;
    let routes = Route::new()
        .at("/tasks", post(store_row))
        .at("/health/ready", get(ready))
        .data(database);
    Server::new_with_acceptor(TcpAcceptor::from_tokio(listener)?)
        .run(routes)
        .await?;
    Ok(())
}

#[handler]
fn ready() -> StatusCode {
    StatusCode::OK
}

#[handler]
async fn store_row(
    database: Data<&DatabaseConnection>,
    submission: Json<Submission>,
) -> Result<(StatusCode, Json<Accepted>), poem::Error> {
    let id = UuidV7Ids.next();
    let Json(Submission { payload, priority }) = submission;
    let statement = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "INSERT INTO tasks (id, payload, priority) VALUES ($1, $2, $3)",
        [id.into(), payload.into(), priority.into()],
    );
    database
        .execute_raw(statement)
        .await
        .map_err(poem::error::InternalServerError)?;
    let accepted = Accepted {
        id: id.to_string(),
        status: "pending",
    };
    Ok((StatusCode::CREATED, Json(accepted)))
}
