//! The program as it is called: arguments, settings, exit codes.

use std::path::Path;

use bootstrap::testing::Sandbox;

const PROGRAM: &str = env!("CARGO_BIN_EXE_task-processor");

#[test]
fn help_is_the_committed_one() {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help.txt");
    Sandbox::new().check_help(PROGRAM, &committed);
}

#[test]
fn version_is_that_of_the_package() {
    Sandbox::new().check_version(PROGRAM, "task-processor", env!("CARGO_PKG_VERSION"));
}

#[test]
fn an_unknown_argument_is_refused() {
    let said = Sandbox::new().run(PROGRAM, &["serve"], &[]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("\"serve\""), "{}", said.err);
}

#[test]
fn settings_of_the_distributed_programs_are_refused_with_the_right_name() {
    let sandbox = Sandbox::new();
    std::fs::write(
        sandbox.path().join(".env"),
        "KAFKA_BROKERS=localhost:9092\n",
    )
    .expect("a file");
    let said = sandbox.run(
        PROGRAM,
        &[],
        &[
            ("DATABASE_URL", "postgres://task:hunter2@localhost/taskdb"),
            ("REDIS_HOST", "localhost"),
            ("PORT", "70000"),
            ("BATCH", "10000"),
        ],
    );
    assert_eq!(said.code, Some(2));
    assert_eq!(said.out, "");
    assert!(said.err.contains("5 settings are wrong"), "{}", said.err);
    for name in [
        "DATABASE_URL",
        "REDIS_HOST",
        "KAFKA_BROKERS",
        "PORT",
        "BATCH",
    ] {
        assert!(
            said.err.contains(&format!("  {name} ")),
            "{name} in {}",
            said.err
        );
    }
    assert!(said.err.contains("task-processor-server"), "{}", said.err);
    assert!(!said.err.contains("hunter2"), "{}", said.err);
    assert!(!sandbox.path().join("task-processor.db").exists());
}

#[test]
fn a_missing_directory_is_named() {
    let said = Sandbox::new().run(
        PROGRAM,
        &[],
        &[("DATABASE_URL", "sqlite://missing/tasks.db"), ("PORT", "0")],
    );
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(
        said.err.contains("the directory missing does not exist"),
        "{}",
        said.err
    );
    assert!(!said.err.contains(".lock"), "{}", said.err);
}

#[test]
fn a_taken_port_leaves_no_database_behind() {
    let sandbox = Sandbox::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("it has one").port().to_string();
    let said = sandbox.run(PROGRAM, &[], &[("PORT", &port)]);
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(said.err.contains("cannot listen"), "{}", said.err);
    assert!(!sandbox.path().join("task-processor.db").exists());
}
