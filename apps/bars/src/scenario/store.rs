//! Stores by themselves.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Finding, in_turn, shares};
use crate::bench::Bench;
use crate::database::url;
use crate::failure::Failure;
use crate::outcome::{Bar, Outcome, Round};
use crate::stand::{RDKAFKA, Stand};
use crate::store_work::{BATCH, File, Lives};

/// How long PostgreSQL may take to count what a session that ended has done.
const TELL_LIMIT: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(50);

pub(super) async fn sqlite(bench: &mut Bench) -> Result<Finding, Failure> {
    const NAME: &str = "sqlite";
    let (mut shared, mut alone) = (Vec::new(), Vec::new());
    for round in 1..=bench.rounds {
        for is_shared in in_turn(round, true, false) {
            let subject = if is_shared { "coalesced" } else { "one-by-one" };
            bench.say(&format!("{NAME}, round {round}, {subject}"));
            let path = bench.directory.join(format!("{NAME}-{round}-{subject}.db"));
            let file = File::open(&path).await?;
            let (per_second, samples) = if is_shared {
                (file.coalesced(bench.length).await?, &mut shared)
            } else {
                (file.one_by_one(bench.length).await?, &mut alone)
            };
            file.close().await;
            samples.push(per_second);
            bench.keep_round(Round {
                scenario: NAME,
                subject: subject.to_owned(),
                round,
                per_second,
                ..Round::default()
            });
        }
    }
    Ok(Finding {
        outcomes: vec![
            Outcome::new(
                NAME,
                "SQLite FULL, 64 producers, coalesced / one by one",
                "×",
                Some(Bar::at_least(15.0, 20.0)),
                shares(&shared, &alone),
            ),
            Outcome::new(NAME, "SQLite FULL, coalesced", "/s", None, shared),
            Outcome::new(NAME, "SQLite FULL, one by one", "/s", None, alone),
        ],
        plots: Vec::new(),
    })
}

pub(super) async fn wal(bench: &mut Bench) -> Result<Finding, Failure> {
    const NAME: &str = "wal";
    let batches = if bench.smoke { 4 } else { 100 };
    let stand = Stand::lay_out(bench, NAME, RDKAFKA).await?;
    let (port, _) = bench.postgres().await?;
    let tasks = batches * BATCH;
    // Or the checkpoint after a round throws away what it is about to read, where earlier scenarios have filled the log.
    for sql in [
        "ALTER SYSTEM SET wal_keep_size = '4GB'",
        "SELECT pg_reload_conf()",
    ] {
        stand.database.execute(sql).await?;
    }
    let (mut records, mut images, mut hot) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=bench.rounds {
        bench.say(&format!("{NAME}, round {round}"));
        let lives = Lives::begin(&url(port, NAME)).await?;
        let updates_before = stand.database.updates().await?;
        // From here on the first change of each page writes the whole page.
        stand.database.checkpoint().await?;
        let (begin, since) = (position(&stand).await?, Instant::now());
        for _ in 0..batches {
            lives.live().await?;
        }
        let elapsed = since.elapsed().as_secs_f64();
        let written = written(bench, &stand, &begin).await?;
        lives.close().await;
        let each = |bytes: f64| bytes / tasks as f64;
        records.push(each(written.records));
        images.push(each(written.images));
        let share = hot_share(&stand, updates_before, tasks).await?;
        hot.push(share);
        let round = bench.keep_round(Round {
            scenario: NAME,
            subject: "whole lives".to_owned(),
            round,
            per_second: tasks as f64 / elapsed,
            count: u64::try_from(tasks)?,
            wal_bytes_each: Some(each(written.records)),
            ..Round::default()
        });
        round.more.extend([
            ("fullPageImageBytesEach".to_owned(), each(written.images)),
            ("hotShare".to_owned(), share),
        ]);
    }
    stand.clear(Vec::new()).await?;
    Ok(Finding {
        outcomes: vec![
            Outcome::new(
                NAME,
                "write-ahead log per task, batches of 500, without full-page images",
                "bytes",
                Some(Bar::at_most(1_150.0, 950.0)),
                records,
            ),
            Outcome::new(
                NAME,
                "full-page images per task, right after a checkpoint",
                "bytes",
                None,
                images,
            ),
            Outcome::new(
                NAME,
                "updates of tasks that stay on their page (HOT)",
                "",
                Some(Bar::at_least(0.80, 0.84)),
                hot,
            ),
        ],
        plots: Vec::new(),
    })
}

/// The share of updates that stayed on their page. A session tells of its updates when it ends, and each task has two:
/// claimed, and done.
async fn hot_share(stand: &Stand, before: (i64, i64), tasks: usize) -> Result<f64, Failure> {
    let deadline = Instant::now() + TELL_LIMIT;
    let expected = i64::try_from(2 * tasks)?;
    loop {
        let now = stand.database.updates().await?;
        let (all, hot) = (now.0 - before.0, now.1 - before.1);
        if all >= expected {
            return Ok(hot as f64 / all as f64);
        }
        if Instant::now() > deadline {
            return Err(format!("PostgreSQL counted {all} updates, not {expected}").into());
        }
        sleep(PAUSE).await;
    }
}

async fn position(stand: &Stand) -> Result<String, Failure> {
    stand
        .database
        .one("SELECT pg_current_wal_insert_lsn()::text")
        .await
}

#[derive(Debug, PartialEq)]
struct Written {
    records: f64,
    images: f64,
}

/// Asks PostgreSQL's own program, which tells records and full-page images apart.
async fn written(bench: &Bench, stand: &Stand, begin: &str) -> Result<Written, Failure> {
    // A checkpoint writes everything out, and is a record of a hundred bytes itself.
    let end = position(stand).await?;
    stand.database.checkpoint().await?;
    let programs: String = stand
        .database
        .one("SELECT setting FROM pg_config WHERE name = 'BINDIR'")
        .await?;
    let log = bench.directory.join("postgres/data/pg_wal");
    let output = tokio::process::Command::new(PathBuf::from(programs).join("pg_waldump"))
        .arg("--path")
        .arg(&log)
        .args(["--stats", "--start", begin, "--end", &end])
        .output()
        .await?;
    let text = String::from_utf8_lossy(&output.stdout);
    total(&text).ok_or_else(|| {
        let error = String::from_utf8_lossy(&output.stderr);
        format!("pg_waldump: {}: {error}{text}", output.status).into()
    })
}

/// The last line: `Total  <count>  <record bytes> [share]  <image bytes> [share]  <bytes> [share]`.
fn total(text: &str) -> Option<Written> {
    let line = text.lines().rfind(|line| line.starts_with("Total"))?;
    let mut numbers = line
        .split_whitespace()
        .filter_map(|word| word.parse::<f64>().ok())
        .skip(1);
    Some(Written {
        records: numbers.next()?,
        images: numbers.next()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_and_images_are_told_apart() {
        let text = "Type  N\nHeap  2 ( 50.00)  100 ( 50.00)  0 (  0.00)  100 ( 2.00)\n       --------\n\
            Total    4            200 [4.00%]     4800 [96.00%]      5000 [100%]\n";
        let expected = Written {
            records: 200.0,
            images: 4_800.0,
        };
        assert_eq!(total(text), Some(expected));
        assert_eq!(total("nothing"), None);
    }
}
