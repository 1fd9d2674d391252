//! Reading what is finished, and the numbers.

use super::{Finding, in_turn, shares};
use crate::bench::Bench;
use crate::failure::Failure;
use crate::generator::Load;
use crate::outcome::{Bar, Outcome};
use crate::stand::{Meter, RDKAFKA, Stand, reference};

const CONNECTIONS: u32 = 64;

pub(super) async fn finished(bench: &mut Bench) -> Result<Finding, Failure> {
    const NAME: &str = "get";
    let stand = Stand::lay_out(bench, NAME, RDKAFKA).await?;
    let near = stand.server(&[]).await?;
    let far = stand.server(&[("CACHE_BYTES", "0")]).await?;
    let worker = stand.worker().await?;
    let noio = reference(&bench.binaries, &bench.directory, Vec::new()).await?;
    let mut rates = [Vec::new(), Vec::new(), Vec::new()];
    for round in 1..=bench.rounds {
        // Each is first, second and third in turn.
        for turn in 0..3 {
            let which = (turn + round) % 3;
            let subject = ["in-process", "redis", "noio"][which];
            bench.say(&format!("{NAME}, round {round}, {subject}"));
            let program = [&near, &far, &noio][which];
            let load = Load::closed("get", program.port, CONNECTIONS, bench.length);
            let meter = if subject == "noio" {
                Meter::of(&[program])
            } else {
                stand.meter(&[program]).await?
            };
            let report = bench.send(&load).await?;
            let used = meter.read(None).await?;
            bench.keep(NAME, subject, round, &report, &used);
            rates[which].push(report.answered_per_second);
        }
    }
    noio.process.kill().await?;
    stand.clear(vec![near, far, worker]).await?;
    let [near, far, nothing] = rates;
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
            Outcome::new(NAME, "GET of a finished task, in-process", "/s", None, near),
            Outcome::new(NAME, "GET of a finished task, Redis", "/s", None, far),
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
    let (of_short, of_long) = (short.server(&[]).await?, long.server(&[]).await?);
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
