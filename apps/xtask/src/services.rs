//! `cargo xtask services up|status|down`: the real PostgreSQL, Redis and Kafka that tests and hand trials use.
//!
//! Everything listens on 127.0.0.1 and keeps its state in one directory named after this checkout, so that two
//! checkouts never share data, and `down` stops exactly what `up` of the same checkout started.

mod daemon;
mod docker;
mod install;
mod kafka;
mod place;
mod port;
mod postgres;
mod redis;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::failure::Failure;
use daemon::Daemon;
pub(crate) use install::{browser, build_tools, cache_directory, python_with_environments};
pub(crate) use place::{Place, fnv1a};

/// How long a service may take from its start to its first answer. Two brokers starting on two busy cores need most of
/// a minute; a service that needs three is not coming.
const START_LIMIT: Duration = Duration::from_secs(180);

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what is missing, start what is not running, print the environment to use: eval "$(cargo xtask services up)"
    Up {
        /// Use the Docker engine and deploy/compose.yaml instead of programs of this machine
        #[arg(long)]
        docker: bool,
        /// Added to every port (15432, 16379, 19092, 19093, 29092, 29093), for a second checkout
        /// [env: SERVICES_PORT_OFFSET] [default: 0]
        #[arg(long, value_name = "N")]
        port_offset: Option<u16>,
    },
    /// Say what runs, where, and the environment to use
    Status,
    /// Be a Kafka broker in the foreground, for tests that take one away
    #[command(hide = true)]
    Broker {
        /// 3 or 4
        #[arg(value_parser = clap::value_parser!(u8).range(3..=4))]
        major: u8,
        /// Where it keeps its data
        directory: PathBuf,
        /// It listens on this port and the next
        port: u16,
        /// The port that it tells its clients, if they are to come by another way
        #[arg(long, value_name = "PORT")]
        advertise: Option<u16>,
        /// Listens on this port with TLS, and on the next with TLS and a login, too
        #[arg(long, value_name = "PORT", requires = "certificate")]
        tls: Option<u16>,
        /// A directory that holds the server's certificate and key: server.pem and server.key
        #[arg(long, value_name = "DIRECTORY", requires = "tls")]
        certificate: Option<PathBuf>,
    },
    /// Be a PostgreSQL in the foreground, for tests that take one away
    #[command(hide = true)]
    Postgres {
        /// Where it keeps its data
        directory: PathBuf,
        /// It listens on this port
        port: u16,
        /// Takes clients with TLS alone; the directory holds its certificate and key: server.pem and server.key
        #[arg(long, value_name = "DIRECTORY")]
        certificate: Option<PathBuf>,
    },
    /// Be a Redis in the foreground, for tests that take one away
    #[command(hide = true)]
    Redis {
        /// Where it would keep data
        directory: PathBuf,
        /// It listens on this port
        port: u16,
    },
    /// Stop what `up` started and delete its data; downloads are kept
    Down,
}

/// Where the services of this checkout answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoints {
    postgres: u16,
    redis: u16,
    kafka_3: u16,
    kafka_4: u16,
}

impl Endpoints {
    fn with_offset(offset: u16) -> Result<Self, Failure> {
        let shift = |port: u16| {
            port.checked_add(offset).ok_or_else(|| {
                Failure::said(format!(
                    "port offset {offset} is too large: {port} + {offset} is above 65535"
                ))
            })
        };
        // The highest port in use is the 4.x controller's, one above its broker's.
        shift(kafka::KAFKA_4.port + 1)?;
        Ok(Self {
            postgres: shift(postgres::PORT)?,
            redis: shift(redis::PORT)?,
            kafka_3: shift(kafka::KAFKA_3.port)?,
            kafka_4: shift(kafka::KAFKA_4.port)?,
        })
    }

    /// What tests read.
    pub(crate) fn test_environment(&self) -> Vec<(&'static str, String)> {
        vec![
            (
                "TEST_DATABASE_URL",
                format!("postgres://task:task@127.0.0.1:{}/taskdb", self.postgres),
            ),
            (
                "TEST_REDIS_URL",
                format!("redis://127.0.0.1:{}", self.redis),
            ),
            (
                "TEST_KAFKA_3_BROKERS",
                format!("127.0.0.1:{}", self.kafka_3),
            ),
            (
                "TEST_KAFKA_4_BROKERS",
                format!("127.0.0.1:{}", self.kafka_4),
            ),
        ]
    }

