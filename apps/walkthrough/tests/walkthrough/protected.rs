//! TLS and logins toward PostgreSQL, Redis and Kafka: what is trusted works whole, and what is not is refused by name.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::json;

use crate::clients::{curl, post, records_with_key, redis};
use crate::programs::{self, End, Program, directory, free_port};
use crate::world::text;
use crate::{SERVER, WORKER, eventually};

/// What the services ask for, and what they do not.
const PASSWORD: &str = "task";
const WRONG: &str = "hunter2";

/// An authority in `root.pem`, a server of its in `server.pem` and `server.key`, which is `localhost` and nobody else, and an
/// authority that signed nothing in `stranger.pem`.
fn certificates(home: &Path) {
    let authority = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let root = params.self_signed(&key).expect("a root");
        fs::write(home.join(name), root.pem()).expect("a file");
        Issuer::new(params, key)
    };
    let issuer = authority("root.pem");
    let _of_nobody = authority("stranger.pem");
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
    // One that bore its authority's name would count as its own.
    params
        .distinguished_name
        .push(DnType::CommonName, "localhost");
    let server = params.signed_by(&key, &issuer).expect("a certificate");
    fs::write(home.join("server.pem"), server.pem()).expect("a file");
    fs::write(home.join("server.key"), key.serialize_pem()).expect("a file");
}

/// A directory with certificates, and the settings of programs that reach protected services.
struct Place {
    home: PathBuf,
    settings: Vec<(String, String)>,
}

impl Place {
    fn new(name: &str) -> Self {
        let home = directory(&format!("protected-{name}-{}", std::process::id()));
        certificates(&home);
        let mut place = Self {
            home,
            settings: Vec::new(),
        };
        place.set(&[
            ("HOST", "127.0.0.1"),
            ("DRAIN_DELAY", "0"),
            // Longer than a refusal takes, and shorter than the patience of a test.
            ("STARTUP_TIMEOUT", "30s"),
        ]);
        place
    }

    fn file(&self, name: &str) -> String {
        self.home.join(name).to_str().expect("text").to_owned()
    }

    fn set(&mut self, settings: &[(&str, &str)]) {
        self.settings = self.with(settings);
    }

    /// The settings, some of them replaced.
    fn with(&self, settings: &[(&str, &str)]) -> Vec<(String, String)> {
        let replaced = |name: &str| settings.iter().any(|(replaced, _)| *replaced == name);
        let kept = self.settings.iter().filter(|(name, _)| !replaced(name));
        let new = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        kept.cloned().chain(new).collect()
    }

    fn postgres(&mut self) -> Program {
        let port = free_port();
        let program = Program::postgres(port, &self.home);
        self.set(&[
            ("DATABASE_HOST", "localhost"),
            ("DATABASE_PORT", &port.to_string()),
            ("DATABASE_PASSWORD", PASSWORD),
            ("DATABASE_SSL_MODE", "verify-full"),
            ("DATABASE_SSL_ROOT_CERT", &self.file("root.pem")),
        ]);
        program
    }

    fn redis(&mut self) -> Program {
        let port = free_port();
        let number = port.to_string();
        let [certificate, key, root] =
            ["server.pem", "server.key", "root.pem"].map(|name| self.file(name));
        let program = Program::redis_with(
            port,
            &self.home,
            &[
                "--port",
                "0",
                "--tls-port",
                &number,
                "--tls-cert-file",
                &certificate,
                "--tls-key-file",
                &key,
                "--tls-ca-cert-file",
                &root,
                "--tls-auth-clients",
                "no",
                "--requirepass",
                PASSWORD,
            ],
        );
        self.set(&[
            ("REDIS_HOST", "localhost"),
            ("REDIS_PORT", &number),
            ("REDIS_PASSWORD", PASSWORD),
            ("REDIS_TLS", "true"),
            ("REDIS_TLS_CA_CERT_FILE", &root),
        ]);
        program
    }

    /// A broker; where it listens in the clear, and the first of its two ports that do not.
    fn kafka(&mut self, major: &str) -> (Program, String, u16) {
        let (plain, port) = (free_port(), free_port());
        let program = Program::broker_with(
            major,
            plain,
            &self.home,
            &["--tls", &port.to_string(), "--certificate", &self.file("")],
        );
        self.set(&[
            ("KAFKA_BROKERS", &format!("localhost:{}", port + 1)),
            ("KAFKA_SECURITY_PROTOCOL", "sasl_ssl"),
            ("KAFKA_SSL_CA_LOCATION", &self.file("root.pem")),
            ("KAFKA_SASL_MECHANISM", "SCRAM-SHA-256"),
            ("KAFKA_SASL_USERNAME", "task"),
            ("KAFKA_SASL_PASSWORD", PASSWORD),
        ]);
        (program, format!("127.0.0.1:{plain}"), port)
    }

    fn run(&self, program: &str, arguments: &[&str], settings: &[(&str, &str)]) -> End {
        programs::run(program, arguments, &self.home, &self.with(settings))
    }

