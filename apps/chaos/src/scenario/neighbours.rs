//! Rounds with and without poison and slow tasks, in turn.
//!
//! What is judged is the p99 of all rounds with, against that of all rounds without. The p99 of one round hangs on its slowest
//! hundred tasks, and those are the ones that were under way in two or three stalls of the machine (a checkpoint, a neighbour of
//! the virtual machine): pairs of rounds on a quiet machine gave ratios from 0.7 to 1.2. Over many short rounds in turn both
//! sides have their share of stalls.

use std::fmt;
use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use super::{Finding, conclude};
use crate::clock;
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
/// Load before the first round: until then the Java of the broker is busy with translating itself, and takes the processors from all.
const WARM_UP: Duration = Duration::from_secs(150);
/// How long every round is measured.
const MEASURED: Duration = Duration::from_secs(20);
/// Until so many slow tasks are in hand as there will be.
const RAMP: Duration = Duration::from_secs(32);
/// A round without them has only to be under way.
const START: Duration = Duration::from_secs(8);
/// Two rounds, and the wait for the slow tasks after one of them.
const PAIR: Duration = Duration::from_secs(115);

struct Round {
    mix: Mix,
    from: i64,
    to: i64,
}

pub(super) async fn measure(world: &World, options: &Options) -> Result<Finding, Failure> {
    let pairs = (options.length.as_secs() / PAIR.as_secs()).max(1);
    say("warming up");
    let load = world.load(RATE, Mix::Stuck, options.seed.wrapping_neg());
    sleep(WARM_UP).await;
    load.end().await?;
    world.rest().await?;
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
            let load = world.load(RATE, mix, options.seed + rounds.len() as u64);
            sleep(if mix == Mix::Stuck { RAMP } else { START }).await;
            let from = clock::now();
            sleep(MEASURED).await;
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
            times(&|round: &Round| {
                round.mix == mix && pair.iter().any(|own| own.from == round.from)
            })
        };
        let ratio = Ratio::of(&of(Mix::Healthy), &of(Mix::Stuck));
        println!("a pair of rounds, not judged: {ratio}");
        ratios.push(ratio.value());
    }
    let without = times(&|round: &Round| round.mix == Mix::Healthy);
    let with = times(&|round: &Round| round.mix == Mix::Stuck);
    println!("without: {}", without.to_text());
    println!("with:    {}", with.to_text());
    let ratio = Ratio::of(&without, &with);
    println!("all rounds: {ratio}");
    Ok(Finding {
        holds: holds && ratio.is_kept(),
        found: json!({
            "pairs": ratios,
            "ratio": ratio.value(),
            "without": without.to_json(),
            "with": with.to_json(),
        }),
    })
}

/// Two p99s, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ratio {
    without: Option<f64>,
    with: Option<f64>,
}

impl Ratio {
    fn of(without: &Times, with: &Times) -> Self {
        Self {
            without: without.percentile(99.0),
            with: with.percentile(99.0),
        }
    }

    fn value(self) -> Option<f64> {
        Some(self.with? / self.without?)
    }

    /// What was not measured is not kept.
    fn is_kept(self) -> bool {
        self.value().is_some_and(|ratio| ratio <= LIMIT)
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.without, self.with, self.value()) {
            (Some(without), Some(with), Some(ratio)) => write!(
                formatter,
                "healthy tasks' p99 {without:.1} ms without, {with:.1} ms with, ratio {ratio:.3}"
            ),
            _ => formatter.write_str("nothing was measured"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A round of 10,000 tasks, of which so many met a stall.
    fn round(millis: i64, stalled: usize) -> impl Iterator<Item = i64> {
        let usual = std::iter::repeat_n(millis * 1_000, 10_000 - stalled);
        usual.chain(std::iter::repeat_n(400_000, stalled))
    }

    fn is_kept(
        without: impl IntoIterator<Item = i64>,
        with: impl IntoIterator<Item = i64>,
    ) -> bool {
        Ratio::of(&Times::of(without), &Times::of(with)).is_kept()
    }

    #[test]
    fn more_than_a_tenth_slower_is_red() {
        assert!(is_kept(round(40, 0), round(44, 0)));
        assert!(!is_kept(round(40, 0), round(45, 0)));
        assert!(is_kept(round(40, 0), round(20, 0)), "nothing is lost");
        assert!(!is_kept(round(40, 0), round(40, 150)), "stalls of its own");
        assert!(!is_kept([], round(40, 0)), "nothing to compare with");
        assert!(!is_kept(round(40, 0), []), "nothing was done");
    }

    #[test]
    fn the_stalls_of_one_round_do_not_decide() {
        let with = || (0..5).flat_map(|number| round(41, if number == 2 { 150 } else { 0 }));
        let without = || (0..5).flat_map(|_| round(40, 0));
        assert!(!is_kept(round(40, 0), round(41, 150)));
        assert!(is_kept(without(), with()));
    }
}
