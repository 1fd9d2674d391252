//! The worker on PostgreSQL, Kafka and Redis.

use std::process::ExitCode;

use bootstrap::settings::WorkerSettings;
use bootstrap::wiring::processing;
use bootstrap::{Program, Start, launch};

const PROGRAM: Program = Program {
    name: env!("CARGO_PKG_NAME"),
    version: env!("CARGO_PKG_VERSION"),
    about: "The worker of Task Processor on PostgreSQL, Kafka and Redis. Run any number of them.",
};

fn main() -> ExitCode {
    launch(&PROGRAM, |start: Start<WorkerSettings>| {
        worker::work(start, |settings, observer| {
            processing::processor(&settings.processing, observer)
        })
    })
}
