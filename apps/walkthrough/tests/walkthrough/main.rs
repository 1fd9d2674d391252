//! The programs as a user has them, on real services, watched by clients that are not ours: `curl`, `psql`,
//! `redis-cli` and `kcat`. What they show is compared with the contract.
//!
//! `cargo xtask test` builds the programs, starts the services and says in the environment where both are.

mod balanced;
mod callee;
mod cancel;
mod clients;
mod contract;
mod crash;
mod follow;
mod outage;
mod patience;
mod programs;
mod protected;
mod proxy;
mod rolling;
mod settings;
mod silence;
mod standalone;
mod start;
mod stop;
mod strangers;
mod tracing;
mod world;

use patience::eventually;

/// The programs under test.
const SERVER: &str = "task-processor-server";
const WORKER: &str = "task-processor-worker";
