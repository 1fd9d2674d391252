//! The API as the usual tools of other ecosystems see it, which know nothing of the programs but `docs/openapi.json`.
//!
//! `cargo xtask test` installs the tools, builds the programs and starts the services; the environment says where they are.

mod browser;
#[expect(dead_code, reason = "the walkthrough uses the rest")]
#[path = "../walkthrough/clients.rs"]
mod clients;
mod generated;
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

/// What clients are let in with, to everything.
const API_KEY: &str = "only-for-tests-of-clients";

/// What the programs know of it: `printf %s "$API_KEY" | sha256sum`.
const API_KEYS: (&str, &str) = (
    "API_KEYS",
    "tests:admin:20187ab2547cb0d27a60637e2339279775a7ddf0b6d2c77c15bc1ac8dce8794c",
);

/// The embedded form, on an empty file.
fn standalone(name: &str) -> Program {
    standalone_with(name, &[])
}

/// The same with these settings.
fn standalone_with(name: &str, settings: &[(&str, &str)]) -> Program {
    let port = free_port();
    let settings: Vec<(String, String)> = [("PORT", port.to_string().as_str()), API_KEYS]
        .iter()
        .chain(settings)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Program::serve("task-processor", port, &directory(name), &settings)
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
            server: world.server_with(&[API_KEYS]),
            _worker: world.worker(&[API_KEYS]),
            _world: world,
        }
    }
}
