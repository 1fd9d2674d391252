//! Rounds with and without poison and slow tasks, in turn.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use super::{Finding, conclude};
use crate::clock::{self, SECOND};
use crate::failure::Failure;
use crate::load::Mix;
use crate::log::say;
use crate::measure::Times;
use crate::run::Options;
use crate::script::{End, Script};
use crate::world::World;

/// The contract of the scenario is for this many a second.
const RATE: u32 = 500;
/// The promise: within 10 %.
const LIMIT: f64 = 1.10;
const ROUND: Duration = Duration::from_secs(60);
/// Until so many slow tasks are in hand as there will be; the time of both kinds of rounds begins after it.
const RAMP: i64 = 32 * SECOND;

struct Round {
    mix: Mix,
    from: i64,
    to: i64,
}

pub(super) async fn measure(world: &World, options: &Options) -> Result<Finding, Failure> {
    let pairs = (options.length.as_secs() / 150).max(1);
    let mut rounds = Vec::new();
    for pair in 0..pairs {
        // Whatever comes first, comes second in the next pair.
        let mixes = if pair % 2 == 0 {
            [Mix::Healthy, Mix::Stuck]
        } else {
            [Mix::Stuck, Mix::Healthy]
        };
        for mix in mixes {
            say(&format!("pair {} of {pairs}: {mix:?}", pair + 1));
            let from = clock::now() + RAMP;
            let load = world.load(RATE, mix, options.seed + rounds.len() as u64);
            sleep(ROUND).await;
            let to = clock::now();
            load.end().await?;
            rounds.push(Round { mix, from, to });
            world.rest().await?;
        }
    }
    let (facts, _, holds) = conclude(world).await?;
    let times = |wanted: &dyn Fn(&Round) -> bool| {
        let rounds: Vec<&Round> = rounds.iter().filter(|round| wanted(round)).collect();
        Times::of(facts.rows.values().filter_map(|row| {
            let script = Script::parse(&row.payload)?;
            let is_healthy = script.end == End::Success && script.sleep.is_zero();
            let in_time = rounds
                .iter()
                .any(|round| (round.from..round.to).contains(&row.created_at));
            (is_healthy && in_time && row.status == "done")
                .then_some(row.updated_at - row.created_at)
        }))
    };
    let mut ratios = Vec::new();
    for pair in rounds.chunks(2) {
        let of = |mix: Mix| {
            let times = times(&|round: &Round| {
                round.mix == mix && pair.iter().any(|own| own.from == round.from)
            });
            times.percentile(99.0).unwrap_or(f64::NAN)
        };
        let (without, with) = (of(Mix::Healthy), of(Mix::Stuck));
        println!("healthy tasks' p99: {without:.1} ms without, {with:.1} ms with");
        ratios.push(with / without);
    }
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ratios.len() / 2];
    let without = times(&|round: &Round| round.mix == Mix::Healthy);
    let with = times(&|round: &Round| round.mix == Mix::Stuck);
    println!("without: {}", without.to_text());
    println!("with:    {}", with.to_text());
    println!("ratio of the p99s, median of the pairs: {median:.3}");
    Ok(Finding {
        holds: holds && median <= LIMIT,
        found: json!({
            "ratios": ratios,
            "median": median,
            "without": without.to_json(),
            "with": with.to_json(),
        }),
    })
}
