//! The program as it is called: arguments, settings, exit codes. Needs no service.

use std::path::Path;

use bootstrap::testing::Sandbox;

const MIGRATE: &str = env!("CARGO_BIN_EXE_task-processor-migrate");

#[test]
fn help_is_the_committed_one() {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help.txt");
    Sandbox::new().check_help(MIGRATE, &committed);
}

#[test]
fn version_is_that_of_the_package() {
    Sandbox::new().check_version(MIGRATE, "task-processor-migrate", env!("CARGO_PKG_VERSION"));
}

#[test]
fn it_takes_exactly_one_command_it_knows() {
    for (arguments, complaint) in [
        (&[] as &[&str], "needs a command: up, down, status, verify"),
        (&["sideways"], "does not know the argument \"sideways\""),
        (&["up", "down"], "one command at a time"),
    ] {
        let said = Sandbox::new().run(MIGRATE, arguments, &[]);
        assert_eq!(said.code, Some(2), "{arguments:?}");
        assert!(said.err.contains(complaint), "{}", said.err);
    }
}

#[test]
fn all_mistakes_are_told_at_once_and_nothing_starts() {
    let said = Sandbox::new().run(
        MIGRATE,
        &["up"],
        &[
            ("DATABASE_URL", "sqlite://tasks.db"),
            ("DATABASE_PORT", "x"),
            ("LOG_LEVEL", "loud"),
        ],
    );
    assert_eq!(said.code, Some(2));
    for name in ["DATABASE_URL", "DATABASE_PORT", "LOG_LEVEL"] {
        assert!(
            said.err.contains(&format!("  {name} ")),
            "{name} in {}",
            said.err
        );
    }
}

#[test]
fn a_database_that_never_comes_ends_the_wait_with_its_reason() {
    for command in ["up", "down", "status", "verify"] {
        let said = Sandbox::new().run(
            MIGRATE,
            &[command],
            &[
                ("DATABASE_URL", "postgres://task:hunter2@127.0.0.1:1/taskdb"),
                ("STARTUP_TIMEOUT", "200ms"),
            ],
        );
        assert_eq!(said.code, Some(1), "{}", said.err);
        assert!(said.err.contains("STARTUP_TIMEOUT"), "{}", said.err);
        assert!(!said.err.contains("hunter2"), "{}", said.err);
    }
}
