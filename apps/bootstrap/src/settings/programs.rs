//! Which settings each program has.

use std::time::Duration;

use domain::{SubmitConfig, WorkerConfig};

use super::database::DISTRIBUTED;
use super::http::DRAIN_DELAY;
use super::redis::read_cache_bytes;
use super::{
    EmbeddedDatabase, HttpSettings, KafkaSettings, LogSettings, PostgresSettings,
    ProcessingSettings, Reader, RedisSettings, TraceSettings, submit, work,
};

/// The settings of a program.
pub trait Settings: Sized {
    /// The commands of which the command line must name one; none for a program that just runs.
    const COMMANDS: &'static [&'static str] = &[];

    /// Declares and reads them.
    fn read(reader: &mut Reader) -> Self;

    /// What is logged, and how.
    fn log(&self) -> &LogSettings;

    /// How long the program may take to end once it is asked to; `None` when it ends by itself.
    fn stop_limit(&self) -> Option<Duration> {
        None
    }
}

/// Of `task-processor-server`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// What it listens on.
    pub http: HttpSettings,
    /// How long a stop may take after the drain delay.
    pub drain_deadline: Duration,
    /// How it takes submissions in.
    pub submit: SubmitConfig,
    /// Where tasks are stored.
    pub database: PostgresSettings,
    /// The log.
    pub kafka: KafkaSettings,
    /// Where results are remembered.
    pub redis: RedisSettings,
    /// How many bytes of results it keeps in memory.
    pub cache_bytes: usize,
    /// Whether and how long to wait at the start.
    pub start: StartSettings,
    /// Where traces go.
    pub traces: TraceSettings,
    /// What is logged.
    pub log: LogSettings,
}

/// Of `task-processor-worker`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerSettings {
    /// What health and metrics listen on.
    pub http: HttpSettings,
    /// How it works.
    pub work: WorkerConfig,
    /// What it does with a payload.
    pub processing: ProcessingSettings,
    /// Where tasks are stored.
    pub database: PostgresSettings,
    /// The log.
    pub kafka: KafkaSettings,
    /// Where results are remembered.
    pub redis: RedisSettings,
    /// Whether and how long to wait at the start.
    pub start: StartSettings,
    /// Where traces go.
    pub traces: TraceSettings,
    /// What is logged.
    pub log: LogSettings,
}

/// Of `task-processor`, which is server and worker in one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandaloneSettings {
    /// What it listens on.
    pub http: HttpSettings,
    /// How it takes submissions in.
    pub submit: SubmitConfig,
    /// How it works.
    pub work: WorkerConfig,
    /// What it does with a payload.
    pub processing: ProcessingSettings,
    /// Where tasks are stored.
    pub database: EmbeddedDatabase,
    /// How many bytes of results it keeps in memory.
    pub cache_bytes: usize,
    /// Where traces go.
    pub traces: TraceSettings,
    /// What is logged.
    pub log: LogSettings,
}

/// Of `task-processor-migrate`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrateSettings {
    /// The database to work on.
    pub database: PostgresSettings,
    /// How long to wait for it.
    pub startup_timeout: Duration,
    /// From which age on the check calls what should have ended by itself a fault.
    pub overdue: Duration,
    /// What is logged.
    pub log: LogSettings,
}

/// What a distributed program does before it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartSettings {
    /// How long to wait for a dependency that is not up.
    pub timeout: Duration,
    /// Whether to bring the schema up to date itself.
    pub migrate: bool,
}

impl StartSettings {
    fn read(reader: &mut Reader) -> Self {
        reader.section("Starting");
        Self {
            timeout: read_startup_timeout(reader),
            migrate: reader.flag(
                "MIGRATE",
                false,
                "whether to bring the schema up to date at the start; otherwise it waits for task-processor-migrate",
            ),
        }
    }
}

fn read_startup_timeout(reader: &mut Reader) -> Duration {
    reader.duration(
        "STARTUP_TIMEOUT",
        Duration::from_secs(60),
        Duration::ZERO..=Duration::from_secs(24 * 3_600),
        "how long to wait at the start for a dependency that is not up; then it exits 1",
    )
}

