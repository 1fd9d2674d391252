//! `cargo xtask chaos`: the programs on real services of their own, under load and under faults.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::failure::Failure;
use crate::services::{Place, build_tools};
use crate::steps::{cargo, must_succeed};
use crate::test::replace;

/// What takes part, by package.
const PROGRAMS: [(&str, &str); 4] = [
    ("task-processor-server", "task-processor-server"),
    ("task-processor-migrate", "task-processor-migrate"),
    ("task-processor-chaos", "task-processor-chaos"),
    ("task-processor-chaos", "task-processor-chaos-worker"),
];

/// How long a run of `cargo xtask test` rages, in minutes.
const IN_TESTS: &str = "2";

#[derive(Args)]
pub(crate) struct Arguments {
    /// How long the faults last; the first half with rdkafka on Kafka 4, the second with kafka-rust on Kafka 3.9
    #[arg(long, default_value = IN_TESTS)]
    minutes: String,
    /// Decides what is done to whom and when
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Requests a second
    #[arg(long)]
    rate: Option<u32>,
    /// Measure one promised number instead: rescue, unmessaged, wiped, planted, neighbours, outage
    #[arg(long)]
    scenario: Option<String>,
    /// Break something on purpose, to see that it is found: lose, announce, overwrite, count
    #[arg(long)]
    sabotage: Option<String>,
    /// Build the programs optimised
    #[arg(long)]
    release: bool,
    /// Keep data and logs of a run that held
    #[arg(long)]
    keep: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    build_tools()?;
    let place = Place::of_this_checkout()?;
    // Each by name, so that none is forgotten.
    let Arguments {
        minutes,
        seed,
        rate,
        scenario,
        sabotage,
        release,
        keep,
    } = arguments;
    let mut words = vec![
        "--minutes".to_owned(),
        minutes.clone(),
        "--seed".to_owned(),
        seed.to_string(),
    ];
    let rate = rate.map(|rate| rate.to_string());
    for (name, value) in [
        ("--rate", &rate),
        ("--scenario", scenario),
        ("--sabotage", sabotage),
    ] {
        if let Some(value) = value {
            words.extend([name.to_owned(), value.clone()]);
        }
    }
    rage(&place, &words, *release, *keep)
}

/// The run that is part of the tests.
pub(crate) fn short(place: &Place) -> Result<(), Failure> {
    rage(place, &["--minutes".into(), IN_TESTS.into()], false, false)
}

fn rage(place: &Place, words: &[String], release: bool, keep: bool) -> Result<(), Failure> {
    // A directory of its own, so that a run disturbs neither another nor the services of this checkout.
    let own = place.beside(&format!("chaos-{}", std::process::id()))?;
    let binaries = own.join("programs");
    let directory = own.join("run");
    for path in [&binaries, &directory] {
        fs::create_dir_all(path).map_err(Failure::at("create", path))?;
    }
    build(place.checkout(), &binaries, release)?;
    let mut command = std::process::Command::new(binaries.join("task-processor-chaos"));
    command
        .arg("--binaries")
        .arg(&binaries)
        .arg("--directory")
        .arg(&directory)
        .args(words);
    let held = must_succeed(&mut command);
    if held.is_ok() && !keep {
        fs::remove_dir_all(&own).map_err(Failure::at("remove", &own))?;
    } else {
        println!("logs and runs are in {}", directory.display());
    }
    held
}

/// Builds the programs and copies them away, so that what is built meanwhile does not change them.
fn build(checkout: &Path, into: &Path, release: bool) -> Result<(), Failure> {
    let mut command = cargo(checkout);
    command.args(["build", "--locked"]);
    for (package, program) in PROGRAMS {
        command.args(["--package", package, "--bin", program]);
    }
    if release {
        command.arg("--release");
    }
    must_succeed(&mut command)?;
    let built: PathBuf =
        crate::test::target_directory(checkout)?.join(if release { "release" } else { "debug" });
    for (_, program) in PROGRAMS {
        replace(&built.join(program), &into.join(program))?;
    }
    // This program too: it starts the services.
    let own = std::env::current_exe().map_err(Failure::starting("this program again"))?;
    replace(&own, &into.join("xtask"))
}
