//! `task-processor-chaos`: rages against the programs and says whether a promise broke. Started by `cargo xtask chaos`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use chaos::{Options, Sabotage, Scenario, measure, run};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
#[command(
    name = "task-processor-chaos",
    about = "The programs on real services, under load and under faults"
)]
struct Arguments {
    /// Where the programs are
    #[arg(long)]
    binaries: PathBuf,
    /// Where data and logs go; must be empty
    #[arg(long)]
    directory: PathBuf,
    /// How long the faults last
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// Decides what is done to whom and when
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Requests a second
    #[arg(long, default_value_t = 130)]
    rate: u32,
    /// Measure one promised number instead
    #[arg(long)]
    scenario: Option<Scenario>,
    /// Break something on purpose, to see that it is found
    #[arg(long)]
    sabotage: Option<Sabotage>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = Options {
        binaries: arguments.binaries,
        directory: arguments.directory,
        length: Duration::from_secs_f64(arguments.minutes * 60.0),
        seed: arguments.seed,
        rate: arguments.rate,
        sabotage: arguments.sabotage,
    };
    let work = async {
        match arguments.scenario {
            Some(scenario) => measure(scenario, &options).await,
            None => run(&options).await,
        }
    };
    let outcome = tokio::select! {
        outcome = work => outcome,
        // What was started ends with the future that is dropped here.
        () = told_to_stop() => Err("told to stop".into()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error}");
            ExitCode::from(2)
        }
    }
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
