//! The project's chores, one word each: `cargo xtask --help` lists them.

mod bench;
mod chaos;
mod deploy;
mod failure;
mod fuzz;
mod lint;
mod openapi;
mod services;
mod simulate;
mod steps;
mod test;
mod tools;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::failure::Failure;

#[derive(Parser)]
#[command(
    name = "xtask",
    bin_name = "cargo xtask",
    about = "The project's chores",
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Run every test against real services, which are started and stopped unless they run already
    Test,
    /// Check format, lints, dependencies, documentation and generated files
    Lint(lint::Arguments),
    /// Write docs/openapi.json from the program
    Openapi(openapi::Arguments),
    /// Real PostgreSQL, Redis and Kafka on loopback ports of their own
    Services(services::Arguments),
    /// Install what tests and lint take from other ecosystems, and print where it is
    Tools,
    /// Live seeded histories of the whole system and check its promises
    Simulate(simulate::Arguments),
    /// Give whatever reads bytes from outside a million hostile inputs each
    Fuzz(fuzz::Arguments),
    /// Rage against the programs on real services, under load, and check the promises
    Chaos(chaos::Arguments),
    /// Measure every bar of speed against its reference, on real services
    Bench(bench::Arguments),
    #[command(name = test::CARETAKER, hide = true)]
    Caretaker,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().chore {
        Chore::Test => test::run(),
        Chore::Lint(arguments) => lint::run(&arguments),
        Chore::Openapi(arguments) => openapi::run(&arguments),
        Chore::Services(arguments) => services::run(&arguments),
        Chore::Tools => tools::run(),
        Chore::Simulate(arguments) => simulate::run(&arguments),
        Chore::Fuzz(arguments) => fuzz::run(&arguments),
        Chore::Chaos(arguments) => chaos::run(&arguments),
        Chore::Bench(arguments) => bench::run(&arguments),
        Chore::Caretaker => test::attend(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    }
}

fn report(failure: &Failure) -> ExitCode {
    if !matches!(failure, Failure::Printed) {
        eprintln!("xtask: {failure}");
    }
    ExitCode::FAILURE
}
