//! The promised numbers, each measured by itself. Every scenario ends with the whole check, too.

mod neighbours;
mod outage;
mod planted;
mod rescue;
mod unmessaged;
mod wiped;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::check::{Facts, check};
use crate::failure::Failure;
use crate::fleet::Role;
use crate::log::say;
use crate::measure::memory;
use crate::run::{Options, gather};
use crate::watch::Seen;
use crate::world::{HALVES, World};

/// A number that is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// Tasks of a worker that died run elsewhere: p99 at most 10 s.
    Rescue,
    /// Tasks whose message was lost are claimed: p99 at most 5 s.
    Unmessaged,
    /// Tasks whose message went with a wiped `tasks-input`, or one made anew, are claimed: p99 at most 5 s; later messages are read.
    Wiped,
    /// Contradictions planted in the books are repaired within 30 s, also beside 100,000 waiting tasks.
    Planted,
    /// With 1 % poison and 1 % tasks of 30 s among 500 a second, the p99 of the others is within 10 % of without, over all rounds.
    Neighbours,
    /// 60 s without PostgreSQL burn no attempt, kill no worker and need no restart.
    Outage,
}

/// Measures it, prints it, and says whether it is as promised.
///
/// # Errors
/// When it cannot be measured.
pub async fn measure(scenario: Scenario, options: &Options) -> Result<bool, Failure> {
    let halves = match scenario {
        Scenario::Wiped => &HALVES[..],
        _ => &HALVES[..1],
    };
    let world = Arc::new(World::start(&options.binaries, &options.directory, halves).await?);
    let finding = match scenario {
        Scenario::Rescue => rescue::measure(&world, options).await?,
        Scenario::Unmessaged => unmessaged::measure(&world, options).await?,
        Scenario::Wiped => wiped::measure(&world, options).await?,
        Scenario::Planted => planted::measure(&world, options).await?,
        Scenario::Neighbours => neighbours::measure(&world, options).await?,
        Scenario::Outage => outage::measure(&world, options).await?,
    };
    if let Ok(world) = Arc::try_unwrap(world) {
        world.end().await;
    }
    println!(
        "{}",
        json!({
            "scenario": format!("{scenario:?}").to_lowercase(),
            "holds": finding.holds,
            "found": finding.found,
        })
    );
    Ok(finding.holds)
}

/// What a scenario found.
struct Finding {
    holds: bool,
    found: Value,
}

/// Waits until all is at rest, checks every promise, prints what broke, and answers whether none did.
async fn conclude(world: &World) -> Result<(Facts, Seen, bool), Failure> {
    say("waiting until all is at rest");
    world.rest().await?;
    let facts = gather(world).await?;
    let mut violations = check(&facts).violations;
    let seen = world.watcher.seen();
    for (name, role) in [("servers", Role::Server), ("workers", Role::Worker)] {
        if let Some(memory) = memory(&seen.memory, &facts.history.windows, role) {
            println!("memory, {name}: {}", memory.to_text());
            violations.extend(memory.violations());
        }
    }
    for violation in violations.iter().take(20) {
        println!("BROKEN: {}: {}", violation.promise, violation.what);
    }
    Ok((facts, seen, violations.is_empty()))
}
