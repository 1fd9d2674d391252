#![doc = include_str!("../README.md")]

mod bench;
mod database;
mod failure;
mod generator;
mod machine;
mod markdown;
mod outcome;
mod plot;
mod process;
mod report;
mod scenario;
mod services;
mod stand;
mod store_work;
mod topics;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use bench::Bench;
use failure::Failure;
use report::Results;
use scenario::Scenario;

/// A run without names may take so long.
const TIME_LIMIT: Duration = Duration::from_secs(45 * 60);

#[derive(Parser)]
#[command(
    name = "task-processor-bars",
    about = "Measures every bar against its reference. Started by `cargo xtask bench`"
)]
struct Arguments {
    /// What to measure; without names every bar but those of half an hour and of ten million rows
    #[arg(value_enum)]
    scenarios: Vec<Scenario>,
    /// Where the programs are
    #[arg(long, required_unless_present = "list")]
    binaries: Option<PathBuf>,
    /// Where data and logs go; must be empty
    #[arg(long, required_unless_present = "list")]
    directory: Option<PathBuf>,
    /// Where what was found goes
    #[arg(long, default_value = ".")]
    out: PathBuf,
    /// How often each is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// How long each measurement lasts
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=3_600))]
    seconds: u16,
    /// Look whether everything works, and hold nothing against its bar
    #[arg(long)]
    smoke: bool,
    /// Say what can be measured
    #[arg(long)]
    list: bool,
    /// What was built
    #[arg(long, default_value = "unknown")]
    revision: String,
    /// The compiler that built it
    #[arg(long, default_value = "unknown")]
    rustc: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        list();
        return ExitCode::SUCCESS;
    }
    let outcome = tokio::select! {
        outcome = run(arguments) => outcome,
        // What was started ends with the future that is dropped here.
        () = told_to_stop() => Err("told to stop".into()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::from(2)
        }
    }
}

fn list() {
    for value in Scenario::value_variants() {
        if let Some(shown) = value.to_possible_value() {
            let help = shown.get_help().map(ToString::to_string);
            println!("{:<17}{}", shown.get_name(), help.unwrap_or_default());
        }
    }
}

/// Says whether every bar was reached, and nothing was lost.
async fn run(arguments: Arguments) -> Result<bool, Failure> {
    let (Some(binaries), Some(directory)) = (arguments.binaries, arguments.directory) else {
        return Err("--binaries and --directory are needed".into());
    };
    let begin = Instant::now();
    let mut scenarios = arguments.scenarios;
    let is_whole = scenarios.is_empty();
    if is_whole {
        scenarios = Scenario::ALL.into();
        scenarios.retain(|scenario| scenario.is_short() || arguments.smoke);
    }
    let rounds = usize::from(arguments.rounds);
    let steps: usize = scenarios.iter().map(|one| one.steps(rounds)).sum();
    let length = Duration::from_secs(arguments.seconds.into());
    let mut bench = Bench::new(
        binaries,
        directory,
        rounds,
        length,
        arguments.smoke,
        u64::try_from(steps)?,
    );
    let load_before = machine::load_average();
    let (mut outcomes, mut plots, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
    for scenario in &scenarios {
        match scenario.run(&mut bench).await {
            Ok(found) => {
                outcomes.extend(found.outcomes);
                plots.extend(found.plots);
            }
            // What the others find is worth its time all the same.
            Err(error) => wrong.push(format!("{}: {error}", scenario.name())),
        }
    }
    bench.end();
    let mut versions = bench.versions().await?;
    versions.insert("rustc".to_owned(), arguments.rustc.into());
    let took = begin.elapsed();
    let minutes = (took.as_secs_f64() / 6.0).round() / 10.0;
    let results = Results {
        outcomes,
        plots,
        circumstances: json!({
            "revision": arguments.revision,
            "machine": machine::description(),
            "loadAverageBefore": load_before,
            "versions": versions,
            "rounds": rounds,
            "seconds": arguments.seconds,
            "minutes": minutes,
            "postgresSettings": bench.postgres_settings().await?,
            "programs": bench.started,
        }),
        rounds: bench.measured,
    };
    results.write(&arguments.out)?;
    print!("{}{}", results.table(), results.costs());
    wrong.extend(results.wrong(!arguments.smoke));
    if is_whole && !arguments.smoke && took > TIME_LIMIT {
        wrong.push("the whole takes longer than 45 minutes".to_owned());
    }
    for line in &wrong {
        println!("{line}");
    }
    println!(
        "it took {minutes} minutes; everything that was measured is in {}",
        arguments.out.display()
    );
    Ok(wrong.is_empty())
}

async fn told_to_stop() {
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
