//! Schemathesis makes requests of the document, valid and invalid ones, and compares every answer with it.

use crate::programs::{Program, directory};
use crate::tools::{beside, must_succeed, tool};
use crate::{API_KEY, Distributed, standalone};

/// For how long requests are made, in seconds.
const SECONDS: &str = "60";

/// The requests of a run follow from it, as far as their number, which the time decides.
const SEED: &str = "1";

#[test]
#[ignore = "needs the programs and the tools: run cargo xtask test"]
fn the_embedded_form_answers_as_the_document_says() {
    check(&standalone("schemathesis"), "schemathesis-embedded");
}

#[test]
#[ignore = "needs PostgreSQL, Redis, Kafka 4 and the tools: run cargo xtask test"]
fn the_distributed_form_answers_as_the_document_says() {
    let system = Distributed::start("schemathesis");
    check(&system.server, "schemathesis-distributed");
}

/// The document is read from the program, so that no route is left out.
fn check(program: &Program, name: &str) {
    let said = must_succeed(
        tool("st")
            .current_dir(directory(name))
            .arg("--config-file")
            .arg(beside("schemathesis.toml"))
            .args(["--no-color", "run"])
            .arg(format!("{}/openapi.json", program.url))
            .env("API_KEY", API_KEY)
            .args([
                "--checks",
                "all",
                "--phases",
                "examples,coverage,fuzzing,stateful",
            ])
            .args(["--max-time", SECONDS, "--seed", SEED]),
    );
    // A run that asked for next to nothing would have proved nothing. A quiet machine makes a thousand requests.
    let passed = said.lines().find_map(|line| {
        let (generated, passed) = line.trim().split_once(" generated, ")?;
        (passed.split_once(' ')?.0 == generated).then(|| generated.replace(',', "").parse::<u32>())
    });
    assert!(matches!(passed, Some(Ok(100..))), "{said}");
    // All but the one that the document was read from.
    assert!(said.contains("12 selected / 12 total"), "{said}");
    assert!(said.contains("  Tested: 12\n"), "{said}");
}
