//! Wrong settings: every mistake at once, by name, and nothing is started.

use crate::programs::{directory, run};

#[test]
#[ignore = "needs the programs: run cargo xtask test"]
fn every_mistake_is_named_and_the_exit_code_is_2() {
    let wrong = [
        ("DATABASE_PORT", "abc"),
        ("DATABASE_NAME", ""),
        ("LOG_FORMAT", "xml"),
    ];
    let distributed = [
        ("KAFKA_CLIENT", "carrier-pigeon"),
        ("REDIS_PORT", "-1"),
        ("KAFKA_BROKERS", "nowhere"),
    ];
    check(
        "task-processor-server",
        &[],
        &[wrong.as_slice(), &distributed, &[("PORT", "70000")]].concat(),
    );
    check(
        "task-processor-worker",
        &[],
        &[wrong.as_slice(), &distributed, &[("BATCH", "0")]].concat(),
    );
    check("task-processor-migrate", &["up"], &wrong);
    check(
        "task-processor",
        &[],
        &[("PORT", "x"), ("LOG_FORMAT", "xml"), ("MAX_BODY", "lots")],
    );
}

#[test]
#[ignore = "needs the programs: run cargo xtask test"]
fn standalone_names_the_right_program_for_services() {
    let home = directory("settings-services");
    let environment = [("KAFKA_BROKERS".to_owned(), "localhost:9092".to_owned())];
    let end = run("task-processor", &[], &home, &environment);
    assert_eq!(end.code, Some(2), "{}", end.log);
    for word in ["KAFKA_BROKERS", "task-processor-server"] {
        assert!(end.log.contains(word), "{word} in {}", end.log);
    }
}

fn check(program: &str, arguments: &[&str], settings: &[(&str, &str)]) {
    let home = directory(&format!("settings-{program}"));
    let environment: Vec<(String, String)> = settings
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let end = run(program, arguments, &home, &environment);
    assert_eq!(end.code, Some(2), "{program}: {}", end.log);
    for (name, value) in settings {
        // An empty variable counts as not set, so it is no mistake.
        assert_eq!(
            end.log.contains(name),
            !value.is_empty(),
            "{program}, {name}: {}",
            end.log
        );
    }
}
