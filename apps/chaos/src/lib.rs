#![doc = include_str!("../README.md")]

pub mod script;

mod chance;
mod check;
mod client;
mod clock;
mod database;
mod failure;
mod fleet;
mod history;
mod judge;
mod ledger;
mod load;
mod log;
mod measure;
mod nemesis;
mod plant;
mod process;
mod proxy;
mod redis;
mod report;
mod run;
mod run_log;
mod scenario;
mod services;
mod topics;
mod watch;
mod world;

pub use failure::Failure;
pub use run::{Options, Sabotage, run};
pub use run_log::RunLog;
pub use scenario::{Scenario, measure};
