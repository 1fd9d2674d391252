//! The program as it is called: arguments, settings, exit codes. Needs no service.

use std::path::Path;

use bootstrap::testing::Sandbox;

const SERVER: &str = env!("CARGO_BIN_EXE_task-processor-server");

#[test]
fn help_is_the_committed_one() {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help.txt");
    Sandbox::new().check_help(SERVER, &committed);
}

#[test]
fn version_is_that_of_the_package() {
    Sandbox::new().check_version(SERVER, "task-processor-server", env!("CARGO_PKG_VERSION"));
}

#[test]
fn an_unknown_argument_is_refused() {
    let said = Sandbox::new().run(SERVER, &["--prot=1"], &[]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("\"--prot=1\""), "{}", said.err);
}

#[test]
fn all_mistakes_are_told_at_once_and_nothing_starts() {
    let sandbox = Sandbox::new();
    std::fs::write(
        sandbox.path().join(".env"),
        "KAFKA_BROKERS=nowhere\nPORT=1\n",
    )
    .expect("a file");
    let said = sandbox.run(
        SERVER,
        &[],
        &[
            ("PORT", "http"),
            ("DATABASE_URL", "sqlite://tasks.db"),
            ("REDIS_URL", "memcached://user:hunter2@cache"),
            ("KAFKA_CLIENT", "kafkajs"),
            ("STARTUP_TIMEOUT", "soon"),
            ("MAX_BODY", "256kb"),
        ],
    );
    assert_eq!(said.code, Some(2));
    assert_eq!(said.out, "");
    assert!(said.err.contains("7 settings are wrong"), "{}", said.err);
    for name in [
        "PORT",
        "DATABASE_URL",
        "REDIS_URL",
        "KAFKA_BROKERS",
        "KAFKA_CLIENT",
        "STARTUP_TIMEOUT",
        "MAX_BODY",
    ] {
        let told = said
            .err
            .lines()
            .any(|line| line.starts_with(&format!("  {name} ")));
        assert!(told, "{name} in {}", said.err);
    }
    assert!(!said.err.contains("hunter2"), "{}", said.err);
}

#[test]
fn a_database_that_never_comes_ends_the_wait_with_its_reason() {
    let said = Sandbox::new().run(
        SERVER,
        &[],
        &[
            ("DATABASE_URL", "postgres://task:hunter2@127.0.0.1:1/taskdb"),
            ("STARTUP_TIMEOUT", "300ms"),
            ("HOST", "127.0.0.1"),
            ("PORT", "0"),
        ],
    );
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(said.err.contains("waiting for PostgreSQL"), "{}", said.err);
    assert!(said.err.contains("STARTUP_TIMEOUT"), "{}", said.err);
    assert!(said.err.to_lowercase().contains("refused"), "{}", said.err);
    assert!(!said.err.contains("hunter2"), "{}", said.err);
}
