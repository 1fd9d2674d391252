//! What a user notices of a table that has become long.

use std::path::Path;

use super::flow::{CONNECTIONS, Works};
use super::reads::each_once;
use super::{Finding, in_turn, shares};
use crate::bench::Bench;
use crate::failure::Failure;
use crate::generator::Load;
use crate::outcome::{Bar, Outcome};
use crate::stand::{RDKAFKA, Stand};

const NAME: &str = "growth";
/// So many measurements of load before each turn: programs are new, services are warm.
const WARM_LENGTHS: u32 = 1;
/// More than can be read in one measurement at one connection.
const PATHS: u64 = 50_000;
/// What is measured, how, and in what.
const MEASURES: [(&str, &str, &str); 4] = [
    ("POST", "p50 at 1 connection", "ms"),
    ("GET in no cache", "p50 at 1 connection", "ms"),
    ("a page of 100", "p50 at 1 connection", "ms"),
    ("tasks end to end", "64 connections", "/s"),
];

/// A table, what is read of it, and what was measured: for each of `MEASURES` one sample a round.
struct Side {
    subject: &'static str,
    rows: u64,
    samples: [Vec<f64>; MEASURES.len()],
}

impl Side {
    fn of(subject: &'static str, rows: u64) -> Self {
        Self {
            subject,
            rows,
            samples: MEASURES.map(|_| Vec::new()),
        }
    }
}

pub(super) async fn run(bench: &mut Bench) -> Result<Finding, Failure> {
    let many = if bench.smoke { 200_000 } else { 10_000_000 };
    let mut sides = [Side::of("short", PATHS), Side::of("long", many)];
    let mut stands = Vec::new();
    for side in &sides {
        let stand = Stand::lay_out(bench, &format!("growth_{}", side.subject), RDKAFKA).await?;
        bench.say(&format!("{NAME}, filling {} rows", side.rows));
        stand.database.seed(side.rows).await?;
        stands.push(stand);
    }
    let page = bench.directory.join("growth.paths");
    std::fs::write(&page, "/tasks?status=done&limit=100\n")?;
    for round in 1..=bench.rounds {
        for which in in_turn(round, 0, 1) {
            // Both have the same topics, so one lives at a time.
            let stand = stands.remove(which);
            stand.tidy().await?;
            let works = Works::start(bench, stand, WARM_LENGTHS).await?;
            turn(bench, &works, &mut sides[which], round, &page).await?;
            stands.insert(which, works.stop().await?);
        }
    }
    for stand in stands {
        stand.clear(Vec::new()).await?;
    }
    let [short, long] = sides;
    let mut outcomes = Vec::new();
    let both = short.samples.into_iter().zip(long.samples);
    for ((what, how, unit), (at_short, at_long)) in MEASURES.into_iter().zip(both) {
        // Above one is slower at many rows, whichever way it is measured.
        let (of, ratios) = if unit == "/s" {
            ("50,000 rows / 10 M", shares(&at_short, &at_long))
        } else {
            ("10 M rows / 50,000", shares(&at_long, &at_short))
        };
        outcomes.extend([
            Outcome::new(
                NAME,
                format!("{what}, {how}, {of}"),
                "×",
                Some(Bar::at_most(1.2, 1.05)),
                ratios,
            ),
            Outcome::new(
                NAME,
                format!("{what}, {how}, 10 M rows"),
                unit,
                None,
                at_long,
            ),
        ]);
    }
    Ok(Finding {
        outcomes,
        plots: Vec::new(),
    })
}

async fn turn(
    bench: &mut Bench,
    works: &Works,
    side: &mut Side,
    round: usize,
    page: &Path,
) -> Result<(), Failure> {
    let paths = works.stand.paths(side.rows, PATHS).await?;
    let port = works.server.port;
    let loads = [
        Load::closed("post", port, 1, bench.length),
        Load::reading(&paths, port, 1, bench.length),
        Load::reading(page, port, 1, bench.length),
    ];
    for ((load, (what, ..)), samples) in loads.iter().zip(MEASURES).zip(&mut side.samples) {
        let subject = format!("{}, {what}", side.subject);
        bench.say(&format!("{NAME}, round {round}, {subject}"));
        let meter = works.stand.meter(&[&works.server, &works.worker]).await?;
        let report = bench.send(load).await?;
        let used = meter.read(None).await?;
        bench.keep(NAME, &subject, round, &report, &used);
        if load.paths == Some(paths.as_path()) {
            each_once(&report, PATHS)?;
        }
        samples.push(report.answer_ms.p50);
        works.until_at_rest().await?;
    }
    bench.say(&format!("{NAME}, round {round}, {}, flow", side.subject));
    let load = Load::closed("post", port, CONNECTIONS, bench.length);
    let flow = works
        .stretch(bench, NAME, side.subject, round, &load)
        .await?;
    side.samples[3].push(flow.per_second);
    Ok(())
}
