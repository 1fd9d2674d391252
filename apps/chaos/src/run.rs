//! A whole run: start, rage, change over, rage, rest, look.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::check::{Facts, check};
use crate::clock;
use crate::failure::Failure;
use crate::history::Part;
use crate::load::Mix;
use crate::log::say;
use crate::nemesis::{die_alone, rage, schedule};
use crate::redis::Redis;
use crate::report::{Outline, Report};
use crate::topics::{self, Stranger};
use crate::world::{HALVES, World};
use crate::{run_log, script};

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the programs are.
    pub binaries: PathBuf,
    /// Where data and logs go; must be empty.
    pub directory: PathBuf,
    /// How long the faults last, both halves and the change between them together.
    pub length: Duration,
    /// Decides what is done to whom and when.
    pub seed: u64,
    /// Requests a second.
    pub rate: u32,
    /// Something to spoil in the middle of it, to see that the checker objects.
    pub sabotage: Option<Sabotage>,
}

/// A promise that is broken on purpose, from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Sabotage {
    /// A done task's row is deleted.
    Lose,
    /// A second, other result of a done task is announced.
    Announce,
    /// A done task's result is overwritten, as by a worker that comes too late.
    Overwrite,
    /// A task is counted twice in the totals.
    Count,
}

/// How long the change between the halves may take of the time of a run.
const CHANGE: Duration = Duration::from_secs(10);
/// How much of a half belongs to the death of a worker with nothing else wrong.
const ALONE: Duration = Duration::from_secs(14);
/// A run that is so long ends with a stretch in which nothing is wrong, so that the growth of memory can be judged.
const LONG: Duration = Duration::from_secs(20 * 60);
const CALM: Duration = Duration::from_secs(200);

/// Runs it, prints the report, and says whether every promise held.
///
/// # Errors
/// When the run cannot be made: a service does not start, or what is to be looked at cannot be read.
pub async fn run(options: &Options) -> Result<bool, Failure> {
    let calm = if options.length < LONG {
        Duration::ZERO
    } else {
        CALM
    };
    let half = options.length.saturating_sub(CHANGE + calm) / 2;
    let storm = half.saturating_sub(ALONE).max(Duration::from_secs(10));
    let schedule = schedule(options.seed, storm, HALVES.len());
    let world = Arc::new(World::start(&options.binaries, &options.directory, &HALVES).await?);
    let began = Instant::now();
    let load = world.load(options.rate, Mix::Varied, options.seed);
    for (number, (half_of, faults)) in HALVES.iter().zip(&schedule).enumerate() {
        if number > 0 {
            say(&format!("all programs change to {}", half_of.client));
            let from = clock::now();
            world.change_over(number, half_of.client).await?;
            world
                .history
                .over("programs changed over", Part::Servers, from);
            world
                .history
                .over("programs changed over", Part::Workers, from);
        }
        say(&format!(
            "{} with Kafka {}: {} faults in {} s",
            half_of.client,
            half_of.major,
            faults.len(),
            storm.as_secs()
        ));
        rage(&world, faults, storm).await?;
        die_alone(&world, number).await?;
        if number == 0
            && let Some(sabotage) = options.sabotage
        {
            spoil(&world, sabotage).await?;
        }
    }
    say("no more faults; the last requests");
    sleep(Duration::from_secs(2) + calm).await;
    load.end().await?;
    let raged = began.elapsed();
    world.rest().await?;
    let rested = began.elapsed() - raged;
    say("looking at everything");
    let facts = gather(&world).await?;
    let verdict = check(&facts);
    let report = Report::new(
        Outline {
            seed: options.seed,
            rate: options.rate,
            raged,
            rested,
            // And the death at the end of each half.
            faults: schedule.iter().map(Vec::len).sum::<usize>() + HALVES.len(),
        },
        &facts,
        &world.watcher.seen(),
        verdict,
    );
    if let Ok(world) = Arc::try_unwrap(world) {
        world.end().await;
    }
    report.print();
    Ok(report.holds())
}

/// Looks at everything there is.
pub(crate) async fn gather(world: &World) -> Result<Facts, Failure> {
    // The last scrape of the counters.
    sleep(Duration::from_secs(3)).await;
    let database = world.database().await?;
    let rows = database.rows().await?;
    database.close().await?;
    let mut outputs: HashMap<Uuid, Vec<String>> = HashMap::new();
    let mut letters = Vec::new();
    for kafka in &world.kafkas {
        for value in topics::read_all(kafka.port, "tasks-output").await? {
            let text = String::from_utf8_lossy(&value).into_owned();
            let json: Value = serde_json::from_str(&text).unwrap_or_default();
            match json["taskId"].as_str().and_then(|id| id.parse().ok()) {
                Some(id) => outputs.entry(id).or_default().push(text),
                None => world
                    .history
                    .surprise(format!("tasks-output holds {text:?}")),
            }
        }
        for value in topics::read_all(kafka.port, "tasks-dead-letter").await? {
            letters.push(serde_json::from_slice(&value)?);
        }
    }
    let keys: Vec<String> = rows.keys().map(|id| format!("task:result:{id}")).collect();
    let values = Redis::connect(world.redis.port)
        .await?
        .get_all(&keys)
        .await?;
    let cached = rows
        .keys()
        .zip(values)
        .filter_map(|(id, value)| Some((*id, value?)))
        .collect();
    let mut metrics = Vec::new();
    for server in &world.servers {
        let answer = server.client.get("/metrics", "application/json").await;
        let answer = answer.map_or(Value::Null, |answer| answer.json());
        metrics.push((server.place(), answer));
    }
    Ok(Facts {
        entries: world.ledger.copy(),
        reads: world.ledger.reads(),
        rows,
        runs: run_log::read_all(&world.workshop.directory)?,
        outputs,
        letters,
        cached,
        metrics,
        verified: world.verify().await?,
        history: world.history.read(),
    })
}

async fn spoil(world: &World, sabotage: Sabotage) -> Result<(), Failure> {
    say(&format!("SABOTAGE: {sabotage:?}"));
    let database = world.database().await?;
    let victim: Uuid = database
        .one("SELECT id FROM tasks WHERE status = 'done' ORDER BY id LIMIT 1")
        .await?;
    let sql = match sabotage {
        Sabotage::Lose => format!("DELETE FROM tasks WHERE id = '{victim}'"),
        Sabotage::Overwrite => {
            let late = script::Script::parse(
                &database
                    .one::<String>(&format!("SELECT payload FROM tasks WHERE id = '{victim}'"))
                    .await?,
            )
            .map_or_else(String::new, |script| script.result(1, 99));
            format!("UPDATE tasks SET result = '{late}' WHERE id = '{victim}'")
        }
        Sabotage::Count => "UPDATE totals SET done = done + 1 WHERE shard = 0".to_owned(),
        Sabotage::Announce => {
            let record = format!(
                "{{\"taskId\":\"{victim}\",\"result\":\"another\",\"processedAt\":\"2025-01-01T00:00:00.000Z\"}}"
            );
            let sent = Stranger::at(world.kafka().doors[0].port)?
                .send("tasks-output", &victim.to_string(), &record)
                .await;
            if sent.is_none() {
                return Err("the other result could not be announced".into());
            }
            return database.close().await;
        }
    };
    database.execute(&sql).await?;
    database.close().await
}
