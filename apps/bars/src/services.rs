//! PostgreSQL, Redis and Kafka of the run's own, started through the project's chore for services.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::database::Database;
use crate::failure::Failure;
use crate::process::Process;
use crate::topics;

/// A service on busy processors needs most of a minute to answer first; one that needs three is not coming.
const START_LIMIT: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Postgres,
    Redis,
    /// Kafka of this major version.
    Kafka(u8),
}

pub(crate) struct Service {
    kind: Kind,
    pub(crate) port: u16,
    pub(crate) process: Process,
}

impl Service {
    /// Starts it and waits until it answers.
    pub(crate) async fn start(kind: Kind, xtask: &Path, directory: &Path) -> Result<Self, Failure> {
        let port = free_port()?;
        let (name, mut arguments) = match kind {
            Kind::Postgres => ("postgres".to_owned(), vec!["postgres".to_owned()]),
            Kind::Redis => ("redis".to_owned(), vec!["redis".to_owned()]),
            Kind::Kafka(major) => (
                format!("kafka-{major}"),
                vec!["broker".to_owned(), major.to_string()],
            ),
        };
        arguments.insert(0, "services".to_owned());
        arguments.push(directory.join(&name).display().to_string());
        arguments.push(port.to_string());
        let process = Process::start(&name, xtask, &arguments, &[], directory)?;
        let mut service = Self {
            kind,
            port,
            process,
        };
        let deadline = Instant::now() + START_LIMIT;
        while let Err(reason) = service.answers().await {
            if let Some(status) = service.process.ended() {
                return Err(format!("{name} ended with {status}").into());
            }
            if Instant::now() > deadline {
                return Err(format!("{name} does not answer: {reason}").into());
            }
            sleep(PAUSE).await;
        }
        Ok(service)
    }

    async fn answers(&self) -> Result<(), Failure> {
        match self.kind {
            Kind::Postgres => Database::connect(self.port, "taskdb").await?.close().await,
            Kind::Redis => say_to_redis(self.port, "PING").await.map(drop),
            Kind::Kafka(_) => topics::answers(self.port).await,
        }
    }

    /// Its version, as it says itself.
    pub(crate) async fn version(&self, directory: &Path) -> Result<String, Failure> {
        match self.kind {
            Kind::Postgres => {
                let database = Database::connect(self.port, "taskdb").await?;
                let version = database.one("SHOW server_version").await;
                database.close().await?;
                version
            }
            Kind::Redis => {
                let info = say_to_redis(self.port, "INFO server").await?;
                Ok(after(&info, "redis_version:"))
            }
            Kind::Kafka(_) => {
                let log: PathBuf = directory.join(format!("{}.log", self.process.name));
                Ok(after(&std::fs::read_to_string(log)?, "Kafka version: "))
            }
        }
    }
}

/// The word that follows.
fn after(text: &str, label: &str) -> String {
    text.split_once(label)
        .and_then(|(_, rest)| rest.split_whitespace().next())
        .unwrap_or("unknown")
        .to_owned()
}

/// One command, and its answer as it comes.
pub(crate) async fn say_to_redis(port: u16, command: &str) -> Result<String, Failure> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream
        .write_all(format!("{command}\r\nQUIT\r\n").as_bytes())
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    if answer.starts_with('-') {
        return Err(format!("Redis says {answer:?} to {command}").into());
    }
    Ok(answer)
}

/// A port that nobody listens on, nor on the next: Kafka takes two.
pub(crate) fn free_port() -> Result<u16, Failure> {
    const TRIES: usize = 100;
    for _ in 0..TRIES {
        let first = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = first.local_addr()?.port();
        let next = port
            .checked_add(1)
            .map(|next| TcpListener::bind((Ipv4Addr::LOCALHOST, next)));
        if let Some(Ok(_)) = next {
            return Ok(port);
        }
    }
    Err("no two neighbouring ports are free".into())
}
