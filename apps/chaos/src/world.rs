//! Services, programs, clients and watchers, all at once.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};

use crate::database::Database;
use crate::failure::Failure;
use crate::fleet::{Line, Role, SERVERS, Slot, WORKERS, Workshop, attend, probe};
use crate::history::History;
use crate::ledger::Ledger;
use crate::load::{Balancer, Mix, send};
use crate::log::say;
use crate::services::{Kind, Service};
use crate::watch::Watcher;

/// Longer than any task may wait when nothing disturbs it: four backoffs, and what a full queue needs.
const REST_LIMIT: Duration = Duration::from_secs(240);

pub(crate) struct World {
    pub(crate) postgres: Service,
    pub(crate) redis: Service,
    /// One for each half.
    pub(crate) kafkas: Vec<Service>,
    pub(crate) servers: Vec<Arc<Slot>>,
    pub(crate) workers: Vec<Arc<Slot>>,
    pub(crate) workshop: Arc<Workshop>,
    pub(crate) history: Arc<History>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) watcher: Arc<Watcher>,
    balancer: Arc<Balancer>,
    _aside: JoinSet<()>,
}

/// Which client the programs use, on which broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Half {
    pub(crate) client: &'static str,
    /// The broker's major version.
    pub(crate) major: u8,
}

/// Both clients, each on the newest broker that it can talk to.
pub(crate) const HALVES: [Half; 2] = [
    Half {
        client: "rdkafka",
        major: 4,
    },
    Half {
        client: "kafka-rust",
        major: 3,
    },
];

/// A load that goes on until it is ended.
pub(crate) struct Load {
    stop: watch::Sender<bool>,
    sending: JoinHandle<()>,
}

impl Load {
    /// Waits for the last answers.
    pub(crate) async fn end(self) -> Result<(), Failure> {
        self.stop.send_replace(true);
        Ok(self.sending.await?)
    }
}

impl World {
    /// Starts everything, and waits until it is ready. The directory must be empty.
    pub(crate) async fn start(
        binaries: &Path,
        directory: &Path,
        halves: &[Half],
    ) -> Result<Self, Failure> {
        let base = free_ports()?;
        let doors = |first: u16| {
            (0..SERVERS + WORKERS)
                .map(move |n| first + n as u16)
                .collect()
        };
        let xtask = binaries.join("xtask");
        say("starting PostgreSQL, Redis and Kafka");
        let postgres =
            Service::begin(Kind::Postgres, base, doors(base + 20), &xtask, directory).await?;
        let redis =
            Service::begin(Kind::Redis, base + 1, doors(base + 30), &xtask, directory).await?;
        let mut kafkas = Vec::new();
        for (port, half) in (base + 2..).step_by(3).zip(halves) {
            let kind = Kind::Kafka(half.major);
            kafkas.push(Service::begin(kind, port, vec![port + 2], &xtask, directory).await?);
        }
        for service in [&postgres, &redis].into_iter().chain(&kafkas) {
            service.until_it_answers().await?;
        }
        migrate(binaries, directory, postgres.port, "up").await?;

        let history = Arc::new(History::default());
        let workshop = Arc::new(Workshop {
            binaries: binaries.to_owned(),
            directory: directory.to_owned(),
            history: Arc::clone(&history),
            line: std::sync::Mutex::new(Line {
                client: halves[0].client,
                port: kafkas[0].doors[0].port,
            }),
        });
        let slot = |role, index: usize, number: usize| {
            Arc::new(Slot::new(
                role,
                index,
                base + 10 + number as u16,
                Arc::clone(&postgres.doors[number]),
                Arc::clone(&redis.doors[number]),
            ))
        };
        let servers: Vec<_> = (0..SERVERS).map(|n| slot(Role::Server, n, n)).collect();
        let workers: Vec<_> = (0..WORKERS)
            .map(|n| slot(Role::Worker, n, SERVERS + n))
            .collect();
        let watcher = Arc::new(Watcher::default());
        let mut aside = JoinSet::new();
        let slots: Vec<_> = servers.iter().chain(&workers).cloned().collect();
        say("starting three servers and three workers");
        for slot in &slots {
            slot.start(&mut *slot.take().await, &workshop)?;
        }
        for slot in &slots {
            if !slot.wait_until_ready().await {
                return Err(format!("{} does not become ready", slot.place()).into());
            }
            aside.spawn(Arc::clone(&watcher).follow(Arc::clone(slot)));
        }
        for server in &servers {
            aside.spawn(probe(Arc::clone(server)));
        }
        aside.spawn(Arc::clone(&watcher).follow_queue(postgres.port));
        aside.spawn(attend(slots, Arc::clone(&workshop)));
        // Until the probes have looked once.
        sleep(Duration::from_secs(1)).await;
        Ok(Self {
            balancer: Arc::new(Balancer::new(servers.clone())),
            postgres,
            redis,
            kafkas,
            servers,
            workers,
            workshop,
            history,
            ledger: Arc::new(Ledger::default()),
            watcher,
            _aside: aside,
        })
    }

