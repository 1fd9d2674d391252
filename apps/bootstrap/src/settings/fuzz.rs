//! Hostile values in the environment and in `.env`.

use ::fuzz::{run, text};
use proptest::prelude::*;

use super::*;

const VALUES: &[&[u8]] = &[
    b"3000",
    b"500ms",
    b"256KiB",
    b"true",
    b"postgres://user:hunter2@db.example:5432/tasks?sslmode=require",
    b"redis://:hunter2@cache.example:6379/0",
    b"sqlite://tasks.db",
    b"kafka-1:9092,kafka-2:9092",
    b"https://user:hunter2@service.example/run?key=hunter2",
    b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    b"127.0.0.1",
    b"rdkafka",
];

fn names<S: Settings>() -> Vec<&'static str> {
    let mut reader = Reader::new(Source::default());
    let _defaults = S::read(&mut reader);
    let declared = reader.into_declared();
    declared.iter().map(|declared| declared.name).collect()
}

/// Either the values are taken, or every mistake names a variable that was set, in a message that a terminal can show.
fn check<S: Settings>(pairs: &[(&str, String)]) -> Result<(), TestCaseError> {
    let shown: Vec<(&str, &str)> = pairs
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let mut reader = Reader::new(Source::of_pairs(&shown));
    let read = S::read(&mut reader);
    let Err(Mistakes(mistakes)) = reader.finish(read) else {
        return Ok(());
    };
    for Mistake { name, reason } in mistakes {
        prop_assert!(name.len() <= 40 && !name.is_empty(), "{name}");
        prop_assert!((1..=900).contains(&reason.len()), "{name} {reason}");
        prop_assert!(!reason.contains(char::is_control), "{name} {reason:?}");
        prop_assert!(
            !reason.contains("hunter2") || !is_secret(&name),
            "{name} {reason}"
        );
    }
    Ok(())
}

fn is_secret(name: &str) -> bool {
    ["PASSWORD", "URL", "SECRET"]
        .iter()
        .any(|word| name.contains(word))
}

fn fuzz<S: Settings>(title: &str) {
    let pairs = prop::collection::vec((prop::sample::select(names::<S>()), text(VALUES)), 1..4);
    run(title, &pairs, |pairs| check::<S>(&pairs));
}

#[test]
fn fuzz_server_settings() {
    fuzz::<ServerSettings>("settings of the server");
}

#[test]
fn fuzz_worker_settings() {
    fuzz::<WorkerSettings>("settings of the worker");
}

#[test]
fn fuzz_standalone_settings() {
    fuzz::<StandaloneSettings>("settings of the embedded form");
}
