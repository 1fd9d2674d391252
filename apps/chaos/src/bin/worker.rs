//! The worker as it is shipped, around a function that does what its payload says.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use bootstrap::{Program, launch};
use chaos::RunLog;
use chaos::script::Actor;

const PROGRAM: Program = Program {
    name: "task-processor-chaos-worker",
    version: env!("CARGO_PKG_VERSION"),
    about: "The worker of Task Processor, whose function does what its payload says. For cargo xtask chaos.\n\n\
            CHAOS_RUNS is the file that gets a line for every run; while the file CHAOS_OUTAGE exists, what some\n\
            functions need is down.",
};

fn main() -> ExitCode {
    launch(&PROGRAM, |start| async move {
        let path = |name: &str| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .ok_or_else(|| format!("{name} is not set"))
        };
        let runs = RunLog::open(&path("CHAOS_RUNS")?)?;
        let actor = Actor::new(runs, path("CHAOS_OUTAGE")?);
        worker::work(start, |_, _| Ok(Arc::new(actor))).await
    })
}
