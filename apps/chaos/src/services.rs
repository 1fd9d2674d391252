//! PostgreSQL, Redis and Kafka of the run's own, started through the project's chore for services, each behind doors.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use crate::database::Database;
use crate::failure::Failure;
use crate::log::say;
use crate::process::Process;
use crate::proxy::{Passage, Proxy};
use crate::redis::Redis;

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

/// One service and every door to it.
pub(crate) struct Service {
    pub(crate) kind: Kind,
    /// Where it listens, behind the doors.
    pub(crate) port: u16,
    /// One for each client process, or one for all.
    pub(crate) doors: Vec<Arc<Proxy>>,
    xtask: PathBuf,
    directory: PathBuf,
    /// Locked by whoever does something to it.
    process: Mutex<Option<Process>>,
}

impl Service {
    /// Starts it, with a door on each of the ports `doors`.
    pub(crate) async fn begin(
        kind: Kind,
        port: u16,
        doors: Vec<u16>,
        xtask: &Path,
        directory: &Path,
    ) -> Result<Self, Failure> {
        let mut opened = Vec::new();
        for door in doors {
            opened.push(Proxy::open(door, port).await?);
        }
        let mut service = Self {
            kind,
            port,
            doors: opened,
            xtask: xtask.to_owned(),
            directory: directory.to_owned(),
            process: Mutex::new(None),
        };
        service.process = Mutex::new(Some(service.launch()?));
        Ok(service)
    }

    /// Waits until it answers.
    pub(crate) async fn until_it_answers(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + START_LIMIT;
        while let Err(reason) = self.answers().await {
            if Instant::now() > deadline {
                return Err(format!("{} does not answer: {reason}", self.name()).into());
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }

    pub(crate) fn name(&self) -> String {
        match self.kind {
            Kind::Postgres => "postgres".to_owned(),
            Kind::Redis => "redis".to_owned(),
            Kind::Kafka(major) => format!("kafka-{major}"),
        }
    }

    fn launch(&self) -> Result<Process, Failure> {
        let name = self.name();
        let home = self.directory.join(&name).display().to_string();
        let port = self.port.to_string();
        let arguments: Vec<String> = match self.kind {
            Kind::Postgres => vec!["services".into(), "postgres".into(), home, port],
            Kind::Redis => vec!["services".into(), "redis".into(), home, port],
            Kind::Kafka(major) => vec![
                "services".into(),
                "broker".into(),
                major.to_string(),
                home,
                port,
                "--advertise".into(),
                self.doors[0].port.to_string(),
            ],
        };
        Process::start(&name, &name, &self.xtask, &arguments, &[], &self.directory)
    }

    async fn answers(&self) -> Result<(), Failure> {
        match self.kind {
            Kind::Postgres => {
                let database = Database::connect(self.port).await?;
                database.close().await
            }
            Kind::Redis => Redis::connect(self.port).await?.ping().await,
            Kind::Kafka(_) => {
                let address = format!("127.0.0.1:{}", self.port);
                tokio::task::spawn_blocking(move || {
                    let consumer: BaseConsumer = ClientConfig::new()
                        .set("bootstrap.servers", address)
                        .set("log_level", "0")
                        .create()?;
                    consumer.fetch_metadata(None, Duration::from_secs(2))?;
                    Ok(())
                })
                .await?
            }
        }
    }

    pub(crate) fn set_doors(&self, passage: Passage) {
        for door in &self.doors {
            door.set(passage);
        }
    }

    /// Kills it, leaves it dead for `down`, starts it again and waits until it answers.
    pub(crate) async fn crash(&self, down: Duration) -> Result<(), Failure> {
        let mut process = self.process.lock().await;
        // Behind a door that stands open a dead service would accept connections.
        self.set_doors(Passage::Shut);
        if let Some(process) = process.take() {
            process.kill().await;
        }
        sleep(down).await;
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let mut next = self.launch()?;
            loop {
                if self.answers().await.is_ok() {
                    *process = Some(next);
                    self.set_doors(Passage::Open);
                    return Ok(());
                }
                // What the killed one left, such as memory that its last child still holds, may keep it from starting.
                if next.ended().is_some() {
                    break;
                }
                if Instant::now() > deadline {
                    return Err(format!("{} does not come back", self.name()).into());
                }
                sleep(PAUSE).await;
            }
            if Instant::now() > deadline {
                return Err(format!("{} cannot be started again", self.name()).into());
            }
            say(&format!("{} did not start, once more", self.name()));
            sleep(PAUSE).await;
        }
    }

    pub(crate) async fn take_away(&self) {
        if let Some(process) = self.process.lock().await.take() {
            process.kill().await;
        }
    }
}