    fn migrate(&self) {
        let end = self.run("task-processor-migrate", &["up"], &[]);
        assert_eq!(end.code, Some(0), "{}", end.log);
    }

    fn begin(&self, program: &str, settings: &[(&str, &str)]) -> Program {
        let port = free_port();
        let number = port.to_string();
        let named = [("PORT", number.as_str()), ("WORKER_PORT", number.as_str())];
        let settings = [settings, named.as_slice()].concat();
        Program::serve(program, port, &self.home, &self.with(&settings))
    }

    /// The program does not start, and says which setting to look at without showing what is in it.
    fn refused(&self, program: &str, arguments: &[&str], settings: &[(&str, &str)], said: &[&str]) {
        let end = self.run(program, arguments, settings);
        assert_eq!(end.code, Some(1), "{settings:?}: {}", end.log);
        for said in said {
            assert!(end.log.contains(said), "{settings:?}: {said}: {}", end.log);
        }
        assert!(!end.log.contains(WRONG), "{settings:?}: {}", end.log);
    }
}

#[test]
#[ignore = "needs programs to start PostgreSQL, Redis and Kafka 4: run cargo xtask test"]
fn a_task_travels_encrypted_from_end_to_end() {
    let mut place = Place::new("whole");
    let (_postgres, _redis) = (place.postgres(), place.redis());
    let (_kafka, plain, _port) = place.kafka("4");
    place.migrate();
    let server = place.begin(SERVER, &[]);
    let worker = place.begin(WORKER, &[]);
    for program in [&server, &worker] {
        for absent in ["kafka.not_there", "redis.not_there"] {
            assert!(!program.log().contains(absent), "{}", program.log());
        }
    }
    let body = json!({ "payload": "sealed", "priority": 1 }).to_string();
    let answer = post(&format!("{}/tasks", server.url), &body);
    assert_eq!(answer.status, 201, "{answer:?}");
    let id = text(&answer.json()["id"]);
    let done = curl(&format!("{}/tasks/{id}?wait=30s", server.url), &[]);
    assert!(done.body.contains("delaes (len=6)"), "{done:?}");
    // The listener in the clear shows what came in by the other one.
    for topic in ["tasks-input", "tasks-output", "tasks-events"] {
        eventually("a record is written", || {
            (!records_with_key(&plain, topic, &id).is_empty()).then_some(())
        });
    }
    let port = &place.settings.iter().find(|(name, _)| name == "REDIS_PORT");
    let url = format!(
        "rediss://default:{PASSWORD}@localhost:{}",
        port.map_or("", |(_, port)| port)
    );
    let (root, key) = (place.file("root.pem"), format!("task:result:{id}"));
    eventually("the result is cached", || {
        let value = redis(&url, &["--cacert", &root, "GET", &key]);
        value.contains("delaes").then_some(())
    });
}

#[test]
#[ignore = "needs Redis and Kafka 4, and programs to start PostgreSQL: run cargo xtask test"]
fn a_postgresql_that_is_not_trusted_or_does_not_know_us_is_refused_by_name() {
    let mut place = Place::new("postgres");
    let _postgres = place.postgres();
    place.migrate();
    let stranger = place.file("stranger.pem");
    let mode = "DATABASE_SSL_MODE";
    for (settings, said) in [
        (
            [
                ("DATABASE_SSL_ROOT_CERT", stranger.as_str()),
                (mode, "verify-full"),
            ],
            ["UnknownIssuer", "DATABASE_SSL_ROOT_CERT"],
        ),
        (
            [("DATABASE_SSL_ROOT_CERT", &stranger), (mode, "verify-ca")],
            ["UnknownIssuer", "DATABASE_SSL_ROOT_CERT"],
        ),
        // As libpq, and not as the driver, which would trust anybody.
        (
            [("DATABASE_SSL_ROOT_CERT", &stranger), (mode, "require")],
            ["UnknownIssuer", "DATABASE_SSL_ROOT_CERT"],
        ),
        (
            [("DATABASE_HOST", "127.0.0.1"), (mode, "verify-full")],
            ["not valid for name", mode],
        ),
        (
            [("DATABASE_SSL_ROOT_CERT", ""), (mode, "disable")],
            ["no encryption", mode],
        ),
        (
            [("DATABASE_PASSWORD", WRONG), (mode, "verify-full")],
            ["password authentication failed", "DATABASE_PASSWORD"],
        ),
    ] {
        place.refused("task-processor-migrate", &["status"], &settings, &said);
    }
    // Whose name does not matter, or who he is.
    for settings in [
        [("DATABASE_HOST", "127.0.0.1"), (mode, "verify-ca")],
        [("DATABASE_SSL_ROOT_CERT", ""), (mode, "require")],
        [("DATABASE_SSL_ROOT_CERT", ""), (mode, "prefer")],
    ] {
        let end = place.run("task-processor-migrate", &["status"], &settings);
        assert_eq!(end.code, Some(0), "{settings:?}: {}", end.log);
    }
}

