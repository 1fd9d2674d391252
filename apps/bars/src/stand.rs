//! What a scenario measures: programs of ours on services, and a meter for what they use.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::bench::Bench;
use crate::database::{Database, url};
use crate::failure::Failure;
use crate::machine;
use crate::process::Process;
use crate::services::{free_port, say_to_redis};
use crate::topics;

const READY_LIMIT: Duration = Duration::from_secs(60);
/// To see how much memory a service holds, the kernel walks all its pages.
const BETWEEN_LOOKS: Duration = Duration::from_secs(5);

/// Which client the programs use, on which broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) client: &'static str,
    pub(crate) major: u8,
}

pub(crate) const RDKAFKA: Line = Line {
    client: "rdkafka",
    major: 4,
};
pub(crate) const KAFKA_RUST: Line = Line {
    client: "kafka-rust",
    major: 3,
};

/// A database of its own with its schema, an empty cache and empty topics.
pub(crate) struct Stand {
    pub(crate) name: String,
    pub(crate) database: Database,
    pub(crate) kafka_port: u16,
    redis_port: u16,
    environment: Vec<(&'static str, String)>,
    /// Names and process ids of the services.
    services: Vec<(String, u32)>,
    binaries: PathBuf,
    directory: PathBuf,
}

/// A program of ours, and where it answers.
pub(crate) struct Running {
    pub(crate) process: Process,
    pub(crate) port: u16,
}

impl Stand {
    pub(crate) async fn lay_out(
        bench: &mut Bench,
        name: &str,
        line: Line,
    ) -> Result<Self, Failure> {
        let kafka = bench.kafka(line.major).await?;
        let (postgres, redis) = (bench.postgres().await?, bench.redis().await?);
        let admin = Database::connect(postgres.0, "taskdb").await?;
        admin.execute(&format!("CREATE DATABASE {name}")).await?;
        admin.close().await?;
        let mut environment = vec![
            ("HOST", "127.0.0.1".to_owned()),
            ("DATABASE_URL", url(postgres.0, name)),
            ("REDIS_URL", format!("redis://127.0.0.1:{}", redis.0)),
            ("KAFKA_BROKERS", format!("127.0.0.1:{}", kafka.0)),
            ("KAFKA_CLIENT", line.client.to_owned()),
            ("KAFKA_GROUP_ID", format!("bars-{name}")),
            // No balancer has to learn that a program stops.
            ("DRAIN_DELAY", "0s".to_owned()),
        ];
        if line == KAFKA_RUST {
            environment.extend([
                ("WORKER_INDEX", "0".to_owned()),
                ("WORKER_COUNT", "1".to_owned()),
            ]);
        }
        let stand = Self {
            name: name.to_owned(),
            database: Database::connect(postgres.0, name).await?,
            kafka_port: kafka.0,
            redis_port: redis.0,
            environment,
            services: vec![
                ("postgres".to_owned(), postgres.1),
                ("redis".to_owned(), redis.1),
                ("kafka".to_owned(), kafka.1),
            ],
            binaries: bench.binaries.clone(),
            directory: bench.directory.clone(),
        };
        let migrate = stand.binaries.join("task-processor-migrate");
        let up = ["up".to_owned()];
        let database = &stand.environment[1..2];
        let process = Process::start("migrate", &migrate, &up, database, &stand.directory)?;
        let status = process.end().await?;
        if !status.success() {
            return Err(format!("task-processor-migrate up: {status}").into());
        }
        stand.tidy().await?;
        Ok(stand)
    }

    /// Empties cache and topics. No program may run.
    pub(crate) async fn tidy(&self) -> Result<(), Failure> {
        topics::forget(self.kafka_port).await?;
        self.forget_results().await
    }

    /// Empties the cache.
    pub(crate) async fn forget_results(&self) -> Result<(), Failure> {
        say_to_redis(self.redis_port, "FLUSHALL").await.map(drop)
    }

