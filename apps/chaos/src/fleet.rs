//! Our own processes: three servers, three workers.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep};

use crate::client::Client;
use crate::failure::Failure;
use crate::history::History;
use crate::process::Process;
use crate::proxy::Proxy;
use crate::run_log;
use crate::script::TASK_TIMEOUT;

/// How many of each.
pub(crate) const SERVERS: usize = 3;
pub(crate) const WORKERS: usize = 3;

/// How long a program may take from its start until it is ready: longer than any fault that it may wait for.
const READY_LIMIT: Duration = Duration::from_secs(120);
/// The promised 25 s, and what a busy machine adds.
const STOP_LIMIT: Duration = Duration::from_secs(40);
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Server,
    Worker,
}

/// What the programs are told about Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// `rdkafka` or `kafka-rust`.
    pub(crate) client: &'static str,
    /// The port of the broker's door.
    pub(crate) port: u16,
}

/// What every slot needs to start its program.
pub(crate) struct Workshop {
    pub(crate) binaries: PathBuf,
    pub(crate) directory: PathBuf,
    pub(crate) history: Arc<History>,
    /// Which Kafka the programs use that are started now.
    pub(crate) line: std::sync::Mutex<Line>,
}

impl Workshop {
    pub(crate) fn line(&self) -> Line {
        *self
            .line
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The file that stands for an outage of what functions need.
    pub(crate) fn outage(&self) -> PathBuf {
        self.directory.join("outage")
    }
}

/// A place in which one process after another lives.
pub(crate) struct Slot {
    pub(crate) role: Role,
    pub(crate) index: usize,
    pub(crate) client: Client,
    pub(crate) database: Arc<Proxy>,
    pub(crate) cache: Arc<Proxy>,
    /// As a load balancer sees it.
    pub(crate) ready: AtomicBool,
    /// The process that lives here; 0 for none.
    pub(crate) pid: AtomicU32,
    port: u16,
    /// Locked by whoever does something to it.
    body: Mutex<Body>,
}

#[derive(Default)]
pub(crate) struct Body {
    pub(crate) process: Option<Process>,
    lives: u32,
}

impl Slot {
    pub(crate) fn new(
        role: Role,
        index: usize,
        port: u16,
        database: Arc<Proxy>,
        cache: Arc<Proxy>,
    ) -> Self {
        Self {
            role,
            index,
            client: Client::new(port, Duration::from_secs(10)),
            database,
            cache,
            ready: AtomicBool::new(false),
            pid: AtomicU32::new(0),
            port,
            body: Mutex::default(),
        }
    }

    pub(crate) fn place(&self) -> String {
        let role = match self.role {
            Role::Server => "server",
            Role::Worker => "worker",
        };
        format!("{role}-{}", self.index)
    }

    /// For as long as the guard is held nobody else does anything to this place.
    pub(crate) async fn take(&self) -> MutexGuard<'_, Body> {
        self.body.lock().await
    }

    /// Starts the next process; does not wait until it is ready.
    pub(crate) fn start(&self, body: &mut Body, workshop: &Workshop) -> Result<(), Failure> {
        body.lives += 1;
        let place = self.place();
        let name = format!("{place}.{}", body.lives);
        let line = workshop.line();
        let mut environment = vec![
            ("HOST", "127.0.0.1".to_owned()),
            (
                "DATABASE_URL",
                format!(
                    "postgres://task:task@127.0.0.1:{}/taskdb",
                    self.database.port
                ),
            ),
            (
                "REDIS_URL",
                format!("redis://127.0.0.1:{}", self.cache.port),
            ),
            ("KAFKA_BROKERS", format!("127.0.0.1:{}", line.port)),
            ("KAFKA_CLIENT", line.client.to_owned()),
        ];
        let program = match self.role {
            Role::Server => {
                environment.push(("PORT", self.port.to_string()));
                "task-processor-server"
            }
            Role::Worker => {
                let runs = workshop.directory.join(run_log::file_of(&name));
                environment.extend([
                    ("WORKER_PORT", self.port.to_string()),
                    ("WORKER_NAME", name.clone()),
                    ("CHAOS_RUNS", runs.display().to_string()),
                    ("CHAOS_OUTAGE", workshop.outage().display().to_string()),
                    ("TASK_TIMEOUT", format!("{}s", TASK_TIMEOUT.as_secs())),
                ]);
                if line.client == "kafka-rust" {
                    environment.extend([
                        ("WORKER_INDEX", self.index.to_string()),
                        ("WORKER_COUNT", WORKERS.to_string()),
                    ]);
                }
                "task-processor-chaos-worker"
            }
        };
        let program = workshop.binaries.join(program);
        let process = Process::start(
            &name,
            &place,
            &program,
            &[],
            &environment,
            &workshop.directory,
        )?;
        self.pid.store(process.pid, Ordering::Relaxed);
        body.process = Some(process);
        Ok(())
    }

    pub(crate) async fn kill(&self, body: &mut Body) {
        self.pid.store(0, Ordering::Relaxed);
        if let Some(process) = body.process.take() {
            process.kill().await;
        }
    }

    /// Asks the process to stop; one that does not, or not with exit code 0, breaks a promise.
    pub(crate) async fn stop(&self, body: &mut Body, history: &History) {
        let Some(mut process) = body.process.take() else {
            return;
        };
        let ended = process.stop(STOP_LIMIT).await;
        self.pid.store(0, Ordering::Relaxed);
        match ended {
            Some(status) if status.success() => {}
            Some(status) => history.surprise(format!(
                "{} was asked to stop and ended with {status}",
                process.name
            )),
            None => {
                history.surprise(format!(
                    "{} was asked to stop and did not within {STOP_LIMIT:?}",
                    process.name
                ));
                process.kill().await;
            }
        }
    }

    pub(crate) async fn is_ready(&self) -> bool {
        matches!(self.client.get("/health/ready", "*/*").await, Ok(answer) if answer.status == 200)
    }

    /// Waits until it is ready; says whether it became so.
    pub(crate) async fn wait_until_ready(&self) -> bool {
        let deadline = Instant::now() + READY_LIMIT;
        while !self.is_ready().await {
            if Instant::now() > deadline {
                return false;
            }
            sleep(PAUSE).await;
        }
        true
    }
}

/// Looks after processes that end without being told to: that is a promise broken, and the place gets a new one.
pub(crate) async fn attend(slots: Vec<Arc<Slot>>, workshop: Arc<Workshop>) {
    loop {
        for slot in &slots {
            // Whoever holds it does something to it.
            let Ok(mut body) = slot.body.try_lock() else {
                continue;
            };
            let ended = body
                .process
                .as_mut()
                .and_then(|process| Some((process.name.clone(), process.ended()?)));
            if let Some((name, status)) = ended {
                workshop
                    .history
                    .surprise(format!("{name} ended by itself: {status}"));
                if let Err(error) = slot.start(&mut body, &workshop) {
                    workshop
                        .history
                        .surprise(format!("{name} cannot be started again: {error}"));
                }
            }
        }
        sleep(PAUSE * 5).await;
    }
}

/// Keeps `ready` of a server as a load balancer would: two probes a second, and the first bad one counts.
pub(crate) async fn probe(slot: Arc<Slot>) {
    let prober = Client::new(slot.port, Duration::from_secs(1));
    loop {
        let ready = prober.get("/health/ready", "*/*").await;
        let ready = ready.is_ok_and(|answer| answer.status == 200);
        slot.ready.store(ready, Ordering::Relaxed);
        sleep(Duration::from_millis(500)).await;
    }
}
