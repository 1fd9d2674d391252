//! Reading what is finished, and the numbers.

use task_processor_bench::load::Report;

use super::{Finding, in_turn, shares};
use crate::bench::Bench;
use crate::failure::Failure;
use crate::generator::Load;
use crate::outcome::{Bar, NOIO, Outcome};
use crate::stand::{Meter, RDKAFKA, Stand, reference};

const CONNECTIONS: u32 = 64;
/// The subject that is found in no cache.
const STORE: &str = "store";

/// What is read twice is in a cache the second time.
pub(super) fn each_once(report: &Report, rows: u64) -> Result<(), Failure> {
    if report.answered_in_all > rows {
        return Err(format!("more than {rows} reads: some were of what was in a cache").into());
    }
    Ok(())
}

pub(super) async fn finished(bench: &mut Bench) -> Result<Finding, Failure> {
    const NAME: &str = "get";
    let rows = if bench.smoke { 10_000 } else { 250_000 };
    let stand = Stand::lay_out(bench, NAME, RDKAFKA).await?;
    bench.say(&format!("{NAME}, filling {rows} rows"));
    stand.database.seed(rows).await?;
    let (few, all) = (
        stand.paths(rows, 1_000).await?,
        stand.paths(rows, rows).await?,
    );
    let near = stand.server(bench, &[]).await?;
    let far = stand.server(bench, &[("CACHE_BYTES", "0")]).await?;
    let noio = reference(&bench.binaries, &bench.directory, Vec::new()).await?;
    let subjects = [
        ("in-process", &near, &few),
        ("redis", &far, &few),
        (STORE, &far, &all),
        (NOIO, &noio, &few),
    ];
    let mut rates = subjects.map(|_| Vec::new());
    for round in 1..=bench.rounds {
        // Each is first, second, third and last in turn.
        for turn in 0..subjects.len() {
            let which = (turn + round) % subjects.len();
            let (subject, program, paths) = subjects[which];
            bench.say(&format!("{NAME}, round {round}, {subject}"));
            let load = Load::reading(paths, program.port, CONNECTIONS, bench.length);
            if subject == STORE {
                stand.forget_results().await?;
            }
            let meter = if subject == NOIO {
                Meter::of(&[program])
            } else {
                stand.meter(&[program]).await?
            };
            let report = bench.send(&load).await?;
            let used = meter.read(None).await?;
            bench.keep(NAME, subject, round, &report, &used);
            if subject == STORE {
                each_once(&report, rows)?;
            }
            rates[which].push(report.answered_per_second);
        }
    }
    noio.process.kill().await?;
    stand.clear(vec![near, far]).await?;
    let [near, far, store, nothing] = rates;
    Ok(Finding {
        outcomes: vec![
            Outcome::new(
                NAME,
                "GET of a finished task, in-process / noio",
                "",
                Some(Bar::at_least(0.85, 0.92)),
                shares(&near, &nothing),
            ),
            Outcome::new(
                NAME,
                "GET of a finished task, Redis / noio",
                "",
                Some(Bar::at_least(0.60, 0.63)),
                shares(&far, &nothing),
            ),
            Outcome::new(
                NAME,
                "GET of a finished task, in no cache / noio",
                "",
                None,
                shares(&store, &nothing),
            ),
            Outcome::new(NAME, "GET of a finished task, in-process", "/s", None, near),
            Outcome::new(NAME, "GET of a finished task, Redis", "/s", None, far),
            Outcome::new(
                NAME,
                "GET of a finished task, in no cache",
                "/s",
                None,
                store,
            ),
            Outcome::new(NAME, "GET of a finished task, noio", "/s", None, nothing),
        ],
        plots: Vec::new(),
    })
}

pub(super) async fn metrics(bench: &mut Bench) -> Result<Finding, Failure> {
    const NAME: &str = "metrics";
    let (few, many) = if bench.smoke {
        (100, 10_000)
    } else {
        (10_000, 1_000_000)
    };
    let short = Stand::lay_out(bench, "metrics_short", RDKAFKA).await?;
    let long = Stand::lay_out(bench, "metrics_long", RDKAFKA).await?;
    bench.say(&format!("{NAME}, filling {many} rows"));
    short.database.seed(few).await?;
    long.database.seed(many).await?;
    long.database.checkpoint().await?;
    let (of_short, of_long) = (
        short.server(bench, &[]).await?,
        long.server(bench, &[]).await?,
    );
    let (mut at_few, mut at_many) = (Vec::new(), Vec::new());
    for round in 1..=bench.rounds {
        for is_long in in_turn(round, false, true) {
            let (subject, stand, program, medians) = if is_long {
                ("long", &long, &of_long, &mut at_many)
            } else {
                ("short", &short, &of_short, &mut at_few)
            };
            bench.say(&format!("{NAME}, round {round}, {subject}"));
            let load = Load::closed("metrics", program.port, 1, bench.length);
            let meter = stand.meter(&[program]).await?;
            let report = bench.send(&load).await?;
            let used = meter.read(None).await?;
            bench.keep(NAME, subject, round, &report, &used);
            medians.push(report.answer_ms.p50);
        }
    }
    short.clear(vec![of_short]).await?;
    long.clear(vec![of_long]).await?;
    Ok(Finding {
        outcomes: vec![
            Outcome::new(
                NAME,
                "GET /metrics at 1 M rows / at 10 k rows, p50",
                "×",
                Some(Bar::at_most(1.2, 1.05)),
                shares(&at_many, &at_few),
            ),
            Outcome::new(NAME, "GET /metrics at 1 M rows, p50", "ms", None, at_many),
        ],
        plots: Vec::new(),
    })
}
