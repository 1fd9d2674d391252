//! The API as the usual tools of other ecosystems see it, which know nothing of the programs but `docs/openapi.json`.
//!
//! `cargo xtask test` installs the tools, builds the programs and starts the services; the environment says where they are.

#[expect(dead_code, reason = "the walkthrough uses the rest")]
#[path = "../walkthrough/clients.rs"]
mod clients;
#[path = "../walkthrough/patience.rs"]
mod patience;
#[expect(dead_code, reason = "the walkthrough uses the rest")]
#[path = "../walkthrough/programs.rs"]
mod programs;
mod schemathesis;
mod tools;
#[expect(dead_code, reason = "the walkthrough uses the rest")]
#[path = "../walkthrough/world.rs"]
mod world;

use patience::eventually;
use programs::{Program, directory, free_port};
use world::{Kafka, World};

/// The programs under test.
const SERVER: &str = "task-processor-server";
const WORKER: &str = "task-processor-worker";

/// The embedded form, on an empty file.
fn standalone(name: &str) -> Program {
    let port = free_port();
    Program::serve(
        "task-processor",
        port,
        &directory(name),
        &[("PORT".to_owned(), port.to_string())],
    )
}

/// The distributed form, on a database of its own.
struct Distributed {
    server: Program,
    _worker: Program,
    _world: World,
}

impl Distributed {
    fn start(name: &'static str) -> Self {
        let world = World::new(name, Kafka::Four, "rdkafka");
        world.migrate();
        Self {
            server: world.server(),
            _worker: world.worker(&[]),
            _world: world,
        }
    }
}
