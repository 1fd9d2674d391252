//! `task-processor-bench`: load for a deployment of Task Processor.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use task_processor_bench::duration;
use task_processor_bench::load::{self, Errand, Plan, Progress, Report, Summary, Target};

/// Sends load to a running Task Processor and says how it answers.
///
/// With --rate, requests are due at a fixed rate whether or not the service keeps up (open loop), and their latency counts
/// from the time at which they were due: a stall is counted, not hidden. Without it, each connection sends as soon as it
/// has its answer (closed loop), which measures the highest throughput.
///
/// The exit code is 0 if every request was answered with success, 1 if not, 2 for wrong arguments.
#[derive(Parser)]
#[command(name = "task-processor-bench", version, verbatim_doc_comment)]
struct Arguments {
    /// Address of the service: http://host[:port][/prefix], or https://
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:3000")]
    url: Target,
    /// What to send
    #[arg(long, value_enum, default_value_t = Scenario::Post)]
    scenario: Scenario,
    /// Requests per second (open loop); without it as many as the connections carry (closed loop)
    #[arg(long, value_name = "N", value_parser = rate)]
    rate: Option<f64>,
    /// How long to measure, such as 500ms, 30s or 5m
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration::read)]
    duration: Duration,
    /// How long to send before anything counts
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration::read)]
    warmup: Duration,
    /// Connections; each carries one request at a time
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    connections: u16,
    /// Threads of this program
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,
    /// Characters of each payload
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    payload: u32,
    /// With --scenario get: how many tasks to submit first and then to read in turn
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    tasks: u32,
    /// With --scenario get: read what this file names in turn, one path a line, instead of tasks submitted first
    #[arg(long, value_name = "FILE", conflicts_with = "tasks")]
    paths: Option<PathBuf>,
    /// With --scenario visible: how long to wait between two looks for a result
    #[arg(long, value_name = "TIME", default_value = "2ms", value_parser = duration::read)]
    poll: Duration,
    /// How long to wait, at the end, for answers to what was sent, and for results
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration::read)]
    patience: Duration,
    /// A header for every request, as in --header 'x-api-key: secret'; may be given several times
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<String>,
    /// Write what was measured as JSON to this file, or to standard output for `-`
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Show no progress bar
    #[arg(long)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Submit tasks: POST /tasks
    Post,
    /// Read finished tasks: GET /tasks/{id}
    Get,
    /// Submit tasks and look for each result until it is there
    Visible,
    /// Read the numbers: GET /metrics
    Metrics,
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= 10_000_000.0 => Ok(rate),
        _ => Err("must be a number above 0".to_owned()),
    }
}

