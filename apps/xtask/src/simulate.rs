//! `cargo xtask simulate`: histories of the whole system that a seed chooses, and the proof that their checker can fail.

mod breaks;

use std::path::Path;

use clap::Args;

use crate::failure::Failure;
use crate::services::Place;
use crate::steps::{cargo, must_succeed};

#[derive(Args)]
pub(crate) struct Arguments {
    /// How many histories: those of the seeds from --seed on
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many threads; as many as there are processors unless told
    #[arg(long)]
    threads: Option<usize>,
    /// Print the history of --seed even if no promise broke
    #[arg(long, conflicts_with_all = ["all", "breaks"])]
    history: bool,
    /// Go on after a failure and list every seed that fails
    #[arg(long, conflicts_with = "breaks")]
    all: bool,
    /// Break the code on purpose, in one place at a time, and write into docs/SIMULATION.md which promise each break
    /// violated and after how many histories
    #[arg(long)]
    breaks: bool,
    /// With --breaks: only those whose name contains this; the document is left as it is
    #[arg(long, requires = "breaks")]
    only: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let place = Place::of_this_checkout()?;
    if arguments.breaks {
        return breaks::run(place.checkout(), arguments);
    }
    let mut command = cargo(place.checkout());
    command.args(["run", "--locked", "--quiet"]).args(PACKAGE);
    command.arg("--").args(arguments.to_simulate());
    if arguments.history {
        command.arg("--history");
    }
    if arguments.all {
        command.arg("--all");
    }
    must_succeed(&mut command)
}

/// Lives this many histories, from the first seed on, within so many seconds of processor time.
pub(crate) fn histories(checkout: &Path, seeds: u64, budget: u64) -> Result<(), Failure> {
    let mut command = cargo(checkout);
    command.args(["run", "--locked", "--quiet"]).args(PACKAGE);
    let (seeds, budget) = (seeds.to_string(), budget.to_string());
    must_succeed(command.args(["--", "--seeds", &seeds, "--budget", &budget]))
}

/// Every break on purpose still applies to the code, and the document names it.
pub(crate) fn check_breaks(checkout: &Path) -> Result<(), Failure> {
    breaks::check(checkout)
}

/// The profile is optimised like `release`, and stops at an overflow.
const PACKAGE: [&str; 4] = [
    "--profile",
    "simulation",
    "--package",
    "task-processor-simulation",
];

impl Arguments {
    fn to_simulate(&self) -> Vec<String> {
        let mut words = vec![
            "--seeds".to_owned(),
            self.seeds.to_string(),
            "--seed".to_owned(),
            self.seed.to_string(),
        ];
        if let Some(threads) = self.threads {
            words.extend(["--threads".to_owned(), threads.to_string()]);
        }
        words
    }
}
