//! The worker on PostgreSQL, Kafka and Redis.

use std::process::ExitCode;
use std::sync::Arc;

use bootstrap::{Program, launch};
use domain::ReverseText;

const PROGRAM: Program = Program {
    name: env!("CARGO_PKG_NAME"),
    version: env!("CARGO_PKG_VERSION"),
    about: "The worker of Task Processor on PostgreSQL, Kafka and Redis. Run any number of them.",
};

fn main() -> ExitCode {
    launch(&PROGRAM, |start| worker::work(start, Arc::new(ReverseText)))
}
