//! Accepting tasks, with no worker running.

use super::{Finding, in_turn, shares};
use crate::bench::Bench;
use crate::failure::Failure;
use crate::generator::Load;
use crate::outcome::{Bar, NOIO, Outcome};
use crate::stand::{Meter, RDKAFKA, Running, Stand, reference};

pub(super) async fn against_nothing(
    bench: &mut Bench,
    connections: u32,
) -> Result<Finding, Failure> {
    let (name, bar) = match connections {
        64 => ("post-64", Bar::at_least(0.33, 0.42)),
        _ => ("post-256", Bar::at_least(0.48, 0.60)),
    };
    let stand = Stand::lay_out(bench, &name.replace('-', "_"), RDKAFKA).await?;
    let server = stand.server(bench, &[]).await?;
    let noio = reference(&bench.binaries, &bench.directory, Vec::new()).await?;
    let (mut durable, mut nothing, mut costs) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=bench.rounds {
        for is_durable in in_turn(round, true, false) {
            let subject = if is_durable { "durable" } else { NOIO };
            bench.say(&format!("{name}, round {round}, {subject}"));
            if is_durable {
                let (per_second, cost) =
                    accept(bench, &stand, &server, name, subject, round, connections).await?;
                durable.push(per_second);
                costs.push(cost);
            } else {
                let load = Load::closed("post", noio.port, connections, bench.length);
                let meter = Meter::of(&[&noio]);
                let report = bench.send(&load).await?;
                let used = meter.read(None).await?;
                bench.keep(name, subject, round, &report, &used);
                nothing.push(report.answered_per_second);
            }
        }
    }
    noio.process.kill().await?;
    stand.clear(vec![server]).await?;
    let what = |text: &str| format!("{text}, {connections} connections");
    Ok(Finding {
        outcomes: vec![
            Outcome::new(
                name,
                what("durable POST / noio"),
                "",
                Some(bar),
                shares(&durable, &nothing),
            ),
            Outcome::new(name, what("durable POST"), "/s", None, durable),
            Outcome::new(name, what("noio POST"), "/s", None, nothing),
            Outcome::new(
                name,
                what("durable POST, server and PostgreSQL"),
                "µs",
                None,
                costs,
            ),
        ],
        plots: Vec::new(),
    })
}

/// One measurement on emptied tables: answers a second, and processor time of each.
async fn accept(
    bench: &mut Bench,
    stand: &Stand,
    server: &Running,
    name: &'static str,
    subject: &str,
    round: usize,
    connections: u32,
) -> Result<(f64, f64), Failure> {
    empty(stand).await?;
    let load = Load::closed("post", server.port, connections, bench.length);
    let meter = stand.meter(&[server]).await?;
    let report = bench.send(&load).await?;
    let used = meter.read(Some(&stand.database)).await?;
    let stored: i64 = stand.database.one("SELECT count(*) FROM tasks").await?;
    let round = bench.keep(name, subject, round, &report, &used);
    // What was stored and not answered before the end is no loss.
    round.lost = Some(
        report
            .accepted_in_all
            .saturating_sub(u64::try_from(stored)?),
    );
    Ok((report.answered_per_second, round.cost_micros()))
}

/// So that every round begins alike.
async fn empty(stand: &Stand) -> Result<(), Failure> {
    stand.database.execute("TRUNCATE tasks, queue").await?;
    stand.database.checkpoint().await
}

pub(super) async fn against_an_insert(bench: &mut Bench) -> Result<Finding, Failure> {
    const NAME: &str = "post-1";
    let stand = Stand::lay_out(bench, "post_1", RDKAFKA).await?;
    let server = stand.server(bench, &[]).await?;
    let insert = stand.plain_insert().await?;
    let (mut durable, mut plain) = (Vec::new(), Vec::new());
    for round in 1..=bench.rounds {
        for is_durable in in_turn(round, true, false) {
            let (subject, program, medians) = if is_durable {
                ("durable", &server, &mut durable)
            } else {
                ("insert", &insert, &mut plain)
            };
            bench.say(&format!("{NAME}, round {round}, {subject}"));
            empty(&stand).await?;
            let load = Load::closed("post", program.port, 1, bench.length);
            let meter = stand.meter(&[program]).await?;
            let report = bench.send(&load).await?;
            let used = meter.read(Some(&stand.database)).await?;
            bench.keep(NAME, subject, round, &report, &used);
            medians.push(report.answer_ms.p50);
        }
    }
    insert.process.kill().await?;
    stand.clear(vec![server]).await?;
    Ok(Finding {
        outcomes: vec![
            Outcome::new(
                NAME,
                "durable POST / one plain INSERT, p50, 1 connection",
                "×",
                Some(Bar::at_most(1.25, 1.1)),
                shares(&durable, &plain),
            ),
            Outcome::new(NAME, "durable POST, p50, 1 connection", "ms", None, durable),
            Outcome::new(
                NAME,
                "one plain INSERT, p50, 1 connection",
                "ms",
                None,
                plain,
            ),
        ],
        plots: Vec::new(),
    })
}
