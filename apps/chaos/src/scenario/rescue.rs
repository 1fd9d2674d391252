//! One worker after the other is killed, nothing else is wrong.

use std::time::Duration;

use tokio::time::sleep;

use super::{Finding, conclude};
use crate::failure::Failure;
use crate::fleet::WORKERS;
use crate::judge::{Judgement, RESCUE};
use crate::load::Mix;
use crate::log::say;
use crate::measure::rescues;
use crate::nemesis::{Fault, act};
use crate::run::Options;
use crate::world::World;

/// Between two deaths; a rescue takes half of it.
const APART: Duration = Duration::from_secs(12);

pub(super) async fn measure(world: &World, options: &Options) -> Result<Finding, Failure> {
    let load = world.load(options.rate, Mix::Varied, options.seed);
    sleep(APART).await;
    let rounds = (options.length.as_secs() / (APART.as_secs() + 3)).max(1);
    for round in 0..rounds {
        let fault = Fault::KillWorker {
            index: usize::try_from(round)? % WORKERS,
            down: Duration::from_secs(2),
        };
        say(&fault.to_string());
        act(world, fault).await?;
        sleep(APART).await;
    }
    load.end().await?;
    let (facts, _, holds) = conclude(world).await?;
    let (_, times) = rescues(&facts);
    let judgement = RESCUE.judge(&times);
    println!(
        "from a worker's death to its tasks' next run: {}\n{judgement}",
        times.to_text()
    );
    Ok(Finding {
        holds: holds && matches!(judgement, Judgement::Kept(_)),
        found: times.to_json(),
    })
}