    pub(crate) fn slots(&self) -> impl Iterator<Item = &Arc<Slot>> {
        self.servers.iter().chain(&self.workers)
    }

    /// The broker that the programs use now.
    pub(crate) fn kafka(&self) -> &Service {
        let port = self.workshop.line().port;
        self.kafkas
            .iter()
            .find(|kafka| kafka.doors[0].port == port)
            .unwrap_or(&self.kafkas[0])
    }

    pub(crate) fn load(&self, rate: u32, mix: Mix, seed: u64) -> Load {
        let (stop, stopped) = watch::channel(false);
        let sending = tokio::spawn(send(
            Arc::clone(&self.balancer),
            Arc::clone(&self.ledger),
            rate,
            mix,
            seed,
            stopped,
        ));
        Load { stop, sending }
    }

    pub(crate) async fn database(&self) -> Result<Database, Failure> {
        Database::connect(self.postgres.port).await
    }

    /// Lets all programs change to another client and another broker, under whatever load there is: the servers one by one,
    /// the workers all at once, because the members of a group must agree.
    pub(crate) async fn change_over(
        &self,
        half: usize,
        client: &'static str,
    ) -> Result<(), Failure> {
        let line = Line {
            client,
            port: self.kafkas[half].doors[0].port,
        };
        *self
            .workshop
            .line
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = line;
        for server in &self.servers {
            let mut body = server.take().await;
            server.stop(&mut body, &self.history).await;
            server.start(&mut body, &self.workshop)?;
            self.must_be_ready(server).await;
        }
        let mut stopping = JoinSet::new();
        for worker in &self.workers {
            let (worker, history) = (Arc::clone(worker), Arc::clone(&self.history));
            stopping.spawn(async move { worker.stop(&mut *worker.take().await, &history).await });
        }
        while stopping.join_next().await.is_some() {}
        for worker in &self.workers {
            worker.start(&mut *worker.take().await, &self.workshop)?;
        }
        for worker in &self.workers {
            self.must_be_ready(worker).await;
        }
        Ok(())
    }

    /// A program that was started and does not become ready breaks a promise: nothing is kept from it for that long.
    pub(crate) async fn must_be_ready(&self, slot: &Slot) {
        if !slot.wait_until_ready().await {
            self.history
                .surprise(format!("{} does not become ready", slot.place()));
        }
    }

    /// Waits until nothing waits and nothing is in hand.
    pub(crate) async fn rest(&self) -> Result<(), Failure> {
        let database = self.database().await?;
        let deadline = Instant::now() + REST_LIMIT;
        loop {
            let backlog = database.backlog().await?;
            if backlog.queued == 0 && backlog.claims == 0 {
                return database.close().await;
            }
            if Instant::now() > deadline {
                self.history.surprise(format!(
                    "{REST_LIMIT:?} after the last fault {} tasks wait and {} claims are held",
                    backlog.queued, backlog.claims
                ));
                return database.close().await;
            }
            sleep(Duration::from_millis(250)).await;
        }
    }

    /// What the shipped check of the database says, and whether it is content.
    pub(crate) async fn verify(&self) -> Result<(bool, String), Failure> {
        let Workshop {
            binaries,
            directory,
            ..
        } = &*self.workshop;
        let program = binaries.join("task-processor-migrate");
        run(&program, directory, self.postgres.port, "verify").await
    }

    /// Ends everything, at once.
    pub(crate) async fn end(self) {
        for slot in self.slots() {
            slot.kill(&mut *slot.take().await).await;
        }
        for service in [&self.postgres, &self.redis]
            .into_iter()
            .chain(&self.kafkas)
        {
            service.take_away().await;
        }
    }
}

async fn migrate(
    binaries: &Path,
    directory: &Path,
    port: u16,
    command: &str,
) -> Result<(), Failure> {
    let program = binaries.join("task-processor-migrate");
    match run(&program, directory, port, command).await? {
        (true, _) => Ok(()),
        (false, said) => Err(format!("task-processor-migrate {command}: {said}").into()),
    }
}

async fn run(
    program: &PathBuf,
    directory: &Path,
    port: u16,
    command: &str,
) -> Result<(bool, String), Failure> {
    let output = Command::new(program)
        .arg(command)
        .current_dir(directory)
        .env(
            "DATABASE_URL",
            format!("postgres://task:task@127.0.0.1:{port}/taskdb"),
        )
        // All is at rest: what is older than the moment in which it came to rest is a fault.
        .env("VERIFY_AGE", "5s")
        .output()
        .await
        .map_err(|error| format!("{}: {error}", program.display()))?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    Ok((output.status.success(), said))
}

/// The first of 40 ports in a row that nobody has, from below the range that the system gives to outgoing connections.
fn free_ports() -> Result<u16, Failure> {
    const COUNT: u16 = 40;
    let blocks = 9_000 / COUNT;
    let first = u16::try_from(std::process::id() % u32::from(blocks))?;
    (0..blocks)
        .map(|block| 20_000 + (first + block) % blocks * COUNT)
        .find(|base| {
            (*base..base + COUNT).all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        })
        .ok_or_else(|| "no 40 ports in a row are free".into())
}
