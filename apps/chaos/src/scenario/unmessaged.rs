//! Rows as a server leaves them that dies between the commit and the publish, while all workers are busy with what has
//! messages.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, interval};

use super::{Finding, conclude};
use crate::failure::Failure;
use crate::judge::{Judgement, UNMESSAGED};
use crate::load::Mix;
use crate::measure::{Times, waits};
use crate::run::Options;
use crate::script::Script;
use crate::world::World;

/// Rows in every quarter of a second.
const ROWS: u64 = 5;
/// Their numbers begin where no request's does.
const FIRST: u64 = 1_000_000_000;

pub(super) async fn measure(world: &World, options: &Options) -> Result<Finding, Failure> {
    let load = world.load(options.rate, Mix::Healthy, options.seed);
    let database = world.database().await?;
    let start = Instant::now();
    let mut ticks = interval(Duration::from_millis(250));
    let mut number = FIRST;
    while start.elapsed() < options.length {
        ticks.tick().await;
        database
            .store(number..number + ROWS, "LOCALTIMESTAMP", true)
            .await?;
        number += ROWS;
    }
    database.close().await?;
    load.end().await?;
    let (facts, _, holds) = conclude(world).await?;
    let times = Times::of(facts.rows.iter().filter_map(|(id, row)| {
        (Script::parse(&row.payload)?.number >= FIRST).then_some(())?;
        Some(facts.runs.get(id)?.first()?.began - row.created_at)
    }));
    let judgement = UNMESSAGED.judge(&times);
    println!(
        "from the commit to the first run, no message: {}\n{judgement}",
        times.to_text()
    );
    let others = waits(&facts).all;
    println!("the others, with a message: {}", others.to_text());
    Ok(Finding {
        holds: holds && matches!(judgement, Judgement::Kept(_)),
        found: json!({ "unmessaged": times.to_json(), "others": others.to_json() }),
    })
}