impl Settings for ServerSettings {
    fn read(reader: &mut Reader) -> Self {
        let http = HttpSettings::read_api(reader, "0.0.0.0", DRAIN_DELAY);
        Self {
            drain_deadline: reader.duration(
                "DRAIN_DEADLINE",
                Duration::from_secs(25),
                Duration::ZERO..=Duration::from_secs(3_600),
                "how long a stop may take after DRAIN_DELAY; requests under way have four fifths of it, then their connections are cut",
            ),
            submit: submit::read(reader, http.max_body),
            http,
            database: PostgresSettings::read(reader, 10),
            kafka: KafkaSettings::read_publisher(reader),
            redis: RedisSettings::read(reader),
            cache_bytes: read_cache_bytes(reader),
            start: StartSettings::read(reader),
            traces: TraceSettings::read(reader, "task-processor-server"),
            log: LogSettings::read(reader),
        }
    }

    fn log(&self) -> &LogSettings {
        &self.log
    }

    fn stop_limit(&self) -> Option<Duration> {
        Some(self.http.drain_delay + self.drain_deadline)
    }
}

impl Settings for WorkerSettings {
    fn read(reader: &mut Reader) -> Self {
        let http = HttpSettings::read_worker(reader);
        let mut work = work::read(reader);
        Self {
            http,
            processing: ProcessingSettings::read(reader, &mut work),
            work,
            database: PostgresSettings::read(reader, 10),
            kafka: KafkaSettings::read(reader),
            redis: RedisSettings::read(reader),
            start: StartSettings::read(reader),
            traces: TraceSettings::read(reader, "task-processor-worker"),
            log: LogSettings::read(reader),
        }
    }

    fn log(&self) -> &LogSettings {
        &self.log
    }

    fn stop_limit(&self) -> Option<Duration> {
        Some(self.http.drain_delay + self.work.drain_deadline)
    }
}

/// Variables that say someone means the distributed programs.
const DISTRIBUTED_ONLY: [&str; 28] = [
    "DATABASE_HOST",
    "DATABASE_PORT",
    "DATABASE_USER",
    "DATABASE_PASSWORD",
    "DATABASE_NAME",
    "DATABASE_POOL",
    "DATABASE_SSL_MODE",
    "DATABASE_SSL_ROOT_CERT",
    "REDIS_URL",
    "REDIS_HOST",
    "REDIS_PORT",
    "REDIS_USERNAME",
    "REDIS_PASSWORD",
    "REDIS_TLS",
    "REDIS_TLS_CA_CERT_FILE",
    "KAFKA_BROKERS",
    "KAFKA_GROUP_ID",
    "KAFKA_CLIENT",
    "KAFKA_PARTITIONS",
    "KAFKA_SECURITY_PROTOCOL",
    "KAFKA_SSL_CA_LOCATION",
    "KAFKA_SSL_CERTIFICATE_LOCATION",
    "KAFKA_SSL_KEY_LOCATION",
    "KAFKA_SASL_MECHANISM",
    "KAFKA_SASL_USERNAME",
    "KAFKA_SASL_PASSWORD",
    "WORKER_INDEX",
    "WORKER_COUNT",
];

impl Settings for StandaloneSettings {
    fn read(reader: &mut Reader) -> Self {
        reader.refuse(&DISTRIBUTED_ONLY, &format!("is set, but {DISTRIBUTED}"));
        let http = HttpSettings::read_api(reader, "127.0.0.1", Duration::ZERO);
        let submit = submit::read(reader, http.max_body);
        let mut work = work::read(reader);
        Self {
            submit,
            http,
            processing: ProcessingSettings::read(reader, &mut work),
            work,
            database: EmbeddedDatabase::read(reader),
            cache_bytes: read_cache_bytes(reader),
            traces: TraceSettings::read(reader, "task-processor"),
            log: LogSettings::read(reader),
        }
    }

    fn log(&self) -> &LogSettings {
        &self.log
    }

    fn stop_limit(&self) -> Option<Duration> {
        Some(self.http.drain_delay + self.work.drain_deadline)
    }
}

impl Settings for MigrateSettings {
    const COMMANDS: &'static [&'static str] = &["up", "down", "status", "verify"];

    fn read(reader: &mut Reader) -> Self {
        let url = PostgresSettings::read_url(reader);
        reader.section("Starting");
        let startup_timeout = read_startup_timeout(reader);
        Self {
            database: PostgresSettings { url, pool: 1 },
            startup_timeout,
            overdue: {
                reader.section("Checking");
                reader.duration(
                    "VERIFY_AGE",
                    migration::OVERDUE,
                    Duration::ZERO..=Duration::from_secs(168 * 3_600),
                    "from which age on a task without a message, a claim of nothing unfinished or a dead worker is a fault",
                )
            },
            log: LogSettings::read(reader),
        }
    }

    fn log(&self) -> &LogSettings {
        &self.log
    }
}
