//! What one test has for itself: a database, a consumer group, a directory, and the programs that use them.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::clients::{curl, post, psql};
use crate::programs::{self, End, Program, directory, free_port};
use crate::{SERVER, WORKER, eventually};

fn address(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run cargo xtask test"))
}

/// A broker that tests share.
#[derive(Clone, Copy)]
pub(crate) enum Kafka {
    Three,
    Four,
}

pub(crate) struct World {
    pub(crate) name: &'static str,
    /// Of this test's own database.
    pub(crate) database: String,
    pub(crate) redis: String,
    pub(crate) brokers: String,
    pub(crate) directory: PathBuf,
    environment: Vec<(String, String)>,
}

impl World {
    /// Programs share the brokers' topics with those of other tests, which a record of an unknown task does not disturb.
    pub(crate) fn new(name: &'static str, kafka: Kafka, client: &str) -> Self {
        let brokers = match kafka {
            Kafka::Three => address("TEST_KAFKA_3_BROKERS"),
            Kafka::Four => address("TEST_KAFKA_4_BROKERS"),
        };
        Self::on(name, brokers, address("TEST_REDIS_URL"), client)
    }

    pub(crate) fn on(name: &'static str, brokers: String, redis: String, client: &str) -> Self {
        let server = address("TEST_DATABASE_URL");
        let unique = format!("walkthrough_{name}_{}", std::process::id());
        psql(&server, &format!("CREATE DATABASE {unique}"));
        let (base, _) = server
            .rsplit_once('/')
            .expect("TEST_DATABASE_URL names a database");
        let database = format!("{base}/{unique}");
        let environment = [
            ("DATABASE_URL", database.as_str()),
            ("REDIS_URL", &redis),
            ("KAFKA_BROKERS", &brokers),
            ("KAFKA_CLIENT", client),
            ("KAFKA_GROUP_ID", &unique),
            ("HOST", "127.0.0.1"),
            ("DRAIN_DELAY", "0"),
        ];
        let environment = environment
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec();
        Self {
            name,
            database,
            redis,
            brokers,
            directory: directory(&unique),
            environment,
        }
    }

    pub(crate) fn environment(&self, more: &[(&str, &str)]) -> Vec<(String, String)> {
        let more = more
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.environment.iter().cloned().chain(more).collect()
    }

    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> End {
        programs::run(program, arguments, &self.directory, &self.environment)
    }

    pub(crate) fn migrate(&self) {
        let end = self.run("task-processor-migrate", &["up"]);
        assert_eq!(end.code, Some(0), "{}", end.log);
    }

    pub(crate) fn server(&self) -> Program {
        self.server_with(&[])
    }

    pub(crate) fn server_with(&self, more: &[(&str, &str)]) -> Program {
        let mut program = self.begin(SERVER, more);
        program.wait_until_ready();
        program
    }

    pub(crate) fn worker(&self, more: &[(&str, &str)]) -> Program {
        let mut program = self.begin(WORKER, more);
        program.wait_until_ready();
        program
    }

    /// A worker that may never become ready.
    pub(crate) fn unready_worker(&self) -> Program {
        self.begin(WORKER, &[])
    }

    /// A server or worker on a free port, ready or not.
    pub(crate) fn begin(&self, name: &str, more: &[(&str, &str)]) -> Program {
        self.begin_at(free_port(), name, more)
    }

    /// A server or worker on this port, ready or not.
    pub(crate) fn begin_at(&self, port: u16, name: &str, more: &[(&str, &str)]) -> Program {
        let variable = if name == WORKER {
            "WORKER_PORT"
        } else {
            "PORT"
        };
        let number = port.to_string();
        let more: Vec<_> = more
            .iter()
            .copied()
            .chain([(variable, number.as_str())])
            .collect();
        Program::begin(name, port, &self.directory, &self.environment(&more))
    }

    /// The consumer group of this world's workers.
    pub(crate) fn group(&self) -> &str {
        let group = self
            .environment
            .iter()
            .find(|(name, _)| name == "KAFKA_GROUP_ID");
        group.map_or("", |(_, group)| group)
    }

    /// Posts a task; its id.
    pub(crate) fn submit(&self, server: &Program, payload: &str) -> String {
        let answer = post(
            &format!("{}/tasks", server.url),
            &json!({ "payload": payload, "priority": 1 }).to_string(),
        );
        assert_eq!(answer.status, 201, "{answer:?}");
        text(&answer.json()["id"])
    }

    /// Asks by HTTP until the task is done; the answer's body.
    pub(crate) fn done(&self, server: &Program, id: &str) -> String {
        let url = format!("{}/tasks/{id}", server.url);
        eventually("a task is done", || {
            let answer = curl(&url, &[]);
            assert_eq!(answer.status, 200, "{answer:?}");
            answer
                .json()
                .get("result")
                .is_some_and(Value::is_string)
                .then_some(answer.body)
        })
    }

    pub(crate) fn sql(&self, sql: &str) -> String {
        psql(&self.database, sql)
    }

    /// Waits until nothing is waiting, in hand or unannounced.
    pub(crate) fn at_rest(&self) {
        eventually("queue and claims are empty", || {
            let left =
                self.sql("SELECT (SELECT count(*) FROM queue) + (SELECT count(*) FROM claims)");
            (left == "0").then_some(())
        });
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Kept after a failure, for whoever looks into it.
        if !std::thread::panicking()
            && let Some((_, database)) = self.database.rsplit_once('/')
        {
            psql(
                &address("TEST_DATABASE_URL"),
                &format!("DROP DATABASE {database} WITH (FORCE)"),
            );
        }
    }
}

/// The string in a JSON value.
pub(crate) fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is not a string"))
        .to_owned()
}

/// The value of a Prometheus series of a program.
pub(crate) fn meter(program: &Program, series: &str) -> u64 {
    let answer = curl(
        &format!("{}/metrics", program.url),
        &["--header", "Accept: text/plain"],
    );
    let line = answer
        .body
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let value = line.unwrap_or_else(|| panic!("{series} is not in {}", answer.body));
    value
        .trim()
        .parse()
        .unwrap_or_else(|error| panic!("{value:?}: {error}"))
}
