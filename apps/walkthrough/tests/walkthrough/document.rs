//! The API held against its own document, by a program that is not ours.

use std::process::Command;

use crate::clients::curl;
use crate::world::{Kafka, World};

/// Every operation of the document is sent what it allows and what it does not; every answer must be one that it names: no
/// 5xx, no status, content type, header or body that is not in it, no wrong input that is taken, no right one that is refused.
#[test]
#[ignore = "needs schemathesis, PostgreSQL, Redis and Kafka 4: run cargo xtask test"]
fn the_api_answers_as_its_document_says() {
    let schemathesis = std::env::var_os("TEST_SCHEMATHESIS")
        .expect("TEST_SCHEMATHESIS is set: run cargo xtask test");
    let world = World::new("document", Kafka::Four, "rdkafka");
    world.migrate();
    // A database that other tests keep busy is no defect of the API.
    let server = world.server_with(&[("SUBMIT_PATIENCE", "20s")]);
    let _worker = world.worker(&[]);
    let output = Command::new(schemathesis)
        .current_dir(&world.directory)
        .args(["run", &format!("{}/openapi.json", server.url)])
        .args(["--checks", "all", "--mode", "all", "--continue-on-failure"])
        // A machine that is busy with other tests is slow, which is no mistake in the document.
        .args(["--suppress-health-check", "all", "--request-timeout", "60"])
        // The same inputs every time; whoever wants others changes the seed.
        .args(["--seed", "1", "--max-examples", "60", "--no-color"])
        .output()
        .expect("schemathesis was installed");
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}\n{}", server.log());
    // It tells how many operations it sent requests to, so that a document it cannot use is no success.
    let document = curl(&format!("{}/openapi.json", server.url), &["--compressed"]).json();
    let paths = document["paths"].as_object().expect("it has paths");
    let operations: usize = paths
        .values()
        .map(|path| path.as_object().map_or(0, serde_json::Map::len))
        .sum();
    assert!(operations > 0);
    assert!(
        said.contains(&format!("Tested: {operations}")),
        "not all of {operations} operations:\n{said}"
    );
}