fn header(text: &str) -> Result<String, String> {
    let broken = text.contains(['\r', '\n']);
    match text.split_once(':') {
        Some((name, _)) if !broken && !name.trim().is_empty() => Ok(text.to_owned()),
        _ => Err("must be NAME: VALUE on one line".to_owned()),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match measure(&arguments) {
        Ok(report) => {
            if let Err(error) = tell(&arguments, &report) {
                eprintln!("task-processor-bench: cannot write the report: {error}");
                return ExitCode::FAILURE;
            }
            if report.failures() == 0 {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("task-processor-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> std::io::Result<Report> {
    let plan = Plan {
        target: arguments.url.clone(),
        errand: errand(arguments)?,
        connections: arguments.connections.into(),
        rate: arguments.rate,
        warmup: arguments.warmup,
        duration: arguments.duration,
        patience: arguments.patience,
        threads: arguments.threads.into(),
        headers: arguments.headers.clone(),
    };
    let progress = Arc::new(Progress::default());
    let done = Arc::new(AtomicBool::new(false));
    let bar = if arguments.quiet || !std::io::stderr().is_terminal() {
        None
    } else {
        Some(show(&plan, Arc::clone(&progress), Arc::clone(&done))?)
    };
    let report = load::run(&plan, &progress);
    done.store(true, Ordering::Relaxed);
    if let Some(bar) = bar {
        // A bar that broke is no reason to lose the measurement.
        let _ = bar.join();
    }
    report
}

fn errand(arguments: &Arguments) -> std::io::Result<Errand> {
    let payload = "x".repeat(arguments.payload as usize);
    Ok(match arguments.scenario {
        Scenario::Post => Errand::Submit { payload },
        Scenario::Visible => Errand::SubmitAndWatch {
            payload,
            every: arguments.poll,
            patience: arguments.patience,
        },
        Scenario::Metrics => Errand::Read {
            paths: vec!["/metrics".to_owned()],
        },
        Scenario::Get => {
            if let Some(file) = &arguments.paths {
                return Ok(Errand::Read {
                    paths: read_paths(file)?,
                });
            }
            let count = arguments.tasks as usize;
            if !arguments.quiet {
                eprintln!("submitting {count} tasks to read");
            }
            let ids = load::make_finished(
                &arguments.url,
                &arguments.headers,
                &payload,
                count,
                arguments.patience,
            )?;
            Errand::Read {
                paths: ids.iter().map(|id| format!("/tasks/{id}")).collect(),
            }
        }
    })
}

fn read_paths(file: &Path) -> std::io::Result<Vec<String>> {
    let wrong = |what: String| std::io::Error::other(format!("--paths {}: {what}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    for (number, line) in (1..).zip(text.lines()) {
        if !line.starts_with('/') || line.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(wrong(format!(
                "line {number} is not a path such as /tasks/<id>"
            )));
        }
    }
    Ok(text.lines().map(ToOwned::to_owned).collect())
}

fn show(
    plan: &Plan,
    progress: Arc<Progress>,
    done: Arc<AtomicBool>,
) -> std::io::Result<thread::JoinHandle<()>> {
    let length = plan.warmup + plan.duration;
    let bar = ProgressBar::with_draw_target(
        u64::try_from(length.as_millis()).ok(),
        ProgressDrawTarget::stderr(),
    );
    if let Ok(style) = ProgressStyle::with_template(
        "{elapsed:>4} [{bar:40}] {eta:>4} left, {msg} answers a second",
    ) {
        bar.set_style(style.progress_chars("=> "));
    }
    thread::Builder::new()
        .name("progress".to_owned())
        .spawn(move || {
            let begin = Instant::now();
            let mut before = (begin, 0);
            while !done.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(250));
                let (now, answered) = (Instant::now(), progress.answered());
                let rate =
                    (answered - before.1) as f64 / (now - before.0).as_secs_f64().max(f64::EPSILON);
                before = (now, answered);
                bar.set_message(format!("{rate:.0}"));
                let passed = (now - begin).min(length);
                bar.set_position(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX));
            }
            bar.finish_and_clear();
        })
}

fn tell(arguments: &Arguments, report: &Report) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let document = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "scenario": format!("{:?}", arguments.scenario).to_lowercase(),
        "loop": if arguments.rate.is_some() { "open" } else { "closed" },
        "rate": arguments.rate,
        "connections": arguments.connections,
        "payload": arguments.payload,
        "report": report,
    });
    let text = serde_json::to_string_pretty(&document)? + "\n";
    match &arguments.json {
        Some(path) if path.as_os_str() == "-" => return out.write_all(text.as_bytes()),
        Some(path) => std::fs::write(path, text)?,
        None => {}
    }
    writeln!(
        out,
        "{:.0} answers a second over {:.1} s",
        report.answered_per_second, report.seconds
    )?;
    if report.is_held_up() {
        writeln!(
            out,
            "  the generator had no time to spare (busy for {:.0} % of it): give it more --threads",
            report.busy * 100.0
        )?;
    }
    for (status, count) in &report.statuses {
        writeln!(out, "  {count:>10} answered {status}")?;
    }
    for (reason, count) in &report.faults {
        writeln!(out, "  {count:>10} failed: {reason}")?;
    }
    if report.unanswered > 0 {
        writeln!(out, "  {:>10} were not answered", report.unanswered)?;
    }
    writeln!(
        out,
        "\n{:<10}{:>10}{:>10}{:>10}{:>10}{:>10}  ms",
        "", "p50", "p90", "p99", "p99.9", "max"
    )?;
    line(&mut out, "answer", &report.answer_ms)?;
    if arguments.scenario == Scenario::Visible {
        line(&mut out, "result", &report.visible_ms)?;
    }
    Ok(())
}

fn line(out: &mut impl std::io::Write, name: &str, summary: &Summary) -> std::io::Result<()> {
    let Summary {
        p50,
        p90,
        p99,
        p999,
        max,
        ..
    } = summary;
    writeln!(
        out,
        "{name:<10}{p50:>10.2}{p90:>10.2}{p99:>10.2}{p999:>10.2}{max:>10.2}"
    )
}
