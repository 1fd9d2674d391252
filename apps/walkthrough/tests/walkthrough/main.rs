//! The programs as a user has them, on real services, watched by clients that are not ours: `curl`, `psql`,
//! `redis-cli` and `kcat`. What they show is compared with the contract.
//!
//! `cargo xtask test` builds the programs, starts the services and says in the environment where both are.

mod clients;
mod contract;
mod crash;
mod outage;
mod programs;
mod proxy;
mod rolling;
mod settings;
mod silence;
mod standalone;
mod start;
mod stop;
mod strangers;
mod world;

use std::thread::sleep;
use std::time::{Duration, Instant};

/// The programs under test.
const SERVER: &str = "task-processor-server";
const WORKER: &str = "task-processor-worker";

/// How long something may take on a machine with two busy cores before it counts as not happening.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks until there is an answer. Other processes give no signal to wait for, so this asks again and again.
fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        sleep(Duration::from_millis(50));
    }
}
