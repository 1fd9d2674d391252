//! PostgreSQL.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use adapters::sql::{SqlOptions, SqlTaskStore};
use domain::ports::{StoreError, WorkerRegistry};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::info;
use url::Url;

use crate::settings::{MigrateSettings, PostgresSettings, StartSettings};
use crate::shutdown::Shutdown;
use crate::startup::{Obstacle, StartupError, chain, wait_for};

/// How long one statement of the heartbeat may take: shorter than any sensible lease.
const BEAT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a connection may take to open before its host counts as silent.
const KNOCK: Duration = Duration::from_secs(3);
const DEFAULT_PORT: u16 = 5_432;
/// Where to look when PostgreSQL refuses us.
const HINT: &str = "DATABASE_USER, DATABASE_PASSWORD, DATABASE_NAME, DATABASE_SSL_MODE and DATABASE_SSL_ROOT_CERT, or \
     DATABASE_URL, say who we are and how TLS is spoken";

/// Connects to PostgreSQL when it is there, and waits until its schema is up to date, or brings it up to date.
pub(super) async fn open(
    settings: &PostgresSettings,
    start: &StartSettings,
    application_name: &str,
    shutdown: &Shutdown,
) -> Result<Arc<SqlTaskStore>, StartupError> {
    let options = options(settings, application_name);
    let store = connect(&options, &settings.masked(), start.timeout, shutdown).await?;
    if start.migrate {
        wait_for("the schema", start.timeout, shutdown, || async {
            for name in migration::up(&store.database())
                .await
                .map_err(|error| Obstacle::not_yet(&error))?
            {
                info!(
                    event = "schema.migrated",
                    name, "the schema was brought up to date"
                );
            }
            Ok(())
        })
        .await?;
    } else {
        wait_for("the schema", start.timeout, shutdown, || async {
            let missing: Vec<String> = migration::status(&store.database())
                .await
                .map_err(|error| Obstacle::not_yet(&error))?
                .into_iter()
                .filter(|migration| !migration.applied)
                .map(|migration| migration.name)
                .collect();
            if missing.is_empty() {
                return Ok(());
            }
            let missing = missing.join(", ");
            Err(Obstacle::NotYet(format!(
                "{missing} is not applied; run task-processor-migrate up, or set MIGRATE=true"
            )))
        })
        .await?;
    }
    Ok(store)
}

/// Connects to PostgreSQL for migrations.
///
/// # Errors
/// When it is not there in time.
pub async fn for_migrations(
    settings: &MigrateSettings,
    shutdown: &Shutdown,
) -> Result<Arc<SqlTaskStore>, StartupError> {
    let options = options(&settings.database, "task-processor-migrate");
    let address = settings.database.masked();
    connect(&options, &address, settings.startup_timeout, shutdown).await
}

/// A registry on one connection of its own, for the heartbeat.
pub(super) async fn registry(url: String) -> Result<Arc<dyn WorkerRegistry>, StoreError> {
    let options = SqlOptions {
        max_connections: 1,
        acquire_timeout: BEAT_TIMEOUT,
        statement_timeout: BEAT_TIMEOUT,
        application_name: "task-processor-heartbeat".to_owned(),
        ..SqlOptions::new(url)
    };
    Ok(SqlTaskStore::connect(options).await?)
}

fn options(settings: &PostgresSettings, application_name: &str) -> SqlOptions {
    SqlOptions {
        max_connections: settings.pool,
        application_name: application_name.to_owned(),
        ..SqlOptions::new(&settings.url)
    }
}

async fn connect(
    options: &SqlOptions,
    address: &str,
    limit: Duration,
    shutdown: &Shutdown,
) -> Result<Arc<SqlTaskStore>, StartupError> {
    let what = format!("PostgreSQL at {address}");
    wait_for(&what, limit, shutdown, || async {
        knock(&options.url).await?;
        SqlTaskStore::connect(options.clone())
            .await
            .map_err(|error| {
                if error.is_transient() {
                    Obstacle::not_yet(&error)
                } else {
                    // The cause says what was refused; the port's own words are about data.
                    let reason = chain(error.source().unwrap_or(&error));
                    Obstacle::Never(format!("{reason}; {HINT}"))
                }
            })
    })
    .await
}

/// Opens a TCP connection and drops it. A pool tries for seconds to connect to a port that refuses, and then only says that
/// it ran out of time.
async fn knock(address: &str) -> Result<(), Obstacle> {
    let Ok(url) = Url::parse(address) else {
        return Ok(());
    };
    let by_socket = url.query_pairs().any(|(name, _)| name == "host");
    let Some(host) = url.host_str().filter(|_| !by_socket) else {
        return Ok(());
    };
    // A URL writes an IPv6 address in brackets, a socket address does not take them.
    let host = host.trim_matches(['[', ']']);
    let port = url.port().unwrap_or(DEFAULT_PORT);
    match timeout(KNOCK, TcpStream::connect((host, port))).await {
        Ok(Ok(_connection)) => Ok(()),
        Ok(Err(error)) => Err(Obstacle::not_yet(&error)),
        Err(_elapsed) => Err(Obstacle::NotYet("its host does not answer".to_owned())),
    }
}
