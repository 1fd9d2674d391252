//! Contradictions planted in the books while tasks flow: in books with little in them, and in a long queue.

use std::time::Duration;

use serde_json::{Map, json};
use tokio::time::sleep;

use super::{Finding, conclude};
use crate::database::Database;
use crate::failure::Failure;
use crate::load::Mix;
use crate::log::say;
use crate::plant::{GIVE_UP, PLANTS, Plant, in_small_tables, plant};
use crate::run::Options;
use crate::world::World;

const LIMIT: Duration = Duration::from_secs(30);
/// How many tasks wait for another day in the long queue.
const WAITING: u64 = 100_000;
/// Their numbers begin where no request's and no plant's does.
const FIRST: u64 = 3_000_000_000;
/// How often the small tables are planted in beside the long queue: the walk of the queue is somewhere else each time.
const ROUNDS_AT_LENGTH: u64 = 3;

pub(super) async fn measure(world: &World, options: &Options) -> Result<Finding, Failure> {
    let load = world.load(options.rate, Mix::Healthy, options.seed);
    let database = world.database().await?;
    sleep(Duration::from_secs(5)).await;
    let all: Vec<&Plant> = PLANTS.iter().collect();
    let rounds = (options.length.as_secs() / 20).max(1);
    let mut found = Map::new();
    let mut seeds = (0..).step_by(PLANTS.len());
    let mut planted = plant_rounds(&database, &all, rounds, &mut seeds).await?;
    report("little waits", &planted, &mut found);

    say(&format!("{WAITING} tasks for another day"));
    put_off(&database).await?;
    let small = in_small_tables();
    let at_length = plant_rounds(&database, &small, ROUNDS_AT_LENGTH, &mut seeds).await?;
    report("much waits", &at_length, &mut found);
    call_off(&database).await?;
    planted.extend(at_length);

    database.close().await?;
    load.end().await?;
    let (_, seen, holds) = conclude(world).await?;
    let owed: u64 = planted.iter().map(|round| round.repairs).sum();
    let counted = seen.total("contradictions_repaired");
    println!("repairs counted: {counted}, at least {owed} were to be");
    found.insert("repairsOwed".to_owned(), json!(owed));
    found.insert("repairsCounted".to_owned(), json!(counted));
    let in_time = planted.iter().all(|plant| plant.slowest <= LIMIT);
    Ok(Finding {
        holds: holds && in_time && counted >= owed,
        found: found.into(),
    })
}

/// What came of one kind of contradiction.
struct Planted {
    name: &'static str,
    slowest: Duration,
    repairs: u64,
}

async fn plant_rounds(
    database: &Database,
    plants: &[&Plant],
    rounds: u64,
    seeds: &mut impl Iterator<Item = u64>,
) -> Result<Vec<Planted>, Failure> {
    let mut all: Vec<Planted> = plants
        .iter()
        .map(|plant| Planted {
            name: plant.name,
            slowest: Duration::ZERO,
            repairs: plant.repairs * rounds,
        })
        .collect();
    for (round, seed) in (1..=rounds).zip(seeds) {
        say(&format!("planting, round {round} of {rounds}"));
        let took = plant(database, plants, seed).await?;
        for (planted, took) in all.iter_mut().zip(took) {
            planted.slowest = planted.slowest.max(took.unwrap_or(GIVE_UP));
        }
    }
    Ok(all)
}

fn report(when: &str, planted: &[Planted], found: &mut Map<String, serde_json::Value>) {
    for plant in planted {
        let slowest = plant.slowest.as_secs_f64();
        let name = format!("{}; {when}", plant.name);
        println!("{name:<58} repaired after at most {slowest:.1} s");
        found.insert(name, json!(slowest));
    }
}

/// Fills the queue with tasks whose time comes on another day.
async fn put_off(database: &Database) -> Result<(), Failure> {
    let tomorrow = "LOCALTIMESTAMP + interval '1 day'";
    database
        .store(FIRST..FIRST + WAITING, tomorrow, false)
        .await
}

/// Takes them out again: the day does not come while this runs.
async fn call_off(database: &Database) -> Result<(), Failure> {
    database
        .execute(
            "WITH put_off AS (
                DELETE FROM queue WHERE not_before > LOCALTIMESTAMP + interval '1 hour' RETURNING task_id
            )
            DELETE FROM tasks USING put_off WHERE id = task_id",
        )
        .await?;
    Ok(())
}
