//! `simulate`: lives many histories and says whether a promise broke.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use rustix::time::{ClockId, clock_gettime};
use simulation::{Keep, Outcome, Tally, simulate};

#[derive(Parser)]
#[command(
    name = "simulate",
    about = "Seeded histories of the whole system, checked"
)]
struct Arguments {
    /// How many histories
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first seed; the others follow it
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many threads; as many as there are processors unless told
    #[arg(long)]
    threads: Option<usize>,
    /// Print the history even if it holds (with one seed)
    #[arg(long)]
    history: bool,
    /// Go on after a failure, and list every seed that fails
    #[arg(long)]
    all: bool,
    /// Fail if all of it took more processor time than this many seconds, over all threads
    #[arg(long, value_name = "SECONDS", conflicts_with = "history")]
    budget: Option<u64>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.history {
        let outcome = simulate(arguments.seed, Keep::Lines);
        print!("{}", outcome.to_text());
        return exit_code(outcome.violations.is_empty());
    }
    let start = Instant::now();
    let campaign = Campaign::default();
    campaign.run(&arguments);
    let took = start.elapsed().as_secs_f64();
    let mut failed = campaign
        .failed
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    failed.sort_by_key(|outcome| outcome.seed);
    let tally = campaign
        .tally
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let spent = processor_time();
    report(&arguments, &failed, &tally, took, spent);
    let budget = arguments.budget.map(Duration::from_secs);
    let is_within = budget.is_none_or(|budget| spent <= budget);
    if !is_within {
        eprintln!("the histories took more processor time than --budget allows");
    }
    exit_code(failed.is_empty() && is_within)
}

/// What all threads of this process have computed, however much others wanted the processors meanwhile.
fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

fn exit_code(holds: bool) -> ExitCode {
    if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[derive(Default)]
struct Campaign {
    taken: AtomicU64,
    is_over: AtomicBool,
    failed: Mutex<Vec<Outcome>>,
    tally: Mutex<Sum>,
}

#[derive(Default)]
struct Sum {
    histories: u64,
    tally: Tally,
}

impl Campaign {
    fn run(&self, arguments: &Arguments) {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let threads = arguments.threads.unwrap_or(processors).max(1);
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| self.work(arguments));
            }
        });
    }

    fn work(&self, arguments: &Arguments) {
        while !self.is_over.load(Ordering::Relaxed) {
            let number = self.taken.fetch_add(1, Ordering::Relaxed);
            if number >= arguments.seeds {
                return;
            }
            let outcome = simulate(arguments.seed.wrapping_add(number), Keep::Fingerprint);
            let mut sum = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
            sum.histories += 1;
            sum.tally.add(&outcome.tally);
            drop(sum);
            if !outcome.violations.is_empty() {
                self.failed
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(outcome);
                if !arguments.all {
                    self.is_over.store(true, Ordering::Relaxed);
                }
            }
        }
    }
}

fn report(arguments: &Arguments, failed: &[Outcome], sum: &Sum, took: f64, spent: Duration) {
    if arguments.all {
        for outcome in failed {
            let Some(violation) = outcome.violations.first() else {
                continue;
            };
            let promise = violation.promise.as_str();
            println!("seed {}: {promise}: {}", outcome.seed, violation.what);
        }
    } else if let Some(first) = failed.first() {
        print!("{}", simulate(first.seed, Keep::Lines).to_text());
    }
    let Sum { histories, tally } = sum;
    println!("{tally}");
    let verdict = failed.first().map_or_else(
        || "violations=0".to_owned(),
        |first| {
            let promise = first.violations[0].promise.as_str();
            format!(
                "violations={} seed={} promise=\"{promise}\"",
                failed.len(),
                first.seed
            )
        },
    );
    let spent = spent.as_secs_f64();
    println!(
        "simulated histories={histories} seconds={took:.1} processor_seconds={spent:.1} {verdict}"
    );
}
