//! Stores by themselves.

use std::path::PathBuf;

use super::{Finding, in_turn, shares};
use crate::bench::Bench;
use crate::database::url;
use crate::failure::Failure;
use crate::outcome::{Bar, Outcome};
use crate::stand::{RDKAFKA, Stand};
use crate::store_work::{BATCH, File, Lives};

pub(super) async fn sqlite(bench: &mut Bench) -> Result<Finding, Failure> {
    const NAME: &str = "sqlite";
    let (mut shared, mut alone) = (Vec::new(), Vec::new());
    for round in 1..=bench.rounds {
        for is_shared in in_turn(round, true, false) {
            let subject = if is_shared { "coalesced" } else { "one-by-one" };
            bench.say(&format!("{NAME}, round {round}, {subject}"));
            let path = bench.directory.join(format!("{NAME}-{round}-{subject}.db"));
            let file = File::open(&path).await?;
            if is_shared {
                shared.push(file.coalesced(bench.length).await?);
            } else {
                alone.push(file.one_by_one(bench.length).await?);
            }
            file.close().await;
            bench.step();
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
    let lives = Lives::begin(&url(port, NAME)).await?;
    let (mut records, mut images) = (Vec::new(), Vec::new());
    for round in 1..=bench.rounds {
        bench.say(&format!("{NAME}, round {round}"));
        // From here on the first change of each page writes the whole page.
        stand.database.checkpoint().await?;
        let begin = position(&stand).await?;
        for _ in 0..batches {
            lives.live().await?;
        }
        let written = written(bench, &stand, &begin).await?;
        let each = |bytes: f64| bytes / (batches * BATCH) as f64;
        records.push(each(written.records));
        images.push(each(written.images));
        bench.step();
    }
    lives.close().await;
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
        ],
        plots: Vec::new(),
    })
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
