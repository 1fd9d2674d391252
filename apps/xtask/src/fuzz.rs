//! `cargo xtask fuzz`: hostile input for whatever reads bytes from outside, one reader after the other.

use std::path::Path;

use clap::Args;

use crate::failure::Failure;
use crate::services::Place;
use crate::steps::{Steps, cargo, must_succeed};

/// Where readers have tests that fuzz them.
const PACKAGES: [(&str, &[&str]); 4] = [
    (
        "task-processor-adapters",
        &["--features", "wire,kafka,http-processor,sqlite"],
    ),
    ("task-processor-http", &[]),
    ("task-processor-access", &[]),
    ("task-processor-bootstrap", &["--features", "embedded"]),
];

#[derive(Args)]
pub(crate) struct Arguments {
    /// How many inputs each reader gets
    #[arg(long, default_value_t = 1_000_000)]
    inputs: u32,
    /// The inputs follow from it
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Only readers whose test has this in its name, such as task_bodies
    target: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let place = Place::of_this_checkout()?;
    let mut steps = Steps::default();
    for (package, features) in PACKAGES {
        steps.run(package, || {
            fuzz(place.checkout(), package, features, arguments)
        });
    }
    steps.print_times();
    match steps.failed() {
        0 => Ok(()),
        failed => Err(Failure::said(format!(
            "readers of {failed} packages failed"
        ))),
    }
}

/// Optimised, and still stopping at an overflow; on one core, and with what each reader took.
fn fuzz(
    checkout: &Path,
    package: &str,
    features: &[&str],
    arguments: &Arguments,
) -> Result<(), Failure> {
    let target = arguments.target.as_deref().unwrap_or_default();
    must_succeed(
        cargo(checkout)
            .args(["test", "--locked", "--quiet", "--profile", "simulation"])
            .args(["--package", package, "--lib"])
            .args(features)
            .args(["--", "--nocapture", "--test-threads", "1"])
            .arg(format!("fuzz_{target}"))
            .env("FUZZ_INPUTS", arguments.inputs.to_string())
            .env("FUZZ_SEED", arguments.seed.to_string()),
    )
}