    /// What the binaries read, for starting them by hand.
    fn binary_environment(&self) -> Vec<(&'static str, String)> {
        let local = || "127.0.0.1".to_owned();
        vec![
            ("DATABASE_HOST", local()),
            ("DATABASE_PORT", self.postgres.to_string()),
            ("DATABASE_USER", "task".to_owned()),
            ("DATABASE_PASSWORD", "task".to_owned()),
            ("DATABASE_NAME", "taskdb".to_owned()),
            ("REDIS_HOST", local()),
            ("REDIS_PORT", self.redis.to_string()),
            ("KAFKA_BROKERS", format!("127.0.0.1:{}", self.kafka_4)),
        ]
    }

    /// Prints what a shell can evaluate. All else that is said goes to the standard error.
    fn print(&self) -> Result<(), Failure> {
        let mut lines = String::from("# for the tests\n");
        for (name, value) in self.test_environment() {
            lines.push_str(&format!("export {name}={value}\n"));
        }
        lines.push_str(&format!(
            "# for the programs (Kafka 3.9 is at 127.0.0.1:{})\n",
            self.kafka_3
        ));
        for (name, value) in self.binary_environment() {
            lines.push_str(&format!("export {name}={value}\n"));
        }
        lines.push_str("# stop the services with: cargo xtask services down\n");
        std::io::stdout()
            .write_all(lines.as_bytes())
            .map_err(|source| Failure::System {
                doing: "cannot print the environment".to_owned(),
                source,
            })
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let place = Place::of_this_checkout()?;
    match &arguments.verb {
        Verb::Up {
            docker,
            port_offset,
        } => {
            let up = if *docker {
                docker::up(&place, &place.lock()?)?
            } else {
                up(&place, *port_offset)?
            };
            up.endpoints.print()
        }
        Verb::Status => status(&place),
        Verb::Broker {
            major,
            directory,
            port,
            advertise,
            tls,
            certificate,
        } => {
            let release = if *major == 3 {
                &kafka::KAFKA_3
            } else {
                &kafka::KAFKA_4
            };
            let programs = install::everything(&place)?;
            let advertised = advertise.unwrap_or(*port);
            let protection = tls
                .zip(certificate.as_deref())
                .map(|(port, certificate)| kafka::Protection { port, certificate });
            let ports = kafka::Ports {
                own: *port,
                advertised,
                protection,
            };
            Err(release.become_broker(directory, &ports, &programs))
        }
        Verb::Postgres {
            directory,
            port,
            certificate,
        } => {
            let programs = install::everything(&place)?;
            let certificate = certificate.as_deref();
            Err(postgres::become_server(
                directory,
                *port,
                certificate,
                &programs,
            ))
        }
        Verb::Redis { directory, port } => {
            let programs = install::everything(&place)?;
            Err(redis::become_server(directory, *port, &programs))
        }
        Verb::Down => down(&place),
    }
}

/// Services that answer, and whether any of them ran before this call.
pub(crate) struct Up {
    pub(crate) endpoints: Endpoints,
    pub(crate) found_running: bool,
}

/// Brings up what is not running yet. What was started before a failure is left for `status` and `down` to see.
pub(crate) fn up(place: &Place, port_offset: Option<u16>) -> Result<Up, Failure> {
    let alone = place.lock()?;
    if docker::runs(place) {
        return docker::up(place, &alone);
    }
    let endpoints = match (port_offset, place.endpoints()?) {
        (None, Some(kept)) => kept,
        (asked, kept) => {
            let wanted = Endpoints::with_offset(asked.map_or_else(offset_from_environment, Ok)?)?;
            if let Some(kept) = kept
                && kept != wanted
                && daemons(place, &kept).iter().any(Daemon::is_running)
            {
                return Err(Failure::said(
                    "services of this checkout already run on other ports; stop them first: cargo xtask services down",
                ));
            }
            wanted
        }
    };
    place.keep_endpoints(&endpoints)?;

    let programs = install::everything(place)?;
    let mut found_running = false;
    let mut starting = Vec::new();
    for (daemon, start) in [
        (postgres::daemon(place, endpoints.postgres), Start::Postgres),
        (redis::daemon(place, endpoints.redis), Start::Redis),
        (
            kafka::KAFKA_3.daemon(place, endpoints.kafka_3),
            Start::Kafka(&kafka::KAFKA_3),
        ),
        (
            kafka::KAFKA_4.daemon(place, endpoints.kafka_4),
            Start::Kafka(&kafka::KAFKA_4),
        ),
    ] {
        if daemon.is_running() {
            found_running = true;
            eprintln!(
                "{:<10} runs already on 127.0.0.1:{}",
                daemon.name, daemon.port
            );
        } else {
            for port in daemon.ports() {
                port::must_be_free(daemon.name, port)?;
            }
            match start {
                Start::Postgres => postgres::start(place, &daemon, &programs)?,
                Start::Redis => redis::start(place, &daemon, &programs)?,
                Start::Kafka(release) => release.start(place, &daemon, &programs)?,
            }
        }
        starting.push((daemon, start));
    }
    for (daemon, start) in &starting {
        let answers = || match start {
            Start::Postgres => postgres::answers(daemon.port, &programs),
            Start::Redis => redis::answers(daemon.port),
            Start::Kafka(_) => kafka::answers(daemon.port),
        };
        daemon.wait_until(START_LIMIT, answers)?;
        eprintln!("{:<10} answers on 127.0.0.1:{}", daemon.name, daemon.port);
    }
    Ok(Up {
        endpoints,
        found_running,
    })
}

#[derive(Clone, Copy)]
enum Start {
    Postgres,
    Redis,
    Kafka(&'static kafka::Release),
}

fn offset_from_environment() -> Result<u16, Failure> {
    match std::env::var("SERVICES_PORT_OFFSET") {
        Ok(text) => text.parse().map_err(|_| {
            Failure::said(format!(
                "SERVICES_PORT_OFFSET is {text:?}, not a number from 0 to 65535"
            ))
        }),
        Err(_) => Ok(0),
    }
}

fn daemons(place: &Place, endpoints: &Endpoints) -> Vec<Daemon> {
    vec![
        postgres::daemon(place, endpoints.postgres),
        redis::daemon(place, endpoints.redis),
        kafka::KAFKA_3.daemon(place, endpoints.kafka_3),
        kafka::KAFKA_4.daemon(place, endpoints.kafka_4),
    ]
}

fn status(place: &Place) -> Result<(), Failure> {
    if docker::runs(place) {
        return docker::status(place);
    }
    let Some(endpoints) = place.endpoints()? else {
        eprintln!("nothing was started from this checkout");
        return Ok(());
    };
    let mut running = 0;
    let daemons = daemons(place, &endpoints);
    for daemon in &daemons {
        match daemon.pid() {
            Some(pid) => {
                running += 1;
                eprintln!(
                    "{:<10} runs on 127.0.0.1:{}, pid {pid}, log {}",
                    daemon.name,
                    daemon.port,
                    daemon.log().display()
                );
            }
            None => eprintln!("{:<10} does not run", daemon.name),
        }
    }
    if running == daemons.len() {
        return endpoints.print();
    }
    Err(Failure::said(
        "not all services run; start them with: cargo xtask services up",
    ))
}

pub(crate) fn down(place: &Place) -> Result<(), Failure> {
    let alone = place.lock()?;
    if docker::runs(place) {
        docker::down(place)?;
    } else if let Some(endpoints) = place.endpoints()? {
        for daemon in daemons(place, &endpoints) {
            if daemon.stop()? {
                eprintln!("{:<10} stopped", daemon.name);
            }
        }
    } else {
        eprintln!("nothing was started from this checkout");
    }
    place.forget(alone)
}

/// The last lines of a log, for a failure's text.
fn tail(log: &Path) -> String {
    const LINES: usize = 20;
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.len().saturating_sub(LINES);
    let mut tail = format!("the end of {}:", log.display());
    for line in &lines[first..] {
        tail.push_str("\n    ");
        tail.push_str(line);
    }
    tail
}