    /// How many results are in the cache.
    pub(crate) async fn cached(&self) -> Result<u64, Failure> {
        let answer = say_to_redis(self.redis_port, "DBSIZE").await?;
        let count = answer
            .lines()
            .next()
            .and_then(|line| line.strip_prefix(':'));
        Ok(count.ok_or("Redis does not count its keys")?.parse()?)
    }

    /// A file that names so many of these seeded rows for the load generator.
    pub(crate) async fn paths(&self, rows: u64, count: u64) -> Result<PathBuf, Failure> {
        let file = self.directory.join(format!("{}-{count}.paths", self.name));
        std::fs::write(&file, self.database.seeded_paths(rows, count).await?)?;
        Ok(file)
    }

    pub(crate) async fn server(
        &self,
        bench: &mut Bench,
        more: &[(&'static str, &str)],
    ) -> Result<Running, Failure> {
        self.run(bench, "server", "PORT", more).await
    }

    pub(crate) async fn worker(&self, bench: &mut Bench) -> Result<Running, Failure> {
        self.run(bench, "worker", "WORKER_PORT", &[]).await
    }

    async fn run(
        &self,
        bench: &mut Bench,
        name: &str,
        port_setting: &'static str,
        more: &[(&'static str, &str)],
    ) -> Result<Running, Failure> {
        let port = free_port()?;
        let mut environment = self.environment.clone();
        environment.push((port_setting, port.to_string()));
        environment.extend(
            more.iter()
                .map(|(name, value)| (*name, (*value).to_owned())),
        );
        bench.note(&self.name, name, &environment);
        let program = self.binaries.join(format!("task-processor-{name}"));
        let process = Process::start(name, &program, &[], &environment, &self.directory)?;
        Running { process, port }.once_ready().await
    }

    /// What a request is compared with that writes a row by itself.
    pub(crate) async fn plain_insert(&self) -> Result<Running, Failure> {
        let more = vec!["--insert".to_owned(), self.environment[1].1.clone()];
        reference(&self.binaries, &self.directory, more).await
    }

    /// Starts to measure what these programs and the services use.
    pub(crate) async fn meter(&self, programs: &[&Running]) -> Result<Meter, Failure> {
        let wal = self.database.wal_bytes().await?;
        Ok(Meter {
            wal: Some(wal),
            ..Meter::start(named(programs), self.services.clone())
        })
    }

    /// Stops the programs and waits for their ends.
    pub(crate) async fn clear(self, programs: Vec<Running>) -> Result<(), Failure> {
        stop(programs).await?;
        self.database.close().await
    }
}

impl Running {
    async fn once_ready(mut self) -> Result<Self, Failure> {
        let deadline = Instant::now() + READY_LIMIT;
        while status_of(self.port, "/health/ready").await.ok() != Some(200) {
            if let Some(status) = self.process.ended() {
                let name = &self.process.name;
                return Err(format!("{name} ended with {status}; see its log").into());
            }
            if Instant::now() > deadline {
                return Err(format!("{} does not become ready", self.process.name).into());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(self)
    }
}

/// Stops these programs, one after the other, and waits for their ends.
pub(crate) async fn stop(programs: Vec<Running>) -> Result<(), Failure> {
    for program in programs {
        program.process.stop().await?;
    }
    Ok(())
}

/// The API on nothing, or what `more` says.
pub(crate) async fn reference(
    binaries: &std::path::Path,
    directory: &std::path::Path,
    more: Vec<String>,
) -> Result<Running, Failure> {
    let port = free_port()?;
    let mut arguments = vec!["--port".to_owned(), port.to_string()];
    arguments.extend(more);
    let program = binaries.join("task-processor-bars-reference");
    let process = Process::start("reference", &program, &arguments, &[], directory)?;
    Running { process, port }.once_ready().await
}

/// API and worker in one process, on a file.
pub(crate) async fn standalone(bench: &mut Bench, name: &str) -> Result<Running, Failure> {
    let port = free_port()?;
    let environment = [
        ("HOST", "127.0.0.1".to_owned()),
        ("PORT", port.to_string()),
        // In the directory that it runs in.
        ("DATABASE_URL", format!("sqlite://{name}.db")),
    ];
    bench.note(name, "standalone", &environment);
    let program = bench.binaries.join("task-processor");
    let process = Process::start("standalone", &program, &[], &environment, &bench.directory)?;
    Running { process, port }.once_ready().await
}

fn named(programs: &[&Running]) -> Vec<(String, u32)> {
    programs
        .iter()
        .map(|program| (program.process.name.clone(), program.process.pid))
        .collect()
}

/// What was used since it was started.
pub(crate) struct Meter {
    programs: Vec<(String, u32)>,
    services: Vec<(String, u32)>,
    begin: Instant,
    seconds: BTreeMap<String, f64>,
    /// The most memory that each service was seen to hold.
    held_mib: BTreeMap<String, f64>,
    looked: Instant,
    wal: Option<i64>,
}

/// What a meter showed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Used {
    pub(crate) elapsed: f64,
    /// Processor time of each, in seconds.
    pub(crate) seconds: BTreeMap<String, f64>,
    /// Of each program the most memory that it has ever had, of each service the most that its processes were seen to hold
    /// together, in MiB.
    pub(crate) peak_mib: BTreeMap<String, f64>,
    pub(crate) wal_bytes: Option<i64>,
}

impl Meter {
    fn start(programs: Vec<(String, u32)>, services: Vec<(String, u32)>) -> Self {
        let all = [programs.as_slice(), &services].concat();
        Self {
            held_mib: machine::held_mib(&services),
            seconds: machine::processor_seconds(&all),
            programs,
            services,
            looked: Instant::now(),
            begin: Instant::now(),
            wal: None,
        }
    }

    /// For programs without services.
    pub(crate) fn of(programs: &[&Running]) -> Self {
        Self::start(named(programs), Vec::new())
    }

    /// To be called often: it looks now and then how much memory the services hold.
    pub(crate) fn look(&mut self) {
        if self.looked.elapsed() >= BETWEEN_LOOKS {
            self.look_at_memory();
        }
    }

    fn look_at_memory(&mut self) {
        self.looked = Instant::now();
        for (name, held) in machine::held_mib(&self.services) {
            let most = self.held_mib.entry(name).or_default();
            *most = most.max(held);
        }
    }

    pub(crate) async fn read(mut self, database: Option<&Database>) -> Result<Used, Failure> {
        let elapsed = self.begin.elapsed().as_secs_f64();
        let all = [self.programs.as_slice(), &self.services].concat();
        let mut seconds = machine::processor_seconds(&all);
        for (name, used) in &mut seconds {
            *used -= self.seconds.get(name).copied().unwrap_or_default();
        }
        self.look_at_memory();
        let mut peak_mib = self.held_mib;
        peak_mib.extend(
            self.programs
                .iter()
                .map(|(name, pid)| (name.clone(), machine::peak_mib(*pid))),
        );
        let wal_bytes = match (self.wal, database) {
            (Some(before), Some(database)) => Some(database.wal_bytes().await? - before),
            _ => None,
        };
        Ok(Used {
            elapsed,
            seconds,
            peak_mib,
            wal_bytes,
        })
    }
}

/// The status of a `GET`.
async fn status_of(port: u16, path: &str) -> Result<u16, Failure> {
    let answer = get(port, path).await?;
    Ok(answer.split(' ').nth(1).unwrap_or_default().parse()?)
}

/// The number of done tasks that `GET /metrics` shows.
pub(crate) async fn total_tasks(port: u16) -> Result<u64, Failure> {
    let answer = get(port, "/metrics").await?;
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
    let body: serde_json::Value = serde_json::from_str(body)?;
    Ok(body["totalTasks"].as_u64().ok_or("no total")?)
}

async fn get(port: u16, path: &str) -> Result<String, Failure> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: bars\r\naccept: application/json\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
