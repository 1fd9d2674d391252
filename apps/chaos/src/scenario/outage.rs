//! PostgreSQL gone for a minute: first killed, then silent.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use super::{Finding, conclude};
use crate::failure::Failure;
use crate::load::Mix;
use crate::log::say;
use crate::nemesis::{Fault, Target, Way, act};
use crate::run::Options;
use crate::world::World;

const AWAY: Duration = Duration::from_secs(60);
/// For the watchers of beats to be wrong in, if they are.
const AFTER: Duration = Duration::from_secs(20);

pub(super) async fn measure(world: &World, options: &Options) -> Result<Finding, Failure> {
    let load = world.load(options.rate, Mix::Varied, options.seed);
    sleep(Duration::from_secs(10)).await;
    let workers = registered(world).await?;
    let pids = |world: &World| -> Vec<u32> {
        let pids = world.slots().map(|slot| slot.pid.load(Ordering::Relaxed));
        pids.collect()
    };
    let processes = pids(world);
    for fault in [
        Fault::Kill {
            target: Target::Postgres,
            down: AWAY,
        },
        Fault::Disturb {
            target: Target::Postgres,
            way: Way::Silent,
            time: AWAY,
        },
    ] {
        say(&fault.to_string());
        act(world, fault).await?;
        sleep(AFTER).await;
    }
    let workers_after = registered(world).await?;
    let processes_after = pids(world);
    load.end().await?;
    let (facts, seen, holds) = conclude(world).await?;
    let burnt = crate::check::check(&facts).burnt;
    let rescued: u64 = facts.rows.values().map(|row| u64::from(row.rescues)).sum();
    let outlived = seen.total("worker_outlived");
    let dead = workers != workers_after;
    let restarted = processes != processes_after;
    println!(
        "attempts burnt: {burnt}; tasks taken back: {rescued}; workers declared dead: {outlived}; \
         registered as before: {}; processes as before: {}",
        !dead, !restarted
    );
    Ok(Finding {
        holds: holds && burnt == 0 && rescued == 0 && outlived == 0 && !dead && !restarted,
        found: json!({
            "attemptsBurnt": burnt,
            "tasksTakenBack": rescued,
            "workersDeclaredDead": outlived,
            "registryChanged": dead,
            "restarts": restarted,
        }),
    })
}

async fn registered(world: &World) -> Result<String, Failure> {
    let database = world.database().await?;
    let ids = database
        .one(
            "SELECT coalesce(string_agg(id::text || dead::text, ' ' ORDER BY id), '') FROM workers",
        )
        .await?;
    database.close().await?;
    Ok(ids)
}