/// The database and the broker that tests share.
fn shared(place: &mut Place, major: &str) -> Program {
    // A database that is protected is as good as any.
    let postgres = place.postgres();
    place.migrate();
    let variable = format!("TEST_KAFKA_{major}_BROKERS");
    let brokers = std::env::var(&variable).expect("it is set: run cargo xtask test");
    place.set(&[("KAFKA_BROKERS", &brokers)]);
    postgres
}

#[test]
#[ignore = "needs Kafka 4, and programs to start PostgreSQL and Redis: run cargo xtask test"]
fn a_redis_that_is_not_trusted_or_does_not_know_us_is_refused_by_name() {
    let mut place = Place::new("redis");
    let _postgres = shared(&mut place, "4");
    let _redis = place.redis();
    let stranger = place.file("stranger.pem");
    for (settings, said) in [
        (
            [("REDIS_TLS_CA_CERT_FILE", stranger.as_str())],
            ["UnknownIssuer", "REDIS_TLS_CA_CERT_FILE"],
        ),
        (
            [("REDIS_TLS_CA_CERT_FILE", "")],
            ["UnknownIssuer", "REDIS_TLS_CA_CERT_FILE"],
        ),
        (
            [("REDIS_HOST", "127.0.0.1")],
            ["not valid for name", "REDIS_TLS_CA_CERT_FILE"],
        ),
        (
            [("REDIS_PASSWORD", WRONG)],
            ["authentication failed", "REDIS_PASSWORD"],
        ),
        ([("REDIS_PASSWORD", "")], ["NOAUTH", "REDIS_PASSWORD"]),
    ] {
        place.refused(SERVER, &[], &settings, &said);
    }
    // Nothing tells for sure that it expects TLS, so it counts as down, and is guessed at.
    let clear = [("REDIS_TLS", "false"), ("REDIS_TLS_CA_CERT_FILE", "")];
    let server = place.begin(SERVER, &clear);
    let log = server.log();
    assert!(
        log.contains("redis.not_there") && log.contains("REDIS_TLS"),
        "{log}"
    );
}

#[test]
#[ignore = "needs programs to start PostgreSQL, Redis and Kafka 4: run cargo xtask test"]
fn a_kafka_that_is_not_trusted_or_does_not_know_us_is_refused_by_name() {
    let mut place = Place::new("kafka");
    let (_postgres, _redis) = (place.postgres(), place.redis());
    let (_kafka, _plain, port) = place.kafka("4");
    place.migrate();
    let stranger = place.file("stranger.pem");
    let (tls, login) = (
        format!("localhost:{port}"),
        format!("localhost:{}", port + 1),
    );
    let by_number = format!("127.0.0.1:{}", port + 1);
    let clear = [
        ("KAFKA_SECURITY_PROTOCOL", "plaintext"),
        ("KAFKA_SSL_CA_LOCATION", ""),
        ("KAFKA_SASL_USERNAME", ""),
        ("KAFKA_SASL_PASSWORD", ""),
    ];
    let on_tls = ("KAFKA_BROKERS", tls.as_str());
    let encrypted = [
        on_tls,
        ("KAFKA_SECURITY_PROTOCOL", "ssl"),
        ("KAFKA_SASL_USERNAME", ""),
        ("KAFKA_SASL_PASSWORD", ""),
    ];
    let without_login = [&encrypted[1..], &[("KAFKA_BROKERS", login.as_str())]].concat();
    let in_the_clear = [clear.as_slice(), &[on_tls]].concat();
    let trust = "KAFKA_SSL_CA_LOCATION";
    let refused: [(&[(&str, &str)], &str); 7] = [
        (&[(trust, &stranger)], trust),
        (&[(trust, "")], trust),
        (&[("KAFKA_BROKERS", &by_number)], trust),
        (&[("KAFKA_SASL_PASSWORD", WRONG)], "KAFKA_SASL_PASSWORD"),
        (&[("KAFKA_SASL_USERNAME", "nobody")], "KAFKA_SASL_USERNAME"),
        (
            &[
                ("KAFKA_SASL_MECHANISM", "PLAIN"),
                ("KAFKA_SASL_PASSWORD", WRONG),
            ],
            "KAFKA_SASL_PASSWORD",
        ),
        (&in_the_clear, "KAFKA_SECURITY_PROTOCOL"),
    ];
    for (settings, said) in refused {
        place.refused(SERVER, &[], settings, &["Kafka", "refuses us", said]);
    }
    let mechanism = |name| [("KAFKA_SASL_MECHANISM", name)];
    let works: [&[(&str, &str)]; 3] =
        [&encrypted, &mechanism("PLAIN"), &mechanism("SCRAM-SHA-512")];
    for settings in works {
        let server = place.begin(SERVER, settings);
        assert!(
            !server.log().contains("kafka.not_there"),
            "{}",
            server.log()
        );
    }
    // Who does not log in where he must is left without an answer.
    let server = place.begin(SERVER, &without_login);
    assert!(server.log().contains("kafka.not_there"), "{}", server.log());
}
